//! Atomic operations on global memory, at device scope.
//!
//! Named as in Rust-CUDA: operation, ordering, type, scope. `relaxed` does not order other accesses; a `release` and the
//! `acquire` that reads its value pass data between threads, and `acqrel` is both. A `fetch` returns the value before the
//! operation; the `red` forms return nothing, which lets the thread continue without waiting.

use crate::gpu_only;
#[cfg(target_arch = "nvptx64")]
use core::arch::asm;

macro_rules! fetch {
    ($($(#[$doc:meta])* fn $name:ident($ty:ty) = $ptx:literal;)*) => {$(
        $(#[$doc])*
        ///
        /// # Safety
        /// `ptr` is a global address, aligned to the value's size, that can be read and written.
        #[gpu_only]
        pub unsafe fn $name(ptr: *mut $ty, value: $ty) -> $ty {
            let old: $ty;
            // SAFETY: the caller's promise.
            unsafe {
                asm!(concat!($ptx, " {}, [{}], {};"), out(reg32) old, in(reg64) ptr, in(reg32) value,
                    options(nostack, preserves_flags));
            }
            old
        }
    )*};
}

fetch! {
    /// Adds, modulo 2^32. PTX: `atom.relaxed.gpu.global.add.u32`; sm_70.
    fn atomic_fetch_add_relaxed_u32_device(u32) = "atom.relaxed.gpu.global.add.u32";
    /// Adds, modulo 2^32. PTX: `atom.relaxed.gpu.global.add.s32`; sm_70.
    fn atomic_fetch_add_relaxed_i32_device(i32) = "atom.relaxed.gpu.global.add.s32";
    /// Adds; the order of threads decides the rounding. PTX: `atom.relaxed.gpu.global.add.f32`; sm_70.
    fn atomic_fetch_add_relaxed_f32_device(f32) = "atom.relaxed.gpu.global.add.f32";
    /// Keeps the smaller value. PTX: `atom.relaxed.gpu.global.min.u32`; sm_70.
    fn atomic_fetch_min_relaxed_u32_device(u32) = "atom.relaxed.gpu.global.min.u32";
    /// Keeps the larger value. PTX: `atom.relaxed.gpu.global.max.u32`; sm_70.
    fn atomic_fetch_max_relaxed_u32_device(u32) = "atom.relaxed.gpu.global.max.u32";
    /// Adds 1, or wraps to 0 if the value has reached the argument; a thread that acquires the new value sees what this thread wrote
    /// before. Counts blocks and ends at 0 again. PTX: `atom.acq_rel.gpu.global.inc.u32`; sm_70.
    fn atomic_fetch_inc_acqrel_u32_device(u32) = "atom.acq_rel.gpu.global.inc.u32";
    /// Adds, modulo 2^32; a thread that acquires the new value sees what this thread wrote before. Counts finished blocks.
    /// PTX: `atom.acq_rel.gpu.global.add.u32`; sm_70.
    fn atomic_fetch_add_acqrel_u32_device(u32) = "atom.acq_rel.gpu.global.add.u32";
}

macro_rules! red {
    ($($(#[$doc:meta])* fn $name:ident($ty:ty) = $ptx:literal;)*) => {$(
        $(#[$doc])*
        ///
        /// # Safety
        /// `ptr` is a global address, aligned to the value's size, that can be read and written.
        #[gpu_only]
        pub unsafe fn $name(ptr: *mut $ty, value: $ty) {
            // SAFETY: the caller's promise.
            unsafe {
                asm!(concat!($ptx, " [{}], {};"), in(reg64) ptr, in(reg32) value, options(nostack, preserves_flags));
            }
        }
    )*};
}

red! {
    /// Adds, modulo 2^32. PTX: `red.relaxed.gpu.global.add.u32`; sm_70.
    fn atomic_red_add_relaxed_u32_device(u32) = "red.relaxed.gpu.global.add.u32";
    /// Adds, modulo 2^32. PTX: `red.relaxed.gpu.global.add.s32`; sm_70.
    fn atomic_red_add_relaxed_i32_device(i32) = "red.relaxed.gpu.global.add.s32";
    /// Adds; the order of threads decides the rounding. PTX: `red.relaxed.gpu.global.add.f32`; sm_70.
    fn atomic_red_add_relaxed_f32_device(f32) = "red.relaxed.gpu.global.add.f32";
}

/// Loads; afterwards this thread sees what the thread that released the value wrote before. PTX: `ld.acquire.gpu.global.u32`; sm_70.
///
/// # Safety
/// `ptr` is a global address, aligned to 4 bytes, that can be read.
#[gpu_only]
pub unsafe fn atomic_load_acquire_u32_device(ptr: *const u32) -> u32 {
    let value: u32;
    // SAFETY: the caller's promise.
    unsafe {
        asm!("ld.acquire.gpu.global.u32 {}, [{}];", out(reg32) value, in(reg64) ptr, options(nostack, preserves_flags));
    }
    value
}

/// Stores; a thread that acquires this value sees what this thread wrote before. PTX: `st.release.gpu.global.u32`;
/// sm_70.
///
/// # Safety
/// `ptr` is a global address, aligned to 4 bytes, that can be written.
#[gpu_only]
pub unsafe fn atomic_store_release_u32_device(ptr: *mut u32, value: u32) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!("st.release.gpu.global.u32 [{}], {};", in(reg64) ptr, in(reg32) value, options(nostack, preserves_flags));
    }
}
