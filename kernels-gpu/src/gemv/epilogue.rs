//! From integer sums to outputs.

use super::Problem;
use super::layout::Layout;
use crate::activation::{Function, NO_ACTIVATION};
use crate::element::{AnyFloat, Element};
use cuda_std::ptr;
use half::bf16;

/// How integer sums become outputs.
pub(super) trait Epilogue: Copy {
    /// Whether the sums of the activations are unknown and have to be computed along with the products.
    const SUMS_ACTIVATIONS: bool;

    /// What an output needs besides its sum, as far as it can be loaded before the products.
    type Operands: Copy + Default;

    /// Has L2 fetch what outputs need of a block's rows, which begin at `row`, as far as it is not the output of another kernel.
    fn prefetch(&self, row: usize);

    /// Loads the operands of an output, given as `(token, row)`.
    ///
    /// # Safety
    /// Token and row are inside the matrices behind the pointers.
    unsafe fn operands(&self, output: (usize, usize)) -> Self::Operands;

    /// Writes one output. `sum` is the dot product of the codes, or that of the weights if `SUMS_ACTIVATIONS`.
    ///
    /// # Safety
    /// As [`Epilogue::operands`]; `operands` is its result for this output.
    unsafe fn write<L: Layout>(
        &self,
        problem: &Problem,
        output: (usize, usize),
        operands: Self::Operands,
        sum: i32,
    );
}

/// From a row's dot product to its output: scales, bias, activation function and residual. Each operation is rounded to f32, the result
/// once to the output's type.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    pub row_scale: *const f32,
    pub bias: *const f32,
    /// A [`Kind`](crate::activation::Kind), or [`NO_ACTIVATION`].
    pub activation: u32,
    pub residual: *const AnyFloat,
    pub output: *mut AnyFloat,
    /// The type of residual and output.
    pub dtype: u32,
}

impl Rows {
    /// Has L2 fetch the scales and biases of up to 32 rows, which begin at `row`.
    #[inline(always)]
    pub fn prefetch(&self, row: usize) {
        // Those of a block, 16 or 32, are in one cache line.
        ptr::prefetch_l2(self.row_scale.wrapping_add(row));
        if !self.bias.is_null() {
            ptr::prefetch_l2(self.bias.wrapping_add(row));
        }
    }

    /// The scale of a weight row, and the bias and residual of element `index` of the output, which belongs to that row.
    ///
    /// # Safety
    /// The row and the element exist.
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

    /// Writes element `index` of the output. `scale` is the token's scale.
    ///
    /// # Safety
    /// The element exists.
    #[inline(always)]
    pub unsafe fn write(&self, index: usize, operands: Operands, dot: i32, scale: f32) {
        let mut y = dot as f32 / scale * operands.row_scale;
        // Absent terms are skipped: adding 0 would turn -0 into 0.
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

/// What an output needs besides its dot product; 0 where absent.
#[derive(Clone, Copy, Default)]
pub(super) struct Operands {
    row_scale: f32,
    bias: f32,
    residual: f32,
}

/// What every output of [`Scaled`] needs. Bias and residual are loaded when the output is written: two more registers would spill.
#[derive(Clone, Copy, Default)]
pub(super) struct Scales {
    activation_scale: f32,
    activation_sum: i32,
    row_scale: f32,
}

/// The epilogue for tokens whose scales and sums were stored by quantization.
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
    fn prefetch(&self, row: usize) {
        self.rows.prefetch(row);
    }

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

/// The epilogue of Microsoft's `bitlinear_int8xint2`: a bf16 scale per token, one per `rows_per_scale` rows, and bf16 output.
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

    /// Nothing: the scales are few, and loaded with the weights.
    #[inline(always)]
    fn prefetch(&self, _row: usize) {}

    #[inline(always)]
    unsafe fn operands(&self, (token, row): (usize, usize)) -> (f32, f32) {
        // SAFETY: the caller's contract; the host ensures a scale for each group, and that no group is empty.
        unsafe {
            core::hint::assert_unchecked(self.rows_per_scale > 0);
            let group = row as u32 / self.rows_per_scale;
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
