//! Rows of registers, and loops over the lanes of a warp.
//!
//! A row holds one register of all 32 lanes, zero-extended to 64 bits. Loops run over all lanes, which the compiler turns
//! into vector instructions; results go only to the lanes that are active.

/// One register of every lane.
pub(crate) type Row = [u64; 32];

/// All lanes.
pub(crate) const FULL: u32 = u32::MAX;

/// A number that a register can hold.
pub(crate) trait Lane: Copy {
    fn from_row(bits: u64) -> Self;
    fn into_row(self) -> u64;
}

macro_rules! integer_lane {
    ($($ty:ty, $unsigned:ty;)*) => {$(
        impl Lane for $ty {
            #[inline(always)]
            fn from_row(bits: u64) -> Self {
                bits as $ty
            }
            #[inline(always)]
            fn into_row(self) -> u64 {
                u64::from(self as $unsigned)
            }
        }
    )*};
}

integer_lane! {
    u16, u16; u32, u32; u64, u64;
    i16, u16; i32, u32; i64, u64;
}

impl Lane for f32 {
    #[inline(always)]
    fn from_row(bits: u64) -> Self {
        f32::from_bits(bits as u32)
    }
    #[inline(always)]
    fn into_row(self) -> u64 {
        u64::from(self.to_bits())
    }
}

impl Lane for f64 {
    #[inline(always)]
    fn from_row(bits: u64) -> Self {
        f64::from_bits(bits)
    }
    #[inline(always)]
    fn into_row(self) -> u64 {
        self.to_bits()
    }
}

/// Puts a result into the active lanes of a row.
#[inline(always)]
pub(crate) fn write_row(row: &mut Row, mask: u32, values: &Row) {
    if mask == FULL {
        *row = *values;
    } else {
        for lane in 0..32 {
            if mask >> lane & 1 != 0 {
                row[lane] = values[lane];
            }
        }
    }
}

#[inline(always)]
pub(crate) fn map1<A: Lane, R: Lane>(a: &Row, f: impl Fn(A) -> R) -> Row {
    let mut out = [0; 32];
    for lane in 0..32 {
        out[lane] = f(A::from_row(a[lane])).into_row();
    }
    out
}

#[inline(always)]
pub(crate) fn map2<A: Lane, B: Lane, R: Lane>(a: &Row, b: &Row, f: impl Fn(A, B) -> R) -> Row {
    let mut out = [0; 32];
    for lane in 0..32 {
        out[lane] = f(A::from_row(a[lane]), B::from_row(b[lane])).into_row();
    }
    out
}

#[inline(always)]
pub(crate) fn map3<A: Lane, B: Lane, C: Lane, R: Lane>(
    a: &Row,
    b: &Row,
    c: &Row,
    f: impl Fn(A, B, C) -> R,
) -> Row {
    let mut out = [0; 32];
    for lane in 0..32 {
        out[lane] = f(
            A::from_row(a[lane]),
            B::from_row(b[lane]),
            C::from_row(c[lane]),
        )
        .into_row();
    }
    out
}

/// A bit for each lane that satisfies a test.
#[inline(always)]
pub(crate) fn mask2<A: Lane>(a: &Row, b: &Row, f: impl Fn(A, A) -> bool) -> u32 {
    let mut mask = 0;
    for lane in 0..32 {
        mask |= u32::from(f(A::from_row(a[lane]), A::from_row(b[lane]))) << lane;
    }
    mask
}

/// The lanes of a mask, in ascending order.
#[inline(always)]
pub(crate) fn lanes(mut mask: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        if mask == 0 {
            return None;
        }
        let lane = mask.trailing_zeros();
        mask &= mask - 1;
        Some(lane as usize)
    })
}
