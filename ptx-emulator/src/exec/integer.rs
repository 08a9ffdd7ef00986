//! Integer arithmetic on rows.

use super::lanes::{Lane, Row, map1, map2, map3};
use crate::arith::bits;
use crate::isa::{CarryOp, IntOp, IntType, IntUnaryOp, MadOp};

/// Width in bits, and whether signed.
pub(crate) fn shape(ty: IntType) -> (u32, bool) {
    match ty {
        IntType::U16 => (16, false),
        IntType::U32 => (32, false),
        IntType::U64 => (64, false),
        IntType::S16 => (16, true),
        IntType::S32 => (32, true),
        IntType::S64 => (64, true),
    }
}

/// Runs the same expression for each integer type.
macro_rules! for_type {
    ($ty:expr, $name:ident => $body:expr) => {
        match $ty {
            IntType::U16 => {
                type $name = u16;
                $body
            }
            IntType::U32 => {
                type $name = u32;
                $body
            }
            IntType::U64 => {
                type $name = u64;
                $body
            }
            IntType::S16 => {
                type $name = i16;
                $body
            }
            IntType::S32 => {
                type $name = i32;
                $body
            }
            IntType::S64 => {
                type $name = i64;
                $body
            }
        }
    };
}

/// What the types differ in.
trait Number: Lane + Copy {
    /// A product fits.
    fn wide_product(self, other: Self) -> i128;
    fn cut(value: i128) -> Self;
    const BITS: u32;
}

macro_rules! number {
    ($($ty:ty),*) => {$(
        impl Number for $ty {
            #[inline(always)]
            fn wide_product(self, other: Self) -> i128 {
                // The upper half of a u64 product is cut off by wrapping, and put back as bits.
                (self as i128).wrapping_mul(other as i128)
            }
            #[inline(always)]
            fn cut(value: i128) -> Self {
                value as $ty
            }
            const BITS: u32 = <$ty>::BITS;
        }
    )*};
}

number!(u16, u32, u64, i16, i32, i64);

/// Upper half of a product. For `u64` the 128-bit product is taken as unsigned bits, whose upper half is the same.
#[inline(always)]
fn high<T: Number>(a: T, b: T) -> T {
    T::cut(((a.wide_product(b) as u128) >> T::BITS) as i128)
}

/// A product of 16- or 32-bit numbers, in twice the width.
fn wide(ty: IntType, a: u64, b: u64) -> u64 {
    match ty {
        IntType::U16 => u64::from(u32::from(a as u16) * u32::from(b as u16)),
        IntType::S16 => u64::from((i32::from(a as i16) * i32::from(b as i16)) as u32),
        IntType::U32 => u64::from(a as u32) * u64::from(b as u32),
        IntType::S32 => (i64::from(a as i32) * i64::from(b as i32)) as u64,
        IntType::U64 | IntType::S64 => a.wrapping_mul(b),
    }
}

fn wide_row(ty: IntType, a: &Row, b: &Row) -> Row {
    match ty {
        IntType::U32 => map2(a, b, |a: u64, b: u64| wide(IntType::U32, a, b)),
        IntType::S32 => map2(a, b, |a: u64, b: u64| wide(IntType::S32, a, b)),
        ty => map2(a, b, |a: u64, b: u64| wide(ty, a, b)),
    }
}

/// Two operands. What a division by zero gives is that of the code that `ptxas` makes of it.
pub(crate) fn binary(op: IntOp, ty: IntType, a: &Row, b: &Row) -> Row {
    match op {
        IntOp::Add => for_type!(ty, T => map2(a, b, |a: T, b: T| a.wrapping_add(b))),
        IntOp::Sub => for_type!(ty, T => map2(a, b, |a: T, b: T| a.wrapping_sub(b))),
        IntOp::AddSat => map2(a, b, |a: i32, b: i32| a.saturating_add(b)),
        IntOp::SubSat => map2(a, b, |a: i32, b: i32| a.saturating_sub(b)),
        IntOp::MulLo => for_type!(ty, T => map2(a, b, |a: T, b: T| a.wrapping_mul(b))),
        IntOp::MulHi => for_type!(ty, T => map2(a, b, |a: T, b: T| high(a, b))),
        IntOp::MulWide => wide_row(ty, a, b),
        IntOp::Mul24Lo | IntOp::Mul24Hi => {
            let (_, signed) = shape(ty);
            let high = op == IntOp::Mul24Hi;
            map2(a, b, |a: u32, b: u32| bits::mul24(a, b, signed, high))
        }
        IntOp::Div | IntOp::Rem => for_type!(ty, T => map2(a, b, |a: T, b: T| {
            if b == 0 {
                !0
            } else if op == IntOp::Div {
                a.wrapping_div(b)
            } else {
                a.wrapping_rem(b)
            }
        })),
        IntOp::Min => for_type!(ty, T => map2(a, b, |a: T, b: T| a.min(b))),
        IntOp::Max => for_type!(ty, T => map2(a, b, |a: T, b: T| a.max(b))),
        IntOp::MinRelu if ty == IntType::S16 => map2(a, b, |a: i16, b: i16| a.min(b).max(0)),
        IntOp::MaxRelu if ty == IntType::S16 => map2(a, b, |a: i16, b: i16| a.max(b).max(0)),
        IntOp::MinRelu => map2(a, b, |a: i32, b: i32| a.min(b).max(0)),
        IntOp::MaxRelu => map2(a, b, |a: i32, b: i32| a.max(b).max(0)),
        IntOp::And => map2(a, b, |a: u64, b: u64| a & b),
        IntOp::Or => map2(a, b, |a: u64, b: u64| a | b),
        IntOp::Xor => map2(a, b, |a: u64, b: u64| a ^ b),
        IntOp::Shl => {
            for_type!(ty, T => map2(a, b, |a: T, b: u32| a.checked_shl(b).unwrap_or(0)))
        }
        // Amounts beyond the width fill with the sign, or with zero.
        IntOp::Shr => for_type!(ty, T => map2(a, b, |a: T, b: u32| {
            a.checked_shr(b).unwrap_or((a >> (T::BITS - 1)) >> (T::BITS / 2) >> (T::BITS / 2 - 1))
        })),
    }
}

/// One operand.
pub(crate) fn unary(op: IntUnaryOp, ty: IntType, a: &Row) -> Row {
    match op {
        IntUnaryOp::Neg => for_type!(ty, T => map1(a, |a: T| (0 as T).wrapping_sub(a))),
        IntUnaryOp::Abs => match ty {
            IntType::S16 => map1(a, |a: i16| a.wrapping_abs()),
            IntType::S64 => map1(a, |a: i64| a.wrapping_abs()),
            _ => map1(a, |a: i32| a.wrapping_abs()),
        },
        IntUnaryOp::Not => for_type!(ty, T => map1(a, |a: T| !a)),
        IntUnaryOp::Cnot => for_type!(ty, T => map1(a, |a: T| T::from(a == 0))),
        IntUnaryOp::Clz => for_type!(ty, T => map1(a, |a: T| a.leading_zeros())),
        IntUnaryOp::Popc => for_type!(ty, T => map1(a, |a: T| a.count_ones())),
        IntUnaryOp::Brev => for_type!(ty, T => map1(a, |a: T| a.reverse_bits())),
    }
}

/// Three operands.
pub(crate) fn mad(op: MadOp, ty: IntType, a: &Row, b: &Row, c: &Row) -> Row {
    let (_, signed) = shape(ty);
    match op {
        MadOp::Lo => {
            for_type!(ty, T => map3(a, b, c, |a: T, b: T, c: T| a.wrapping_mul(b).wrapping_add(c)))
        }
        MadOp::Hi => {
            for_type!(ty, T => map3(a, b, c, |a: T, b: T, c: T| high(a, b).wrapping_add(c)))
        }
        MadOp::HiSat => map3(a, b, c, |a: i32, b: i32, c: i32| {
            high(a, b).saturating_add(c)
        }),
        MadOp::Wide => {
            let product = wide_row(ty, a, b);
            match ty {
                IntType::U16 | IntType::S16 => {
                    map2(&product, c, |p: u32, c: u32| p.wrapping_add(c))
                }
                _ => map2(&product, c, |p: u64, c: u64| p.wrapping_add(c)),
            }
        }
        MadOp::Lo24 => map3(a, b, c, |a: u32, b: u32, c: u32| {
            bits::mul24(a, b, signed, false).wrapping_add(c)
        }),
        MadOp::Hi24 => map3(a, b, c, |a: u32, b: u32, c: u32| {
            bits::mul24(a, b, signed, true).wrapping_add(c)
        }),
        MadOp::Hi24Sat => map3(a, b, c, |a: u32, b: u32, c: i32| {
            (bits::mul24(a, b, true, true) as i32).saturating_add(c)
        }),
        MadOp::Sad => for_type!(ty, T => map3(a, b, c, |a: T, b: T, c: T| {
            c.wrapping_add(if a < b { b.wrapping_sub(a) } else { a.wrapping_sub(b) })
        })),
    }
}

/// Arithmetic with carry: the result, and the flag of each lane. A subtraction sets the flag where it borrows nothing, and takes one
/// more where the flag is not set, as if it added the complement; without a flag, it takes nothing more.
pub(crate) fn carry(
    op: CarryOp,
    ty: IntType,
    flag: Option<u32>,
    a: &Row,
    b: &Row,
    c: &Row,
) -> (Row, u32) {
    let (width, _) = shape(ty);
    let cut = u64::MAX >> (64 - width);
    let addend = match op {
        CarryOp::Add | CarryOp::Sub => *b,
        CarryOp::MadLo | CarryOp::MadHi => *c,
    };
    let first = match op {
        CarryOp::Add | CarryOp::Sub => *a,
        CarryOp::MadLo => for_type!(ty, T => map2(a, b, |a: T, b: T| a.wrapping_mul(b))),
        CarryOp::MadHi => for_type!(ty, T => map2(a, b, |a: T, b: T| high(a, b))),
    };
    let subtracts = op == CarryOp::Sub;
    let more = match flag {
        Some(flag) if subtracts => !flag,
        Some(flag) => flag,
        None => 0,
    };
    let mut out = [0; 32];
    let mut overflows = 0;
    for lane in 0..32 {
        let more = i128::from(more >> lane & 1);
        let (x, y) = (
            i128::from(first[lane] & cut),
            i128::from(addend[lane] & cut),
        );
        let result = if subtracts {
            x - y - more
        } else {
            x + y + more
        };
        out[lane] = result as u64 & cut;
        overflows |= u32::from(result < 0 || result > i128::from(cut)) << lane;
    }
    (out, if subtracts { !overflows } else { overflows })
}
