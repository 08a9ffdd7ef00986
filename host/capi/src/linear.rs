//! Linear layers.

use std::ffi::{c_int, c_void};
use std::sync::PoisonError;

use bitnet_cuda::layout::{Layout, PackedWeights};
use bitnet_cuda::ops::{BitLinear, Norm, RowScales};

use crate::activations::Shared;
use crate::arguments::{self, Dtype, Out, Range, with_dtype};
use crate::device::{self, OpenDevice, keep_context};
use crate::error::{Error, Status, call};
use crate::handles;
use crate::weights::packed_weights;

/// `bitnet_scale_range` of the header.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct ScaleRange {
    end: i64,
    scale: f32,
}

/// The scales of `n` rows.
///
/// # Safety
/// `scales` has `ranges` elements, or is null.
unsafe fn row_scales(scales: *const ScaleRange, ranges: i64, n: usize) -> Result<RowScales, Error> {
    let ranges = arguments::size("ranges", ranges, n)?;
    // SAFETY: the caller's contract.
    let scales = unsafe { arguments::host("scales", scales, ranges) }?;
    let ranges = scales
        .iter()
        .enumerate()
        .map(|(index, range)| {
            Ok((
                arguments::size(&format!("scales[{index}].end"), range.end, n)?,
                range.scale,
            ))
        })
        .collect::<Result<Vec<_>, Error>>()?;
    RowScales::from_ranges(n, &ranges).map_err(|error| Error::from(error).about("scales"))
}

/// Adds the bias, and makes the handle.
///
/// # Safety
/// `bias` has as many elements as the layer has output features, or is null.
unsafe fn finish(layer: BitLinear, bias: *const f32, out: Out<usize>) -> Result<(), Error> {
    // SAFETY: the caller's contract.
    let layer = match unsafe { arguments::optional_host("bias", bias, layer.n()) }? {
        None => layer,
        Some(bias) => layer.with_bias(bias)?,
    };
    out.write(handles::insert(layer));
    Ok(())
}

/// `bitnet_linear_create` of the header.
///
/// # Safety
/// `weights` has `n * k` elements, `bias` is null or has `n`, `linear` is valid for the write; or they are null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitnet_linear_create(
    device: usize,
    weights: *const f32,
    n: i64,
    k: i64,
    bias: *const f32,
    linear: *mut usize,
) -> Status {
    call(|| {
        let device = handles::get::<OpenDevice>("device", device)?;
        let (n, k) = arguments::weight_shape(n, k)?;
        // SAFETY: the caller's contract.
        let (weights, out) = unsafe {
            (
                arguments::host("weights", weights, arguments::elements(n, k)?)?,
                Out::new("linear", linear)?,
            )
        };
        let _context = keep_context(&device.device);
        let layer = BitLinear::from_weights(&device.device, weights, n, k)?;
        // SAFETY: the caller's contract.
        unsafe { finish(layer, bias, out) }
    })
}

/// `bitnet_linear_create_ternary` of the header.
///
/// # Safety
/// `ternary` has `n * k` elements, `scales` `ranges`, `bias` is null or has `n`, `linear` is valid for the write; or they are
/// null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitnet_linear_create_ternary(
    device: usize,
    ternary: *const i8,
    n: i64,
    k: i64,
    scales: *const ScaleRange,
    ranges: i64,
    bias: *const f32,
    linear: *mut usize,
) -> Status {
    call(|| {
        let device = handles::get::<OpenDevice>("device", device)?;
        let (n, k) = arguments::weight_shape(n, k)?;
        // SAFETY: the caller's contract.
        let (ternary, scales, out) = unsafe {
            let ternary = arguments::host("ternary", ternary, arguments::elements(n, k)?)?;
            (
                ternary,
                row_scales(scales, ranges, n)?,
                Out::new("linear", linear)?,
            )
        };
        let packed = PackedWeights::pack(Layout::Tiled, ternary, n, k)
            .map_err(|error| Error::from(error).about("ternary"))?;
        let _context = keep_context(&device.device);
        let layer = BitLinear::from_packed(&device.device, &packed, &scales)?;
        // SAFETY: the caller's contract.
        unsafe { finish(layer, bias, out) }
    })
}

/// `bitnet_linear_create_packed` of the header.
///
/// # Safety
/// `packed` has `bytes` bytes, `scales` `ranges` elements, `bias` is null or has `n`, `linear` is valid for the write; or they
/// are null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitnet_linear_create_packed(
    device: usize,
    layout: c_int,
    packed: *const u8,
    bytes: i64,
    n: i64,
    k: i64,
    scales: *const ScaleRange,
    ranges: i64,
    bias: *const f32,
    linear: *mut usize,
) -> Status {
    call(|| {
        let device = handles::get::<OpenDevice>("device", device)?;
        // SAFETY: the caller's contract.
        let (packed, scales, out) = unsafe {
            let packed = packed_weights(layout, packed, bytes, n, k)?;
            let scales = row_scales(scales, ranges, packed.n())?;
            (packed, scales, Out::new("linear", linear)?)
        };
        let _context = keep_context(&device.device);
        let layer = BitLinear::from_packed(&device.device, &packed, &scales)?;
        // SAFETY: the caller's contract.
        unsafe { finish(layer, bias, out) }
    })
}

/// `bitnet_linear_destroy` of the header.
#[unsafe(no_mangle)]
pub extern "C" fn bitnet_linear_destroy(linear: usize) -> Status {
    device::destroy("linear", linear, |layer: &BitLinear| layer.device().clone())
}

/// `bitnet_linear_shape` of the header.
///
/// # Safety
/// `n` and `k` are valid for the write, or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitnet_linear_shape(linear: usize, n: *mut i64, k: *mut i64) -> Status {
    call(|| {
        let layer = handles::get::<BitLinear>("linear", linear)?;
        // SAFETY: the caller's contract.
        let (n, k) = unsafe { (Out::new("n", n)?, Out::new("k", k)?) };
        // Both are at most the length of a slice.
        n.write(layer.n() as i64);
        k.write(layer.k() as i64);
        Ok(())
    })
}

/// The types of `x` and `y`.
fn dtypes(x: c_int, y: c_int) -> Result<(Dtype, Dtype), Error> {
    Ok((Dtype::new("x_dtype", x)?, Dtype::new("y_dtype", y)?))
}

/// The numbers of elements of a layer's input and output for `m` tokens.
fn elements(layer: &BitLinear, m: i64) -> Result<(usize, usize), Error> {
    let m = arguments::size("m", m, i32::MAX as usize)?;
    let of_width = |width| arguments::elements(m, width);
    Ok((of_width(layer.k())?, of_width(layer.n())?))
}

/// `bitnet_linear_forward` of the header.
///
/// # Safety
/// Nothing writes `x`, or uses `y`, before the stream comes to it; `stream` is a stream of the device.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitnet_linear_forward(
    linear: usize,
    x: *const c_void,
    x_dtype: c_int,
    m: i64,
    y: *mut c_void,
    y_dtype: c_int,
    stream: *mut c_void,
) -> Status {
    call(|| {
        let layer = handles::get::<BitLinear>("linear", linear)?;
        let (x_dtype, y_dtype) = dtypes(x_dtype, y_dtype)?;
        let (x_len, y_len) = elements(&layer, m)?;
        let x_range = Range::new("x", x, x_len.saturating_mul(x_dtype.bytes()));
        Range::new("y", y, y_len.saturating_mul(y_dtype.bytes())).require_apart(&[x_range])?;
        let device = layer.device();
        let _context = keep_context(device);
        // SAFETY: the caller's contract.
        let stream = unsafe { arguments::stream(device, stream) }?;
        with_dtype!(x_dtype, X => with_dtype!(y_dtype, Y => {
            // SAFETY: the caller's contract.
            let (x, mut y) = unsafe {
                let x = arguments::device_array::<X>("x", device, x, x_len)?;
                (x, arguments::device_array::<Y>("y", device, y, y_len)?)
            };
            Ok(layer.forward(&stream, &x, &mut y)?)
        }))
    })
}

/// `bitnet_linear_forward_quantized` of the header.
///
/// # Safety
/// Nothing uses `y` before the stream comes to it; `stream` is a stream of the device.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitnet_linear_forward_quantized(
    linear: usize,
    activations: usize,
    y: *mut c_void,
    y_dtype: c_int,
    stream: *mut c_void,
) -> Status {
    call(|| {
        let layer = handles::get::<BitLinear>("linear", linear)?;
        let activations = handles::get::<Shared>("activations", activations)?;
        let activations = activations.read().unwrap_or_else(PoisonError::into_inner);
        let y_dtype = Dtype::new("y_dtype", y_dtype)?;
        let y_len = arguments::elements(activations.m(), layer.n())?;
        let device = layer.device();
        let _context = keep_context(device);
        // SAFETY: the caller's contract.
        let stream = unsafe { arguments::stream(device, stream) }?;
        with_dtype!(y_dtype, Y => {
            // SAFETY: the caller's contract.
            let mut y = unsafe { arguments::device_array::<Y>("y", device, y, y_len) }?;
            Ok(layer.forward_quantized(&stream, &activations, &mut y)?)
        })
    })
}

/// `bitnet_linear_forward_norm` of the header.
///
/// # Safety
/// Nothing writes `x` or `residual`, or uses `y`, before the stream comes to it; `stream` is a stream of the device.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitnet_linear_forward_norm(
    linear: usize,
    norm: usize,
    x: *const c_void,
    x_dtype: c_int,
    m: i64,
    residual: *const c_void,
    y: *mut c_void,
    y_dtype: c_int,
    stream: *mut c_void,
) -> Status {
    call(|| {
        let layer = handles::get::<BitLinear>("linear", linear)?;
        let norm = handles::get::<Norm>("norm", norm)?;
        let (x_dtype, y_dtype) = dtypes(x_dtype, y_dtype)?;
        let (x_len, y_len) = elements(&layer, m)?;
        let y_bytes = y_len.saturating_mul(y_dtype.bytes());
        Range::new("y", y, y_bytes).require_apart(&[
            Range::new("x", x, x_len.saturating_mul(x_dtype.bytes())),
            Range::new("residual", residual, y_bytes),
        ])?;
        let device = layer.device();
        let _context = keep_context(device);
        // SAFETY: the caller's contract.
        let stream = unsafe { arguments::stream(device, stream) }?;
        with_dtype!(x_dtype, X => with_dtype!(y_dtype, Y => {
            // SAFETY: the caller's contract.
            let (x, residual, mut y) = unsafe {
                let x = arguments::device_array::<X>("x", device, x, x_len)?;
                let residual = arguments::optional_device_array::<Y>("residual", device, residual, y_len)?;
                (x, residual, arguments::device_array::<Y>("y", device, y, y_len)?)
            };
            Ok(layer.forward_norm(&stream, &norm, &x, residual.as_ref(), &mut y)?)
        }))
    })
}
