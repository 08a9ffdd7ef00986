//! Asynchronous copies from global to shared memory, which proceed while the thread does other work. Requires sm_80.
//!
//! A thread issues copies, commits them as a group ([`commit_group`]), and later waits until all but the most recent
//! groups are complete ([`wait_group`]). The wait covers its own copies only: a barrier makes them visible to the block.

#![cfg(any(target_feature = "sm_80", not(target_arch = "nvptx64")))]

use crate::gpu_only;
use crate::ptr::{U32x2, U32x4};
use crate::shared::SharedPtr;
#[cfg(target_arch = "nvptx64")]
use core::arch::asm;

/// Starts copying 4 bytes. PTX: `cp.async.ca.shared.global`; sm_80.
///
/// # Safety
/// `from` is a global address with 4 readable bytes and `to` has 4 writable ones, both aligned to 4; no thread
/// accesses `to` until the copy has been waited for.
#[gpu_only]
pub unsafe fn copy_async_4(to: SharedPtr<u32>, from: *const u32) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!("cp.async.ca.shared.global [{}], [{}], 4;", in(reg32) to.address(), in(reg64) from,
            options(nostack, preserves_flags));
    }
}

/// Starts copying 8 bytes. PTX: `cp.async.ca.shared.global`; sm_80.
///
/// # Safety
/// As [`copy_async_4`], with 8 bytes.
#[gpu_only]
pub unsafe fn copy_async_8(to: SharedPtr<U32x2>, from: *const U32x2) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!("cp.async.ca.shared.global [{}], [{}], 8;", in(reg32) to.address(), in(reg64) from,
            options(nostack, preserves_flags));
    }
}

/// Starts copying 16 bytes, bypassing L1. PTX: `cp.async.cg.shared.global`; sm_80.
///
/// # Safety
/// As [`copy_async_4`], with 16 bytes.
#[gpu_only]
pub unsafe fn copy_async_16(to: SharedPtr<U32x4>, from: *const U32x4) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!("cp.async.cg.shared.global [{}], [{}], 16;", in(reg32) to.address(), in(reg64) from,
            options(nostack, preserves_flags));
    }
}

/// Starts copying `len` bytes (0 to 16), bypassing L1, and pads them with zeros to 16: for the last, partial piece of a row.
/// PTX: `cp.async.cg.shared.global`; sm_80.
///
/// # Safety
/// As [`copy_async_4`], with `len` readable and 16 writable bytes, aligned to 16.
#[gpu_only]
pub unsafe fn copy_async_16_zero_fill(to: SharedPtr<U32x4>, from: *const U32x4, len: u32) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!("cp.async.cg.shared.global [{}], [{}], 16, {};", in(reg32) to.address(), in(reg64) from, in(reg32) len,
            options(nostack, preserves_flags));
    }
}

/// Commits the copies issued since the last call as a group. PTX: `cp.async.commit_group`; sm_80.
#[gpu_only]
pub fn commit_group() {
    // SAFETY: bookkeeping of the thread's own copies.
    unsafe { asm!("cp.async.commit_group;", options(nostack, preserves_flags)) }
}

/// Waits until at most the `NEWEST` most recent groups are pending. PTX: `cp.async.wait_group`; sm_80.
#[gpu_only]
pub fn wait_group<const NEWEST: u32>() {
    // SAFETY: waits only. To LLVM it accesses memory, so reads of the copied data are not moved before it.
    unsafe { asm!("cp.async.wait_group {};", const NEWEST, options(nostack, preserves_flags)) }
}

/// Waits for all copies that this thread issued. PTX: `cp.async.wait_all`; sm_80.
#[gpu_only]
pub fn wait_all() {
    // SAFETY: as in `wait_group`.
    unsafe { asm!("cp.async.wait_all;", options(nostack, preserves_flags)) }
}
