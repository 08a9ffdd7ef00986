//! Activation quantization: launchers and variant choice.

use super::floats::Floats;
use super::{Float, Input, LaunchError, Output, launch, row};
use crate::device::{Buffer, LaunchConfig, Stream};
use crate::layout::MAX_K;
use kernels_gpu::Entry;
use kernels_gpu::quantize::{self, MAX_PARTIALS};

/// Where quantized tokens go: `[m, k_padded]`, `[m]` and `[m]`.
#[derive(Debug)]
pub(crate) struct Quantized<'a> {
    pub values: &'a mut Buffer<i8>,
    pub scale: &'a mut Buffer<f32>,
    pub sum: &'a mut Buffer<i32>,
}

/// Sizes of activations `[m, k]` and of their quantized form `[m, k_padded]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tokens {
    pub m: usize,
    pub k: usize,
    pub k_padded: usize,
}

/// Quantizes `[m, k]` with a scale a token.
pub(crate) fn quantize_activations<T: Float>(
    stream: &Stream,
    input: &Buffer<T>,
    output: Quantized<'_>,
    Tokens { m, k, k_padded }: Tokens,
) -> Result<(), LaunchError> {
    let k_argument = super::size("k", k, MAX_K)?;
    let (entry, config) = row::choose(
        stream.device().capabilities(),
        quantize::VARIANTS,
        m,
        k,
        k_padded,
        row::is_aligned(input),
    )?;
    let arguments = (
        Floats(Input::new("input", input, m * k)?),
        T::DTYPE as u32,
        Output::new("values", output.values, m * k_padded)?,
        Output::new("scale", output.scale, m)?,
        Output::new("sum", output.sum, m)?,
        k_argument,
        k_padded as u32,
    );
    // SAFETY: one block per token, and the variant takes its row; the kernel touches `k` of each row of `input` and
    // `k_padded` of each row of `values`.
    unsafe { launch(stream, entry, config, arguments) }
}

/// Numbers that [`quantize_activations_per_tensor`] needs room for.
pub(crate) fn partials(m: usize) -> usize {
    m.min(MAX_PARTIALS as usize)
}

/// Quantizes `[m, k]` with one scale, by way of `partial`, which has room for [`partials`].
pub(crate) fn quantize_activations_per_tensor<T: Float>(
    stream: &Stream,
    input: &Buffer<T>,
    partial: &mut Buffer<i32>,
    output: Quantized<'_>,
    Tokens { m, k, k_padded }: Tokens,
) -> Result<(), LaunchError> {
    let tokens = super::size("m", m, i32::MAX as usize)?;
    let k_argument = super::size("k", k, MAX_K)?;
    let blocks = partials(m);
    let config = LaunchConfig {
        grid: [blocks as u32, 1, 1],
        block: [row::threads(k_padded), 1, 1],
        dynamic_shared: 0,
        cooperative: false,
    };
    let arguments = (
        Floats(Input::new("input", input, m * k)?),
        T::DTYPE as u32,
        Output::new("partial", partial, blocks)?,
        tokens,
        k_argument,
    );
    let absmax = Entry::of::<quantize::quantize_tensor_absmax>();
    // SAFETY: the kernel reads the `m` rows of `input` and writes one value per block.
    unsafe { launch(stream, absmax, config, arguments)? };

    let arguments = (
        Floats(Input::new("input", input, m * k)?),
        T::DTYPE as u32,
        Input::new("partial", partial, blocks)?,
        Output::new("values", output.values, m * k_padded)?,
        Output::new("scale", output.scale, m)?,
        Output::new("sum", output.sum, m)?,
        blocks as u32,
        k_argument,
        k_padded as u32,
    );
    let config = LaunchConfig {
        grid: [tokens, 1, 1],
        ..config
    };
    // SAFETY: one block per token; the kernel touches `k` of each row of `input` and `k_padded` of each row of `values`.
    unsafe {
        launch(
            stream,
            Entry::of::<quantize::quantize_tensor>(),
            config,
            arguments,
        )
    }
}

/// Divides `[m, k_padded]` int8 values by their token's scale, into `[m, k]`.
pub(crate) fn dequantize_activations<T: Float>(
    stream: &Stream,
    values: &Buffer<i8>,
    scale: &Buffer<f32>,
    output: &mut Buffer<T>,
    Tokens { m, k, k_padded }: Tokens,
) -> Result<(), LaunchError> {
    let config = LaunchConfig {
        grid: [super::size("m", m, i32::MAX as usize)?, 1, 1],
        block: [row::threads(k_padded), 1, 1],
        dynamic_shared: 0,
        cooperative: false,
    };
    let arguments = (
        Input::new("values", values, m * k_padded)?,
        Input::new("scale", scale, m)?,
        Floats(Output::new("output", output, m * k)?),
        T::DTYPE as u32,
        super::size("k", k, MAX_K)?,
        k_padded as u32,
    );
    // SAFETY: one block per token; the kernel touches `k_padded` of each row of `values` and `k` of each row of `output`.
    unsafe {
        launch(
            stream,
            Entry::of::<quantize::dequantize_activations>(),
            config,
            arguments,
        )
    }
}
