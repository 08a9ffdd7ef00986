//! Comparisons on rows.

use super::lanes::{Lane, Row, mask2};
use crate::arith::{float, half};
use crate::isa::{Compare, CompareType, HalfType, IntType};

/// Compares two rows as `$ty`: a bit for each lane in which it holds.
macro_rules! compare_as {
    ($ty:ty, $compare:expr, $a:expr, $b:expr) => {{
        let (a, b) = ($a, $b);
        let unordered = || mask2::<$ty>(a, b, |x, y| x.partial_cmp(&y).is_none());
        match $compare {
            Compare::Eq => mask2::<$ty>(a, b, |x, y| x == y),
            // Ordered: false for NaN.
            Compare::Ne => mask2::<$ty>(a, b, |x, y| x != y) & !unordered(),
            Compare::Lt => mask2::<$ty>(a, b, |x, y| x < y),
            Compare::Le => mask2::<$ty>(a, b, |x, y| x <= y),
            Compare::Gt => mask2::<$ty>(a, b, |x, y| x > y),
            Compare::Ge => mask2::<$ty>(a, b, |x, y| x >= y),
            Compare::EqU => mask2::<$ty>(a, b, |x, y| x == y) | unordered(),
            Compare::NeU => mask2::<$ty>(a, b, |x, y| x != y),
            Compare::LtU => mask2::<$ty>(a, b, |x, y| x < y) | unordered(),
            Compare::LeU => mask2::<$ty>(a, b, |x, y| x <= y) | unordered(),
            Compare::GtU => mask2::<$ty>(a, b, |x, y| x > y) | unordered(),
            Compare::GeU => mask2::<$ty>(a, b, |x, y| x >= y) | unordered(),
            Compare::Num => !unordered(),
            Compare::Nan => unordered(),
        }
    }};
}

/// The lanes in which a comparison holds.
pub(crate) fn compare(compare: Compare, ty: CompareType, a: &Row, b: &Row) -> u32 {
    match ty {
        CompareType::Int(IntType::U16) => compare_as!(u16, compare, a, b),
        CompareType::Int(IntType::S16) => compare_as!(i16, compare, a, b),
        CompareType::Int(IntType::U32) => compare_as!(u32, compare, a, b),
        CompareType::Int(IntType::S32) => compare_as!(i32, compare, a, b),
        CompareType::Int(IntType::U64) => compare_as!(u64, compare, a, b),
        CompareType::Int(IntType::S64) => compare_as!(i64, compare, a, b),
        CompareType::F64 => compare_as!(f64, compare, a, b),
        CompareType::F32 { ftz: false } => compare_as!(f32, compare, a, b),
        CompareType::F32 { ftz: true } => {
            let flushed =
                |row: &Row| row.map(|bits| float::flush(f32::from_row(bits), true).into_row());
            compare_as!(f32, compare, &flushed(a), &flushed(b))
        }
        CompareType::Half { ty, ftz } => {
            let widened = |row: &Row| row.map(|bits| widen(bits as u16, ty, ftz).into_row());
            compare_as!(f32, compare, &widened(a), &widened(b))
        }
    }
}

fn widen(bits: u16, ty: HalfType, ftz: bool) -> f32 {
    half::value(half::flush(bits, ty, ftz), ty)
}
