use super::TrackingLevel;

/// What one size of blocks has done.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    allocations: u64,
    frees: u64,
    /// Bytes asked for, of the blocks in use.
    requested: usize,
}

impl Counts {
    pub(super) fn allocated(&mut self, requested: usize, tracking: TrackingLevel) {
        if tracking >= TrackingLevel::Basic {
            self.allocations += 1;
        }
        if tracking >= TrackingLevel::Standard {
            self.requested += requested;
        }
    }

    pub(super) fn freed(&mut self, requested: usize, tracking: TrackingLevel) {
        if tracking >= TrackingLevel::Basic {
            self.frees += 1;
        }
        if tracking >= TrackingLevel::Standard {
            self.requested -= requested;
        }
    }
}

/// The state and the counters of a pool. `held = in use + pending + cached + unusable`.
///
/// The values are consistent with each other if no other thread uses the pool meanwhile.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MemoryMetrics {
    /// Bytes of the blocks behind existing buffers.
    pub in_use_bytes: usize,
    /// The most that were in use at once; 0 at [`TrackingLevel::None`].
    pub peak_bytes: usize,
    /// Bytes of dropped buffers that submitted work may still use.
    pub pending_bytes: usize,
    /// Bytes taken from the driver and not given back.
    pub held_bytes: usize,
    /// Ends of slabs that are too short for another block.
    pub unusable_bytes: usize,
    /// Bytes that existing buffers asked for, from [`TrackingLevel::Standard`] on.
    pub requested_bytes: usize,
    /// Blocks handed out, from [`TrackingLevel::Basic`] on.
    pub allocations: u64,
    /// Blocks returned and no longer pending, from [`TrackingLevel::Basic`] on.
    pub frees: u64,
    /// Allocations made from the driver.
    pub driver_allocations: u64,
    /// Allocations returned to the driver.
    pub driver_frees: u64,
    /// Largest free block of the buddy allocator.
    pub largest_free_bytes: usize,
    /// Blocks handed out by size of block, ascending, sizes that were never asked for left out; `usize::MAX` stands for
    /// buffers larger than a chunk. From [`TrackingLevel::Basic`] on. Slabs are not counted.
    pub histogram: Vec<(usize, u64)>,
    pub(super) slab_free_bytes: usize,
    pub(super) buddy_free_bytes: usize,
}

impl MemoryMetrics {
    /// Bytes that are free for the next buffers.
    pub fn cached_bytes(&self) -> usize {
        self.slab_free_bytes + self.buddy_free_bytes
    }

    /// Internal fragmentation: the share of the bytes in use that was not requested, in 0..=1; from [`TrackingLevel::Standard`]
    /// on.
    pub fn internal_fragmentation(&self) -> f64 {
        share(
            self.in_use_bytes.saturating_sub(self.requested_bytes),
            self.in_use_bytes,
        )
    }

    /// External fragmentation: the share of the buddy allocator's free bytes outside its largest free block, in 0..=1.
    pub fn external_fragmentation(&self) -> f64 {
        share(
            self.buddy_free_bytes
                .saturating_sub(self.largest_free_bytes),
            self.buddy_free_bytes,
        )
    }

    pub(super) fn add(&mut self, bytes: usize, counts: &Counts) {
        self.allocations += counts.allocations;
        self.frees += counts.frees;
        self.requested_bytes += counts.requested;
        if counts.allocations > 0 {
            self.histogram.push((bytes, counts.allocations));
        }
    }
}

fn share(part: usize, whole: usize) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 / whole as f64
    }
}
