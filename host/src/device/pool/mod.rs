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
//!
//! # Locks
//!
//! In the order `pending`, `classes` (ascending), `buddy`. Memory goes from one of them to the next with both locked, so that who
//! holds all three sees every block that nobody owns. An allocation that finds nothing does that before it reports an error.

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
    driver::{DriverError, MemoryRange, MemorySpace},
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
    classes: [Mutex<Class>; CLASSES.len()],
    buddy: Mutex<Buddy>,
    pending: Mutex<Pending>,
    /// Changes with `pending` locked only.
    pending_bytes: AtomicUsize,
    in_use: AtomicUsize,
    peak: AtomicUsize,
    pressure: Pressure,
    sites: Sites,
}

/// Blocks that submitted work may still use, the oldest first.
type Pending = VecDeque<(Block, InFlight)>;

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
            // What is pending or cached in the wrong shape may be enough.
            Err(error) if error.is_out_of_memory() => self.gather(core, bytes),
            found => found,
        }
        // Not what a slab or a chunk would take.
        .map_err(|error| error.with_requested(bytes))
    }

    fn find(&self, core: &Core, bytes: usize) -> Result<Block, DeviceError> {
        core.release_orphans();
        self.reclaim(core);
        match class_of(bytes) {
            // Locked while the class grows, so that two threads do not both make it.
            Some(index) => {
                let mut class = lock(&self.classes[index]);
                self.take_of_class(core, bytes, &mut class, &mut lock(&self.buddy))
            }
            None => self.take_of_buddy(core, bytes, &mut lock(&self.buddy)),
        }
    }

    /// Waits for all pending blocks, and takes the block of all the memory that is not in use then.
    fn gather(&self, core: &Core, bytes: usize) -> Result<Block, DeviceError> {
        loop {
            core.release_orphans();
            self.wait_for_pending(core, 0)?;
            let mut pending = lock(&self.pending);
            let done = self.put_back_done(core, &mut pending);
            let taken = self.take_of_all(core, bytes);
            // Dropped since the wait.
            let can_wait = oldest(&mut pending, core).is_some();
            drop(pending);
            drop(done);
            match taken {
                Err(error) if error.is_out_of_memory() && can_wait => {}
                taken => return taken,
            }
        }
    }

    /// Returns all unused memory to the driver and takes a block, called with `pending` locked. It locks the rest: what other threads
    /// drop and take meanwhile cannot move from where this has yet to look to where it has looked.
    fn take_of_all(&self, core: &Core, bytes: usize) -> Result<Block, DeviceError> {
        let mut classes = self.classes.each_ref().map(lock);
        let mut buddy = lock(&self.buddy);
        for class in &mut classes {
            empty(core, class, &mut buddy)?;
        }
        buddy.trim(core, 0)?;
        match class_of(bytes) {
            Some(index) => self.take_of_class(core, bytes, &mut classes[index], &mut buddy),
            None => self.take_of_buddy(core, bytes, &mut buddy),
        }
    }

    fn take_of_buddy(
        &self,
        core: &Core,
        bytes: usize,
        buddy: &mut Buddy,
    ) -> Result<Block, DeviceError> {
        let block = buddy.take(core, bytes, self.config.tracking)?;
        Ok(Block {
            address: block.address(),
            whole: block.whole,
            bytes: block.bytes,
            requested: bytes,
            place: Place::Buddy(block),
        })
    }

    /// Takes a block of the class, if need be of another slab: of the largest of the class's sizes that is to be had.
    fn take_of_class(
        &self,
        core: &Core,
        bytes: usize,
        class: &mut Class,
        buddy: &mut Buddy,
    ) -> Result<Block, DeviceError> {
        if let Some(block) = class.take(bytes, self.config.tracking) {
            return Ok(block);
        }
        let mut sizes = class.slab_sizes();
        let mut slab_bytes = sizes.next().expect("a class has slabs");
        let slab = loop {
            match (
                buddy.take(core, slab_bytes, TrackingLevel::None),
                sizes.next(),
            ) {
                (Err(error), Some(smaller)) if error.is_out_of_memory() => slab_bytes = smaller,
                (taken, _) => break taken?,
            }
        };
        class.add_slab(slab);
        Ok(class
            .take(bytes, self.config.tracking)
            .expect("the new slab has free blocks"))
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
            let mut pending = lock(&self.pending);
            self.pending_bytes.fetch_add(block.bytes, Ordering::Relaxed);
            pending.push_back((block, in_flight));
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
        // Declared before the guard, and so dropped unlocked.
        let _done;
        let mut pending = lock(&self.pending);
        _done = self.put_back_done(core, &mut pending);
    }

    /// [`Pool::reclaim`] of the locked list. The result may be the last to hold a stream, even another device.
    fn put_back_done(&self, core: &Core, pending: &mut Pending) -> Vec<InFlight> {
        let mut done = Vec::new();
        for (block, mut in_flight) in std::mem::take(pending) {
            if in_flight.is_done(core) {
                self.pending_bytes.fetch_sub(block.bytes, Ordering::Relaxed);
                self.put_back(core, block);
                done.push(in_flight);
            } else {
                pending.push_back((block, in_flight));
            }
        }
        done
    }

    /// Waits for the work of pending blocks, the oldest first, until at most `keep` bytes are pending. What a capture
    /// holds cannot be waited for and stays.
    ///
    /// The blocks are in the list meanwhile: a thread that needs the same ones waits for them, too.
    fn wait_for_pending(&self, core: &Core, keep: usize) -> Result<(), DeviceError> {
        loop {
            self.reclaim(core);
            if self.pending_bytes.load(Ordering::Relaxed) <= keep {
                return Ok(());
            }
            let oldest = oldest(&mut lock(&self.pending), core);
            match oldest.map(|in_flight| in_flight.wait(core)) {
                None => return Ok(()),
                // A capture that has begun meanwhile.
                Some(Ok(()) | Err(DeviceError::Capturing { .. })) => {}
                Some(error) => return error,
            }
        }
    }

    fn reserve(&self, core: &Core, bytes: usize) -> Result<(), DeviceError> {
        if bytes == 0 {
            return Ok(());
        }
        // Before all there is has been taken, which takes long and is given back again.
        let (free, _) = core.check(core.driver.memory_info())?;
        if bytes > free {
            return core.check(Err(DriverError::OutOfMemory { requested: bytes }));
        }
        let reserved = lock(&self.buddy).reserve(core, bytes);
        // Not what a chunk would take.
        reserved.map_err(|error| error.with_requested(bytes))
    }

    fn trim(&self, core: &Core, keep_bytes: usize) -> Result<usize, DeviceError> {
        self.reclaim(core);
        for class in &self.classes {
            let mut class = lock(class);
            empty(core, &mut class, &mut lock(&self.buddy))?;
        }
        lock(&self.buddy).trim(core, keep_bytes)
    }

    /// Gives everything back to the driver. The device itself is idle, and no buffer is left.
    pub(super) fn close(&self, core: &Core) -> Result<(), DeviceError> {
        let pending = std::mem::take(&mut *lock(&self.pending));
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

/// Gives the slabs that nothing uses back to the buddy allocator.
fn empty(core: &Core, class: &mut Class, buddy: &mut Buddy) -> Result<(), DeviceError> {
    class
        .take_empty_slabs()
        .into_iter()
        .try_for_each(|slab| buddy.put_back(core, slab, 0, TrackingLevel::None))
}

/// The work of the oldest pending block that can be waited for.
fn oldest(pending: &mut Pending, core: &Core) -> Option<InFlight> {
    let mut all = pending.iter_mut().map(|(_, in_flight)| in_flight);
    all.find_map(|in_flight| (!in_flight.is_captured(core)).then(|| in_flight.clone()))
}
