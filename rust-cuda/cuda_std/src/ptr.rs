//! Loads and stores of global memory with a chosen width and cache behaviour.
//!
//! A plain `ptr::read` of [`U32x4`] is one 128-bit load if its words are used one by one, and two 64-bit ones if it is
//! only copied. These functions are always one instruction, and express what plain Rust cannot: that data is read-only
//! for the whole launch (`.nc`), and how long it is worth keeping in a cache.

use crate::gpu_only;
#[cfg(target_arch = "nvptx64")]
use core::arch::asm;

/// Two words, moved by one 64-bit instruction.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct U32x2(pub [u32; 2]);

/// Four words, moved by one 128-bit instruction.
#[repr(C, align(16))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct U32x4(pub [u32; 4]);

#[cfg(target_arch = "nvptx64")]
macro_rules! load_v4 {
    ($ptx:literal, $ptr:expr) => {{
        let (a, b, c, d): (u32, u32, u32, u32);
        // SAFETY: the caller's promise that 16 bytes at `ptr` can be read. As nothing writes them while the kernel
        // runs, the load is a pure function of the address (`nomem`), and LLVM may schedule it freely.
        unsafe {
            asm!(concat!($ptx, " {{{}, {}, {}, {}}}, [{}];"),
                out(reg32) a, out(reg32) b, out(reg32) c, out(reg32) d, in(reg64) $ptr,
                options(pure, nomem, nostack, preserves_flags));
        }
        U32x4([a, b, c, d])
    }};
}

/// Loads 16 bytes of read-only data through the L1 cache. For data that other threads read too.
/// PTX: `ld.global.nc.v4.u32`; sm_32.
///
/// # Safety
/// `ptr` is a global address, aligned to 16 bytes, 16 bytes are readable there, and nothing writes them while the
/// kernel runs.
#[gpu_only]
pub unsafe fn load_nc_v4(ptr: *const U32x4) -> U32x4 {
    load_v4!("ld.global.nc.v4.u32", ptr)
}

/// Loads 16 bytes of read-only data that will not be read again, without allocating a line in L1.
/// PTX: `ld.global.nc.L1::no_allocate.v4.u32`; sm_70.
///
/// # Safety
/// As [`load_nc_v4`].
#[gpu_only]
pub unsafe fn load_nc_streaming_v4(ptr: *const U32x4) -> U32x4 {
    load_v4!("ld.global.nc.L1::no_allocate.v4.u32", ptr)
}

/// [`load_nc_streaming_v4`] if `condition` holds, else zeros. LLVM does not move the load to where its value is used.
/// PTX: `ld.global.nc.L1::no_allocate.v4.u32`; sm_70.
///
/// # Safety
/// As [`load_nc_v4`] if `condition` holds; otherwise `ptr` may be anything.
#[gpu_only]
pub unsafe fn load_nc_streaming_v4_if(ptr: *const U32x4, condition: bool) -> U32x4 {
    let (mut a, mut b, mut c, mut d): (u32, u32, u32, u32) = (0, 0, 0, 0);
    // SAFETY: the caller's promise; the load is predicated.
    unsafe {
        asm!(
            "{{.reg .pred p;",
            "setp.ne.u32 p, {}, 0;",
            "@p ld.global.nc.L1::no_allocate.v4.u32 {{{}, {}, {}, {}}}, [{}];",
            "}}",
            in(reg32) u32::from(condition),
            inout(reg32) a, inout(reg32) b, inout(reg32) c, inout(reg32) d, in(reg64) ptr,
            options(nomem, nostack, preserves_flags));
    }
    U32x4([a, b, c, d])
}

/// [`load_nc_streaming_v4`], which also asks L2 to fetch the whole 128-byte line.
/// PTX: `ld.global.nc.L1::no_allocate.L2::128B.v4.u32`; sm_75.
///
/// # Safety
/// As [`load_nc_v4`].
#[gpu_only]
pub unsafe fn load_nc_streaming_l2_128b_v4(ptr: *const U32x4) -> U32x4 {
    load_v4!("ld.global.nc.L1::no_allocate.L2::128B.v4.u32", ptr)
}

/// Loads 16 bytes. PTX: `ld.global.v4.u32`; any architecture.
///
/// # Safety
/// `ptr` is a global address, aligned to 16 bytes, 16 bytes are readable there, and no other thread writes them without a
/// barrier or a fence in between.
#[gpu_only]
pub unsafe fn load_v4(ptr: *const U32x4) -> U32x4 {
    let (a, b, c, d): (u32, u32, u32, u32);
    // SAFETY: the caller's promise. `readonly`, not `nomem`: the load is not moved across barriers and stores.
    unsafe {
        asm!("ld.global.v4.u32 {{{}, {}, {}, {}}}, [{}];",
            out(reg32) a, out(reg32) b, out(reg32) c, out(reg32) d, in(reg64) ptr,
            options(pure, readonly, nostack, preserves_flags));
    }
    U32x4([a, b, c, d])
}

/// Loads 8 bytes of read-only data through the L1 cache. PTX: `ld.global.nc.v2.u32`; sm_32.
///
/// # Safety
/// As [`load_nc_v4`], with 8 bytes.
#[gpu_only]
pub unsafe fn load_nc_v2(ptr: *const U32x2) -> U32x2 {
    let (a, b): (u32, u32);
    // SAFETY: as in `load_v4`.
    unsafe {
        asm!("ld.global.nc.v2.u32 {{{}, {}}}, [{}];", out(reg32) a, out(reg32) b, in(reg64) ptr,
            options(pure, nomem, nostack, preserves_flags));
    }
    U32x2([a, b])
}

/// Loads 4 bytes of read-only data through the L1 cache. PTX: `ld.global.nc.u32`; sm_32.
///
/// # Safety
/// As [`load_nc_v4`], with 4 bytes.
#[gpu_only]
pub unsafe fn load_nc(ptr: *const u32) -> u32 {
    let value: u32;
    // SAFETY: as in `load_v4`.
    unsafe {
        asm!("ld.global.nc.u32 {}, [{}];", out(reg32) value, in(reg64) ptr,
            options(pure, nomem, nostack, preserves_flags));
    }
    value
}

/// Prefetches the cache line of `ptr` into L2. An address that cannot be read is ignored.
/// PTX: `prefetch.global.L2`; any architecture.
#[gpu_only]
pub fn prefetch_l2<T>(ptr: *const T) {
    // SAFETY: a hint; it reads nothing that the program sees.
    unsafe { asm!("prefetch.global.L2 [{}];", in(reg64) ptr, options(nostack, preserves_flags)) }
}

/// Maximum number of bytes of [`prefetch_l2_bulk`]: the machine instruction has a 16-bit field in units of 16 bytes, and drops higher bits.
pub const MAX_BULK_BYTES: u32 = 0xffff * 16;

/// Prefetches `bytes` bytes from `ptr` on, at most [`MAX_BULK_BYTES`], into L2. PTX: `cp.async.bulk.prefetch.L2.global`; sm_90.
///
/// # Safety
/// `ptr` is a global address, aligned to 16 bytes; `bytes` is a multiple of 16, and that many bytes are readable there.
#[cfg(any(target_feature = "sm_90", not(target_arch = "nvptx64")))]
#[gpu_only]
pub unsafe fn prefetch_l2_bulk<T>(ptr: *const T, bytes: u32) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!("cp.async.bulk.prefetch.L2.global [{}], {};", in(reg64) ptr, in(reg32) bytes, options(nostack, preserves_flags));
    }
}

/// Stores 16 bytes. PTX: `st.global.v4.u32`; any architecture.
///
/// # Safety
/// `ptr` is a global address, aligned to 16 bytes, and 16 bytes are writable there by this thread alone.
#[gpu_only]
pub unsafe fn store_v4(ptr: *mut U32x4, value: U32x4) {
    let [a, b, c, d] = value.0;
    // SAFETY: the caller's promise.
    unsafe {
        asm!("st.global.v4.u32 [{}], {{{}, {}, {}, {}}};",
            in(reg64) ptr, in(reg32) a, in(reg32) b, in(reg32) c, in(reg32) d,
            options(nostack, preserves_flags));
    }
}

/// Stores 8 bytes. PTX: `st.global.v2.u32`; any architecture.
///
/// # Safety
/// As [`store_v4`], with 8 bytes.
#[gpu_only]
pub unsafe fn store_v2(ptr: *mut U32x2, value: U32x2) {
    let [a, b] = value.0;
    // SAFETY: the caller's promise.
    unsafe {
        asm!("st.global.v2.u32 [{}], {{{}, {}}};", in(reg64) ptr, in(reg32) a, in(reg32) b,
            options(nostack, preserves_flags));
    }
}

/// Stores 16 bytes that this device will not read again soon. PTX: `st.global.cs.v4.u32`; any architecture.
///
/// # Safety
/// `ptr` is a global address, aligned to 16 bytes, and 16 bytes are writable there by this thread alone.
#[gpu_only]
pub unsafe fn store_streaming_v4(ptr: *mut U32x4, value: U32x4) {
    let [a, b, c, d] = value.0;
    // SAFETY: the caller's promise.
    unsafe {
        asm!("st.global.cs.v4.u32 [{}], {{{}, {}, {}, {}}};",
            in(reg64) ptr, in(reg32) a, in(reg32) b, in(reg32) c, in(reg32) d,
            options(nostack, preserves_flags));
    }
}
