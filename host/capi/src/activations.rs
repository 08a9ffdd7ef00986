//! Quantized activations in device memory.

use std::ffi::{c_int, c_void};
use std::sync::{PoisonError, RwLock};

use bitnet_cuda::device::Device;
use bitnet_cuda::layout::MAX_K;
use bitnet_cuda::ops::{QuantizedActivations, quantize_activations};

use crate::arguments::{self, Dtype, Out, Range, with_dtype};
use crate::device::{self, OpenDevice, keep_context};
use crate::error::{Error, Status, call};
use crate::handles;

/// Activations behind a handle: a call quantizes into them, or others read them.
pub type Shared = RwLock<QuantizedActivations>;

fn shape(m: i64, k: i64) -> Result<(usize, usize), Error> {
    Ok((
        arguments::size("m", m, i32::MAX as usize)?,
        arguments::size("k", k, MAX_K)?,
    ))
}

/// `bitnet_activations_create` of the header.
///
/// # Safety
/// `activations` is valid for the write, or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitnet_activations_create(
    device: usize,
    m: i64,
    k: i64,
    activations: *mut usize,
) -> Status {
    call(|| {
        let device = handles::get::<OpenDevice>("device", device)?;
        let (m, k) = shape(m, k)?;
        // SAFETY: the caller's contract.
        let out = unsafe { Out::new("activations", activations) }?;
        let _context = keep_context(&device.device);
        let made = QuantizedActivations::uninit(&device.device, m, k)?;
        out.write(handles::insert(Shared::new(made)));
        Ok(())
    })
}

/// `bitnet_activations_create_from` of the header.
///
/// # Safety
/// `values` has `m * k` elements, `scales` `m`, and `activations` is valid for the write; or they are null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitnet_activations_create_from(
    device: usize,
    m: i64,
    k: i64,
    values: *const i8,
    scales: *const f32,
    activations: *mut usize,
) -> Status {
    call(|| {
        let device = handles::get::<OpenDevice>("device", device)?;
        let (m, k) = shape(m, k)?;
        // SAFETY: the caller's contract.
        let (values, scales, out) = unsafe {
            let values = arguments::host("values", values, arguments::elements(m, k)?)?;
            (
                values,
                arguments::host("scales", scales, m)?,
                Out::new("activations", activations)?,
            )
        };
        let _context = keep_context(&device.device);
        let made = QuantizedActivations::from_values(&device.device, values, scales, m, k)?;
        out.write(handles::insert(Shared::new(made)));
        Ok(())
    })
}

/// `bitnet_activations_destroy` of the header.
#[unsafe(no_mangle)]
pub extern "C" fn bitnet_activations_destroy(activations: usize) -> Status {
    device::destroy("activations", activations, device_of)
}

fn device_of(activations: &Shared) -> Device {
    activations
        .read()
        .unwrap_or_else(PoisonError::into_inner)
        .values()
        .device()
        .clone()
}

/// `bitnet_activations_quantize` of the header.
///
/// # Safety
/// Nothing writes `x` before the stream comes to it; `stream` is a stream of the device.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitnet_activations_quantize(
    activations: usize,
    x: *const c_void,
    x_dtype: c_int,
    stream: *mut c_void,
) -> Status {
    call(|| {
        let activations = handles::get::<Shared>("activations", activations)?;
        let mut activations = activations.write().unwrap_or_else(PoisonError::into_inner);
        let dtype = Dtype::new("x_dtype", x_dtype)?;
        let device = activations.values().device().clone();
        let _context = keep_context(&device);
        let len = arguments::elements(activations.m(), activations.k())?;
        // SAFETY: the caller's contract.
        let stream = unsafe { arguments::stream(&device, stream) }?;
        with_dtype!(dtype, T => {
            // SAFETY: the caller's contract.
            let x = unsafe { arguments::device_array::<T>("x", &device, x, len) }?;
            Ok(quantize_activations(&stream, &x, &mut activations)?)
        })
    })
}

/// `bitnet_activations_read` of the header.
///
/// # Safety
/// `values` has `m * k` elements and `scales` `m`; or they are null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitnet_activations_read(
    activations: usize,
    values: *mut i8,
    scales: *mut f32,
) -> Status {
    call(|| {
        let activations = handles::get::<Shared>("activations", activations)?;
        let activations = activations.read().unwrap_or_else(PoisonError::into_inner);
        let (m, k) = (activations.m(), activations.k());
        // SAFETY: the caller's contract.
        let (values, scales) = unsafe {
            let elements = arguments::elements(m, k)?;
            Range::new("values", values, elements).require_apart(&[Range::new(
                "scales",
                scales,
                m * size_of::<f32>(),
            )])?;
            let values = arguments::host_out("values", values, elements)?;
            (values, arguments::host_out("scales", scales, m)?)
        };
        let _context = keep_context(activations.values().device());
        let padded = activations.values().to_vec()?;
        activations.scales().copy_to_uninit(scales)?;
        for (row, padded) in values
            .chunks_mut(k)
            .zip(padded.chunks(activations.k_padded()))
        {
            row.write_copy_of_slice(&padded[..k]);
        }
        Ok(())
    })
}
