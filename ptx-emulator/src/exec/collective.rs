//! Instructions in which lanes of a warp exchange values.

use super::block::Context;
use super::control::truth;
use super::data::{set_initialized, set_pred};
use super::lanes::{FULL, Row, lanes, write_row};
use super::matrix;
use super::stop::{Step, Stop};
use super::warp::{Frame, Wait, Warp};
use crate::fault::FaultKind;
use crate::isa::{Inst, Op, ReduxOp, ShflMode, Slot, VoteMode};
use crate::load::Function;

/// Where lanes name the members that take part; nowhere if the whole warp does.
fn member_slot(inst: &Inst) -> Option<Slot> {
    match inst.op {
        Op::Shfl { .. } => Some(inst.src[3]),
        Op::Match { .. } | Op::Redux(_) => Some(inst.src[1]),
        Op::Mma(_) | Op::TransposeMatrix | Op::MoveMatrix(_) => None,
        _ => Some(inst.src[0]),
    }
}

/// Whether all lanes that the member masks of the active lanes name are among these, with the same mask, as far as they are `live`.
fn is_complete(frame: &Frame, inst: &Inst, active: u32, live: u32) -> Step<bool> {
    let Some(slot) = member_slot(inst) else {
        return Ok(live & !active == 0);
    };
    let row = &frame.rows[slot as usize];
    let first = row[active.trailing_zeros() as usize] as u32;
    let (mut all, mut alike) = (0, true);
    for lane in lanes(active) {
        let mask = row[lane] as u32;
        if mask >> lane & 1 == 0 {
            return Stop::lane(FaultKind::InactiveLane { lane: lane as u32 }, lane as u32);
        }
        all |= mask;
        alike &= mask == first;
    }
    let complete = all & live & !active == 0;
    // Each lane is in its own mask, so lanes of one mask are complete if nobody is missing.
    Ok(complete && (alike || lanes(active).all(|lane| agree(row, lane, live))))
}

/// Whether the lanes that a lane's member mask names have the same mask.
#[cold]
fn agree(row: &Row, lane: usize, live: u32) -> bool {
    let mask = row[lane] as u32;
    lanes(mask & live).all(|other| row[other] as u32 == mask)
}

impl Warp {
    /// Lanes of a split run the instruction that they are at, with others of their warp. Returns false if they wait for them.
    pub(super) fn exchange(
        &mut self,
        context: &mut Context<'_>,
        function: &Function,
        at: usize,
        inst: &Inst,
        active: u32,
    ) -> Step<bool> {
        let split = &self.splits[at];
        if let Wait::Together(all) = split.wait {
            self.exchange_together(context, function, at, inst, all)?;
            return Ok(true);
        }
        let frame = &mut self.frames[split.frame as usize];
        let live = self.lanes & !self.exited;
        if is_complete(frame, inst, active, live)? {
            perform(context, frame, function, inst, active, self.index)?;
            return Ok(true);
        }
        let masks = match member_slot(inst) {
            Some(slot) => frame.rows[slot as usize],
            None => [FULL.into(); 32],
        };
        let site = (!is_warp_sync(inst)).then_some(context.site);
        self.wait_for(at, active, site, &masks);
        Ok(false)
    }

    /// Runs the instruction for all splits that were brought together.
    fn exchange_together(
        &mut self,
        context: &mut Context<'_>,
        function: &Function,
        at: usize,
        inst: &Inst,
        executing: u32,
    ) -> Step<()> {
        let companions = self.companions(at, executing);
        let gathered = if is_warp_sync(inst) {
            None
        } else {
            self.registers(at, &companions)
        };
        if let Some(mut frame) = gathered {
            perform(context, &mut frame, function, inst, executing, self.index)?;
            self.put_back(at, &companions, &frame, inst, executing);
        } else {
            let frame = &mut self.frames[self.splits[at].frame as usize];
            perform(context, frame, function, inst, executing, self.index)?;
        }
        for other in companions {
            self.splits[other].pc += 1;
            self.splits[other].wait = Wait::Nothing;
        }
        self.splits[at].wait = Wait::Nothing;
        Ok(())
    }
}

/// The instruction for which lanes need not be in one place, nor in one function.
fn is_warp_sync(inst: &Inst) -> bool {
    matches!(inst.op, Op::WarpSync)
}

/// Runs the instruction for the lanes that have come together.
fn perform(
    context: &mut Context<'_>,
    frame: &mut Frame,
    function: &Function,
    inst: &Inst,
    active: u32,
    warp: u32,
) -> Step<()> {
    match inst.op {
        Op::Mma(index) => {
            let mma = &function.mmas[index as usize];
            matrix::multiply(context, frame, mma, active)
        }
        Op::TransposeMatrix => matrix::transpose(context, frame, inst, active),
        Op::MoveMatrix(index) => {
            let matrices = &function.matrix_moves[index as usize];
            context.stats.effects += u64::from(matrices.store);
            matrix::transfer(context, frame, matrices, active, warp)
        }
        Op::Shfl { mode, dst } => shuffle(context, frame, inst, active, mode, dst),
        Op::WarpSync => {
            if context.checks.races {
                context.block.order.warp_sync(warp as usize);
            }
            Ok(())
        }
        _ => {
            by_members(frame, inst, active);
            Ok(())
        }
    }
}

/// Runs `vote`, `match`, `redux` or `elect`.
fn by_members(frame: &mut Frame, inst: &Inst, active: u32) {
    let slot = match inst.op {
        Op::Match { .. } | Op::Redux(_) => inst.src[1],
        _ => inst.src[0],
    };
    let masks = frame.rows[slot as usize];
    let source = frame.rows[inst.src[0] as usize];
    let mut result: Row = [0; 32];
    let mut pred = 0;
    let mut left = active;
    // Each group of lanes with one member mask acts by itself.
    while left != 0 {
        let leader = left.trailing_zeros() as usize;
        let group = lanes(left)
            .filter(|&lane| masks[lane] == masks[leader])
            .fold(0, |group, lane| group | 1 << lane);
        left &= !group;
        match inst.op {
            Op::Vote { mode, src, .. } => {
                let truth = truth(frame, src) & group;
                let holds = match mode {
                    VoteMode::All => truth == group,
                    VoteMode::Any => truth != 0,
                    VoteMode::Uni => truth == group || truth == 0,
                    VoteMode::Ballot => false,
                };
                if holds {
                    pred |= group;
                }
                fill(&mut result, group, truth.into());
            }
            Op::Match { all, .. } => {
                for lane in lanes(group) {
                    let same = lanes(group)
                        .filter(|&other| source[other] == source[lane])
                        .fold(0u32, |same, other| same | 1 << other);
                    let everyone = same == group;
                    if everyone {
                        pred |= 1 << lane;
                    }
                    result[lane] = if all && !everyone { 0 } else { same.into() };
                }
            }
            Op::Redux(op) => {
                let value = lanes(group)
                    .map(|lane| source[lane] as u32)
                    .reduce(|a, b| reduce(op, a, b))
                    .unwrap_or(0);
                fill(&mut result, group, value.into());
            }
            Op::Elect { .. } => {
                fill(&mut result, group, leader as u64);
                pred |= 1 << leader;
            }
            _ => {}
        }
    }
    match inst.op {
        Op::Vote {
            mode: VoteMode::Ballot,
            ..
        }
        | Op::Redux(_) => {}
        Op::Vote { dst, .. } => {
            set_pred(frame, dst, active, pred);
            return;
        }
        Op::Match { dst, .. } | Op::Elect { dst } => set_pred(frame, dst, active, pred),
        _ => {}
    }
    write_row(&mut frame.rows[inst.dst as usize], active, &result);
    frame.initialized[inst.dst as usize] |= active;
}

fn fill(row: &mut Row, mask: u32, value: u64) {
    for lane in lanes(mask) {
        row[lane] = value;
    }
}

fn reduce(op: ReduxOp, a: u32, b: u32) -> u32 {
    match op {
        ReduxOp::Add => a.wrapping_add(b),
        ReduxOp::MinU => a.min(b),
        ReduxOp::MaxU => a.max(b),
        ReduxOp::MinS => (a as i32).min(b as i32) as u32,
        ReduxOp::MaxS => (a as i32).max(b as i32) as u32,
        ReduxOp::And => a & b,
        ReduxOp::Or => a | b,
        ReduxOp::Xor => a ^ b,
    }
}

/// The lane that a lane reads in a shuffle, and whether it is within the segment (PTX ISA, `shfl.sync`).
fn source_lane(mode: ShflMode, lane: u32, b: u32, c: u32) -> (u32, bool) {
    let (b, clamp, segment) = (b & 31, c & 31, c >> 8 & 31);
    let max = (lane & segment) | (clamp & !segment);
    let min = lane & segment;
    let (source, within) = match mode {
        ShflMode::Up => {
            let source = lane.wrapping_sub(b);
            (source, source as i32 >= max as i32)
        }
        ShflMode::Down => (lane + b, lane + b <= max),
        ShflMode::Bfly => (lane ^ b, lane ^ b <= max),
        ShflMode::Idx => {
            let source = min | (b & !segment);
            (source, source <= max)
        }
    };
    if within {
        (source, true)
    } else {
        (lane, false)
    }
}

fn shuffle(
    context: &Context<'_>,
    frame: &mut Frame,
    inst: &Inst,
    active: u32,
    mode: ShflMode,
    dst: u16,
) -> Step<()> {
    let [a, b, c, members] = inst.src.map(|slot| slot as usize);
    let known = frame.initialized[a];
    let (a, b, c) = (&frame.rows[a], &frame.rows[b], &frame.rows[c]);
    let members = &frame.rows[members];
    let mut result = [0; 32];
    let (mut pred, mut result_known) = (0, 0);
    for lane in lanes(active) {
        let (mut source, within) = source_lane(mode, lane as u32, b[lane] as u32, c[lane] as u32);
        if (active & members[lane] as u32) >> source & 1 == 0 {
            if context.checks.synchronization {
                return Stop::lane(FaultKind::InactiveLane { lane: source }, lane as u32);
            }
            source = lane as u32;
        }
        result[lane] = a[source as usize];
        pred |= u32::from(within) << lane;
        result_known |= (known >> source & 1) << lane;
    }
    set_pred(frame, dst, active, pred);
    write_row(&mut frame.rows[inst.dst as usize], active, &result);
    set_initialized(frame, inst.dst, active, result_known);
    Ok(())
}
