//! A kernel as a value, for lists of variants that share a signature.

use core::marker::PhantomData;
use cuda_std::kernel::Kernel;

/// A kernel whose parameters are the tuple `P`.
pub struct Entry<P> {
    /// Name of the entry point in the PTX.
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

// Not derived: derives would require the same traits of `P`, and `Debug` is implemented for tuples of at most 12 elements.
impl<P> Clone for Entry<P> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P> Copy for Entry<P> {}

impl<P> core::fmt::Debug for Entry<P> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Entry({})", self.name)
    }
}
