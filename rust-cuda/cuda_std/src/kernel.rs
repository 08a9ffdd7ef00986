//! What the host knows about a kernel: its name and the types of its parameters.

/// A kernel as the host sees it. `#[kernel]` on `fn foo` implements this for a type that is also called
/// `foo`.
pub trait Kernel {
    /// Name of the entry point in the PTX.
    const NAME: &'static str;
    /// The parameter types, in order, as a tuple: `(*const f32, *mut i8, u32)`.
    type Params;
    /// The parameters' names, in order.
    const PARAM_NAMES: &'static [&'static str];
    /// Maximum number of threads per block (`.maxntid`).
    const MAX_THREADS: Option<u32>;
    /// Minimum number of blocks that should fit on a multiprocessor at once (`.minnctapersm`).
    const MIN_BLOCKS: Option<u32>;
}
