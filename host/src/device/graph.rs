use std::sync::{Arc, Mutex};

use super::{
    Device,
    buffer::Allocation,
    core::{Orphan, Resource, lock},
    driver::RawGraph,
    error::DeviceError,
    in_flight::InFlight,
    stream::Stream,
};

/// A sequence of launches, captured once and replayed with one call.
///
/// The graph keeps every buffer that its launches use alive, and replays work on those buffers' contents of the
/// moment. It can be replayed on any stream of its device, from any thread, and dropped at any time.
#[derive(Debug)]
pub struct Graph {
    device: Device,
    raw: RawGraph,
    /// Held while the graph is submitted, which the driver does not synchronize by itself.
    submitting: Mutex<()>,
    kernels: Vec<String>,
    in_flight: InFlight,
    /// Dropped after the graph itself, whose `Drop` waits for the replays.
    allocations: Vec<Arc<Allocation>>,
}

impl Graph {
    /// Runs `launches` while the stream collects what is launched on it instead of running it.
    ///
    /// Only launches on this stream are collected. Buffers may be made and dropped in the closure, but those
    /// that a collected launch uses can be neither read nor written there.
    ///
    /// # Errors
    ///
    /// The closure's error, [`DeviceError::EmptyGraph`] where nothing was launched, and
    /// [`DeviceError::Capturing`] where the stream is being captured already. The stream can be used
    /// normally afterwards, also where the closure panics.
    pub fn capture<E: From<DeviceError>>(
        stream: &Stream,
        launches: impl FnOnce(&Stream) -> Result<(), E>,
    ) -> Result<Self, E> {
        stream.require_own("capturing into a graph")?;
        stream.inner().begin_capture()?;
        let capturing = Capturing(stream);
        launches(stream)?;
        Ok(capturing.finish()?)
    }

    /// Submits all launches of the graph to the stream.
    pub fn launch(&self, stream: &Stream) -> Result<(), DeviceError> {
        stream.device().require("the graph", &self.device)?;
        let core = self.device.core();
        let _submitting = lock(&self.submitting);
        let mut queue = stream.inner().lock_idle("replaying a graph")?;
        let in_flight = self
            .allocations
            .iter()
            .map(|allocation| allocation.in_flight());
        let record = (format!("graph of {}", self.kernels.join(", ")), None);
        stream.inner().submit_launch(
            &mut queue,
            stream.raw(),
            record,
            in_flight.chain([&self.in_flight]),
            // SAFETY: graph and stream are of one device, as just checked, and alive; the marks keep the
            // graph and its allocations alive until the replay is done.
            |raw| unsafe { core.driver.launch_graph(raw, self.raw) },
        )
    }

    /// The device that the graph belongs to.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Names of the captured kernels, in the order of their launches.
    pub fn kernels(&self) -> &[String] {
        &self.kernels
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        self.device.core().release(Orphan {
            resource: Resource::Graph(self.raw),
            in_flight: std::mem::take(&mut self.in_flight),
            allocations: std::mem::take(&mut self.allocations),
        });
    }
}

/// Ends a capture, however the closure ends.
struct Capturing<'a>(&'a Stream);

impl Capturing<'_> {
    fn finish(self) -> Result<Graph, DeviceError> {
        let stream = std::mem::ManuallyDrop::new(self).0;
        let (capture, raw) = stream.inner().end_capture()?;
        let graph = Graph {
            device: stream.device().clone(),
            raw,
            submitting: Mutex::default(),
            kernels: capture.kernels,
            in_flight: InFlight::default(),
            allocations: capture.allocations,
        };
        if graph.kernels.is_empty() {
            Err(DeviceError::EmptyGraph)
        } else {
            Ok(graph)
        }
    }
}

impl Drop for Capturing<'_> {
    fn drop(&mut self) {
        self.0.inner().abandon_capture();
    }
}
