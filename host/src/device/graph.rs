use std::{fmt, sync::Arc};

use super::{
    Device,
    buffer::Allocation,
    core::{Orphan, Resource, lock},
    driver::RawGraph,
    error::DeviceError,
    in_flight::InFlight,
    queue::Work,
    stream::Stream,
    sync::Mutex,
};

/// A sequence of launches, captured once and replayed with one call.
///
/// The graph keeps every buffer that its launches use alive, and a replay works on the current contents of those buffers. It can
/// be replayed on any stream of its device, from any thread, and dropped at any time.
pub struct Graph {
    device: Device,
    raw: RawGraph,
    /// Held while the graph is submitted, which the driver does not synchronize by itself.
    submitting: Mutex<()>,
    kernels: Vec<String>,
    /// As errors and profiles call a replay.
    name: Arc<str>,
    bytes: usize,
    in_flight: InFlight,
    /// Dropped after the graph itself, whose `Drop` waits for the replays.
    allocations: Vec<Arc<Allocation>>,
}

impl Graph {
    /// Runs `launches`, during which the stream records launches instead of executing them.
    ///
    /// Only launches on this stream are recorded. The closure may create and drop buffers, but can neither read nor write those
    /// that a recorded launch uses.
    ///
    /// # Errors
    ///
    /// The closure's error, [`DeviceError::EmptyGraph`] if nothing was launched, and [`DeviceError::Capturing`] if the stream is
    /// already being captured. The stream can be used normally afterwards, even if the closure panics.
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

    /// Replaces the arguments and shapes of the graph's launches by those that the same kernels are given in `launches`, which is
    /// recorded as in [`Graph::capture`].
    ///
    /// Replays submitted before keep their arguments. Buffers that only the old arguments need are released, as if dropped here.
    /// On a GPU this is `cuGraphExecUpdate`, which is much cheaper than another graph; if the driver cannot do it, the graph is
    /// instantiated again.
    ///
    /// ```
    /// use bitnet_cuda::device::{Buffer, Device, Graph};
    /// use bitnet_cuda::ops::{Activation, OpError, activate};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let device = Device::auto()?;
    /// let stream = device.new_stream()?;
    /// let first = Buffer::from_slice(&device, &[-1.0_f32, 2.0])?;
    /// let second = Buffer::from_slice(&device, &[3.0_f32, -4.0])?;
    /// let mut y = Buffer::uninit(&device, 2)?;
    /// let mut graph = Graph::capture(&stream, |stream| -> Result<(), OpError> {
    ///     activate(stream, Activation::SquaredRelu, &first, &mut y)
    /// })?;
    /// graph.launch(&stream)?;
    /// assert_eq!(y.to_vec()?, [0.0, 4.0]);
    /// graph.update(&stream, |stream| -> Result<(), OpError> {
    ///     activate(stream, Activation::SquaredRelu, &second, &mut y)
    /// })?;
    /// graph.launch(&stream)?;
    /// assert_eq!(y.to_vec()?, [9.0, 0.0]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The closure's error, [`DeviceError::GraphMismatch`] if its kernels differ from the graph's in name, number or order, and
    /// as [`Graph::capture`]. The graph is unchanged in that case.
    pub fn update<E: From<DeviceError>>(
        &mut self,
        stream: &Stream,
        launches: impl FnOnce(&Stream) -> Result<(), E>,
    ) -> Result<(), E> {
        stream.device().require("the graph", &self.device)?;
        stream.require_own("capturing into a graph")?;
        stream.inner().begin_capture()?;
        let capturing = Capturing(stream);
        launches(stream)?;
        Ok(capturing.update(self)?)
    }

    /// Submits all launches of the graph to the stream.
    ///
    /// # Errors
    ///
    /// [`DeviceError::DeviceMismatch`] for a stream of another device, [`DeviceError::Capturing`] where the stream is being captured,
    /// [`DeviceError::Lost`] where earlier work failed; on the emulator, also where a launch of the graph fails.
    pub fn launch(&self, stream: &Stream) -> Result<(), DeviceError> {
        stream.device().require("the graph", &self.device)?;
        let core = self.device.core();
        let _submitting = lock(&self.submitting);
        let mut queue = stream.inner().lock_idle("replaying a graph")?;
        let in_flight = self
            .allocations
            .iter()
            .map(|allocation| allocation.in_flight());
        stream.inner().submit_now(
            &mut queue,
            stream.raw(),
            Work {
                launches: self.kernels.len(),
                ..Work::named(Arc::clone(&self.name), self.bytes)
            },
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

    /// Names of the captured kernels, in launch order.
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
        let (capture, raw) = stream.inner().end_capture(None)?;
        let graph = Graph {
            device: stream.device().clone(),
            raw,
            submitting: Mutex::default(),
            name: name(&capture.kernels),
            kernels: capture.kernels.iter().map(ToString::to_string).collect(),
            bytes: capture.bytes,
            in_flight: InFlight::default(),
            allocations: capture.allocations,
        };
        if graph.kernels.is_empty() {
            Err(DeviceError::EmptyGraph)
        } else {
            Ok(graph)
        }
    }

    fn update(self, graph: &mut Graph) -> Result<(), DeviceError> {
        let captured = self.0.inner().captured();
        let len = graph.kernels.len().max(captured.len());
        for index in 0..len {
            let old = graph.kernels.get(index).map(String::as_str);
            let new = captured.get(index).map(|kernel| &**kernel);
            if old != new {
                return Err(DeviceError::GraphMismatch {
                    index,
                    captured: old.map(str::to_owned),
                    updated: new.map(str::to_owned),
                });
            }
        }
        let stream = std::mem::ManuallyDrop::new(self).0;
        let (capture, raw) = stream.inner().end_capture(Some(graph.raw))?;
        graph.bytes = capture.bytes;
        let allocations = std::mem::replace(&mut graph.allocations, capture.allocations);
        if raw != graph.raw {
            graph.device.core().release(Orphan {
                resource: Resource::Graph(std::mem::replace(&mut graph.raw, raw)),
                in_flight: std::mem::take(&mut graph.in_flight),
                allocations,
            });
        }
        Ok(())
    }
}

impl fmt::Debug for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Graph")
            .field("device", &self.device)
            .field("launches", &self.kernels.len())
            .finish_non_exhaustive()
    }
}

/// A replay as errors and profiles call it.
fn name(kernels: &[Arc<str>]) -> Arc<str> {
    format!("graph of {}", kernels.join(", ")).into()
}

impl Drop for Capturing<'_> {
    fn drop(&mut self) {
        self.0.inner().abandon_capture();
    }
}
