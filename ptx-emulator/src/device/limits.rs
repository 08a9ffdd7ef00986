//! How much fits on a device at once.

/// Most threads of a block, on any device.
pub(super) const BLOCK_THREADS: u32 = 1024;

/// What a compute capability limits (CUDA programming guide, "Technical Specifications per Compute Capability").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    /// Threads and blocks that are resident on a multiprocessor.
    pub(super) threads: u64,
    pub(super) blocks: u64,
    /// Bytes of shared memory of a multiprocessor, and the most a block can have of them.
    pub(super) shared: u64,
    pub(super) block_shared: u64,
    /// Multiprocessors of the largest device.
    pub(super) multiprocessors: u64,
}

impl Limits {
    /// Those of a compute capability, major times 10 plus minor. One that is not known has those of the one before it.
    pub(super) fn of(compute_capability: u32) -> Self {
        let (threads, blocks, shared, block_shared, multiprocessors) = match compute_capability {
            0..=60 | 62 => (2048, 32, 64, 48, 56),
            61 | 63..=69 => (2048, 32, 96, 48, 30),
            70..=74 => (2048, 32, 96, 96, 80),
            75..=79 => (1024, 16, 64, 64, 72),
            80..=85 => (2048, 32, 164, 163, 108),
            86 | 88 => (1536, 16, 100, 99, 84),
            87 => (1536, 16, 164, 163, 16),
            89 => (1536, 24, 100, 99, 142),
            90..=99 => (2048, 32, 228, 227, 132),
            100..=109 => (2048, 32, 228, 227, 160),
            110..=119 => (1536, 24, 228, 227, 20),
            120.. => (1536, 24, 100, 99, 188),
        };
        Self {
            threads,
            blocks,
            shared: shared << 10,
            block_shared: block_shared << 10,
            multiprocessors,
        }
    }

    /// Blocks of so many threads that are resident at once, each of which takes so many bytes of shared memory.
    pub(super) fn resident(&self, threads: u64, shared_taken: u64) -> u64 {
        let by_threads = self.threads / threads.next_multiple_of(32);
        let by_shared = self.shared.checked_div(shared_taken).unwrap_or(u64::MAX);
        self.multiprocessors * self.blocks.min(by_threads).min(by_shared)
    }
}
