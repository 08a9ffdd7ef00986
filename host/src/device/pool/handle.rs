//! What callers have of a pool.

use std::{
    fmt,
    sync::{Arc, Weak},
};

use super::{
    super::{Device, Inner, core::lock, driver::MemorySpace, error::DeviceError},
    LeakReport, MemoryMetrics, MemoryPoolConfig, Pool, PressureLevel,
};

/// A device's memory pool: a cheap handle, `Send` and `Sync`, created by [`Device::enable_pool`].
///
/// Every [`Buffer`](crate::device::Buffer) and [`PinnedBuffer`](crate::device::PinnedBuffer) created on the device from then on
/// comes from the pool and returns to it.
#[derive(Clone)]
pub struct HybridMemoryPool {
    device: Device,
}

impl Device {
    /// Creates a pool from which the device's buffers are allocated from now on.
    ///
    /// The pool stays as long as the device. On the emulator, buffers in a pool share the emulator's allocations: an access
    /// beyond a buffer is a fault only where it leaves the allocation, and the content of a reused block counts as initialized.
    /// Run without a pool to find such bugs.
    ///
    /// # Errors
    ///
    /// [`DeviceError::InvalidConfig`] for a configuration that is not possible, [`DeviceError::PoolExists`] where the device has a pool
    /// already, [`DeviceError::OutOfMemory`] where `initial_bytes` are not there. The device then is as it was.
    pub fn enable_pool(&self, config: MemoryPoolConfig) -> Result<HybridMemoryPool, DeviceError> {
        config.check()?;
        let core = self.core();
        core.usable()?;
        // Two pools in the making would leave each other no memory.
        let _enabling = lock(&core.enabling_pool);
        if core.pool.get().is_some() {
            return Err(DeviceError::PoolExists {
                device: core.name.clone(),
            });
        }
        let pool = Pool::new(self, config.clone(), MemorySpace::Device);
        if let Err(error) = pool.reserve(core, config.initial_bytes) {
            pool.close(core)?;
            return Err(error);
        }
        let pinned = Pool::new(self, config, MemorySpace::PinnedHost);
        // Neither is set.
        let _ = core.pinned_pool.set(pinned);
        let _ = core.pool.set(pool);
        Ok(HybridMemoryPool {
            device: self.clone(),
        })
    }

    /// The pool that the device's buffers come from, if it has one.
    pub fn pool(&self) -> Option<HybridMemoryPool> {
        self.core().pool.get().map(|_| HybridMemoryPool {
            device: self.clone(),
        })
    }
}

/// A handle that does not keep the device open, for use by what the pool itself owns, such as a pressure callback.
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

    fn pinned_pool(&self) -> &Pool {
        let pool = self.device.core().pinned_pool.get();
        pool.expect("it is set before the other")
    }

    /// The device whose memory it manages.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The configuration of the pool.
    pub fn config(&self) -> &MemoryPoolConfig {
        &self.pool().config
    }

    /// Metrics of the device memory that the pool manages.
    pub fn metrics(&self) -> MemoryMetrics {
        self.pool().metrics()
    }

    /// Metrics of the pinned host memory that the pool manages.
    pub fn pinned_metrics(&self) -> MemoryMetrics {
        self.pinned_pool().metrics()
    }

    /// Returns unused memory to the driver until at most `keep_bytes` of it are left, and returns the number of bytes freed. Does
    /// not wait.
    ///
    /// # Errors
    ///
    /// The driver's error if memory cannot be freed; [`DeviceError::Lost`] on a lost device.
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
        self.pinned_pool().trim(core, keep_bytes)
    }

    /// The share of the available device memory that is in use, as a level.
    pub fn pressure(&self) -> PressureLevel {
        self.pool().pressure.level()
    }

    /// Registers a callback that is called whenever the pressure level changes, on the thread whose allocation or drop changed
    /// it.
    ///
    /// It may use the pool, and drop buffers. A panic in it is caught and reported by `tracing`. It lives as long as the device:
    /// a callback that owns the pool, a buffer or the device would keep the device open forever, so it should own what
    /// [`HybridMemoryPool::downgrade`] returns.
    pub fn register_pressure_callback(
        &self,
        callback: impl Fn(PressureLevel) + Send + Sync + 'static,
    ) {
        self.pool().pressure.register(Box::new(callback));
    }

    /// The live buffers, those in pinned host memory last, with the source location that created each at
    /// [`TrackingLevel::Detailed`](super::TrackingLevel::Detailed).
    pub fn leak_report(&self) -> LeakReport {
        let mut live = self.pool().sites.live(MemorySpace::Device);
        live.extend(self.pinned_pool().sites.live(MemorySpace::PinnedHost));
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
