//! From integer sums to outputs.

use super::Problem;
use super::layout::Layout;
use crate::element::Element;
use half::{bf16, f16};

/// A float of a type that is only known at run time, behind a pointer. It is read and written once a row, so that a branch
/// costs nothing, and a kernel for each type would be three times the code to compile.
#[repr(transparent)]
pub struct AnyFloat(u8);

/// What an [`AnyFloat`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Dtype {
    /// IEEE binary32.
    F32 = 0,
    /// IEEE binary16.
    F16 = 1,
    /// bfloat16.
    Bf16 = 2,
}

impl AnyFloat {
    /// Element `index` of an array of type `dtype`, exactly.
    ///
    /// # Safety
    /// There is such an element.
    #[inline(always)]
    unsafe fn read(array: *const Self, dtype: u32, index: usize) -> f32 {
        // SAFETY: the caller's contract.
        unsafe {
            if dtype == Dtype::F32 as u32 {
                (*array.cast::<f32>().add(index)).widen()
            } else if dtype == Dtype::F16 as u32 {
                (*array.cast::<f16>().add(index)).widen()
            } else {
                (*array.cast::<bf16>().add(index)).widen()
            }
        }
    }

    /// Writes element `index` of an array of type `dtype`, rounded once.
    ///
    /// # Safety
    /// There is such an element.
    #[inline(always)]
    unsafe fn write(array: *mut Self, dtype: u32, index: usize, value: f32) {
        // SAFETY: the caller's contract.
        unsafe {
            if dtype == Dtype::F32 as u32 {
                *array.cast::<f32>().add(index) = value;
            } else if dtype == Dtype::F16 as u32 {
                *array.cast::<f16>().add(index) = f16::round(value);
            } else {
                *array.cast::<bf16>().add(index) = bf16::round(value);
            }
        }
    }
}

/// What becomes of the sums.
pub(super) trait Epilogue: Copy {
    /// Whether the sums of the activations are not known and have to be computed beside the products.
    const SUMS_ACTIVATIONS: bool;

    /// Writes one output. `sum` is that of the codes' products, or of the weights' where `SUMS_ACTIVATIONS`.
    ///
    /// # Safety
    /// `token` and `row` are in the matrices that the pointers belong to.
    unsafe fn write<L: Layout>(&self, problem: &Problem, token: usize, row: usize, sum: i32);
}

/// Scale, bias and residual, each operation rounded in f32, the result once to the output's type.
#[derive(Clone, Copy)]
pub(super) struct Scaled {
    pub(super) activation_scale: *const f32,
    pub(super) activation_sum: *const i32,
    pub(super) row_scale: *const f32,
    pub(super) bias: *const f32,
    pub(super) residual: *const AnyFloat,
    pub(super) output: *mut AnyFloat,
    pub(super) dtype: u32,
}

impl Epilogue for Scaled {
    const SUMS_ACTIVATIONS: bool = false;

    #[inline(always)]
    unsafe fn write<L: Layout>(&self, problem: &Problem, token: usize, row: usize, sum: i32) {
        let index = token * problem.n as usize + row;
        // SAFETY: the caller's contract.
        unsafe {
            let dot = (sum - L::CODE_BIAS * *self.activation_sum.add(token)) as f32;
            let mut y = dot / *self.activation_scale.add(token) * *self.row_scale.add(row);
            if !self.bias.is_null() {
                y += *self.bias.add(row);
            }
            if !self.residual.is_null() {
                y += AnyFloat::read(self.residual, self.dtype, index);
            }
            AnyFloat::write(self.output, self.dtype, index, y);
        }
    }
}

/// The operands of Microsoft's `bitlinear_int8xint2`: bf16 scales of the token and of `rows_per_scale` rows, bf16 out.
#[derive(Clone, Copy)]
pub(super) struct Int8xInt2 {
    pub(super) activation_scale: *const bf16,
    pub(super) row_scale: *const bf16,
    pub(super) rows_per_scale: u32,
    pub(super) output: *mut bf16,
}

impl Epilogue for Int8xInt2 {
    const SUMS_ACTIVATIONS: bool = true;

    #[inline(always)]
    unsafe fn write<L: Layout>(&self, problem: &Problem, token: usize, row: usize, sum: i32) {
        let group = row as u32 / self.rows_per_scale;
        // SAFETY: the caller's contract; the host has seen to a scale for each group.
        unsafe {
            let y = sum as f32 / (*self.activation_scale.add(token)).widen()
                * (*self.row_scale.add(group as usize)).widen();
            *self.output.add(token * problem.n as usize + row) = bf16::round(y);
        }
    }
}
