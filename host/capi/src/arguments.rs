//! Checks of what C's types do not say.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem::MaybeUninit;

use bitnet_cuda::device::{Buffer, Device, Stream};
use bitnet_cuda::layout::Layout;
use bitnet_cuda::ops::Activation;
use bytemuck::Pod;

use crate::error::Error;

/// A size in `1..=limit`.
pub fn size(name: &str, value: i64, limit: usize) -> Result<usize, Error> {
    match usize::try_from(value) {
        Ok(size) if (1..=limit).contains(&size) => Ok(size),
        _ => Err(Error::argument(format!(
            "{name} = {value} is outside 1..={limit}"
        ))),
    }
}

/// The largest size of anything in memory.
pub const ANY: usize = isize::MAX as usize;

/// The number of elements of a matrix.
pub fn elements(rows: usize, columns: usize) -> Result<usize, Error> {
    rows.checked_mul(columns)
        .filter(|&elements| elements <= ANY)
        .ok_or_else(|| {
            Error::argument(format!(
                "{rows} x {columns} elements do not fit the address space"
            ))
        })
}

/// The shape of a weight matrix, checked before any of its elements is read.
pub fn weight_shape(n: i64, k: i64) -> Result<(usize, usize), Error> {
    let (n, k) = (size("n", n, ANY)?, size("k", k, ANY)?);
    Layout::RowMajor.padded_shape(n, k)?;
    Ok((n, k))
}

fn check_pointer<T>(name: &str, pointer: *const T) -> Result<(), Error> {
    if pointer.is_null() {
        return Err(Error::argument(format!("{name} is NULL")));
    }
    if !pointer.is_aligned() {
        let alignment = align_of::<T>();
        return Err(Error::argument(format!(
            "{name} = {pointer:p} is not a multiple of {alignment}"
        )));
    }
    Ok(())
}

/// Elements of a host array that a call reads.
///
/// # Safety
/// A pointer that passes the checks is that of `len` initialized elements, which nothing writes during the call.
pub unsafe fn host<'a, T>(name: &str, pointer: *const T, len: usize) -> Result<&'a [T], Error> {
    check_host(name, pointer, len)?;
    // SAFETY: not null, aligned and not too long, as just checked; the rest is the caller's contract.
    Ok(unsafe { std::slice::from_raw_parts(pointer, len) })
}

/// As [`host`], for an argument that may be null.
///
/// # Safety
/// As [`host`].
pub unsafe fn optional_host<'a, T>(
    name: &str,
    pointer: *const T,
    len: usize,
) -> Result<Option<&'a [T]>, Error> {
    if pointer.is_null() {
        return Ok(None);
    }
    // SAFETY: the caller's contract.
    unsafe { host(name, pointer, len) }.map(Some)
}

/// Elements of a host array that a call writes. The caller need not have written them before.
///
/// # Safety
/// A pointer that passes the checks is that of `len` elements, valid for writes, which nothing else uses during the call.
pub unsafe fn host_out<'a, T>(
    name: &str,
    pointer: *mut T,
    len: usize,
) -> Result<&'a mut [MaybeUninit<T>], Error> {
    check_host(name, pointer, len)?;
    // SAFETY: as for `host`, but for what is in the memory, which the type leaves open.
    Ok(unsafe { std::slice::from_raw_parts_mut(pointer.cast(), len) })
}

fn check_host<T>(name: &str, pointer: *const T, len: usize) -> Result<(), Error> {
    check_pointer(name, pointer)?;
    let bytes = len
        .checked_mul(size_of::<T>())
        .filter(|&bytes| bytes <= ANY);
    if bytes.is_some_and(|bytes| pointer.addr().checked_add(bytes).is_some()) {
        return Ok(());
    }
    Err(Error::argument(format!(
        "{name} = {pointer:p} has {len} elements, which end beyond the address space"
    )))
}

/// A place for a result.
pub struct Out<T>(*mut T);

impl<T> Out<T> {
    /// # Safety
    /// A pointer that passes the checks is valid for the write of a `T`.
    pub unsafe fn new(name: &str, pointer: *mut T) -> Result<Self, Error> {
        check_pointer(name, pointer)?;
        Ok(Self(pointer))
    }

    pub fn write(self, value: T) {
        // SAFETY: the caller of `new` says so.
        unsafe { self.0.write(value) }
    }
}

/// A C string.
///
/// # Safety
/// A pointer that is not null is that of a string that ends in a null.
pub unsafe fn string<'a>(name: &str, pointer: *const c_char) -> Result<&'a str, Error> {
    check_pointer(name, pointer)?;
    // SAFETY: the caller's contract.
    let string = unsafe { CStr::from_ptr(pointer) };
    string
        .to_str()
        .map_err(|_| Error::argument(format!("{name} = {string:?} is not UTF-8")))
}

/// `bitnet_layout` of the header.
pub fn layout(value: c_int) -> Result<Layout, Error> {
    match value {
        0 => Ok(Layout::RowMajor),
        1 => Ok(Layout::Ladder),
        2 => Ok(Layout::Tiled),
        _ => Err(Error::argument(format!(
            "layout = {value} is none of BITNET_ROW_MAJOR (0), BITNET_LADDER (1), BITNET_TILED (2)"
        ))),
    }
}

/// `bitnet_activation_function` of the header.
pub fn activation_function(value: c_int) -> Result<Activation, Error> {
    match value {
        0 => Ok(Activation::SquaredRelu),
        1 => Ok(Activation::Silu),
        2 => Ok(Activation::GeluErf),
        3 => Ok(Activation::GeluTanh),
        _ => Err(Error::argument(format!(
            "function = {value} is none of BITNET_SQUARED_RELU (0), BITNET_SILU (1), BITNET_GELU_ERF (2), BITNET_GELU_TANH (3)"
        ))),
    }
}

/// `bitnet_dtype` of the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dtype {
    F32,
    F16,
    Bf16,
}

impl Dtype {
    pub fn new(name: &str, value: c_int) -> Result<Self, Error> {
        match value {
            0 => Ok(Self::F32),
            1 => Ok(Self::F16),
            2 => Ok(Self::Bf16),
            _ => Err(Error::argument(format!(
                "{name} = {value} is none of BITNET_F32 (0), BITNET_F16 (1), BITNET_BF16 (2)"
            ))),
        }
    }

    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }
}

/// Runs the expression with the type `$T` that a [`Dtype`] stands for.
macro_rules! with_dtype {
    ($dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            $crate::arguments::Dtype::F32 => {
                type $T = f32;
                $body
            }
            $crate::arguments::Dtype::F16 => {
                type $T = half::f16;
                $body
            }
            $crate::arguments::Dtype::Bf16 => {
                type $T = half::bf16;
                $body
            }
        }
    };
}
pub(crate) use with_dtype;

/// `len` elements at a device pointer.
///
/// # Safety
/// As [`Buffer::from_raw`], where the checks there pass.
pub unsafe fn device_array<T: Pod>(
    name: &str,
    device: &Device,
    pointer: *const c_void,
    len: usize,
) -> Result<Buffer<T>, Error> {
    if pointer.is_null() {
        return Err(Error::argument(format!("{name} is NULL")));
    }
    // SAFETY: the caller's contract.
    unsafe { Buffer::from_raw(device, pointer.addr() as u64, len) }
        .map_err(|error| Error::from(error).about(name))
}

/// As [`device_array`], for an argument that may be null.
///
/// # Safety
/// As [`device_array`].
pub unsafe fn optional_device_array<T: Pod>(
    name: &str,
    device: &Device,
    pointer: *const c_void,
    len: usize,
) -> Result<Option<Buffer<T>>, Error> {
    if pointer.is_null() {
        return Ok(None);
    }
    // SAFETY: the caller's contract.
    unsafe { device_array(name, device, pointer, len) }.map(Some)
}

/// A stream of the caller's.
///
/// # Safety
/// As [`Stream::from_raw`], as long as the call.
pub unsafe fn stream(device: &Device, handle: *mut c_void) -> Result<Stream, Error> {
    // SAFETY: the caller's contract.
    unsafe { Stream::from_raw(device, handle) }.map_err(|error| Error::from(error).about("stream"))
}

/// A range of memory that a call uses; none where the pointer is null.
#[derive(Debug, Clone, Copy)]
pub struct Range<'a> {
    name: &'a str,
    start: usize,
    bytes: usize,
}

impl<'a> Range<'a> {
    pub fn new<T>(name: &'a str, pointer: *const T, bytes: usize) -> Self {
        Self {
            name,
            start: pointer.addr(),
            bytes: if pointer.is_null() { 0 } else { bytes },
        }
    }

    /// Fails where `self`, which the call writes, shares bytes with another one.
    pub fn require_apart(self, others: &[Range]) -> Result<(), Error> {
        let end = |range: &Range| range.start.saturating_add(range.bytes);
        match others
            .iter()
            .find(|other| self.start < end(other) && other.start < end(&self))
        {
            None => Ok(()),
            Some(other) => Err(Error::argument(format!(
                "{} = {:#x} ({} bytes) overlaps {} = {:#x} ({} bytes)",
                self.name, self.start, self.bytes, other.name, other.start, other.bytes
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_overlap_where_they_share_a_byte() {
        let range =
            |start: usize, bytes| Range::new("r", std::ptr::without_provenance::<u8>(start), bytes);
        let apart = |a: (usize, usize), b: (usize, usize)| {
            let [a, b] = [a, b].map(|(start, bytes)| range(start, bytes));
            let [one, other] = [a.require_apart(&[b]), b.require_apart(&[a])];
            assert_eq!(one.is_ok(), other.is_ok());
            one.is_ok()
        };
        assert!(apart((100, 10), (110, 10)));
        assert!(!apart((100, 11), (110, 10)));
        assert!(!apart((100, 30), (110, 10)));
        // No pointer, nothing to overlap; and an end beyond the address space is its end.
        assert!(apart((0, 100), (50, 10)));
        assert!(!apart((usize::MAX - 5, 100), (usize::MAX - 1, 1)));
    }
}
