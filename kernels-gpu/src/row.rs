//! Rows of floats, processed by the threads of a block in chunks of 8: thread `t` processes chunks `t`, `t + block_dim`, ...

use crate::block::MAX_WARPS;
pub use crate::element::CHUNK;
use crate::element::QUAD;
use cuda_std::ptr::U32x4;
use cuda_std::shared::{self, SharedPtr};
use cuda_std::thread;
use cuda_std::warp::WARP_SIZE;

/// Maximum number of threads per block.
pub const MAX_THREADS: u32 = MAX_WARPS as u32 * WARP_SIZE;

/// Accepts only rows of whole chunks.
pub(crate) const WHOLE: bool = true;
/// Accepts rows of any width.
pub(crate) const ANY: bool = false;

/// In place of a number of chunks per thread: a kernel that accepts rows of any width, and keeps in registers and shared memory what fits.
pub const WIDE: usize = 0;
/// Chunks of a wide row that a thread has in registers, in kernels that have registers for them.
pub const WIDE_IN_REGISTERS: u32 = 1;

/// A block's row between two passes over it: of each thread's chunks, the first may be in registers, as many of the others as there is room
/// for are in shared memory, and the rest is not kept.
pub(crate) struct WideRow {
    first: [f32; CHUNK],
    /// Chunks of each thread that are in registers, 0 or 1.
    in_registers: u32,
    /// The thread's first quad in shared memory. Quads of neighbouring threads are adjacent, so that there are no bank conflicts.
    quads: SharedPtr<U32x4>,
    /// Chunks that each thread keeps.
    kept: u32,
}

impl WideRow {
    /// A row of which nothing is kept.
    #[inline(always)]
    pub fn none() -> Self {
        Self {
            first: [0.0; CHUNK],
            quads: SharedPtr::from_address(0),
            in_registers: 0,
            kept: 0,
        }
    }

    /// A row of which each thread has `in_registers` chunks, 0 or 1, in registers, and the others in the dynamic shared memory, except its first
    /// `used` bytes, a multiple of 16.
    ///
    /// # Safety
    /// That memory is used for nothing else as long as the row is.
    #[inline(always)]
    pub unsafe fn new(in_registers: u32, used: u32) -> Self {
        let threads = thread::block_dim_x();
        let room = shared::dynamic_smem_size() - used;
        let start: SharedPtr<u8> = shared::dynamic_shared_mem();
        Self {
            in_registers,
            kept: in_registers + room / wide_row_bytes(1, threads),
            quads: start.add(used).cast().add(thread::thread_idx_x()),
            ..Self::none()
        }
    }

    /// Whether this thread's chunk number `i` is kept.
    #[inline(always)]
    pub fn keeps(&self, i: u32) -> bool {
        i < self.kept
    }

    #[inline(always)]
    fn quad(&self, i: u32, quad: u32) -> SharedPtr<U32x4> {
        let index = 2 * (i - self.in_registers) + quad;
        self.quads.add(index * thread::block_dim_x())
    }

    /// Keeps `values` as this thread's chunk number `i`, if there is room.
    #[inline(always)]
    pub fn write(&mut self, i: u32, values: &[f32; CHUNK]) {
        if i < self.in_registers {
            self.first = *values;
        } else if self.keeps(i) {
            let [a, b, c, d, rest @ ..] = values.map(f32::to_bits);
            // SAFETY: a chunk that is kept is inside the row's shared memory, and no other thread accesses it.
            unsafe {
                self.quad(i, 0).write(U32x4([a, b, c, d]));
                self.quad(i, 1).write(U32x4(rest));
            }
        }
    }

    /// This thread's chunk number `i`.
    ///
    /// # Safety
    /// The chunk [is kept](WideRow::keeps), and this thread has written it.
    #[inline(always)]
    pub unsafe fn read(&self, i: u32) -> [f32; CHUNK] {
        if i < self.in_registers {
            return self.first;
        }
        // SAFETY: the caller's contract.
        let quads = [0, 1].map(|quad| unsafe { self.quad(i, quad).read() });
        core::array::from_fn(|i| f32::from_bits(quads[i / QUAD].0[i % QUAD]))
    }
}

/// Shared memory, in bytes, for `chunks` chunks per thread.
const fn wide_row_bytes(chunks: u32, threads: u32) -> u32 {
    chunks * threads * (CHUNK * size_of::<f32>()) as u32
}

/// A kernel that processes one row per block, and which rows it accepts.
#[cfg(not(target_arch = "nvptx64"))]
#[derive(Clone, Copy, Debug)]
pub struct Variant<P> {
    /// Chunks that a thread keeps in registers, or [`WIDE`].
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
        let fits = self.chunks == WIDE || padded <= self.chunks * CHUNK * threads as usize;
        fits && (!self.whole || width.is_multiple_of(CHUNK))
    }

    /// Shared memory, in bytes, in which a block keeps all but `in_registers` chunks per thread of a row of `padded` elements, as far as they fit
    /// in `limit` bytes.
    pub const fn shared_bytes(
        &self,
        padded: usize,
        threads: u32,
        in_registers: u32,
        limit: u32,
    ) -> u32 {
        if self.chunks != WIDE {
            return 0;
        }
        let chunks = padded.div_ceil(CHUNK * threads as usize) as u32 - in_registers;
        let room = limit / wide_row_bytes(1, threads);
        wide_row_bytes(if chunks < room { chunks } else { room }, threads)
    }
}
