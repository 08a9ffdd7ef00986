//! `atom` and `red`. Lanes take their turns in ascending order.

use super::access::{Direction, by_space, taking_part};
use super::block::Context;
use super::global::{Found, check_writable, count, find};
use super::lanes::{Row, lanes, write_row};
use super::race::{MemoryRequest, check_global};
use super::shared::prepare_shared;
use super::stop::{Step, Stop};
use super::warp::Warp;
use crate::arith::half;
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
    let base = &own.rows[inst.src[0] as usize];
    let mut addresses = [0; 32];
    for lane in 0..32 {
        addresses[lane] = base[lane].wrapping_add(access.offset as u64);
    }
    let b = own.rows[inst.src[1] as usize];
    let c = own.rows[inst.src[2] as usize];
    let size = usize::from(access.bytes);
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
            if space == AccessSpace::Shared {
                prepare_shared(
                    context,
                    MemoryRequest {
                        warp: number,
                        addresses,
                        active,
                        size,
                        ordering: access.ordering,
                        scope: access.scope,
                        atomic: true,
                        direction,
                    },
                )?;
                for lane in lanes(active) {
                    let at = addresses[lane] as usize;
                    let shared = &mut context.block.shared;
                    old[lane] = shared.load(at, size);
                    let new = combine(op, old[lane], b[lane], c[lane]);
                    shared.store(at, size, new);
                    context.stats.effects += u64::from(new != old[lane]);
                }
                return Ok(());
            }
            if space != AccessSpace::Global {
                let lane = active.trailing_zeros();
                let reason = "atomics are for global and shared memory".to_owned();
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
                check_global(
                    context,
                    MemoryRequest {
                        warp: number,
                        addresses,
                        active,
                        size,
                        ordering: access.ordering,
                        scope: access.scope,
                        direction,
                        atomic: true,
                    },
                )?;
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
                old[lane] = allocation.load(offset, size);
                let new = combine(op, old[lane], b[lane], c[lane]);
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

/// The new value.
fn combine(op: AtomicOp, old: u64, b: u64, c: u64) -> u64 {
    let wide = op.ty.bits() == 64;
    let signed = matches!(op.ty, Type::S(_));
    let less = |x: u64, y: u64| match (wide, signed) {
        (true, true) => (x as i64) < y as i64,
        (false, true) => (x as i32) < y as i32,
        _ => x < y,
    };
    let half_add = |ty, pair: bool| {
        let one = |shift: u32| {
            let (x, y) = ((old >> shift) as u16, (b >> shift) as u16);
            u64::from(half::op(FloatOp::Add, ty, FloatMode::default(), x, y, 0)) << shift
        };
        if pair { one(16) | one(0) } else { one(0) }
    };
    match op.kind {
        AtomicKind::Add => match op.ty {
            Type::F32 => {
                // `atom.add.f32` flushes subnormals on global memory only; kept here, as on shared memory.
                let sum = f32::from_bits(old as u32) + f32::from_bits(b as u32);
                u64::from(canonical(sum))
            }
            Type::F64 => {
                let sum = f64::from_bits(old) + f64::from_bits(b);
                if sum.is_nan() {
                    crate::arith::float::NAN_F64
                } else {
                    sum.to_bits()
                }
            }
            Type::F16 => half_add(HalfType::F16, false),
            Type::F16x2 => half_add(HalfType::F16, true),
            Type::BF16 => half_add(HalfType::BF16, false),
            Type::BF16x2 => half_add(HalfType::BF16, true),
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

fn canonical(x: f32) -> u32 {
    if x.is_nan() {
        crate::arith::float::NAN_F32
    } else {
        x.to_bits()
    }
}
