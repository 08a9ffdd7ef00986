use super::super::{capabilities::Capabilities, error::DeviceError};

/// What GPU an emulated device stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmulatedConfig {
    /// Compute capability, major and minor. Default 9.0.
    ///
    /// The limits of a launch are those of this compute capability. Processor count and L2 size, which only
    /// launch heuristics look at, are those of one GPU of each: T4 (7.5), A100 (8.0), RTX 3090 (8.6), L40S (8.9),
    /// H100 (9.0), B200 (10.0), RTX 5090 (12.0).
    pub compute_capability: (u32, u32),
    /// Device memory in bytes. Default 8 GiB; the host's memory is taken only as buffers are made.
    pub memory_bytes: usize,
    /// Which kinds of undefined behaviour are faults. Default all.
    pub checks: ptx_emulator::Checks,
    /// Host threads that run blocks; 0 takes one a core. Changes no result and no count. Default 0.
    pub threads: usize,
    /// Shuffles the order in which warps and blocks run, which then run on one host thread. A correct kernel gives the same result.
    /// Default none: ascending order.
    pub seed: Option<u64>,
}

impl Default for EmulatedConfig {
    fn default() -> Self {
        Self {
            compute_capability: (9, 0),
            memory_bytes: 8 << 30,
            checks: ptx_emulator::Checks::default(),
            threads: 0,
            seed: None,
        }
    }
}

/// The limits of a compute capability, from the table of technical specifications in NVIDIA's CUDA C++
/// Programming Guide; or those of the GPU `like`.
pub(super) fn capabilities(
    config: &EmulatedConfig,
    like: Option<&Capabilities>,
) -> Result<Capabilities, DeviceError> {
    // Multiprocessors, MiB of L2, threads and KiB of shared memory of a multiprocessor, KiB of a block.
    let (multiprocessors, l2_mib, threads, shared_kib, block_kib) = match config.compute_capability
    {
        (7, 5) => (40, 4, 1024, 64, 64),
        (8, 0) => (108, 40, 2048, 164, 163),
        (8, 6) => (82, 6, 1536, 100, 99),
        (8, 9) => (142, 96, 1536, 100, 99),
        (9, 0) => (132, 50, 2048, 228, 227),
        (10, 0) => (148, 126, 2048, 228, 227),
        (12, 0) => (170, 96, 1536, 100, 99),
        (major, minor) => {
            return Err(DeviceError::InvalidConfig {
                option: "compute_capability",
                value: format!("{major}.{minor}"),
                expected: "7.5, 8.0, 8.6, 8.9, 9.0, 10.0 or 12.0",
            });
        }
    };
    if config.memory_bytes == 0 {
        return Err(DeviceError::InvalidConfig {
            option: "memory_bytes",
            value: "0".to_owned(),
            expected: "at least 1",
        });
    }
    let (major, minor) = config.compute_capability;
    let emulated = Capabilities {
        model: format!("emulated (sm_{major}{minor})"),
        compute_capability: config.compute_capability,
        multiprocessors,
        warp_size: 32,
        memory_bytes: config.memory_bytes,
        l2_bytes: l2_mib << 20,
        max_threads_per_multiprocessor: threads,
        max_threads_per_block: 1024,
        max_block: [1024, 1024, 64],
        max_grid: [i32::MAX.unsigned_abs(), 65_535, 65_535],
        shared_bytes_per_multiprocessor: shared_kib << 10,
        shared_bytes_per_block: 48 << 10,
        shared_bytes_per_block_optin: block_kib << 10,
        registers_per_multiprocessor: 64 << 10,
        cooperative_launch: true,
        programmatic_launch: config.compute_capability >= (9, 0),
        clock_khz: None,
        memory_clock_khz: None,
        memory_bus_bits: None,
        driver_version: None,
    };
    Ok(match like {
        None => emulated,
        Some(gpu) => Capabilities {
            multiprocessors: gpu.multiprocessors,
            l2_bytes: gpu.l2_bytes,
            max_threads_per_multiprocessor: gpu.max_threads_per_multiprocessor,
            shared_bytes_per_multiprocessor: gpu.shared_bytes_per_multiprocessor,
            shared_bytes_per_block_optin: gpu.shared_bytes_per_block_optin,
            registers_per_multiprocessor: gpu.registers_per_multiprocessor,
            clock_khz: gpu.clock_khz,
            memory_clock_khz: gpu.memory_clock_khz,
            memory_bus_bits: gpu.memory_bus_bits,
            ..emulated
        },
    })
}
