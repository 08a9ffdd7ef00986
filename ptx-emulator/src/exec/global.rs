//! Requests to global memory: the allocations and sectors that they touch.

use super::access::{
    Direction, extend, fault_space, put, read_elements, used_bytes, write_elements,
};
use super::block::Context;
use super::lanes::{FULL, Row, lanes};
use super::race::{MemoryRequest, Stored, check_global};
use super::stop::{Step, Stop};
use super::warp::Warp;
use crate::device::Allocation;
use crate::fault::{FaultKind, Space};
use crate::isa::{Access, AccessSpace};

/// Where the lanes of a request to global memory found their bytes.
pub(super) enum Found {
    /// All in one allocation, by index.
    One(usize),
    /// Each active lane in its own.
    Many(Box<[usize; 32]>),
}

impl Found {
    fn index(&self, lane: usize) -> usize {
        match self {
            Self::One(index) => *index,
            Self::Many(of) => of[lane],
        }
    }
}

/// Finds the allocations that a request touches, or faults.
#[inline(always)]
pub(super) fn find(
    context: &mut Context<'_>,
    addresses: &Row,
    active: u32,
    size: usize,
    space: AccessSpace,
) -> Step<Found> {
    let (mut low, mut high) = (u64::MAX, 0);
    if active == FULL {
        for &address in addresses {
            low = low.min(address);
            high = high.max(address);
        }
    } else {
        for lane in lanes(active) {
            low = low.min(addresses[lane]);
            high = high.max(addresses[lane]);
        }
    }
    let memory = context.launch.memory;
    let allocations = memory.allocations();
    let spans = |allocation: &Allocation| {
        allocation.contains(low, 1) && allocation.contains(high, size as u64)
    };
    if allocations.get(context.last).is_some_and(spans) {
        return Ok(Found::One(context.last));
    }
    if let Some(index) = memory.find(low)
        && spans(&allocations[index])
    {
        context.last = index;
        return Ok(Found::One(index));
    }
    find_each(context, addresses, active, size, space)
}

#[cold]
fn find_each(
    context: &mut Context<'_>,
    addresses: &Row,
    active: u32,
    size: usize,
    space: AccessSpace,
) -> Step<Found> {
    let memory = context.launch.memory;
    let mut of = [0; 32];
    for lane in lanes(active) {
        let address = addresses[lane];
        match memory.find(address) {
            Some(index) if memory.allocations()[index].contains(address, size as u64) => {
                of[lane] = index;
            }
            _ => {
                let size = size as u32;
                let kind = if memory.was_freed(address) {
                    FaultKind::UseAfterFree { size }
                } else {
                    FaultKind::OutOfBounds { size }
                };
                return Stop::access(kind, lane as u32, fault_space(space), address);
            }
        }
    }
    Ok(Found::Many(Box::new(of)))
}

/// Counts a request's sectors and distinct bytes.
#[inline(always)]
pub(super) fn count(
    context: &mut Context<'_>,
    addresses: &Row,
    active: u32,
    size: usize,
    found: &Found,
    direction: Direction,
) {
    let (sectors, bytes);
    match found {
        Found::One(index) => {
            (sectors, bytes) = coalesce(addresses, active, size);
            credit(context, *index, sectors, bytes, direction);
        }
        Found::Many(of) => {
            let (mut all_sectors, mut all_bytes) = (0, 0);
            let mut left = active;
            while left != 0 {
                let index = of[left.trailing_zeros() as usize];
                let group = lanes(left)
                    .filter(|&lane| of[lane] == index)
                    .fold(0, |group, lane| group | 1 << lane);
                let (sectors, bytes) = coalesce(addresses, group, size);
                credit(context, index, sectors, bytes, direction);
                all_sectors += sectors;
                all_bytes += bytes;
                left &= !group;
            }
            (sectors, bytes) = (all_sectors, all_bytes);
        }
    }
    count_request(context, sectors, bytes, direction);
}

fn count_request(context: &mut Context<'_>, sectors: u64, bytes: u64, direction: Direction) {
    let site = &mut context.stats.sites[context.site];
    site.requests += 1;
    site.sectors += sectors;
    site.bytes += bytes;
    let global = &mut context.stats.counters.global;
    match direction {
        Direction::Load => {
            global.load_requests += 1;
            global.load_sectors += sectors;
            global.bytes_read += bytes;
        }
        Direction::Store => {
            global.store_requests += 1;
            global.store_sectors += sectors;
            global.bytes_written += bytes;
        }
    }
}

/// Counts a request of consecutive bytes.
pub(super) fn count_run(
    context: &mut Context<'_>,
    allocation: usize,
    address: u64,
    bytes: u64,
    direction: Direction,
) {
    let sectors = if bytes == 0 {
        0
    } else {
        (address + bytes - 1) / 32 - address / 32 + 1
    };
    credit(context, allocation, sectors, bytes, direction);
    count_request(context, sectors, bytes, direction);
}

fn credit(
    context: &mut Context<'_>,
    allocation: usize,
    sectors: u64,
    bytes: u64,
    direction: Direction,
) {
    let traffic = &mut context.stats.allocations[allocation];
    match direction {
        Direction::Load => {
            traffic.sectors_read += sectors;
            traffic.bytes_read += bytes;
        }
        Direction::Store => {
            traffic.sectors_written += sectors;
            traffic.bytes_written += bytes;
        }
    }
}

/// Distinct sectors and bytes of a request. An aligned access of up to 32 bytes lies in one sector.
#[inline(always)]
fn coalesce(addresses: &Row, active: u32, size: usize) -> (u64, u64) {
    if active == FULL && is_run(addresses, size) {
        let bytes = 32 * size as u64;
        let first = addresses[0] / 32;
        let last = (addresses[0] + bytes - 1) / 32;
        return (last - first + 1, bytes);
    }
    let mut sectors = [(0u64, 0u32); 32];
    let mut count = 0;
    for lane in lanes(active) {
        let address = addresses[lane];
        let mask = (u32::MAX >> (32 - size)) << (address % 32);
        let sector = address / 32;
        // Neighbouring lanes are mostly in the sector that was seen last.
        match sectors[..count]
            .iter_mut()
            .rev()
            .find(|known| known.0 == sector)
        {
            Some(known) => known.1 |= mask,
            None => {
                sectors[count] = (sector, mask);
                count += 1;
            }
        }
    }
    let bytes = sectors[..count]
        .iter()
        .map(|(_, mask)| u64::from(mask.count_ones()))
        .sum();
    (count as u64, bytes)
}

/// Whether each lane's bytes directly follow those of the lane before.
#[inline(always)]
fn is_run(addresses: &Row, size: usize) -> bool {
    let mut wrong = 0;
    for lane in 0..32 {
        wrong |= addresses[lane] ^ addresses[0].wrapping_add((lane * size) as u64);
    }
    wrong == 0
}

/// Elements of 32 bits each.
#[inline(always)]
fn put_words(warp: &mut Warp, frame: usize, access: &Access, active: u32, values: &[Row]) {
    for (&slot, values) in access.elements.iter().zip(values) {
        if access.signed && access.register_bits > 32 {
            let values = values.map(|value| extend(value, access));
            put(warp, frame, slot, active, &values);
        } else {
            put(warp, frame, slot, active, values);
        }
    }
}

/// `N` words of each lane, by element.
#[inline(always)]
fn load_lanes<const N: usize>(allocation: &Allocation, addresses: &Row, active: u32) -> [Row; N] {
    let mut out = [[0; 32]; N];
    let mut load = |lane: usize| {
        let words = allocation.load_words::<N>((addresses[lane] - allocation.base) as usize);
        for element in 0..N {
            out[element][lane] = words[element];
        }
    };
    if active == FULL {
        (0..32).for_each(&mut load);
    } else {
        lanes(active).for_each(&mut load);
    }
    out
}

#[allow(clippy::too_many_arguments)]
pub(super) fn load_global(
    context: &mut Context<'_>,
    warp: &mut Warp,
    frame: usize,
    access: &Access,
    addresses: &Row,
    active: u32,
    size: usize,
    space: AccessSpace,
) -> Step<()> {
    let found = find(context, addresses, active, size, space)?;
    if space == AccessSpace::Const {
        check_constant(context, &found, addresses, active, size)?;
    }
    count(context, addresses, active, size, &found, Direction::Load);
    // Nobody writes to constants.
    if context.checks.races && space != AccessSpace::Const {
        let direction = Direction::Load;
        let request = MemoryRequest::new(access, warp.index, addresses, active, size, direction);
        check_global(context, request)?;
    }
    let allocations = context.launch.memory.allocations();
    let unwritten = |lane: usize, address| {
        Stop::access(
            FaultKind::UninitializedMemory { size: size as u32 },
            lane as u32,
            fault_space(space),
            address,
        )
    };
    let used = access.used_bytes;
    let written = |allocation: &Allocation, offset: usize| {
        allocation.is_written(offset, size)
            || (used != u32::MAX
                && used_bytes(used, size).all(|byte| allocation.is_written(offset + byte, 1)))
    };
    match found {
        Found::One(index) => {
            let allocation = &allocations[index];
            let offset = |lane: usize| (addresses[lane] - allocation.base) as usize;
            let run = active == FULL && is_run(addresses, size);
            if context.checks.initialization
                && !(run && allocation.is_range_written(offset(0), 32 * size))
            {
                for lane in lanes(active) {
                    if !written(allocation, offset(lane)) {
                        return unwritten(lane, addresses[lane]);
                    }
                }
            }
            match (access.bytes, access.elements.len()) {
                (4, 1) if run => {
                    let values = allocation.load_words::<32>(offset(0));
                    put_words(warp, frame, access, active, &[values]);
                }
                (4, 1) => {
                    let values = load_lanes::<1>(allocation, addresses, active);
                    put_words(warp, frame, access, active, &values);
                }
                (4, 2) => {
                    let values = load_lanes::<2>(allocation, addresses, active);
                    put_words(warp, frame, access, active, &values);
                }
                (4, 4) => {
                    let values = load_lanes::<4>(allocation, addresses, active);
                    put_words(warp, frame, access, active, &values);
                }
                _ => read_elements(warp, frame, access, active, |lane, at, bytes| {
                    allocation.load(offset(lane) + at, bytes)
                }),
            }
        }
        Found::Many(of) => {
            if context.checks.initialization {
                for lane in lanes(active) {
                    let allocation = &allocations[of[lane]];
                    let offset = (addresses[lane] - allocation.base) as usize;
                    if !written(allocation, offset) {
                        return unwritten(lane, addresses[lane]);
                    }
                }
            }
            read_elements(warp, frame, access, active, |lane, at, bytes| {
                let allocation = &allocations[of[lane]];
                allocation.load((addresses[lane] - allocation.base) as usize + at, bytes)
            });
        }
    }
    Ok(())
}

/// Faults where `ld.const` would read something else than a constant variable.
fn check_constant(
    context: &Context<'_>,
    found: &Found,
    addresses: &Row,
    active: u32,
    size: usize,
) -> Step<()> {
    let allocations = context.launch.memory.allocations();
    let outside = lanes(active).find(|&lane| !allocations[found.index(lane)].constant);
    match outside {
        None => Ok(()),
        Some(lane) => {
            let kind = FaultKind::OutOfBounds { size: size as u32 };
            Stop::access(kind, lane as u32, Space::Const, addresses[lane])
        }
    }
}

/// Faults where a store would go to a constant variable.
pub(super) fn check_writable(
    allocations: &[Allocation],
    found: &Found,
    addresses: &Row,
    active: u32,
) -> Step<()> {
    for lane in lanes(active) {
        if allocations[found.index(lane)].constant {
            return Stop::access(
                FaultKind::ReadOnly,
                lane as u32,
                Space::Const,
                addresses[lane],
            );
        }
        if let Found::One(_) = found {
            break;
        }
    }
    Ok(())
}

pub(super) fn store_global(
    context: &mut Context<'_>,
    warp: &Warp,
    frame: usize,
    access: &Access,
    addresses: &Row,
    active: u32,
    size: usize,
) -> Step<()> {
    let found = find(context, addresses, active, size, AccessSpace::Global)?;
    let allocations = context.launch.memory.allocations();
    check_writable(allocations, &found, addresses, active)?;
    count(context, addresses, active, size, &found, Direction::Store);
    let rows = &warp.frames[frame].rows;
    if context.checks.races {
        let direction = Direction::Store;
        let request = MemoryRequest {
            stored: Some(Stored { rows, access }),
            ..MemoryRequest::new(access, warp.index, addresses, active, size, direction)
        };
        check_global(context, request)?;
    }
    match found {
        Found::One(index) => {
            let allocation = &allocations[index];
            let offset = |lane: usize| (addresses[lane] - allocation.base) as usize;
            if active == FULL && size == 4 && access.elements.len() == 1 && is_run(addresses, 4) {
                allocation.store_words(offset(0), &rows[access.elements[0] as usize]);
                allocation.mark_range_written(offset(0), 128);
                return Ok(());
            }
            write_elements(rows, access, active, |lane, at, bytes, value| {
                allocation.store(offset(lane) + at, bytes, value);
            });
            for lane in lanes(active) {
                allocation.mark_written(offset(lane), size);
            }
        }
        Found::Many(of) => {
            write_elements(rows, access, active, |lane, at, bytes, value| {
                let allocation = &allocations[of[lane]];
                let offset = (addresses[lane] - allocation.base) as usize + at;
                allocation.store(offset, bytes, value);
                allocation.mark_written(offset, bytes);
            });
        }
    }
    Ok(())
}
