//! The loop that runs a warp's instructions, and those that change where lanes are.

use super::block::Context;
use super::lanes::lanes;
use super::stop::{Step, Stop};
use super::warp::{Frame, Wait, Warp};
use super::{access, asynchronous, atomic, data, integer};
use crate::device::Image;
use crate::fault::FaultKind;
use crate::isa::{
    AccessSpace, AsyncOp, BarrierKind, BarrierOp, Conversion, GridDependency, Inst, IntOp, Op, Pred,
};

/// Why a warp stopped running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pause {
    /// Its turn is over.
    Turn,
    /// It has arrived at a barrier.
    Barrier,
    /// All its lanes wait, or have exited.
    Waiting,
}

/// What happens after a split's instruction.
pub(super) enum Flow {
    /// The warp's splits have changed: choose again.
    Reschedule,
    Pause(Pause),
}

/// The lanes whose predicate is true.
#[inline(always)]
pub(crate) fn truth(frame: &Frame, pred: Pred) -> u32 {
    let bits = frame.preds[usize::from(pred.slot)];
    if pred.negated { !bits } else { bits }
}

/// Faults if a predicate was not written in some lane.
#[inline(always)]
fn check_pred(frame: &Frame, image: &Image<'_>, pred: Pred, mask: u32) -> Step<()> {
    let missing = mask & !frame.preds_initialized[usize::from(pred.slot)];
    if missing == 0 {
        return Ok(());
    }
    let register = image.function.pred_names.get(&pred.slot);
    Stop::first(
        FaultKind::UninitializedRegister {
            register: register.cloned().unwrap_or_default(),
        },
        missing,
    )
}

/// Faults if a row was not written in some lane.
#[inline(always)]
fn check_row(frame: &Frame, image: &Image<'_>, slot: u32, mask: u32) -> Step<()> {
    let missing = mask & !frame.initialized[slot as usize];
    if missing == 0 {
        return Ok(());
    }
    let register = image.function.slot_names.get(&slot);
    Stop::first(
        FaultKind::UninitializedRegister {
            register: register.cloned().unwrap_or_default(),
        },
        missing,
    )
}

#[inline(always)]
pub(super) fn check_rows(frame: &Frame, image: &Image<'_>, slots: &[u32], mask: u32) -> Step<()> {
    slots
        .iter()
        .try_for_each(|&slot| check_row(frame, image, slot, mask))
}

/// Faults if lanes part at an instruction that says they do not.
pub(super) fn check_uniform(
    context: &Context<'_>,
    image: &Image<'_>,
    pc: u32,
    active: u32,
    executing: u32,
) -> Step<()> {
    if image.function.uniform[pc as usize] && context.checks.synchronization {
        return Stop::first(FaultKind::DivergentUniform { active, executing }, active);
    }
    Ok(())
}

/// Faults if the instruction uses a register that was not written. Instructions that only move values pass on that
/// their source was not written, so that copies of unused values are no fault.
#[inline(always)]
fn check_operands(frame: &Frame, image: &Image<'_>, inst: &Inst, active: u32) -> Step<()> {
    match inst.op {
        Op::Mov | Op::Pack(_) | Op::Unpack(_) => return Ok(()),
        Op::Selp(pred) => return check_pred(frame, image, pred, active),
        Op::Shfl { .. } => {
            for &slot in &inst.src[1..] {
                check_row(frame, image, slot, active)?;
            }
            return Ok(());
        }
        Op::Store(index) => {
            let access = &image.function.accesses[index as usize];
            // Parameters and local memory pass the property on; where a generic store goes is not known here.
            if matches!(access.space, AccessSpace::Global | AccessSpace::Shared) {
                check_rows(frame, image, &access.elements, active)?;
            }
        }
        Op::Atomic(index) => {
            let elements = &image.function.accesses[index as usize].elements;
            check_rows(frame, image, elements, active)?;
        }
        Op::Async(index) => {
            if let AsyncOp::Copy {
                ignore: Some(pred), ..
            } = image.function.asyncs[index as usize]
            {
                check_pred(frame, image, pred, active)?;
            }
        }
        Op::Mma(index) => {
            for slot in image.function.mmas[index as usize].sources() {
                check_row(frame, image, slot, active)?;
            }
        }
        Op::MoveMatrix(index) => {
            let matrices = &image.function.matrix_moves[index as usize];
            let addressing = active & matrices.address_lanes();
            check_row(frame, image, matrices.address, addressing)?;
            if matrices.store {
                check_rows(frame, image, &matrices.elements, active)?;
            }
        }
        Op::SetP { with, .. }
        | Op::SetPHalf2 { with, .. }
        | Op::Set { with, .. }
        | Op::SetHalf2 { with, .. } => {
            check_pred(frame, image, with, active)?;
        }
        Op::MovPred { src, .. } | Op::Vote { src, .. } | Op::Lop3Pred { src, .. } => {
            check_pred(frame, image, src, active)?;
        }
        Op::PredLogic { a, b, .. } => {
            check_pred(frame, image, a, active)?;
            check_pred(frame, image, b, active)?;
        }
        Op::Carry { carry_in: true, .. } => {
            let missing = active & !frame.carry_initialized;
            if missing != 0 {
                let register = "CC.CF".to_owned();
                return Stop::first(FaultKind::UninitializedRegister { register }, missing);
            }
        }
        Op::Barrier(BarrierOp {
            kind:
                BarrierKind::RedPopc { src }
                | BarrierKind::RedAnd { src, .. }
                | BarrierKind::RedOr { src, .. },
            ..
        }) => check_pred(frame, image, src, active)?,
        _ => {}
    }
    let init = |slot: u32| frame.initialized[slot as usize];
    let all = inst
        .src
        .iter()
        .fold(u32::MAX, |all, &slot| all & init(slot));
    if active & !all == 0 {
        return Ok(());
    }
    // Compilers pack an element without a value beside one that they take out again.
    let known = match inst.op {
        Op::Cvt(Conversion {
            from,
            to,
            sat: false,
            ..
        }) if !from.is_float() && !to.is_float() => {
            data::known_bits(frame, inst.src[0], 0, to.bits().min(from.bits()).into())
        }
        Op::Int(IntOp::Shr, ty) => {
            let (width, _) = integer::shape(ty);
            let amounts = &frame.rows[inst.src[1] as usize];
            let least = lanes(active)
                .map(|lane| amounts[lane] as u32)
                .min()
                .unwrap_or(0);
            let first = least.min(width - 1);
            data::known_bits(frame, inst.src[0], first, width - first)
        }
        Op::Int(IntOp::And, _) => {
            let masks = &frame.rows[inst.src[1] as usize];
            let mask = lanes(active).fold(0, |all, lane| all | masks[lane]);
            let (first, above) = (mask.trailing_zeros(), mask.leading_zeros());
            data::known_bits(
                frame,
                inst.src[0],
                first,
                64_u32.saturating_sub(first + above),
            )
        }
        _ => 0,
    };
    check_row(frame, image, inst.src[0], active & !known)?;
    for &slot in &inst.src[1..] {
        check_row(frame, image, slot, active)?;
    }
    Ok(())
}

impl Warp {
    /// Runs until the turn is over or nothing can go on.
    pub(crate) fn run(&mut self, context: &mut Context<'_>, turn: u32) -> Step<Pause> {
        let mut budget = turn;
        loop {
            let Some(at) = self.ready() else {
                if self.can_run() {
                    continue;
                }
                return Ok(Pause::Waiting);
            };
            match self.run_split(context, at, &mut budget)? {
                Flow::Reschedule => {}
                Flow::Pause(pause) => return Ok(pause),
            }
        }
    }

    fn run_split(&mut self, context: &mut Context<'_>, at: usize, budget: &mut u32) -> Step<Flow> {
        let split = self.splits[at];
        let (mut pc, mut mask) = (split.pc, split.mask);
        let join_pc = self.join_pc(&split);
        let frame_index = split.frame as usize;
        let launch = context.launch;
        let image = &launch.images[self.frames[frame_index].function as usize];
        let code = image.function.code.as_slice();
        let limit = launch.config.instruction_limit.unwrap_or(u64::MAX);
        // An instruction that waited for other lanes was counted when it started to.
        let mut counted = matches!(split.wait, Wait::Together(_));
        loop {
            if pc == join_pc {
                self.splits[at].pc = pc;
                self.arrive(at);
                return Ok(Flow::Reschedule);
            }
            if *budget == 0 {
                self.splits[at].pc = pc;
                // Another split of this warp gets the next turn.
                self.splits.rotate_right(1);
                self.release_all_meetings();
                return Ok(Flow::Pause(Pause::Turn));
            }
            *budget -= 1;
            let inst = &code[pc as usize];
            context.site = image.first_site + pc as usize;
            let frame = &mut self.frames[frame_index];
            let active = mask & truth(frame, inst.guard);
            if !counted {
                let site = &mut context.stats.sites[context.site];
                site.warps += 1;
                site.lanes += u64::from(active.count_ones());
                context.block.executed += 1;
            }
            counted = false;
            if context.block.executed > limit {
                context.block.past_limit(context.site, limit, mask)?;
            }
            if context.checks.initialization {
                check_pred(frame, image, inst.guard, mask)?;
                if active != 0 {
                    check_operands(frame, image, inst, active)?;
                }
            }
            if active == 0 {
                pc += 1;
                continue;
            }
            match inst.op {
                Op::Branch { target } => {
                    if active == mask {
                        pc = target;
                        continue;
                    }
                    check_uniform(context, image, pc, active, mask)?;
                    context.stats.counters.divergent_branches += 1;
                    let meet = image.function.joins[pc as usize];
                    self.diverge(at, active, target, pc + 1, meet);
                    return Ok(Flow::Reschedule);
                }
                Op::BranchIndexed(table) => {
                    let targets = &image.function.branch_tables[table as usize];
                    let indices = frame.rows[inst.src[0] as usize];
                    let first = indices[active.trailing_zeros() as usize];
                    let together = lanes(active)
                        .filter(|&lane| indices[lane] == first)
                        .fold(0, |mask, lane| mask | 1 << lane);
                    let Some(&target) = targets.get(first as usize) else {
                        return Stop::first(FaultKind::InvalidTarget, together);
                    };
                    if together == mask {
                        pc = target;
                        continue;
                    }
                    check_uniform(context, image, pc, together, mask)?;
                    context.stats.counters.divergent_branches += 1;
                    let meet = image.function.joins[pc as usize];
                    // The others come back to this instruction, unless their guard sends them on.
                    let next = if active == together { pc + 1 } else { pc };
                    self.diverge(at, together, target, next, meet);
                    return Ok(Flow::Reschedule);
                }
                Op::Exit => {
                    context.stats.effects += 1;
                    self.splits[at].pc = pc + 1;
                    self.exit(at, active);
                    if active == mask {
                        return Ok(Flow::Reschedule);
                    }
                    mask &= !active;
                    pc += 1;
                }
                Op::Ret => {
                    if active != mask {
                        check_uniform(context, image, pc, active, mask)?;
                    }
                    self.splits[at].pc = pc + 1;
                    if !self.leave(at, active) {
                        context.stats.effects += 1;
                        self.exit(at, active);
                    }
                    if active == mask {
                        return Ok(Flow::Reschedule);
                    }
                    mask &= !active;
                    pc += 1;
                }
                Op::Call(index) => {
                    self.splits[at].pc = pc;
                    return self.call(context, image, at, index, active, mask);
                }
                Op::Trap => return Stop::first(FaultKind::Trap, active),
                Op::Breakpoint => return Stop::first(FaultKind::Breakpoint, active),
                Op::Barrier(op) => {
                    context.stats.effects += 1;
                    self.splits[at].pc = pc;
                    return self.barrier(context, at, inst, op, active, mask);
                }
                Op::WarpSync
                | Op::Shfl { .. }
                | Op::Vote { .. }
                | Op::Match { .. }
                | Op::Redux(_)
                | Op::Elect { .. }
                | Op::Mma(_)
                | Op::TransposeMatrix
                | Op::MoveMatrix(_) => {
                    self.splits[at].pc = pc;
                    if !self.exchange(context, image.function, at, inst, active)? {
                        return Ok(Flow::Reschedule);
                    }
                    pc += 1;
                }
                Op::Load(index) => {
                    let access = &image.function.accesses[index as usize];
                    access::load(context, self, frame_index, access, inst, active)?;
                    pc += 1;
                }
                Op::Store(index) => {
                    let access = &image.function.accesses[index as usize];
                    context.stats.effects += 1;
                    access::store(context, self, frame_index, access, inst, active)?;
                    pc += 1;
                }
                Op::Atomic(index) => {
                    let access = &image.function.accesses[index as usize];
                    atomic::execute(context, self, frame_index, access, inst, active)?;
                    pc += 1;
                }
                Op::Async(index) => {
                    let op = image.function.asyncs[index as usize];
                    context.stats.effects += u64::from(!op.only_looks());
                    asynchronous::execute(context, self, frame_index, op, inst, active)?;
                    pc += 1;
                }
                Op::Fence(fence) => {
                    if context.checks.races {
                        context.block.order.fence(self.index as usize, fence);
                    }
                    pc += 1;
                }
                Op::GridDependency(action) => {
                    let block = &mut *context.block;
                    let (dependency, order) = (&mut block.dependency, &block.order);
                    match action {
                        GridDependency::Wait => dependency.wait(order, self.index, active),
                        GridDependency::LaunchDependents => {
                            dependency.launch_dependents(order, self.index, active);
                        }
                    }
                    pc += 1;
                }
                Op::Clock(kind) => {
                    data::clock(context.block.executed, frame, inst, kind, active);
                    pc += 1;
                }
                Op::Int(op @ (IntOp::Div | IntOp::Rem), ty) => {
                    let by_zero = data::divide(frame, inst, op, ty, active);
                    if by_zero != 0 {
                        *self.divided_by_zero.entry(context.site).or_default() |= by_zero;
                    }
                    pc += 1;
                }
                _ => {
                    data::execute(frame, image.function, inst, active)?;
                    pc += 1;
                }
            }
        }
    }
}
