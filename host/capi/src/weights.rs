//! Weights in host memory.

use std::ffi::c_int;

use bitnet_cuda::layout::{Layout, PackedWeights};
use bitnet_cuda::reference::quantize::{WeightGranularity, quantize_weights_ternary};

use crate::arguments::{self, Out, Range};
use crate::error::{Error, Status, call};

/// `bitnet_quantize_weights` of the header.
///
/// # Safety
/// The arrays have `n * k` elements, `scale` is valid for the write; or they are null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitnet_quantize_weights(
    weights: *const f32,
    n: i64,
    k: i64,
    ternary: *mut i8,
    scale: *mut f32,
) -> Status {
    call(|| {
        let (n, k) = arguments::weight_shape(n, k)?;
        let elements = arguments::elements(n, k)?;
        // SAFETY: the caller's contract.
        let (weights, ternary, scale) = unsafe {
            let inputs = [Range::new(
                "weights",
                weights,
                elements.saturating_mul(size_of::<f32>()),
            )];
            let weights = arguments::host("weights", weights, elements)?;
            let result = Range::new("scale", scale, size_of::<f32>());
            result.require_apart(&inputs)?;
            Range::new("ternary", ternary, elements).require_apart(&[inputs[0], result])?;
            let ternary = arguments::host_out("ternary", ternary, elements)?;
            (weights, ternary, Out::new("scale", scale)?)
        };
        let quantized = quantize_weights_ternary(weights, n, k, WeightGranularity::Tensor)
            .map_err(|error| Error::from(error).about("weights"))?;
        ternary.write_copy_of_slice(&quantized.values);
        scale.write(quantized.scales.ranges()[0].scale);
        Ok(())
    })
}

/// `bitnet_packed_bytes` of the header.
///
/// # Safety
/// `bytes` is valid for the write, or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitnet_packed_bytes(
    layout: c_int,
    n: i64,
    k: i64,
    bytes: *mut i64,
) -> Status {
    call(|| {
        let layout = arguments::layout(layout)?;
        let (n, k) = arguments::weight_shape(n, k)?;
        // SAFETY: the caller's contract.
        let out = unsafe { Out::new("bytes", bytes) }?;
        // A quarter of what fits the address space.
        out.write(layout.packed_len(n, k)? as i64);
        Ok(())
    })
}

/// `bitnet_pack` of the header.
///
/// # Safety
/// `ternary` has `n * k` elements and `packed` `bytes` bytes; or they are null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitnet_pack(
    layout: c_int,
    ternary: *const i8,
    n: i64,
    k: i64,
    packed: *mut u8,
    bytes: i64,
) -> Status {
    call(|| {
        let layout = arguments::layout(layout)?;
        let (n, k) = arguments::weight_shape(n, k)?;
        let bytes = packed_size(layout, n, k, bytes)?;
        // SAFETY: the caller's contract.
        let (ternary, packed) = unsafe {
            let elements = arguments::elements(n, k)?;
            let input = Range::new("ternary", ternary, elements);
            let ternary = arguments::host("ternary", ternary, elements)?;
            Range::new("packed", packed, bytes).require_apart(&[input])?;
            (ternary, arguments::host_out("packed", packed, bytes)?)
        };
        packed.write_copy_of_slice(PackedWeights::pack(layout, ternary, n, k)?.bytes());
        Ok(())
    })
}

/// `bitnet_unpack` of the header.
///
/// # Safety
/// `packed` has `bytes` bytes and `ternary` `n * k` elements; or they are null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitnet_unpack(
    layout: c_int,
    packed: *const u8,
    bytes: i64,
    n: i64,
    k: i64,
    ternary: *mut i8,
) -> Status {
    call(|| {
        // SAFETY: the caller's contract.
        let weights = unsafe { packed_weights(layout, packed, bytes, n, k) }?;
        let elements = arguments::elements(weights.n(), weights.k())?;
        Range::new("ternary", ternary, elements).require_apart(&[Range::new(
            "packed",
            packed,
            weights.bytes().len(),
        )])?;
        // SAFETY: the caller's contract.
        let ternary = unsafe { arguments::host_out("ternary", ternary, elements) }?;
        ternary.write_copy_of_slice(&weights.unpack());
        Ok(())
    })
}

/// Packed weights from host memory, checked.
///
/// # Safety
/// `packed` has `bytes` bytes, or is null.
pub unsafe fn packed_weights(
    layout: c_int,
    packed: *const u8,
    bytes: i64,
    n: i64,
    k: i64,
) -> Result<PackedWeights, Error> {
    let layout = arguments::layout(layout)?;
    let (n, k) = arguments::weight_shape(n, k)?;
    let bytes = packed_size(layout, n, k, bytes)?;
    // SAFETY: the caller's contract.
    let packed = unsafe { arguments::host("packed", packed, bytes) }?;
    PackedWeights::from_bytes(layout, packed.to_vec(), n, k)
        .map_err(|error| Error::from(error).about("packed"))
}

/// The size of a packed matrix, which the caller has to know.
fn packed_size(layout: Layout, n: usize, k: usize, bytes: i64) -> Result<usize, Error> {
    let expected = layout.packed_len(n, k)?;
    if usize::try_from(bytes) == Ok(expected) {
        return Ok(expected);
    }
    Err(Error::argument(format!(
        "bytes = {bytes}, but {n} x {k} weights in layout {layout} take {expected}"
    )))
}
