//! W2A8 GEMV: launcher and variant choice.

use super::{Entry, Input, LaunchError, Output, launch};
use crate::device::{Buffer, Capabilities, LaunchConfig, Stream};
use half::{bf16, f16};
use kernels_gpu::gemv::{self, Params, Shape, Variant};

/// A type that a linear layer writes: f32, f16, bf16.
pub trait GemvOutput: bytemuck::Pod + sealed::Select {}

mod sealed {
    use super::*;

    pub trait Select: Sized {
        fn entry(variant: &Variant) -> Entry<Params<Self>>;
    }
}

macro_rules! impl_output {
    ($($type:ident)*) => {$(
        impl sealed::Select for $type {
            fn entry(variant: &Variant) -> Entry<Params<$type>> {
                variant.$type
            }
        }
        impl GemvOutput for $type {}
    )*};
}
impl_output!(f32 f16 bf16);

/// One of the compiled GEMV variants.
#[derive(Clone, Copy, Debug)]
pub struct Gemv(&'static Variant);

impl Gemv {
    /// All that are compiled.
    pub fn all() -> impl ExactSizeIterator<Item = Gemv> {
        gemv::VARIANTS.iter().map(Gemv)
    }

    /// The variant called `name`, as [`Gemv::name`] has it.
    ///
    /// # Errors
    /// [`LaunchError::UnknownVariant`], with the names there are.
    pub fn named(name: &str) -> Result<Self, LaunchError> {
        Self::all()
            .find(|variant| variant.name() == name)
            .ok_or_else(|| LaunchError::UnknownVariant {
                name: name.to_owned(),
                known: Self::all()
                    .map(|variant| variant.name())
                    .collect::<Vec<_>>()
                    .join(", "),
            })
    }

    /// The variant for an `[n, k]` product (both padded) on a device, by [`Gemv::score`].
    pub fn choose(capabilities: &Capabilities, n: usize, k: usize) -> Self {
        Self::all()
            .filter(|variant| k as u64 <= variant.shape().max_k())
            .max_by(|a, b| {
                a.score(capabilities, n, k)
                    .total_cmp(&b.score(capabilities, n, k))
            })
            .expect("a variant takes every K up to MAX_K")
    }

    /// Estimated useful share of the device, in 0..=1: the product of
    /// - parallelism: resident warps that there is work for, over those that hide the latency of memory (16 a processor);
    /// - balance: units of work over lane-steps spent on them, as the last step of a row may leave lanes idle;
    /// - efficiency: `dp4a` and mask instructions over all, with about 100 of start and end a thread.
    pub fn score(&self, capabilities: &Capabilities, n: usize, k: usize) -> f64 {
        const WARPS_TO_HIDE_LATENCY: u32 = 16;
        const FIXED_INSTRUCTIONS: f64 = 100.0;
        const INSTRUCTIONS_A_UNIT: f64 = 32.0;
        let shape = self.shape();
        let units = k / 64;
        let steps = units.div_ceil((shape.lanes * shape.warps) as usize);
        let warps = (n / shape.rows_per_block() as usize) as f64 * f64::from(shape.warps);
        let wanted = f64::from(capabilities.multiprocessors * WARPS_TO_HIDE_LATENCY);
        let parallelism = (warps / wanted).min(1.0);
        let balance = units as f64 / (steps * (shape.lanes * shape.warps) as usize) as f64;
        let useful = steps as f64 * f64::from(shape.rows) * INSTRUCTIONS_A_UNIT;
        let loads = steps as f64 * f64::from(2 * shape.rows + 4);
        let efficiency = useful / (useful + loads + FIXED_INSTRUCTIONS);
        parallelism * balance * efficiency
    }

    /// Refuses a padded K beyond [`Shape::max_k`].
    pub(crate) fn require_k(&self, k: usize) -> Result<(), LaunchError> {
        let limit = self.shape().max_k();
        if k as u64 > limit {
            return Err(LaunchError::VariantK {
                variant: self.name(),
                limit,
                k,
            });
        }
        Ok(())
    }

    /// How its threads map to the matrix.
    pub fn shape(&self) -> Shape {
        self.0.shape
    }

    /// Its name, such as `l4_r2_w2`: lanes a row, rows a lane, warps a block.
    pub fn name(&self) -> String {
        let Shape {
            lanes, rows, warps, ..
        } = self.shape();
        format!("l{lanes}_r{rows}_w{warps}")
    }
}

/// The operands of a product on `Tiled` weights.
#[derive(Debug)]
pub(crate) struct Operands<'a, T> {
    pub weights: &'a Buffer<u8>,
    pub activations: &'a Buffer<i8>,
    pub activation_scale: &'a Buffer<f32>,
    pub activation_sum: &'a Buffer<i32>,
    pub row_scale: &'a Buffer<f32>,
    pub bias: Option<&'a Buffer<f32>>,
    pub output: &'a mut Buffer<T>,
}

/// `[m, n]` outputs of `[m, k_padded]` activations and `[n_padded, k_padded]` weights.
pub(crate) fn gemv<T: GemvOutput>(
    stream: &Stream,
    variant: Gemv,
    operands: Operands<'_, T>,
    (m, n, k_padded): (usize, usize, usize),
) -> Result<(), LaunchError> {
    let shape = variant.shape();
    variant.require_k(k_padded)?;
    let n_argument = super::size("n", n, i32::MAX as usize)?;
    // The limit of the grid's second dimension.
    let tokens = super::size("m", m, u16::MAX as usize)?;
    let n_padded = n.next_multiple_of(gemv::BLOCK_ROWS);
    let arguments = (
        Input::new("weights", operands.weights, n_padded * k_padded / 4)?,
        Input::new("activations", operands.activations, m * k_padded)?,
        Input::new("activation_scale", operands.activation_scale, m)?,
        Input::new("activation_sum", operands.activation_sum, m)?,
        Input::new("row_scale", operands.row_scale, n)?,
        operands
            .bias
            .map(|bias| Input::new("bias", bias, n))
            .transpose()?,
        Output::new("output", operands.output, m * n)?,
        n_argument,
        (k_padded / gemv::BLOCK_COLUMNS) as u32,
    );
    let config = LaunchConfig {
        grid: [n_padded as u32 / shape.rows_per_block(), tokens, 1],
        block: [shape.threads(), 1, 1],
        dynamic_shared: 0,
        cooperative: false,
    };
    // SAFETY: grid and block are the variant's for this shape, which its module's table states in terms of these lengths.
    unsafe { launch(stream, T::entry(variant.0), config, arguments) }
}
