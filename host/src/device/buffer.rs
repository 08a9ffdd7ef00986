use std::{fmt, marker::PhantomData, mem::MaybeUninit, panic::Location, ptr, sync::Arc};

use bytemuck::Pod;

use super::{
    Device,
    core::{Core, Orphan, Resource},
    driver::{MemoryRange, MemorySpace},
    error::DeviceError,
    in_flight::InFlight,
    pool::Block,
    stream::Stream,
};

/// Memory that a device uses, freed when nothing refers to it and no submitted work uses it any more.
pub struct Allocation {
    core: Arc<Core>,
    space: MemorySpace,
    address: u64,
    len: usize,
    /// What the driver has allocated; other memory than this only where the owner is `Caller` or `Pool`.
    whole: MemoryRange,
    owner: Owner,
    in_flight: InFlight,
}

/// Who frees an allocation.
enum Owner {
    /// Its drop, after waiting for the work that uses it.
    Drop,
    /// Its drop, in the order of this stream.
    Stream(Stream),
    /// Its drop, which gives it back to the device's pool. `None` in the drop only.
    Pool(Option<Block>),
    /// Not this library.
    Caller,
}

impl Allocation {
    #[track_caller]
    pub(super) fn new(
        core: &Arc<Core>,
        space: MemorySpace,
        len: usize,
    ) -> Result<Arc<Self>, DeviceError> {
        core.usable()?;
        if let Some(pool) = core.pool_of(space) {
            let block = pool.allocate(core, len.max(1), Location::caller())?;
            return Ok(Arc::new(Self {
                core: Arc::clone(core),
                space,
                address: block.address,
                len,
                whole: block.whole,
                owner: Owner::Pool(Some(block)),
                in_flight: InFlight::default(),
            }));
        }
        core.release_orphans();
        let address = core.check(core.driver.allocate_in(space, len.max(1)))?;
        Ok(Self::owned(core, space, address, len, Owner::Drop))
    }

    /// Memory for work that comes later on the stream, freed in the stream's order: neither blocks.
    #[track_caller]
    pub(super) fn new_on(stream: &Stream, len: usize) -> Result<Arc<Self>, DeviceError> {
        let core = stream.device().core();
        // Locked meanwhile: in a capture that another thread begins, the allocation would become a node of its graph.
        let allocated = match stream.inner().lock_idle("allocating scratch memory") {
            Ok(_queue) => {
                // SAFETY: the stream is alive as long as the borrow.
                let allocated = unsafe { core.driver.allocate_on(stream.raw(), len.max(1)) };
                match core.check(allocated) {
                    // The device's pool may have it, or an orphan.
                    Err(error) if error.is_out_of_memory() => None,
                    allocated => allocated?,
                }
            }
            // A graph that is being captured keeps its memory between replays.
            Err(DeviceError::Capturing { .. }) => None,
            Err(error) => return Err(error),
        };
        match allocated {
            Some(address) => Ok(Self::owned(
                core,
                MemorySpace::Device,
                address,
                len,
                Owner::Stream(stream.clone()),
            )),
            None => Self::new(core, MemorySpace::Device, len),
        }
    }

    /// Memory of somebody else's.
    pub(super) fn of_caller(
        core: &Arc<Core>,
        whole: MemoryRange,
        address: u64,
        len: usize,
    ) -> Arc<Self> {
        Arc::new(Self {
            core: Arc::clone(core),
            space: MemorySpace::Device,
            address,
            len,
            whole,
            owner: Owner::Caller,
            in_flight: InFlight::default(),
        })
    }

    fn owned(
        core: &Arc<Core>,
        space: MemorySpace,
        address: u64,
        len: usize,
        owner: Owner,
    ) -> Arc<Self> {
        Arc::new(Self {
            core: Arc::clone(core),
            space,
            address,
            len,
            whole: MemoryRange { base: address, len },
            owner,
            in_flight: InFlight::default(),
        })
    }

    pub(super) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// Address of the first byte; never null.
    pub(crate) fn address(&self) -> u64 {
        self.address
    }

    /// Size in bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn whole(&self) -> MemoryRange {
        self.whole
    }

    pub(super) fn in_flight(&self) -> &InFlight {
        &self.in_flight
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        match &mut self.owner {
            Owner::Caller => return,
            Owner::Pool(block) => {
                if let (Some(pool), Some(block)) = (self.core.pool_of(self.space), block.take()) {
                    pool.release(&self.core, block, std::mem::take(&mut self.in_flight));
                }
                return;
            }
            Owner::Stream(stream) if self.in_flight.is_before(stream.inner()) => {
                // Locked meanwhile, as for the allocation: each replay of a graph would free the memory again.
                if let Ok(_queue) = stream.inner().lock_idle("freeing scratch memory") {
                    // SAFETY: all work that uses the memory is done or on this stream, and no later work can.
                    let freed = unsafe { self.core.driver.free_on(stream.raw(), self.address) };
                    if let Err(error) = self.core.check(freed) {
                        tracing::warn!(%error, "memory could not be freed");
                    }
                    return;
                }
            }
            Owner::Stream(_) | Owner::Drop => {}
        }
        self.core.release(Orphan {
            resource: Resource::Memory(self.space, self.address),
            in_flight: std::mem::take(&mut self.in_flight),
            allocations: Vec::new(),
        });
    }
}

/// A typed array in a device's memory.
///
/// The buffer owns its memory. Dropping it waits for the work that uses the memory and then frees it, unless a graph still needs
/// it for its replays.
///
/// Copies between ordinary host memory and a buffer are blocking: they wait for all work submitted with this buffer, on any
/// stream, and are complete when they return. A buffer can be sent to and read from any thread. Length zero is allowed; such a
/// buffer has an address of its own, which no kernel may access.
pub struct Buffer<T> {
    /// Dropped before the device, whose end waits for what uses the pool's dropped blocks.
    allocation: Arc<Allocation>,
    device: Device,
    len: usize,
    element: PhantomData<T>,
}

impl<T: Pod> Buffer<T> {
    /// Allocates `len` elements, whose content is undefined until something writes them.
    ///
    /// On the emulator, a kernel that reads such memory faults.
    ///
    /// # Errors
    ///
    /// [`DeviceError::OutOfMemory`] if the device does not have enough memory left, [`DeviceError::PoolExhausted`] if its pool
    /// may not hold as much, [`DeviceError::BufferTooLarge`] if the size exceeds the address space, [`DeviceError::Lost`] on a
    /// lost device.
    #[track_caller]
    pub fn uninit(device: &Device, len: usize) -> Result<Self, DeviceError> {
        let allocation = Allocation::new(device.core(), MemorySpace::Device, Self::bytes(len)?)?;
        Ok(Self::from_allocation(device, allocation, len))
    }

    /// As [`Buffer::uninit`], for scratch memory of one operation: allocated and freed in the order of `stream`, so that
    /// neither waits.
    ///
    /// Only work on this very stream may use the buffer. Two streams of the caller's look the same to what this library knows
    /// of work in flight.
    #[track_caller]
    pub(crate) fn uninit_on(stream: &Stream, len: usize) -> Result<Self, DeviceError> {
        let allocation = Allocation::new_on(stream, Self::bytes(len)?)?;
        Ok(Self::from_allocation(stream.device(), allocation, len))
    }

    /// Whether all work that uses the buffer is known to be done or comes before what is next submitted to `stream`.
    pub(crate) fn is_used_before(&self, stream: &Stream) -> bool {
        self.allocation.in_flight.is_before(stream.inner())
    }

    /// As [`Buffer::zeroed`] and [`Buffer::uninit_on`].
    pub(crate) fn zeroed_on(stream: &Stream, len: usize) -> Result<Self, DeviceError> {
        // Replays of a graph find the zeros that its memory had before.
        if stream.inner().is_capturing() {
            return Self::zeroed(stream.device(), len);
        }
        let mut buffer = Self::uninit_on(stream, len)?;
        stream.fill(&mut buffer, 0)?;
        Ok(buffer)
    }

    pub(super) fn bytes(len: usize) -> Result<usize, DeviceError> {
        match len.checked_mul(size_of::<T>()) {
            Some(bytes) if isize::try_from(bytes).is_ok() => Ok(bytes),
            _ => Err(DeviceError::BufferTooLarge {
                elements: len,
                element_size: size_of::<T>(),
            }),
        }
    }

    pub(super) fn from_allocation(
        device: &Device,
        allocation: Arc<Allocation>,
        len: usize,
    ) -> Self {
        Self {
            device: device.clone(),
            allocation,
            len,
            element: PhantomData,
        }
    }

    /// Allocates `len` elements of all-zero bytes.
    ///
    /// # Errors
    ///
    /// As [`Buffer::uninit`].
    #[track_caller]
    pub fn zeroed(device: &Device, len: usize) -> Result<Self, DeviceError> {
        let mut buffer = Self::uninit(device, len)?;
        buffer.fill_bytes(0)?;
        Ok(buffer)
    }

    /// Allocates a copy of a host slice.
    ///
    /// # Errors
    ///
    /// As [`Buffer::uninit`].
    #[track_caller]
    pub fn from_slice(device: &Device, host: &[T]) -> Result<Self, DeviceError> {
        let mut buffer = Self::uninit(device, host.len())?;
        buffer.copy_from_slice(host)?;
        Ok(buffer)
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the buffer has no elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Size in bytes.
    pub fn size_bytes(&self) -> usize {
        self.allocation.len()
    }

    /// The device that the buffer belongs to.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Overwrites the buffer with a host slice of the same length.
    ///
    /// # Errors
    ///
    /// [`DeviceError::LengthMismatch`] for another length, [`DeviceError::Capturing`] while a stream that uses the buffer is
    /// being captured, [`DeviceError::Lost`] if earlier work failed.
    pub fn copy_from_slice(&mut self, host: &[T]) -> Result<(), DeviceError> {
        self.require_len(host.len())?;
        let bytes: &[u8] = bytemuck::cast_slice(host);
        self.run(|core, stream, address| {
            // SAFETY: the range is the whole allocation, whose earlier users are done; `bytes` outlives the
            // stream's synchronization, which `run` waits for.
            unsafe { core.driver.copy_to_device(stream, address, bytes) }
        })
    }

    /// Copies the buffer into a host slice of the same length.
    ///
    /// # Errors
    ///
    /// As [`Buffer::copy_from_slice`].
    pub fn copy_to_slice(&self, host: &mut [T]) -> Result<(), DeviceError> {
        self.require_len(host.len())?;
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(host);
        // SAFETY: of the buffer's length, and borrowed.
        unsafe { self.copy_to_host(bytes) }
    }

    /// As [`Buffer::copy_to_slice`], for memory that need not be initialized before: it is where the call succeeds.
    ///
    /// # Errors
    ///
    /// As [`Buffer::copy_from_slice`].
    pub fn copy_to_uninit(&self, host: &mut [MaybeUninit<T>]) -> Result<(), DeviceError> {
        self.require_len(host.len())?;
        let bytes = ptr::slice_from_raw_parts_mut(host.as_mut_ptr().cast(), size_of_val(host));
        // SAFETY: of the buffer's length, and borrowed.
        unsafe { self.copy_to_host(bytes) }
    }

    /// # Safety
    ///
    /// `bytes` are as many as the buffer has, valid for writes, and nothing else uses them.
    unsafe fn copy_to_host(&self, bytes: *mut [u8]) -> Result<(), DeviceError> {
        self.run(|core, stream, address| {
            // SAFETY: as for `copy_from_slice`.
            unsafe { core.driver.copy_to_host(stream, bytes, address) }
        })
    }

    /// Copies the buffer to the host.
    ///
    /// # Errors
    ///
    /// As [`Buffer::copy_from_slice`].
    pub fn to_vec(&self) -> Result<Vec<T>, DeviceError> {
        let mut host = bytemuck::zeroed_vec(self.len);
        self.copy_to_slice(&mut host)?;
        Ok(host)
    }

    /// Sets every byte of the buffer to `value`.
    ///
    /// # Errors
    ///
    /// As [`Buffer::copy_from_slice`].
    pub fn fill_bytes(&mut self, value: u8) -> Result<(), DeviceError> {
        let len = self.allocation.len();
        self.run(|core, stream, address| {
            // SAFETY: the range is the whole allocation, whose earlier users are done.
            unsafe { core.driver.fill(stream, address, value, len) }
        })
    }

    pub(crate) fn allocation(&self) -> &Arc<Allocation> {
        &self.allocation
    }

    pub(super) fn require_len(&self, host: usize) -> Result<(), DeviceError> {
        if host == self.len {
            Ok(())
        } else {
            Err(DeviceError::LengthMismatch {
                host,
                buffer: self.len,
            })
        }
    }

    /// Waits for all users of the buffer, then runs a transfer to its end.
    pub(super) fn run(
        &self,
        transfer: impl FnOnce(
            &Core,
            super::driver::RawStream,
            u64,
        ) -> Result<(), super::driver::DriverError>,
    ) -> Result<(), DeviceError> {
        self.device.core().usable()?;
        if self.allocation.len() == 0 {
            return Ok(());
        }
        self.allocation.in_flight().wait(self.device.core())?;
        let address = self.allocation.address();
        self.device
            .transfers()
            .run_blocking(|core, stream| transfer(core, stream, address))
    }
}

impl<T> fmt::Debug for Buffer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer")
            .field("type", &std::any::type_name::<T>())
            .field("len", &self.len)
            .field("device", &self.device)
            .finish()
    }
}

impl fmt::Debug for Allocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Allocation")
            .field("space", &self.space)
            .field("address", &format_args!("{:#x}", self.address))
            .field("bytes", &self.len)
            .field("device", &self.core.name)
            .finish_non_exhaustive()
    }
}
