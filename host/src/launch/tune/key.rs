use crate::device::Device;
use crate::launch::ptx_for;
use kernels_gpu::gemv::{MAX_TOKENS, STEP_COLUMNS};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};

/// What a measurement is valid for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TuneKey {
    /// [`Capabilities::model`](crate::device::Capabilities::model).
    pub device: String,
    /// Version of the driver, as CUDA encodes it; none on the emulator.
    pub driver: Option<u32>,
    /// SHA-256 of the PTX text that runs on the device.
    pub ptx: String,
    /// The operation: `gemv`.
    pub op: String,
    /// Types of weights and activations: `w2a8`. The output type is not part of it, since one kernel writes all of them.
    pub dtype: String,
    /// Output features.
    pub n: usize,
    /// Input features as the kernel sees them, padded to whole steps of 128.
    pub k: usize,
    /// Tokens per launch, at most 8.
    pub m: usize,
}

impl TuneKey {
    /// The key of a product of `m` tokens with weights `[n, k]`. `None` for a device without PTX, or a `k` that cannot be padded.
    pub fn gemv(device: &Device, m: usize, n: usize, k: usize) -> Option<Self> {
        let capabilities = device.capabilities();
        let (arch, ptx) = ptx_for(capabilities.compute_capability)?;
        Some(Self {
            device: capabilities.model.clone(),
            driver: capabilities.driver_version,
            ptx: hash(arch, ptx),
            op: "gemv".to_owned(),
            dtype: "w2a8".to_owned(),
            n,
            k: k.checked_next_multiple_of(STEP_COLUMNS)?,
            m: m.min(MAX_TOKENS),
        })
    }
}

/// The hash of an architecture's PTX, computed once.
fn hash(arch: u32, ptx: &str) -> String {
    static HASHES: LazyLock<Mutex<HashMap<u32, String>>> = LazyLock::new(Mutex::default);
    let mut hashes = HASHES.lock().unwrap_or_else(PoisonError::into_inner);
    let hex = || {
        Sha256::digest(ptx)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    };
    hashes.entry(arch).or_insert_with(hex).clone()
}

/// What a launch costs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// The value.
    pub value: f64,
    /// Its unit.
    pub unit: CostUnit,
}

/// The unit of a [`Cost`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CostUnit {
    /// Microseconds of GPU time: the median of the rounds.
    Microseconds,
    /// Cycles of the cost model over the emulator's counts (docs/runtime.md): they rank variants and are not a time.
    ModelCycles,
}

impl CostUnit {
    /// Its name, for the head of a table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Microseconds => "us",
            Self::ModelCycles => "model cycles",
        }
    }
}
