use super::OpError;
use super::error::require_matrix;
use crate::device::{Buffer, Device, Stream};
use crate::launch::{self, Float, Matrix};
use crate::layout::{Layout, LayoutError, PackedWeights};
use crate::reference::quantize::WeightGranularity;
use crate::reference::{Element, ReferenceError, RowScales};

/// The least scale of ternary weights; an all-zero matrix would divide by 0 otherwise.
const LEAST_SCALE: f32 = 1e-5;

/// How float weights are quantized to 2 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WeightQuantizer {
    /// BitNet b1.58's absmean: `scale = max(mean|w|, 1e-5)`, `t = clamp(rint(w * (1 / scale)), -1, 1)`.
    Ternary,
    /// The first BitNet's sign: `b = 1` where `w > mean(w)`, else -1; `scale = mean|w|`.
    Binary,
}

/// A ternary matrix `[n, k]` on a device, packed at 2 bits a weight: a [`PackedWeights`] in device memory.
///
/// Its bytes are valid by construction: every code stands for a weight, and padding is weight 0.
#[derive(Debug)]
pub struct TernaryWeights {
    layout: Layout,
    n: usize,
    k: usize,
    bytes: Buffer<u8>,
}

impl TernaryWeights {
    /// Uploads packed weights.
    ///
    /// # Errors
    /// When the device does not have enough memory.
    pub fn from_packed(device: &Device, packed: &PackedWeights) -> Result<Self, OpError> {
        Ok(Self {
            layout: packed.layout(),
            n: packed.n(),
            k: packed.k(),
            bytes: Buffer::from_slice(device, packed.bytes())?,
        })
    }

    /// Packs int8 values `[n, k]`, each -1, 0 or 1. Waits for the result of the check.
    ///
    /// # Errors
    /// [`LayoutError::NotTernary`] with the first value that is none of these; when the shape is not one that
    /// [`Layout::padded_shape`] takes or not that of `values`, `values` is external memory that is not aligned to 4 bytes, the stream
    /// is on another device, or the launch fails.
    pub fn pack(
        stream: &Stream,
        layout: Layout,
        values: &Buffer<i8>,
        n: usize,
        k: usize,
    ) -> Result<Self, OpError> {
        let mut weights = Self::uninit(stream.device(), layout, n, k)?;
        require_matrix("values", values.len(), ("n", n), ("k", k))?;
        let matrix = weights.matrix()?;
        let mut invalid = Buffer::zeroed(stream.device(), 1)?;
        launch::pack_ternary(stream, values, &mut weights.bytes, &mut invalid, matrix)?;
        if invalid.to_vec()? == [0] {
            return Ok(weights);
        }
        let values = values.to_vec()?;
        let index = values.iter().position(|value| !(-1..=1).contains(value));
        let index = index.unwrap_or_default();
        Err(OpError::Layout(LayoutError::NotTernary {
            value: values[index],
            row: index / k,
            column: index % k,
        }))
    }

    fn uninit(device: &Device, layout: Layout, n: usize, k: usize) -> Result<Self, OpError> {
        Ok(Self {
            layout,
            n,
            k,
            bytes: Buffer::uninit(device, layout.packed_len(n, k)?)?,
        })
    }

    /// Unpacks to `values`, `[n, k]`.
    ///
    /// # Errors
    /// When `values` has another length, is on another device, or is external memory that is not aligned to 4 bytes, or the launch
    /// fails.
    pub fn unpack(&self, stream: &Stream, values: &mut Buffer<i8>) -> Result<(), OpError> {
        require_matrix("values", values.len(), ("n", self.n), ("k", self.k))?;
        Ok(launch::unpack_ternary(
            stream,
            &self.bytes,
            values,
            self.matrix()?,
        )?)
    }

    /// The same weights in another layout.
    ///
    /// # Errors
    /// When the stream is on another device, the device does not have enough memory, or the launch fails.
    pub fn convert(&self, stream: &Stream, layout: Layout) -> Result<Self, OpError> {
        let mut converted = Self::uninit(stream.device(), layout, self.n, self.k)?;
        let target = converted.matrix()?;
        launch::convert_layout(
            stream,
            (&self.bytes, self.matrix()?),
            (&mut converted.bytes, target),
        )?;
        Ok(converted)
    }

    /// Copies the weights to the host.
    ///
    /// # Errors
    /// When the device is lost.
    pub fn to_packed(&self) -> Result<PackedWeights, OpError> {
        Ok(PackedWeights::from_bytes(
            self.layout,
            self.bytes.to_vec()?,
            self.n,
            self.k,
        )?)
    }

    /// How the codes are arranged.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Output features: rows, without padding.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Input features: columns, without padding.
    pub fn k(&self) -> usize {
        self.k
    }

    /// The packed bytes, [`Layout::packed_len`] of them.
    pub fn bytes(&self) -> &Buffer<u8> {
        &self.bytes
    }

    pub(super) fn into_bytes(self) -> Buffer<u8> {
        self.bytes
    }

    fn matrix(&self) -> Result<Matrix, OpError> {
        let Self { layout, n, k, .. } = *self;
        let (n_padded, k_padded) = layout.padded_shape(n, k)?;
        Ok(Matrix {
            layout,
            n,
            k,
            n_padded,
            k_padded,
        })
    }
}

/// Weights `[n, k]` quantized on a device, in the layout `Tiled`.
#[derive(Debug)]
pub struct QuantizedWeights {
    pub(super) weights: TernaryWeights,
    pub(super) row_scale: Buffer<f32>,
    scales: RowScales,
}

impl QuantizedWeights {
    /// The values, -1, 0 or 1, in [`Layout::Tiled`].
    pub fn weights(&self) -> &TernaryWeights {
        &self.weights
    }

    /// The factor that each row's values are to be multiplied by, `[n]`, on the device.
    pub fn device_row_scales(&self) -> &Buffer<f32> {
        &self.row_scale
    }

    /// The same scales on the host.
    pub fn row_scales(&self) -> &RowScales {
        &self.scales
    }

    /// Writes `value * scale` to `output`, `[n, k]`: the product is rounded to f32, then to the output's type. The result equals
    /// the reference's, bit for bit.
    ///
    /// # Errors
    /// When `output` has another length, is on another device, or is external memory that is not aligned to 16 bytes, or the launch
    /// fails.
    pub fn dequantize<T: Float>(
        &self,
        stream: &Stream,
        output: &mut Buffer<T>,
    ) -> Result<(), OpError> {
        let Self {
            weights, row_scale, ..
        } = self;
        require_matrix("output", output.len(), ("n", weights.n), ("k", weights.k))?;
        let matrix = weights.matrix()?;
        Ok(launch::dequantize_weights(
            stream,
            &weights.bytes,
            row_scale,
            output,
            matrix,
        )?)
    }
}

/// Quantizes float weights `[n, k]` on their device, directly into the `Tiled` layout: one pass for the means, one for the
/// values.
///
/// Values and scales equal the reference's, bit for bit: the means are summed in f64, in the same order. The call waits for the
/// scales, which show whether all weights are finite.
///
/// # Errors
/// [`ReferenceError::NonFiniteWeight`] with the first weight that is NaN or infinite; when the shape is not one that
/// [`Layout::padded_shape`] takes or not that of `weights`, `weights` is external memory that is not aligned to 16 bytes, the
/// stream is on another device, or a launch fails.
pub fn quantize_weights<T: Float + Element>(
    stream: &Stream,
    weights: &Buffer<T>,
    n: usize,
    k: usize,
    quantizer: WeightQuantizer,
    granularity: WeightGranularity,
) -> Result<QuantizedWeights, OpError> {
    let device = stream.device();
    let mut ternary = TernaryWeights::uninit(device, Layout::Tiled, n, k)?;
    require_matrix("weights", weights.len(), ("n", n), ("k", k))?;
    let matrix = ternary.matrix()?;
    let is_binary = quantizer == WeightQuantizer::Binary;
    let least = if is_binary { 0.0 } else { LEAST_SCALE };

    let mut abs_sums = Buffer::uninit_on(stream, n)?;
    let mut row_scale = Buffer::uninit(device, n)?;
    let mut binary = if is_binary {
        Some((Buffer::uninit_on(stream, n)?, Buffer::uninit_on(stream, n)?))
    } else {
        None
    };
    let sums = binary.as_mut().map(|(sums, _)| sums);
    launch::weight_sums(stream, weights, &mut abs_sums, sums, matrix)?;
    launch::weight_scales(
        stream,
        (&abs_sums, &mut row_scale),
        binary.as_mut().map(|(sums, threshold)| (&*sums, threshold)),
        granularity,
        least,
        matrix,
    )?;
    launch::quantize_weights(
        stream,
        weights,
        &row_scale,
        binary.as_ref().map(|(_, threshold)| threshold),
        &mut ternary.bytes,
        matrix,
    )?;

    // Finite weights have finite means; a weight that is not makes its mean NaN or infinite.
    let scales = row_scale.to_vec()?;
    if scales.iter().any(|scale| !scale.is_finite()) {
        return Err(OpError::Weights(first_non_finite(&weights.to_vec()?, k)));
    }
    let scales = match granularity {
        WeightGranularity::Tensor => RowScales::per_tensor(n, scales[0])?,
        WeightGranularity::Channel => RowScales::per_row(&scales)?,
    };
    Ok(QuantizedWeights {
        weights: ternary,
        row_scale,
        scales,
    })
}

/// The error that names the first weight that is not finite.
fn first_non_finite<T: Element>(weights: &[T], k: usize) -> ReferenceError {
    let not_finite = |weight: &T| !weight.to_f32().is_finite();
    let index = weights.iter().position(not_finite).unwrap_or_default();
    ReferenceError::NonFiniteWeight {
        value: weights[index].to_f32(),
        row: index / k,
        column: index % k,
    }
}
