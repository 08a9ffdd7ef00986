//! From integer sums to outputs.

use super::Problem;
use super::layout::Layout;
use crate::activation::{Function, NO_ACTIVATION};
use crate::element::{AnyFloat, Element};
use half::bf16;

/// What becomes of the sums.
pub(super) trait Epilogue: Copy {
    /// Whether the sums of the activations are not known and have to be computed beside the products.
    const SUMS_ACTIVATIONS: bool;

    /// What an output takes beside its sum, as far as it can be read before the products.
    type Operands: Copy + Default;

    /// Reads them.
    ///
    /// # Safety
    /// `token` and `row` are in the matrices that the pointers belong to.
    unsafe fn operands(&self, output: (usize, usize)) -> Self::Operands;

    /// Writes one output. `sum` is that of the codes' products, or of the weights' where `SUMS_ACTIVATIONS`.
    ///
    /// # Safety
    /// As [`Epilogue::operands`], whose result for this output `operands` is.
    unsafe fn write<L: Layout>(
        &self,
        problem: &Problem,
        output: (usize, usize),
        operands: Self::Operands,
        sum: i32,
    );
}

/// From a row's dot product to its output: scales, bias, activation function and residual, each operation rounded in f32, the result
/// once to the output's type.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    pub row_scale: *const f32,
    pub bias: *const f32,
    /// A [`Kind`](crate::activation::Kind), or [`NO_ACTIVATION`].
    pub activation: u32,
    pub residual: *const AnyFloat,
    pub output: *mut AnyFloat,
    /// Of residual and output.
    pub dtype: u32,
}

impl Rows {
    /// The scale of a row, and what is added to element `index` of the output, which is in that row of the weights.
    ///
    /// # Safety
    /// There are such a row and element.
    #[inline(always)]
    pub unsafe fn operands(&self, index: usize, row: usize) -> Operands {
        // SAFETY: the caller's contract.
        unsafe {
            Operands {
                row_scale: *self.row_scale.add(row),
                bias: if self.bias.is_null() {
                    0.0
                } else {
                    *self.bias.add(row)
                },
                residual: if self.residual.is_null() {
                    0.0
                } else {
                    AnyFloat::read(self.residual, self.dtype, index)
                },
            }
        }
    }

    /// Writes element `index` of the output. `scale` is the token's.
    ///
    /// # Safety
    /// There is such an element.
    #[inline(always)]
    pub unsafe fn write(&self, index: usize, operands: Operands, dot: i32, scale: f32) {
        let mut y = dot as f32 / scale * operands.row_scale;
        // What is absent is no step: adding 0 would make 0 of -0.
        if !self.bias.is_null() {
            y += operands.bias;
        }
        if self.activation != NO_ACTIVATION {
            y = Function::new(self.activation).apply(y);
        }
        if !self.residual.is_null() {
            y += operands.residual;
        }
        // SAFETY: the caller's contract.
        unsafe { AnyFloat::write(self.output, self.dtype, index, y) };
    }
}

/// What belongs to an output beside its dot product; 0 where it is absent.
#[derive(Clone, Copy, Default)]
pub(super) struct Operands {
    row_scale: f32,
    bias: f32,
    residual: f32,
}

/// What every output of [`Scaled`] takes. Bias and residual are read when it is written: two registers more would spill.
#[derive(Clone, Copy, Default)]
pub(super) struct Scales {
    activation_scale: f32,
    activation_sum: i32,
    row_scale: f32,
}

/// Tokens with their scales and sums as quantization has left them.
#[derive(Clone, Copy)]
pub(super) struct Scaled {
    pub activation_scale: *const f32,
    pub activation_sum: *const i32,
    pub rows: Rows,
}

impl Epilogue for Scaled {
    const SUMS_ACTIVATIONS: bool = false;

    type Operands = Scales;

    #[inline(always)]
    unsafe fn operands(&self, (token, row): (usize, usize)) -> Scales {
        // SAFETY: the caller's contract.
        unsafe {
            Scales {
                activation_scale: *self.activation_scale.add(token),
                activation_sum: *self.activation_sum.add(token),
                row_scale: *self.rows.row_scale.add(row),
            }
        }
    }

    #[inline(always)]
    unsafe fn write<L: Layout>(
        &self,
        problem: &Problem,
        (token, row): (usize, usize),
        scales: Scales,
        sum: i32,
    ) {
        let index = token * problem.n as usize + row;
        let dot = sum - L::CODE_BIAS * scales.activation_sum;
        // SAFETY: the caller's contract.
        unsafe {
            let operands = Operands {
                row_scale: scales.row_scale,
                ..self.rows.operands(index, row)
            };
            self.rows
                .write(index, operands, dot, scales.activation_scale);
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

    /// The token's scale and the row's.
    type Operands = (f32, f32);

    #[inline(always)]
    unsafe fn operands(&self, (token, row): (usize, usize)) -> (f32, f32) {
        let group = row as u32 / self.rows_per_scale;
        // SAFETY: the caller's contract; the host has seen to a scale for each group.
        unsafe {
            let activation_scale = (*self.activation_scale.add(token)).widen();
            (
                activation_scale,
                (*self.row_scale.add(group as usize)).widen(),
            )
        }
    }

    #[inline(always)]
    unsafe fn write<L: Layout>(
        &self,
        problem: &Problem,
        (token, row): (usize, usize),
        (activation_scale, row_scale): (f32, f32),
        sum: i32,
    ) {
        let y = sum as f32 / activation_scale * row_scale;
        // SAFETY: the caller's contract.
        unsafe { *self.output.add(token * problem.n as usize + row) = bf16::round(y) };
    }
}
