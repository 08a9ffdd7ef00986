//! Activation quantization: launcher and variant choice.

use super::{Input, LaunchError, Output, launch};
use crate::device::{Buffer, LaunchConfig, Stream};
use crate::layout::MAX_K;
use half::{bf16, f16};
use kernels_gpu::quantize::{self, Variant};

/// A type that activations come in: f32, f16, bf16.
pub trait Quantize: bytemuck::Pod + sealed::Variants {}

mod sealed {
    use super::Variant;

    pub trait Variants: Sized + 'static {
        const VARIANTS: &'static [Variant<Self>];
    }
}

macro_rules! impl_quantize {
    ($($type:ty: $variants:path;)*) => {$(
        impl sealed::Variants for $type {
            const VARIANTS: &'static [Variant<Self>] = $variants;
        }
        impl Quantize for $type {}
    )*};
}
impl_quantize! {
    f32: quantize::F32;
    f16: quantize::F16;
    bf16: quantize::BF16;
}

/// Threads of a block: enough for one chunk each, whole warps.
fn threads(k_padded: usize) -> u32 {
    let chunks = k_padded.div_ceil(quantize::CHUNK) as u32;
    chunks.next_multiple_of(32).min(quantize::MAX_THREADS)
}

/// Quantizes `[m, k]` to `[m, k_padded]`, with a scale and a sum a token.
pub(crate) fn quantize_activations<T: Quantize>(
    stream: &Stream,
    input: &Buffer<T>,
    (quantized, scale, sum): (&mut Buffer<i8>, &mut Buffer<f32>, &mut Buffer<i32>),
    (m, k, k_padded): (usize, usize, usize),
) -> Result<(), LaunchError> {
    let grid = super::size("m", m, i32::MAX as usize)?;
    let k_argument = super::size("k", k, MAX_K)?;
    let threads = threads(k_padded);
    let variant = T::VARIANTS
        .iter()
        .find(|variant| {
            variant
                .max_k_padded(threads)
                .is_none_or(|limit| k_padded <= limit)
        })
        .expect("the last variant takes any length");
    let arguments = (
        Input::new("input", input, m * k)?,
        Output::new("quantized", quantized, m * k_padded)?,
        Output::new("scale", scale, m)?,
        Output::new("sum", sum, m)?,
        k_argument,
        k_padded as u32,
    );
    let config = LaunchConfig {
        grid: [grid, 1, 1],
        block: [threads, 1, 1],
        dynamic_shared: 0,
        cooperative: false,
    };
    // SAFETY: a block a token, and the variant holds a row in `threads` threads; the kernel touches `k` of each row of
    // `input` and `k_padded` of each row of `quantized`.
    unsafe { launch(stream, variant.entry, config, arguments) }
}
