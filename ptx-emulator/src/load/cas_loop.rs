//! The first read of a loop around `atom.cas`.
//!
//! CUDA's programming guide builds atomics out of a plain load and a loop in which `atom.cas` tests the value and tries another
//! one; LLVM does so too. The load races with the other threads' atomics by the letter of the memory model, but an outdated value
//! only costs another round. So such a load counts as a relaxed one.

use std::collections::HashMap;

use super::function::Function;
use crate::isa::{AtomicKind, Constant, Inst, IntOp, IntType, Op, Ordering, Scope, Slot};

/// What an address is counted from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Origin {
    Register(Slot),
    Variable(u32),
}

/// An address: what it is counted from, and how far it is from there.
type Place = (Origin, i64);

/// What is compared: the place, the bytes and the register that is tested. The state space is not part of it, because `cvta` takes
/// an address from one to the other.
type Tested = (Place, u8, Slot);

/// Makes the loads relaxed whose result an `atom.cas` at the same address tests.
pub(super) fn relax_first_reads(function: &mut Function) {
    let swaps: Vec<(&Inst, u32)> = function
        .code
        .iter()
        .filter_map(|inst| match inst.op {
            Op::Atomic(index) => Some((inst, index)),
            _ => None,
        })
        .filter(|&(_, index)| {
            function.accesses[index as usize]
                .atomic
                .is_some_and(|atomic| atomic.kind == AtomicKind::Cas)
        })
        .collect();
    if swaps.is_empty() {
        return;
    }
    let places = places(function);
    let tested: HashMap<Tested, Scope> = swaps
        .into_iter()
        .map(|(inst, index)| {
            let access = &function.accesses[index as usize];
            let [base, compared, ..] = inst.src;
            let place = place(&places, base, access.offset);
            ((place, access.bytes, compared), access.scope)
        })
        .collect();
    for inst in &function.code {
        let Op::Load(index) = inst.op else { continue };
        let access = &mut function.accesses[index as usize];
        let &[result] = access.elements.as_slice() else {
            continue;
        };
        let place = place(&places, inst.src[0], access.offset);
        let key = (place, access.bytes, result);
        if let (Ordering::Weak, Some(&scope)) = (access.ordering, tested.get(&key)) {
            access.ordering = Ordering::Relaxed;
            access.scope = scope;
        }
    }
}

fn place(places: &HashMap<Slot, Place>, base: Slot, offset: i64) -> Place {
    match places.get(&base) {
        Some(&(origin, start)) => (origin, start.wrapping_add(offset)),
        None => (Origin::Register(base), offset),
    }
}

/// Rows that hold the address of a variable, or another register's value with a number added to it: nvcc folds an offset into the
/// load, but adds it ahead of the `atom.cas`, which is in a loop. A register that is written in several places is where it is.
fn places(function: &Function) -> HashMap<Slot, Place> {
    let mut numbers = HashMap::new();
    let mut places = HashMap::new();
    for &(slot, constant) in &function.constants {
        match constant {
            Constant::Value(value) => {
                numbers.insert(slot, value);
            }
            Constant::Variable { index, offset, .. } => {
                places.insert(slot, (Origin::Variable(index), offset));
            }
            _ => {}
        }
    }
    let mut writes: HashMap<Slot, u32> = HashMap::new();
    for inst in &function.code {
        *writes.entry(inst.dst).or_default() += 1;
        for &slot in other_results(function, inst) {
            *writes.entry(slot).or_default() += 1;
        }
    }
    for inst in &function.code {
        if writes.get(&inst.dst) != Some(&1) {
            continue;
        }
        let [base, other, ..] = inst.src;
        let added = match inst.op {
            Op::Mov | Op::CvtaFrom(_) | Op::CvtaTo(_) => 0,
            Op::Int(IntOp::Add, ty) => match (numbers.get(&other), ty) {
                (Some(&value), IntType::U32 | IntType::S32) => i64::from(value as i32),
                (Some(&value), IntType::U64 | IntType::S64) => value as i64,
                _ => continue,
            },
            _ => continue,
        };
        let of_result = place(&places, base, added);
        places.insert(inst.dst, of_result);
    }
    places
}

/// The registers that an instruction writes beside its destination.
fn other_results<'f>(function: &'f Function, inst: &Inst) -> &'f [Slot] {
    match inst.op {
        Op::Load(index) => &function.accesses[index as usize].elements,
        Op::Atomic(index) => &function.accesses[index as usize].results,
        Op::Unpack(elements) => function.elements(elements),
        Op::Mma(index) => &function.mmas[index as usize].d,
        Op::MoveMatrix(index) if !function.matrix_moves[index as usize].store => {
            &function.matrix_moves[index as usize].elements
        }
        _ => &[],
    }
}
