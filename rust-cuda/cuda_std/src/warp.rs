//! Operations that the 32 lanes of a warp execute together.
//!
//! `mask` has a bit set for each lane that takes part ([`FULL_MASK`]: all 32). Every lane in it, including the
//! calling lane, must reach the same call with the same mask. The result for a lane that reads from one outside
//! the mask is undefined. Shuffles and reductions work on 32 bits.

use crate::gpu_only;
#[cfg(target_arch = "nvptx64")]
use crate::llvm;

/// Lanes in a warp.
pub const WARP_SIZE: u32 = 32;

/// The mask of all 32 lanes.
pub const FULL_MASK: u32 = 0xffff_ffff;

/// 32-bit values that lanes can exchange.
pub trait WarpValue: Copy + sealed::Sealed {
    /// The value's bits.
    fn to_lane_bits(self) -> u32;
    /// The value with these bits.
    fn from_lane_bits(bits: u32) -> Self;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for u32 {}
    impl Sealed for i32 {}
    impl Sealed for f32 {}
}

impl WarpValue for u32 {
    #[inline(always)]
    fn to_lane_bits(self) -> u32 {
        self
    }
    #[inline(always)]
    fn from_lane_bits(bits: u32) -> Self {
        bits
    }
}

impl WarpValue for i32 {
    #[inline(always)]
    fn to_lane_bits(self) -> u32 {
        self as u32
    }
    #[inline(always)]
    fn from_lane_bits(bits: u32) -> Self {
        bits as i32
    }
}

impl WarpValue for f32 {
    #[inline(always)]
    fn to_lane_bits(self) -> u32 {
        self.to_bits()
    }
    #[inline(always)]
    fn from_lane_bits(bits: u32) -> Self {
        f32::from_bits(bits)
    }
}

/// The lane's index in its warp, 0 to 31. PTX: `mov.u32 %laneid`; any architecture.
#[gpu_only]
pub fn lane_id() -> u32 {
    llvm::laneid() as u32
}

/// A mask of the lanes with a lower index than this one. PTX: `mov.u32 %lanemask_lt`; any architecture.
#[gpu_only]
pub fn lane_mask_lt() -> u32 {
    llvm::lanemask_lt() as u32
}

/// A mask of the lanes that happen to execute this together. It says nothing about which lanes *should*:
/// use it to find out, never as the `mask` of a warp that is meant to be whole. PTX: `activemask.b32`; sm_30.
#[gpu_only]
pub fn activemask() -> u32 {
    // SAFETY: reads the execution mask only.
    unsafe { llvm::activemask() as u32 }
}

/// Waits for the lanes of `mask`, and orders their memory accesses among them. CUDA's `__syncwarp`.
/// PTX: `bar.warp.sync`; sm_30.
///
/// # Safety
/// All lanes of `mask`, including this one, execute this call.
#[gpu_only]
pub unsafe fn sync_warp(mask: u32) {
    // SAFETY: the caller's promise.
    unsafe { llvm::bar_warp_sync(mask as i32) }
}

/// The clamp operand of `shfl.sync`: the last lane of the segment, and above it a mask of the lane index bits that
/// select the segment.
#[cfg(target_arch = "nvptx64")]
const fn segment(width: u32, clamp: u32) -> i32 {
    (((WARP_SIZE - width) << 8) | clamp) as i32
}

/// The value held by the lane whose index is this lane's index XOR `lane_mask`. The butterfly step of a
/// reduction. `width`: the warp is split into segments of that many lanes (a power of two up to 32), and a lane
/// whose source is in a later segment gets its own value. PTX: `shfl.sync.bfly.b32`; sm_30.
///
/// # Safety
/// All lanes of `mask`, including this one and its source, execute this call; `width` is a power of two up to 32.
#[gpu_only]
pub unsafe fn warp_shuffle_xor<T: WarpValue>(mask: u32, value: T, lane_mask: u32, width: u32) -> T {
    // SAFETY: the caller's promise.
    T::from_lane_bits(unsafe {
        llvm::shfl_sync_bfly(
            mask as i32,
            value.to_lane_bits() as i32,
            lane_mask as i32,
            segment(width, 31),
        ) as u32
    })
}

/// The value held by the lane `delta` above this one; a lane whose source is past the end of its segment of
/// `width` lanes gets its own value. PTX: `shfl.sync.down.b32`; sm_30.
///
/// # Safety
/// As [`warp_shuffle_xor`].
#[gpu_only]
pub unsafe fn warp_shuffle_down<T: WarpValue>(mask: u32, value: T, delta: u32, width: u32) -> T {
    // SAFETY: the caller's promise.
    T::from_lane_bits(unsafe {
        llvm::shfl_sync_down(
            mask as i32,
            value.to_lane_bits() as i32,
            delta as i32,
            segment(width, 31),
        ) as u32
    })
}

/// The value held by the lane `delta` below this one; a lane whose source is before the start of its segment of
/// `width` lanes gets its own value. PTX: `shfl.sync.up.b32`; sm_30.
///
/// # Safety
/// As [`warp_shuffle_xor`].
#[gpu_only]
pub unsafe fn warp_shuffle_up<T: WarpValue>(mask: u32, value: T, delta: u32, width: u32) -> T {
    // SAFETY: the caller's promise.
    T::from_lane_bits(unsafe {
        llvm::shfl_sync_up(
            mask as i32,
            value.to_lane_bits() as i32,
            delta as i32,
            segment(width, 0),
        ) as u32
    })
}

/// The value held by lane `idx` (modulo `width`) of this lane's segment of `width` lanes: a broadcast.
/// PTX: `shfl.sync.idx.b32`; sm_30.
///
/// # Safety
/// As [`warp_shuffle_xor`].
#[gpu_only]
pub unsafe fn warp_shuffle_idx<T: WarpValue>(mask: u32, value: T, idx: u32, width: u32) -> T {
    // SAFETY: the caller's promise.
    T::from_lane_bits(unsafe {
        llvm::shfl_sync_idx(
            mask as i32,
            value.to_lane_bits() as i32,
            idx as i32,
            segment(width, 31),
        ) as u32
    })
}

/// Whether `predicate` is true in every lane of `mask`. PTX: `vote.sync.all.pred`; sm_30.
///
/// # Safety
/// All lanes of `mask`, including this one, execute this call.
#[gpu_only]
pub unsafe fn warp_vote_all(mask: u32, predicate: bool) -> bool {
    // SAFETY: the caller's promise.
    unsafe { llvm::vote_all_sync(mask as i32, predicate) }
}

/// Whether `predicate` is true in any lane of `mask`. PTX: `vote.sync.any.pred`; sm_30.
///
/// # Safety
/// As [`warp_vote_all`].
#[gpu_only]
pub unsafe fn warp_vote_any(mask: u32, predicate: bool) -> bool {
    // SAFETY: the caller's promise.
    unsafe { llvm::vote_any_sync(mask as i32, predicate) }
}

/// A mask of the lanes of `mask` in which `predicate` is true. PTX: `vote.sync.ballot.b32`; sm_30.
///
/// # Safety
/// As [`warp_vote_all`].
#[gpu_only]
pub unsafe fn warp_vote_ballot(mask: u32, predicate: bool) -> u32 {
    // SAFETY: the caller's promise.
    unsafe { llvm::vote_ballot_sync(mask as i32, predicate) as u32 }
}

/// A mask of the lanes of `mask` that hold the same `value` as this one. PTX: `match.any.sync.b32`; sm_70.
///
/// # Safety
/// As [`warp_vote_all`].
#[gpu_only]
pub unsafe fn warp_match_any(mask: u32, value: u32) -> u32 {
    // SAFETY: the caller's promise.
    unsafe { llvm::match_any_sync(mask as i32, value as i32) as u32 }
}

macro_rules! reductions {
    ($($(#[$doc:meta])* fn $name:ident($ty:ty) = $intrinsic:ident;)*) => {$(
        $(#[$doc])*
        ///
        /// # Safety
        /// As [`warp_vote_all`].
        #[cfg(any(target_feature = "sm_80", not(target_arch = "nvptx64")))]
        #[gpu_only]
        pub unsafe fn $name(mask: u32, value: $ty) -> $ty {
            // SAFETY: the caller's promise.
            unsafe { llvm::$intrinsic(value as i32, mask as i32) as $ty }
        }
    )*};
}

reductions! {
    /// The sum over the lanes of `mask`, modulo 2^32, returned to each of them. PTX: `redux.sync.add.s32`; sm_80.
    fn warp_reduce_add_u32(u32) = redux_sync_add;
    /// The sum over the lanes of `mask`, modulo 2^32, returned to each of them. PTX: `redux.sync.add.s32`; sm_80.
    fn warp_reduce_add_i32(i32) = redux_sync_add;
    /// The minimum over the lanes of `mask`, returned to each of them. PTX: `redux.sync.min.u32`; sm_80.
    fn warp_reduce_min_u32(u32) = redux_sync_umin;
    /// The minimum over the lanes of `mask`, returned to each of them. PTX: `redux.sync.min.s32`; sm_80.
    fn warp_reduce_min_i32(i32) = redux_sync_min;
    /// The maximum over the lanes of `mask`, returned to each of them. PTX: `redux.sync.max.u32`; sm_80.
    fn warp_reduce_max_u32(u32) = redux_sync_umax;
    /// The maximum over the lanes of `mask`, returned to each of them. PTX: `redux.sync.max.s32`; sm_80.
    fn warp_reduce_max_i32(i32) = redux_sync_max;
    /// Bitwise AND over the lanes of `mask`, returned to each of them. PTX: `redux.sync.and.b32`; sm_80.
    fn warp_reduce_and(u32) = redux_sync_and;
    /// Bitwise OR over the lanes of `mask`, returned to each of them. PTX: `redux.sync.or.b32`; sm_80.
    fn warp_reduce_or(u32) = redux_sync_or;
    /// Bitwise XOR over the lanes of `mask`, returned to each of them. PTX: `redux.sync.xor.b32`; sm_80.
    fn warp_reduce_xor(u32) = redux_sync_xor;
}
