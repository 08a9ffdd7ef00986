//! `cp.async.bulk`. A copy reads its source at once. To global memory it writes at once as well, and claims its source
//! until the thread waits; to shared memory it claims its destination until somebody waits at its mbarrier.

use super::access::{Direction, check_alignment, check_end, fault_space};
use super::asynchronous::invalid;
use super::block::Context;
use super::claims::Claim;
use super::copy::{Groups, Incoming, claim_incoming};
use super::global::{Found, check_writable, count_run, find};
use super::lanes::Row;
use super::order::Past;
use super::race::{CopyAccess, check_global_copy, check_shared_copy};
use super::stop::{Step, Stop};
use crate::fault::{FaultKind, Space};
use crate::isa::{AccessSpace, MAX_BULK_BYTES};

/// A copy to shared memory that an mbarrier waits for.
#[derive(Debug)]
pub(crate) struct BulkLoad {
    pub(crate) mbarrier: u64,
    pub(crate) bytes: Incoming,
    /// What its thread had done when it issued the copy, where races are looked for.
    pub(crate) past: Past,
}

/// A copy out of shared memory that may still be reading.
#[derive(Debug)]
pub(crate) struct BulkStore {
    thread: u32,
    group: u64,
    at: usize,
    bytes: usize,
}

/// Bulk copies that no wait has been seen for.
#[derive(Debug, Default)]
pub(crate) struct BulkCopies {
    pub(crate) loads: Vec<BulkLoad>,
    stores: Vec<BulkStore>,
    pub(super) groups: Groups,
}

impl BulkCopies {
    pub(crate) fn clear(&mut self) {
        self.loads.clear();
        self.stores.clear();
        self.groups.clear();
    }
}

/// Lets go of the sources of a thread's groups, the last `keep` excepted.
pub(super) fn wait(context: &mut Context<'_>, thread: u32, keep: u32) {
    let bulk = &mut context.block.asynchronous.bulk;
    let done = bulk.groups.open(thread).saturating_sub(keep.into());
    let shared = &mut context.block.shared;
    let size = shared.bytes.len();
    bulk.stores.retain(|store| {
        let ends = store.thread == thread && store.group < done;
        if ends {
            for claim in shared.claims.range(size, store.at, store.bytes) {
                *claim = match *claim {
                    Claim::Outgoing(count) if count > 1 => Claim::Outgoing(count - 1),
                    _ => Claim::Free,
                };
            }
        }
        !ends
    });
}

fn row(lane: usize, address: u64) -> Row {
    let mut row = [0; 32];
    row[lane] = address;
    row
}

fn check_size(lane: usize, bytes: usize) -> Step<()> {
    if bytes.is_multiple_of(16) && bytes as u64 <= MAX_BULK_BYTES {
        return Ok(());
    }
    invalid(
        lane,
        format!("{bytes} bytes is not a multiple of 16 from 0 to {MAX_BULK_BYTES}"),
    )
}

/// Alignment, length and bounds of what a lane has L2 fetch. Nothing is moved, and nothing is counted.
pub(super) fn check_prefetch(
    context: &mut Context<'_>,
    lane: usize,
    address: u64,
    bytes: usize,
) -> Step<()> {
    check_size(lane, bytes)?;
    let (address, mask) = (row(lane, address), 1 << lane);
    check_alignment(&address, mask, 16, AccessSpace::Global)?;
    find(context, &address, mask, bytes, AccessSpace::Global).map(drop)
}

/// One lane's copy: addresses in shared and global memory, and the number of bytes.
#[derive(Clone, Copy)]
pub(super) struct BulkCopy {
    pub(super) lane: usize,
    pub(super) thread: u32,
    pub(super) shared: u64,
    pub(super) global: u64,
    pub(super) bytes: usize,
}

impl BulkCopy {
    fn row(&self, address: u64) -> Row {
        row(self.lane, address)
    }

    /// Alignment, length and bounds; the allocation in global memory.
    fn check(&self, context: &mut Context<'_>, direction: Direction) -> Step<usize> {
        check_size(self.lane, self.bytes)?;
        let mask = 1 << self.lane;
        for (address, space) in [
            (self.shared, AccessSpace::Shared),
            (self.global, AccessSpace::Global),
        ] {
            check_alignment(&self.row(address), mask, 16, space)?;
        }
        let end = context.block.shared.bytes.len() as u64;
        check_end(
            &self.row(self.shared),
            mask,
            self.bytes,
            end,
            AccessSpace::Shared,
        )?;
        let addresses = self.row(self.global);
        let found = find(context, &addresses, mask, self.bytes, AccessSpace::Global)?;
        if direction == Direction::Store {
            let allocations = context.launch.memory.allocations();
            check_writable(allocations, &found, &addresses, mask)?;
        }
        let index = match found {
            Found::One(index) => index,
            Found::Many(of) => of[self.lane],
        };
        count_run(context, index, self.global, self.bytes as u64, direction);
        let copy = CopyAccess {
            thread: self.thread,
            site: context.site as u32,
            address: self.global,
            bytes: self.bytes,
            direction,
            landed: false,
        };
        check_global_copy(context, copy)?;
        Ok(index)
    }

    fn unwritten<T>(&self, space: AccessSpace, address: u64) -> Step<T> {
        let size = self.bytes as u32;
        let kind = FaultKind::UninitializedMemory { size };
        Stop::access(kind, self.lane as u32, fault_space(space), address)
    }

    /// From global to shared memory.
    pub(super) fn load(&self, context: &mut Context<'_>, mbarrier: u64) -> Step<()> {
        let mbarriers = &mut context.block.asynchronous.mbarriers;
        mbarriers.object(mbarrier, self.lane)?;
        let index = self.check(context, Direction::Load)?;
        let allocation = &context.launch.memory.allocations()[index];
        let offset = (self.global - allocation.base) as usize;
        if context.checks.initialization && !allocation.is_range_written(offset, self.bytes) {
            return self.unwritten(AccessSpace::Global, self.global);
        }
        let bytes = Incoming {
            at: self.shared as usize,
            data: (0..self.bytes)
                .step_by(8)
                .flat_map(|at| allocation.load(offset + at, 8).to_le_bytes())
                .collect(),
            thread: self.thread,
            site: context.site as u32,
        };
        claim_incoming(context, &bytes, self.lane)?;
        let shared = &mut context.block.shared;
        shared.count_copy(context.stats, 1 << self.lane, self.bytes);
        let past = if context.checks.races {
            context.block.order.issue(self.thread as usize / 32)
        } else {
            Past::default()
        };
        let loads = &mut context.block.asynchronous.bulk.loads;
        loads.push(BulkLoad {
            mbarrier,
            bytes,
            past,
        });
        Ok(())
    }

    /// From shared to global memory.
    pub(super) fn store(&self, context: &mut Context<'_>) -> Step<()> {
        let index = self.check(context, Direction::Store)?;
        let at = self.shared as usize;
        let races = context.checks.races;
        let shared = &mut context.block.shared;
        let address = self.row(self.shared);
        let mask = 1 << self.lane;
        shared
            .claims
            .check(&address, mask, self.bytes, false, races)?;
        if context.checks.initialization && !shared.is_written(at, self.bytes) {
            return self.unwritten(AccessSpace::Shared, self.shared);
        }
        let copy = CopyAccess {
            thread: self.thread,
            site: context.site as u32,
            address: self.shared,
            bytes: self.bytes,
            direction: Direction::Load,
            landed: false,
        };
        check_shared_copy(context, copy)?;
        let shared = &mut context.block.shared;
        let counters = &mut context.stats.counters.shared;
        counters.requests += 1;
        counters.wavefronts += self.bytes.div_ceil(128) as u64;
        counters.bytes_read += self.bytes as u64;
        let allocation = &context.launch.memory.allocations()[index];
        let offset = (self.global - allocation.base) as usize;
        for byte in (0..self.bytes).step_by(8) {
            allocation.store(offset + byte, 8, shared.load(at + byte, 8));
        }
        allocation.mark_range_written(offset, self.bytes);
        let size = shared.bytes.len();
        for claim in shared.claims.range(size, at, self.bytes) {
            *claim = match *claim {
                Claim::Outgoing(count) => Claim::Outgoing(count + 1),
                _ => Claim::Outgoing(1),
            };
        }
        let bulk = &mut context.block.asynchronous.bulk;
        let group = bulk.groups.open(self.thread);
        bulk.stores.push(BulkStore {
            thread: self.thread,
            group,
            at,
            bytes: self.bytes,
        });
        Ok(())
    }
}

/// The shared-memory address that a generic or shared one means.
pub(super) fn shared_address(space: AccessSpace, address: u64, lane: usize) -> Step<u64> {
    let mut row = [0; 32];
    row[lane] = address;
    let mut found = 0;
    super::access::by_space(space, &row, 1 << lane, |space, row, _| {
        if space != AccessSpace::Shared {
            let reason = "the address is not in shared memory".to_owned();
            let kind = FaultKind::InvalidOperand { reason };
            return Stop::access(kind, lane as u32, Space::Global, address);
        }
        found = row[lane];
        Ok(())
    })?;
    Ok(found)
}
