//! A device with its memory pool, streams and options in one object, for services that hold one per device.
//!
//! [`CudaBackend`] combines the parts of [`device`](crate::device) and [`ops`](crate::ops), and uses their types for buffers,
//! streams and layers. It works the same on a GPU and on the emulator, and is `Send` and `Sync`.

mod ceilings;
mod config;
mod memory;
mod profile;
mod split;

pub use self::{
    ceilings::Ceilings,
    config::{CudaBackendConfig, DeviceId, GridStrategy, W2A8GemvConfig},
    memory::MemoryManager,
    profile::{OpProfile, Operation, chrome_trace},
    split::{Split, SplitLinear},
};
pub use crate::device::Capabilities as DeviceCapabilities;

use self::profile::Recorder;
use crate::{
    device::{Buffer, Device, DeviceError, MemoryPoolConfig, Stream},
    launch::{self, Float, LaunchError},
    layout::{Layout, PackedWeights},
    ops::{BitLinear, OpError, QuantizedActivations},
    reference::RowScales,
};
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Why a backend could not be created, or a call on it failed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum BackendError {
    /// The device refused the call, or is lost.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The device cannot run the kernels.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// The operation refused its arguments.
    #[error(transparent)]
    Op(#[from] OpError),
    /// An option that nothing can satisfy.
    #[error("{option} = {value} is not possible: {expected}")]
    Config {
        /// The option's field.
        option: &'static str,
        /// Its value.
        value: String,
        /// What would be possible.
        expected: String,
    },
    /// A size that disagrees with the weights.
    #[error("{name} = {actual}, but the weights have {expected}")]
    Shape {
        /// `m` or `k`.
        name: &'static str,
        /// The size of the weights.
        expected: usize,
        /// The size given.
        actual: usize,
    },
}

/// A device, its memory and its streams.
///
/// After a fault ([`CudaBackend::is_lost`]) every call returns [`DeviceError::Lost`]; drop everything that was created with the
/// backend, and create another with the same [`CudaBackend::config`].
///
/// ```
/// use bitnet_cuda::backend::{CudaBackend, CudaBackendConfig, DeviceId};
/// use bitnet_cuda::layout::{Layout, PackedWeights};
/// use bitnet_cuda::ops::QuantizedActivations;
/// use bitnet_cuda::ops::RowScales;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let backend = CudaBackend::new(CudaBackendConfig { device_id: DeviceId::Emulated, ..Default::default() })?;
/// let packed = PackedWeights::pack(Layout::Tiled, &[1, -1, 0, 1, /* row 1 */ 0, 0, 1, 1], 2, 4)?;
/// let weights = backend.load_weights(&packed, &RowScales::per_tensor(2, 0.5)?)?;
/// let activations = QuantizedActivations::from_values(backend.device(), &[10, 20, 30, 40], &[1.0], 1, 4)?;
/// let mut output = backend.memory_manager().allocate::<f32>(2)?;
/// backend.w2a8_gemv(&weights, &activations, &mut output, 2, 4, backend.stream(0))?;
/// assert_eq!(backend.memory_manager().copy_to_host(&output)?, [15.0, 35.0]);
/// # Ok(())
/// # }
/// ```
pub struct CudaBackend {
    config: CudaBackendConfig,
    device: Device,
    streams: Vec<Stream>,
    next_stream: AtomicUsize,
    recorder: Option<Recorder>,
}

impl CudaBackend {
    /// Opens the device, loads the kernels, creates the pool and the streams.
    ///
    /// # Errors
    /// When there is no such device, it is older than the kernels need, an option is not possible, or the pool's memory cannot be
    /// allocated. A process has one pool per GPU; asking for another size than that of the existing pool is an error.
    pub fn new(config: CudaBackendConfig) -> Result<Self, BackendError> {
        config.w2a8_config.check(Layout::Tiled)?;
        if config.num_streams == 0 {
            return Err(BackendError::Config {
                option: "num_streams",
                value: "0".to_owned(),
                expected: "at least 1".to_owned(),
            });
        }
        let device = config.device_id.open()?;
        // Before any memory is taken: whether the device can run them, and the compilation.
        launch::kernels(&device)?;
        if let Some(bytes) = config.memory_pool_size {
            enable_pool(&device, bytes)?;
        }
        let streams = (0..config.num_streams)
            .map(|_| device.new_stream())
            .collect::<Result<_, _>>()?;
        let recorder = config.enable_profiling.then(Recorder::default);
        Ok(Self {
            config,
            device,
            streams,
            next_stream: AtomicUsize::new(0),
            recorder,
        })
    }

    /// Whether there is an NVIDIA driver with at least one GPU.
    pub fn is_cuda_available() -> bool {
        Device::cuda_count().is_ok_and(|count| count > 0)
    }

    /// The first usable GPU, else the emulator.
    ///
    /// # Errors
    /// When not even the emulator can be opened.
    pub fn auto_select_device() -> Result<Device, DeviceError> {
        Device::auto()
    }

    /// The options that the backend was created with.
    pub fn config(&self) -> &CudaBackendConfig {
        &self.config
    }

    /// The device.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// What the device can do.
    pub fn capabilities(&self) -> &DeviceCapabilities {
        self.device.capabilities()
    }

    /// Whether the device was lost to a fault.
    pub fn is_lost(&self) -> bool {
        self.device.is_lost()
    }

    /// Access to the device's memory.
    pub fn memory_manager(&self) -> MemoryManager<'_> {
        MemoryManager::new(&self.device)
    }

    /// The streams.
    pub fn streams(&self) -> &[Stream] {
        &self.streams
    }

    /// The stream `index`, modulo the number of streams.
    pub fn stream(&self, index: usize) -> &Stream {
        &self.streams[index % self.streams.len()]
    }

    /// Returns the streams in turn, to spread independent work over them.
    pub fn next_stream(&self) -> &Stream {
        self.stream(self.next_stream.fetch_add(1, Ordering::Relaxed))
    }

    /// Waits until all work on all streams is done.
    ///
    /// # Errors
    /// [`DeviceError::Lost`] where work failed, with the launches that may have caused it.
    pub fn synchronize(&self) -> Result<(), DeviceError> {
        self.device.synchronize()
    }

    /// Uploads ternary weights for [`CudaBackend::w2a8_gemv`], restricted to the kernel variants that `w2a8_config` allows. For
    /// numbers of tokens, from 2 to 8, for which it allows none, the library's choice stays.
    ///
    /// # Errors
    /// When `scales` does not cover exactly the rows of `weights`, no variant for one token that the options allow supports their K,
    /// or the device does not have enough memory.
    pub fn load_weights(
        &self,
        weights: &PackedWeights,
        scales: &RowScales,
    ) -> Result<BitLinear, BackendError> {
        let options = &self.config.w2a8_config;
        let keep = !options.enable_weight_permutation && weights.layout() == Layout::Ladder;
        let layer = if keep {
            BitLinear::from_ladder(&self.device, weights, scales)?
        } else {
            BitLinear::from_packed(&self.device, weights, scales)?
        };
        if options.leaves_all() {
            return Ok(layer);
        }
        options.apply(layer)
    }

    /// The product of weights `[m, k]` and quantized activations, `[tokens, k]`, with scales applied: `output` is `[tokens, m]`.
    ///
    /// `m` is the number of rows of the weights, following BLAS's convention for matrix-vector products; elsewhere in this
    /// library it is called `n`.
    ///
    /// # Errors
    /// When a size does not fit, an operand is on another device, or the launch fails.
    pub fn w2a8_gemv<Y: Float>(
        &self,
        weights: &BitLinear,
        activations: &QuantizedActivations,
        output: &mut Buffer<Y>,
        m: usize,
        k: usize,
        stream: &Stream,
    ) -> Result<(), BackendError> {
        for (name, actual, expected) in [("m", m, weights.n()), ("k", k, weights.k())] {
            if actual != expected {
                return Err(BackendError::Shape {
                    name,
                    expected,
                    actual,
                });
            }
        }
        let operation = Operation::product("w2a8_gemv", activations.m(), m, k);
        self.record(operation, stream, |stream| {
            Ok(weights.forward_quantized(stream, activations, output)?)
        })
    }

    /// Runs `work`, any operations on `stream`, in a `tracing` span; with `enable_profiling`, also records what it submits, as one
    /// operation of [`CudaBackend::take_profile`].
    ///
    /// `work` must submit only to `stream` and only on the calling thread. What other threads submit meanwhile is not recorded.
    ///
    /// ```
    /// use bitnet_cuda::backend::{CudaBackend, CudaBackendConfig};
    /// use bitnet_cuda::device::Buffer;
    /// use bitnet_cuda::ops::{Activation, OpError, activate};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let backend = CudaBackend::new(CudaBackendConfig { enable_profiling: true, ..Default::default() })?;
    /// let x = backend.memory_manager().copy_to_device(&[-1.0_f32, 2.0])?;
    /// let mut y = backend.memory_manager().allocate::<f32>(2)?;
    /// backend.record("activation", backend.stream(0), |stream| -> Result<(), OpError> {
    ///     activate(stream, Activation::SquaredRelu, &x, &mut y)
    /// })?;
    /// let profile = &backend.take_profile()?[0];
    /// assert_eq!((profile.operation.name, profile.bytes), ("activation", 16));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of `work`, in which case nothing is recorded, [`DeviceError::DeviceMismatch`] for a stream of another device, and
    /// [`DeviceError::Capturing`] on a GPU while the stream is being captured.
    pub fn record<R, E: From<DeviceError>>(
        &self,
        operation: impl Into<Operation>,
        stream: &Stream,
        work: impl FnOnce(&Stream) -> Result<R, E>,
    ) -> Result<R, E> {
        stream.device().require("the backend", &self.device)?;
        let operation = operation.into();
        let index = self.streams.iter().position(|own| own == stream);
        let index = index.unwrap_or(self.streams.len());
        let span = tracing::debug_span!(
            "operation",
            name = operation.name,
            product = ?operation.product,
            device = self.device.name(),
            stream = index
        );
        let _entered = span.enter();
        match &self.recorder {
            None => work(stream),
            Some(recorder) => recorder.record(operation, (index, stream), work),
        }
    }

    /// The limits of the device, measured at the first call; `None` on the emulator, and without `enable_profiling`.
    pub fn ceilings(&self) -> Option<Ceilings> {
        self.recorder.as_ref()?.ceilings(&self.device)
    }

    /// Returns what was recorded since the last call, in the order of submission, after waiting for it. Empty without
    /// `enable_profiling`.
    ///
    /// # Errors
    /// [`DeviceError::Lost`] where the work failed.
    pub fn take_profile(&self) -> Result<Vec<OpProfile>, DeviceError> {
        self.recorder
            .as_ref()
            .map_or_else(|| Ok(Vec::new()), |recorder| recorder.take(&self.device))
    }
}

impl fmt::Debug for CudaBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CudaBackend")
            .field("device", &self.device)
            .field("streams", &self.streams.len())
            .field("profiling", &self.recorder.is_some())
            .finish_non_exhaustive()
    }
}

fn enable_pool(device: &Device, bytes: usize) -> Result<(), BackendError> {
    match device.pool() {
        None => {
            let config = MemoryPoolConfig {
                max_bytes: Some(bytes),
                ..MemoryPoolConfig::default()
            };
            match device.enable_pool(config) {
                // By the name that this caller knows.
                Err(DeviceError::InvalidConfig {
                    option: "max_bytes",
                    value,
                    expected,
                }) => Err(BackendError::Config {
                    option: "memory_pool_size",
                    value,
                    expected: expected.to_owned(),
                }),
                enabled => Ok(enabled.map(drop)?),
            }
        }
        Some(pool) if pool.config().max_bytes == Some(bytes) => Ok(()),
        Some(pool) => Err(BackendError::Config {
            option: "memory_pool_size",
            value: bytes.to_string(),
            expected: format!(
                "{} has a pool already, of {}",
                device.name(),
                pool.config()
                    .max_bytes
                    .map_or("any size".to_owned(), |bytes| format!("{bytes} bytes"))
            ),
        }),
    }
}
