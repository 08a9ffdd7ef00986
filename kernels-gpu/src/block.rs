//! Reductions over the threads of a block: each warp, then the warps' results, through shared memory. Floats by shuffles, integers
//! by `redux` where there is one.
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

/// The sum over the lanes of a warp, in each of them.
///
/// # Safety
/// All lanes of the warp call it together.
#[inline(always)]
pub unsafe fn sum_warp(value: i32) -> i32 {
    // SAFETY: the caller's contract.
    unsafe {
        #[cfg(target_feature = "sm_80")]
        return warp::warp_reduce_add_i32(FULL_WARP, value);
        #[cfg(not(target_feature = "sm_80"))]
        return reduce_warp(value, |a, b| a + b);
    }
}

/// The largest value of a warp's lanes, in each of them.
///
/// # Safety
/// As [`sum_warp`].
#[inline(always)]
unsafe fn max_warp(value: i32) -> i32 {
    // SAFETY: the caller's contract.
    unsafe {
        #[cfg(target_feature = "sm_80")]
        return warp::warp_reduce_max_i32(FULL_WARP, value);
        #[cfg(not(target_feature = "sm_80"))]
        return reduce_warp(value, |a, b| a.max(b));
    }
}

/// The sum over all threads of the block, in each of them: the lanes of each warp, then the warps.
///
/// # Safety
/// All threads of the block call it together; the block is one-dimensional, its size a multiple of 32.
/// `scratch` has room for [`MAX_WARPS`] and is used by nothing else between the barriers before and after.
#[inline(always)]
pub unsafe fn sum_f32(scratch: SharedPtr<f32>, value: f32) -> f32 {
    // SAFETY: the caller's contract.
    unsafe {
        reduce(scratch, value, 0.0, |value| {
            reduce_warp(value, |a, b| a + b)
        })
    }
}

/// As [`sum_f32`], of integers.
///
/// # Safety
/// As [`sum_f32`].
#[inline(always)]
pub unsafe fn sum_i32(scratch: SharedPtr<i32>, value: i32) -> i32 {
    // SAFETY: the caller's contract.
    unsafe { reduce(scratch, value, 0, |value| sum_warp(value)) }
}

/// The largest value of the block's threads, at least 0.
///
/// # Safety
/// As [`sum_f32`].
#[inline(always)]
pub unsafe fn max_i32(scratch: SharedPtr<i32>, value: i32) -> i32 {
    // SAFETY: the caller's contract.
    unsafe { reduce(scratch, value, 0, |value| max_warp(value)) }
}

/// Reduces each warp by `of_warp`, then the warps' results; `identity` stands for absent warps.
#[inline(always)]
unsafe fn reduce<T: WarpValue + SharedValue>(
    scratch: SharedPtr<T>,
    value: T,
    identity: T,
    of_warp: impl Fn(T) -> T,
) -> T {
    let warps = thread::block_dim_x() / WARP;
    let (warp, lane) = (thread::thread_idx_x() / WARP, thread::thread_idx_x() % WARP);
    // SAFETY: whole warps take part, each writes its own slot, and a barrier stands between the writes and the reads.
    unsafe {
        let own = of_warp(value);
        if warps == 1 {
            return own;
        }
        if lane == 0 {
            scratch.add(warp).write(own);
        }
        thread::sync_threads();
        let of_lane = if lane < warps {
            scratch.add(lane).read()
        } else {
            identity
        };
        of_warp(of_lane)
    }
}
