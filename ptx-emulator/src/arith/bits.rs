//! Bit fields, permutations, shifts and dot products (PTX ISA, "Integer Arithmetic" and "Logic and Shift").

use crate::isa::PrmtMode;

/// `lop3.b32`: bit `4a + 2b + c` of the table for each bit position.
#[inline(always)]
pub(crate) fn lop3(a: u32, b: u32, c: u32, lut: u8) -> u32 {
    let mut result = 0;
    for row in 0..8 {
        if lut >> row & 1 != 0 {
            let a = if row & 4 != 0 { a } else { !a };
            let b = if row & 2 != 0 { b } else { !b };
            let c = if row & 1 != 0 { c } else { !c };
            result |= a & b & c;
        }
    }
    result
}

/// `shf`: a funnel shift of the 64 bits `b:a`.
#[inline(always)]
pub(crate) fn shf(a: u32, b: u32, c: u32, left: bool, clamp: bool) -> u32 {
    let n = if clamp { c.min(32) } else { c & 31 };
    let value = u64::from(b) << 32 | u64::from(a);
    if left {
        ((value << n) >> 32) as u32
    } else {
        (value >> n) as u32
    }
}

/// `bfe`: `width` is 32 or 64; the result is sign-extended to 64 bits where `signed`.
pub(crate) fn bfe(a: u64, position: u32, length: u32, width: u32, signed: bool) -> u64 {
    let position = position & 0xff;
    let length = length & 0xff;
    if length == 0 {
        return 0;
    }
    let top = (position + length - 1).min(width - 1);
    let fill = signed && a >> top & 1 != 0;
    let present = width.saturating_sub(position).min(length);
    let field = if present == 0 {
        0
    } else {
        (a >> position) & (u64::MAX >> (64 - present))
    };
    if fill && present < 64 {
        field | u64::MAX << present
    } else {
        field
    }
}

/// `bfi`: `width` is 32 or 64.
pub(crate) fn bfi(a: u64, b: u64, position: u32, length: u32, width: u32) -> u64 {
    let position = position & 0xff;
    let length = length & 0xff;
    let present = width.saturating_sub(position).min(length);
    if present == 0 {
        return b;
    }
    let mask = (u64::MAX >> (64 - present)) << position;
    (b & !mask) | ((a << position) & mask)
}

/// `bfind`: position of the highest bit that differs from the sign, or all ones.
pub(crate) fn bfind(a: u64, width: u32, signed: bool, shift_amount: bool) -> u32 {
    let mask = u64::MAX >> (64 - width);
    let mut value = a & mask;
    if signed && value >> (width - 1) & 1 != 0 {
        value = !value & mask;
    }
    if value == 0 {
        return u32::MAX;
    }
    let position = 63 - value.leading_zeros();
    if shift_amount {
        width - 1 - position
    } else {
        position
    }
}

/// `bmsk`: `length` ones from bit `position` up.
pub(crate) fn bmsk(position: u32, length: u32, clamp: bool) -> u32 {
    let (position, length) = if clamp {
        (position.min(32), length.min(32))
    } else {
        (position & 31, length & 31)
    };
    (((1u128 << length) - 1) << position) as u32
}

/// `szext`: sign- or zero-extends the low `length` bits.
pub(crate) fn szext(a: u32, length: u32, clamp: bool, signed: bool) -> u32 {
    let length = if clamp { length.min(32) } else { length & 31 };
    match (length, signed) {
        (0, _) => 0,
        (length, true) => ((a << (32 - length)) as i32 >> (32 - length)) as u32,
        (length, false) => a << (32 - length) >> (32 - length),
    }
}

/// `prmt`.
#[inline(always)]
pub(crate) fn prmt(a: u32, b: u32, c: u32, mode: PrmtMode) -> u32 {
    let bytes = (u64::from(b) << 32 | u64::from(a)).to_le_bytes();
    if mode == PrmtMode::Index {
        let mut result = 0;
        for place in 0..4 {
            let selector = c >> (4 * place) & 0xf;
            let byte = bytes[(selector & 7) as usize];
            let byte = if selector & 8 != 0 {
                (byte as i8 >> 7) as u8
            } else {
                byte
            };
            result |= u32::from(byte) << (8 * place);
        }
        return result;
    }
    let n = (c & 3) as usize;
    let pick = |indices: [usize; 4]| u32::from_le_bytes(indices.map(|index| bytes[index & 7]));
    // Indices from the least significant byte of the result up.
    pick(match mode {
        PrmtMode::F4e => [n, n + 1, n + 2, n + 3],
        PrmtMode::B4e => [n, n + 7, n + 6, n + 5],
        PrmtMode::Rc8 => [n; 4],
        PrmtMode::Ecl => [n, 1.max(n), 2.max(n), 3],
        PrmtMode::Ecr => [0, 1.min(n), 2.min(n), n],
        PrmtMode::Rc16 => {
            let low = 2 * (n & 1);
            [low, low + 1, low, low + 1]
        }
        PrmtMode::Index => unreachable!("handled above"),
    })
}

/// `fns`: position of the n-th set bit from `base`, or all ones.
pub(crate) fn fns(mask: u32, base: u32, offset: i32) -> u32 {
    if offset == 0 {
        return if base < 32 && mask >> base & 1 != 0 {
            base
        } else {
            u32::MAX
        };
    }
    let mut left = offset.unsigned_abs();
    let mut position = i64::from(base);
    while (0..32).contains(&position) {
        if mask >> position & 1 != 0 {
            left -= 1;
            if left == 0 {
                return position as u32;
            }
        }
        position += i64::from(offset.signum());
    }
    u32::MAX
}

#[inline(always)]
fn byte(value: u32, index: u32, signed: bool) -> i32 {
    let byte = (value >> (8 * index)) as u8;
    if signed {
        i32::from(byte as i8)
    } else {
        i32::from(byte)
    }
}

/// `dp4a`: four products of bytes, added to `c`.
#[inline(always)]
pub(crate) fn dp4a(a: u32, b: u32, c: u32, a_signed: bool, b_signed: bool) -> u32 {
    let mut sum = c as i32;
    for index in 0..4 {
        sum = sum.wrapping_add(byte(a, index, a_signed) * byte(b, index, b_signed));
    }
    sum as u32
}

/// `dp2a`: two products of 16-bit by 8-bit numbers, added to `c`.
#[inline(always)]
pub(crate) fn dp2a(a: u32, b: u32, c: u32, a_signed: bool, b_signed: bool, high: bool) -> u32 {
    let mut sum = c as i32;
    for index in 0..2 {
        let half = (a >> (16 * index)) as u16;
        let half = if a_signed {
            i32::from(half as i16)
        } else {
            i32::from(half)
        };
        sum = sum.wrapping_add(half * byte(b, index + 2 * u32::from(high), b_signed));
    }
    sum as u32
}

/// Sign- or zero-extends the low 24 bits.
#[inline(always)]
fn low24(value: u32, signed: bool) -> i64 {
    if signed {
        i64::from((value << 8) as i32 >> 8)
    } else {
        i64::from(value & 0x00ff_ffff)
    }
}

/// `mul24`: bits 31..0 or 47..16 of the 48-bit product.
#[inline(always)]
pub(crate) fn mul24(a: u32, b: u32, signed: bool, high: bool) -> u32 {
    let product = low24(a, signed) * low24(b, signed);
    if high {
        (product >> 16) as u32
    } else {
        product as u32
    }
}
