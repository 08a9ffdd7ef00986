//! What two GPUs do together.

use std::{any::Any, ffi::c_int, sync::PoisonError};

use cust_lazy::ffi;

use super::{
    super::{
        core::lock,
        driver::{Driver, DriverError, RawEvent, RawStream},
    },
    CudaDriver, event, stream,
};

const PEER_ACCESS_ALREADY_ENABLED: c_int = 704;

/// Another driver as a GPU.
fn gpu(peer: &dyn Driver) -> Option<&CudaDriver> {
    (peer as &dyn Any).downcast_ref()
}

impl CudaDriver {
    /// Runs a call that has handles of `peer`, which is not reset meanwhile.
    ///
    /// Only one GPU at a time is reset ([`Device::cuda`](super::super::Device::cuda) holds a lock), so that two threads which wait
    /// here for the locks of each other's GPUs do not both wait for a reset.
    fn call_with_peer(
        &self,
        peer: &CudaDriver,
        name: &'static str,
        function: impl FnOnce() -> c_int,
    ) -> Result<(), DriverError> {
        let retired = peer.retired.read().unwrap_or_else(PoisonError::into_inner);
        if *retired {
            return Err(DriverError::Code {
                call: name,
                name: "the other GPU has been reset".to_owned(),
                code: super::INVALID_VALUE,
            });
        }
        self.call(name, function)
    }

    pub(super) fn enable_peer(&self, peer: &dyn Driver) -> Result<bool, DriverError> {
        let Some(peer) = gpu(peer) else {
            return Ok(false);
        };
        if let Some(&reaches) = lock(&self.peers).get(&peer.id) {
            return Ok(reaches);
        }
        let mut can = 0;
        self.call("cuDeviceCanAccessPeer", || {
            // SAFETY: `can` is valid for the write.
            unsafe { ffi::cuDeviceCanAccessPeer(&mut can, self.device, peer.device) }
        })?;
        let mut reaches = can != 0;
        if reaches {
            let enabled = self.call_with_peer(peer, "cuCtxEnablePeerAccess", || {
                // SAFETY: the peer's context is retained as long as `peer`; flags have to be 0.
                unsafe { ffi::cuCtxEnablePeerAccess(peer.context, 0) }
            });
            reaches = match enabled {
                Ok(()) => true,
                Err(DriverError::Code { code, .. }) if code == PEER_ACCESS_ALREADY_ENABLED => true,
                // Unsupported, too many, or forbidden by what the program runs in: the host is always a way.
                Err(DriverError::Code { name, .. }) => {
                    tracing::debug!(name, "a GPU does not reach another one's memory");
                    false
                }
                Err(error) => return Err(error),
            };
        }
        lock(&self.peers).insert(peer.id, reaches);
        Ok(reaches)
    }

    /// # Safety
    ///
    /// As for [`Driver::copy_from_peer`].
    pub(super) unsafe fn copy_peer(
        &self,
        raw: RawStream,
        address: u64,
        peer: &dyn Driver,
        peer_address: u64,
        len: usize,
    ) -> Result<(), DriverError> {
        let peer = gpu(peer).expect("a GPU reaches only GPUs");
        self.call_with_peer(peer, "cuMemcpyPeerAsync", || {
            // SAFETY: the caller passes a live stream and ranges within allocations of the two contexts.
            unsafe {
                ffi::cuMemcpyPeerAsync(
                    address,
                    self.context,
                    peer_address,
                    peer.context,
                    len,
                    stream(raw),
                )
            }
        })
    }

    /// # Safety
    ///
    /// As for [`Driver::wait_peer_event`].
    pub(super) unsafe fn wait_peer(
        &self,
        raw: RawStream,
        peer: &dyn Driver,
        waited: RawEvent,
    ) -> Result<(), DriverError> {
        let peer = gpu(peer).expect("the caller passes two GPUs");
        self.call_with_peer(peer, "cuStreamWaitEvent", || {
            // SAFETY: the caller passes a live stream and a live event, which may be another GPU's; flags have to be 0.
            unsafe { ffi::cuStreamWaitEvent(stream(raw), event(waited), 0) }
        })
    }
}
