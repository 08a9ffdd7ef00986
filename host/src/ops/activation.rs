use super::OpError;
use super::error::{require_matrix, require_size, require_tokens};
use crate::device::{Buffer, Stream};
use crate::launch::{self, Float, GateUp};
use crate::reference::activation::Activation;

/// Writes `activation(input)` to `output`, element by element; both have the same length.
///
/// Computed in f32 with the hardware's approximate `exp2` and reciprocal, whose last bits differ between GPUs and the emulator,
/// and rounded once to `T`; docs/numerics.md states the error bounds.
///
/// # Errors
/// When the lengths differ or are 0 or beyond 2^30, the buffers are on different devices, or the launch fails.
pub fn activate<T: Float>(
    stream: &Stream,
    activation: Activation,
    input: &Buffer<T>,
    output: &mut Buffer<T>,
) -> Result<(), OpError> {
    require_size("length", output.len(), launch::MAX_WIDTH)?;
    require_matrix("input", input.len(), ("length", output.len()), ("1", 1))?;
    Ok(launch::activate(stream, activation, input, output)?)
}

/// Writes `activation(gate) * up` to `output`, `[m, width]`. `m` follows from the length of `output`.
///
/// Computed like [`activate`], without rounding to `T` before the product.
///
/// # Errors
/// When a length does not fit, `width` is 0 or beyond 2^30, a buffer is on another device, or the launch fails.
pub fn gated<T: Float>(
    stream: &Stream,
    activation: Activation,
    gate_up: GateUp<'_, T>,
    width: usize,
    output: &mut Buffer<T>,
) -> Result<(), OpError> {
    require_size("width", width, launch::MAX_WIDTH)?;
    let m = require_tokens("output", output.len(), width)?;
    require_gate_up(&gate_up, m, width)?;
    Ok(launch::gated(
        stream,
        activation,
        gate_up,
        output,
        (m, width),
    )?)
}

/// Checks that gate and up make `[m, width]`.
pub(super) fn require_gate_up<T: Float>(
    gate_up: &GateUp<'_, T>,
    m: usize,
    width: usize,
) -> Result<(), OpError> {
    match gate_up {
        GateUp::Separate { gate, up } => {
            require_matrix("gate", gate.len(), ("m", m), ("width", width))?;
            require_matrix("up", up.len(), ("m", m), ("width", width))
        }
        GateUp::Concatenated(both) | GateUp::Interleaved(both) => require_matrix(
            "gate and up",
            both.len(),
            ("m", m),
            ("2 * width", 2 * width),
        ),
    }
}
