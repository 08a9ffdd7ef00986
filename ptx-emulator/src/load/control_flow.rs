//! Control-flow graph and immediate post-dominators.

use super::function::{Function, NO_JOIN};
use crate::isa::{Op, Pred};

/// For each branch, where lanes that part there meet again: the first instruction of the block that immediately
/// post-dominates it. [`NO_JOIN`] where only the end of the function does.
///
/// Ways that end in `trap`, `exit` or a call that never returns do not count: lanes that take them are not waited for, so
/// a failed bounds check does not keep the others apart. Where there is no other way, `exit` is the end.
pub(crate) fn reconvergence(function: &Function) -> Vec<u32> {
    post_dominators(function, false)
        .into_iter()
        .zip(post_dominators(function, true))
        .map(|(join, with_exits)| join.or(with_exits).unwrap_or(NO_JOIN))
        .collect()
}

/// The reconvergence point of each branch; `None` for branches from which no end is reached, and other instructions.
fn post_dominators(function: &Function, exits: bool) -> Vec<Option<u32>> {
    let code = &function.code;
    let mut joins = vec![None; code.len()];
    let (starts, block_of) = blocks(function);
    let count = starts.len();
    let exit = count;
    let successors: Vec<Vec<usize>> = (0..count)
        .map(|block| {
            let last = starts.get(block + 1).map_or(code.len(), |&next| next) - 1;
            let mut next: Vec<usize> = successors(function, last, exits)
                .map(|pc| pc.map_or(exit, |pc| block_of[pc]))
                .collect();
            next.sort_unstable();
            next.dedup();
            next
        })
        .collect();
    let mut predecessors = vec![Vec::new(); count + 1];
    for (block, next) in successors.iter().enumerate() {
        for &successor in next {
            predecessors[successor].push(block);
        }
    }

    // Dominators of the reversed graph, by the iterative algorithm of Cooper, Harvey and Kennedy.
    let order = reverse_postorder(exit, &predecessors);
    let mut number = vec![usize::MAX; count + 1];
    for (at, &block) in order.iter().enumerate() {
        number[block] = at;
    }
    let mut dominator = vec![usize::MAX; count + 1];
    dominator[exit] = exit;
    let mut changed = true;
    while changed {
        changed = false;
        for &block in order.iter().skip(1) {
            let mut new = usize::MAX;
            for &successor in &successors[block] {
                if dominator[successor] == usize::MAX {
                    continue;
                }
                new = if new == usize::MAX {
                    successor
                } else {
                    meet(new, successor, &dominator, &number)
                };
            }
            if dominator[block] != new {
                dominator[block] = new;
                changed = true;
            }
        }
    }
    for (pc, join) in joins.iter_mut().enumerate() {
        if matches!(code[pc].op, Op::Branch { .. } | Op::BranchIndexed(_)) {
            *join = match dominator[block_of[pc]] {
                usize::MAX => None,
                post if post == exit => Some(NO_JOIN),
                post => Some(starts[post] as u32),
            };
        }
    }
    joins
}

fn meet(mut a: usize, mut b: usize, dominator: &[usize], number: &[usize]) -> usize {
    while a != b {
        while number[a] > number[b] {
            a = dominator[a];
        }
        while number[b] > number[a] {
            b = dominator[b];
        }
    }
    a
}

fn reverse_postorder(root: usize, next: &[Vec<usize>]) -> Vec<usize> {
    let mut seen = vec![false; next.len()];
    let mut postorder = Vec::with_capacity(next.len());
    let mut stack = vec![(root, 0)];
    seen[root] = true;
    while let Some((block, at)) = stack.last_mut() {
        if let Some(&following) = next[*block].get(*at) {
            *at += 1;
            if !seen[following] {
                seen[following] = true;
                stack.push((following, 0));
            }
        } else {
            postorder.push(*block);
            stack.pop();
        }
    }
    postorder.reverse();
    postorder
}

/// First instruction of each basic block, and the block of each instruction.
fn blocks(function: &Function) -> (Vec<usize>, Vec<usize>) {
    let code = &function.code;
    let mut leader = vec![false; code.len() + 1];
    leader[0] = true;
    for (pc, inst) in code.iter().enumerate() {
        let ends = match inst.op {
            Op::Branch { .. } | Op::BranchIndexed(_) | Op::Ret | Op::Exit | Op::Trap => true,
            Op::Call(index) => function.calls[index as usize].noreturn,
            _ => false,
        };
        if ends {
            leader[pc + 1] = true;
            for target in successors(function, pc, true).flatten() {
                leader[target] = true;
            }
        }
    }
    let mut starts = Vec::new();
    let mut block_of = Vec::with_capacity(code.len());
    for (pc, &leads) in leader.iter().enumerate().take(code.len()) {
        if leads {
            starts.push(pc);
        }
        block_of.push(starts.len() - 1);
    }
    (starts, block_of)
}

/// Where control goes after an instruction; `None` leaves the function. `exits` says whether `exit`, `trap` and calls
/// that never return leave it as well, or are the end of a way that does not count.
fn successors(
    function: &Function,
    pc: usize,
    exits: bool,
) -> impl Iterator<Item = Option<usize>> + '_ {
    let inst = &function.code[pc];
    let ends = match inst.op {
        Op::Exit | Op::Trap => true,
        Op::Call(index) => function.calls[index as usize].noreturn,
        _ => false,
    };
    let (targets, mut falls): (&[u32], bool) = match &inst.op {
        Op::Branch { target } => (std::slice::from_ref(target), false),
        Op::BranchIndexed(table) => (&function.branch_tables[*table as usize], false),
        Op::Ret => (&[], false),
        _ => (&[], !ends),
    };
    let leaves = matches!(inst.op, Op::Ret) || (ends && exits);
    falls |= inst.guard != Pred::TRUE;
    let next = (falls && pc + 1 < function.code.len()).then_some(Some(pc + 1));
    targets
        .iter()
        .map(|&target| Some(target as usize))
        .chain(leaves.then_some(None))
        .chain(next)
}
