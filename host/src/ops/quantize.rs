use super::OpError;
use super::error::{require_matrix, require_size};
use crate::device::{Buffer, Device, Stream};
use crate::launch::{self, Quantize};
use crate::layout::MAX_K;
use kernels_gpu::gemv::{MAX_TOKENS, STEP_COLUMNS};

/// Activations `[m, k]` as int8 on a device, with what a product needs beside them.
///
/// Each row is padded with zeros to the columns of the weight layout, so that kernels need no bounds checks along K.
#[derive(Debug)]
pub struct QuantizedActivations {
    m: usize,
    k: usize,
    pub(super) values: Buffer<i8>,
    pub(super) scale: Buffer<f32>,
    pub(super) sum: Buffer<i32>,
}

impl QuantizedActivations {
    /// Allocates room for `m` tokens of `k` features, whose content is not defined until [`quantize_activations`] writes it.
    ///
    /// # Errors
    /// When `m` or `k` is 0, `k` exceeds [`MAX_K`], or the device has not enough memory.
    pub fn uninit(device: &Device, m: usize, k: usize) -> Result<Self, OpError> {
        require_size("m", m, i32::MAX as usize)?;
        require_size("k", k, MAX_K)?;
        let k_padded = k.next_multiple_of(STEP_COLUMNS);
        // Kernels for several tokens read whole groups; what they make of the rows beyond `m` is not written.
        let rows = if m == 1 { 1 } else { m.next_multiple_of(MAX_TOKENS) };
        let values = if rows == m { Buffer::uninit(device, m * k_padded)? } else { Buffer::zeroed(device, rows * k_padded)? };
        Ok(Self {
            m,
            k,
            values,
            scale: Buffer::uninit(device, m)?,
            sum: Buffer::uninit(device, m)?,
        })
    }

    /// Uploads values that are quantized already: `values` is `[m, k]`, `scale`, `[m]`, what each token was multiplied with.
    ///
    /// # Errors
    /// As [`QuantizedActivations::uninit`], and when a length does not fit.
    pub fn from_values(
        device: &Device,
        m: usize,
        k: usize,
        values: &[i8],
        scale: &[f32],
    ) -> Result<Self, OpError> {
        require_matrix("values", values.len(), ("m", m), ("k", k))?;
        require_matrix("scale", scale.len(), ("m", m), ("1", 1))?;
        let mut activations = Self::uninit(device, m, k)?;
        let mut padded = vec![0; activations.values.len()];
        for (row, values) in padded
            .chunks_mut(activations.k_padded())
            .zip(values.chunks(k))
        {
            row[..k].copy_from_slice(values);
        }
        let sums: Vec<i32> = values
            .chunks(k)
            .map(|row| row.iter().map(|&q| i32::from(q)).sum())
            .collect();
        activations.values.copy_from_slice(&padded)?;
        activations.scale.copy_from_slice(scale)?;
        activations.sum.copy_from_slice(&sums)?;
        Ok(activations)
    }

    /// Tokens.
    pub fn m(&self) -> usize {
        self.m
    }

    /// Features of a token, without padding.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Features of a token, with padding: a multiple of 128.
    pub fn k_padded(&self) -> usize {
        self.k.next_multiple_of(STEP_COLUMNS)
    }

    /// The int8 values `[m, k_padded]`, zero in the padding; more rows may follow.
    pub fn values(&self) -> &Buffer<i8> {
        &self.values
    }

    /// The factor that each token was multiplied with, `[m]`.
    pub fn scale(&self) -> &Buffer<f32> {
        &self.scale
    }

    /// The sum of each token's values, `[m]`.
    pub fn sum(&self) -> &Buffer<i32> {
        &self.sum
    }
}

/// Quantizes `input`, `[m, k]`, per token: `s = 127 / max(max|x|, 1e-5)`, `q = clamp(rint(x * s), -128, 127)`.
///
/// The result is the reference's, bit for bit. A token with a NaN gets the scale NaN, one with an infinity the scale 0, both
/// with all values 0, so that what is computed from them is NaN.
///
/// # Errors
/// When `input` is not `[output.m(), output.k()]`, the two are on different devices, or the launch fails.
pub fn quantize_activations<T: Quantize>(
    stream: &Stream,
    input: &Buffer<T>,
    output: &mut QuantizedActivations,
) -> Result<(), OpError> {
    require_matrix("input", input.len(), ("m", output.m), ("k", output.k))?;
    let shape = (output.m, output.k, output.k_padded());
    let QuantizedActivations {
        values, scale, sum, ..
    } = output;
    Ok(launch::quantize_activations(
        stream,
        input,
        (values, scale, sum),
        shape,
    )?)
}
