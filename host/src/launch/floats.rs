//! Float buffers whose element type is passed to the kernel at run time, as a separate argument.

use super::{Argument, Float, Input, Output, sealed};
use crate::device::KernelArg;
use kernels_gpu::AnyFloat;

/// An [`Input`] or [`Output`] of such floats.
pub(super) struct Floats<B>(pub B);

impl<B: sealed::Bind> sealed::Bind for Floats<B> {
    fn bind(&self) -> KernelArg<'_> {
        self.0.bind()
    }
}

impl<T: Float> Argument<*const AnyFloat> for Floats<Input<'_, T>> {}
impl<T: Float> Argument<*const AnyFloat> for Option<Floats<Input<'_, T>>> {}
impl<T: Float> Argument<*mut AnyFloat> for Floats<Output<'_, T>> {}
impl<T: Float> Argument<*mut AnyFloat> for Option<Floats<Output<'_, T>>> {}
