//! Memory, and copies between host and device.

use std::ffi::{c_int, c_uint, c_void};

use crate::{
    context::{CopyRows, Work},
    driver::{MEMORY_BYTES, emulator_of, with_context},
    inject::Placed,
    status::{
        HOST_MEMORY_ALREADY_REGISTERED, HOST_MEMORY_NOT_REGISTERED, INVALID_CONTEXT, INVALID_VALUE,
        OUT_OF_MEMORY, SUCCESS,
    },
};

const PAGE_BYTES: usize = 4096;

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) -> c_int {
    with_context("cuMemGetInfo_v2", |context| {
        let used = context.allocations.values().sum::<usize>() + context.unused_of_pools();
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
        context.refuse_unsafe_call()?;
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
        context.refuse_unsafe_call()?;
        context.forget(address).ok_or(INVALID_VALUE)?;
        context.absent.remove(&address);
        context.emulator.free(address).map_err(|_| INVALID_VALUE)
    })
}

/// Refuses pages that are locked already, also in part; locks nothing.
#[unsafe(no_mangle)]
extern "C" fn cuMemHostRegister_v2(memory: *mut c_void, bytes: usize, flags: c_uint) -> c_int {
    with_context("cuMemHostRegister_v2", |context| {
        if memory.is_null() || bytes == 0 || flags > 1 {
            return Err(INVALID_VALUE);
        }
        context.refuse_unsafe_call()?;
        let start = memory.addr();
        let pages =
            |start: usize, len: usize| start / PAGE_BYTES..(start + len).div_ceil(PAGE_BYTES);
        let new = pages(start, bytes);
        let overlaps = |(&other, &len): (&usize, &usize)| {
            let old = pages(other, len);
            new.start < old.end && old.start < new.end
        };
        if context.registered.iter().any(overlaps) {
            return Err(HOST_MEMORY_ALREADY_REGISTERED);
        }
        context.registered.insert(start, bytes);
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemHostUnregister(memory: *mut c_void) -> c_int {
    with_context("cuMemHostUnregister", |context| {
        let registered = context.registered.remove(&memory.addr());
        registered.map(drop).ok_or(HOST_MEMORY_NOT_REGISTERED)
    })
}

/// Knows the attributes MEMORY_TYPE (2), IS_MANAGED (8), DEVICE_ORDINAL (9), RANGE_START_ADDR (11) and RANGE_SIZE (12). Of
/// an address that is in no allocation of any GPU, all are 0, but for the ordinal, which is `CU_DEVICE_INVALID`.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuPointerGetAttributes(
    count: c_uint,
    attributes: *const c_int,
    values: *const *mut c_void,
    address: u64,
) -> c_int {
    const DEVICE_MEMORY: c_uint = 2;
    const DEVICE_INVALID: c_int = -2;
    let driver = crate::driver::lock();
    let holding = |ordinal: usize| {
        let gpu = &driver.gpus[ordinal];
        let allocations = &gpu.context.as_ref()?.allocations;
        let allocated = allocations.iter().map(|(&base, &bytes)| Placed {
            base,
            bytes,
            memory_type: DEVICE_MEMORY,
            managed: false,
        });
        // One whose extent is not known has no bytes.
        let holds = |range: &Placed| {
            address >= range.base && address - range.base < range.bytes.max(1) as u64
        };
        let mut ranges = gpu.placed.iter().copied().chain(allocated);
        Some((ordinal, ranges.find(holds)?))
    };
    // Each GPU has an emulator of its own, and their addresses can be equal: then the current GPU's is meant.
    let found = crate::driver::current()
        .and_then(holding)
        .or_else(|| (0..driver.gpus.len()).find_map(holding));
    for index in 0..count as usize {
        // SAFETY: the caller passes `count` attributes, and a pointer for each that is valid for its value's write.
        unsafe {
            let value = *values.add(index);
            match *attributes.add(index) {
                2 => value
                    .cast::<c_uint>()
                    .write(found.map_or(0, |(_, range)| range.memory_type)),
                8 => value
                    .cast::<c_uint>()
                    .write(found.map_or(0, |(_, range)| range.managed.into())),
                9 => value
                    .cast::<c_int>()
                    .write(found.map_or(DEVICE_INVALID, |(ordinal, ..)| ordinal as c_int)),
                11 => value
                    .cast::<u64>()
                    .write(found.map_or(0, |(_, range)| range.base)),
                12 => value
                    .cast::<usize>()
                    .write(found.map_or(0, |(_, range)| range.bytes)),
                _ => return INVALID_VALUE,
            }
        }
    }
    SUCCESS
}

/// `CUDA_MEMCPY2D`, as `cuda.h` has it.
#[repr(C)]
struct Memcpy2d {
    src_x: usize,
    src_y: usize,
    src_type: c_uint,
    src_host: *const c_void,
    src_device: u64,
    src_array: *mut c_void,
    src_pitch: usize,
    dst_x: usize,
    dst_y: usize,
    dst_type: c_uint,
    dst_host: *mut c_void,
    dst_device: u64,
    dst_array: *mut c_void,
    dst_pitch: usize,
    width: usize,
    height: usize,
}

/// From device to device only.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemcpy2DAsync_v2(copy: *const c_void, stream: *mut c_void) -> c_int {
    const DEVICE: c_uint = 2;
    /// `CU_DEVICE_ATTRIBUTE_MAX_PITCH`.
    const MAX_PITCH: usize = i32::MAX as usize;
    with_context("cuMemcpy2DAsync_v2", |context| {
        // SAFETY: the caller passes a `CUDA_MEMCPY2D`.
        let copy = unsafe { &*copy.cast::<Memcpy2d>() };
        let whole = copy.src_x == 0 && copy.src_y == 0 && copy.dst_x == 0 && copy.dst_y == 0;
        let pitches = copy.src_pitch >= copy.width && copy.dst_pitch >= copy.width;
        let fits = copy.src_pitch <= MAX_PITCH && copy.dst_pitch <= MAX_PITCH;
        if copy.src_type != DEVICE || copy.dst_type != DEVICE || !whole || !pitches || !fits {
            return Err(INVALID_VALUE);
        }
        let work = Work::CopyRows(CopyRows {
            to: copy.dst_device,
            to_pitch: copy.dst_pitch,
            from: copy.src_device,
            from_pitch: copy.src_pitch,
            width: copy.width,
            rows: copy.height,
        });
        context.submit(stream, work).map(drop)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyDtoDAsync_v2(to: u64, from: u64, bytes: usize, stream: *mut c_void) -> c_int {
    with_context("cuMemcpyDtoDAsync_v2", |context| {
        let work = Work::CopyRows(CopyRows {
            to,
            to_pitch: bytes,
            from,
            from_pitch: bytes,
            width: bytes,
            rows: 1,
        });
        context.submit(stream, work).map(drop)
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

/// To the stream's GPU only. The other GPU's memory is read when the stream comes to it.
#[unsafe(no_mangle)]
extern "C" fn cuMemcpyPeerAsync(
    to: u64,
    to_context: *mut c_void,
    from: u64,
    from_context: *mut c_void,
    bytes: usize,
    stream: *mut c_void,
) -> c_int {
    let current = crate::driver::current();
    let Some(peer) = emulator_of(from_context) else {
        return INVALID_CONTEXT;
    };
    with_context("cuMemcpyPeerAsync", |context| {
        if to_context.addr().checked_sub(1) != current {
            return Err(INVALID_VALUE);
        }
        let work = Work::FromPeer {
            address: to,
            peer,
            peer_address: from,
            len: bytes,
        };
        context.submit(stream, work).map(drop)
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
