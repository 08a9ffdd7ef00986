//! The CUDA driver as a [`Driver`].
//!
//! GPUs are listed through `cust`. Calls whose result depends on the device's state go through `cust_lazy::ffi`,
//! whose results hold any code of any driver; `cust` 0.3.2 knows the codes of CUDA 11.4 only.

mod module;
mod open;
mod peer;

use std::{
    collections::HashMap,
    ffi::{c_int, c_void},
    ptr,
    sync::{
        PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use cust::sys::{
    CUDA_MEMCPY2D, CUcontext, CUdevice, CUevent, CUfunction, CUgraphExec, CUmemorytype, CUstream,
};
use cust_lazy::ffi::{self, CUgraph, CUgraphExecUpdateResultInfo};

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
const OUT_OF_MEMORY: c_int = 2;
/// What the operating system has refused, such as more locked memory than its limit.
const OPERATING_SYSTEM: c_int = 304;
const NOT_FOUND: c_int = 500;
const LAUNCH_OUT_OF_RESOURCES: c_int = 701;
const NOT_SUPPORTED: c_int = 801;
const GRAPH_EXEC_UPDATE_FAILURE: c_int = 910;
const COOPERATIVE_LAUNCH_TOO_LARGE: c_int = 720;

const STREAM_NON_BLOCKING: u32 = 1;
const EVENT_DEFAULT: u32 = 0;
/// For copies of all contexts.
const HOST_REGISTER_PORTABLE: u32 = 1;
/// Other threads' and this one's allocations go on during a capture.
const CAPTURE_RELAXED: c_int = 2;
const FUNCTION_MAX_DYNAMIC_SHARED: c_int = 8;
const POINTER_MEMORY_TYPE: c_int = 2;
const POINTER_IS_MANAGED: c_int = 8;
const POINTER_DEVICE_ORDINAL: c_int = 9;
const POINTER_RANGE_START: c_int = 11;
const POINTER_RANGE_SIZE: c_int = 12;

/// A GPU's primary context, retained while this exists.
#[derive(Debug)]
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
    /// An executable graph of `graph`, which was just made: `into` where that can take its arguments.
    fn executable(&self, graph: CUgraph, into: Option<RawGraph>) -> Result<RawGraph, DriverError> {
        if let Some(into) = into {
            let mut info = CUgraphExecUpdateResultInfo {
                result: 0,
                errorNode: ptr::null_mut(),
                errorFromNode: ptr::null_mut(),
            };
            let updated = self.call("cuGraphExecUpdate", || {
                // SAFETY: both graphs are live, and `info` is valid for the write.
                unsafe { ffi::cuGraphExecUpdate_v2(into.0 as CUgraphExec, graph, &mut info) }
            });
            match updated {
                Ok(()) => return Ok(into),
                // Something that an update cannot change, or a driver before CUDA 12.0.
                Err(DriverError::Code {
                    code: GRAPH_EXEC_UPDATE_FAILURE | NOT_FOUND,
                    ..
                }) => tracing::debug!(reason = info.result, "a graph is instantiated anew"),
                Err(error) => return Err(error),
            }
        }
        let mut executable = ptr::null_mut();
        self.call("cuGraphInstantiate", || {
            // SAFETY: the graph is live, and `executable` is valid for the write.
            unsafe { ffi::cuGraphInstantiateWithFlags(&mut executable, graph, 0) }
        })?;
        Ok(RawGraph(executable as u64))
    }

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
        // INVALID_ADDRESS_SPACE, INVALID_PC, LAUNCH_FAILED, TENSOR_MEMORY_LEAK, EXTERNAL_DEVICE.
        4 | 214 | 220 | 226 | 700 | 702 | 709 | 710 | 714..=719 | 721 | 911 => {
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
        let mut address = 0;
        // SAFETY: `address` is valid for the write.
        match self.call("cuMemAlloc", || unsafe {
            ffi::cuMemAlloc_v2(&mut address, bytes)
        }) {
            Err(DriverError::Code {
                code: OUT_OF_MEMORY,
                ..
            }) => Err(DriverError::OutOfMemory { requested: bytes }),
            result => result.map(|()| address),
        }
    }

    unsafe fn free(&self, address: u64) -> Result<(), DriverError> {
        // SAFETY: the caller passes an address of `allocate` that no work uses any more.
        self.call("cuMemFree", || unsafe { ffi::cuMemFree_v2(address) })
    }

    // Memory of `cuMemHostAlloc` would go with a lost context, under slices that the caller may still have. Memory of our own
    // that the driver page-locks stays.
    fn allocate_host(&self, bytes: usize) -> Result<u64, DriverError> {
        let pages = Pages::zeroed(bytes)?;
        let registered = self.call("cuMemHostRegister", || {
            // SAFETY: the pages are ours, and stay until they are unregistered or the context is gone.
            unsafe {
                ffi::cuMemHostRegister_v2(pages.as_ptr(), pages.len(), HOST_REGISTER_PORTABLE)
            }
        });
        match registered {
            Ok(()) => {
                let address = pages.address();
                lock(&self.host_memory).insert(address, pages);
                Ok(address)
            }
            Err(DriverError::Code {
                call,
                name,
                code: OUT_OF_MEMORY | OPERATING_SYSTEM,
            }) => Err(DriverError::PinnedMemory {
                requested: bytes,
                reason: format!("{call} returned {name}"),
            }),
            Err(error) => Err(error),
        }
    }

    unsafe fn free_host(&self, address: u64) -> Result<(), DriverError> {
        let memory = ptr::with_exposed_provenance_mut::<c_void>(address as usize);
        // SAFETY: the caller passes an address of `allocate_host` that no copy uses any more.
        self.call("cuMemHostUnregister", || unsafe {
            ffi::cuMemHostUnregister(memory)
        })?;
        lock(&self.host_memory).remove(&address);
        Ok(())
    }

    unsafe fn allocate_on(&self, raw: RawStream, bytes: usize) -> Result<Option<u64>, DriverError> {
        let mut address = 0;
        let allocated = self.call("cuMemAllocAsync", || {
            // SAFETY: the caller passes a live stream, and `address` is valid for the write.
            unsafe { ffi::cuMemAllocAsync(&mut address, bytes, stream(raw)) }
        });
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

    unsafe fn free_on(&self, raw: RawStream, address: u64) -> Result<(), DriverError> {
        self.call("cuMemFreeAsync", || {
            // SAFETY: the caller passes a live stream and memory that no later work uses.
            unsafe { ffi::cuMemFreeAsync(address, stream(raw)) }
        })
    }

    fn range_of(&self, address: u64) -> Result<Option<MemoryRange>, DriverError> {
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
        self.call("cuPointerGetAttributes", || {
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
        let reachable = memory_type == HOST_MEMORY || managed != 0 || device == self.device;
        Ok((len > 0 && reachable).then_some(MemoryRange { base, len }))
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
        let copy = CUDA_MEMCPY2D {
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
        // SAFETY: the caller passes a live stream and rows within allocations.
        self.call("cuMemcpy2DAsync", || unsafe {
            ffi::cuMemcpy2DAsync_v2(&copy, stream(raw))
        })
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
        parameters: &[Parameter],
    ) -> Result<(), DriverError> {
        let handle = function.raw.0 as CUfunction;
        if function.static_shared + config.dynamic_shared > self.capabilities.shared_bytes_per_block
        {
            // The same value whatever this launch needs, so that threads which launch the same kernel do not
            // take it from each other.
            let most = self.capabilities.shared_bytes_per_block_optin - function.static_shared;
            self.call("cuFuncSetAttribute", || {
                // SAFETY: the function is live as long as its module.
                unsafe {
                    ffi::cuFuncSetAttribute(handle, FUNCTION_MAX_DYNAMIC_SHARED, most as c_int)
                }
            })?;
        }

        let mut pointers: Vec<*mut c_void> = parameters
            .iter()
            .map(|parameter| parameter.bytes.as_ptr().cast_mut().cast())
            .collect();
        let pointers = pointers.as_mut_ptr();
        let [grid_x, grid_y, grid_z] = config.grid;
        let [block_x, block_y, block_z] = config.block;
        let shared = config.dynamic_shared;
        let launched = if config.cooperative {
            self.call("cuLaunchCooperativeKernel", || {
                // SAFETY: one pointer for each parameter, to as many bytes as the function takes; the driver copies
                // them during the call. The caller passes live handles.
                unsafe {
                    ffi::cuLaunchCooperativeKernel(
                        handle,
                        grid_x,
                        grid_y,
                        grid_z,
                        block_x,
                        block_y,
                        block_z,
                        shared,
                        stream(raw),
                        pointers,
                    )
                }
            })
        } else {
            self.call("cuLaunchKernel", || {
                // SAFETY: as above.
                unsafe {
                    ffi::cuLaunchKernel(
                        handle,
                        grid_x,
                        grid_y,
                        grid_z,
                        block_x,
                        block_y,
                        block_z,
                        shared,
                        stream(raw),
                        pointers,
                        ptr::null_mut(),
                    )
                }
            })
        };
        launched.map_err(|error| match error {
            DriverError::Code {
                code: INVALID_VALUE | LAUNCH_OUT_OF_RESOURCES | COOPERATIVE_LAUNCH_TOO_LARGE,
                name,
                call,
            } => DriverError::LaunchRefused {
                kernel: kernel.to_owned(),
                reason: format!("{call} returned {name}"),
            },
            error => error,
        })
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
        let mut graph = ptr::null_mut();
        self.call("cuStreamEndCapture", || {
            // SAFETY: the caller passes a live stream, and `graph` is valid for the write.
            unsafe { ffi::cuStreamEndCapture(stream(raw), &mut graph) }
        })?;
        let executable = self.executable(graph, into);
        // SAFETY: the graph was just made, and an executable graph does not need it any more.
        self.call("cuGraphDestroy", || unsafe { ffi::cuGraphDestroy(graph) })?;
        executable
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
