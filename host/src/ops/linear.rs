use super::error::{require_finite, require_matrix, require_tokens};
use super::{
    Norm, OpError, QuantizedActivations, QuantizedWeights, TernaryWeights, quantize_activations,
};
use crate::device::{Buffer, Device, Stream};
use crate::launch::tune::{self, Choice, Reason, TuneCache};
use crate::launch::{self, Float, Gemv, NormedRows, Operands, Sizes, Workspaces};
use crate::layout::{Layout, PackedWeights, ladder, tiled};
use crate::reference::activation::Activation;
use crate::reference::quantize::{WeightGranularity, quantize_weights_ternary};
use crate::reference::{Element, RowScales};
use kernels_gpu::gemv::MAX_TOKENS;
use std::fmt;

/// A linear layer with ternary weights and int8 activations (W2A8): `y = act(x W^T (+ bias)) (+ residual)`.
///
/// `y[m, n] = act(sum_k q[m, k] * t[n, k] / s[m] * row_scale[n] (+ bias[n])) (+ residual[m, n])`. The integer sum is exact; each
/// operation after it rounds to f32, in the order written, and the result is rounded once to the output's type. Without an
/// activation function, or with [`Activation::SquaredRelu`], the result is the same on every device, bit for bit;
/// docs/numerics.md states the error bounds of the other functions.
///
/// ```
/// use bitnet_cuda::device::{Buffer, Device};
/// use bitnet_cuda::ops::BitLinear;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let device = Device::emulated()?;
/// let (n, k) = (2, 4);
/// let layer = BitLinear::from_weights(&device, &[0.5_f32, -0.5, 0.0, 0.5, -0.5, -0.5, 0.5, 0.0], n, k)?;
///
/// let x = Buffer::from_slice(&device, &[1.0_f32, 2.0, 3.0, -4.0])?;
/// let mut y = Buffer::uninit(&device, n)?;
/// layer.forward(&device.default_stream(), &x, &mut y)?;
/// // Ternary rows (1, -1, 0, 1) and (-1, -1, 1, 0), scale 0.375: -5 * 0.375 and 0 up to the rounding of int8.
/// let y: Vec<f32> = y.to_vec()?;
/// assert!((y[0] + 5.0 * 0.375).abs() < 0.02 && y[1].abs() < 0.02);
/// # Ok(())
/// # }
/// ```
pub struct BitLinear {
    device: Device,
    n: usize,
    k: usize,
    layout: Layout,
    weights: Buffer<u8>,
    row_scale: Buffer<f32>,
    bias: Option<Buffer<f32>>,
    activation: Option<Activation>,
    workspaces: Workspaces,
    /// For 1, 2, ... tokens.
    choices: [Choice; MAX_TOKENS],
}

impl BitLinear {
    /// Quantizes float weights `[n, k]` to ternary with one scale (absmean) and uploads them.
    ///
    /// # Errors
    /// When `n` or `k` is 0, `k` exceeds [`MAX_K`](crate::layout::MAX_K), `weights.len() != n * k`, a weight is not finite, or
    /// the device does not have enough memory.
    pub fn from_weights<T: Element>(
        device: &Device,
        weights: &[T],
        n: usize,
        k: usize,
    ) -> Result<Self, OpError> {
        // Before time is spent on weights that nothing can hold.
        Layout::Tiled.padded_shape(n, k)?;
        let quantized = quantize_weights_ternary(weights, n, k, WeightGranularity::Tensor)?;
        let packed = PackedWeights::pack(Layout::Tiled, &quantized.values, n, k)?;
        Self::from_packed(device, &packed, &quantized.scales)
    }

    /// Uploads weights that are already ternary and packed, in any layout.
    ///
    /// # Errors
    /// When `scales` does not cover exactly the rows of `weights`, or the device does not have enough memory.
    pub fn from_packed(
        device: &Device,
        weights: &PackedWeights,
        scales: &RowScales,
    ) -> Result<Self, OpError> {
        match weights.layout() {
            Layout::Tiled => Self::upload(device, weights, scales),
            _ => Self::upload(device, &weights.convert(Layout::Tiled)?, scales),
        }
    }

    /// Uses weights that were quantized on the device ([`quantize_weights`](super::quantize_weights)), without copying them.
    pub fn from_quantized(weights: QuantizedWeights) -> Self {
        let QuantizedWeights {
            weights, row_scale, ..
        } = weights;
        let device = row_scale.device().clone();
        Self::new(&device, weights, row_scale)
    }

    /// Uploads weights in the `Ladder` layout and multiplies with them without conversion.
    ///
    /// # Errors
    /// When `weights` have another layout, their K exceeds the limit of these kernels, `scales` does not cover exactly their
    /// rows, or the device does not have enough memory.
    pub fn from_ladder(
        device: &Device,
        weights: &PackedWeights,
        scales: &RowScales,
    ) -> Result<Self, OpError> {
        match weights.layout() {
            Layout::Ladder => Self::upload(device, weights, scales),
            layout => Err(OpError::WrongLayout {
                expected: Layout::Ladder,
                actual: layout,
            }),
        }
    }

    fn upload(
        device: &Device,
        weights: &PackedWeights,
        scales: &RowScales,
    ) -> Result<Self, OpError> {
        if scales.n() != weights.n() {
            return Err(OpError::Dimension {
                name: "scales.n()",
                other: "the weight matrix",
                expected: weights.n(),
                actual: scales.n(),
            });
        }
        let weights = TernaryWeights::from_packed(device, weights)?;
        let row_scale = Buffer::from_slice(device, &scales.expand())?;
        Ok(Self::new(device, weights, row_scale))
    }

    fn new(device: &Device, weights: TernaryWeights, row_scale: Buffer<f32>) -> Self {
        let (n, k, layout) = (weights.n(), weights.k(), weights.layout());
        Self {
            device: device.clone(),
            n,
            k,
            layout,
            weights: weights.into_bytes(),
            row_scale,
            bias: None,
            activation: None,
            workspaces: Workspaces::default(),
            choices: choices(device, TuneCache::user().as_ref(), layout, n, k),
        }
    }

    /// Adds a bias, `[n]`.
    ///
    /// # Errors
    /// When `bias` has not `n` elements, one is not finite, or the device does not have enough memory.
    pub fn with_bias(mut self, bias: &[f32]) -> Result<Self, OpError> {
        require_matrix("bias", bias.len(), ("n", self.n), ("1", 1))?;
        require_finite("bias", bias)?;
        self.bias = Some(Buffer::from_slice(&self.device, bias)?);
        Ok(self)
    }

    /// Applies an activation function after the bias, in the same kernel.
    #[must_use]
    pub fn with_activation(mut self, activation: Activation) -> Self {
        self.activation = Some(activation);
        self
    }

    /// Uses this kernel variant for any number of tokens.
    ///
    /// # Errors
    /// [`LaunchError::VariantK`](crate::launch::LaunchError::VariantK) when the variant does not support this K,
    /// [`LaunchError::VariantLayout`](crate::launch::LaunchError::VariantLayout) when it is for another layout.
    pub fn with_variant(mut self, variant: Gemv) -> Result<Self, OpError> {
        variant.require_k(self.k_padded())?;
        variant.require_layout(self.layout)?;
        self.choices = [Choice {
            variant,
            reason: Reason::Caller,
        }; MAX_TOKENS];
        Ok(self)
    }

    /// Uses the variants that `best` returns for 1, 2, ... 8 tokens; where it returns none, the choice is unchanged.
    ///
    /// A variant that does not fit the number of tokens, the layout or K is ignored.
    #[must_use]
    pub fn with_variants(mut self, best: impl Fn(usize) -> Option<Gemv>) -> Self {
        let (layout, k) = (self.layout, self.k_padded());
        for (index, choice) in self.choices.iter_mut().enumerate() {
            let m = index + 1;
            let fits =
                |variant: &Gemv| variant.fits(m, k) && variant.require_layout(layout).is_ok();
            if let Some(variant) = best(m).filter(fits) {
                *choice = Choice {
                    variant,
                    reason: Reason::Caller,
                };
            }
        }
        self
    }

    /// Uses the variants recorded in `cache` instead of the user's; with `None`, the heuristic alone.
    #[must_use]
    pub fn with_tuning(mut self, cache: Option<&TuneCache>) -> Self {
        self.choices = choices(&self.device, cache, self.layout, self.n, self.k);
        self
    }

    /// The kernel variant that computes this layer's product with `m` tokens; if `m` exceeds 8, that of the first group of 8.
    pub fn variant(&self, m: usize) -> Gemv {
        self.choice(m).variant
    }

    /// The variant that [`BitLinear::variant`] returns, with the reason for the choice.
    ///
    /// A layer uses the variants that `bitnet tune` or [`TuneCache::store`] had recorded in the user's cache when the layer was
    /// created; shapes that were not tuned get the choice of a heuristic.
    pub fn choice(&self, m: usize) -> Choice {
        self.choices[m.clamp(1, MAX_TOKENS) - 1]
    }

    /// The packed weights on the device.
    pub fn packed_weights(&self) -> &Buffer<u8> {
        &self.weights
    }

    /// Number of columns including the padding of the layout.
    pub fn k_padded(&self) -> usize {
        let multiple = if self.layout == Layout::Ladder {
            ladder::BLOCK_COLUMNS
        } else {
            tiled::BLOCK_COLUMNS
        };
        self.k.next_multiple_of(multiple)
    }

    /// The layout of the weights on the device.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// The device that the layer is on.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Output features.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Input features.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Bytes of the packed weights on the device.
    pub fn weight_bytes(&self) -> usize {
        self.weights.size_bytes()
    }

    /// Computes `output`, `[m, n]`, from float activations `input`, `[m, k]`: quantizes them, then multiplies. `m` follows from
    /// the length of `input`.
    ///
    /// # Errors
    /// When a length does not fit, a buffer is on another device, or a launch fails.
    pub fn forward<X: Float, Y: Float>(
        &self,
        stream: &Stream,
        input: &Buffer<X>,
        output: &mut Buffer<Y>,
    ) -> Result<(), OpError> {
        let m = require_tokens("input", input.len(), self.k)?;
        require_matrix("output", output.len(), ("m", m), ("n", self.n))?;
        let mut quantized = QuantizedActivations::uninit_on(stream, m, self.k)?;
        quantize_activations(stream, input, &mut quantized)?;
        self.forward_quantized(stream, &quantized, output)
    }

    /// Computes `output`, `[m, n]`, from quantized activations. Up to 8 tokens take one pass over the weights.
    ///
    /// # Errors
    /// When K or a length does not fit, a buffer is on another device, or the launch fails.
    pub fn forward_quantized<Y: Float>(
        &self,
        stream: &Stream,
        input: &QuantizedActivations,
        output: &mut Buffer<Y>,
    ) -> Result<(), OpError> {
        self.forward_residual(stream, input, None, output)
    }

    /// Like [`BitLinear::forward_quantized`], and adds `residual`, `[m, n]`, if given.
    ///
    /// # Errors
    /// As [`BitLinear::forward_quantized`].
    pub fn forward_residual<Y: Float>(
        &self,
        stream: &Stream,
        input: &QuantizedActivations,
        residual: Option<&Buffer<Y>>,
        output: &mut Buffer<Y>,
    ) -> Result<(), OpError> {
        if input.k() != self.k {
            return Err(OpError::Dimension {
                name: "k of the activations",
                other: "the layer",
                expected: self.k,
                actual: input.k(),
            });
        }
        self.require_outputs(input.m(), residual, output)?;
        let mut first_token = 0;
        while first_token < input.m() {
            let left = input.m() - first_token;
            let variant = self.variant(left);
            let sizes = Sizes {
                m: left.min(variant.tokens()),
                n: self.n,
                k: self.k_padded(),
                k_pitch: input.k_padded(),
            };
            let operands = Operands {
                weights: &self.weights,
                activations: &input.values,
                activation_scale: &input.scale,
                activation_sum: &input.sum,
                row_scale: &self.row_scale,
                bias: self.bias.as_ref(),
                activation: self.activation,
                residual,
                output: &mut *output,
                first_token,
                workspaces: &self.workspaces,
            };
            launch::gemv(stream, variant, operands, sizes)?;
            first_token += sizes.m;
        }
        Ok(())
    }
}

impl BitLinear {
    /// Normalizes `input`, `[m, k]`, quantizes each token and computes `output`, `[m, n]`; adds `residual`, `[m, n]`, if given.
    /// `m` follows from the length of `input`.
    ///
    /// The result equals that of [`Norm::normalize_quantize`] followed by [`BitLinear::forward_residual`], bit for bit. One token
    /// takes a single kernel, which loads weights while it normalizes, if the weights are `Tiled` and the token's int8 values fit
    /// into the shared memory of a block; otherwise there are two kernels.
    ///
    /// # Errors
    /// When the width of `norm` is not `k`, a length does not fit, a buffer is on another device, or a launch fails.
    pub fn forward_norm<X: Float, Y: Float>(
        &self,
        stream: &Stream,
        norm: &Norm,
        input: &Buffer<X>,
        residual: Option<&Buffer<Y>>,
        output: &mut Buffer<Y>,
    ) -> Result<(), OpError> {
        if norm.width() != self.k {
            return Err(OpError::Dimension {
                name: "width of the norm",
                other: "the layer",
                expected: self.k,
                actual: norm.width(),
            });
        }
        let m = require_tokens("input", input.len(), self.k)?;
        let capabilities = stream.device().capabilities();
        if m > 1 || self.layout != Layout::Tiled || !launch::takes_norm(capabilities, self.k) {
            let mut quantized = QuantizedActivations::uninit_on(stream, m, self.k)?;
            norm.normalize_quantize(stream, input, &mut quantized)?;
            return self.forward_residual(stream, &quantized, residual, output);
        }
        self.require_outputs(m, residual, output)?;
        let rows = NormedRows {
            weights: &self.weights,
            row_scale: &self.row_scale,
            bias: self.bias.as_ref(),
            activation: self.activation,
            residual,
            output,
        };
        let operands = norm.operands(stream)?;
        Ok(launch::norm_gemv(stream, operands, input, rows, self.n)?)
    }

    fn require_outputs<Y: Float>(
        &self,
        m: usize,
        residual: Option<&Buffer<Y>>,
        output: &Buffer<Y>,
    ) -> Result<(), OpError> {
        require_matrix("output", output.len(), ("m", m), ("n", self.n))?;
        match residual {
            Some(residual) => require_matrix("residual", residual.len(), ("m", m), ("n", self.n)),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for BitLinear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BitLinear")
            .field("n", &self.n)
            .field("k", &self.k)
            .field("layout", &self.layout)
            .field("bias", &self.bias.is_some())
            .field("activation", &self.activation)
            .field("device", &self.device)
            .finish_non_exhaustive()
    }
}

/// The variants for 1, 2, ... tokens. Only those for `Tiled` weights are tuned.
fn choices(
    device: &Device,
    cache: Option<&TuneCache>,
    layout: Layout,
    n: usize,
    k: usize,
) -> [Choice; MAX_TOKENS] {
    if layout == Layout::Tiled {
        return tune::choose_gemv_all(device, cache, n, k)
            .expect("a variant takes every K up to MAX_K");
    }
    let capabilities = device.capabilities();
    std::array::from_fn(|index| {
        let variant = Gemv::choose(capabilities, layout, index + 1, n, k)
            .expect("a variant takes every K up to MAX_K");
        let score = variant.score(capabilities, n, k);
        Choice {
            variant,
            reason: Reason::Heuristic { score },
        }
    })
}
