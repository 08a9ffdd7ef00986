//! Reductions over the threads of a block: warps reduce by shuffles, then through shared memory.

use cuda_std::shared::SharedPtr;
use cuda_std::{thread, warp};

/// Lanes of a warp.
pub const WARP: u32 = 32;
/// The largest block, in warps.
pub const MAX_WARPS: usize = 32;

pub const FULL_WARP: u32 = u32::MAX;

/// Combines `value` over the `width` lanes that share a lane index divided by `width`; each of them gets the result.
///
/// # Safety
/// All lanes of the warp call it together. `WIDTH` is a power of two, at most 32.
#[inline(always)]
pub unsafe fn reduce_lanes<const WIDTH: usize>(
    mut value: i32,
    combine: impl Fn(i32, i32) -> i32,
) -> i32 {
    let mut distance = WIDTH as u32 / 2;
    while distance > 0 {
        // SAFETY: the caller's contract: no lane of the full mask is missing.
        let other = unsafe { warp::warp_shuffle_xor(FULL_WARP, value, distance, WARP) };
        value = combine(value, other);
        distance /= 2;
    }
    value
}

/// Combines `value` over all threads of the block; each of them gets the result. `combine` is associative and commutative.
///
/// # Safety
/// All threads of the block call it together; the block is one-dimensional, its size a multiple of 32.
/// `scratch` has room for [`MAX_WARPS`] and is used by nothing else between the barriers before and after.
#[inline(always)]
pub unsafe fn reduce_block(
    scratch: SharedPtr<i32>,
    value: i32,
    combine: impl Fn(i32, i32) -> i32 + Copy,
) -> i32 {
    let warps = thread::block_dim_x() / WARP;
    let warp = thread::thread_idx_x() / WARP;
    // SAFETY: whole warps take part, each writes its own slot, and a barrier stands between the writes and the reads.
    unsafe {
        let of_warp = reduce_lanes::<{ WARP as usize }>(value, combine);
        if thread::thread_idx_x().is_multiple_of(WARP) {
            scratch.add(warp).write(of_warp);
        }
        thread::sync_threads();
        let mut total = scratch.read();
        let mut i = 1;
        while i < warps {
            total = combine(total, scratch.add(i).read());
            i += 1;
        }
        total
    }
}
