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
mod metrics;
mod pressure;
mod tracking;

use std::{
    collections::VecDeque,
    fmt,
    panic::Location,
    sync::{Arc, Weak},
};

use super::{
    Device, Inner,
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
    metrics::MemoryMetrics,
    pressure::PressureLevel,
    tracking::{LeakReport, LiveAllocation, TrackingLevel},
};

/// How a [`HybridMemoryPool`] manages its memory.
#[derive(Debug, Clone, PartialEq)]
pub struct MemoryPoolConfig {
    /// Bytes that the pool asks the driver for at a time; a power of two of at least 1 MiB. Default 64 MiB. Where
    /// so much is not left, it asks for less.
    pub chunk_bytes: usize,
    /// Most bytes that the pool holds at once; `None` for as many as the driver gives. Default `None`.
    pub max_bytes: Option<usize>,
    /// Bytes taken from the driver when the pool is made. Default 0.
    pub initial_bytes: usize,
    /// Bytes of dropped buffers that may wait for the work that uses them; beyond it, allocations wait for that work.
    /// Default 256 MiB.
    pub max_pending_bytes: usize,
    /// As `chunk_bytes`, for pinned host memory. Default 8 MiB.
    pub pinned_chunk_bytes: usize,
    /// As `max_bytes`, for pinned host memory. Default `None`.
    pub max_pinned_bytes: Option<usize>,
    /// What is recorded of each allocation. Default [`TrackingLevel::Basic`].
    pub tracking: TrackingLevel,
    /// Shares of `max_bytes` (or of the device's memory) in use from which pressure is moderate, high and critical;
    /// ascending, in 0..=1. Default 0.7, 0.85, 0.95.
    pub pressure: [f64; 3],
}

impl Default for MemoryPoolConfig {
    fn default() -> Self {
        Self {
            chunk_bytes: 64 << 20,
            max_bytes: None,
            initial_bytes: 0,
            max_pending_bytes: 256 << 20,
            pinned_chunk_bytes: 8 << 20,
            max_pinned_bytes: None,
            tracking: TrackingLevel::Basic,
            pressure: [0.7, 0.85, 0.95],
        }
    }
}

impl MemoryPoolConfig {
    fn check(&self) -> Result<(), DeviceError> {
        let invalid = |option, value: String, expected| DeviceError::InvalidConfig {
            option,
            value,
            expected,
        };
        for (option, chunk) in [
            ("chunk_bytes", self.chunk_bytes),
            ("pinned_chunk_bytes", self.pinned_chunk_bytes),
        ] {
            if !chunk.is_power_of_two() || chunk < buddy::MIN_BLOCK {
                let expected = "a power of two of at least 1 MiB";
                return Err(invalid(option, chunk.to_string(), expected));
            }
        }
        for (option, most) in [
            ("max_bytes", self.max_bytes),
            ("max_pinned_bytes", self.max_pinned_bytes),
        ] {
            if most.is_some_and(|most| most < buddy::MIN_BLOCK) {
                return Err(invalid(option, format!("{most:?}"), "at least 1 MiB"));
            }
        }
        if self.max_bytes.is_some_and(|most| most < self.initial_bytes) {
            let value = self.initial_bytes.to_string();
            return Err(invalid("initial_bytes", value, "at most max_bytes"));
        }
        let [moderate, high, critical] = self.pressure;
        if !(0.0 <= moderate && moderate <= high && high <= critical && critical <= 1.0) {
            let value = format!("{:?}", self.pressure);
            return Err(invalid(
                "pressure",
                value,
                "three ascending shares in 0..=1",
            ));
        }
        Ok(())
    }
}

/// A device's memory pool: a cheap handle, `Send` and `Sync`, made by [`Device::enable_pool`].
///
/// Every [`Buffer`](super::Buffer) and [`PinnedBuffer`](super::PinnedBuffer) that is made on the device from then on comes from
/// the pool and returns to it.
#[derive(Clone)]
pub struct HybridMemoryPool {
    device: Device,
}

impl Device {
    /// Has the device's buffers come from a pool from now on.
    ///
    /// The pool stays as long as the device. On the emulator, buffers in a pool share the emulator's allocations: an
    /// access beyond a buffer is a fault only where it leaves the allocation, and the content of a reused block counts
    /// as initialized. Look for such mistakes without a pool.
    ///
    /// # Errors
    ///
    /// [`DeviceError::InvalidConfig`] for a configuration that is not possible or where the device has a pool already,
    /// [`DeviceError::OutOfMemory`] where `initial_bytes` are not there.
    pub fn enable_pool(&self, config: MemoryPoolConfig) -> Result<HybridMemoryPool, DeviceError> {
        config.check()?;
        let core = self.core();
        core.usable()?;
        let pool = Pool::new(self, config.clone(), MemorySpace::Device);
        if let Err(pool) = core.pool.set(pool) {
            return Err(DeviceError::InvalidConfig {
                option: "the pool",
                value: format!("{:?}", pool.config),
                expected: "a device without a pool; this one has one, see `Device::pool`",
            });
        }
        // Not set before: that goes with `pool`.
        let pinned = Pool::new(self, config, MemorySpace::PinnedHost);
        let _ = core.pinned_pool.set(pinned);
        let handle = HybridMemoryPool {
            device: self.clone(),
        };
        let initial = handle.pool().config.initial_bytes;
        handle.pool().reserve(core, initial)?;
        Ok(handle)
    }

    /// The pool that the device's buffers come from, where it has one.
    pub fn pool(&self) -> Option<HybridMemoryPool> {
        self.core().pool.get().map(|_| HybridMemoryPool {
            device: self.clone(),
        })
    }
}

/// A handle that does not keep the device open: for what the pool itself holds, such as a pressure callback.
#[derive(Clone)]
pub struct WeakMemoryPool(Weak<Inner>);

impl WeakMemoryPool {
    /// The pool, unless its device has been closed.
    pub fn upgrade(&self) -> Option<HybridMemoryPool> {
        self.0.upgrade().map(|inner| HybridMemoryPool {
            device: Device(inner),
        })
    }
}

impl fmt::Debug for WeakMemoryPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WeakMemoryPool")
    }
}

impl HybridMemoryPool {
    /// A handle that does not keep the device open.
    pub fn downgrade(&self) -> WeakMemoryPool {
        WeakMemoryPool(Arc::downgrade(&self.device.0))
    }

    fn pool(&self) -> &Pool {
        let pool = self.device.core().pool.get();
        pool.expect("a handle is made of a device with a pool")
    }

    /// `None` while another thread is about to set it.
    fn pinned_pool(&self) -> Option<&Pool> {
        self.device.core().pinned_pool.get()
    }

    /// The device whose memory it manages.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The configuration that it was made with.
    pub fn config(&self) -> &MemoryPoolConfig {
        &self.pool().config
    }

    /// What the pool holds of the device's memory, and has done.
    pub fn metrics(&self) -> MemoryMetrics {
        self.pool().metrics()
    }

    /// What the pool holds of pinned host memory, and has done.
    pub fn pinned_metrics(&self) -> MemoryMetrics {
        self.pinned_pool()
            .map_or_else(MemoryMetrics::default, Pool::metrics)
    }

    /// Gives memory that no buffer uses back to the driver until at most `keep_bytes` of it are left; returns how many
    /// bytes that were. Waits for nothing.
    ///
    /// # Errors
    ///
    /// What the driver says to giving memory back; [`DeviceError::Lost`] on a lost device.
    pub fn trim(&self, keep_bytes: usize) -> Result<usize, DeviceError> {
        let core = self.device.core();
        core.usable()?;
        self.pool().trim(core, keep_bytes)
    }

    /// As [`HybridMemoryPool::trim`], for pinned host memory.
    ///
    /// # Errors
    ///
    /// As [`HybridMemoryPool::trim`].
    pub fn trim_pinned(&self, keep_bytes: usize) -> Result<usize, DeviceError> {
        let core = self.device.core();
        core.usable()?;
        self.pinned_pool()
            .map_or(Ok(0), |pool| pool.trim(core, keep_bytes))
    }

    /// How much of the device's memory that can be had is in use.
    pub fn pressure(&self) -> PressureLevel {
        self.pool().pressure.level()
    }

    /// Has `callback` called whenever the pressure reaches another level, on the thread whose allocation or drop did it.
    ///
    /// It may use the pool, and drop buffers. A panic in it is caught and reported by `tracing`. It lives as long as the device:
    /// a callback that owns the pool, a buffer or the device would keep the device open for ever, so let it own what
    /// [`HybridMemoryPool::downgrade`] returns.
    pub fn register_pressure_callback(
        &self,
        callback: impl Fn(PressureLevel) + Send + Sync + 'static,
    ) {
        self.pool().pressure.register(Box::new(callback));
    }

    /// The buffers that exist, those in pinned host memory last, with the place in the program that made each at [`TrackingLevel::Detailed`].
    pub fn leak_report(&self) -> LeakReport {
        let mut live = self.pool().sites.live(MemorySpace::Device);
        if let Some(pinned) = self.pinned_pool() {
            live.extend(pinned.sites.live(MemorySpace::PinnedHost));
        }
        LeakReport {
            tracking: self.config().tracking,
            live,
        }
    }
}

impl fmt::Debug for HybridMemoryPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HybridMemoryPool")
            .field("device", &self.device)
            .field("config", self.config())
            .finish()
    }
}

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
            classes: std::array::from_fn(|index| Mutex::new(Class::new(index))),
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
        let slab = lock(&self.buddy).take(core, class.slab_bytes(), TrackingLevel::None)?;
        class.add_slab(slab);
        Ok(class
            .take(bytes, tracking)
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
