use super::{BackendError, DeviceCapabilities};
use crate::{
    device::{Device, DeviceError},
    launch::Gemv,
    layout::Layout,
    ops::BitLinear,
};
use kernels_gpu::gemv::TILE_ROWS;
use std::collections::BTreeSet;

/// Which device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum DeviceId {
    /// The first usable GPU, else the emulator.
    #[default]
    Auto,
    /// A new emulated device.
    Emulated,
    /// A GPU, by the driver's ordinal.
    Cuda(usize),
}

impl DeviceId {
    pub(super) fn open(self) -> Result<Device, DeviceError> {
        match self {
            Self::Auto => Device::auto(),
            Self::Emulated => Device::emulated(),
            Self::Cuda(ordinal) => Device::cuda(ordinal),
        }
    }
}

impl DeviceCapabilities {
    /// What a device can do; opens it.
    ///
    /// # Errors
    /// When there is no such device.
    pub fn for_device(device: DeviceId) -> Result<Self, DeviceError> {
        Ok(device.open()?.capabilities().clone())
    }
}

/// Options of a [`CudaBackend`](super::CudaBackend).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CudaBackendConfig {
    /// The device. Default [`DeviceId::Auto`].
    pub device_id: DeviceId,
    /// Size limit of the memory pool in bytes, [`MemoryPoolConfig::max_bytes`](crate::device::MemoryPoolConfig::max_bytes), which takes 1
    /// MiB for each size class in use; `None` to allocate from the driver without a pool. Default `None`.
    pub memory_pool_size: Option<usize>,
    /// Number of streams, at least 1. Default 4.
    pub num_streams: usize,
    /// Whether operations are recorded for [`take_profile`](super::CudaBackend::take_profile). Default `false`.
    pub enable_profiling: bool,
    /// Which GEMV variants may be chosen.
    pub w2a8_config: W2A8GemvConfig,
}

impl Default for CudaBackendConfig {
    fn default() -> Self {
        Self {
            device_id: DeviceId::Auto,
            memory_pool_size: None,
            num_streams: 4,
            enable_profiling: false,
            w2a8_config: W2A8GemvConfig::default(),
        }
    }
}

/// Which GEMV variants may be chosen. For one token there has to be one; for numbers of tokens, from 2 to 8, for which there is none,
/// the library's choice stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct W2A8GemvConfig {
    /// Threads of a block; `None` leaves it to the tuning cache and the heuristic. Default `None`.
    pub block_size: Option<u32>,
    /// How the rows are divided among blocks. Default [`GridStrategy::Auto`].
    pub grid_strategy: GridStrategy,
    /// Whether weights in the layout `Ladder` are converted to `Tiled` when they are loaded; otherwise they are multiplied as
    /// they are. Default `true`.
    pub enable_weight_permutation: bool,
}

impl Default for W2A8GemvConfig {
    fn default() -> Self {
        Self {
            block_size: None,
            grid_strategy: GridStrategy::Auto,
            enable_weight_permutation: true,
        }
    }
}

/// How the rows of a product are divided among blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum GridStrategy {
    /// As the chosen variant does.
    #[default]
    Auto,
    /// This many rows of the weights per block.
    RowsPerBlock(u32),
}

impl W2A8GemvConfig {
    /// Whether no variant is left out.
    pub(super) fn leaves_all(&self) -> bool {
        self.block_size.is_none() && self.grid_strategy == GridStrategy::Auto
    }

    /// The options that leave variants out, as a caller writes them.
    fn restriction(&self) -> String {
        format!(
            "block_size: {:?}, grid_strategy: {:?}",
            self.block_size, self.grid_strategy
        )
    }

    fn leaves(&self, variant: &Gemv) -> bool {
        let shape = variant.shape();
        let rows = shape.tiles as usize * TILE_ROWS;
        self.block_size
            .is_none_or(|threads| shape.threads() == threads)
            && match self.grid_strategy {
                GridStrategy::Auto => true,
                GridStrategy::RowsPerBlock(wanted) => rows == wanted as usize,
            }
    }

    /// Refuses options that leave no variant for a single token with weights in this layout.
    pub(super) fn check(&self, layout: Layout) -> Result<(), BackendError> {
        let single = || Gemv::all(layout).filter(|variant| variant.tokens() == 1);
        if single().any(|variant| self.leaves(&variant)) {
            return Ok(());
        }
        let known: BTreeSet<_> = single()
            .map(|variant| {
                let shape = variant.shape();
                (shape.threads(), shape.tiles as usize * TILE_ROWS)
            })
            .collect();
        let known: Vec<_> = known
            .iter()
            .map(|(threads, rows)| format!("{threads} x {rows}"))
            .collect();
        Err(BackendError::Config {
            option: "w2a8_config",
            value: self.restriction(),
            expected: format!(
                "for {layout} weights, threads x rows of a block are one of {}",
                known.join(", ")
            ),
        })
    }

    /// The same layer on the variants that are left. Numbers of tokens for which none is keep the library's choice.
    pub(super) fn apply(&self, layer: BitLinear) -> Result<BitLinear, BackendError> {
        self.check(layer.layout())?;
        let (n, k) = (layer.n(), layer.k());
        let (layout, capabilities) = (layer.layout(), layer.device().capabilities().clone());
        let padded = layer.k_padded();
        let best = |m| {
            let left =
                Gemv::all(layout).filter(|variant| self.leaves(variant) && variant.fits(m, padded));
            Gemv::choose_from(left, &capabilities, n, padded)
        };
        if best(1).is_none() {
            let limit = Gemv::all(layout)
                .filter(|variant| variant.tokens() == 1 && self.leaves(variant))
                .map(|variant| variant.shape().max_k())
                .max()
                .unwrap_or(0);
            return Err(BackendError::Config {
                option: "w2a8_config",
                value: self.restriction(),
                expected: format!(
                    "the weights have K = {k}, padded to {padded}, but these variants take K up to {limit}"
                ),
            });
        }
        Ok(layer.with_variants(best))
    }
}
