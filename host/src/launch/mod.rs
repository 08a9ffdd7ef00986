//! Typed launches: from a kernel's signature, written once in `kernels-gpu`, to a checked launch.
//!
//! `#[kernel]` exposes each kernel's parameter types to the host as a tuple, carried by [`Entry`]. A launch takes a tuple of
//! arguments that [`Argument`] relates to those types one by one: an [`Input<T>`] is passed for a `*const T`, an [`Output<T>`]
//! for a `*mut T`, a scalar for itself; anything else does not compile. An `Input` or `Output` states how many elements the
//! kernel accesses, and its constructor refuses a shorter buffer.

mod activation;
mod error;
mod estimate;
mod floats;
mod gemv;
mod int8xint2;
mod norm;
mod norm_gemv;
mod ptx;
mod quantize;
mod row;
#[cfg(test)]
mod tests;
pub mod tune;
mod weights;
mod workspace;

pub use activation::GateUp;
pub(crate) use activation::{MAX_WIDTH, activate, gated};
pub use error::LaunchError;
pub use gemv::{Float, Gemv};
pub(crate) use gemv::{Operands, Sizes, gemv};
pub(crate) use int8xint2::INT8XINT2_ALIGNMENT;
pub use int8xint2::{Int8xInt2, Int8xInt2Sizes, int8xint2};
pub use kernels_gpu::Entry;
pub use kernels_gpu::gemv::Shape as GemvShape;
pub(crate) use norm::{Norm, gated_norm_quantize, in_kernel_order, norm, norm_quantize};
pub(crate) use norm_gemv::{NormedRows, norm_gemv, takes_norm};
pub use ptx::{PTX_ARCHITECTURES, kernels, ptx_for};
pub(crate) use quantize::{
    Quantized, Tokens, dequantize_activations, partials, quantize_activations,
    quantize_activations_per_tensor,
};
pub(crate) use weights::{
    Matrix, convert_layout, dequantize_weights, pack_ternary, quantize_weights, unpack_ternary,
    weight_scales, weight_sums,
};
pub(crate) use workspace::Workspaces;

use crate::device::{Buffer, DeviceError, KernelArg, LaunchConfig, Stream};
use bytemuck::Pod;

/// Elements of a buffer that a kernel reads.
#[derive(Debug)]
pub struct Input<'a, T>(Elements<'a, T>);

/// Elements of a buffer that a kernel writes.
#[derive(Debug)]
pub struct Output<'a, T>(Elements<'a, T>);

/// The `len` elements of a buffer from `first` on, which are within it.
#[derive(Debug)]
struct Elements<'a, T> {
    name: &'static str,
    buffer: &'a Buffer<T>,
    first: usize,
    len: usize,
}

impl<'a, T: Pod> Input<'a, T> {
    /// The first `len` elements of `buffer`; errors refer to it as `name`.
    ///
    /// # Errors
    /// [`LaunchError::ShortBuffer`] when the buffer has fewer.
    pub fn new(name: &'static str, buffer: &'a Buffer<T>, len: usize) -> Result<Self, LaunchError> {
        Self::slice(name, buffer, 0, len)
    }

    /// `len` elements of `buffer`, starting at `first`.
    ///
    /// # Errors
    /// As [`Input::new`].
    pub fn slice(
        name: &'static str,
        buffer: &'a Buffer<T>,
        first: usize,
        len: usize,
    ) -> Result<Self, LaunchError> {
        Elements::new(name, buffer, first, len).map(Self)
    }
}

impl<'a, T: Pod> Output<'a, T> {
    /// The first `len` elements of `buffer`; errors refer to it as `name`.
    ///
    /// # Errors
    /// As [`Input::new`].
    pub fn new(
        name: &'static str,
        buffer: &'a mut Buffer<T>,
        len: usize,
    ) -> Result<Self, LaunchError> {
        Self::slice(name, buffer, 0, len)
    }

    /// `len` elements of `buffer`, starting at `first`.
    ///
    /// # Errors
    /// As [`Input::new`].
    pub fn slice(
        name: &'static str,
        buffer: &'a mut Buffer<T>,
        first: usize,
        len: usize,
    ) -> Result<Self, LaunchError> {
        Elements::new(name, buffer, first, len).map(Self)
    }
}

impl<'a, T: Pod> Elements<'a, T> {
    fn new(
        name: &'static str,
        buffer: &'a Buffer<T>,
        first: usize,
        len: usize,
    ) -> Result<Self, LaunchError> {
        match first.checked_add(len) {
            Some(needed) if needed <= buffer.len() => Ok(Self {
                name,
                buffer,
                first,
                len,
            }),
            needed => Err(LaunchError::ShortBuffer {
                name,
                needed: needed.unwrap_or(usize::MAX),
                actual: buffer.len(),
            }),
        }
    }

    fn bind(&self, write: bool) -> KernelArg<'_> {
        KernelArg::Pointer {
            name: self.name,
            allocation: self.buffer.allocation(),
            offset_bytes: self.first * size_of::<T>(),
            bytes: self.len * size_of::<T>(),
            write,
        }
    }
}

/// Refuses what the kernels' vectors cannot read or write. Only memory of the caller's begins elsewhere.
pub(crate) fn require_alignment<T: Pod>(
    buffer: &Buffer<T>,
    alignment: usize,
) -> Result<(), LaunchError> {
    let address = buffer.device_ptr();
    if address.is_multiple_of(alignment as u64) {
        return Ok(());
    }
    Err(DeviceError::MisalignedPointer { address, alignment }.into())
}

/// A size as a kernel takes it, after a check of its range `1..=limit`.
fn size(name: &'static str, value: usize, limit: usize) -> Result<u32, LaunchError> {
    match u32::try_from(value) {
        Ok(size) if (1..=limit).contains(&value) => Ok(size),
        _ => Err(LaunchError::Size { name, value, limit }),
    }
}

mod sealed {
    use crate::device::KernelArg;

    pub trait Bind {
        fn bind(&self) -> KernelArg<'_>;
    }

    pub trait BindAll {
        type Bound<'a>: AsRef<[KernelArg<'a>]>
        where
            Self: 'a;
        fn bind_all(&self) -> Self::Bound<'_>;
    }
}

/// A value that can be passed for a kernel parameter of type `P`.
pub trait Argument<P>: sealed::Bind {}

/// A tuple of values that can be passed for a kernel's parameters, the tuple `P`.
pub trait Arguments<P>: sealed::BindAll {}

impl<T: Pod> sealed::Bind for Input<'_, T> {
    fn bind(&self) -> KernelArg<'_> {
        self.0.bind(false)
    }
}
impl<T: Pod> Argument<*const T> for Input<'_, T> {}

impl<T: Pod> sealed::Bind for Output<'_, T> {
    fn bind(&self) -> KernelArg<'_> {
        self.0.bind(true)
    }
}
impl<T: Pod> Argument<*mut T> for Output<'_, T> {}

/// `None` is a null pointer: for the parameters that a kernel documents as optional.
impl<A: sealed::Bind> sealed::Bind for Option<A> {
    fn bind(&self) -> KernelArg<'_> {
        match self {
            Some(argument) => argument.bind(),
            None => KernelArg::Scalar {
                bytes: [0; 8],
                len: size_of::<u64>(),
            },
        }
    }
}
impl<T: Pod> Argument<*const T> for Option<Input<'_, T>> {}
impl<T: Pod> Argument<*mut T> for Option<Output<'_, T>> {}

macro_rules! scalars {
    ($($type:ty)*) => {$(
        impl sealed::Bind for $type {
            fn bind(&self) -> KernelArg<'_> {
                let mut bytes = [0; 8];
                bytes[..size_of::<$type>()].copy_from_slice(bytemuck::bytes_of(self));
                KernelArg::Scalar { bytes, len: size_of::<$type>() }
            }
        }
        impl Argument<$type> for $type {}
    )*};
}
scalars!(u32 i32 u64 i64 f32 f64);

macro_rules! tuples {
    ($($argument:ident $parameter:ident),*) => {
        impl<$($argument: sealed::Bind),*> sealed::BindAll for ($($argument,)*) {
            type Bound<'a> = [KernelArg<'a>; [$(stringify!($argument)),*].len()] where Self: 'a;
            #[allow(non_snake_case)]
            fn bind_all(&self) -> Self::Bound<'_> {
                let ($($argument,)*) = self;
                [$($argument.bind()),*]
            }
        }
        impl<$($argument, $parameter),*> Arguments<($($parameter,)*)> for ($($argument,)*)
        where
            $($argument: Argument<$parameter>),*
        {}
    };
}
tuples!(A P);
tuples!(A P, B Q);
tuples!(A P, B Q, C R);
tuples!(A P, B Q, C R, D S);
tuples!(A P, B Q, C R, D S, E T);
tuples!(A P, B Q, C R, D S, E T, F U);
tuples!(A P, B Q, C R, D S, E T, F U, G V);
tuples!(A P, B Q, C R, D S, E T, F U, G V, H W);
tuples!(A P, B Q, C R, D S, E T, F U, G V, H W, I X);
tuples!(A P, B Q, C R, D S, E T, F U, G V, H W, I X, J Y);
tuples!(A P, B Q, C R, D S, E T, F U, G V, H W, I X, J Y, K Z);
tuples!(A P, B Q, C R, D S, E T, F U, G V, H W, I X, J Y, K Z, L Z1);
tuples!(A P, B Q, C R, D S, E T, F U, G V, H W, I X, J Y, K Z, L Z1, M Z2);
tuples!(A P, B Q, C R, D S, E T, F U, G V, H W, I X, J Y, K Z, L Z1, M Z2, N Z3);
tuples!(A P, B Q, C R, D S, E T, F U, G V, H W, I X, J Y, K Z, L Z1, M Z2, N Z3, O Z4);
tuples!(A P, B Q, C R, D S, E T, F U, G V, H W, I X, J Y, K Z, L Z1, M Z2, N Z3, O Z4, A1 Z5);
tuples!(A P, B Q, C R, D S, E T, F U, G V, H W, I X, J Y, K Z, L Z1, M Z2, N Z3, O Z4, A1 Z5, B1 Z6);

/// Launches one of this library's kernels; asynchronous on a GPU.
///
/// A wrong argument type does not compile:
///
/// ```compile_fail,E0277
/// use bitnet_cuda::device::{Buffer, LaunchConfig, Stream};
/// use bitnet_cuda::launch::{Entry, Input, launch};
///
/// fn wrong(stream: &Stream, kernel: Entry<(*const f32, u32)>, x: &Buffer<i8>, config: LaunchConfig) {
///     let _ = unsafe { launch(stream, kernel, config, (Input::new("x", x, 1).unwrap(), 1u32)) };
/// }
/// ```
///
/// # Errors
/// When the PTX cannot be loaded, a buffer is on another device, the device's limits are exceeded, or an earlier launch failed.
///
/// # Safety
/// In this configuration, the kernel must access only the elements that the arguments state.
pub unsafe fn launch<P>(
    stream: &Stream,
    entry: Entry<P>,
    config: LaunchConfig,
    arguments: impl Arguments<P>,
) -> Result<(), LaunchError> {
    let function = kernels(stream.device())?.function(entry.name)?;
    Ok(stream.launch(&function, config, arguments.bind_all().as_ref())?)
}
