//! Reductions over the threads of a block: within each warp, then over the warps' results, through shared memory. Floats are reduced
//! with shuffles, integers with `redux` where the architecture has it.
//!
//! The reduction tree depends only on the number of threads, so float sums are the same in every run and on every device.

use cuda_std::shared::{SharedPtr, SharedValue};
use cuda_std::thread;
use cuda_std::warp::{self, FULL_MASK, WARP_SIZE, WarpValue};

/// Maximum number of warps per block.
pub const MAX_WARPS: usize = 32;

/// Combines `value` over the lanes of a warp, at distances 16, 8, 4, 2, 1; every lane gets the result.
///
/// # Safety
/// All lanes of the warp call it together.
#[inline(always)]
unsafe fn reduce_warp<T: WarpValue>(mut value: T, combine: impl Fn(T, T) -> T) -> T {
    let mut distance = WARP_SIZE / 2;
    while distance > 0 {
        // SAFETY: the caller's contract: all lanes of the full mask take part.
        let other = unsafe { warp::warp_shuffle_xor(FULL_MASK, value, distance, WARP_SIZE) };
        value = combine(value, other);
        distance /= 2;
    }
    value
}

/// The sum over the lanes of a warp, returned to every lane.
///
/// # Safety
/// All lanes of the warp call it together.
#[inline(always)]
pub unsafe fn sum_warp(value: i32) -> i32 {
    // SAFETY: the caller's contract.
    unsafe {
        #[cfg(target_feature = "sm_80")]
        return warp::warp_reduce_add_i32(FULL_MASK, value);
        #[cfg(not(target_feature = "sm_80"))]
        return reduce_warp(value, |a, b| a + b);
    }
}

/// The maximum over the lanes of a warp, returned to every lane.
///
/// # Safety
/// As [`sum_warp`].
#[inline(always)]
unsafe fn max_warp(value: i32) -> i32 {
    // SAFETY: the caller's contract.
    unsafe {
        #[cfg(target_feature = "sm_80")]
        return warp::warp_reduce_max_i32(FULL_MASK, value);
        #[cfg(not(target_feature = "sm_80"))]
        return reduce_warp(value, |a, b| a.max(b));
    }
}

/// The sum over all threads of the block, returned to every thread: over the lanes of each warp, then over the warps.
///
/// # Safety
/// All threads of the block call it together; the block is one-dimensional, its size a multiple of 32.
/// `scratch` has room for [`MAX_WARPS`] values and is used for nothing else between the barriers before and after the call.
#[inline(always)]
pub unsafe fn sum_f32(scratch: SharedPtr<f32>, value: f32) -> f32 {
    // SAFETY: the caller's contract.
    unsafe {
        reduce(scratch, value, 0.0, |value| {
            reduce_warp(value, |a, b| a + b)
        })
    }
}

/// As [`sum_f32`], for integers.
///
/// # Safety
/// As [`sum_f32`].
#[inline(always)]
pub unsafe fn sum_i32(scratch: SharedPtr<i32>, value: i32) -> i32 {
    // SAFETY: the caller's contract.
    unsafe { reduce(scratch, value, 0, |value| sum_warp(value)) }
}

/// The maximum of 0 and the values of all threads of the block, returned to every thread.
///
/// # Safety
/// As [`sum_f32`].
#[inline(always)]
pub unsafe fn max_i32(scratch: SharedPtr<i32>, value: i32) -> i32 {
    // SAFETY: the caller's contract.
    unsafe { reduce(scratch, value, 0, |value| max_warp(value)) }
}

/// Reduces each warp with `of_warp`, then the warps' results; `identity` is the value of absent warps.
#[inline(always)]
unsafe fn reduce<T: WarpValue + SharedValue>(
    scratch: SharedPtr<T>,
    value: T,
    identity: T,
    of_warp: impl Fn(T) -> T,
) -> T {
    let warps = thread::block_dim_x() / WARP_SIZE;
    let (warp, lane) = (
        thread::thread_idx_x() / WARP_SIZE,
        thread::thread_idx_x() % WARP_SIZE,
    );
    // SAFETY: whole warps take part, each writes its own slot, and a barrier separates the writes from the reads.
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
