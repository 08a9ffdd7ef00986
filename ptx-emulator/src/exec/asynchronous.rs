//! What goes on beside the threads of a block: copies and mbarriers.

use super::block::Context;
use super::bulk::{self, BulkCopies, BulkCopy, shared_address};
use super::copy::{self, Copies, CopyOp, Target};
use super::lanes::{Row, lanes};
use super::mbarrier::{self, Mbarriers};
use super::stop::{Step, Stop};
use super::warp::Warp;
use crate::fault::FaultKind;
use crate::isa::{AsyncOp, Inst, Place};

/// The asynchronous side of a block.
#[derive(Debug, Default)]
pub(crate) struct Asynchronous {
    pub(crate) copies: Copies,
    pub(crate) bulk: BulkCopies,
    pub(crate) mbarriers: Mbarriers,
}

impl Asynchronous {
    pub(crate) fn start(&mut self) {
        self.copies.clear();
        self.bulk.clear();
        self.mbarriers.clear();
    }
}

pub(super) fn invalid<T>(lane: usize, reason: String) -> Step<T> {
    Stop::lane(FaultKind::InvalidOperand { reason }, lane as u32)
}

/// Runs one instruction for the active lanes.
pub(crate) fn execute(
    context: &mut Context<'_>,
    warp: &mut Warp,
    frame: usize,
    op: AsyncOp,
    inst: &Inst,
    active: u32,
) -> Step<()> {
    let first_thread = warp.index * 32;
    let rows = |slot: usize| warp.frames[frame].rows[inst.src[slot] as usize];
    let shared = |row: Row, place: Place| -> Step<Row> {
        let mut out = [0; 32];
        for lane in lanes(active) {
            let address = row[lane].wrapping_add(place.offset as u64);
            out[lane] = shared_address(place.space, address, lane)?;
        }
        Ok(out)
    };
    let thread = |lane: usize| first_thread + lane as u32;
    match op {
        AsyncOp::Copy {
            bytes,
            to,
            from,
            has_size,
            ignore,
        } => {
            let op = CopyOp {
                bytes: bytes.into(),
                to,
                from,
                has_size,
                ignore,
            };
            return copy::copy(context, warp, frame, &op, inst, active);
        }
        AsyncOp::Commit => {
            for lane in lanes(active) {
                context
                    .block
                    .asynchronous
                    .copies
                    .groups
                    .commit(thread(lane));
            }
        }
        AsyncOp::Wait { keep } => {
            let races = context.checks.races;
            let block = &mut *context.block;
            let copies = &mut block.asynchronous.copies;
            let mut target = Target {
                shared: &mut block.shared,
                order: &mut block.order,
                races,
            };
            copies.wait(first_thread, active, keep, &mut target);
        }
        AsyncOp::ArriveAfterCopies { at, counted } => {
            let addresses = shared(rows(0), at)?;
            mbarrier::arrive_later(context, warp.index, &addresses, active, counted)?;
        }
        AsyncOp::BulkLoad { to, from, at } => {
            let (destinations, sources, sizes) = (shared(rows(0), to)?, rows(1), rows(2));
            let mbarriers = shared(rows(3), at)?;
            for lane in lanes(active) {
                let copy = BulkCopy {
                    lane,
                    thread: thread(lane),
                    shared: destinations[lane],
                    global: sources[lane].wrapping_add(from as u64),
                    bytes: sizes[lane] as u32 as usize,
                };
                copy.load(context, mbarriers[lane])?;
            }
        }
        AsyncOp::BulkStore { to, from } => {
            let (destinations, sources, sizes) = (rows(0), shared(rows(1), from)?, rows(2));
            for lane in lanes(active) {
                let copy = BulkCopy {
                    lane,
                    thread: thread(lane),
                    shared: sources[lane],
                    global: destinations[lane].wrapping_add(to as u64),
                    bytes: sizes[lane] as u32 as usize,
                };
                copy.store(context)?;
            }
        }
        AsyncOp::BulkPrefetch { from } => {
            let (sources, sizes) = (rows(0), rows(1));
            for lane in lanes(active) {
                let address = sources[lane].wrapping_add(from as u64);
                bulk::check_prefetch(context, lane, address, sizes[lane] as u32 as usize)?;
            }
        }
        AsyncOp::BulkCommit => {
            for lane in lanes(active) {
                context.block.asynchronous.bulk.groups.commit(thread(lane));
            }
        }
        AsyncOp::BulkWait { keep } => {
            for lane in lanes(active) {
                bulk::wait(context, thread(lane), keep);
            }
        }
        AsyncOp::Mbarrier { op, at } => {
            let addresses = shared(rows(0), at)?;
            let index = warp.index;
            let frame = &mut warp.frames[frame];
            return mbarrier::execute(context, frame, op, &addresses, inst, active, index);
        }
    }
    Ok(())
}
