//! Device memory, and host memory that copies reach.

use std::{
    ffi::{c_int, c_void},
    ptr,
};

use cust::sys::{
    CUDA_MEMCPY2D, CUmemAllocationHandleType, CUmemAllocationType, CUmemLocation,
    CUmemLocationType, CUmemPoolProps, CUmemoryPool, CUmemorytype,
};
use cust_lazy::ffi;

use super::{
    super::{
        core::lock,
        driver::{DriverError, MemoryRange, Pitched, RawStream},
        pages::Pages,
    },
    CudaDriver, INVALID_VALUE, NOT_FOUND, NOT_SUPPORTED, stream,
};

const OUT_OF_MEMORY: c_int = 2;

const POOL_RELEASE_THRESHOLD: c_int = 4;
/// How much unused scratch memory is kept.
const KEPT_SCRATCH_BYTES: u64 = 64 << 20;

/// For copies of all contexts.
const HOST_REGISTER_PORTABLE: u32 = 1;

const POINTER_MEMORY_TYPE: c_int = 2;
const POINTER_IS_MANAGED: c_int = 8;
const POINTER_DEVICE_ORDINAL: c_int = 9;
const POINTER_RANGE_START: c_int = 11;
const POINTER_RANGE_SIZE: c_int = 12;

pub(super) fn allocate(driver: &CudaDriver, bytes: usize) -> Result<u64, DriverError> {
    let mut address = 0;
    // SAFETY: `address` is valid for the write.
    match driver.call("cuMemAlloc", || unsafe {
        ffi::cuMemAlloc_v2(&mut address, bytes)
    }) {
        Err(DriverError::Code {
            code: OUT_OF_MEMORY,
            ..
        }) => Err(DriverError::OutOfMemory { requested: bytes }),
        result => result.map(|()| address),
    }
}

/// A pool for [`allocate_on`] that keeps its memory from one operation to the next. The device's own returns it to the operating system
/// whenever the host waits for a stream or an event, unless somebody has changed that; an operation then takes longer to allocate than to
/// compute. `None` where the driver makes no pool.
pub(super) fn scratch_pool(driver: &CudaDriver) -> Option<CUmemoryPool> {
    let properties = CUmemPoolProps {
        allocType: CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED,
        handleTypes: CUmemAllocationHandleType::CU_MEM_HANDLE_TYPE_NONE,
        location: CUmemLocation {
            type_: CUmemLocationType::CU_MEM_LOCATION_TYPE_DEVICE,
            id: driver.device,
        },
        ..CUmemPoolProps::default()
    };
    let mut pool = ptr::null_mut();
    let made = driver.call("cuMemPoolCreate", || {
        // SAFETY: both are valid, and `pool` is for the write.
        unsafe { ffi::cuMemPoolCreate(&mut pool, &properties) }
    });
    let kept = made.and_then(|()| {
        let mut threshold = KEPT_SCRATCH_BYTES;
        driver.call("cuMemPoolSetAttribute", || {
            // SAFETY: the pool was just made, and the attribute's value is 64 bits.
            unsafe {
                let value = (&raw mut threshold).cast();
                ffi::cuMemPoolSetAttribute(pool, POOL_RELEASE_THRESHOLD, value)
            }
        })
    });
    if let Err(error) = &kept {
        tracing::debug!(?error, "scratch memory comes from the device's own pool");
    }
    if !pool.is_null() && kept.is_err() {
        destroy_pool(driver, pool);
        pool = ptr::null_mut();
    }
    (!pool.is_null()).then_some(pool)
}

/// Gives up a pool of [`scratch_pool`]. The driver keeps its memory as long as work uses it.
pub(super) fn destroy_pool(driver: &CudaDriver, pool: CUmemoryPool) {
    // SAFETY: the pool is the driver's own, and nothing is allocated from it any more.
    let destroyed = driver.call("cuMemPoolDestroy", || unsafe {
        ffi::cuMemPoolDestroy(pool)
    });
    if let Err(error) = destroyed {
        tracing::debug!(?error, "the pool of scratch memory could not be destroyed");
    }
}

/// # Safety
///
/// As for [`Driver::allocate_on`](super::Driver::allocate_on).
pub(super) unsafe fn allocate_on(
    driver: &CudaDriver,
    raw: RawStream,
    bytes: usize,
) -> Result<Option<u64>, DriverError> {
    let mut address = 0;
    let allocated = match driver.scratch_pool {
        Some(pool) => driver.call("cuMemAllocFromPoolAsync", || {
            // SAFETY: the caller passes a live stream, the pool lives as long as the driver, and `address` is valid for the write.
            unsafe { ffi::cuMemAllocFromPoolAsync(&mut address, bytes, pool, stream(raw)) }
        }),
        None => driver.call("cuMemAllocAsync", || {
            // SAFETY: as above.
            unsafe { ffi::cuMemAllocAsync(&mut address, bytes, stream(raw)) }
        }),
    };
    match allocated {
        Ok(()) => Ok(Some(address)),
        // A driver before CUDA 11.2, or a GPU without memory pools.
        Err(DriverError::Code {
            code: NOT_FOUND | NOT_SUPPORTED,
            ..
        }) => Ok(None),
        Err(DriverError::Code {
            code: OUT_OF_MEMORY,
            ..
        }) => Err(DriverError::OutOfMemory { requested: bytes }),
        Err(error) => Err(error),
    }
}

// Memory of `cuMemHostAlloc` would go with a lost context, under slices that the caller may still have. Memory of our own
// that the driver page-locks stays.
pub(super) fn allocate_host(driver: &CudaDriver, bytes: usize) -> Result<u64, DriverError> {
    let pages = Pages::zeroed(bytes)?;
    let registered = driver.call("cuMemHostRegister", || {
        // SAFETY: the pages are ours, and stay until they are unregistered or the context is gone.
        unsafe { ffi::cuMemHostRegister_v2(pages.as_ptr(), pages.len(), HOST_REGISTER_PORTABLE) }
    });
    match registered {
        Ok(()) => {
            let address = pages.address();
            lock(&driver.host_memory).insert(address, pages);
            Ok(address)
        }
        // Too much, more than the operating system allows, or something that a container or virtual machine does not offer.
        Err(DriverError::Code { call, name, .. }) => Err(DriverError::PinnedMemory {
            requested: bytes,
            reason: format!("{call} returned {name}"),
        }),
        Err(error) => Err(error),
    }
}

/// # Safety
///
/// As for [`Driver::free_host`](super::Driver::free_host).
pub(super) unsafe fn free_host(driver: &CudaDriver, address: u64) -> Result<(), DriverError> {
    let memory = ptr::with_exposed_provenance_mut::<c_void>(address as usize);
    // SAFETY: the caller passes an address of `allocate_host` that no copy uses any more.
    driver.call("cuMemHostUnregister", || unsafe {
        ffi::cuMemHostUnregister(memory)
    })?;
    lock(&driver.host_memory).remove(&address);
    Ok(())
}

/// # Safety
///
/// As for [`Driver::copy_rows`](super::Driver::copy_rows).
pub(super) unsafe fn copy_rows(
    driver: &CudaDriver,
    raw: RawStream,
    to: Pitched,
    from: Pitched,
    width: usize,
    rows: usize,
) -> Result<(), DriverError> {
    let copy = |to: u64, from: u64, bytes: usize| {
        driver.call("cuMemcpyDtoDAsync", || {
            // SAFETY: the caller passes a live stream and rows within allocations, and these are bytes of such rows.
            unsafe { ffi::cuMemcpyDtoDAsync_v2(to, from, bytes, stream(raw)) }
        })
    };
    // No limit to a pitch is in the way of bytes without a gap.
    if rows == 1 || (to.pitch == width && from.pitch == width) {
        return copy(to.address, from.address, width * rows);
    }
    let pitched = CUDA_MEMCPY2D {
        srcXInBytes: 0,
        srcY: 0,
        srcMemoryType: CUmemorytype::CU_MEMORYTYPE_DEVICE,
        srcHost: ptr::null(),
        srcDevice: from.address,
        srcArray: ptr::null_mut(),
        srcPitch: from.pitch,
        dstXInBytes: 0,
        dstY: 0,
        dstMemoryType: CUmemorytype::CU_MEMORYTYPE_DEVICE,
        dstHost: ptr::null_mut(),
        dstDevice: to.address,
        dstArray: ptr::null_mut(),
        dstPitch: to.pitch,
        WidthInBytes: width,
        Height: rows,
    };
    let copied = driver.call("cuMemcpy2DAsync", || {
        // SAFETY: the caller passes a live stream and rows within allocations.
        unsafe { ffi::cuMemcpy2DAsync_v2(&pitched, stream(raw)) }
    });
    match copied {
        // "On intra-device memory copies, cuMemcpy2DAsync() may fail for pitches not computed by cuMemAllocPitch()", says the reference.
        Err(DriverError::Code {
            code: INVALID_VALUE,
            ..
        }) => (0..rows as u64).try_for_each(|row| {
            let place = |rows: Pitched| rows.address + row * rows.pitch as u64;
            copy(place(to), place(from), width)
        }),
        copied => copied,
    }
}

/// The allocation that holds the byte at an address, where the device reaches it.
pub(super) fn range_of(
    driver: &CudaDriver,
    address: u64,
) -> Result<Option<MemoryRange>, DriverError> {
    const HOST_MEMORY: u32 = 1;
    let (mut memory_type, mut managed, mut device) = (0_u32, 0_u32, -1_i32);
    let (mut base, mut len) = (0_u64, 0_usize);
    let mut attributes = [
        POINTER_MEMORY_TYPE,
        POINTER_IS_MANAGED,
        POINTER_DEVICE_ORDINAL,
        POINTER_RANGE_START,
        POINTER_RANGE_SIZE,
    ];
    let mut values: [*mut c_void; 5] = [
        (&raw mut memory_type).cast(),
        (&raw mut managed).cast(),
        (&raw mut device).cast(),
        (&raw mut base).cast(),
        (&raw mut len).cast(),
    ];
    driver.call("cuPointerGetAttributes", || {
        // SAFETY: one value of the attribute's type for each attribute. The address may be any number: of one
        // that is no pointer of CUDA's, the driver returns zeros.
        unsafe {
            ffi::cuPointerGetAttributes(
                attributes.len() as u32,
                attributes.as_mut_ptr(),
                values.as_mut_ptr(),
                address,
            )
        }
    })?;
    // Pinned host memory and managed memory can be used on every GPU.
    let reachable = memory_type == HOST_MEMORY || managed != 0 || device == driver.device;
    Ok((len > 0 && reachable).then_some(MemoryRange { base, len }))
}
