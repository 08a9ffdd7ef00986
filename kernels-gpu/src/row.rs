//! Rows of floats, taken by the threads of a block in chunks of 8: thread `t` has chunks `t`, `t + block`, ...

use crate::block::{MAX_WARPS, WARP};
pub use crate::element::CHUNK;

/// Threads of a block, at most.
pub const MAX_THREADS: u32 = MAX_WARPS as u32 * WARP;

/// Takes only rows of whole chunks.
pub(crate) const WHOLE: bool = true;
/// Takes rows of any length.
pub(crate) const ANY: bool = false;

/// Chunks a thread that the streaming kernels stand for: rows of any length.
pub const STREAMING: usize = 0;

/// A kernel that takes a row a block, and the rows that it takes.
#[cfg(not(target_arch = "nvptx64"))]
#[derive(Clone, Copy, Debug)]
pub struct Variant<P> {
    /// Chunks that a thread keeps in registers, or [`STREAMING`].
    pub chunks: usize,
    /// Takes only rows of whole chunks.
    pub whole: bool,
    /// The kernel.
    pub entry: crate::Entry<P>,
}

#[cfg(not(target_arch = "nvptx64"))]
impl<P> Variant<P> {
    /// Whether a block of `threads` threads can take rows of `width` elements, which for its output are padded to `padded`.
    pub const fn takes(&self, width: usize, padded: usize, threads: u32) -> bool {
        let fits = self.chunks == STREAMING || padded <= self.chunks * CHUNK * threads as usize;
        fits && (!self.whole || width.is_multiple_of(CHUNK))
    }
}
