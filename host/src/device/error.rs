use std::fmt;

use super::launch::LaunchRecord;

const OUT_OF_MEMORY: i32 = 2;
const DEVICE_UNAVAILABLE: i32 = 46;
const JIT_COMPILER_NOT_FOUND: i32 = 221;
const JIT_COMPILATION_DISABLED: i32 = 223;

/// Everything that can go wrong between this library and a device.
///
/// Each variant names the object, the offending value and, where there is one, the remedy.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// This machine has no NVIDIA driver that can be used.
    #[error("no CUDA device: {reason}; use the device `emulated`, or {remedy}")]
    NoDriver {
        /// What was tried and how it failed.
        reason: String,
        /// What would make the driver usable.
        remedy: &'static str,
    },
    /// The driver has fewer GPUs than the ordinal asks for.
    #[error("no device `cuda:{ordinal}`: the driver lists {count} GPU(s), numbered from 0")]
    NoSuchDevice {
        /// The ordinal asked for.
        ordinal: usize,
        /// How many GPUs the driver lists.
        count: usize,
    },
    /// A device name that is not one of `auto`, `emulated`, `cuda` and `cuda:<ordinal>`.
    #[error(
        "unknown device `{name}`: expected `auto`, `emulated`, `cuda` or `cuda:<ordinal>`, such as `cuda:0`"
    )]
    UnknownDevice {
        /// The name as given.
        name: String,
    },
    /// An [`EmulatedConfig`](super::EmulatedConfig) that describes no GPU, or a
    /// [`MemoryPoolConfig`](super::MemoryPoolConfig) that describes no pool.
    #[error("{option} = {value} is not possible: {expected}")]
    InvalidConfig {
        /// Name of the field.
        option: &'static str,
        /// The value as given.
        value: String,
        /// What would be accepted.
        expected: &'static str,
    },
    /// A second pool for a device.
    #[error(
        "{device} has a memory pool already, which stays as long as the device; `Device::pool` returns it"
    )]
    PoolExists {
        /// The device.
        device: String,
    },
    /// The device does not have enough memory left.
    #[error(
        "{device}: out of memory: {requested} bytes asked for, {free} of {total} bytes free; \
         drop buffers that are no longer needed or split the work"
    )]
    OutOfMemory {
        /// The device asked.
        device: String,
        /// Bytes asked for.
        requested: usize,
        /// Bytes the device reported as free just after the refusal.
        free: usize,
        /// Bytes of memory that the device has.
        total: usize,
    },
    /// The device's memory pool may not hold as much more as its limit says.
    #[error(
        "{device}: the memory pool is exhausted: {requested} bytes asked for, {free} of the {limit} bytes that it may hold are \
         free, but no block of {block}; drop buffers that are no longer needed, or raise its limit"
    )]
    PoolExhausted {
        /// The device.
        device: String,
        /// Bytes asked for.
        requested: usize,
        /// Bytes that the pool may hold: [`MemoryPoolConfig::max_bytes`](super::MemoryPoolConfig::max_bytes).
        limit: usize,
        /// How many of them are not in use, in blocks of the pool or not taken from the driver yet.
        free: usize,
        /// Bytes of the block that is missing, which holds those asked for.
        block: usize,
    },
    /// Host memory that cannot be allocated or page-locked.
    #[error(
        "{device}: {requested} bytes of pinned host memory cannot be allocated: {reason}; \
         drop pinned buffers that are no longer needed, or copy in smaller pieces"
    )]
    PinnedMemory {
        /// The device whose copies the memory was for.
        device: String,
        /// Bytes asked for.
        requested: usize,
        /// What refused it.
        reason: String,
    },
    /// A buffer whose size in bytes does not fit the address space.
    #[error("a buffer of {elements} elements of {element_size} bytes exceeds the address space")]
    BufferTooLarge {
        /// Number of elements asked for.
        elements: usize,
        /// Size of one element in bytes.
        element_size: usize,
    },
    /// A host slice and a buffer of different lengths.
    #[error("host slice has {host} elements, the buffer {buffer}; they have to be equal")]
    LengthMismatch {
        /// Elements in the host slice.
        host: usize,
        /// Elements in the buffer.
        buffer: usize,
    },
    /// A copy of a whole buffer to one of another length.
    #[error(
        "the buffer to copy from has {from} elements, the one to copy to {to}; they have to be equal"
    )]
    CopyLength {
        /// Elements in the buffer to copy from.
        from: usize,
        /// Elements in the buffer to copy to.
        to: usize,
    },
    /// A copy of elements that its buffer does not have, or of a range that ends before it starts.
    #[error(
        "elements {start}..{end} cannot be copied {direction} a buffer of {len}; \
         a range ends within its buffer, and not before it starts"
    )]
    CopyRange {
        /// `from` or `to`.
        direction: &'static str,
        /// The first element of the range.
        start: usize,
        /// The element after its last.
        end: usize,
        /// Elements in the buffer.
        len: usize,
    },
    /// An address range that is not entirely memory of the device.
    #[error(
        "{bytes} bytes at {address:#x} are not memory of {device}: {}", MemoryAt(.allocation)
    )]
    NotDeviceMemory {
        /// The first byte.
        address: u64,
        /// How many bytes were to be used.
        bytes: u64,
        /// The device.
        device: String,
        /// Address and length of the allocation in which the range starts, if there is one.
        allocation: Option<(u64, u64)>,
    },
    /// A device pointer that is not aligned as its type needs.
    #[error("device pointer {address:#x} is not a multiple of {alignment}, as its use needs")]
    MisalignedPointer {
        /// The pointer.
        address: u64,
        /// What it has to be a multiple of.
        alignment: usize,
    },
    /// A caller's stream on a device that does not support one.
    #[error(
        "stream {handle:#x} cannot be used on {device}, which has no streams of the caller; pass null"
    )]
    ForeignStream {
        /// The handle.
        handle: u64,
        /// The device.
        device: String,
    },
    /// Objects of two devices in one call.
    #[error(
        "{what} is on {found}, but the stream is on {}; use one device for both",
        OtherDevice(.expected, .found)
    )]
    DeviceMismatch {
        /// What is on the wrong device, such as ``buffer `weights` of kernel gemv``.
        what: String,
        /// Device that it is on.
        found: String,
        /// Device of the stream.
        expected: String,
    },
    /// A launch configuration that the device or the kernel does not allow.
    #[error("kernel {kernel}: {what} is {value}, but {device} allows {limit}")]
    LaunchLimit {
        /// Name of the kernel.
        kernel: String,
        /// What is outside its limits, such as `block size in threads`.
        what: &'static str,
        /// The value in the launch.
        value: u64,
        /// What is allowed, such as `1 to 1024`.
        limit: String,
        /// The device.
        device: String,
    },
    /// A launch with too few or too many arguments.
    #[error("kernel {kernel} takes {expected} arguments, {actual} were passed")]
    ArgumentCount {
        /// Name of the kernel.
        kernel: String,
        /// Parameters of the kernel.
        expected: usize,
        /// Arguments of the launch.
        actual: usize,
    },
    /// A launch argument of another size than the parameter.
    #[error(
        "kernel {kernel}: argument {index} has {actual} bytes, but the parameter has {expected}"
    )]
    ArgumentSize {
        /// Name of the kernel.
        kernel: String,
        /// Index of the argument, from 0.
        index: usize,
        /// Size of the parameter in bytes.
        expected: usize,
        /// Size of the argument in bytes.
        actual: usize,
    },
    /// A pointer argument that starts beyond the end of its buffer.
    #[error("kernel {kernel}: argument {index} starts at byte {offset} of a buffer of {len} bytes")]
    ArgumentOffset {
        /// Name of the kernel.
        kernel: String,
        /// Index of the argument, from 0.
        index: usize,
        /// Byte offset of the argument.
        offset: usize,
        /// Size of the buffer in bytes.
        len: usize,
    },
    /// The sizes of a kernel's parameters cannot be determined, so a launch cannot be checked.
    #[error(
        "kernel {kernel}: its parameter sizes are unknown: the driver has no cuFuncGetParamInfo \
         (CUDA 12.4) and the PTX could not be read: {reason}"
    )]
    UnknownParameters {
        /// Name of the kernel.
        kernel: String,
        /// Why the PTX could not be read.
        reason: String,
    },
    /// PTX made for another architecture than the device's.
    #[error(
        "PTX for {target} does not run on {device}, which is sm_{}{}; load PTX of that \
         architecture or an older one", .compute_capability.0, .compute_capability.1
    )]
    PtxTarget {
        /// The PTX's `.target`, such as `sm_90`.
        target: String,
        /// The device.
        device: String,
        /// The device's compute capability.
        compute_capability: (u32, u32),
    },
    /// PTX that the device's compiler refuses.
    #[error("{device} refuses the PTX: {log}")]
    InvalidPtx {
        /// The device.
        device: String,
        /// The compiler's message.
        log: String,
    },
    /// A module without the kernel asked for.
    #[error("the module has no kernel `{kernel}`")]
    NoSuchKernel {
        /// The name asked for.
        kernel: String,
    },
    /// An operation that cannot be part of a graph, while its stream is being captured.
    #[error(
        "{operation} is not possible while the stream is being captured into a graph; \
         do it before or after the capture"
    )]
    Capturing {
        /// The operation.
        operation: &'static str,
    },
    /// A capture in which nothing was launched.
    #[error("nothing was launched while the graph was captured")]
    EmptyGraph,
    /// An update of a graph that launches other kernels than the graph has.
    #[error(
        "launch {index} of the graph is {}, but that of the update is {}; an update changes \
         arguments and shapes only, capture another graph for other kernels",
        Launched(.captured), Launched(.updated)
    )]
    GraphMismatch {
        /// The first launch that differs, from 0.
        index: usize,
        /// Its kernel in the graph, if the graph has that many launches.
        captured: Option<String>,
        /// Its kernel in the update, if the update has that many launches.
        updated: Option<String>,
    },
    /// A kernel wrote to a buffer that its signature only reads. Only the emulator sees this.
    #[error(
        "kernel {kernel} wrote {bytes} bytes to argument {index}, which its signature only reads"
    )]
    ReadOnlyArgument {
        /// Name of the kernel.
        kernel: String,
        /// Index of the argument, from 0.
        index: usize,
        /// Bytes written.
        bytes: u64,
    },
    /// The device refuses a launch; nothing ran and the device can still be used.
    #[error("{device} refuses to launch kernel {kernel}: {reason}")]
    LaunchRefused {
        /// The device.
        device: String,
        /// Name of the kernel.
        kernel: String,
        /// The driver's message.
        reason: String,
    },
    /// A kernel failed on the device, or the device itself did. The memory behind this
    /// [`Device`](super::Device) is lost, and every further call on it returns this error.
    #[error(
        "{device} is lost: {cause}{}; drop everything made on it and open the device again",
        Suspects(.launches)
    )]
    Lost {
        /// The device.
        device: String,
        /// The driver's or the emulator's account of the fault.
        cause: String,
        /// The launches that may have caused it, oldest first: those submitted and not yet known to
        /// be complete. With one entry, that launch is the cause.
        launches: Vec<LaunchRecord>,
    },
    /// The operation does not exist on this kind of device.
    #[error("{operation} is not available on {device}")]
    Unsupported {
        /// The operation.
        operation: &'static str,
        /// The device.
        device: String,
    },
    /// Any other error code of the CUDA driver.
    #[error("{device}: {call} failed with {name} ({code}){}", Remedy(*.code))]
    Driver {
        /// The device.
        device: String,
        /// The driver's entry point.
        call: &'static str,
        /// The driver's name for the code.
        name: String,
        /// The `CUresult`.
        code: i32,
    },
}

impl DeviceError {
    /// Whether the error is about a lack of memory, on the device, in its pool or, page-locked, on the host.
    pub fn is_out_of_memory(&self) -> bool {
        matches!(
            self,
            Self::OutOfMemory { .. } | Self::PoolExhausted { .. } | Self::PinnedMemory { .. }
        )
    }

    /// The same error for so many bytes, where it is about memory that is not to be had.
    pub(super) fn with_requested(mut self, bytes: usize) -> Self {
        if let Self::OutOfMemory { requested, .. }
        | Self::PoolExhausted { requested, .. }
        | Self::PinnedMemory { requested, .. } = &mut self
        {
            *requested = bytes;
        }
        self
    }
}

struct MemoryAt<'a>(&'a Option<(u64, u64)>);

impl fmt::Display for MemoryAt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some((base, len)) => write!(f, "the allocation at {base:#x} has {len} bytes"),
            None => f.write_str("no allocation is there"),
        }
    }
}

/// A device, and the one that it is not, which may have the same name.
struct OtherDevice<'a>(&'a str, &'a str);

impl fmt::Display for OtherDevice<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self(device, other) if device == other => {
                f.write_str("another device of the same name, opened by another call")
            }
            Self(device, _) => f.write_str(device),
        }
    }
}

struct Launched<'a>(&'a Option<String>);

impl fmt::Display for Launched<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_deref().unwrap_or("missing"))
    }
}

/// What helps where the machine, and not the call, is the reason for a `CUresult`.
struct Remedy(i32);

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            OUT_OF_MEMORY => "; the GPU's memory is full: `nvidia-smi` lists the processes that have it",
            DEVICE_UNAVAILABLE => {
                "; another process uses the GPU alone, or its compute mode is `Prohibited`: see `nvidia-smi -q -d COMPUTE`"
            }
            JIT_COMPILER_NOT_FOUND => {
                "; install the driver's libnvidia-ptxjitcompiler.so.1 (in a container, NVIDIA_DRIVER_CAPABILITIES needs `compute`)"
            }
            JIT_COMPILATION_DISABLED => "; unset CUDA_DISABLE_PTX_JIT",
            _ => "",
        })
    }
}

struct Suspects<'a>(&'a [LaunchRecord]);

impl fmt::Display for Suspects<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [] => Ok(()),
            [only] => write!(f, " in {only}"),
            [first, rest @ ..] => {
                write!(f, " in one of: {first}")?;
                rest.iter().try_for_each(|launch| write!(f, ", {launch}"))
            }
        }
    }
}
