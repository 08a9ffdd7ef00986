//! Rows of floats, processed by the threads of a block in chunks of 8: thread `t` processes chunks `t`, `t + block_dim`, ...

use crate::block::{MAX_WARPS, WARP};
pub use crate::element::CHUNK;

/// Maximum number of threads per block.
pub const MAX_THREADS: u32 = MAX_WARPS as u32 * WARP;

/// Accepts only rows of whole chunks.
pub(crate) const WHOLE: bool = true;
/// Accepts rows of any width.
pub(crate) const ANY: bool = false;

/// In place of a number of chunks per thread: a streaming kernel, which keeps none in registers and accepts rows of any width.
pub const STREAMING: usize = 0;

/// A kernel that processes one row per block, and which rows it accepts.
#[cfg(not(target_arch = "nvptx64"))]
#[derive(Clone, Copy, Debug)]
pub struct Variant<P> {
    /// Chunks that a thread keeps in registers, or [`STREAMING`].
    pub chunks: usize,
    /// Whether it accepts only rows of whole chunks.
    pub whole: bool,
    /// The kernel.
    pub entry: crate::Entry<P>,
}

#[cfg(not(target_arch = "nvptx64"))]
impl<P> Variant<P> {
    /// Whether a block of `threads` threads can process rows of `width` elements whose output is padded to `padded` elements.
    pub const fn takes(&self, width: usize, padded: usize, threads: u32) -> bool {
        let fits = self.chunks == STREAMING || padded <= self.chunks * CHUNK * threads as usize;
        fits && (!self.whole || width.is_multiple_of(CHUNK))
    }
}
