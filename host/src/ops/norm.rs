use super::error::{require_finite, require_matrix, require_size, require_tokens};
use super::{OpError, QuantizedActivations};
use crate::device::{Buffer, Device, Stream};
use crate::launch::{self, Float, GateUp};
use crate::layout::MAX_K;
use crate::reference::activation::Activation;
use kernels_gpu::norm::Kind;

/// RMSNorm or LayerNorm over the features of each token, alone or fused with the operations before and after it.
///
/// RMSNorm: `x / sqrt(mean(x^2) + eps) * gamma`; LayerNorm: `(x - mean(x)) / sqrt(mean((x - mean(x))^2) + eps) * gamma + beta`.
/// Tokens are f32, f16 or bf16; everything is computed in f32, in an order that depends only on the width, so the result is the
/// same in every run and on every device, bit for bit. docs/numerics.md states the error bound. If the sum of squares overflows
/// f32 (values around 1e18 and above), RMSNorm makes finite values 0, and LayerNorm makes them beta, or 0 without one; a value whose
/// difference from the mean overflows becomes NaN. If already the sum of the values overflows, or one of them is infinite, LayerNorm makes
/// the whole token NaN. A NaN in a token makes the whole token NaN.
///
/// ```
/// use bitnet_cuda::device::{Buffer, Device};
/// use bitnet_cuda::ops::Norm;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let device = Device::emulated()?;
/// let norm = Norm::rms(&device, 4, Some(&[1.0, 1.0, 2.0, 2.0]), 1e-6)?;
///
/// let x = Buffer::from_slice(&device, &[1.0_f32, -1.0, 1.0, -1.0])?;
/// let mut y = Buffer::uninit(&device, 4)?;
/// norm.normalize(&device.default_stream(), &x, &mut y)?;
/// let y: Vec<f32> = y.to_vec()?;
/// assert!(y.iter().zip([1.0, -1.0, 2.0, -2.0]).all(|(y, expected)| (y - expected).abs() < 1e-5));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Norm {
    device: Device,
    kind: Kind,
    width: usize,
    gamma: Option<Buffer<f32>>,
    beta: Option<Buffer<f32>>,
    eps: f32,
}

impl Norm {
    /// RMSNorm over `width` features. `gamma` is `[width]`; the default is ones.
    ///
    /// # Errors
    /// When `width` is 0 or exceeds [`MAX_K`], `gamma` has another length or an element that is not finite, `eps` is
    /// not a positive normal number, or the device does not have enough memory.
    pub fn rms(
        device: &Device,
        width: usize,
        gamma: Option<&[f32]>,
        eps: f32,
    ) -> Result<Self, OpError> {
        Self::new(device, Kind::Rms, width, gamma, None, eps)
    }

    /// LayerNorm over `width` features. `gamma` and `beta` are `[width]`; the defaults are ones and zeros.
    ///
    /// # Errors
    /// As [`Norm::rms`].
    pub fn layer(
        device: &Device,
        width: usize,
        gamma: Option<&[f32]>,
        beta: Option<&[f32]>,
        eps: f32,
    ) -> Result<Self, OpError> {
        Self::new(device, Kind::Layer, width, gamma, beta, eps)
    }

    fn new(
        device: &Device,
        kind: Kind,
        width: usize,
        gamma: Option<&[f32]>,
        beta: Option<&[f32]>,
        eps: f32,
    ) -> Result<Self, OpError> {
        require_size("width", width, MAX_K)?;
        if !eps.is_normal() || eps < 0.0 {
            return Err(OpError::Epsilon { eps });
        }
        let upload = |name, parameter: Option<&[f32]>| {
            parameter
                .map(|parameter| upload_parameter(device, name, parameter, width))
                .transpose()
        };
        Ok(Self {
            device: device.clone(),
            kind,
            width,
            gamma: upload("gamma", gamma)?,
            beta: upload("beta", beta)?,
            eps,
        })
    }

    /// The device that the norm is on.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Features of a token.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Normalizes `input` into `output`, both `[m, width]`. `m` follows from the length of `input`.
    ///
    /// # Errors
    /// When a length does not fit, a buffer is on another device, or the launch fails.
    pub fn normalize<T: Float>(
        &self,
        stream: &Stream,
        input: &Buffer<T>,
        output: &mut Buffer<T>,
    ) -> Result<(), OpError> {
        let m = self.tokens(input)?;
        self.require("output", output, m)?;
        Ok(launch::norm(
            stream,
            self.operands(stream)?,
            input,
            None,
            output,
            m,
        )?)
    }

    /// `residual += input`, rounded to `T`; then normalizes the sum into `output`. All are `[m, width]`.
    ///
    /// # Errors
    /// As [`Norm::normalize`].
    pub fn add_normalize<T: Float>(
        &self,
        stream: &Stream,
        input: &Buffer<T>,
        residual: &mut Buffer<T>,
        output: &mut Buffer<T>,
    ) -> Result<(), OpError> {
        let m = self.tokens(input)?;
        self.require("residual", residual, m)?;
        self.require("output", output, m)?;
        Ok(launch::norm(
            stream,
            self.operands(stream)?,
            input,
            Some(residual),
            output,
            m,
        )?)
    }

    /// Normalizes `input`, `[m, width]`, and quantizes each token, in one pass over memory. The f32 norm is quantized without
    /// being rounded to `T` first.
    ///
    /// # Errors
    /// When `input` is not `[output.m(), output.k()]`, `output.k()` is not the width, the output's scale is per tensor, a buffer
    /// is on another device, or the launch fails.
    pub fn normalize_quantize<T: Float>(
        &self,
        stream: &Stream,
        input: &Buffer<T>,
        output: &mut QuantizedActivations,
    ) -> Result<(), OpError> {
        self.run_quantized(stream, input, None, output)
    }

    /// `residual += input`, rounded to `T`; then normalizes the sum and quantizes each token, in one pass over memory. `residual` is
    /// `[m, width]`.
    ///
    /// # Errors
    /// As [`Norm::normalize_quantize`].
    pub fn add_normalize_quantize<T: Float>(
        &self,
        stream: &Stream,
        input: &Buffer<T>,
        residual: &mut Buffer<T>,
        output: &mut QuantizedActivations,
    ) -> Result<(), OpError> {
        self.require("residual", residual, output.m())?;
        self.run_quantized(stream, input, Some(residual), output)
    }

    /// Normalizes `activation(gate) * up`, `[m, width]`, and quantizes each token, in one pass over memory: the middle of a
    /// BitNet feed-forward. Nothing is rounded to `T` in between.
    ///
    /// # Errors
    /// When `gate_up` or `output` does not fit the width, the output's scale is per tensor, a buffer is on another device, or the launch
    /// fails.
    pub fn gated_normalize_quantize<T: Float>(
        &self,
        stream: &Stream,
        activation: Activation,
        gate_up: GateUp<'_, T>,
        output: &mut QuantizedActivations,
    ) -> Result<(), OpError> {
        self.require_k(output)?;
        super::activation::require_gate_up(&gate_up, output.m(), self.width)?;
        let tokens = output.tokens();
        let target = output.per_token("a fused norm")?;
        let operands = self.operands(stream)?;
        Ok(launch::gated_norm_quantize(
            stream, operands, activation, gate_up, target, tokens,
        )?)
    }

    fn run_quantized<T: Float>(
        &self,
        stream: &Stream,
        input: &Buffer<T>,
        residual: Option<&mut Buffer<T>>,
        output: &mut QuantizedActivations,
    ) -> Result<(), OpError> {
        self.require_k(output)?;
        self.require("input", input, output.m())?;
        let tokens = output.tokens();
        let target = output.per_token("a fused norm")?;
        let operands = self.operands(stream)?;
        Ok(launch::norm_quantize(
            stream, operands, input, residual, target, tokens,
        )?)
    }

    /// Its operands, for a stream of its device.
    pub(super) fn operands(&self, stream: &Stream) -> Result<launch::Norm<'_>, OpError> {
        stream.device().require("the norm", &self.device)?;
        Ok(launch::Norm {
            kind: self.kind,
            gamma: self.gamma.as_ref(),
            beta: self.beta.as_ref(),
            eps: self.eps,
            width: self.width,
        })
    }

    /// Tokens of an input, by its length.
    fn tokens<T: Float>(&self, input: &Buffer<T>) -> Result<usize, OpError> {
        require_tokens("input", input.len(), self.width)
    }

    fn require<T: Float>(
        &self,
        name: &'static str,
        buffer: &Buffer<T>,
        m: usize,
    ) -> Result<(), OpError> {
        require_matrix(name, buffer.len(), ("m", m), ("width", self.width))
    }

    fn require_k(&self, output: &QuantizedActivations) -> Result<(), OpError> {
        if output.k() == self.width {
            return Ok(());
        }
        Err(OpError::Dimension {
            name: "k of the output",
            other: "the norm",
            expected: self.width,
            actual: output.k(),
        })
    }
}

/// Uploads gamma or beta.
fn upload_parameter(
    device: &Device,
    name: &'static str,
    parameter: &[f32],
    width: usize,
) -> Result<Buffer<f32>, OpError> {
    require_matrix(name, parameter.len(), ("width", width), ("1", 1))?;
    require_finite(name, parameter)?;
    let ordered = launch::in_kernel_order(parameter);
    Ok(Buffer::from_slice(device, &ordered)?)
}
