//! `mma`, `ldmatrix`, `stmatrix` and `movmatrix`: all lanes of a warp take part, or the instruction has no meaning.

use super::access::{Direction, by_space, taking_part};
use super::block::Context;
use super::lanes::{FULL, Row, lanes};
use super::race::MemoryRequest;
use super::shared::prepare_shared;
use super::stop::{Step, Stop};
use super::warp::Frame;
use crate::arith::{float, half, soft, sum};
use crate::fault::FaultKind;
use crate::isa::{
    AccessSpace, FloatMode, FloatOp, HalfType, Inst, MatrixMove, Mma, MmaInput, MmaKind, Ordering,
    Rounding, Scope, Slot, Type,
};

/// A matrix by row and column, large enough for every shape.
type Matrix<T> = [[T; 64]; 16];

fn check_whole_warp(context: &Context<'_>, active: u32) -> Step<()> {
    if active != FULL && context.checks.synchronization {
        let lane = (!active).trailing_zeros();
        return Stop::first(FaultKind::InactiveLane { lane }, active);
    }
    Ok(())
}

/// Collects a matrix from the lanes. Lane `4 * r + t` has, in its first register, the elements of row `r` from column
/// `t * in_register`; of a tall matrix, the next register is 8 rows further down; the ones after that are to the right.
fn load_fragment<T: Copy>(
    rows: &[Row],
    slots: &[Slot],
    tall: bool,
    bits: u32,
    zero: T,
    decode: impl Fn(u64) -> T,
) -> Matrix<T> {
    let mut matrix = [[zero; 64]; 16];
    let in_register = (32 / bits).max(1) as usize;
    let cut = u64::MAX >> (64 - bits);
    for (register, &slot) in slots.iter().enumerate() {
        let (down, right) = if tall {
            (8 * (register & 1), register >> 1)
        } else {
            (0, register)
        };
        for (lane, &value) in rows[slot as usize].iter().enumerate() {
            for element in 0..in_register {
                let column = (lane % 4 + 4 * right) * in_register + element;
                matrix[lane / 4 + down][column] = decode(value >> (bits as usize * element) & cut);
            }
        }
    }
    matrix
}

/// Row and column of each element of a lane's part of the accumulator.
fn sum_position(lane: usize, index: usize) -> (usize, usize) {
    (lane / 4 + 8 * (index / 2), lane % 4 * 2 + index % 2)
}

/// Puts the sums into their registers: two to a register where they are of 16 bits.
fn store_fragment(
    frame: &mut Frame,
    mma: &Mma,
    packed: bool,
    active: u32,
    sum: impl Fn(usize, usize) -> u64,
) {
    for (register, &slot) in mma.d.iter().enumerate() {
        let row = &mut frame.rows[slot as usize];
        for lane in lanes(active) {
            let value = |index| {
                let (row, column) = sum_position(lane, index);
                sum(row, column)
            };
            row[lane] = if packed {
                value(2 * register) | value(2 * register + 1) << 16
            } else {
                value(register)
            };
        }
        frame.initialized[slot as usize] |= active;
    }
}

/// The sum of products that are exact in `f64` and an addend, rounded once.
fn round_sum(terms: &[f64], half_sum: bool) -> u64 {
    let sum = sum::sum_odd(terms);
    if half_sum {
        u64::from(half::round(half::narrow_odd(sum), HalfType::F16))
    } else if sum.is_nan() {
        u64::from(float::NAN_F32)
    } else {
        u64::from((sum as f32).to_bits())
    }
}

/// Row and column of an element of the accumulator of a quad pair, by thread of the pair.
fn quad_position(thread: usize, index: usize, half: bool) -> (usize, usize) {
    if half {
        (thread, index)
    } else {
        (
            (thread & 0b101) + (index & 0b10),
            (index & 0b101) + (thread & 0b10),
        )
    }
}

/// `mma.sync.m8n8k4` on `.f16`: the products of four quad pairs.
fn multiply_quad_pairs(
    frame: &mut Frame,
    mma: &Mma,
    [a_column, b_row]: [bool; 2],
    [half_addend, half_sum]: [bool; 2],
    active: u32,
) {
    let rows = frame.rows.as_slice();
    // A quad pair has 8 threads: four lanes, and the four that are 16 further up.
    let lane_of = |pair: usize, thread: usize| 4 * pair + thread % 4 + thread / 4 * 16;
    let half_of = |slots: &[Slot], lane, i: usize| {
        rows[slots[i / 2] as usize][lane] >> (16 * (i % 2)) & 0xffff
    };
    // Element `k` of a row of `a` or a column of `b`: with the thread of that number, or spread over four threads.
    let factor = |slots: &[Slot], spread: bool, pair, line: usize, k: usize| {
        let (thread, i) = if spread {
            (line / 4 * 4 + k, line % 4)
        } else {
            (line, k)
        };
        let bits = half_of(slots, lane_of(pair, thread), i);
        f64::from(half::value(bits as u16, HalfType::F16))
    };
    // By lane and index.
    let mut sums = [[0u64; 8]; 32];
    for pair in 0..4 {
        let mut c = [[0.0; 8]; 8];
        for thread in 0..8 {
            let lane = lane_of(pair, thread);
            for index in 0..8 {
                let (row, column) = quad_position(thread, index, half_addend);
                c[row][column] = if half_addend {
                    soft::float_value(half_of(&mma.c, lane, index), Type::F16)
                } else {
                    soft::float_value(rows[mma.c[index] as usize][lane], Type::F32)
                };
            }
        }
        for thread in 0..8 {
            for index in 0..8 {
                let (row, column) = quad_position(thread, index, half_sum);
                let mut terms = [c[row][column]; 5];
                for (k, term) in terms[..4].iter_mut().enumerate() {
                    *term = factor(&mma.a, a_column, pair, row, k)
                        * factor(&mma.b, b_row, pair, column, k);
                }
                sums[lane_of(pair, thread)][index] = round_sum(&terms, half_sum);
            }
        }
    }
    for (register, &slot) in mma.d.iter().enumerate() {
        let row = &mut frame.rows[slot as usize];
        for lane in lanes(active) {
            row[lane] = if half_sum {
                sums[lane][2 * register] | sums[lane][2 * register + 1] << 16
            } else {
                sums[lane][register]
            };
        }
        frame.initialized[slot as usize] |= active;
    }
}

/// The accumulator, as bits. `packed`: two elements to a register.
fn addends(rows: &[Row], mma: &Mma, packed: bool) -> [[u64; 8]; 16] {
    let mut c = [[0; 8]; 16];
    for (register, &slot) in mma.c.iter().enumerate() {
        for (lane, &value) in rows[slot as usize].iter().enumerate() {
            if packed {
                let (row, column) = sum_position(lane, 2 * register);
                c[row][column] = value & 0xffff;
                c[row][column + 1] = value >> 16 & 0xffff;
            } else {
                let (row, column) = sum_position(lane, register);
                c[row][column] = value;
            }
        }
    }
    c
}

/// `mma.sync`.
pub(crate) fn multiply(
    context: &Context<'_>,
    frame: &mut Frame,
    mma: &Mma,
    active: u32,
) -> Step<()> {
    check_whole_warp(context, active)?;
    match mma.kind {
        MmaKind::Int {
            a_signed,
            b_signed,
            saturate,
            ..
        } => multiply_integers(frame, mma, [a_signed, b_signed], saturate, active),
        MmaKind::Float { input, half_sum } => multiply_floats(frame, mma, input, half_sum, active),
        MmaKind::Double(rounding) => multiply_doubles(frame, mma, rounding, active),
        MmaKind::QuadPairs {
            a_column,
            b_row,
            half_addend,
            half_sum,
        } => {
            let [spread, halves] = [[a_column, b_row], [half_addend, half_sum]];
            multiply_quad_pairs(frame, mma, spread, halves, active);
        }
    }
    Ok(())
}

fn multiply_integers(
    frame: &mut Frame,
    mma: &Mma,
    [a_signed, b_signed]: [bool; 2],
    saturate: bool,
    active: u32,
) {
    let bits = u32::from(mma.kind.input_bits());
    let decode = |signed: bool| {
        move |value: u64| {
            if signed {
                (value << (64 - bits)) as i64 >> (64 - bits)
            } else {
                value as i64
            }
        }
    };
    let rows = frame.rows.as_slice();
    let a = load_fragment(rows, &mma.a, mma.m == 16, bits, 0, decode(a_signed));
    let b = load_fragment(rows, &mma.b, false, bits, 0, decode(b_signed));
    let c = addends(rows, mma, false);
    store_fragment(frame, mma, false, active, |row, column| {
        let products: i64 = (0..usize::from(mma.k))
            .map(|k| a[row][k] * b[column][k])
            .sum();
        let sum = products + i64::from(c[row][column] as i32);
        let sum = if saturate {
            sum.clamp(i32::MIN.into(), i32::MAX.into())
        } else {
            sum
        };
        u64::from(sum as u32)
    });
}

fn multiply_floats(frame: &mut Frame, mma: &Mma, input: MmaInput, half_sum: bool, active: u32) {
    let bits = u32::from(mma.kind.input_bits());
    let depth = usize::from(mma.k);
    let decode = |value: u64| match input {
        MmaInput::F16 => f64::from(half::value(value as u16, HalfType::F16)),
        MmaInput::BF16 => f64::from(half::value(value as u16, HalfType::BF16)),
        // The low bits of a register are not part of the number.
        MmaInput::TF32 => f64::from(f32::from_bits(value as u32 & !0x1fff)),
    };
    let rows = frame.rows.as_slice();
    let a = load_fragment(rows, &mma.a, mma.m == 16, bits, 0.0, decode);
    let b = load_fragment(rows, &mma.b, false, bits, 0.0, decode);
    let c = addends(rows, mma, half_sum);
    let addend = if half_sum { Type::F16 } else { Type::F32 };
    store_fragment(frame, mma, half_sum, active, |row, column| {
        // Products are exact in `f64`.
        let mut terms = [0.0; 17];
        for k in 0..depth {
            terms[k] = a[row][k] * b[column][k];
        }
        terms[depth] = soft::float_value(c[row][column], addend);
        round_sum(&terms[..=depth], half_sum)
    });
}

fn multiply_doubles(frame: &mut Frame, mma: &Mma, rounding: Rounding, active: u32) {
    let rows = frame.rows.as_slice();
    let a = load_fragment(rows, &mma.a, mma.m == 16, 64, 0.0, f64::from_bits);
    let b = load_fragment(rows, &mma.b, false, 64, 0.0, f64::from_bits);
    let c = addends(rows, mma, false);
    let mode = FloatMode {
        rounding,
        ..FloatMode::default()
    };
    store_fragment(frame, mma, false, active, |row, column| {
        let c = f64::from_bits(c[row][column]);
        (0..usize::from(mma.k))
            .fold(c, |sum, k| {
                float::op_f64(FloatOp::Fma, mode, a[row][k], b[column][k], sum)
            })
            .to_bits()
    });
}

/// `movmatrix`: lane `4 * r + t` has elements `2 * t` and `2 * t + 1` of row `r`, and gets those of column `r`.
pub(crate) fn transpose(
    context: &Context<'_>,
    frame: &mut Frame,
    inst: &Inst,
    active: u32,
) -> Step<()> {
    check_whole_warp(context, active)?;
    let source = frame.rows[inst.src[0] as usize];
    let result = &mut frame.rows[inst.dst as usize];
    for lane in lanes(active) {
        let (column, row) = (lane / 4, lane % 4 * 2);
        let element = |row: usize| source[4 * row + column / 2] >> (16 * (column % 2)) & 0xffff;
        result[lane] = element(row) | element(row + 1) << 16;
    }
    frame.initialized[inst.dst as usize] |= active;
    Ok(())
}

/// `ldmatrix` and `stmatrix`. Each address lane moves one row of 16 bytes.
pub(crate) fn transfer(
    context: &mut Context<'_>,
    frame: &mut Frame,
    matrices: &MatrixMove,
    active: u32,
    warp: u32,
) -> Step<()> {
    check_whole_warp(context, active)?;
    let base = &frame.rows[matrices.address as usize];
    let mut addresses = [0; 32];
    for lane in 0..32 {
        addresses[lane] = base[lane].wrapping_add(matrices.offset as u64);
    }
    let direction = if matrices.store {
        Direction::Store
    } else {
        Direction::Load
    };
    // Where each row is in shared memory; `None` for those that an unchecked access leaves out.
    let mut starts = [None; 32];
    by_space(
        matrices.space,
        &addresses,
        matrices.address_lanes() & active,
        |space, addresses, mask| {
            if space != AccessSpace::Shared {
                let reason = "matrices are in shared memory".to_owned();
                return Stop::first(FaultKind::InvalidOperand { reason }, mask);
            }
            let store = matrices.store;
            let sound = taking_part(context, frame, space, addresses, mask, 16, store)?;
            if sound == 0 {
                return Ok(());
            }
            let request = MemoryRequest {
                warp,
                addresses,
                active: sound,
                size: 16,
                // All are `.b16`.
                element: 2,
                used_bytes: u32::MAX,
                ordering: Ordering::Weak,
                scope: Scope::Block,
                non_coherent: false,
                atomic: false,
                direction,
                stored: None,
            };
            prepare_shared(context, request)?;
            for lane in lanes(sound) {
                starts[lane] = Some(addresses[lane] as usize);
            }
            Ok(())
        },
    )?;
    let shared = &mut context.block.shared;
    for (matrix, &slot) in matrices.elements.iter().enumerate() {
        let row = &mut frame.rows[slot as usize];
        for lane in lanes(active) {
            // A lane has two neighbours of a row, or, transposed, of a column.
            let pair = [0, 1].map(|element| {
                let (row, column) = (lane / 4, lane % 4 * 2 + element);
                let (row, column) = if matrices.transpose {
                    (column, row)
                } else {
                    (row, column)
                };
                starts[8 * matrix + row].map(|start| start + 2 * column)
            });
            if matrices.store {
                for (element, at) in pair.into_iter().enumerate() {
                    if let Some(at) = at {
                        shared.store(at, 2, row[lane] >> (16 * element) & 0xffff);
                    }
                }
            } else {
                let load = |at: Option<usize>| at.map_or(0, |at| shared.load(at, 2));
                row[lane] = load(pair[0]) | load(pair[1]) << 16;
            }
        }
        if !matrices.store {
            frame.initialized[slot as usize] |= active;
        }
    }
    Ok(())
}
