//! Functions of the CUDA driver, with `CUresult` as a plain integer.
//!
//! The contracts are those of NVIDIA's CUDA Driver API reference. Every function can be called without a driver
//! and then returns an error code (`CUDA_ERROR_NO_DEVICE`, 100).

use std::ffi::{c_char, c_int, c_uint, c_void};

pub use cust::sys::{
    CUDA_MEMCPY2D, CUcontext, CUdevice, CUdeviceptr, CUevent, CUfunction, CUgraph, CUgraphExec,
    CUgraphNode, CUmemPoolProps, CUmemoryPool, CUmodule, CUstream,
};

/// What an update of an executable graph stumbled over (`CUgraphExecUpdateResultInfo`, CUDA 12.0).
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(non_snake_case)]
pub struct CUgraphExecUpdateResultInfo {
    /// `CUgraphExecUpdateResult`; 0 for success.
    pub result: c_int,
    /// The node that could not be updated, or the target of the edge that differs.
    pub errorNode: CUgraphNode,
    /// The source of the edge that differs.
    pub errorFromNode: CUgraphNode,
}

/// The shape of an extended launch (`CUlaunchConfig`, CUDA 11.8).
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(non_snake_case, missing_docs)]
pub struct CUlaunchConfig {
    pub gridDimX: c_uint,
    pub gridDimY: c_uint,
    pub gridDimZ: c_uint,
    pub blockDimX: c_uint,
    pub blockDimY: c_uint,
    pub blockDimZ: c_uint,
    pub sharedMemBytes: c_uint,
    pub hStream: CUstream,
    pub attrs: *mut CUlaunchAttribute,
    pub numAttrs: c_uint,
}

/// One attribute of an extended launch (`CUlaunchAttribute`, CUDA 11.8).
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct CUlaunchAttribute {
    /// `CUlaunchAttributeID`.
    pub id: c_int,
    /// Padding, as in `cuda.h`.
    pub pad: [c_char; 4],
    /// `CUlaunchAttributeValue`, a union of 64 bytes, aligned to 8.
    pub value: [u64; 8],
}

// Sizes and offsets as a C compiler has them from the `cuda.h` of CUDA 13.
const _: () = {
    assert!(size_of::<CUgraphExecUpdateResultInfo>() == 24);
    assert!(std::mem::offset_of!(CUgraphExecUpdateResultInfo, errorFromNode) == 16);
    assert!(size_of::<CUlaunchConfig>() == 56);
    assert!(std::mem::offset_of!(CUlaunchConfig, hStream) == 32);
    assert!(std::mem::offset_of!(CUlaunchConfig, numAttrs) == 48);
    assert!(size_of::<CUlaunchAttribute>() == 72);
    assert!(std::mem::offset_of!(CUlaunchAttribute, value) == 8);
    assert!(size_of::<CUDA_MEMCPY2D>() == 128);
    assert!(std::mem::offset_of!(CUDA_MEMCPY2D, dstPitch) == 104);
    assert!(size_of::<CUmemPoolProps>() == 88);
    assert!(std::mem::offset_of!(CUmemPoolProps, location) == 8);
};

// The names, and with them the parameters, are CUDA's own.
#[allow(missing_docs, non_snake_case)]
unsafe extern "C" {
    pub fn cuInit(flags: c_uint) -> c_int;
    pub fn cuDriverGetVersion(version: *mut c_int) -> c_int;
    pub fn cuGetErrorName(code: c_int, name: *mut *const c_char) -> c_int;
    pub fn cuGetErrorString(code: c_int, description: *mut *const c_char) -> c_int;

    pub fn cuDeviceGetAttribute(value: *mut c_int, attribute: c_int, device: CUdevice) -> c_int;
    /// Writes `domain:bus:device.function`, in hexadecimal, and a NUL: 13 bytes.
    pub fn cuDeviceGetPCIBusId(id: *mut c_char, bytes: c_int, device: CUdevice) -> c_int;
    pub fn cuDevicePrimaryCtxRetain(context: *mut CUcontext, device: CUdevice) -> c_int;
    pub fn cuDevicePrimaryCtxRelease_v2(device: CUdevice) -> c_int;
    pub fn cuDevicePrimaryCtxReset_v2(device: CUdevice) -> c_int;
    pub fn cuDevicePrimaryCtxGetState(
        device: CUdevice,
        flags: *mut c_uint,
        active: *mut c_int,
    ) -> c_int;
    pub fn cuDeviceCanAccessPeer(can_access: *mut c_int, device: CUdevice, peer: CUdevice)
    -> c_int;
    /// Lets the current context access `peer`'s memory.
    pub fn cuCtxEnablePeerAccess(peer: CUcontext, flags: c_uint) -> c_int;
    pub fn cuCtxGetCurrent(context: *mut CUcontext) -> c_int;
    pub fn cuCtxSetCurrent(context: CUcontext) -> c_int;
    pub fn cuCtxGetDevice(device: *mut CUdevice) -> c_int;
    pub fn cuCtxSetLimit(limit: c_int, value: usize) -> c_int;
    pub fn cuCtxSynchronize() -> c_int;

    pub fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) -> c_int;
    pub fn cuMemAlloc_v2(address: *mut CUdeviceptr, bytes: usize) -> c_int;
    pub fn cuMemFree_v2(address: CUdeviceptr) -> c_int;
    /// Since CUDA 11.2.
    pub fn cuMemAllocAsync(address: *mut CUdeviceptr, bytes: usize, stream: CUstream) -> c_int;
    /// Since CUDA 11.2.
    pub fn cuMemAllocFromPoolAsync(
        address: *mut CUdeviceptr,
        bytes: usize,
        pool: CUmemoryPool,
        stream: CUstream,
    ) -> c_int;
    /// Since CUDA 11.2.
    pub fn cuMemFreeAsync(address: CUdeviceptr, stream: CUstream) -> c_int;
    /// Since CUDA 11.2.
    pub fn cuMemPoolCreate(pool: *mut CUmemoryPool, properties: *const CUmemPoolProps) -> c_int;
    /// Since CUDA 11.2.
    pub fn cuMemPoolSetAttribute(pool: CUmemoryPool, attribute: c_int, value: *mut c_void)
    -> c_int;
    /// Since CUDA 11.2.
    pub fn cuMemPoolDestroy(pool: CUmemoryPool) -> c_int;
    pub fn cuMemHostRegister_v2(memory: *mut c_void, bytes: usize, flags: c_uint) -> c_int;
    pub fn cuMemHostUnregister(memory: *mut c_void) -> c_int;
    /// Sets each value to zero where the address is no pointer of CUDA's.
    pub fn cuPointerGetAttributes(
        count: c_uint,
        attributes: *mut c_int,
        values: *mut *mut c_void,
        address: CUdeviceptr,
    ) -> c_int;
    pub fn cuMemcpyHtoDAsync_v2(
        to: CUdeviceptr,
        from: *const c_void,
        bytes: usize,
        stream: CUstream,
    ) -> c_int;
    pub fn cuMemcpyDtoHAsync_v2(
        to: *mut c_void,
        from: CUdeviceptr,
        bytes: usize,
        stream: CUstream,
    ) -> c_int;
    pub fn cuMemcpyPeerAsync(
        to: CUdeviceptr,
        to_context: CUcontext,
        from: CUdeviceptr,
        from_context: CUcontext,
        bytes: usize,
        stream: CUstream,
    ) -> c_int;
    pub fn cuMemcpyDtoDAsync_v2(
        to: CUdeviceptr,
        from: CUdeviceptr,
        bytes: usize,
        stream: CUstream,
    ) -> c_int;
    pub fn cuMemcpy2DAsync_v2(copy: *const CUDA_MEMCPY2D, stream: CUstream) -> c_int;
    pub fn cuMemsetD8Async(to: CUdeviceptr, value: u8, count: usize, stream: CUstream) -> c_int;

    pub fn cuStreamCreate(stream: *mut CUstream, flags: c_uint) -> c_int;
    pub fn cuStreamDestroy_v2(stream: CUstream) -> c_int;
    pub fn cuStreamSynchronize(stream: CUstream) -> c_int;
    pub fn cuStreamWaitEvent(stream: CUstream, event: CUevent, flags: c_uint) -> c_int;
    pub fn cuStreamBeginCapture_v2(stream: CUstream, mode: c_int) -> c_int;
    pub fn cuStreamEndCapture(stream: CUstream, graph: *mut CUgraph) -> c_int;

    pub fn cuEventCreate(event: *mut CUevent, flags: c_uint) -> c_int;
    pub fn cuEventRecord(event: CUevent, stream: CUstream) -> c_int;
    pub fn cuEventSynchronize(event: CUevent) -> c_int;
    pub fn cuEventElapsedTime(milliseconds: *mut f32, start: CUevent, end: CUevent) -> c_int;
    pub fn cuEventDestroy_v2(event: CUevent) -> c_int;

    pub fn cuModuleLoadDataEx(
        module: *mut CUmodule,
        image: *const c_void,
        options: c_uint,
        option_names: *mut c_int,
        option_values: *mut *mut c_void,
    ) -> c_int;
    pub fn cuModuleUnload(module: CUmodule) -> c_int;
    pub fn cuModuleGetFunction(
        function: *mut CUfunction,
        module: CUmodule,
        name: *const c_char,
    ) -> c_int;
    pub fn cuFuncGetAttribute(value: *mut c_int, attribute: c_int, function: CUfunction) -> c_int;
    pub fn cuFuncSetAttribute(function: CUfunction, attribute: c_int, value: c_int) -> c_int;
    /// Since CUDA 12.4.
    pub fn cuFuncGetParamInfo(
        function: CUfunction,
        index: usize,
        offset: *mut usize,
        size: *mut usize,
    ) -> c_int;

    pub fn cuLaunchKernel(
        function: CUfunction,
        grid_x: c_uint,
        grid_y: c_uint,
        grid_z: c_uint,
        block_x: c_uint,
        block_y: c_uint,
        block_z: c_uint,
        shared_bytes: c_uint,
        stream: CUstream,
        parameters: *mut *mut c_void,
        extra: *mut *mut c_void,
    ) -> c_int;
    pub fn cuLaunchCooperativeKernel(
        function: CUfunction,
        grid_x: c_uint,
        grid_y: c_uint,
        grid_z: c_uint,
        block_x: c_uint,
        block_y: c_uint,
        block_z: c_uint,
        shared_bytes: c_uint,
        stream: CUstream,
        parameters: *mut *mut c_void,
    ) -> c_int;
    /// Since CUDA 11.8.
    pub fn cuLaunchKernelEx(
        config: *const CUlaunchConfig,
        function: CUfunction,
        parameters: *mut *mut c_void,
        extra: *mut *mut c_void,
    ) -> c_int;

    pub fn cuGraphInstantiateWithFlags(exec: *mut CUgraphExec, graph: CUgraph, flags: u64)
    -> c_int;
    /// Since CUDA 12.0.
    pub fn cuGraphExecUpdate_v2(
        exec: CUgraphExec,
        graph: CUgraph,
        info: *mut CUgraphExecUpdateResultInfo,
    ) -> c_int;
    pub fn cuGraphLaunch(exec: CUgraphExec, stream: CUstream) -> c_int;
    pub fn cuGraphDestroy(graph: CUgraph) -> c_int;
    pub fn cuGraphExecDestroy(exec: CUgraphExec) -> c_int;
}
