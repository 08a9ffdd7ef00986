use std::ptr;

use bytemuck::Zeroable;

use super::driver::DriverError;

/// The largest page that supported systems have (aarch64 with 64 KiB pages): no page is then part of two allocations, which
/// the driver would refuse to lock twice.
const PAGE_BYTES: usize = 64 << 10;

#[derive(Clone, Copy, Zeroable)]
#[repr(C, align(65536))]
struct Page([u8; PAGE_BYTES]);

/// Whole pages of host memory, freed on drop.
///
/// It is used through its address: by copies of the device, and by the slices that a [`PinnedBuffer`](super::PinnedBuffer)
/// makes between them.
#[derive(Debug)]
pub(super) struct Pages {
    address: u64,
    pages: usize,
}

impl Pages {
    pub(super) fn zeroed(bytes: usize) -> Result<Self, DriverError> {
        let pages = bytes.div_ceil(PAGE_BYTES);
        let memory = bytemuck::allocation::try_zeroed_slice_box::<Page>(pages);
        let memory = memory.map_err(|()| DriverError::PinnedMemory {
            requested: bytes,
            reason: "the host is out of memory".to_owned(),
        })?;
        let address = Box::into_raw(memory).cast::<Page>().expose_provenance() as u64;
        Ok(Self { address, pages })
    }

    pub(super) fn address(&self) -> u64 {
        self.address
    }

    pub(super) fn len(&self) -> usize {
        self.pages * PAGE_BYTES
    }

    pub(super) fn as_ptr<T>(&self) -> *mut T {
        ptr::with_exposed_provenance_mut(self.address as usize)
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        let memory = ptr::slice_from_raw_parts_mut(self.as_ptr::<Page>(), self.pages);
        // SAFETY: `zeroed` took it out of such a box, and whoever used the address has said that the use is over.
        drop(unsafe { Box::from_raw(memory) });
    }
}
