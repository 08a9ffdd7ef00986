//! What Microsoft's `bitlinear_int8xint2` computes: launcher and variant choice.

use super::{Input, LaunchError, Output, estimate, launch, require_alignment, size};
use crate::device::{Buffer, LaunchConfig, Stream};
use crate::layout::{Layout, LayoutError};
use half::bf16;
use kernels_gpu::gemv::{self, Int8xInt2Variant, TILE_ROWS};

/// Bytes of the kernel's loads: what the addresses of activations and weights have to be multiples of.
pub(crate) const INT8XINT2_ALIGNMENT: usize = 16;

/// The operands of `bitlinear_int8xint2`, on one device.
#[derive(Debug)]
pub struct Int8xInt2<'a> {
    /// For [`int8xint2`] `[m, k_pitch]`, where the columns from `k` up to the next multiple of 32 are read too, and have to be 0;
    /// for [`ops::bitlinear_int8xint2`](crate::ops::bitlinear_int8xint2), which pads them itself if need be, `[m, k]`.
    pub activations: &'a Buffer<i8>,
    /// `[n, k]` in the layout `Ladder`, aligned to 16 bytes.
    pub weights: &'a Buffer<u8>,
    /// The factor that each token was multiplied by, `[m]`.
    pub activation_scale: &'a Buffer<bf16>,
    /// The scale of each group of rows, `[groups]`.
    pub row_scale: &'a Buffer<bf16>,
    /// `[m, n]`.
    pub output: &'a mut Buffer<bf16>,
}

/// Sizes of [`Int8xInt2`].
#[derive(Clone, Copy, Debug)]
pub struct Int8xInt2Sizes {
    /// Tokens.
    pub m: usize,
    /// Output features.
    pub n: usize,
    /// Input features.
    pub k: usize,
    /// Distance from one token's activations to the next, in elements: a multiple of 16.
    pub k_pitch: usize,
    /// Number of row scales; each applies to `n / groups` consecutive rows.
    pub groups: usize,
}

/// Computes `output[m, n] = sum_k activations[m, k] weights[n, k] / activation_scale[m] * row_scale[n / (N / groups)]`: the sum
/// exactly, each further operation rounded in f32, the result once to bf16.
///
/// # Errors
/// When a size is 0 or too large, K is padded beyond `k_pitch`, `k_pitch` is not a multiple of 16, `groups` does not divide `n`,
/// activations or weights are not aligned to 16 bytes, a buffer is too short or on another device, or the launch fails.
pub fn int8xint2(
    stream: &Stream,
    operands: Int8xInt2<'_>,
    sizes: Int8xInt2Sizes,
) -> Result<(), LaunchError> {
    // The limit of the grid's second dimension.
    let m = size("m", sizes.m, u16::MAX as usize)?;
    let n = size("n", sizes.n, i32::MAX as usize)?;
    let (_, k_padded) =
        Layout::Ladder
            .padded_shape(sizes.n, sizes.k)
            .map_err(|error| match error {
                LayoutError::ZeroSize { .. } => LaunchError::Size {
                    name: "k",
                    value: 0,
                    limit: crate::layout::MAX_K,
                },
                _ => LaunchError::Size {
                    name: "k",
                    value: sizes.k,
                    limit: crate::layout::MAX_K,
                },
            })?;
    if sizes.k_pitch < k_padded || !sizes.k_pitch.is_multiple_of(16) {
        return Err(LaunchError::Pitch {
            pitch: sizes.k_pitch,
            k: k_padded,
        });
    }
    if sizes.groups == 0 || !sizes.n.is_multiple_of(sizes.groups) {
        return Err(LaunchError::Groups {
            groups: sizes.groups,
            n: sizes.n,
        });
    }
    let k_pitch = size("k_pitch", sizes.k_pitch, i32::MAX as usize)?;
    require_alignment(operands.activations, INT8XINT2_ALIGNMENT)?;
    require_alignment(operands.weights, INT8XINT2_ALIGNMENT)?;
    let variant = choose(stream, sizes.m, sizes.n, k_padded);
    let n_padded = sizes.n.next_multiple_of(TILE_ROWS);
    let arguments = (
        // The last row needs no pitch behind it.
        Input::new(
            "activations",
            operands.activations,
            (sizes.m - 1) * sizes.k_pitch + k_padded,
        )?,
        Input::new("weights", operands.weights, n_padded * k_padded / 4)?,
        Output::new("output", operands.output, sizes.m * sizes.n)?,
        Input::new("activation_scale", operands.activation_scale, sizes.m)?,
        Input::new("row_scale", operands.row_scale, sizes.groups)?,
        n / sizes.groups as u32,
        n,
        k_padded as u32,
        k_pitch,
        m,
        estimate::prefetched_bytes(stream),
    );
    let config = LaunchConfig {
        grid: [variant.shape.blocks(n), m.div_ceil(variant.shape.tokens), 1],
        block: [variant.shape.threads(), 1, 1],
        dynamic_shared: variant.shape.shared_bytes(),
        cooperative: false,
    };
    // SAFETY: grid and block are the variant's for this shape, whose documentation states the lengths.
    unsafe { launch(stream, variant.entry, config, arguments) }
}

/// Of the variants for one token or for several, and that hold K, the one that the estimate prefers.
fn choose(stream: &Stream, m: usize, n: usize, k: usize) -> &'static Int8xInt2Variant {
    let device = stream.device();
    let fitting = |several: bool| {
        gemv::INT8XINT2.iter().filter(move |variant| {
            (variant.shape.tokens > 1) == several && k as u64 <= variant.shape.max_k()
        })
    };
    // A K beyond what the sums of several tokens hold is taken token by token.
    let several = m > 1 && fitting(true).next().is_some();
    let shape = |variant: &&Int8xInt2Variant| variant.shape;
    estimate::choose(fitting(several), shape, device.capabilities(), n, k)
        .expect("a variant takes every K up to MAX_K")
}
