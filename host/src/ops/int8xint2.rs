use super::OpError;
use super::error::require_matrix;
use crate::device::{Buffer, Stream};
use crate::launch::{self, INT8XINT2_ALIGNMENT as ALIGNMENT, Int8xInt2, Int8xInt2Sizes};
use crate::layout::Layout;

/// Computes what Microsoft's `bitlinear_int8xint2` does: `output[m, n] = sum_k q[m, k] w[n, k] / s[m] * row_scale[n / (N /
/// groups)]` in f32, rounded to bf16, for `q`, `[m, k]` without padding. The number of groups is the number of row scales.
///
/// If `k` is not a multiple of 32, or the activations are not aligned to 16 bytes, they are first copied to padded rows, in
/// stream order.
///
/// # Errors
/// When a length does not fit `m`, `n` and `k`, `m` exceeds 65,535, the groups do not divide `n`, the weights are not aligned to
/// 16 bytes, a buffer is on another device, or the launch fails.
/// [`DeviceError::Capturing`](crate::device::DeviceError::Capturing) if such a copy is needed while the stream is being captured
/// into a [`Graph`](crate::device::Graph).
pub fn bitlinear_int8xint2(
    stream: &Stream,
    operands: Int8xInt2<'_>,
    m: usize,
    n: usize,
    k: usize,
) -> Result<(), OpError> {
    let (_, k_padded) = Layout::Ladder.padded_shape(n, k)?;
    require_matrix(
        "activations",
        operands.activations.len(),
        ("m", m),
        ("k", k),
    )?;
    require_matrix(
        "activation_scale",
        operands.activation_scale.len(),
        ("m", m),
        ("1", 1),
    )?;
    require_matrix("output", operands.output.len(), ("m", m), ("n", n))?;
    // Before anything is copied for it.
    launch::require_alignment(operands.weights, ALIGNMENT)?;
    let sizes = Int8xInt2Sizes {
        m,
        n,
        k,
        k_pitch: k_padded,
        groups: operands.row_scale.len(),
    };
    let activations = operands.activations;
    if k == k_padded && launch::require_alignment(activations, ALIGNMENT).is_ok() {
        return Ok(launch::int8xint2(stream, operands, sizes)?);
    }
    let mut padded = Buffer::zeroed_on(stream, m * k_padded)?;
    stream.copy_to_pitched(&mut padded, k_padded, activations, k, m)?;
    Ok(launch::int8xint2(
        stream,
        Int8xInt2 {
            activations: &padded,
            ..operands
        },
        sizes,
    )?)
}
