use super::OpError;
use super::error::{require_matrix, require_size};
use crate::device::{Buffer, Device, Stream};
use crate::launch::{self, Float, Quantized, Tokens};
use crate::layout::MAX_K;
use crate::reference::quantize::ActivationGranularity;
use kernels_gpu::gemv::STEP_COLUMNS;

/// Activations `[m, k]` as int8 on a device, with the scale and the sum of each token, which a product needs.
///
/// Each row is padded with zeros to the columns of the weight layout, so that kernels need no bounds checks along K.
#[derive(Debug)]
pub struct QuantizedActivations {
    m: usize,
    k: usize,
    granularity: ActivationGranularity,
    pub(super) values: Buffer<i8>,
    pub(super) scale: Buffer<f32>,
    pub(super) sum: Buffer<i32>,
}

impl QuantizedActivations {
    /// Allocates room for `m` tokens of `k` features, each with a scale of its own. The content is not defined until
    /// [`quantize_activations`] or a [`Norm`](super::Norm) writes it.
    ///
    /// # Errors
    /// When `m` or `k` is 0, `k` exceeds [`MAX_K`], or the device does not have enough memory.
    pub fn uninit(device: &Device, m: usize, k: usize) -> Result<Self, OpError> {
        Self::uninit_with_granularity(device, m, k, ActivationGranularity::Token)
    }

    /// As [`QuantizedActivations::uninit`], with one scale per token or one in all, according to `granularity`.
    ///
    /// # Errors
    /// As [`QuantizedActivations::uninit`].
    pub fn uninit_with_granularity(
        device: &Device,
        m: usize,
        k: usize,
        granularity: ActivationGranularity,
    ) -> Result<Self, OpError> {
        let len = values_len(m, k)?;
        Ok(Self {
            m,
            k,
            granularity,
            values: Buffer::uninit(device, len)?,
            scale: Buffer::uninit(device, m)?,
            sum: Buffer::uninit(device, m)?,
        })
    }

    /// As [`QuantizedActivations::uninit`], for scratch memory of one operation on `stream`.
    pub(super) fn uninit_on(stream: &Stream, m: usize, k: usize) -> Result<Self, OpError> {
        let len = values_len(m, k)?;
        Ok(Self {
            m,
            k,
            granularity: ActivationGranularity::Token,
            values: Buffer::uninit_on(stream, len)?,
            scale: Buffer::uninit_on(stream, m)?,
            sum: Buffer::uninit_on(stream, m)?,
        })
    }

    /// Uploads values that are already quantized: `values` is `[m, k]`; `scale`, `[m]`, holds the factor that each token was
    /// multiplied by.
    ///
    /// # Errors
    /// As [`QuantizedActivations::uninit`], and when a length does not fit.
    pub fn from_values(
        device: &Device,
        values: &[i8],
        scale: &[f32],
        m: usize,
        k: usize,
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

    /// Which activations share a scale.
    pub fn granularity(&self) -> ActivationGranularity {
        self.granularity
    }

    /// The int8 values `[m, k_padded]`, zero in the padding.
    pub fn values(&self) -> &Buffer<i8> {
        &self.values
    }

    /// The factor that each token was multiplied by, `[m]`.
    pub fn scales(&self) -> &Buffer<f32> {
        &self.scale
    }

    /// The sum of each token's values, `[m]`.
    pub fn sums(&self) -> &Buffer<i32> {
        &self.sum
    }
}

impl QuantizedActivations {
    /// Its sizes.
    pub(super) fn tokens(&self) -> Tokens {
        Tokens {
            m: self.m,
            k: self.k,
            k_padded: self.k_padded(),
        }
    }

    /// Where an operation writes that quantizes each token by itself.
    pub(super) fn per_token(&mut self, operation: &'static str) -> Result<Quantized<'_>, OpError> {
        if self.granularity != ActivationGranularity::Token {
            return Err(OpError::PerTensor { operation });
        }
        Ok(Quantized {
            values: &mut self.values,
            scale: &mut self.scale,
            sum: &mut self.sum,
        })
    }
}

/// Int8 values of `m` tokens with their padding, after a check of the sizes.
fn values_len(m: usize, k: usize) -> Result<usize, OpError> {
    require_size("m", m, i32::MAX as usize)?;
    require_size("k", k, MAX_K)?;
    Ok(m * k.next_multiple_of(STEP_COLUMNS))
}

/// Quantizes `input`, `[m, k]`: `s = 127 / max(max|x|, 1e-5)`, `q = clamp(rint(x * s), -128, 127)`. The maximum is over a token,
/// or over the whole input if `output` was created [`with_granularity`](QuantizedActivations::uninit_with_granularity) `Tensor`.
///
/// The result equals the reference's, bit for bit. A token (or tensor) with a NaN gets the scale NaN, one with an infinity the
/// scale 0; in both cases all values are 0, so that products with it are NaN.
///
/// # Errors
/// When `input` is not `[output.m(), output.k()]`, the two are on different devices, or a launch fails.
pub fn quantize_activations<T: Float>(
    stream: &Stream,
    input: &Buffer<T>,
    output: &mut QuantizedActivations,
) -> Result<(), OpError> {
    require_matrix("input", input.len(), ("m", output.m), ("k", output.k))?;
    let tokens = output.tokens();
    let target = Quantized {
        values: &mut output.values,
        scale: &mut output.scale,
        sum: &mut output.sum,
    };
    match output.granularity {
        ActivationGranularity::Token => {
            launch::quantize_activations(stream, input, target, tokens)?
        }
        ActivationGranularity::Tensor => {
            let mut partial = Buffer::uninit_on(stream, launch::partials(tokens.m))?;
            launch::quantize_activations_per_tensor(stream, input, &mut partial, target, tokens)?
        }
    }
    Ok(())
}

/// Writes `q / s` to `output`, `[m, k]`: the quotient is rounded to f32, then to the output's type. The result equals the
/// reference's, bit for bit.
///
/// # Errors
/// When `output` is not `[input.m(), input.k()]`, the two are on different devices, or the launch fails.
pub fn dequantize_activations<T: Float>(
    stream: &Stream,
    input: &QuantizedActivations,
    output: &mut Buffer<T>,
) -> Result<(), OpError> {
    require_matrix("output", output.len(), ("m", input.m), ("k", input.k))?;
    let tokens = input.tokens();
    Ok(launch::dequantize_activations(
        stream,
        &input.values,
        &input.scale,
        output,
        tokens,
    )?)
}
