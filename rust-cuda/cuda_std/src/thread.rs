//! The thread's position in its block and grid, and the block's barriers.
//!
//! Indices and sizes are in threads or blocks; `x` varies fastest.

use crate::gpu_only;
#[cfg(target_arch = "nvptx64")]
use crate::llvm;

macro_rules! special_registers {
    ($($(#[$doc:meta])* fn $name:ident() = $intrinsic:ident;)*) => {$(
        $(#[$doc])*
        #[gpu_only]
        pub fn $name() -> u32 {
            llvm::$intrinsic() as u32
        }
    )*};
}

special_registers! {
    /// Index of the thread in its block, along x. PTX: `mov.u32 %tid.x`; any architecture.
    fn thread_idx_x() = tid_x;
    /// Index of the thread in its block, along y. PTX: `mov.u32 %tid.y`; any architecture.
    fn thread_idx_y() = tid_y;
    /// Index of the thread in its block, along z. PTX: `mov.u32 %tid.z`; any architecture.
    fn thread_idx_z() = tid_z;
    /// Index of the block in the grid, along x. PTX: `mov.u32 %ctaid.x`; any architecture.
    fn block_idx_x() = ctaid_x;
    /// Index of the block in the grid, along y. PTX: `mov.u32 %ctaid.y`; any architecture.
    fn block_idx_y() = ctaid_y;
    /// Index of the block in the grid, along z. PTX: `mov.u32 %ctaid.z`; any architecture.
    fn block_idx_z() = ctaid_z;
}

/// Special registers that are never 0.
macro_rules! dimensions {
    ($($(#[$doc:meta])* fn $name:ident() = $intrinsic:ident;)*) => {$(
        $(#[$doc])*
        #[gpu_only]
        pub fn $name() -> u32 {
            let count = llvm::$intrinsic() as u32;
            // SAFETY: no grid or block is empty. Divisions by it then need no check.
            unsafe { core::hint::assert_unchecked(count > 0) };
            count
        }
    )*};
}

dimensions! {
    /// Threads in a block, along x. PTX: `mov.u32 %ntid.x`; any architecture.
    fn block_dim_x() = ntid_x;
    /// Threads in a block, along y. PTX: `mov.u32 %ntid.y`; any architecture.
    fn block_dim_y() = ntid_y;
    /// Threads in a block, along z. PTX: `mov.u32 %ntid.z`; any architecture.
    fn block_dim_z() = ntid_z;
    /// Blocks in the grid, along x. PTX: `mov.u32 %nctaid.x`; any architecture.
    fn grid_dim_x() = nctaid_x;
    /// Blocks in the grid, along y. PTX: `mov.u32 %nctaid.y`; any architecture.
    fn grid_dim_y() = nctaid_y;
    /// Blocks in the grid, along z. PTX: `mov.u32 %nctaid.z`; any architecture.
    fn grid_dim_z() = nctaid_z;
}

/// Index of the thread in a one-dimensional grid of one-dimensional blocks:
/// `block_idx_x * block_dim_x + thread_idx_x`, modulo 2^32. PTX: `mad.lo.s32`; any architecture.
#[gpu_only]
pub fn index_1d() -> u32 {
    block_idx_x()
        .wrapping_mul(block_dim_x())
        .wrapping_add(thread_idx_x())
}

/// Waits until every thread of the block has reached this call; what they wrote to shared and global memory
/// before is then visible to all of them. CUDA's `__syncthreads`. PTX: `bar.sync 0`; any architecture.
///
/// All threads of the block must reach the same call, or all have returned; a barrier in a branch that
/// only some of them take is undefined in PTX. That this is not an `unsafe` function is Rust-CUDA's choice, kept so
/// that kernels written for it compile.
#[gpu_only]
pub fn sync_threads() {
    // SAFETY: barrier 0 exists in every block. That all threads reach it is the documented contract.
    unsafe { llvm::barrier_sync(0) }
}

/// Waits at barrier `id` (1 to 15; [`sync_threads`] uses 0) for `threads` threads, a multiple of 32, which call this
/// in whole warps with the same arguments. PTX: `bar.sync`; any architecture.
///
/// # Safety
/// `id` and `threads` are as stated above. Other values are undefined in PTX.
#[gpu_only]
pub unsafe fn named_barrier_sync(id: u32, threads: u32) {
    // SAFETY: the caller's promise.
    unsafe { llvm::barrier_sync_count(id as i32, threads as i32) }
}

/// [`sync_threads`], returning whether `predicate` is true in every thread of the block.
/// PTX: `bar.red.and.pred 0`; any architecture.
#[gpu_only]
pub fn sync_threads_and(predicate: bool) -> bool {
    // SAFETY: as in `sync_threads`.
    unsafe { llvm::barrier_red_and(0, predicate) }
}

/// [`sync_threads`], returning whether `predicate` is true in any thread of the block.
/// PTX: `bar.red.or.pred 0`; any architecture.
#[gpu_only]
pub fn sync_threads_or(predicate: bool) -> bool {
    // SAFETY: as in `sync_threads`.
    unsafe { llvm::barrier_red_or(0, predicate) }
}

/// [`sync_threads`], returning in how many threads of the block `predicate` is true.
/// PTX: `bar.red.popc.u32 0`; any architecture.
#[gpu_only]
pub fn sync_threads_count(predicate: bool) -> u32 {
    // SAFETY: as in `sync_threads`.
    unsafe { llvm::barrier_red_popc(0, predicate) as u32 }
}

/// Orders this thread's memory accesses before and after the fence, as seen by its block. CUDA's
/// `__threadfence_block`. PTX: `membar.cta`; any architecture.
#[gpu_only]
pub fn block_fence() {
    // SAFETY: a fence touches no memory.
    unsafe { llvm::membar_cta() }
}

/// Orders this thread's memory accesses before and after the fence, as seen by the whole device. CUDA's
/// `__threadfence`. PTX: `membar.gl`; any architecture.
#[gpu_only]
pub fn device_fence() {
    // SAFETY: a fence touches no memory.
    unsafe { llvm::membar_gl() }
}

/// Orders this thread's memory accesses before and after the fence, as seen by the device, the host and other
/// devices. CUDA's `__threadfence_system`. PTX: `membar.sys`; any architecture.
#[gpu_only]
pub fn system_fence() {
    // SAFETY: a fence touches no memory.
    unsafe { llvm::membar_sys() }
}

/// Suspends the thread for about `nanos` nanoseconds, at most 1 ms. PTX: `nanosleep.u32`; sm_70.
#[gpu_only]
pub fn nanosleep(nanos: u32) {
    // SAFETY: touches no memory and changes no register.
    unsafe {
        core::arch::asm!("nanosleep.u32 {};", in(reg32) nanos, options(nomem, nostack, preserves_flags));
    }
}
