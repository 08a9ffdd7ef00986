//! Memory, and copies between host and device.

use std::ffi::{c_int, c_void};

use crate::{
    context::Work,
    driver::{MEMORY_BYTES, with_context},
    status::{INVALID_VALUE, OUT_OF_MEMORY},
};

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) -> c_int {
    with_context("cuMemGetInfo_v2", |context| {
        let used: usize = context.allocations.values().sum();
        // SAFETY: the caller passes pointers that are valid for the write.
        unsafe {
            free.write(MEMORY_BYTES as usize - used);
            total.write(MEMORY_BYTES as usize);
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemAlloc_v2(address: *mut u64, bytes: usize) -> c_int {
    with_context("cuMemAlloc_v2", |context| {
        if bytes == 0 {
            return Err(INVALID_VALUE);
        }
        let allocated = context.emulator.alloc(bytes).map_err(|_| OUT_OF_MEMORY)?;
        context.allocations.insert(allocated, bytes);
        // SAFETY: the caller passes a pointer that is valid for the write.
        unsafe { address.write(allocated) };
        Ok(())
    })
}

/// Frees at once: pending work that uses the memory then fails.
#[unsafe(no_mangle)]
extern "C" fn cuMemFree_v2(address: u64) -> c_int {
    with_context("cuMemFree_v2", |context| {
        context.allocations.remove(&address).ok_or(INVALID_VALUE)?;
        context.emulator.free(address).map_err(|_| INVALID_VALUE)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyHtoDAsync_v2(
    address: u64,
    host: *const c_void,
    len: usize,
    stream: *mut c_void,
) -> c_int {
    with_context("cuMemcpyHtoDAsync_v2", |context| {
        let host = host.expose_provenance();
        context
            .submit(stream, Work::ToDevice { address, host, len })
            .map(drop)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyDtoHAsync_v2(
    host: *mut c_void,
    address: u64,
    len: usize,
    stream: *mut c_void,
) -> c_int {
    with_context("cuMemcpyDtoHAsync_v2", |context| {
        let host = host.expose_provenance();
        context
            .submit(stream, Work::ToHost { host, address, len })
            .map(drop)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemsetD8Async(address: u64, value: u8, len: usize, stream: *mut c_void) -> c_int {
    with_context("cuMemsetD8Async", |context| {
        context
            .submit(
                stream,
                Work::Fill {
                    address,
                    value,
                    len,
                },
            )
            .map(drop)
    })
}
