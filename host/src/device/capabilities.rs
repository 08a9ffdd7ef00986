/// The kind of a [`Device`](super::Device).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeviceKind {
    /// An NVIDIA GPU, through the CUDA driver.
    Cuda,
    /// The PTX emulator, on the CPU.
    Emulated,
}

/// What a device can do, in CUDA's terms.
///
/// On a GPU these are the driver's device attributes. On the emulated device they are those of the GPU that it stands for: the
/// limits are enforced, the number of multiprocessors and the cache size only serve the launch heuristics, and what the emulator
/// does not model is `None`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// Name of the GPU, such as `NVIDIA H200`; of an emulated device, `emulated (sm_90)`. Equal GPUs have equal names.
    pub model: String,
    /// Compute capability, major and minor.
    pub compute_capability: (u32, u32),
    /// Number of streaming multiprocessors.
    pub multiprocessors: u32,
    /// Threads in a warp.
    pub warp_size: u32,
    /// Global memory in bytes.
    pub memory_bytes: usize,
    /// L2 cache in bytes.
    pub l2_bytes: usize,
    /// Most threads that can be resident on one multiprocessor.
    pub max_threads_per_multiprocessor: u32,
    /// Most threads in a block.
    pub max_threads_per_block: u32,
    /// Largest block in each dimension.
    pub max_block: [u32; 3],
    /// Largest grid in each dimension.
    pub max_grid: [u32; 3],
    /// Shared memory of one multiprocessor in bytes.
    pub shared_bytes_per_multiprocessor: u32,
    /// Shared memory in bytes that a block can have without opting in (48 KiB).
    pub shared_bytes_per_block: u32,
    /// Shared memory in bytes that a block can have after opting in, which launches do when they need it.
    pub shared_bytes_per_block_optin: u32,
    /// 32-bit registers of one multiprocessor.
    pub registers_per_multiprocessor: u32,
    /// Whether cooperative launches (grid-wide barriers) are possible.
    pub cooperative_launch: bool,
    /// Whether a kernel can start before the preceding one on its stream has finished (programmatic dependent launch), also in
    /// graphs: needs compute capability 9.0 and a driver of CUDA 12.3. The emulated device runs launches one after the other, and
    /// checks them as if they overlapped.
    pub programmatic_launch: bool,
    /// Peak clock in kilohertz.
    pub clock_khz: Option<u32>,
    /// Peak memory clock in kilohertz.
    pub memory_clock_khz: Option<u32>,
    /// Width of the memory bus in bits.
    pub memory_bus_bits: Option<u32>,
    /// Version of the driver, as CUDA encodes it: 12040 is 12.4.
    pub driver_version: Option<u32>,
}
