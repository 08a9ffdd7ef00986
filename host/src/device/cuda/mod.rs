//! The CUDA driver as a [`Driver`]: what one call does is here, what takes more is in a file by topic.
//!
//! GPUs are listed through `cust`. Calls whose result depends on the device's state go through `cust_lazy::ffi`,
//! whose results hold any code of any driver; `cust` 0.3.2 knows the codes of CUDA 11.4 only.

mod graph;
mod launch;
mod memory;
mod module;
mod open;
mod peer;

use std::{
    collections::HashMap,
    ffi::c_int,
    ptr,
    sync::{
        PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use cust::sys::{CUcontext, CUdevice, CUevent, CUgraphExec, CUmemoryPool, CUstream};
use cust_lazy::ffi;

use super::{
    capabilities::{Capabilities, DeviceKind},
    core::lock,
    driver::{
        Driver, DriverError, FunctionInfo, MemoryRange, Parameter, Pitched, RawEvent, RawGraph,
        RawModule, RawStream,
    },
    launch::LaunchConfig,
    pages::Pages,
    profile::{Collector, LaunchReport},
    sync::Mutex,
};

const SUCCESS: c_int = 0;
const INVALID_VALUE: c_int = 1;
const NOT_FOUND: c_int = 500;
const NOT_SUPPORTED: c_int = 801;

const STREAM_NON_BLOCKING: u32 = 1;
const EVENT_DEFAULT: u32 = 0;
/// Other threads' and this one's allocations go on during a capture.
const CAPTURE_RELAXED: c_int = 2;

/// A GPU's primary context, retained while this exists.
pub(super) struct CudaDriver {
    device: CUdevice,
    context: CUcontext,
    capabilities: Capabilities,
    /// Whether the context is about to be reset, after a fault. Read-locked during every call, so that none has a
    /// handle of the old context in the new one.
    retired: RwLock<bool>,
    /// Whether that reset is done.
    destroyed: AtomicBool,
    /// Tells this from every other `CudaDriver` of the process.
    id: u64,
    /// Whether copies reach the memory of others, by their `id`.
    peers: Mutex<HashMap<u64, bool>>,
    /// Registered host memory, by address.
    host_memory: Mutex<HashMap<u64, Pages>>,
    /// What stream-ordered memory comes from, if not the device's own pool.
    scratch_pool: Option<CUmemoryPool>,
}

// SAFETY: the context is a handle that every thread may use; the driver API is thread-safe, and each call here makes
// the context current on its own thread first.
unsafe impl Send for CudaDriver {}
// SAFETY: as above.
unsafe impl Sync for CudaDriver {}

impl CudaDriver {
    /// Makes the context current on this thread and runs one driver call.
    fn call(
        &self,
        name: &'static str,
        function: impl FnOnce() -> c_int,
    ) -> Result<(), DriverError> {
        let retired = self.retired.read().unwrap_or_else(PoisonError::into_inner);
        if *retired {
            return Err(DriverError::Fault {
                cause: format!("{name} came after the reset"),
            });
        }
        // SAFETY: the context is retained as long as `self`.
        check("cuCtxSetCurrent", unsafe {
            ffi::cuCtxSetCurrent(self.context)
        })?;
        check(name, function())
    }
}

impl CudaDriver {
    /// Whether the GPU has a primary context, of whomever.
    fn context_exists(&self) -> bool {
        let (mut flags, mut active) = (0, 0);
        // SAFETY: both are valid for the write.
        let code = unsafe { ffi::cuDevicePrimaryCtxGetState(self.device, &mut flags, &mut active) };
        code != SUCCESS || active != 0
    }
}

/// Sorts a `CUresult`.
fn check(call: &'static str, code: c_int) -> Result<(), DriverError> {
    match code {
        SUCCESS => Ok(()),
        // These leave the context unusable, says the reference of `CUresult`: CUDA_ERROR_DEINITIALIZED,
        // ECC_UNCORRECTABLE, NVLINK_UNCORRECTABLE, CONTAINED, ILLEGAL_ADDRESS, LAUNCH_TIMEOUT,
        // CONTEXT_IS_DESTROYED, ASSERT, HARDWARE_STACK_ERROR, ILLEGAL_INSTRUCTION, MISALIGNED_ADDRESS,
        // INVALID_ADDRESS_SPACE, INVALID_PC, LAUNCH_FAILED, TENSOR_MEMORY_LEAK, MPS_CLIENT_TERMINATED, EXTERNAL_DEVICE.
        4 | 214 | 220 | 226 | 700 | 702 | 709 | 710 | 714..=719 | 721 | 810 | 911 => {
            Err(DriverError::Fault {
                cause: format!("{call} returned {} ({code})", cust_lazy::error_name(code)),
            })
        }
        code => Err(DriverError::Code {
            call,
            name: cust_lazy::error_name(code),
            code,
        }),
    }
}

fn stream(raw: RawStream) -> CUstream {
    raw.0 as CUstream
}

fn event(raw: RawEvent) -> CUevent {
    raw.0 as CUevent
}

impl Driver for CudaDriver {
    fn kind(&self) -> DeviceKind {
        DeviceKind::Cuda
    }

    fn synchronous(&self) -> bool {
        false
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn memory_info(&self) -> Result<(usize, usize), DriverError> {
        let (mut free, mut total) = (0, 0);
        // SAFETY: both are valid for the write.
        self.call("cuMemGetInfo", || unsafe {
            ffi::cuMemGetInfo_v2(&mut free, &mut total)
        })?;
        Ok((free, total))
    }

    fn synchronize(&self) -> Result<(), DriverError> {
        // SAFETY: takes no arguments.
        self.call("cuCtxSynchronize", || unsafe { ffi::cuCtxSynchronize() })
    }

    fn profiler(&self) -> Option<&Collector<LaunchReport>> {
        None
    }

    fn make_current(&self) -> Result<(), DriverError> {
        // `call` does it before each call.
        self.call("cuCtxSetCurrent", || SUCCESS)
    }

    fn retire(&self) {
        *self.retired.write().unwrap_or_else(PoisonError::into_inner) = true;
    }

    fn context_destroyed(&self) {
        self.destroyed.store(true, Ordering::Release);
    }

    fn allocate(&self, bytes: usize) -> Result<u64, DriverError> {
        memory::allocate(self, bytes)
    }

    unsafe fn free(&self, address: u64) -> Result<(), DriverError> {
        // SAFETY: the caller passes an address of `allocate` that no work uses any more.
        self.call("cuMemFree", || unsafe { ffi::cuMemFree_v2(address) })
    }

    fn allocate_host(&self, bytes: usize) -> Result<u64, DriverError> {
        memory::allocate_host(self, bytes)
    }

    unsafe fn free_host(&self, address: u64) -> Result<(), DriverError> {
        // SAFETY: the caller passes an address of `allocate_host` that no copy uses any more.
        unsafe { memory::free_host(self, address) }
    }

    unsafe fn allocate_on(&self, raw: RawStream, bytes: usize) -> Result<Option<u64>, DriverError> {
        // SAFETY: the caller passes a live stream.
        unsafe { memory::allocate_on(self, raw, bytes) }
    }

    unsafe fn free_on(&self, raw: RawStream, address: u64) -> Result<(), DriverError> {
        self.call("cuMemFreeAsync", || {
            // SAFETY: the caller passes a live stream and memory that no later work uses.
            unsafe { ffi::cuMemFreeAsync(address, stream(raw)) }
        })
    }

    fn range_of(&self, address: u64) -> Result<Option<MemoryRange>, DriverError> {
        memory::range_of(self, address)
    }

    fn create_stream(&self) -> Result<RawStream, DriverError> {
        let mut stream = ptr::null_mut();
        self.call("cuStreamCreate", || {
            // SAFETY: `stream` is valid for the write.
            unsafe { ffi::cuStreamCreate(&mut stream, STREAM_NON_BLOCKING) }
        })?;
        Ok(RawStream(stream as u64))
    }

    unsafe fn destroy_stream(&self, raw: RawStream) -> Result<(), DriverError> {
        // SAFETY: the caller gives up a live stream.
        self.call("cuStreamDestroy", || unsafe {
            ffi::cuStreamDestroy_v2(stream(raw))
        })
    }

    unsafe fn synchronize_stream(&self, raw: RawStream) -> Result<(), DriverError> {
        // SAFETY: the caller passes a live stream.
        self.call("cuStreamSynchronize", || unsafe {
            ffi::cuStreamSynchronize(stream(raw))
        })
    }

    unsafe fn copy_to_device(
        &self,
        raw: RawStream,
        address: u64,
        bytes: *const [u8],
    ) -> Result<(), DriverError> {
        self.call("cuMemcpyHtoDAsync", || {
            let from = bytes.cast();
            // SAFETY: the caller passes a live stream, a range within an allocation, and host memory that stays
            // valid until the stream is synchronized.
            unsafe { ffi::cuMemcpyHtoDAsync_v2(address, from, bytes.len(), stream(raw)) }
        })
    }

    unsafe fn copy_to_host(
        &self,
        raw: RawStream,
        bytes: *mut [u8],
        address: u64,
    ) -> Result<(), DriverError> {
        self.call("cuMemcpyDtoHAsync", || {
            let to = bytes.cast();
            // SAFETY: as for `copy_to_device`.
            unsafe { ffi::cuMemcpyDtoHAsync_v2(to, address, bytes.len(), stream(raw)) }
        })
    }

    unsafe fn fill(
        &self,
        raw: RawStream,
        address: u64,
        value: u8,
        len: usize,
    ) -> Result<(), DriverError> {
        self.call("cuMemsetD8Async", || {
            // SAFETY: the caller passes a live stream and a range within an allocation.
            unsafe { ffi::cuMemsetD8Async(address, value, len, stream(raw)) }
        })
    }

    unsafe fn copy_rows(
        &self,
        raw: RawStream,
        to: Pitched,
        from: Pitched,
        width: usize,
        rows: usize,
    ) -> Result<(), DriverError> {
        // SAFETY: the caller passes a live stream and rows within allocations.
        unsafe { memory::copy_rows(self, raw, to, from, width, rows) }
    }

    fn reaches(&self, peer: &dyn Driver) -> Result<bool, DriverError> {
        self.enable_peer(peer)
    }

    unsafe fn copy_from_peer(
        &self,
        raw: RawStream,
        address: u64,
        peer: &dyn Driver,
        peer_address: u64,
        len: usize,
    ) -> Result<(), DriverError> {
        // SAFETY: the caller passes a live stream and ranges within allocations.
        unsafe { self.copy_peer(raw, address, peer, peer_address, len) }
    }

    unsafe fn record_event(&self, raw: RawStream) -> Result<RawEvent, DriverError> {
        let mut event = ptr::null_mut();
        self.call("cuEventCreate", || {
            // SAFETY: `event` is valid for the write.
            unsafe { ffi::cuEventCreate(&mut event, EVENT_DEFAULT) }
        })?;
        // SAFETY: the event was just made, and the caller passes a live stream.
        let recorded = self.call("cuEventRecord", || unsafe {
            ffi::cuEventRecord(event, stream(raw))
        });
        let event = RawEvent(event as u64);
        if recorded.is_err() {
            // SAFETY: the event was just made, and nobody has it. The first error is the one to report.
            let _ = unsafe { self.destroy_event(event) };
        }
        recorded.map(|()| event)
    }

    unsafe fn destroy_event(&self, raw: RawEvent) -> Result<(), DriverError> {
        // SAFETY: the caller gives up a live event.
        self.call("cuEventDestroy", || unsafe {
            ffi::cuEventDestroy_v2(event(raw))
        })
    }

    unsafe fn synchronize_event(&self, raw: RawEvent) -> Result<(), DriverError> {
        // SAFETY: the caller passes a live event.
        self.call("cuEventSynchronize", || unsafe {
            ffi::cuEventSynchronize(event(raw))
        })
    }

    unsafe fn wait_event(&self, raw: RawStream, waited: RawEvent) -> Result<(), DriverError> {
        self.call("cuStreamWaitEvent", || {
            // SAFETY: the caller passes a live stream and a live event; flags have to be 0.
            unsafe { ffi::cuStreamWaitEvent(stream(raw), event(waited), 0) }
        })
    }

    unsafe fn wait_peer_event(
        &self,
        raw: RawStream,
        peer: &dyn Driver,
        waited: RawEvent,
    ) -> Result<(), DriverError> {
        // SAFETY: the caller passes a live stream, and a live event of `peer`.
        unsafe { self.wait_peer(raw, peer, waited) }
    }

    unsafe fn elapsed_ms(
        &self,
        start: RawEvent,
        end: RawEvent,
    ) -> Result<Option<f32>, DriverError> {
        let mut milliseconds = 0.0;
        self.call("cuEventElapsedTime", || {
            // SAFETY: the caller passes live events.
            unsafe { ffi::cuEventElapsedTime(&mut milliseconds, event(start), event(end)) }
        })?;
        Ok(Some(milliseconds))
    }

    fn load_module(&self, ptx: &str) -> Result<RawModule, DriverError> {
        module::load(self, ptx)
    }

    unsafe fn unload_module(&self, raw: RawModule) -> Result<(), DriverError> {
        // SAFETY: the caller gives up a loaded module that no work uses.
        self.call("cuModuleUnload", || unsafe {
            ffi::cuModuleUnload(raw.0 as _)
        })
    }

    unsafe fn function(
        &self,
        module: RawModule,
        kernel: &str,
        ptx: &str,
    ) -> Result<FunctionInfo, DriverError> {
        // SAFETY: the caller passes a loaded module.
        unsafe { module::function(self, module, kernel, ptx) }
    }

    unsafe fn launch(
        &self,
        raw: RawStream,
        kernel: &str,
        function: &FunctionInfo,
        config: &LaunchConfig,
        early: bool,
        parameters: &[Parameter],
    ) -> Result<(), DriverError> {
        // SAFETY: the caller passes live handles and as many parameters as the function takes.
        unsafe { launch::submit(self, raw, kernel, function, config, early, parameters) }
    }

    unsafe fn begin_capture(&self, raw: RawStream) -> Result<(), DriverError> {
        self.call("cuStreamBeginCapture", || {
            // SAFETY: the caller passes a live stream.
            unsafe { ffi::cuStreamBeginCapture_v2(stream(raw), CAPTURE_RELAXED) }
        })
    }

    unsafe fn end_capture(
        &self,
        raw: RawStream,
        into: Option<RawGraph>,
    ) -> Result<RawGraph, DriverError> {
        // SAFETY: the caller passes a live stream and, where there is one, a live graph.
        unsafe { graph::end_capture(self, raw, into) }
    }

    unsafe fn launch_graph(&self, raw: RawStream, graph: RawGraph) -> Result<(), DriverError> {
        let graph = graph.0 as CUgraphExec;
        // SAFETY: the caller passes a live stream and a live graph.
        self.call("cuGraphLaunch", || unsafe {
            ffi::cuGraphLaunch(graph, stream(raw))
        })
    }

    unsafe fn destroy_graph(&self, graph: RawGraph) -> Result<(), DriverError> {
        let graph = graph.0 as CUgraphExec;
        // SAFETY: the caller gives up a live graph that no work uses.
        self.call("cuGraphExecDestroy", || unsafe {
            ffi::cuGraphExecDestroy(graph)
        })
    }
}

impl Drop for CudaDriver {
    fn drop(&mut self) {
        if let Some(pool) = self.scratch_pool.take() {
            memory::destroy_pool(self, pool);
        }
        // SAFETY: `open` retained the primary context once. Releasing is allowed after a fault, too.
        let released = check("cuDevicePrimaryCtxRelease", unsafe {
            ffi::cuDevicePrimaryCtxRelease_v2(self.device)
        });
        if let Err(error) = released {
            tracing::debug!(?error, "the primary context could not be released");
        }
        let pages = std::mem::take(&mut *lock(&self.host_memory));
        if !pages.is_empty() && !self.destroyed.load(Ordering::Acquire) && self.context_exists() {
            // It may still have these pages locked, and copies to them under way.
            tracing::warn!(
                allocations = pages.len(),
                "pinned host memory of a lost device is not freed, because the context is still there"
            );
            std::mem::forget(pages);
        }
    }
}
