//! `atom` and `red`. Lanes take their turns in ascending order.

use super::access::{Direction, addresses, by_space, taking_part};
use super::block::Context;
use super::global::{Found, check_writable, count, find};
use super::lanes::{Row, lanes, write_row};
use super::race::{MemoryRequest, check_global};
use super::shared::prepare_shared;
use super::stop::{Step, Stop};
use super::warp::{Frame, Warp};
use crate::arith::{float, half};
use crate::device::Allocation;
use crate::fault::{FaultKind, Space};
use crate::isa::{
    Access, AccessSpace, AtomicKind, AtomicOp, FloatMode, FloatOp, HalfType, Inst, Type,
};

pub(crate) fn execute(
    context: &mut Context<'_>,
    warp: &mut Warp,
    frame: usize,
    access: &Access,
    inst: &Inst,
    active: u32,
) -> Step<()> {
    let Some(op) = access.atomic else {
        return Ok(());
    };
    let own = &warp.frames[frame];
    let addresses = addresses(own, access, inst);
    let b = own.rows[inst.src[1] as usize];
    let c = own.rows[inst.src[2] as usize];
    let size = usize::from(access.bytes) * access.elements.len().max(1);
    let mut old: Row = [0; 32];
    let number = warp.index;
    let direction = if op.reduction {
        Direction::Store
    } else {
        Direction::Load
    };
    by_space(
        access.space,
        &addresses,
        active,
        |space, addresses, active| {
            let own = &warp.frames[frame];
            let active = taking_part(context, own, space, addresses, active, size, true)?;
            if active == 0 {
                return Ok(());
            }
            let request = MemoryRequest {
                atomic: true,
                ..MemoryRequest::new(access, number, addresses, active, size, direction)
            };
            if space == AccessSpace::Shared && access.elements.is_empty() {
                prepare_shared(context, request)?;
                for lane in lanes(active) {
                    let at = addresses[lane] as usize;
                    let shared = &mut context.block.shared;
                    old[lane] = shared.load(at, size);
                    let new = combine(op, old[lane], b[lane], c[lane], false);
                    shared.store(at, size, new);
                    context.stats.effects += u64::from(new != old[lane]);
                }
                return Ok(());
            }
            if space != AccessSpace::Global {
                let lane = active.trailing_zeros();
                let reason = if access.elements.is_empty() {
                    "atomics are for global and shared memory"
                } else {
                    "atomics on vectors are for global memory"
                };
                let reason = reason.to_owned();
                return Stop::lane(FaultKind::InvalidOperand { reason }, lane);
            }
            let found = find(context, addresses, active, size, space)?;
            let allocations = context.launch.memory.allocations();
            check_writable(allocations, &found, addresses, active)?;
            if !op.reduction {
                count(context, addresses, active, size, &found, Direction::Load);
            }
            count(context, addresses, active, size, &found, Direction::Store);
            if context.checks.races {
                check_global(context, request)?;
            }
            for lane in lanes(active) {
                let allocation = match &found {
                    Found::One(index) => &allocations[*index],
                    Found::Many(of) => &allocations[of[lane]],
                };
                let offset = (addresses[lane] - allocation.base) as usize;
                if context.checks.initialization && !allocation.is_written(offset, size) {
                    return Stop::access(
                        FaultKind::UninitializedMemory { size: size as u32 },
                        lane as u32,
                        Space::Global,
                        addresses[lane],
                    );
                }
                if !access.elements.is_empty() {
                    let own = &mut warp.frames[frame];
                    let changes = vector(own, access, op, allocation, offset, lane);
                    context.stats.effects += u64::from(changes);
                    continue;
                }
                old[lane] = allocation.load(offset, size);
                let new = combine(op, old[lane], b[lane], c[lane], true);
                allocation.store(offset, size, new);
                context.stats.effects += u64::from(new != old[lane]);
                allocation.mark_written(offset, size);
            }
            Ok(())
        },
    )?;
    let own = &mut warp.frames[frame];
    write_row(&mut own.rows[inst.dst as usize], active, &old);
    own.initialized[inst.dst as usize] |= active;
    Ok(())
}

/// One lane's operation on each element of a vector. Whether that changes anything.
fn vector(
    frame: &mut Frame,
    access: &Access,
    op: AtomicOp,
    allocation: &Allocation,
    offset: usize,
    lane: usize,
) -> bool {
    let bytes = usize::from(access.bytes);
    let mut changes = false;
    // All sources are read before the first result is there: they may be the same registers.
    let operands: Vec<u64> = access
        .elements
        .iter()
        .map(|&slot| frame.rows[slot as usize][lane])
        .collect();
    for (index, (b, &slot)) in operands.into_iter().zip(&access.results).enumerate() {
        let at = offset + index * bytes;
        let old = allocation.load(at, bytes);
        let new = combine(op, old, b, 0, true);
        allocation.store(at, bytes, new);
        allocation.mark_written(at, bytes);
        changes |= new != old;
        frame.rows[slot as usize][lane] = old;
        frame.initialized[slot as usize] |= 1 << lane;
    }
    changes
}

/// The new value. Without `.noftz`, additions of `.f32` to global memory flush subnormal numbers to zero; those to shared
/// memory never do.
fn combine(op: AtomicOp, old: u64, b: u64, c: u64, global: bool) -> u64 {
    let wide = op.ty.bits() == 64;
    let signed = matches!(op.ty, Type::S(_));
    let less = |x: u64, y: u64| match (wide, signed) {
        (true, true) => (x as i64) < y as i64,
        (false, true) => (x as i32) < y as i32,
        _ => x < y,
    };
    if let Some(ty) = half_type(op.ty) {
        return half_combine(op, ty, old, b);
    }
    match op.kind {
        AtomicKind::Add => match op.ty {
            Type::F32 => {
                let mode = FloatMode {
                    ftz: global && !op.no_ftz,
                    ..FloatMode::default()
                };
                let sum = float::add(f32::from_bits(old as u32), f32::from_bits(b as u32), mode);
                u64::from(sum.to_bits())
            }
            Type::F64 => {
                let sum = f64::from_bits(old) + f64::from_bits(b);
                if sum.is_nan() {
                    float::NAN_F64
                } else {
                    sum.to_bits()
                }
            }
            _ if wide => old.wrapping_add(b),
            _ => u64::from((old as u32).wrapping_add(b as u32)),
        },
        AtomicKind::Min => {
            if less(b, old) {
                b
            } else {
                old
            }
        }
        AtomicKind::Max => {
            if less(old, b) {
                b
            } else {
                old
            }
        }
        AtomicKind::And => old & b,
        AtomicKind::Or => old | b,
        AtomicKind::Xor => old ^ b,
        AtomicKind::Exch => b,
        AtomicKind::Cas => {
            if old == b {
                c
            } else {
                old
            }
        }
        AtomicKind::Inc => {
            if old >= b {
                0
            } else {
                old + 1
            }
        }
        AtomicKind::Dec => {
            if old == 0 || old > b {
                b
            } else {
                old - 1
            }
        }
    }
}

/// One 16-bit float, or two.
fn half_combine(op: AtomicOp, ty: HalfType, old: u64, b: u64) -> u64 {
    let kind = match op.kind {
        AtomicKind::Min => FloatOp::Min,
        AtomicKind::Max => FloatOp::Max,
        _ => FloatOp::Add,
    };
    let one = |shift: u32| {
        let (x, y) = ((old >> shift) as u16, (b >> shift) as u16);
        u64::from(half::op(kind, ty, FloatMode::default(), x, y, 0)) << shift
    };
    match op.ty.bits() {
        16 => one(0),
        _ => one(16) | one(0),
    }
}

fn half_type(ty: Type) -> Option<HalfType> {
    match ty {
        Type::F16 | Type::F16x2 => Some(HalfType::F16),
        Type::BF16 | Type::BF16x2 => Some(HalfType::BF16),
        _ => None,
    }
}
