//! The buddy allocator: power-of-two blocks of 1 MiB up to a chunk, and whole allocations beyond.

use std::{collections::BTreeSet, ops::RangeInclusive};

use super::{
    MemoryRange, MemorySpace, TrackingLevel,
    metrics::{Counts, MemoryMetrics},
};
use crate::device::{core::Core, error::DeviceError};

/// The smallest block.
pub(super) const MIN_BLOCK: usize = 1 << 20;

/// What an allocation beyond a chunk is rounded up to.
const WHOLE_GRANULARITY: usize = 2 << 20;

/// All chunks of a device.
#[derive(Debug)]
pub(super) struct Buddy {
    space: MemorySpace,
    chunk_bytes: usize,
    max_bytes: Option<usize>,
    /// Bytes taken from the driver and not given back.
    held: usize,
    /// Bytes of free blocks.
    free_bytes: usize,
    /// By place; empty places are taken again.
    chunks: Vec<Option<MemoryRange>>,
    /// Free blocks by order, each as chunk and offset: the first has the lowest address of the oldest chunk, so that later
    /// chunks fall empty.
    free: Vec<BTreeSet<(usize, usize)>>,
    /// By order; the last is for whole allocations.
    counts: Vec<Counts>,
    driver_allocations: u64,
    driver_frees: u64,
}

/// A block in use.
#[derive(Debug)]
pub(super) struct BuddyBlock {
    /// The driver's allocation that it is a part of.
    pub(super) whole: MemoryRange,
    pub(super) bytes: usize,
    /// `None` where it is the whole allocation.
    place: Option<(usize, usize)>,
}

impl BuddyBlock {
    pub(super) fn address(&self) -> u64 {
        self.whole.base + self.place.map_or(0, |(_, offset)| offset as u64)
    }
}

/// A block of order `n` has `2^n` MiB.
fn order_of(bytes: usize) -> usize {
    debug_assert!(bytes.is_power_of_two() && bytes >= MIN_BLOCK);
    (bytes / MIN_BLOCK).ilog2() as usize
}

fn bytes_of(order: usize) -> usize {
    MIN_BLOCK << order
}

impl Buddy {
    pub(super) fn new(space: MemorySpace, chunk_bytes: usize, max_bytes: Option<usize>) -> Self {
        let orders = order_of(chunk_bytes) + 1;
        Self {
            space,
            chunk_bytes,
            max_bytes,
            held: 0,
            free_bytes: 0,
            chunks: Vec::new(),
            free: vec![BTreeSet::new(); orders],
            counts: vec![Counts::default(); orders + 1],
            driver_allocations: 0,
            driver_frees: 0,
        }
    }

    pub(super) fn take(
        &mut self,
        core: &Core,
        requested: usize,
        tracking: TrackingLevel,
    ) -> Result<BuddyBlock, DeviceError> {
        if requested > self.chunk_bytes {
            let bytes = requested
                .checked_next_multiple_of(WHOLE_GRANULARITY)
                .unwrap_or(requested);
            let whole = self.allocate(core, bytes, requested)?;
            self.whole_counts().allocated(requested, tracking);
            return Ok(BuddyBlock {
                whole,
                bytes,
                place: None,
            });
        }
        let order = order_of(requested.next_power_of_two().max(MIN_BLOCK));
        let place = match self.split(order) {
            Some(place) => place,
            None => {
                self.grow(core, order..=self.free.len() - 1, requested)?;
                self.split(order).expect("the new chunk has such a block")
            }
        };
        self.counts[order].allocated(requested, tracking);
        self.free_bytes -= bytes_of(order);
        let whole = self.chunks[place.0].expect("a chunk with a block in use exists");
        Ok(BuddyBlock {
            whole,
            bytes: bytes_of(order),
            place: Some(place),
        })
    }

    pub(super) fn put_back(
        &mut self,
        core: &Core,
        block: BuddyBlock,
        requested: usize,
        tracking: TrackingLevel,
    ) -> Result<(), DeviceError> {
        let Some((chunk, mut offset)) = block.place else {
            self.whole_counts().freed(requested, tracking);
            return self.give_back(core, block.whole);
        };
        let mut order = order_of(block.bytes);
        self.counts[order].freed(requested, tracking);
        self.free_bytes += block.bytes;
        // A whole chunk has no buddy: none begins where it ends.
        while self.free[order].remove(&(chunk, offset ^ bytes_of(order))) {
            offset &= !bytes_of(order);
            order += 1;
        }
        let is_new = self.free[order].insert((chunk, offset));
        debug_assert!(is_new, "a block was put back twice");
        Ok(())
    }

    /// Takes a block of that order out of the smallest free one, in halves.
    fn split(&mut self, order: usize) -> Option<(usize, usize)> {
        let found = (order..self.free.len()).find(|&order| !self.free[order].is_empty())?;
        let (chunk, offset) = self.free[found].pop_first()?;
        for half in (order..found).rev() {
            self.free[half].insert((chunk, offset + bytes_of(half)));
        }
        Some((chunk, offset))
    }

    /// Adds a chunk: of the largest of these orders that is to be had.
    fn grow(
        &mut self,
        core: &Core,
        orders: RangeInclusive<usize>,
        requested: usize,
    ) -> Result<(), DeviceError> {
        let mut chunk_order = *orders.end();
        let whole = loop {
            match self.allocate(core, bytes_of(chunk_order), requested) {
                Err(error) if error.is_out_of_memory() && chunk_order > *orders.start() => {
                    chunk_order -= 1
                }
                result => break result?,
            }
        };
        let place = match self.chunks.iter().position(Option::is_none) {
            Some(place) => {
                self.chunks[place] = Some(whole);
                place
            }
            None => {
                self.chunks.push(Some(whole));
                self.chunks.len() - 1
            }
        };
        self.free[chunk_order].insert((place, 0));
        self.free_bytes += whole.len;
        Ok(())
    }

    /// Takes chunks from the driver until it holds that many bytes, or as many of them as whole blocks of `max_bytes` are.
    pub(super) fn reserve(&mut self, core: &Core, bytes: usize) -> Result<(), DeviceError> {
        while self.held < bytes && self.headroom() >= MIN_BLOCK {
            let left = (bytes - self.held).clamp(MIN_BLOCK, self.chunk_bytes);
            let left = left.next_power_of_two();
            self.grow(core, 0..=order_of(left), left)?;
        }
        Ok(())
    }

    /// Bytes that may still be taken from the driver.
    fn headroom(&self) -> usize {
        self.max_bytes
            .map_or(usize::MAX, |most| most.saturating_sub(self.held))
    }

    fn allocate(
        &mut self,
        core: &Core,
        bytes: usize,
        requested: usize,
    ) -> Result<MemoryRange, DeviceError> {
        if let Some(most) = self.max_bytes
            && bytes > self.headroom()
        {
            let free = self.headroom() + self.free_bytes;
            return Err(match self.space {
                MemorySpace::Device => DeviceError::PoolExhausted {
                    device: core.name.clone(),
                    requested,
                    limit: most,
                    free,
                    block: bytes,
                },
                MemorySpace::PinnedHost => DeviceError::PinnedMemory {
                    device: core.name.clone(),
                    requested,
                    reason: format!(
                        "the pool holds at most {most} bytes, {free} of them are free, but no block of {bytes}"
                    ),
                },
            });
        }
        let base = core.check(core.driver.allocate_in(self.space, bytes))?;
        self.held += bytes;
        self.driver_allocations += 1;
        Ok(MemoryRange { base, len: bytes })
    }

    fn give_back(&mut self, core: &Core, whole: MemoryRange) -> Result<(), DeviceError> {
        // SAFETY: every block of the allocation has been put back, and blocks are put back once their work is done.
        core.check(unsafe { core.driver.free_in(self.space, whole.base) })?;
        self.held -= whole.len;
        self.driver_frees += 1;
        Ok(())
    }

    /// Gives whole free chunks back to the driver, the newest first, until at most `keep` bytes are free.
    pub(super) fn trim(&mut self, core: &Core, keep: usize) -> Result<usize, DeviceError> {
        let before = self.held;
        for place in (0..self.chunks.len()).rev() {
            let Some(whole) = self.chunks[place] else {
                continue;
            };
            let order = order_of(whole.len);
            if self.free_bytes > keep && self.free[order].remove(&(place, 0)) {
                self.chunks[place] = None;
                self.free_bytes -= whole.len;
                self.give_back(core, whole)?;
            }
        }
        Ok(before - self.held)
    }

    /// Gives all chunks back, whatever is in use; nothing is taken any more.
    pub(super) fn release_all(&mut self, core: &Core) -> Result<(), DeviceError> {
        let chunks = std::mem::take(&mut self.chunks);
        chunks
            .into_iter()
            .flatten()
            .try_for_each(|whole| self.give_back(core, whole))
    }

    pub(super) fn add_to(&self, metrics: &mut MemoryMetrics) {
        metrics.held_bytes = self.held;
        metrics.buddy_free_bytes = self.free_bytes;
        let largest = (0..self.free.len())
            .rev()
            .find(|&order| !self.free[order].is_empty());
        metrics.largest_free_bytes = largest.map_or(0, bytes_of);
        metrics.driver_allocations = self.driver_allocations;
        metrics.driver_frees = self.driver_frees;
        let orders = self.free.len();
        for (order, counts) in self.counts[..orders].iter().enumerate() {
            metrics.add(bytes_of(order), counts);
        }
        metrics.add(usize::MAX, &self.counts[orders]);
    }

    fn whole_counts(&mut self) -> &mut Counts {
        self.counts
            .last_mut()
            .expect("there is one beyond the orders")
    }
}
