use crate::{
    device::{Buffer, Device, DeviceKind, Graph, Stream},
    ops::{Activation, OpError, activate},
};

/// Rounds of each measurement, of which the median counts.
const ROUNDS: usize = 11;
/// Launches of the graph that the launch floor is measured with.
const LAUNCHES: usize = 64;

/// The limits of a device, as measured on it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ceilings {
    /// Bytes read plus bytes written per second by a device-to-device copy of twice the L2 cache.
    pub copy_bytes_per_second: f64,
    /// Milliseconds per launch of a kernel on one element, back to back in a graph.
    pub launch_floor_ms: f64,
}

impl Ceilings {
    /// Measures a GPU; `None` on the emulator, which has no time.
    ///
    /// # Errors
    /// When the device does not have enough memory, or fails.
    pub fn measure(device: &Device) -> Result<Option<Self>, OpError> {
        if device.kind() != DeviceKind::Cuda {
            return Ok(None);
        }
        let stream = device.new_stream()?;
        let free = device.memory_info()?.free_bytes;
        let bytes = (2 * device.capabilities().l2_bytes).min(free / 4).max(1);
        // Not of the device's pool, which may be small: a copy that fits the L2 cache would be too fast.
        let from = Buffer::<u8>::zeroed_on(&stream, bytes)?;
        let mut to = Buffer::<u8>::uninit_on(&stream, bytes)?;
        let copy_ms = median_ms(&stream, || Ok(to.copy_from_buffer(&stream, &from)?))?;

        let x = Buffer::<f32>::zeroed(device, 1)?;
        let mut y = Buffer::<f32>::uninit(device, 1)?;
        let graph = Graph::capture(&stream, |stream| {
            (0..LAUNCHES).try_for_each(|_| activate(stream, Activation::SquaredRelu, &x, &mut y))
        })?;
        let graph_ms = median_ms(&stream, || Ok(graph.launch(&stream)?))?;
        Ok(Some(Self {
            copy_bytes_per_second: 2.0 * bytes as f64 / copy_ms * 1e3,
            launch_floor_ms: graph_ms / LAUNCHES as f64,
        }))
    }

    /// The least milliseconds that moving `bytes` or launching `launches` kernels takes, whichever is more.
    pub fn floor_ms(&self, bytes: usize, launches: usize) -> f64 {
        let moved = bytes as f64 / self.copy_bytes_per_second * 1e3;
        moved.max(launches as f64 * self.launch_floor_ms)
    }
}

/// Median of the milliseconds between events around `submit`, which is called once more before each: the GPU is then busy until the timed work is
/// submitted, and waits for no host in between.
fn median_ms(
    stream: &Stream,
    mut submit: impl FnMut() -> Result<(), OpError>,
) -> Result<f64, OpError> {
    let mut times = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        submit()?;
        let start = stream.record()?;
        submit()?;
        let end = stream.record()?;
        times.push(start.elapsed_ms(&end)?.expect("a GPU has a clock"));
    }
    times.sort_by(f32::total_cmp);
    Ok(times[ROUNDS / 2].into())
}
