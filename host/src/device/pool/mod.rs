//! Memory that a device keeps between buffers: slabs of fixed classes for small buffers, a buddy allocator for large ones.
//!
//! ```text
//! driver      chunks of 64 MiB and more, or a whole buffer where that is larger than a chunk
//! buddy       power-of-two blocks of 1 MiB up to a chunk; two free halves become one again
//! slabs       a buddy block cut into blocks of one class: 256 B, 512 B, 768 B, 1 KiB, 1.5 KiB, ... 768 KiB
//! ```
//!
//! A small block is taken and given back under the lock of its class alone, in constant time. All state is in host
//! memory; the pool never touches the memory that it hands out.
//!
//! # Streams
//!
//! Dropping a buffer never waits: a block that submitted work may still use is *pending*, and is handed to nobody before
//! its streams are known to be past that work, which something that waits for them (a copy to the host, an event, a
//! synchronization) tells without a call to the driver. Where too much is pending, an allocation waits for the oldest.

mod buddy;
mod class;
mod config;
mod handle;
mod metrics;
mod pressure;
mod tracking;

use std::{collections::VecDeque, panic::Location};

use super::{
    Device,
    core::{Core, lock},
    driver::{MemoryRange, MemorySpace},
    error::DeviceError,
    in_flight::InFlight,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use self::{
    buddy::{Buddy, BuddyBlock},
    class::{CLASSES, Class, SlabBlock, class_of},
    pressure::Pressure,
    tracking::Sites,
};
pub use self::{
    config::MemoryPoolConfig,
    handle::{HybridMemoryPool, WeakMemoryPool},
    metrics::MemoryMetrics,
    pressure::PressureLevel,
    tracking::{LeakReport, LiveAllocation, TrackingLevel},
};

/// The pool itself, a part of its device.
#[derive(Debug)]
pub(super) struct Pool {
    config: MemoryPoolConfig,
    /// Locked before `buddy`, never the other way round.
    classes: [Mutex<Class>; CLASSES.len()],
    buddy: Mutex<Buddy>,
    pending: Mutex<VecDeque<(Block, InFlight)>>,
    pending_bytes: AtomicUsize,
    in_use: AtomicUsize,
    peak: AtomicUsize,
    pressure: Pressure,
    sites: Sites,
}

/// A block that is in use.
#[derive(Debug)]
pub(super) struct Block {
    place: Place,
    pub(super) address: u64,
    /// The driver's allocation that it is a part of.
    pub(super) whole: MemoryRange,
    bytes: usize,
    requested: usize,
}

#[derive(Debug)]
enum Place {
    Slab(SlabBlock),
    Buddy(BuddyBlock),
}

impl Pool {
    fn new(device: &Device, config: MemoryPoolConfig, space: MemorySpace) -> Self {
        let (chunk_bytes, max_bytes, total) = match space {
            MemorySpace::Device => {
                let total = device.capabilities().memory_bytes;
                (config.chunk_bytes, config.max_bytes, total)
            }
            MemorySpace::PinnedHost => (
                config.pinned_chunk_bytes,
                config.max_pinned_bytes,
                usize::MAX,
            ),
        };
        let capacity = max_bytes.map_or(total, |most| most.min(total));
        Self {
            classes: std::array::from_fn(|index| Mutex::new(Class::new(index, chunk_bytes))),
            buddy: Mutex::new(Buddy::new(space, chunk_bytes, max_bytes)),
            pending: Mutex::default(),
            pending_bytes: AtomicUsize::new(0),
            in_use: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
            pressure: Pressure::new(capacity, config.pressure),
            sites: Sites::default(),
            config,
        }
    }

    /// Takes a block of at least `bytes`.
    #[inline]
    pub(super) fn allocate(
        &self,
        core: &Core,
        bytes: usize,
        site: &'static Location<'static>,
    ) -> Result<Block, DeviceError> {
        let tracking = self.config.tracking;
        let has_room = self.pending_bytes.load(Ordering::Relaxed) <= self.config.max_pending_bytes;
        let taken = match class_of(bytes) {
            Some(index) if has_room => lock(&self.classes[index]).take(bytes, tracking),
            _ => None,
        };
        let block = match taken {
            Some(block) => block,
            None => self.make_room(core, bytes, has_room)?,
        };
        let in_use = self.in_use.fetch_add(block.bytes, Ordering::SeqCst) + block.bytes;
        if tracking >= TrackingLevel::Basic && in_use > self.peak.load(Ordering::Relaxed) {
            self.peak.fetch_max(in_use, Ordering::Relaxed);
        }
        if tracking >= TrackingLevel::Detailed {
            self.sites.add(block.address, block.requested, site);
        }
        self.pressure.update(&self.in_use);
        Ok(block)
    }

    /// Takes a block that no slab has ready.
    #[cold]
    fn make_room(&self, core: &Core, bytes: usize, has_room: bool) -> Result<Block, DeviceError> {
        if !has_room {
            self.wait_for_pending(core, self.config.max_pending_bytes / 2)?;
        }
        match self.find(core, bytes) {
            Err(error) if error.is_out_of_memory() => {
                // What is pending or cached in the wrong shape may be enough.
                self.wait_for_pending(core, 0)?;
                self.trim(core, 0)?;
                self.find(core, bytes)
            }
            found => found,
        }
        // Not what a slab or a chunk would take.
        .map_err(|error| error.with_requested(bytes))
    }

    fn find(&self, core: &Core, bytes: usize) -> Result<Block, DeviceError> {
        let tracking = self.config.tracking;
        core.release_orphans();
        self.reclaim(core);
        let Some(index) = class_of(bytes) else {
            let block = lock(&self.buddy).take(core, bytes, tracking)?;
            return Ok(Block {
                address: block.address(),
                whole: block.whole,
                bytes: block.bytes,
                requested: bytes,
                place: Place::Buddy(block),
            });
        };
        // Locked while the class grows, so that two threads do not both make it.
        let mut class = lock(&self.classes[index]);
        if let Some(block) = class.take(bytes, tracking) {
            return Ok(block);
        }
        let slab = self.take_slab(core, &class)?;
        class.add_slab(slab);
        Ok(class
            .take(bytes, tracking)
            .expect("the new slab has free blocks"))
    }

    /// Takes memory for another slab: of the largest of the class's sizes that is to be had.
    fn take_slab(&self, core: &Core, class: &Class) -> Result<BuddyBlock, DeviceError> {
        let mut buddy = lock(&self.buddy);
        let mut sizes = class.slab_sizes();
        let mut bytes = sizes.next().expect("a class has slabs");
        loop {
            match (buddy.take(core, bytes, TrackingLevel::None), sizes.next()) {
                (Err(error), Some(smaller)) if error.is_out_of_memory() => bytes = smaller,
                (taken, _) => return taken,
            }
        }
    }

    /// Takes back a block whose owner is gone; `in_flight` says which work may still use it.
    pub(super) fn release(&self, core: &Core, block: Block, mut in_flight: InFlight) {
        // The context's end has freed everything.
        if core.is_lost() {
            return;
        }
        self.in_use.fetch_sub(block.bytes, Ordering::SeqCst);
        if self.config.tracking >= TrackingLevel::Detailed {
            self.sites.remove(block.address);
        }
        if in_flight.is_done(core) {
            self.put_back(core, block);
        } else {
            self.pending_bytes.fetch_add(block.bytes, Ordering::Relaxed);
            lock(&self.pending).push_back((block, in_flight));
        }
        self.pressure.update(&self.in_use);
    }

    fn put_back(&self, core: &Core, block: Block) {
        let tracking = self.config.tracking;
        match block.place {
            Place::Slab(place) => {
                lock(&self.classes[place.class]).put_back(place, block.requested, tracking)
            }
            Place::Buddy(place) => {
                let freed = lock(&self.buddy).put_back(core, place, block.requested, tracking);
                if let Err(error) = freed {
                    tracing::warn!(%error, "memory could not be given back to the driver");
                }
            }
        }
    }

    /// Puts back what is pending without need.
    fn reclaim(&self, core: &Core) {
        let done: VecDeque<_> = {
            let mut pending = lock(&self.pending);
            let mut done = VecDeque::new();
            let mut waiting = VecDeque::new();
            for (block, mut in_flight) in std::mem::take(&mut *pending) {
                let to = if in_flight.is_done(core) {
                    &mut done
                } else {
                    &mut waiting
                };
                to.push_back((block, in_flight));
            }
            *pending = waiting;
            done
        };
        for (block, _) in done {
            self.pending_bytes.fetch_sub(block.bytes, Ordering::Relaxed);
            self.put_back(core, block);
        }
    }

    /// Waits for the work of pending blocks, the oldest first, until at most `keep` bytes are pending. What a capture
    /// holds cannot be waited for and stays.
    fn wait_for_pending(&self, core: &Core, keep: usize) -> Result<(), DeviceError> {
        self.reclaim(core);
        let mut captured = Vec::new();
        let mut result = Ok(());
        while self.pending_bytes.load(Ordering::Relaxed) > keep {
            let Some((block, in_flight)) = lock(&self.pending).pop_front() else {
                break;
            };
            match in_flight.wait(core) {
                Ok(()) => {
                    self.pending_bytes.fetch_sub(block.bytes, Ordering::Relaxed);
                    self.put_back(core, block);
                }
                Err(DeviceError::Capturing { .. }) => captured.push((block, in_flight)),
                Err(error) => {
                    captured.push((block, in_flight));
                    result = Err(error);
                    break;
                }
            }
        }
        lock(&self.pending).extend(captured);
        result
    }

    fn reserve(&self, core: &Core, bytes: usize) -> Result<(), DeviceError> {
        lock(&self.buddy).reserve(core, bytes)
    }

    fn trim(&self, core: &Core, keep_bytes: usize) -> Result<usize, DeviceError> {
        self.reclaim(core);
        for class in &self.classes {
            for slab in lock(class).take_empty_slabs() {
                lock(&self.buddy).put_back(core, slab, 0, TrackingLevel::None)?;
            }
        }
        lock(&self.buddy).trim(core, keep_bytes)
    }

    /// Gives everything back to the driver. The device itself is idle, and no buffer is left.
    pub(super) fn close(&self, core: &Core) -> Result<(), DeviceError> {
        let pending = std::mem::take(&mut *lock(&self.pending));
        self.pending_bytes.store(0, Ordering::Relaxed);
        for (block, in_flight) in pending {
            // Another device may still be copying from it.
            in_flight.wait(core)?;
            self.put_back(core, block);
        }
        lock(&self.buddy).release_all(core)
    }

    /// Forgets what is pending, and the streams that it names.
    pub(super) fn abandon(&self) {
        lock(&self.pending).clear();
        self.pending_bytes.store(0, Ordering::Relaxed);
    }

    fn metrics(&self) -> MemoryMetrics {
        let mut metrics = MemoryMetrics {
            in_use_bytes: self.in_use.load(Ordering::Relaxed),
            peak_bytes: self.peak.load(Ordering::Relaxed),
            pending_bytes: self.pending_bytes.load(Ordering::Relaxed),
            ..MemoryMetrics::default()
        };
        for class in &self.classes {
            lock(class).add_to(&mut metrics);
        }
        lock(&self.buddy).add_to(&mut metrics);
        metrics
    }
}
