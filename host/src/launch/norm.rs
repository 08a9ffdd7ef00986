//! Norms, and what is fused with them: launchers and variant choice.

use super::activation::{GateUp, Operands};
use super::floats::Floats;
use super::quantize::{Quantized, Tokens};
use super::{Float, Input, LaunchError, Output, launch, row};
use crate::device::{Buffer, Stream};
use crate::layout::MAX_K;
use crate::reference::activation::Activation;
use kernels_gpu::feed_forward;
use kernels_gpu::norm::{self, Kind};

/// A norm over `width` features. `gamma` and `beta` are [as kernels read them](in_kernel_order).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Norm<'a> {
    pub kind: Kind,
    pub gamma: Option<&'a Buffer<f32>>,
    pub beta: Option<&'a Buffer<f32>>,
    pub eps: f32,
    pub width: usize,
}

/// Gamma or beta, in the order and with the padding that kernels need.
pub(crate) fn in_kernel_order(parameter: &[f32]) -> Vec<f32> {
    let mut ordered = vec![0.0; padded(parameter.len())];
    for (element, value) in parameter.iter().enumerate() {
        ordered[norm::parameter_index(element)] = *value;
    }
    ordered
}

/// Elements that gamma and beta are padded to.
const fn padded(width: usize) -> usize {
    width.next_multiple_of(norm::PARAMETER_BLOCK)
}

impl<'a> Norm<'a> {
    /// An argument for gamma or beta.
    pub(super) fn parameter(
        &self,
        name: &'static str,
        parameter: Option<&'a Buffer<f32>>,
    ) -> Result<Option<Input<'a, f32>>, LaunchError> {
        parameter
            .map(|parameter| Input::new(name, parameter, padded(self.width)))
            .transpose()
    }
}

fn are_aligned<'a, T: Float>(mut buffers: impl Iterator<Item = &'a Buffer<T>>) -> bool {
    buffers.all(row::is_aligned)
}

/// Normalizes `[m, width]`, after adding it to `residual` where there is one.
pub(crate) fn norm<T: Float>(
    stream: &Stream,
    norm: Norm<'_>,
    input: &Buffer<T>,
    residual: Option<&mut Buffer<T>>,
    output: &mut Buffer<T>,
    m: usize,
) -> Result<(), LaunchError> {
    let width = norm.width;
    let width_argument = super::size("width", width, MAX_K)?;
    let aligned = are_aligned([input, &*output].into_iter().chain(residual.as_deref()));
    let (entry, config) = row::choose(
        stream.device().capabilities(),
        norm::VARIANTS,
        m,
        width,
        width,
        aligned,
    )?;
    let arguments = (
        Floats(Input::new("input", input, m * width)?),
        residual
            .map(|residual| Output::new("residual", residual, m * width).map(Floats))
            .transpose()?,
        norm.parameter("gamma", norm.gamma)?,
        norm.parameter("beta", norm.beta)?,
        Floats(Output::new("output", output, m * width)?),
        T::DTYPE as u32,
        norm.eps,
        norm.kind as u32,
        width_argument,
    );
    // SAFETY: one block per token, and the variant takes its row; the kernel touches `width` of each row, and the
    // parameters.
    unsafe { launch(stream, entry, config, arguments) }
}

/// Normalizes `[m, k]`, after adding it to `residual` where there is one, and quantizes the result.
pub(crate) fn norm_quantize<T: Float>(
    stream: &Stream,
    norm: Norm<'_>,
    input: &Buffer<T>,
    residual: Option<&mut Buffer<T>>,
    output: Quantized<'_>,
    Tokens { m, k, k_padded }: Tokens,
) -> Result<(), LaunchError> {
    let k_argument = super::size("k", k, MAX_K)?;
    let aligned = are_aligned([input].into_iter().chain(residual.as_deref()));
    let (entry, config) = row::choose(
        stream.device().capabilities(),
        norm::QUANTIZE_VARIANTS,
        m,
        k,
        k_padded,
        aligned,
    )?;
    let arguments = (
        Floats(Input::new("input", input, m * k)?),
        residual
            .map(|residual| Output::new("residual", residual, m * k).map(Floats))
            .transpose()?,
        T::DTYPE as u32,
        norm.parameter("gamma", norm.gamma)?,
        norm.parameter("beta", norm.beta)?,
        Output::new("values", output.values, m * k_padded)?,
        Output::new("scale", output.scale, m)?,
        Output::new("sum", output.sum, m)?,
        norm.eps,
        norm.kind as u32,
        k_argument,
        k_padded as u32,
    );
    // SAFETY: as in `norm`; the kernel touches `k_padded` of each row of `values`.
    unsafe { launch(stream, entry, config, arguments) }
}

/// Normalizes `activation(gate) * up`, `[m, k]`, and quantizes the result.
pub(crate) fn gated_norm_quantize<T: Float>(
    stream: &Stream,
    norm: Norm<'_>,
    activation: Activation,
    gate_up: GateUp<'_, T>,
    output: Quantized<'_>,
    Tokens { m, k, k_padded }: Tokens,
) -> Result<(), LaunchError> {
    let k_argument = super::size("k", k, MAX_K)?;
    let aligned = are_aligned(gate_up.buffers());
    let (entry, config) = row::choose(
        stream.device().capabilities(),
        feed_forward::VARIANTS,
        m,
        k,
        k_padded,
        aligned,
    )?;
    let Operands { gate, up, layout } = gate_up.operands(m * k)?;
    let arguments = (
        gate,
        up,
        T::DTYPE as u32,
        norm.parameter("gamma", norm.gamma)?,
        norm.parameter("beta", norm.beta)?,
        Output::new("values", output.values, m * k_padded)?,
        Output::new("scale", output.scale, m)?,
        Output::new("sum", output.sum, m)?,
        norm.eps,
        norm.kind as u32,
        super::activation::kind(activation) as u32,
        layout as u32,
        k_argument,
        k_padded as u32,
    );
    // SAFETY: as in `norm_quantize`; the operands are as long as their layout makes them.
    unsafe { launch(stream, entry, config, arguments) }
}
