//! `cp.async`. A copy reads its source at once. Its destination gets the bytes when a wait says so; until then it is claimed,
//! and to touch it is a fault.

use super::access::{Direction, by_space, check_end, taking_part, taking_part_in_part};
use super::asynchronous::invalid;
use super::block::Context;
use super::claims::Claim;
use super::control::truth;
use super::global::{Found, count, find};
use super::lanes::lanes;
use super::order::{COPIES, Order, Past};
use super::race::{CopyAccess, check_global_copy, check_shared_copy};
use super::shared::Shared;
use super::stop::{Step, Stop};
use super::warp::Warp;
use crate::fault::{FaultKind, Space};
use crate::isa::{AccessSpace, Inst, Place, Pred};

/// Bytes on their way to shared memory.
#[derive(Debug, Clone)]
pub(crate) struct Incoming {
    pub(crate) at: usize,
    pub(crate) data: Vec<u8>,
    pub(crate) thread: u32,
    pub(crate) site: u32,
}

impl Incoming {
    /// The bytes arrive: by themselves, or because their thread waits for them.
    pub(crate) fn land(&self, target: &mut Target<'_>, landed: bool) {
        let shared = &mut *target.shared;
        let size = shared.bytes.len();
        for (offset, &byte) in self.data.iter().enumerate() {
            shared.store(self.at + offset, 1, byte.into());
        }
        shared
            .claims
            .range(size, self.at, self.data.len())
            .fill(Claim::Free);
        if target.races {
            let copy = CopyAccess {
                landed,
                ..self.access()
            };
            // Nobody could touch the bytes meanwhile, so that there is nothing new to conflict with.
            let _ = shared.races.note(target.order, copy);
        }
    }

    fn access(&self) -> CopyAccess {
        CopyAccess {
            thread: self.thread,
            site: self.site,
            address: self.at as u64,
            bytes: self.data.len(),
            direction: Direction::Store,
            landed: false,
        }
    }
}

/// Where copies land.
pub(crate) struct Target<'a> {
    pub(crate) shared: &'a mut Shared,
    pub(crate) order: &'a mut Order,
    /// Whether races are looked for.
    pub(crate) races: bool,
}

impl Target<'_> {
    /// What a thread issued after some past is there for those who wait at an mbarrier.
    pub(crate) fn release(&mut self, mbarrier: u64, thread: u32, past: Past) {
        if self.races {
            let warp = thread as usize / 32;
            self.shared.races.release(self.order, mbarrier, warp, past);
        }
    }
}

/// For each thread of a block, the group of copies that is open.
#[derive(Debug, Default)]
pub(super) struct Groups(Vec<u64>);

impl Groups {
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn open(&self, thread: u32) -> u64 {
        self.0.get(thread as usize).copied().unwrap_or(0)
    }

    /// Closes a thread's group, and opens the next one.
    pub(super) fn commit(&mut self, thread: u32) {
        let thread = thread as usize;
        if self.0.len() <= thread {
            self.0.resize(thread + 1, 0);
        }
        self.0[thread] += 1;
    }
}

/// A copy of a thread, the group it is in, and its place in the order of all copies.
#[derive(Debug, Clone)]
struct Copy {
    group: u64,
    sequence: u64,
    bytes: Incoming,
}

/// Copies that no wait has been seen for.
#[derive(Debug, Default)]
pub(crate) struct Copies {
    /// By ascending sequence.
    pending: Vec<Copy>,
    pub(super) groups: Groups,
    pub(crate) sequence: u64,
    /// For each warp, when the last one of its copies landed by itself.
    landed: [u32; 32],
}

impl Copies {
    pub(crate) fn clear(&mut self) {
        self.pending.clear();
        self.groups.clear();
        self.landed = [0; 32];
    }

    /// Lands the copies of some threads: in groups before the last `keep`, or, without `keep`, all.
    pub(crate) fn wait(
        &mut self,
        first_thread: u32,
        active: u32,
        keep: Option<u32>,
        target: &mut Target<'_>,
    ) {
        let mut done = [u64::MAX; 32];
        if let Some(keep) = keep {
            for lane in lanes(active) {
                let open = self.groups.open(first_thread + lane as u32);
                done[lane] = open.saturating_sub(keep.into());
            }
        }
        if target.races {
            // Some of them may have landed already, because somebody waited at an mbarrier.
            let warp = first_thread as usize / 32;
            target.order.learn_landed(warp, self.landed[warp]);
        }
        self.pending.retain(|copy| {
            let lane = copy.bytes.thread.wrapping_sub(first_thread);
            let lands = lane < 32 && active >> lane & 1 != 0 && copy.group < done[lane as usize];
            if lands {
                copy.bytes.land(target, false);
            }
            !lands
        });
    }

    /// Lands a thread's copies up to some point in the order.
    pub(crate) fn finish(&mut self, thread: u32, sequence: u64, target: &mut Target<'_>) {
        self.pending.retain(|copy| {
            let lands = copy.bytes.thread == thread && copy.sequence <= sequence;
            if lands {
                copy.bytes.land(target, true);
                if target.races {
                    self.landed[thread as usize / 32] = target.order.now(COPIES);
                }
            }
            !lands
        });
    }

    /// Lands what overlaps a range, so that unchecked copies over each other keep their order.
    fn finish_overlapping(&mut self, at: usize, bytes: usize, target: &mut Target<'_>) {
        self.pending.retain(|copy| {
            let range = &copy.bytes;
            let lands = range.at < at + bytes && at < range.at + range.data.len();
            if lands {
                range.land(target, false);
            }
            !lands
        });
    }
}

/// Claims a destination of one lane, which must not be in use by another copy.
pub(super) fn claim_incoming(context: &mut Context<'_>, bytes: &Incoming, lane: usize) -> Step<()> {
    let (at, length) = (bytes.at, bytes.data.len());
    let races = context.checks.races;
    let mut address = [0; 32];
    address[lane] = at as u64;
    let block = &mut *context.block;
    let claims = &block.shared.claims;
    claims.check(&address, 1 << lane, length, true, races)?;
    if claims.conflict(at, length, true).is_some() {
        let mut target = Target {
            shared: &mut block.shared,
            order: &mut block.order,
            races,
        };
        let copies = &mut block.asynchronous.copies;
        copies.finish_overlapping(at, length, &mut target);
    }
    check_shared_copy(context, bytes.access())?;
    let shared = &mut context.block.shared;
    let size = shared.bytes.len();
    shared.claims.range(size, at, length).fill(Claim::Incoming);
    Ok(())
}

/// What a `cp.async` says.
pub(super) struct CopyOp {
    pub(super) bytes: usize,
    pub(super) to: Place,
    pub(super) from: i64,
    pub(super) has_size: bool,
    pub(super) ignore: Option<Pred>,
}

/// `cp.async`.
pub(super) fn copy(
    context: &mut Context<'_>,
    warp: &mut Warp,
    frame: usize,
    op: &CopyOp,
    inst: &Inst,
    active: u32,
) -> Step<()> {
    let own = &warp.frames[frame];
    let [to, from, sizes, _] = inst.src.map(|slot| own.rows[slot as usize]);
    let to = to.map(|address| address.wrapping_add(op.to.offset as u64));
    let from = from.map(|address| address.wrapping_add(op.from as u64));
    let mut size = [op.bytes; 32];
    if op.has_size {
        for lane in lanes(active) {
            size[lane] = sizes[lane] as u32 as usize;
            if size[lane] > op.bytes {
                let (size, bytes) = (size[lane], op.bytes);
                return invalid(lane, format!("{size} bytes of {bytes} cannot be read"));
            }
        }
    }
    if let Some(ignore) = op.ignore {
        for lane in lanes(truth(own, ignore) & active) {
            size[lane] = 0;
        }
    }
    // What lanes read, by the number of bytes, of which there is mostly one.
    let mut data: [Vec<u8>; 32] = std::array::from_fn(|_| vec![0; op.bytes]);
    let mut left: u32 = lanes(active)
        .filter(|&lane| size[lane] != 0)
        .fold(0, |mask, lane| mask | 1 << lane);
    while left != 0 {
        let bytes = size[left.trailing_zeros() as usize];
        let group = lanes(left)
            .filter(|&lane| size[lane] == bytes)
            .fold(0, |mask, lane| mask | 1 << lane);
        left &= !group;
        // A copy of fewer bytes may end where its allocation does.
        let sizes = (op.bytes, bytes);
        let space = AccessSpace::Global;
        let group = taking_part_in_part(context, own, space, &from, group, sizes, false)?;
        if group == 0 {
            continue;
        }
        let found = find(context, &from, group, bytes, AccessSpace::Global)?;
        count(context, &from, group, bytes, &found, Direction::Load);
        for lane in lanes(group) {
            let index = match &found {
                Found::One(index) => *index,
                Found::Many(of) => of[lane],
            };
            let allocation = &context.launch.memory.allocations()[index];
            let offset = (from[lane] - allocation.base) as usize;
            let copy = CopyAccess {
                thread: warp.index * 32 + lane as u32,
                site: context.site as u32,
                address: from[lane],
                bytes,
                direction: Direction::Load,
                landed: false,
            };
            check_global_copy(context, copy)?;
            if context.checks.initialization && !allocation.is_written(offset, bytes) {
                let kind = FaultKind::UninitializedMemory { size: bytes as u32 };
                return Stop::access(kind, lane as u32, Space::Global, from[lane]);
            }
            for (at, byte) in data[lane][..bytes].iter_mut().enumerate() {
                *byte = allocation.load(offset + at, 1) as u8;
            }
        }
    }
    let first_thread = warp.index * 32;
    by_space(op.to.space, &to, active, |space, to, active| {
        let own = &warp.frames[frame];
        let active = taking_part(context, own, space, to, active, op.bytes, true)?;
        let end = context.block.shared.bytes.len() as u64;
        check_end(to, active, op.bytes, end, space)?;
        context
            .block
            .shared
            .count_copy(context.stats, active, op.bytes);
        for lane in lanes(active) {
            let bytes = Incoming {
                at: to[lane] as usize,
                data: std::mem::take(&mut data[lane]),
                thread: first_thread + lane as u32,
                site: context.site as u32,
            };
            claim_incoming(context, &bytes, lane)?;
            let copies = &mut context.block.asynchronous.copies;
            copies.sequence += 1;
            let copy = Copy {
                group: copies.groups.open(bytes.thread),
                sequence: copies.sequence,
                bytes,
            };
            copies.pending.push(copy);
        }
        Ok(())
    })
}
