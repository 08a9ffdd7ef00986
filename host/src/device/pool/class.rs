//! Slabs: buddy blocks cut into blocks of one size.

use std::iter;

use super::{
    Block, Place, TrackingLevel,
    buddy::{BuddyBlock, MIN_BLOCK},
    metrics::{Counts, MemoryMetrics},
};

/// Sizes of the classes in bytes: powers of two from 256, and from 512 on halfway between. All are multiples of 256, which keeps every
/// block aligned as the driver's own allocations are.
pub(super) const CLASSES: [usize; 23] = {
    let mut classes = [256; 23];
    let mut index = 1;
    while index < classes.len() {
        let power = 256 << index.div_ceil(2);
        classes[index] = if index % 2 == 1 { power } else { power / 2 * 3 };
        index += 1;
    }
    classes
};

/// Blocks that a slab has at least, where a chunk and the memory that is left have room for them.
const BLOCKS_PER_SLAB: usize = 8;

/// The smallest class that holds `bytes`; `None` for the buddy allocator.
pub(super) fn class_of(bytes: usize) -> Option<usize> {
    if bytes <= 256 {
        return Some(0);
    }
    if bytes > CLASSES[CLASSES.len() - 1] {
        return None;
    }
    // Of 2^p < bytes <= 2^(p + 1), the halves up to and beyond 1.5 * 2^p. 2^8 is class 0, 2^9 class 1, 2^10 class 3.
    let power = (bytes - 1).ilog2() as usize;
    let upper = 2 * (power + 1 - 8) - 1;
    let half = power > 8 && bytes <= 3 << (power - 1);
    Some(upper - usize::from(half))
}

/// All slabs of one class.
#[derive(Debug)]
pub(super) struct Class {
    index: usize,
    slab_bytes: usize,
    /// Empty places are taken again.
    slabs: Vec<Option<Slab>>,
    empty_places: Vec<usize>,
    /// The slabs that have a free block, each once.
    with_free: Vec<usize>,
    counts: Counts,
}

#[derive(Debug)]
struct Slab {
    memory: BuddyBlock,
    blocks: usize,
    free: Vec<u32>,
}

/// Where a small block is.
#[derive(Debug)]
pub(super) struct SlabBlock {
    pub(super) class: usize,
    slab: usize,
    block: u32,
}

impl Class {
    pub(super) fn new(index: usize, chunk_bytes: usize) -> Self {
        let slab_bytes = (CLASSES[index] * BLOCKS_PER_SLAB)
            .next_power_of_two()
            .clamp(MIN_BLOCK, chunk_bytes);
        Self {
            index,
            slab_bytes,
            slabs: Vec::new(),
            empty_places: Vec::new(),
            with_free: Vec::new(),
            counts: Counts::default(),
        }
    }

    /// The sizes of a slab, the best first. Each has room for a block.
    pub(super) fn slab_sizes(&self) -> impl Iterator<Item = usize> + use<> {
        iter::successors(Some(self.slab_bytes), |&bytes| {
            (bytes > MIN_BLOCK).then_some(bytes / 2)
        })
    }

    pub(super) fn take(&mut self, requested: usize, tracking: TrackingLevel) -> Option<Block> {
        let &slab = self.with_free.last()?;
        let found = self.slabs[slab].as_mut().expect("a listed slab exists");
        let block = found.free.pop().expect("a listed slab has a free block");
        if found.free.is_empty() {
            self.with_free.pop();
        }
        self.counts.allocated(requested, tracking);
        let bytes = CLASSES[self.index];
        Some(Block {
            address: found.memory.address() + (block as usize * bytes) as u64,
            whole: found.memory.whole,
            bytes,
            requested,
            place: Place::Slab(SlabBlock {
                class: self.index,
                slab,
                block,
            }),
        })
    }

    pub(super) fn put_back(&mut self, place: SlabBlock, requested: usize, tracking: TrackingLevel) {
        let slab = self.slabs[place.slab]
            .as_mut()
            .expect("a slab in use exists");
        if slab.free.is_empty() {
            self.with_free.push(place.slab);
        }
        slab.free.push(place.block);
        debug_assert!(slab.free.len() <= slab.blocks);
        self.counts.freed(requested, tracking);
    }

    pub(super) fn add_slab(&mut self, memory: BuddyBlock) {
        let blocks = memory.bytes / CLASSES[self.index];
        // The lowest address first.
        let free = (0..blocks as u32).rev().collect();
        let slab = Some(Slab {
            memory,
            blocks,
            free,
        });
        let place = self.empty_places.pop().unwrap_or_else(|| {
            self.slabs.push(None);
            self.slabs.len() - 1
        });
        self.slabs[place] = slab;
        self.with_free.push(place);
    }

    /// Removes the slabs that nothing uses.
    pub(super) fn take_empty_slabs(&mut self) -> Vec<BuddyBlock> {
        let slabs = &mut self.slabs;
        let is_empty = |slab: &Option<Slab>| {
            slab.as_ref()
                .is_some_and(|slab| slab.free.len() == slab.blocks)
        };
        let (empty, others): (Vec<_>, Vec<_>) = self
            .with_free
            .iter()
            .partition(|&&place| is_empty(&slabs[place]));
        self.with_free = others;
        self.empty_places.extend(&empty);
        empty
            .into_iter()
            .filter_map(|place| slabs[place].take())
            .map(|slab| slab.memory)
            .collect()
    }

    pub(super) fn add_to(&self, metrics: &mut MemoryMetrics) {
        metrics.add(CLASSES[self.index], &self.counts);
        let bytes = CLASSES[self.index];
        for slab in self.slabs.iter().flatten() {
            metrics.slab_free_bytes += slab.free.len() * bytes;
            metrics.unusable_bytes += slab.memory.bytes % bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_gets_the_smallest_class_that_holds_it() {
        assert!(CLASSES.is_sorted() && CLASSES.iter().all(|bytes| bytes % 256 == 0));
        assert_eq!(CLASSES[..6], [256, 512, 768, 1024, 1536, 2048]);
        assert_eq!(CLASSES[20..], [384 << 10, 512 << 10, 768 << 10]);
        for bytes in (1..=800 << 10)
            .step_by(13)
            .chain(CLASSES)
            .chain(CLASSES.map(|bytes| bytes + 1))
        {
            let smallest = CLASSES.iter().position(|&class| class >= bytes);
            assert_eq!(class_of(bytes), smallest, "{bytes}");
        }
    }
}
