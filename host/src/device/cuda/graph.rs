use std::ptr;

use cust::sys::CUgraphExec;
use cust_lazy::ffi::{self, CUgraph, CUgraphExecUpdateResultInfo};

use super::{
    super::driver::{DriverError, RawGraph, RawStream},
    CudaDriver, stream,
};

/// Ends the capture of a stream, and makes an executable graph of what it collected.
///
/// # Safety
///
/// As for [`Driver::end_capture`](super::Driver::end_capture).
pub(super) unsafe fn end_capture(
    driver: &CudaDriver,
    raw: RawStream,
    into: Option<RawGraph>,
) -> Result<RawGraph, DriverError> {
    let mut graph = ptr::null_mut();
    driver.call("cuStreamEndCapture", || {
        // SAFETY: the caller passes a live stream, and `graph` is valid for the write.
        unsafe { ffi::cuStreamEndCapture(stream(raw), &mut graph) }
    })?;
    // SAFETY: `graph` was just made, and the caller says that `into` is live.
    let executable = unsafe { executable(driver, graph, into) };
    // SAFETY: the graph was just made, and an executable graph does not need it any more.
    let destroyed = driver.call("cuGraphDestroy", || unsafe { ffi::cuGraphDestroy(graph) });
    if let Err(error) = destroyed {
        // Not the caller's error: `into` has its new arguments already.
        tracing::warn!(?error, "a captured graph could not be destroyed");
    }
    executable
}

/// An executable graph of `graph`: `into` where that can take its arguments.
///
/// # Safety
///
/// Both graphs are live.
unsafe fn executable(
    driver: &CudaDriver,
    graph: CUgraph,
    into: Option<RawGraph>,
) -> Result<RawGraph, DriverError> {
    if let Some(into) = into {
        let mut info = CUgraphExecUpdateResultInfo {
            result: 0,
            errorNode: ptr::null_mut(),
            errorFromNode: ptr::null_mut(),
        };
        let updated = driver.call("cuGraphExecUpdate", || {
            // SAFETY: both graphs are live, and `info` is valid for the write.
            unsafe { ffi::cuGraphExecUpdate_v2(into.0 as CUgraphExec, graph, &mut info) }
        });
        match updated {
            Ok(()) => return Ok(into),
            // Something that an update cannot change, or a driver before CUDA 12.0. The reference says that drivers may come to refuse
            // more, and not by which code: another graph says what is wrong, where something is.
            Err(DriverError::Code { name, .. }) => {
                tracing::debug!(name, reason = info.result, "a graph is instantiated anew");
            }
            Err(error) => return Err(error),
        }
    }
    let mut executable = ptr::null_mut();
    driver.call("cuGraphInstantiate", || {
        // SAFETY: the graph is live, and `executable` is valid for the write.
        unsafe { ffi::cuGraphInstantiateWithFlags(&mut executable, graph, 0) }
    })?;
    Ok(RawGraph(executable as u64))
}
