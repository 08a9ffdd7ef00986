//! Stream-ordered memory and the pools that it comes from.

use std::ffi::{c_int, c_uchar, c_uint, c_void};

use crate::{
    context::{Context, Handle, Work},
    driver::{DEVICES, current, with_context},
    status::{INVALID_HANDLE, INVALID_VALUE, OUT_OF_MEMORY},
};

/// The device's own pool, which `cuMemAllocAsync` takes memory from.
const DEFAULT_POOL: Handle = 0;
/// In what pieces a pool gets memory from the operating system.
const PIECE_BYTES: usize = 2 << 20;

#[derive(Default)]
pub(crate) struct Pool {
    /// `CU_MEMPOOL_ATTR_RELEASE_THRESHOLD`
    threshold: u64,
    /// Bytes that are allocated, and those that the pool has from the operating system.
    used: usize,
    held: usize,
    /// How often it asked that for more.
    growths: u64,
}

impl Context {
    /// How often the pools of this context asked the operating system for memory.
    pub(crate) fn pool_growths(&self) -> u64 {
        self.pools.values().map(|pool| pool.growths).sum()
    }

    /// Bytes that pools keep and nobody uses.
    pub(crate) fn unused_of_pools(&self) -> usize {
        let unused = |pool: &Pool| pool.held - pool.used;
        self.pools.values().map(unused).sum()
    }

    /// "When more than the release threshold bytes of memory are held by the memory pool, the allocator will try to release memory back to
    /// the OS on the next call to stream, event or context synchronize."
    pub(crate) fn release_unused(&mut self) {
        for pool in self.pools.values_mut() {
            let kept = usize::try_from(pool.threshold).unwrap_or(usize::MAX);
            pool.held = pool.held.min(kept).max(pool.used);
        }
    }

    /// Removes an allocation, also from the pool that it is of.
    pub(crate) fn forget(&mut self, address: u64) -> Option<()> {
        let len = self.allocations.remove(&address)?;
        let pool = self.pooled.remove(&address);
        if let Some(pool) = pool.and_then(|pool| self.pools.get_mut(&pool)) {
            pool.used -= len;
        }
        Some(())
    }

    /// "The allocation must not be accessed until the allocation operation completes": other streams have to wait for this one. In a capture
    /// the memory is the graph's, and there in each replay; the double keeps it as long as the context.
    fn allocate_on(
        &mut self,
        bytes: usize,
        pool: Handle,
        stream: *mut c_void,
    ) -> Result<u64, c_int> {
        if bytes == 0 {
            return Err(INVALID_VALUE);
        }
        let captured = self.stream(stream)?.capture.is_some();
        let allocated = self.emulator.alloc(bytes).map_err(|_| OUT_OF_MEMORY)?;
        self.allocations.insert(allocated, bytes);
        self.absent.insert(allocated);
        if captured {
            self.of_graphs.insert(allocated);
        } else {
            let state = match pool {
                DEFAULT_POOL => self.pools.entry(pool).or_default(),
                _ => self.pools.get_mut(&pool).ok_or(INVALID_HANDLE)?,
            };
            state.used += bytes;
            if state.used > state.held {
                state.held = state.used.next_multiple_of(PIECE_BYTES);
                state.growths += 1;
            }
            self.pooled.insert(allocated, pool);
        }
        self.submit(stream, Work::Allocate(allocated))?;
        Ok(allocated)
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemAllocAsync(
    address: *mut u64,
    bytes: usize,
    stream: *mut c_void,
) -> c_int {
    with_context("cuMemAllocAsync", |context| {
        let allocated = context.allocate_on(bytes, DEFAULT_POOL, stream)?;
        // SAFETY: the caller passes a pointer that is valid for the write.
        unsafe { address.write(allocated) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemAllocFromPoolAsync(
    address: *mut u64,
    bytes: usize,
    pool: *mut c_void,
    stream: *mut c_void,
) -> c_int {
    with_context("cuMemAllocFromPoolAsync", |context| {
        if !context.pools.contains_key(&pool.addr()) {
            return Err(INVALID_HANDLE);
        }
        let allocated = context.allocate_on(bytes, pool.addr(), stream)?;
        // SAFETY: the caller passes a pointer that is valid for the write.
        unsafe { address.write(allocated) };
        Ok(())
    })
}

/// "During stream capture, this function results in the creation of a free node and must therefore be passed the address of a graph
/// allocation."
#[unsafe(no_mangle)]
extern "C" fn cuMemFreeAsync(address: u64, stream: *mut c_void) -> c_int {
    with_context("cuMemFreeAsync", |context| {
        if !context.allocations.contains_key(&address) {
            return Err(INVALID_VALUE);
        }
        let captured = context.stream(stream)?.capture.is_some();
        let work = match (captured, context.of_graphs.contains(&address)) {
            (true, true) => Work::FreeOfGraph(address),
            (true, false) => return Err(INVALID_VALUE),
            (false, _) => Work::Free(address),
        };
        context.submit(stream, work).map(drop)
    })
}

/// `CUmemPoolProps`, as `cuda.h` has it.
#[repr(C)]
struct Properties {
    kind: c_uint,
    handles: c_uint,
    location: c_uint,
    device: c_int,
    security: *mut c_void,
    reserved: [c_uchar; 64],
}

/// For memory of the current GPU, that is shared with no process and of no maximum size.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemPoolCreate(pool: *mut *mut c_void, properties: *const c_void) -> c_int {
    const PINNED: c_uint = 1;
    const DEVICE: c_uint = 1;
    with_context("cuMemPoolCreate", |context| {
        // SAFETY: the caller passes a `CUmemPoolProps`.
        let properties = unsafe { &*properties.cast::<Properties>() };
        let of_device = properties.location == DEVICE
            && usize::try_from(properties.device).is_ok_and(|device| device < DEVICES)
            && current() == usize::try_from(properties.device).ok();
        let plain = properties.kind == PINNED
            && properties.handles == 0
            && properties.security.is_null()
            && properties.reserved == [0; 64];
        if !of_device || !plain {
            return Err(INVALID_VALUE);
        }
        let handle = context.new_handle();
        context.pools.insert(handle, Pool::default());
        // SAFETY: the caller passes a pointer that is valid for the write.
        unsafe { pool.write(std::ptr::without_provenance_mut(handle)) };
        Ok(())
    })
}

/// Takes the release threshold only.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemPoolSetAttribute(
    pool: *mut c_void,
    attribute: c_int,
    value: *const c_void,
) -> c_int {
    const RELEASE_THRESHOLD: c_int = 4;
    with_context("cuMemPoolSetAttribute", |context| {
        let pool = context.pools.get_mut(&pool.addr()).ok_or(INVALID_HANDLE)?;
        if attribute != RELEASE_THRESHOLD {
            return Err(INVALID_VALUE);
        }
        // SAFETY: the caller passes a `cuuint64_t` for this attribute.
        pool.threshold = unsafe { value.cast::<u64>().read() };
        Ok(())
    })
}

/// What is still allocated from it stays.
#[unsafe(no_mangle)]
extern "C" fn cuMemPoolDestroy(pool: *mut c_void) -> c_int {
    with_context("cuMemPoolDestroy", |context| {
        let removed = context.pools.remove(&pool.addr());
        removed.map(drop).ok_or(INVALID_HANDLE)
    })
}
