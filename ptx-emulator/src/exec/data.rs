//! Instructions that compute registers from registers.

use super::control::truth;
use super::lanes::{Lane, Row, lanes, map1, map2, map3, mask2, write_row};
use super::stop::{Step, Stop};
use super::warp::{Frame, PartlyPacked};
use super::{WINDOW_CONST, WINDOW_GLOBAL, WINDOW_LOCAL, WINDOW_PARAM, WINDOW_SHARED};
use crate::arith::{bits, byte, convert, float, half, video};
use crate::fault::FaultKind;
use crate::isa::*;
use crate::load::Function;

/// Runs one instruction for the active lanes.
#[inline]
pub(crate) fn execute(
    frame: &mut Frame,
    function: &Function,
    inst: &Inst,
    active: u32,
) -> Step<()> {
    let [a, b, c, _] = inst.src.map(|slot| slot as usize);
    let rows = &frame.rows;
    let (ra, rb, rc) = (&rows[a], &rows[b], &rows[c]);
    let result: Row = match inst.op {
        Op::Nop => return Ok(()),
        Op::Mov => {
            let result = *ra;
            let known = frame.initialized[a];
            write_row(&mut frame.rows[inst.dst as usize], active, &result);
            if frame.partly_packed.is_empty() {
                set_initialized(frame, inst.dst, active, known);
            } else {
                copy_packing(frame, inst.dst, active, known, &[(inst.src[0], active)]);
            }
            return Ok(());
        }
        Op::Selp(pred) => {
            let choice = truth(frame, pred);
            let mut result = *rb;
            for lane in 0..32 {
                if choice >> lane & 1 != 0 {
                    result[lane] = ra[lane];
                }
            }
            let known = (frame.initialized[a] & choice) | (frame.initialized[b] & !choice);
            write_row(&mut frame.rows[inst.dst as usize], active, &result);
            if frame.partly_packed.is_empty() {
                set_initialized(frame, inst.dst, active, known);
            } else {
                let sources = [
                    (inst.src[0], active & choice),
                    (inst.src[1], active & !choice),
                ];
                copy_packing(frame, inst.dst, active, known, &sources);
            }
            return Ok(());
        }
        Op::Pack(elements) => return pack(frame, function, inst, elements, active),
        Op::Unpack(elements) => return unpack(frame, function, inst, elements, active),
        Op::Int(op, ty) => super::integer::binary(op, ty, ra, rb),
        Op::IntPair(op, ty) => {
            let upper = |row: &Row| map1(row, |bits: u32| bits >> 16);
            let low = super::integer::binary(op, ty, ra, rb);
            let high = super::integer::binary(op, ty, &upper(ra), &upper(rb));
            map2(&low, &high, |low: u64, high: u64| low | high << 16)
        }
        Op::IntUnary(op, ty) => super::integer::unary(op, ty, ra),
        Op::Mad(op, ty) => super::integer::mad(op, ty, ra, rb, rc),
        Op::Carry {
            op,
            ty,
            carry_in,
            carry_out,
        } => {
            let flag = carry_in.then_some(frame.carry);
            let (result, flags) = super::integer::carry(op, ty, flag, ra, rb, rc);
            if carry_out {
                frame.carry = (frame.carry & !active) | (flags & active);
                frame.carry_initialized |= active;
            }
            result
        }
        Op::Lop3(lut) => map3(ra, rb, rc, |a, b, c| bits::lop3(a, b, c, lut)),
        Op::Lop3Pred { lut, or, dst, src } => {
            let result = map3(ra, rb, rc, |a, b, c| bits::lop3(a, b, c, lut));
            let nonzero = nonzero(&result);
            let with = truth(frame, src);
            let value = if or { nonzero | with } else { nonzero & with };
            set_pred(frame, dst, active, value);
            result
        }
        Op::Shf { left, clamp } => map3(ra, rb, rc, |a, b, c| bits::shf(a, b, c, left, clamp)),
        Op::Bfe(ty) => {
            let (width, signed) = super::integer::shape(ty);
            let cut = u64::MAX >> (64 - width);
            map3(ra, rb, rc, |a: u64, b: u32, c: u32| {
                bits::bfe(a, b, c, width, signed) & cut
            })
        }
        Op::Bfi { wide } => {
            let rd = &rows[inst.src[3] as usize];
            let width = if wide { 64 } else { 32 };
            let mut out = [0; 32];
            for lane in 0..32 {
                out[lane] = bits::bfi(ra[lane], rb[lane], rc[lane] as u32, rd[lane] as u32, width);
            }
            out
        }
        Op::Bfind { ty, shift_amount } => {
            let (width, signed) = super::integer::shape(ty);
            map1(ra, |a: u64| bits::bfind(a, width, signed, shift_amount))
        }
        Op::Bmsk { clamp } => map2(ra, rb, |a: u32, b: u32| bits::bmsk(a, b, clamp)),
        Op::Szext { clamp, signed } => {
            map2(ra, rb, |a: u32, b: u32| bits::szext(a, b, clamp, signed))
        }
        Op::Prmt(mode) => map3(ra, rb, rc, |a, b, c| bits::prmt(a, b, c, mode)),
        Op::Fns => map3(ra, rb, rc, |a: u32, b: u32, c: i32| bits::fns(a, b, c)),
        Op::Dp4a { a_signed, b_signed } => match (a_signed, b_signed) {
            (false, false) => map3(ra, rb, rc, |a, b, c| bits::dp4a(a, b, c, false, false)),
            (false, true) => map3(ra, rb, rc, |a, b, c| bits::dp4a(a, b, c, false, true)),
            (true, false) => map3(ra, rb, rc, |a, b, c| bits::dp4a(a, b, c, true, false)),
            (true, true) => map3(ra, rb, rc, |a, b, c| bits::dp4a(a, b, c, true, true)),
        },
        Op::Dp2a {
            a_signed,
            b_signed,
            high,
        } => map3(ra, rb, rc, |a, b, c| {
            bits::dp2a(a, b, c, a_signed, b_signed, high)
        }),
        Op::Video(index) => {
            let op = &function.videos[index as usize];
            map3(ra, rb, rc, |a, b, c| video::video(op, a, b, c))
        }
        Op::SetP {
            compare,
            ty,
            combine,
            with,
            dst,
            dst_not,
        } => {
            let result = super::compare::compare(compare, ty, ra, rb);
            let with = truth(frame, with);
            set_pred(frame, dst, active, combined(result, combine, with));
            set_pred(frame, dst_not, active, combined(!result, combine, with));
            return Ok(());
        }
        Op::SetPHalf2 {
            compare,
            ty,
            ftz,
            combine,
            with,
            dst,
            dst_high,
        } => {
            let with = truth(frame, with);
            let (low, high) = compare_halves(compare, CompareType::Half { ty, ftz }, ra, rb);
            set_pred(frame, dst, active, combined(low, combine, with));
            set_pred(frame, dst_high, active, combined(high, combine, with));
            return Ok(());
        }
        Op::Set {
            compare,
            ty,
            combine,
            with,
            yes,
        } => {
            let result = super::compare::compare(compare, ty, ra, rb);
            let result = combined(result, combine, truth(frame, with));
            select(result, yes.into())
        }
        Op::SetHalf2 {
            compare,
            ty,
            ftz,
            combine,
            with,
            yes,
        } => {
            let with = truth(frame, with);
            let (low, high) = compare_halves(compare, CompareType::Half { ty, ftz }, ra, rb);
            let low = select(combined(low, combine, with), yes.into());
            let high = select(combined(high, combine, with), u64::from(yes) << 16);
            map2(&low, &high, |low: u64, high: u64| low | high)
        }
        Op::Slct { float, ftz } => {
            let mut out = *rb;
            for lane in 0..32 {
                let first = if float {
                    float::flush(f32::from_bits(rc[lane] as u32), ftz) >= 0.0
                } else {
                    rc[lane] as i32 >= 0
                };
                if first {
                    out[lane] = ra[lane];
                }
            }
            out
        }
        Op::F32(op, mode) => super::float::f32_op(op, mode, ra, rb, rc),
        Op::F64(op, mode) => map3(ra, rb, rc, |a, b, c| float::op_f64(op, mode, a, b, c)),
        Op::Half { op, ty, pair, mode } => map3(ra, rb, rc, |a: u32, b: u32, c: u32| {
            let low = half::op(op, ty, mode, a as u16, b as u16, c as u16);
            let high = if pair {
                let (a, b, c) = ((a >> 16) as u16, (b >> 16) as u16, (c >> 16) as u16);
                half::op(op, ty, mode, a, b, c)
            } else {
                0
            };
            u32::from(high) << 16 | u32::from(low)
        }),
        Op::TestP { test, double, dst } => {
            let mut value = 0;
            for (lane, &bits) in ra.iter().enumerate() {
                let holds = if double {
                    let x = f64::from_bits(bits);
                    float::test(test, x, x.is_subnormal())
                } else {
                    let x = f32::from_bits(bits as u32);
                    float::test(test, x.into(), x.is_subnormal())
                };
                value |= u32::from(holds) << lane;
            }
            set_pred(frame, dst, active, value);
            return Ok(());
        }
        Op::Cvt(conversion) => super::float::cvt(conversion, ra),
        Op::CvtPair {
            to,
            mode,
            satfinite,
        } => map2(ra, rb, |a: u32, b: u32| {
            let one = |bits: u32| {
                let conversion = Conversion {
                    to: match to {
                        HalfType::F16 => Type::F16,
                        HalfType::BF16 => Type::BF16,
                    },
                    from: Type::F32,
                    rounding: mode.rounding,
                    integral: false,
                    ftz: mode.ftz,
                    sat: false,
                    relu: mode.relu,
                    satfinite,
                    register_bits: 16,
                };
                convert::convert(conversion, bits.into()) as u32
            };
            one(a) << 16 | one(b)
        }),
        Op::CvtToBytes { to, from_f32, relu } => map2(ra, rb, |a: u32, b: u32| {
            let (high, low) = if from_f32 {
                (f32::from_bits(a), f32::from_bits(b))
            } else {
                let half = |bits: u32| half::value(bits as u16, HalfType::F16);
                (half(a >> 16), half(a))
            };
            let one = |value| u32::from(byte::round(value, to, relu));
            one(high) << 8 | one(low)
        }),
        Op::CvtFromBytes { from, relu } => map1(ra, |a: u32| {
            let one = |bits: u32| u32::from(byte::widen(bits as u8, from, relu));
            one(a >> 8) << 16 | one(a)
        }),
        Op::CvtPack { bits, signed } => map3(ra, rb, rc, |a: u32, b: u32, c: u32| {
            let (a, b) = (
                convert::pack_element(a, bits, signed),
                convert::pack_element(b, bits, signed),
            );
            // Two results go below what `c` holds; those of 16 bits leave no room.
            let upper = c.checked_shl(2 * u32::from(bits)).unwrap_or(0);
            upper | a << bits | b
        }),
        Op::MovPred { dst, src } => {
            let value = truth(frame, src);
            set_pred(frame, dst, active, value);
            return Ok(());
        }
        Op::PredLogic { op, dst, a, b } => {
            let (a, b) = (truth(frame, a), truth(frame, b));
            let value = match op {
                PredOp::And => a & b,
                PredOp::Or => a | b,
                PredOp::Xor => a ^ b,
            };
            set_pred(frame, dst, active, value);
            return Ok(());
        }
        Op::CvtaFrom(window) => {
            let base = window_base(window);
            map1(ra, |address: u64| address.wrapping_add(base))
        }
        Op::CvtaTo(window) => {
            let base = window_base(window);
            map1(ra, |address: u64| address.wrapping_sub(base))
        }
        Op::IsSpace { space, dst } => {
            let holds = |address: u64, _| match space {
                // The ISA puts parameters into the window of global memory.
                Window::Global => matches!(address >> 32, 0 | 3) || address >= WINDOW_GLOBAL,
                Window::Const => (WINDOW_CONST..WINDOW_GLOBAL).contains(&address),
                _ => address >> 32 == window_base(space) >> 32,
            };
            let value = mask2::<u64>(ra, ra, holds);
            set_pred(frame, dst, active, value);
            return Ok(());
        }
        Op::PendingCount => map1(ra, super::mbarrier::pending_count),
        Op::ActiveMask => [u64::from(active); 32],
        _ => {
            return Stop::first(
                FaultKind::InvalidOperand {
                    reason: "not an instruction on registers".into(),
                },
                active,
            );
        }
    };
    write_row(&mut frame.rows[inst.dst as usize], active, &result);
    frame.initialized[inst.dst as usize] |= active;
    Ok(())
}

/// Quotient or remainder. Lanes that divide by zero, which are returned, get what counts as never written.
pub(crate) fn divide(frame: &mut Frame, inst: &Inst, op: IntOp, ty: IntType, active: u32) -> u32 {
    let [a, b, ..] = inst.src.map(|slot| &frame.rows[slot as usize]);
    let result = super::integer::binary(op, ty, a, b);
    let cut = u64::MAX >> (64 - super::integer::shape(ty).0);
    let by_zero = active & !nonzero(&map1(b, |b: u64| b & cut));
    write_row(&mut frame.rows[inst.dst as usize], active, &result);
    set_initialized(frame, inst.dst, active, !by_zero);
    by_zero
}

/// Generic address minus the address within the space; 0 for global and constant memory.
fn window_base(window: Window) -> u64 {
    match window {
        Window::Global | Window::Const => 0,
        Window::Shared => WINDOW_SHARED,
        Window::Local => WINDOW_LOCAL,
        Window::Param => WINDOW_PARAM,
    }
}

/// The lanes in which some bits of a row were written, though the others may not have been.
pub(crate) fn known_bits(frame: &Frame, slot: Slot, first: u32, count: u32) -> u32 {
    let mut lanes = frame.initialized[slot as usize];
    for packed in &frame.partly_packed {
        if packed.slot == slot {
            let start = first / packed.bits;
            let end = (first + count).div_ceil(packed.bits);
            let elements = packed.known.iter().take(end as usize);
            lanes |= elements
                .skip(start as usize)
                .fold(packed.lanes, |all, known| all & known);
        }
    }
    lanes
}

/// Marks lanes of a row as [`set_initialized`] does, and as packed in the way of the rows that they were copied from, each row in
/// some lanes.
#[cold]
fn copy_packing(frame: &mut Frame, to: Slot, active: u32, known: u32, sources: &[(Slot, u32)]) {
    let copied = |packed: &PartlyPacked| {
        let from = sources.iter().filter(|(slot, _)| *slot == packed.slot);
        let lanes = packed.lanes & !known & from.fold(0, |all, (_, lanes)| all | lanes);
        (lanes != 0).then(|| PartlyPacked {
            slot: to,
            lanes,
            ..packed.clone()
        })
    };
    let packed: Vec<_> = frame.partly_packed.iter().filter_map(copied).collect();
    set_initialized(frame, to, active, known);
    frame.partly_packed.extend(packed);
}

/// Marks lanes of a row as written where `known`, and as not written elsewhere.
pub(crate) fn set_initialized(frame: &mut Frame, slot: Slot, active: u32, known: u32) {
    let initialized = &mut frame.initialized[slot as usize];
    *initialized = (*initialized & !active) | (known & active);
    if !frame.partly_packed.is_empty() {
        frame.partly_packed.retain_mut(|packed| {
            if packed.slot == slot {
                packed.lanes &= !active;
            }
            packed.lanes != 0
        });
    }
}

pub(crate) fn set_pred(frame: &mut Frame, slot: PredSlot, active: u32, value: u32) {
    let slot = usize::from(slot);
    frame.preds[slot] = (frame.preds[slot] & !active) | (value & active);
    frame.preds_initialized[slot] |= active;
}

fn combined(result: u32, combine: Combine, with: u32) -> u32 {
    match combine {
        Combine::None => result,
        Combine::And => result & with,
        Combine::Or => result | with,
        Combine::Xor => result ^ with,
    }
}

/// The lanes in which a comparison of the lower, and of the upper halves holds.
fn compare_halves(compare: Compare, ty: CompareType, a: &Row, b: &Row) -> (u32, u32) {
    let upper = |row: &Row| map1(row, |bits: u32| bits >> 16);
    (
        super::compare::compare(compare, ty, a, b),
        super::compare::compare(compare, ty, &upper(a), &upper(b)),
    )
}

/// A value in some lanes, and zero in the others.
fn select(mask: u32, value: u64) -> Row {
    std::array::from_fn(|lane| if mask >> lane & 1 != 0 { value } else { 0 })
}

fn nonzero(row: &Row) -> u32 {
    (0..32).fold(0, |mask, lane| mask | u32::from(row[lane] != 0) << lane)
}

fn pack(
    frame: &mut Frame,
    function: &Function,
    inst: &Inst,
    elements: Elements,
    active: u32,
) -> Step<()> {
    let mut result = [0; 32];
    let mut known = [u32::MAX; 8];
    for index in 0..usize::from(elements.count) {
        let slot = function.pool[elements.pool as usize + index];
        let row = &frame.rows[slot as usize];
        let shift = index * usize::from(elements.bits);
        let cut = u64::MAX >> (64 - u32::from(elements.bits));
        for lane in 0..32 {
            result[lane] |= (row[lane] & cut) << shift;
        }
        known[index] = frame.initialized[slot as usize];
    }
    write_row(&mut frame.rows[inst.dst as usize], active, &result);
    let all = known.iter().fold(u32::MAX, |all, known| all & known);
    set_initialized(frame, inst.dst, active, all);
    if active & !all != 0 {
        frame.partly_packed.push(PartlyPacked {
            slot: inst.dst,
            lanes: active & !all,
            bits: elements.bits.into(),
            known,
        });
    }
    Ok(())
}

fn unpack(
    frame: &mut Frame,
    function: &Function,
    inst: &Inst,
    elements: Elements,
    active: u32,
) -> Step<()> {
    let source = frame.rows[inst.src[0] as usize];
    let bits = u32::from(elements.bits);
    let cut = u64::MAX >> (64 - bits);
    let known: [u32; 8] =
        std::array::from_fn(|index| known_bits(frame, inst.src[0], bits * index as u32, bits));
    for (index, known) in known.into_iter().take(elements.count.into()).enumerate() {
        let slot = function.pool[elements.pool as usize + index];
        let shift = index * usize::from(elements.bits);
        let part = map1(&source, |bits: u64| bits >> shift & cut);
        write_row(&mut frame.rows[slot as usize], active, &part);
        set_initialized(frame, slot, active, known);
    }
    Ok(())
}

/// `%clock` and its like: one tick, which is a nanosecond, a warp instruction of the block.
pub(crate) fn clock(ticks: u64, frame: &mut Frame, inst: &Inst, kind: ClockKind, active: u32) {
    let value = match kind {
        ClockKind::Low => ticks & u64::from(u32::MAX),
        ClockKind::High => ticks >> 32,
        ClockKind::Full => ticks,
    };
    let row = &mut frame.rows[inst.dst as usize];
    for lane in lanes(active) {
        row[lane] = value.into_row();
    }
    frame.initialized[inst.dst as usize] |= active;
}
