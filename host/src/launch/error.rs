use crate::device::DeviceError;
use crate::layout::Layout;

/// Why a kernel was not launched.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum LaunchError {
    /// The device refused the launch, or an earlier one failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// A buffer that is shorter than the range that the kernel accesses.
    #[error(
        "buffer `{name}` has {actual} elements, the kernel touches {needed}; allocate at least {needed}"
    )]
    ShortBuffer {
        /// The buffer, as the operation's documentation calls it.
        name: &'static str,
        /// Elements that the kernel touches.
        needed: usize,
        /// Elements that the buffer has.
        actual: usize,
    },
    /// A size of 0 or one that the kernels cannot index.
    #[error("{name} = {value} is outside 1..={limit}")]
    Size {
        /// The size, as the operation's documentation calls it.
        name: &'static str,
        /// Its value.
        value: usize,
        /// The largest value there can be.
        limit: usize,
    },
    /// A variant asked for that cannot take this shape.
    #[error(
        "variant {variant} takes K up to {limit}, but K is {k}; leave the choice to the library or name another variant"
    )]
    VariantK {
        /// The variant.
        variant: String,
        /// Its limit.
        limit: u64,
        /// The padded K of the product.
        k: usize,
    },
    /// Rows of activations that kernels cannot read by 16 bytes.
    #[error(
        "the activations' pitch is {pitch}; it has to be a multiple of 16, and at least K as the weights are padded, {k}"
    )]
    Pitch {
        /// From a row to the next.
        pitch: usize,
        /// The padded K.
        k: usize,
    },
    /// Row scales whose number does not divide the number of rows.
    #[error("{groups} groups of rows do not divide n = {n}")]
    Groups {
        /// Row scales.
        groups: usize,
        /// Rows.
        n: usize,
    },
    /// A variant that does not exist.
    #[error("there is no variant `{name}`; the variants are {known}")]
    UnknownVariant {
        /// The name as given.
        name: String,
        /// The names there are.
        known: String,
    },
    /// A variant for weights in another layout.
    #[error(
        "variant {variant} does not take weights in the layout {layout}; the variants that do are {known}"
    )]
    VariantLayout {
        /// The variant.
        variant: String,
        /// The layout of the weights.
        layout: Layout,
        /// The names of those for that layout.
        known: String,
    },
    /// A device that is older than any PTX in this library.
    #[error("{device} has compute capability {}.{}, the kernels need 7.5 or newer", .capability.0, .capability.1)]
    NoPtx {
        /// The device.
        device: String,
        /// Its compute capability.
        capability: (u32, u32),
    },
}
