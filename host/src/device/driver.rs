//! What a driver has to offer: handles and calls, close to the CUDA driver API.
//!
//! Everything that is the same on every device (ownership, limits, argument checks, what a fault leaves
//! behind) is written once, above this trait. A driver trusts its caller.

use std::any::Any;

use super::{
    capabilities::{Capabilities, DeviceKind},
    launch::LaunchConfig,
    profile::{Collector, LaunchReport},
};

macro_rules! handles {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub(super) struct $name(pub(super) u64);
    )*};
}

handles! {
    /// A stream of the driver that made it.
    RawStream;
    /// An event of the driver that made it.
    RawEvent;
    /// A module of the driver that made it.
    RawModule;
    /// A kernel of a module.
    RawFunction;
    /// An executable graph.
    RawGraph;
}

/// A kernel, and what has to be known to check its launches.
#[derive(Debug)]
pub(super) struct FunctionInfo {
    pub(super) raw: RawFunction,
    /// Size of each parameter in bytes.
    pub(super) parameter_sizes: Vec<usize>,
    /// Most threads of a block that the kernel can be launched with.
    pub(super) max_threads: u32,
    /// Shared memory that the kernel declares, in bytes.
    pub(super) static_shared: u32,
    /// Whether the kernel itself waits for the preceding grid (`griddepcontrol.wait`).
    pub(super) waits: bool,
}

/// One kernel parameter, as bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parameter {
    /// The value, in the first `len` bytes.
    pub(super) bytes: [u8; 8],
    pub(super) len: usize,
    /// The allocation behind a pointer.
    pub(super) target: Option<Target>,
}

/// The allocation that a pointer parameter points into.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target {
    pub(super) base: u64,
    pub(super) len: usize,
    pub(super) write: bool,
}

/// A range of device memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MemoryRange {
    pub(super) base: u64,
    pub(super) len: usize,
}

/// Which memory an allocation is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MemorySpace {
    /// The device's own memory.
    Device,
    /// Page-locked memory of the host.
    PinnedHost,
}

/// Where the rows of a matrix of bytes are: from `address` on, each `pitch` after the one before it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pitched {
    pub(super) address: u64,
    pub(super) pitch: usize,
}

/// How a driver call failed.
#[derive(Debug)]
pub(super) enum DriverError {
    OutOfMemory {
        requested: usize,
    },
    /// Host memory cannot be allocated or page-locked.
    PinnedMemory {
        requested: usize,
        reason: String,
    },
    /// The device's memory and handles are gone.
    Fault {
        cause: String,
    },
    InvalidPtx {
        log: String,
    },
    NoSuchKernel {
        kernel: String,
    },
    UnknownParameters {
        kernel: String,
        reason: String,
    },
    LaunchRefused {
        kernel: String,
        reason: String,
    },
    ReadOnlyArgument {
        kernel: String,
        index: usize,
        bytes: u64,
    },
    Code {
        call: &'static str,
        name: String,
        code: i32,
    },
}

/// A device as its driver sees it.
///
/// # Safety
///
/// Handles and addresses passed in come from the same driver and have not been destroyed; an address range
/// lies within one allocation. Host memory passed to a copy stays valid until the stream has been
/// synchronized. Memory, functions and graphs stay alive until the work submitted with them is done.
/// The unsafe functions ask for nothing more.
pub(super) trait Driver: Any + Send + Sync {
    fn kind(&self) -> DeviceKind;
    /// Whether work is complete when the call that submits it returns.
    fn synchronous(&self) -> bool;
    fn capabilities(&self) -> &Capabilities;
    /// Free and total bytes of device memory.
    fn memory_info(&self) -> Result<(usize, usize), DriverError>;
    fn synchronize(&self) -> Result<(), DriverError>;
    fn profiler(&self) -> Option<&Collector<LaunchReport>>;
    /// Prepares the calling thread for calls that reach the device past this trait.
    fn make_current(&self) -> Result<(), DriverError>;
    /// Returns once no thread is in a driver call any more; from then on calls fail without reaching the driver.
    fn retire(&self);
    /// Notes that the retired context has been destroyed, and with it what the driver knew of host memory.
    fn context_destroyed(&self);

    /// Allocates at least one byte, aligned to 256.
    fn allocate(&self, bytes: usize) -> Result<u64, DriverError>;
    unsafe fn free(&self, address: u64) -> Result<(), DriverError>;
    /// Allocates whole pages of host memory, zeroed, that copies of this device reach without the CPU.
    fn allocate_host(&self, bytes: usize) -> Result<u64, DriverError>;
    unsafe fn free_host(&self, address: u64) -> Result<(), DriverError>;
    /// As `allocate`, for work that comes later on the stream; `None` where the device has no such memory.
    unsafe fn allocate_on(
        &self,
        stream: RawStream,
        bytes: usize,
    ) -> Result<Option<u64>, DriverError>;
    /// Frees memory of `allocate_on` once what is on the stream so far is done, without waiting for it.
    unsafe fn free_on(&self, stream: RawStream, address: u64) -> Result<(), DriverError>;
    /// The allocation that holds the byte at any address, whoever made it; `None` where it is not this device's memory.
    fn range_of(&self, address: u64) -> Result<Option<MemoryRange>, DriverError>;

    fn create_stream(&self) -> Result<RawStream, DriverError>;
    unsafe fn destroy_stream(&self, stream: RawStream) -> Result<(), DriverError>;
    unsafe fn synchronize_stream(&self, stream: RawStream) -> Result<(), DriverError>;
    unsafe fn copy_to_device(
        &self,
        stream: RawStream,
        address: u64,
        bytes: *const [u8],
    ) -> Result<(), DriverError>;
    unsafe fn copy_to_host(
        &self,
        stream: RawStream,
        bytes: *mut [u8],
        address: u64,
    ) -> Result<(), DriverError>;
    unsafe fn fill(
        &self,
        stream: RawStream,
        address: u64,
        value: u8,
        len: usize,
    ) -> Result<(), DriverError>;
    /// Copies `rows` rows of `width` bytes within the device.
    unsafe fn copy_rows(
        &self,
        stream: RawStream,
        to: Pitched,
        from: Pitched,
        width: usize,
        rows: usize,
    ) -> Result<(), DriverError>;

    /// Whether copies of this device reach the memory of `peer`; lets them where they can.
    fn reaches(&self, peer: &dyn Driver) -> Result<bool, DriverError>;
    /// Copies from the memory of a device that this one reaches.
    unsafe fn copy_from_peer(
        &self,
        stream: RawStream,
        address: u64,
        peer: &dyn Driver,
        peer_address: u64,
        len: usize,
    ) -> Result<(), DriverError>;

    /// Makes an event and records it on the stream.
    unsafe fn record_event(&self, stream: RawStream) -> Result<RawEvent, DriverError>;
    unsafe fn destroy_event(&self, event: RawEvent) -> Result<(), DriverError>;
    unsafe fn synchronize_event(&self, event: RawEvent) -> Result<(), DriverError>;
    /// Makes the stream's further work wait for the event.
    unsafe fn wait_event(&self, stream: RawStream, event: RawEvent) -> Result<(), DriverError>;
    /// As `wait_event`, for an event of another device of the same kind.
    unsafe fn wait_peer_event(
        &self,
        stream: RawStream,
        peer: &dyn Driver,
        event: RawEvent,
    ) -> Result<(), DriverError>;
    /// Milliseconds between two completed events, where the device has a clock.
    unsafe fn elapsed_ms(&self, start: RawEvent, end: RawEvent)
    -> Result<Option<f32>, DriverError>;

    fn load_module(&self, ptx: &str) -> Result<RawModule, DriverError>;
    unsafe fn unload_module(&self, module: RawModule) -> Result<(), DriverError>;
    /// `ptx` is the text that the module was loaded from.
    unsafe fn function(
        &self,
        module: RawModule,
        kernel: &str,
        ptx: &str,
    ) -> Result<FunctionInfo, DriverError>;
    /// With `early`, the kernel itself waits for the preceding work on the stream, and may start before that has finished.
    unsafe fn launch(
        &self,
        stream: RawStream,
        kernel: &str,
        function: &FunctionInfo,
        config: &LaunchConfig,
        early: bool,
        parameters: &[Parameter],
    ) -> Result<(), DriverError>;

    /// From here on the stream collects launches instead of running them.
    unsafe fn begin_capture(&self, stream: RawStream) -> Result<(), DriverError>;
    /// Ends the capture in any case, also where it fails, and returns a graph of it: `into` with new arguments where it can take
    /// them, which does not change replays submitted before, else another one.
    unsafe fn end_capture(
        &self,
        stream: RawStream,
        into: Option<RawGraph>,
    ) -> Result<RawGraph, DriverError>;
    unsafe fn launch_graph(&self, stream: RawStream, graph: RawGraph) -> Result<(), DriverError>;
    unsafe fn destroy_graph(&self, graph: RawGraph) -> Result<(), DriverError>;
}

impl dyn Driver {
    pub(super) fn allocate_in(&self, space: MemorySpace, bytes: usize) -> Result<u64, DriverError> {
        match space {
            MemorySpace::Device => self.allocate(bytes),
            MemorySpace::PinnedHost => self.allocate_host(bytes),
        }
    }

    /// # Safety
    ///
    /// As for the driver's unsafe functions; the memory is of that space.
    pub(super) unsafe fn free_in(
        &self,
        space: MemorySpace,
        address: u64,
    ) -> Result<(), DriverError> {
        // SAFETY: the caller says so.
        unsafe {
            match space {
                MemorySpace::Device => self.free(address),
                MemorySpace::PinnedHost => self.free_host(address),
            }
        }
    }
}
