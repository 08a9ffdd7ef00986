//! Reductions over the threads of a block: each warp by shuffles, then the warps' results, through shared memory, again by
//! shuffles.
//!
//! The tree is fixed by the number of threads alone, so float sums are the same in every run and on every device.

use cuda_std::shared::{SharedPtr, SharedValue};
use cuda_std::thread;
use cuda_std::warp::{self, WarpValue};

/// Lanes of a warp.
pub const WARP: u32 = 32;
/// The largest block, in warps.
pub const MAX_WARPS: usize = 32;

pub const FULL_WARP: u32 = u32::MAX;

/// Combines `value` over the lanes of a warp, at distance 16, 8, 4, 2, 1; each of them gets the result.
///
/// # Safety
/// All lanes of the warp call it together.
#[inline(always)]
unsafe fn reduce_warp<T: WarpValue>(mut value: T, combine: impl Fn(T, T) -> T) -> T {
    let mut distance = WARP / 2;
    while distance > 0 {
        // SAFETY: the caller's contract: no lane of the full mask is missing.
        let other = unsafe { warp::warp_shuffle_xor(FULL_WARP, value, distance, WARP) };
        value = combine(value, other);
        distance /= 2;
    }
    value
}

/// Combines `value` over all threads of the block; each of them gets the result. `combine` is commutative, and `identity`
/// changes nothing.
///
/// # Safety
/// All threads of the block call it together; the block is one-dimensional, its size a multiple of 32.
/// `scratch` has room for [`MAX_WARPS`] and is used by nothing else between the barriers before and after.
#[inline(always)]
pub unsafe fn reduce_block<T: WarpValue + SharedValue>(
    scratch: SharedPtr<T>,
    value: T,
    identity: T,
    combine: impl Fn(T, T) -> T + Copy,
) -> T {
    let warps = thread::block_dim_x() / WARP;
    let (warp, lane) = (thread::thread_idx_x() / WARP, thread::thread_idx_x() % WARP);
    // SAFETY: whole warps take part, each writes its own slot, and a barrier stands between the writes and the reads.
    unsafe {
        let of_warp = reduce_warp(value, combine);
        if warps == 1 {
            return of_warp;
        }
        if lane == 0 {
            scratch.add(warp).write(of_warp);
        }
        thread::sync_threads();
        let of_lane = if lane < warps {
            scratch.add(lane).read()
        } else {
            identity
        };
        reduce_warp(of_lane, combine)
    }
}
