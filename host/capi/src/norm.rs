//! Norms, alone and fused with what comes before and after them.

use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::PoisonError;

use bitnet_cuda::device::Device;
use bitnet_cuda::layout::MAX_K;
use bitnet_cuda::ops::{GateUp, Norm, OpError, QuantizedActivations};

use crate::activations::Shared;
use crate::arguments::{self, Dtype, Out, Range, with_dtype};
use crate::device::{self, OpenDevice, keep_context};
use crate::error::{Error, Status, call};
use crate::handles;

/// Makes a norm and its handle.
///
/// # Safety
/// `gamma` and `beta` have `width` elements, `norm` is valid for the write; or they are null.
unsafe fn create(
    device: usize,
    width: i64,
    [gamma, beta]: [*const f32; 2],
    norm: *mut usize,
    make: impl FnOnce(&Device, usize, [Option<&[f32]>; 2]) -> Result<Norm, OpError>,
) -> Status {
    call(|| {
        let device = handles::get::<OpenDevice>("device", device)?;
        let width = arguments::size("width", width, MAX_K)?;
        // SAFETY: the caller's contract.
        let (gamma, beta, out) = unsafe {
            let gamma = arguments::optional_host("gamma", gamma, width)?;
            let beta = arguments::optional_host("beta", beta, width)?;
            (gamma, beta, Out::new("norm", norm)?)
        };
        let _context = keep_context(&device.device);
        let made = make(&device.device, width, [gamma, beta])?;
        out.write(handles::insert(made));
        Ok(())
    })
}

/// `bitnet_norm_create_rms` of the header.
///
/// # Safety
/// `gamma` has `width` elements, `norm` is valid for the write; or they are null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitnet_norm_create_rms(
    device: usize,
    width: i64,
    gamma: *const f32,
    eps: f32,
    norm: *mut usize,
) -> Status {
    // SAFETY: the caller's contract.
    unsafe {
        create(
            device,
            width,
            [gamma, ptr::null()],
            norm,
            |device, width, [gamma, _]| Norm::rms(device, width, gamma, eps),
        )
    }
}

/// `bitnet_norm_create_layer` of the header.
///
/// # Safety
/// `gamma` and `beta` have `width` elements, `norm` is valid for the write; or they are null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitnet_norm_create_layer(
    device: usize,
    width: i64,
    gamma: *const f32,
    beta: *const f32,
    eps: f32,
    norm: *mut usize,
) -> Status {
    // SAFETY: the caller's contract.
    unsafe {
        create(
            device,
            width,
            [gamma, beta],
            norm,
            |device, width, [gamma, beta]| Norm::layer(device, width, gamma, beta, eps),
        )
    }
}

/// `bitnet_norm_destroy` of the header.
#[unsafe(no_mangle)]
pub extern "C" fn bitnet_norm_destroy(norm: usize) -> Status {
    device::destroy("norm", norm, |norm: &Norm| norm.device().clone())
}

/// `bitnet_norm_normalize` of the header.
///
/// # Safety
/// Nothing writes `x`, or uses `residual` or `y`, before the stream comes to it; `stream` is a stream of the device.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitnet_norm_normalize(
    norm: usize,
    x: *const c_void,
    dtype: c_int,
    m: i64,
    residual: *mut c_void,
    y: *mut c_void,
    stream: *mut c_void,
) -> Status {
    call(|| {
        let norm = handles::get::<Norm>("norm", norm)?;
        let dtype = Dtype::new("dtype", dtype)?;
        let m = arguments::size("m", m, i32::MAX as usize)?;
        let len = arguments::elements(m, norm.width())?;
        let bytes = len.saturating_mul(dtype.bytes());
        let x_range = Range::new("x", x, bytes);
        let residual_range = Range::new("residual", residual, bytes);
        residual_range.require_apart(&[x_range])?;
        Range::new("y", y, bytes).require_apart(&[x_range, residual_range])?;
        let device = norm.device();
        let _context = keep_context(device);
        // SAFETY: the caller's contract.
        let stream = unsafe { arguments::stream(device, stream) }?;
        with_dtype!(dtype, T => {
            // SAFETY: the caller's contract.
            let (x, residual, mut y) = unsafe {
                let x = arguments::device_array::<T>("x", device, x, len)?;
                let residual = arguments::optional_device_array::<T>("residual", device, residual, len)?;
                (x, residual, arguments::device_array::<T>("y", device, y, len)?)
            };
            match residual {
                None => norm.normalize(&stream, &x, &mut y)?,
                Some(mut residual) => norm.add_normalize(&stream, &x, &mut residual, &mut y)?,
            }
            Ok(())
        })
    })
}

/// The number of elements of a fused norm's input.
fn elements(norm: &Norm, activations: &QuantizedActivations) -> Result<usize, Error> {
    let (width, k) = (norm.width(), activations.k());
    if width != k {
        return Err(Error::argument(format!(
            "activations have k = {k}, but the norm has width = {width}"
        )));
    }
    arguments::elements(activations.m(), width)
}

/// `bitnet_norm_normalize_quantize` of the header.
///
/// # Safety
/// Nothing writes `x`, or uses `residual`, before the stream comes to it; `stream` is a stream of the device.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitnet_norm_normalize_quantize(
    norm: usize,
    x: *const c_void,
    dtype: c_int,
    residual: *mut c_void,
    activations: usize,
    stream: *mut c_void,
) -> Status {
    call(|| {
        let norm = handles::get::<Norm>("norm", norm)?;
        let activations = handles::get::<Shared>("activations", activations)?;
        let mut activations = activations.write().unwrap_or_else(PoisonError::into_inner);
        let dtype = Dtype::new("dtype", dtype)?;
        let len = elements(&norm, &activations)?;
        let bytes = len.saturating_mul(dtype.bytes());
        Range::new("residual", residual, bytes).require_apart(&[Range::new("x", x, bytes)])?;
        let device = norm.device();
        let _context = keep_context(device);
        // SAFETY: the caller's contract.
        let stream = unsafe { arguments::stream(device, stream) }?;
        with_dtype!(dtype, T => {
            // SAFETY: the caller's contract.
            let (x, residual) = unsafe {
                let x = arguments::device_array::<T>("x", device, x, len)?;
                (x, arguments::optional_device_array::<T>("residual", device, residual, len)?)
            };
            match residual {
                None => norm.normalize_quantize(&stream, &x, &mut activations)?,
                Some(mut residual) => {
                    norm.add_normalize_quantize(&stream, &x, &mut residual, &mut activations)?
                }
            }
            Ok(())
        })
    })
}

/// `bitnet_norm_gated_normalize_quantize` of the header.
///
/// # Safety
/// Nothing writes `gate` or `up` before the stream comes to it; `stream` is a stream of the device.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitnet_norm_gated_normalize_quantize(
    norm: usize,
    function: c_int,
    gate: *const c_void,
    up: *const c_void,
    dtype: c_int,
    activations: usize,
    stream: *mut c_void,
) -> Status {
    call(|| {
        let norm = handles::get::<Norm>("norm", norm)?;
        let activations = handles::get::<Shared>("activations", activations)?;
        let mut activations = activations.write().unwrap_or_else(PoisonError::into_inner);
        let function = arguments::activation_function(function)?;
        let dtype = Dtype::new("dtype", dtype)?;
        let len = elements(&norm, &activations)?;
        let gates = if up.is_null() {
            arguments::elements(len, 2)?
        } else {
            len
        };
        let device = norm.device();
        let _context = keep_context(device);
        // SAFETY: the caller's contract.
        let stream = unsafe { arguments::stream(device, stream) }?;
        with_dtype!(dtype, T => {
            // SAFETY: the caller's contract.
            let (gate, up) = unsafe {
                let gate = arguments::device_array::<T>("gate", device, gate, gates)?;
                (gate, arguments::optional_device_array::<T>("up", device, up, len)?)
            };
            let gate_up = match &up {
                None => GateUp::Concatenated(&gate),
                Some(up) => GateUp::Separate { gate: &gate, up },
            };
            Ok(norm.gated_normalize_quantize(&stream, function, gate_up, &mut activations)?)
        })
    })
}
