//! Loads and stores.

use super::block::{Context, locate};
use super::lanes::{FULL, Row, lanes, write_row};
use super::stop::{Step, Stop};
use super::warp::{Frame, Warp};
use super::{WINDOW_LOCAL, WINDOW_PARAM, WINDOW_SHARED, shared};
use crate::device::Allocation;
use crate::error::{FaultKind, Site, Space};
use crate::isa::{Access, AccessSpace, Inst, Ordering};

/// Which way data goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Load,
    Store,
}

/// Where the lanes of a request to global memory found their bytes.
pub(super) enum Found {
    /// All in one allocation, by index.
    One(usize),
    /// Each active lane in its own.
    Many(Box<[usize; 32]>),
}

/// A lane's address: the base register plus the offset.
fn addresses(frame: &Frame, access: &Access, inst: &Inst) -> Row {
    let base = &frame.rows[inst.src[0] as usize];
    let mut out = [0; 32];
    for lane in 0..32 {
        out[lane] = base[lane].wrapping_add(access.offset as u64);
    }
    out
}

/// The space of a generic address, and the address within it.
fn resolve(address: u64) -> (AccessSpace, u64) {
    match address >> 32 {
        1 => (AccessSpace::Shared, address - WINDOW_SHARED),
        2 => (AccessSpace::Local, address - WINDOW_LOCAL),
        3 => (AccessSpace::KernelParam, address - WINDOW_PARAM),
        _ => (AccessSpace::Global, address),
    }
}

/// Runs `f` once for each space that generic addresses reach.
pub(super) fn by_space(
    space: AccessSpace,
    addresses: &Row,
    active: u32,
    mut f: impl FnMut(AccessSpace, &Row, u32) -> Step<()>,
) -> Step<()> {
    if space != AccessSpace::Generic {
        return f(space, addresses, active);
    }
    let mut left = active;
    while left != 0 {
        let (space, _) = resolve(addresses[left.trailing_zeros() as usize]);
        let mut group = 0;
        let mut within = [0; 32];
        for lane in lanes(left) {
            let (of_lane, address) = resolve(addresses[lane]);
            if of_lane == space {
                group |= 1 << lane;
                within[lane] = address;
            }
        }
        f(space, &within, group)?;
        left &= !group;
    }
    Ok(())
}

pub(super) fn fault_space(space: AccessSpace) -> Space {
    match space {
        AccessSpace::Generic | AccessSpace::Global => Space::Global,
        AccessSpace::Const => Space::Const,
        AccessSpace::Shared => Space::Shared,
        AccessSpace::Local => Space::Local,
        AccessSpace::KernelParam | AccessSpace::FrameParam => Space::Param,
    }
}

/// Faults at the first lane whose address is not a multiple of the access size.
#[inline(always)]
pub(super) fn check_alignment(
    addresses: &Row,
    active: u32,
    size: usize,
    space: AccessSpace,
) -> Step<()> {
    let mut bits = 0;
    for lane in 0..32 {
        // Inactive lanes do not matter.
        bits |= addresses[lane] & 0u64.wrapping_sub(u64::from(active >> lane & 1));
    }
    let low = size as u64 - 1;
    if bits & low == 0 {
        return Ok(());
    }
    let lane = lanes(active)
        .find(|&lane| addresses[lane] & low != 0)
        .unwrap_or(0);
    Stop::access(
        FaultKind::Misaligned {
            required: size as u32,
        },
        lane as u32,
        fault_space(space),
        addresses[lane],
    )
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

/// With memory checks off: the lanes whose access is sound.
fn sound_lanes(
    context: &Context<'_>,
    frame: &Frame,
    space: AccessSpace,
    addresses: &Row,
    active: u32,
    size: usize,
    write: bool,
) -> u32 {
    let size = size as u64;
    let below = |address: u64, end: u64| address <= end && end - address >= size;
    let memory = context.launch.memory;
    lanes(active)
        .filter(|&lane| {
            let address = addresses[lane];
            address % size == 0
                && match space {
                    AccessSpace::Generic | AccessSpace::Global | AccessSpace::Const => {
                        memory.find(address).is_some_and(|index| {
                            let allocation = &memory.allocations()[index];
                            allocation.contains(address, size) && !(write && allocation.constant)
                        })
                    }
                    AccessSpace::Shared => below(address, context.block.shared.bytes.len() as u64),
                    AccessSpace::Local => below(address, frame.local_end.into()),
                    AccessSpace::KernelParam => {
                        !write && below(address, context.launch.params.len() as u64)
                    }
                    AccessSpace::FrameParam => below(address, frame.params.len() as u64 / 32),
                }
        })
        .fold(0, |sound, lane| sound | 1 << lane)
}

/// The lanes that take part in a request: all, or those that [`sound_lanes`] leaves.
pub(super) fn taking_part(
    context: &Context<'_>,
    frame: &Frame,
    space: AccessSpace,
    addresses: &Row,
    active: u32,
    size: usize,
    write: bool,
) -> Step<u32> {
    if context.checks.memory {
        check_alignment(addresses, active, size, space)?;
        return Ok(active);
    }
    Ok(sound_lanes(
        context, frame, space, addresses, active, size, write,
    ))
}

/// `ld`.
pub(crate) fn load(
    context: &mut Context<'_>,
    warp: &mut Warp,
    frame: usize,
    access: &Access,
    inst: &Inst,
    active: u32,
) -> Step<()> {
    let addresses = addresses(&warp.frames[frame], access, inst);
    by_space(
        access.space,
        &addresses,
        active,
        |space, addresses, active| {
            let size = usize::from(access.bytes) * access.elements.len();
            let own = &warp.frames[frame];
            let sound = taking_part(context, own, space, addresses, active, size, false)?;
            if sound != active {
                for &slot in &access.elements {
                    put(warp, frame, slot, active & !sound, &[0; 32]);
                }
            }
            let active = sound;
            if active == 0 {
                return Ok(());
            }
            match space {
                AccessSpace::Global | AccessSpace::Const | AccessSpace::Generic => {
                    load_global(context, warp, frame, access, addresses, active, size, space)
                }
                AccessSpace::Shared => {
                    redirect(context, access, active, Direction::Load, true);
                    load_shared(context, warp, frame, access, addresses, active, size)
                }
                AccessSpace::Local => {
                    redirect(context, access, active, Direction::Load, false);
                    load_local(context, warp, frame, access, addresses, active, size)
                }
                AccessSpace::KernelParam => {
                    redirect(context, access, active, Direction::Load, false);
                    let params = &context.launch.params;
                    let end = params.len() as u64;
                    check_end(addresses, active, size, end, space)?;
                    gather(warp, frame, access, active, |lane, offset, bytes| {
                        little_endian(params, addresses[lane] as usize + offset, bytes)
                    });
                    Ok(())
                }
                AccessSpace::FrameParam => {
                    let own = &warp.frames[frame];
                    let stride = own.params.len() / 32;
                    check_end(addresses, active, size, stride as u64, space)?;
                    let params = own.params.clone();
                    gather(warp, frame, access, active, |lane, offset, bytes| {
                        let start = lane * stride + addresses[lane] as usize + offset;
                        little_endian(&params, start, bytes)
                    });
                    Ok(())
                }
            }
        },
    )
}

/// Generic accesses that are not to global memory are counted under the space that they reach.
pub(super) fn redirect(
    context: &mut Context<'_>,
    access: &Access,
    active: u32,
    direction: Direction,
    shared: bool,
) {
    if access.space != AccessSpace::Generic || access.atomic.is_some() {
        return;
    }
    let redirected = match direction {
        Direction::Load => &mut context.stats.generic_load,
        Direction::Store => &mut context.stats.generic_store,
    };
    let (warps, lanes) = if shared {
        (&mut redirected.shared.0, &mut redirected.shared.1)
    } else {
        (&mut redirected.other.0, &mut redirected.other.1)
    };
    *warps += 1;
    *lanes += u64::from(active.count_ones());
}

fn little_endian(bytes: &[u8], at: usize, count: usize) -> u64 {
    let mut value = [0; 8];
    value[..count].copy_from_slice(&bytes[at..at + count]);
    u64::from_le_bytes(value)
}

/// Faults at the first lane whose bytes are not all below `end`.
pub(super) fn check_end(
    addresses: &Row,
    active: u32,
    size: usize,
    end: u64,
    space: AccessSpace,
) -> Step<()> {
    for lane in lanes(active) {
        let address = addresses[lane];
        if address > end || end - address < size as u64 {
            let size = size as u32;
            return Stop::access(
                FaultKind::OutOfBounds { size },
                lane as u32,
                fault_space(space),
                address,
            );
        }
    }
    Ok(())
}

/// Sign-extends an element to its register.
#[inline(always)]
fn extend(value: u64, access: &Access) -> u64 {
    if !access.signed {
        return value;
    }
    let unused = 64 - 8 * u32::from(access.bytes);
    let wide = ((value << unused) as i64 >> unused) as u64;
    wide & (u64::MAX >> (64 - u32::from(access.register_bits)))
}

/// Fills the destination rows element by element; `read` gets lane, byte offset and byte count.
#[inline(always)]
fn gather(
    warp: &mut Warp,
    frame: usize,
    access: &Access,
    active: u32,
    read: impl Fn(usize, usize, usize) -> u64,
) {
    let bytes = usize::from(access.bytes);
    for (index, &slot) in access.elements.iter().enumerate() {
        let mut values = [0; 32];
        for lane in lanes(active) {
            values[lane] = extend(read(lane, index * bytes, bytes), access);
        }
        put(warp, frame, slot, active, &values);
    }
}

#[inline(always)]
fn put(warp: &mut Warp, frame: usize, slot: u32, active: u32, values: &Row) {
    let frame = &mut warp.frames[frame];
    write_row(&mut frame.rows[slot as usize], active, values);
    frame.initialized[slot as usize] |= active;
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
fn load_global(
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
    count(context, addresses, active, size, &found, Direction::Load);
    let allocations = context.launch.memory.allocations();
    let unwritten = |lane: usize, address| {
        Stop::access(
            FaultKind::UninitializedMemory { size: size as u32 },
            lane as u32,
            fault_space(space),
            address,
        )
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
                    if !allocation.is_written(offset(lane), size) {
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
                _ => gather(warp, frame, access, active, |lane, at, bytes| {
                    allocation.load(offset(lane) + at, bytes)
                }),
            }
        }
        Found::Many(of) => {
            if context.checks.initialization {
                for lane in lanes(active) {
                    let allocation = &allocations[of[lane]];
                    let offset = (addresses[lane] - allocation.base) as usize;
                    if !allocation.is_written(offset, size) {
                        return unwritten(lane, addresses[lane]);
                    }
                }
            }
            gather(warp, frame, access, active, |lane, at, bytes| {
                let allocation = &allocations[of[lane]];
                allocation.load((addresses[lane] - allocation.base) as usize + at, bytes)
            });
        }
    }
    Ok(())
}

/// A request to shared memory.
#[derive(Clone, Copy)]
pub(super) struct SharedRequest<'a> {
    pub(super) warp: u32,
    pub(super) addresses: &'a Row,
    pub(super) active: u32,
    pub(super) size: usize,
    pub(super) ordering: Ordering,
    pub(super) atomic: bool,
    pub(super) direction: Direction,
}

/// Bounds, counts and races of a request to shared memory.
pub(super) fn prepare_shared(context: &mut Context<'_>, request: SharedRequest<'_>) -> Step<()> {
    let SharedRequest {
        warp,
        addresses,
        active,
        size,
        ordering,
        atomic,
        direction,
    } = request;
    let end = context.block.shared.bytes.len() as u64;
    check_end(addresses, active, size, end, AccessSpace::Shared)?;
    let (passes, ideal) = shared::wavefronts(addresses, active, size);
    let counters = &mut context.stats.counters.shared;
    counters.requests += 1;
    counters.wavefronts += passes;
    counters.bank_conflicts += passes - ideal;
    let bytes = u64::from(active.count_ones()) * size as u64;
    if atomic || direction == Direction::Load {
        counters.bytes_read += bytes;
    }
    if atomic || direction == Direction::Store {
        counters.bytes_written += bytes;
    }
    context.stats.sites[context.site].conflicts += passes - ideal;
    if context.checks.initialization && (atomic || direction == Direction::Load) {
        for lane in lanes(active) {
            let at = addresses[lane] as usize;
            if !context.block.shared.is_written(at, size) {
                return Stop::access(
                    FaultKind::UninitializedMemory { size: size as u32 },
                    lane as u32,
                    Space::Shared,
                    addresses[lane],
                );
            }
        }
    }
    if !context.checks.races {
        return Ok(());
    }
    let strong = atomic || ordering != Ordering::Weak;
    let races = &mut context.block.shared.races;
    if strong && (atomic || direction == Direction::Load) {
        let acquire = matches!(ordering, Ordering::Acquire | Ordering::AcqRel);
        races.observe(warp as usize, acquire);
    }
    let site = context.site as u32;
    for lane in lanes(active) {
        let thread = warp * 32 + lane as u32;
        let at = addresses[lane] as usize;
        let conflict = match direction {
            Direction::Load => races.read(at, size, thread, site, strong),
            Direction::Store => races.write(at, size, thread, site, strong),
        };
        if let Some(conflict) = conflict {
            let (image, pc) = locate(context.launch, conflict.site as usize);
            let line = image.function.lines[pc] as usize;
            return Stop::access(
                FaultKind::SharedRace {
                    other: Site {
                        line,
                        instruction: context.launch.module.text(line).to_owned(),
                        thread: context.launch.thread_index(conflict.thread),
                        write: conflict.write,
                    },
                },
                lane as u32,
                Space::Shared,
                addresses[lane],
            );
        }
    }
    if strong && (atomic || direction == Direction::Store) {
        let release = matches!(ordering, Ordering::Release | Ordering::AcqRel);
        races.publish(warp as usize, release);
    }
    Ok(())
}

fn load_shared(
    context: &mut Context<'_>,
    warp: &mut Warp,
    frame: usize,
    access: &Access,
    addresses: &Row,
    active: u32,
    size: usize,
) -> Step<()> {
    prepare_shared(
        context,
        SharedRequest {
            warp: warp.index,
            addresses,
            active,
            size,
            ordering: access.ordering,
            atomic: false,
            direction: Direction::Load,
        },
    )?;
    let shared = &context.block.shared;
    gather(warp, frame, access, active, |lane, offset, bytes| {
        shared.load(addresses[lane] as usize + offset, bytes)
    });
    Ok(())
}

fn load_local(
    context: &mut Context<'_>,
    warp: &mut Warp,
    frame: usize,
    access: &Access,
    addresses: &Row,
    active: u32,
    size: usize,
) -> Step<()> {
    let end = u64::from(warp.frames[frame].local_end);
    check_end(addresses, active, size, end, AccessSpace::Local)?;
    context.stats.counters.local_bytes_read += u64::from(active.count_ones()) * size as u64;
    if context.checks.initialization {
        for lane in lanes(active) {
            let at = addresses[lane] as usize;
            if !warp.local[lane].written[at..at + size].iter().all(|&w| w) {
                return Stop::access(
                    FaultKind::UninitializedMemory { size: size as u32 },
                    lane as u32,
                    Space::Local,
                    addresses[lane],
                );
            }
        }
    }
    let local = std::mem::take(&mut warp.local);
    gather(warp, frame, access, active, |lane, offset, bytes| {
        little_endian(&local[lane].bytes, addresses[lane] as usize + offset, bytes)
    });
    warp.local = local;
    Ok(())
}

/// `st`.
pub(crate) fn store(
    context: &mut Context<'_>,
    warp: &mut Warp,
    frame: usize,
    access: &Access,
    inst: &Inst,
    active: u32,
) -> Step<()> {
    let addresses = addresses(&warp.frames[frame], access, inst);
    by_space(
        access.space,
        &addresses,
        active,
        |space, addresses, active| {
            let size = usize::from(access.bytes) * access.elements.len();
            let own = &warp.frames[frame];
            let active = taking_part(context, own, space, addresses, active, size, true)?;
            if active == 0 {
                return Ok(());
            }
            match space {
                AccessSpace::Global | AccessSpace::Generic => {
                    let rows = &warp.frames[frame].rows;
                    store_global(context, rows, access, addresses, active, size)
                }
                AccessSpace::Shared => {
                    redirect(context, access, active, Direction::Store, true);
                    prepare_shared(
                        context,
                        SharedRequest {
                            warp: warp.index,
                            addresses,
                            active,
                            size,
                            ordering: access.ordering,
                            atomic: false,
                            direction: Direction::Store,
                        },
                    )?;
                    let rows = &warp.frames[frame].rows;
                    let shared = &mut context.block.shared;
                    scatter(rows, access, active, |lane, offset, bytes, value| {
                        shared.store(addresses[lane] as usize + offset, bytes, value);
                    });
                    Ok(())
                }
                AccessSpace::Local => {
                    redirect(context, access, active, Direction::Store, false);
                    let own = &warp.frames[frame];
                    let end = u64::from(own.local_end);
                    check_end(addresses, active, size, end, space)?;
                    context.stats.counters.local_bytes_written +=
                        u64::from(active.count_ones()) * size as u64;
                    let local = &mut warp.local;
                    scatter(&own.rows, access, active, |lane, offset, bytes, value| {
                        let at = addresses[lane] as usize + offset;
                        local[lane].bytes[at..at + bytes]
                            .copy_from_slice(&value.to_le_bytes()[..bytes]);
                        local[lane].written[at..at + bytes].fill(true);
                    });
                    Ok(())
                }
                AccessSpace::FrameParam => {
                    let own = &mut warp.frames[frame];
                    let stride = own.params.len() / 32;
                    check_end(addresses, active, size, stride as u64, space)?;
                    let params = &mut own.params;
                    scatter(&own.rows, access, active, |lane, offset, bytes, value| {
                        let at = lane * stride + addresses[lane] as usize + offset;
                        params[at..at + bytes].copy_from_slice(&value.to_le_bytes()[..bytes]);
                    });
                    Ok(())
                }
                AccessSpace::Const | AccessSpace::KernelParam => {
                    let lane = active.trailing_zeros();
                    let address = addresses[lane as usize];
                    Stop::access(FaultKind::ReadOnly, lane, fault_space(space), address)
                }
            }
        },
    )
}

/// Takes the elements of each lane from their rows; `write` gets lane, byte offset, byte count and value.
#[inline(always)]
fn scatter(
    rows: &[Row],
    access: &Access,
    active: u32,
    mut write: impl FnMut(usize, usize, usize, u64),
) {
    let bytes = usize::from(access.bytes);
    for (index, &slot) in access.elements.iter().enumerate() {
        let row = &rows[slot as usize];
        for lane in lanes(active) {
            write(lane, index * bytes, bytes, row[lane]);
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
        let index = match found {
            Found::One(index) => *index,
            Found::Many(of) => of[lane],
        };
        if allocations[index].constant {
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

fn store_global(
    context: &mut Context<'_>,
    rows: &[Row],
    access: &Access,
    addresses: &Row,
    active: u32,
    size: usize,
) -> Step<()> {
    let found = find(context, addresses, active, size, AccessSpace::Global)?;
    let allocations = context.launch.memory.allocations();
    check_writable(allocations, &found, addresses, active)?;
    count(context, addresses, active, size, &found, Direction::Store);
    match found {
        Found::One(index) => {
            let allocation = &allocations[index];
            let offset = |lane: usize| (addresses[lane] - allocation.base) as usize;
            if active == FULL && size == 4 && access.elements.len() == 1 && is_run(addresses, 4) {
                allocation.store_words(offset(0), &rows[access.elements[0] as usize]);
                allocation.mark_range_written(offset(0), 128);
                return Ok(());
            }
            scatter(rows, access, active, |lane, at, bytes, value| {
                allocation.store(offset(lane) + at, bytes, value);
            });
            for lane in lanes(active) {
                allocation.mark_written(offset(lane), size);
            }
        }
        Found::Many(of) => {
            scatter(rows, access, active, |lane, at, bytes, value| {
                let allocation = &allocations[of[lane]];
                let offset = (addresses[lane] - allocation.base) as usize + at;
                allocation.store(offset, bytes, value);
                allocation.mark_written(offset, bytes);
            });
        }
    }
    Ok(())
}
