//! Loads and stores: which space each lane means, and the spaces that belong to a warp alone.

use super::block::Context;
use super::control::check_rows;
use super::data::set_initialized;
use super::global::{load_global, store_global};
use super::lanes::{Row, lanes, write_row};
use super::race::{MemoryRequest, Stored};
use super::shared::{load_shared, prepare_shared};
use super::stop::{Step, Stop};
use super::warp::{Frame, Warp};
use super::{WINDOW_LOCAL, WINDOW_PARAM, WINDOW_SHARED};
use crate::fault::{FaultKind, Space};
use crate::isa::{Access, AccessSpace, Inst};

/// Which way data goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Load,
    Store,
}

/// Each lane's address: the base register plus the offset.
pub(super) fn addresses(frame: &Frame, access: &Access, inst: &Inst) -> Row {
    let base = &frame.rows[inst.src[0] as usize];
    let mut out = [0; 32];
    for lane in 0..32 {
        out[lane] = base[lane].wrapping_add(access.offset as u64);
    }
    out
}

/// The space of a generic address, and the address within it.
pub(super) fn resolve(address: u64) -> (AccessSpace, u64) {
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

/// With memory checks off: the lanes whose access is sound.
fn sound_lanes(
    context: &Context<'_>,
    frame: &Frame,
    space: AccessSpace,
    addresses: &Row,
    active: u32,
    (align, size): (usize, usize),
    write: bool,
) -> u32 {
    let (align, size) = (align as u64, size as u64);
    let below = |address: u64, end: u64| address <= end && end - address >= size;
    let memory = context.launch.memory;
    lanes(active)
        .filter(|&lane| {
            let address = addresses[lane];
            address.is_multiple_of(align)
                && match space {
                    AccessSpace::Generic | AccessSpace::Global | AccessSpace::Const => {
                        memory.find(address).is_some_and(|index| {
                            let allocation = &memory.allocations()[index];
                            let allowed = match space {
                                AccessSpace::Const => allocation.constant,
                                _ => !(write && allocation.constant),
                            };
                            allowed && allocation.contains(address, size)
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
    let sizes = (size, size);
    taking_part_in_part(context, frame, space, addresses, active, sizes, write)
}

/// [`taking_part`] in a request that is aligned to one size, of which the bytes of another are used.
pub(super) fn taking_part_in_part(
    context: &Context<'_>,
    frame: &Frame,
    space: AccessSpace,
    addresses: &Row,
    active: u32,
    sizes: (usize, usize),
    write: bool,
) -> Step<u32> {
    if context.checks.memory {
        check_alignment(addresses, active, sizes.0, space)?;
        return Ok(active);
    }
    Ok(sound_lanes(
        context, frame, space, addresses, active, sizes, write,
    ))
}

/// The bytes of a mask, of so many.
pub(super) fn used_bytes(mask: u32, bytes: usize) -> impl Iterator<Item = usize> {
    lanes(mask).take_while(move |&byte| byte < bytes)
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
                    read_elements(warp, frame, access, active, |lane, offset, bytes| {
                        little_endian(params, addresses[lane] as usize + offset, bytes)
                    });
                    Ok(())
                }
                AccessSpace::FrameParam => {
                    let own = &warp.frames[frame];
                    let stride = own.params.len() / 32;
                    check_end(addresses, active, size, stride as u64, space)?;
                    let params = own.params.clone();
                    read_elements(warp, frame, access, active, |lane, offset, bytes| {
                        let start = lane * stride + addresses[lane] as usize + offset;
                        little_endian(&params, start, bytes)
                    });
                    // What was never written stays so in the register.
                    let first = addresses[active.trailing_zeros() as usize] as usize;
                    let bytes = usize::from(access.bytes);
                    let own = &mut warp.frames[frame];
                    for (index, &slot) in access.elements.iter().enumerate() {
                        let used = access.used_bytes >> (index * bytes);
                        let place = &own.params_initialized[first + index * bytes..];
                        let known =
                            used_bytes(used, bytes).fold(active, |known, byte| known & place[byte]);
                        set_initialized(own, slot, active, known);
                    }
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
pub(super) fn extend(value: u64, access: &Access) -> u64 {
    if !access.signed {
        return value;
    }
    let unused = 64 - 8 * u32::from(access.bytes);
    let wide = ((value << unused) as i64 >> unused) as u64;
    wide & (u64::MAX >> (64 - u32::from(access.register_bits)))
}

/// Fills the destination rows element by element; `read` gets lane, byte offset and byte count.
#[inline(always)]
pub(super) fn read_elements(
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
pub(super) fn put(warp: &mut Warp, frame: usize, slot: u32, active: u32, values: &Row) {
    let frame = &mut warp.frames[frame];
    write_row(&mut frame.rows[slot as usize], active, values);
    frame.initialized[slot as usize] |= active;
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
    let local = std::mem::take(&mut warp.local);
    read_elements(warp, frame, access, active, |lane, offset, bytes| {
        little_endian(&local[lane].bytes, addresses[lane] as usize + offset, bytes)
    });
    // Unoptimised code keeps variables here, and copies those that have no value yet.
    let bytes = usize::from(access.bytes);
    for (index, &slot) in access.elements.iter().enumerate() {
        let is_written = |lane: &usize| {
            let start = addresses[*lane] as usize + index * bytes;
            let written = &local[*lane].written[start..start + bytes];
            used_bytes(access.used_bytes >> (index * bytes), bytes).all(|byte| written[byte])
        };
        let known = lanes(active)
            .filter(is_written)
            .fold(0, |known, lane| known | 1 << lane);
        set_initialized(&mut warp.frames[frame], slot, active, known);
    }
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
            if access.space == AccessSpace::Generic
                && space != AccessSpace::Local
                && context.checks.initialization
            {
                let own = &warp.frames[frame];
                let image = &context.launch.images[own.function as usize];
                check_rows(own, image, &access.elements, active)?;
            }
            match space {
                AccessSpace::Global | AccessSpace::Generic => {
                    store_global(context, warp, frame, access, addresses, active, size)
                }
                AccessSpace::Shared => {
                    redirect(context, access, active, Direction::Store, true);
                    let rows = &warp.frames[frame].rows;
                    let request = MemoryRequest {
                        stored: Some(Stored { rows, access }),
                        ..MemoryRequest::new(
                            access,
                            warp.index,
                            addresses,
                            active,
                            size,
                            Direction::Store,
                        )
                    };
                    prepare_shared(context, request)?;
                    let shared = &mut context.block.shared;
                    write_elements(rows, access, active, |lane, offset, bytes, value| {
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
                    write_elements(&own.rows, access, active, |lane, offset, bytes, value| {
                        let at = addresses[lane] as usize + offset;
                        local[lane].bytes[at..at + bytes]
                            .copy_from_slice(&value.to_le_bytes()[..bytes]);
                        let known = own.initialized[access.elements[offset / bytes] as usize];
                        local[lane].written[at..at + bytes].fill(known >> lane & 1 != 0);
                    });
                    Ok(())
                }
                AccessSpace::FrameParam => {
                    let own = &mut warp.frames[frame];
                    let stride = own.params.len() / 32;
                    check_end(addresses, active, size, stride as u64, space)?;
                    let params = &mut own.params;
                    write_elements(&own.rows, access, active, |lane, offset, bytes, value| {
                        let at = lane * stride + addresses[lane] as usize + offset;
                        params[at..at + bytes].copy_from_slice(&value.to_le_bytes()[..bytes]);
                    });
                    let first = addresses[active.trailing_zeros() as usize] as usize;
                    let bytes = usize::from(access.bytes);
                    for (index, &slot) in access.elements.iter().enumerate() {
                        let known = own.initialized[slot as usize];
                        for byte in &mut own.params_initialized[first + index * bytes..][..bytes] {
                            *byte = (*byte & !active) | (known & active);
                        }
                    }
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
pub(super) fn write_elements(
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
