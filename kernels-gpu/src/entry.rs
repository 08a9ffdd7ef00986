//! A kernel as a value, for lists of variants that share a signature.

use core::marker::PhantomData;
use cuda_std::kernel::Kernel;

/// A kernel whose parameters are the tuple `P`.
#[derive(Clone, Copy, Debug)]
pub struct Entry<P> {
    /// Name of the entry in the PTX.
    pub name: &'static str,
    /// Names of the parameters, in order.
    pub param_names: &'static [&'static str],
    params: PhantomData<fn(P)>,
}

impl<P> Entry<P> {
    /// The kernel `K`.
    pub const fn of<K: Kernel<Params = P>>() -> Self {
        Self {
            name: K::NAME,
            param_names: K::PARAM_NAMES,
            params: PhantomData,
        }
    }
}
