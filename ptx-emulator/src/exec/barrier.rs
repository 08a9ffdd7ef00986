//! Arrival at barriers of the block. [`Block`](super::block::Block) completes them.

use super::block::Context;
use super::control::{Flow, Pause, truth};
use super::lanes::{FULL, lanes};
use super::stop::{Step, Stop};
use super::warp::{Wait, Warp};
use crate::fault::FaultKind;
use crate::isa::{BarrierKind, BarrierOp, Inst};

impl Warp {
    /// Lanes of a split arrive, or wait for the others of their warp.
    pub(super) fn barrier(
        &mut self,
        context: &mut Context<'_>,
        at: usize,
        inst: &Inst,
        op: BarrierOp,
        mut active: u32,
        mask: u32,
    ) -> Step<Flow> {
        let split = self.splits[at];
        let together = match split.wait {
            Wait::Together(all) => {
                active = all;
                true
            }
            _ => false,
        };
        let live = self.live();
        let strict = context.checks.synchronization;
        if op.aligned && active != live && strict && !together {
            if active != mask {
                // Some lanes of this very split pass the barrier by.
                return Stop::first(
                    FaultKind::DivergentBarrier {
                        active,
                        expected: live,
                    },
                    active,
                );
            }
            self.wait_for(at, active, Some(context.site), &[FULL.into(); 32]);
            return Ok(Flow::Reschedule);
        }
        if active != mask && !together {
            let pc = split.pc;
            self.diverge(at, active, pc, pc + 1, crate::load::NO_JOIN);
            return Ok(Flow::Reschedule);
        }
        let mut members = if together {
            self.companions(at, active)
        } else {
            Vec::new()
        };
        let gathered = self.registers(at, &members);
        let frame = gathered
            .as_ref()
            .unwrap_or(&self.frames[split.frame as usize]);
        let uniform = |slot: u32| {
            let row = &frame.rows[slot as usize];
            let first = row[active.trailing_zeros() as usize];
            lanes(active)
                .all(|lane| row[lane] == first)
                .then_some(first)
        };
        let invalid = |reason: String| Stop::first(FaultKind::InvalidBarrier { reason }, active);
        let number = match uniform(inst.src[0]) {
            Some(number @ 0..16) => number as u8,
            Some(number) => return invalid(format!("number {number} is not from 0 to 15")),
            None if !op.aligned => return self.barrier_of_some(context, at, inst, op, active),
            None => return invalid("lanes of a warp name different barriers".into()),
        };
        let threads = context.launch.threads();
        let mut arriving = active.count_ones();
        let expected = if op.has_count {
            // Counts are of whole warps, lanes that do not exist included.
            if active & 1 != 0 {
                arriving += (!self.lanes).count_ones();
            }
            match uniform(inst.src[1]) {
                Some(count) if count > 0 && count % 32 == 0 && count <= 1024 => count as u32,
                Some(count) => {
                    return invalid(format!(
                        "{count} threads is not a multiple of 32 up to 1024"
                    ));
                }
                None if !op.aligned => return self.barrier_of_some(context, at, inst, op, active),
                None => return invalid("lanes of a warp give different counts".into()),
            }
        } else {
            threads
        };
        let barrier = &mut context.block.barriers[usize::from(number)];
        if barrier.expected.is_some_and(|known| known != expected) {
            return invalid(format!(
                "barrier {number} waits for {} threads, this instruction says {expected}",
                barrier.expected.unwrap_or(0)
            ));
        }
        barrier.expected = Some(expected);
        barrier.arrived += arriving;
        barrier.warps |= 1 << self.index;
        if let BarrierKind::RedPopc { src }
        | BarrierKind::RedAnd { src, .. }
        | BarrierKind::RedOr { src, .. } = op.kind
        {
            barrier.votes += (truth(frame, src) & active).count_ones();
            barrier.voters += active.count_ones();
        }
        context.stats.counters.barriers += 1;
        let wait = if op.kind == BarrierKind::Arrive {
            Wait::Nothing
        } else {
            barrier.waiting |= 1 << self.index;
            Wait::Barrier(number)
        };
        context.block.changed = Some(number);
        members.push(at);
        for member in members {
            let split = &mut self.splits[member];
            split.wait = wait;
            if wait == Wait::Nothing {
                split.pc += 1;
            }
        }
        Ok(Flow::Pause(Pause::Barrier))
    }

    /// The lanes of a split arrive that name the same barrier and give the same count as its first one. The others come to the
    /// instruction after them. They need not meet again: those at one barrier may be what those at another one wait for.
    fn barrier_of_some(
        &mut self,
        context: &mut Context<'_>,
        at: usize,
        inst: &Inst,
        op: BarrierOp,
        active: u32,
    ) -> Step<Flow> {
        let split = self.splits[at];
        let rows = &self.frames[split.frame as usize].rows;
        let [numbers, counts, ..] = inst.src.map(|slot| &rows[slot as usize]);
        let first = active.trailing_zeros() as usize;
        let some = lanes(active)
            .filter(|&lane| (numbers[lane], counts[lane]) == (numbers[first], counts[first]))
            .fold(0, |some, lane| some | 1 << lane);
        let others = active & !some;
        self.diverge(at, others, split.pc, split.pc, crate::load::NO_JOIN);
        // The instruction was counted for all of them.
        self.splits[at].wait = Wait::Together(some);
        if let Some(left) = self.splits.last_mut() {
            left.wait = Wait::Together(others);
        }
        self.barrier(context, at, inst, op, some, some)
    }
}
