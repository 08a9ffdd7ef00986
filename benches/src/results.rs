//! The file format.

use serde::{Deserialize, Serialize};

/// Version of the format; a reader refuses any other.
pub const FORMAT: u32 = 2;

/// [`Case::op`] of the library's choice of a product where its launches overlap (programmatic dependent launch).
pub const LAUNCHED_EARLY: &str = "gemv, launched early";

/// How kernels are launched, as tables say it: `early`, overlapping (programmatic dependent launch), or `in turn`.
pub fn launched(programmatic: bool) -> &'static str {
    if programmatic { "early" } else { "in turn" }
}

/// One run of the measurement program.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Results {
    /// [`FORMAT`].
    pub format: u32,
    /// Start of the run, RFC 3339, UTC.
    pub date: String,
    /// Commit that the program was built from, where that is known.
    pub commit: Option<String>,
    /// What was measured.
    pub device: Device,
    /// How it was measured.
    pub method: Method,
    /// What the hardware allows; none without a GPU.
    pub ceilings: Option<Ceilings>,
    /// Single operations.
    pub cases: Vec<Case>,
    /// This library beside others, in the same rounds.
    pub pairs: Vec<Pair>,
    /// Chains of layers.
    pub models: Vec<Model>,
    /// What was asked for but did not run, and why.
    pub not_run: Vec<NotRun>,
}

/// A device and the state it was in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// `cuda` or `emulated`.
    pub kind: String,
    /// As the driver names it.
    pub name: String,
    /// Major and minor.
    pub compute_capability: (u32, u32),
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// Global memory.
    pub memory_bytes: usize,
    /// L2 cache.
    pub l2_bytes: usize,
    /// CUDA version of the driver, such as `12.4`.
    pub driver: Option<String>,
    /// The PTX that ran: `sm_90`.
    pub ptx: String,
    /// Clocks before and after the run; none without nvidia-smi.
    pub clocks: Option<[Clocks; 2]>,
}

/// What nvidia-smi says of the GPU at a moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Clocks {
    /// Clock of the multiprocessors in MHz.
    pub sm_mhz: Option<u32>,
    /// Clock of the memory in MHz.
    pub memory_mhz: Option<u32>,
    /// The highest clock of the multiprocessors in MHz.
    pub max_sm_mhz: Option<u32>,
    /// Temperature in degrees Celsius.
    pub temperature_c: Option<u32>,
    /// Version of the driver package, such as `550.54.15`.
    pub driver_package: Option<String>,
}

/// How times were taken.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Method {
    /// Seed of all random data.
    pub seed: u64,
    /// Least bytes that the rotated inputs of a cold measurement have together.
    pub rotated_bytes: usize,
    /// Replays that a measurement has at most.
    pub max_rounds: usize,
    /// [`statistics::WIDE_SPREAD`](crate::statistics::WIDE_SPREAD).
    pub wide_spread: f64,
}

/// Time of one launch, over replays of a graph of many.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Time {
    /// Median over the rounds.
    pub median_us: f64,
    /// 10th percentile.
    pub low_us: f64,
    /// 90th percentile.
    pub high_us: f64,
    /// Replays.
    pub rounds: usize,
    /// Launches of a replay.
    pub launches: usize,
    /// Whether the spread is too wide to rely on.
    pub wide: bool,
}

impl Time {
    /// Distance from the 10th to the 90th percentile, as a share of the median.
    pub fn spread(&self) -> f64 {
        (self.high_us - self.low_us) / self.median_us
    }
}

/// What the hardware allows, measured in the same run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ceilings {
    /// A copy of memory much larger than L2, by a kernel: bytes read and written a second.
    pub copy_bytes_per_second: f64,
    /// Time of that copy.
    pub copy: Time,
    /// Bytes of that copy, read and written.
    pub copy_bytes: usize,
    /// A kernel that does nothing, in a graph: the least that any launch takes.
    pub launch_floor: Time,
    /// A graph of a single such kernel, replayed back to back.
    pub graph_replay: Time,
    /// The same kernel launched one by one, without a graph.
    pub single_launch: Time,
    /// `dp4a` alone, on all multiprocessors: int8 multiplications and additions a second.
    pub dp4a_operations_per_second: f64,
    /// `mma.m16n8k32` on bytes alone, likewise; none before compute capability 8.0.
    pub mma_operations_per_second: Option<f64>,
    /// Milliseconds of host time to load this library's PTX into a fresh context; the driver may have it cached on disk.
    pub module_load_ms: f64,
    /// Microseconds of host time to allocate and free 1 MiB by the driver.
    pub allocation_us: f64,
    /// The same from the memory pool; none where the run ended before.
    pub pool_allocation_us: Option<f64>,
}

/// One operation at one shape.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// Such as `gemv` or `rmsnorm + quantize`.
    pub op: String,
    /// Tokens.
    pub m: usize,
    /// Output features of a product.
    pub n: Option<usize>,
    /// Input features, or the width of a row.
    pub k: usize,
    /// Kernels that a launch of the operation runs.
    pub kernels: Vec<String>,
    /// Of several variants, whether the library chooses this one.
    pub chosen: bool,
    /// Of several variants, whether this one was the fastest with cold weights; false without times.
    pub best: bool,
    /// Outputs compared with the reference before the measurement.
    pub checked: usize,
    /// Outputs that were wrong; such a case has no time.
    pub mismatches: usize,
    /// Bytes that have to be moved: each input read once, each output written once.
    pub bytes: usize,
    /// Multiplications and additions of a product, each counted as one.
    pub operations: usize,
    /// With inputs that are not in L2; none where rotating enough of them is not possible, or without a GPU.
    pub cold: Option<Time>,
    /// With the same inputs again and again; none without a GPU.
    pub warm: Option<Time>,
    /// `bytes` over the cold time (the warm one where there is no cold), as a share of the copy bandwidth.
    pub bandwidth_fraction: Option<f64>,
    /// What the emulator counted; none on a GPU.
    pub counts: Option<Counts>,
}

impl Case {
    /// The time that stands for the case: cold, or warm where there is no cold one.
    pub fn time(&self) -> Option<Time> {
        self.cold.or(self.warm)
    }
}

/// What the emulator counts in a launch.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// Instructions by warps.
    pub warp_instructions: u64,
    /// Instructions by lanes.
    pub lane_instructions: u64,
    /// Sectors of 32 bytes that were read.
    pub load_sectors: u64,
    /// Sectors of 32 bytes that were written.
    pub store_sectors: u64,
    /// Bytes read by lanes.
    pub bytes_read: u64,
    /// Bytes written by lanes.
    pub bytes_written: u64,
    /// Shared-memory bank conflicts.
    pub bank_conflicts: u64,
    /// Branches whose lanes went both ways.
    pub divergent_branches: u64,
}

/// A product by this library and by another, in alternating rounds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pair {
    /// The other: `cublas bf16`, `cublaslt int8`, or a library's file name.
    pub peer: String,
    /// Tokens.
    pub m: usize,
    /// Output features.
    pub n: usize,
    /// Input features.
    pub k: usize,
    /// This library's kernel.
    pub kernel: String,
    /// Whether this library's launches overlapped: each was launched early (programmatic dependent launch).
    pub programmatic: bool,
    /// This library, cold.
    pub ours: Time,
    /// The other, cold.
    pub theirs: Time,
    /// Median of `theirs / ours`, round by round: above 1 this library is faster.
    pub ratio: f64,
    /// 10th percentile of that ratio.
    pub ratio_low: f64,
    /// 90th percentile of that ratio.
    pub ratio_high: f64,
    /// Bytes of the other's weights.
    pub their_weight_bytes: usize,
    /// Outputs of the other that are further than `tolerance` from the exact ones.
    pub mismatches: usize,
    /// How far an output may be from the exact one, relative to that.
    pub tolerance: f64,
}

/// A chain of linear layers with the shapes of a transformer's, captured as one graph.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// GPUs that run a copy each, at the same time.
    pub num_gpus: usize,
    /// Tokens of a pass.
    pub batch_size: usize,
    /// Features between layers.
    pub hidden_size: usize,
    /// Layers.
    pub num_layers: usize,
    /// Bits of a weight: 2 is this library, 8 and 16 are cuBLAS.
    pub quantization_bits: u32,
    /// Whether launches overlapped: each was launched early (programmatic dependent launch).
    pub programmatic: bool,
    /// Kernel launches of a pass.
    pub launches: usize,
    /// Bytes of the weights on one GPU.
    pub weight_bytes: usize,
    /// Outputs compared with the reference.
    pub checked: usize,
    /// Outputs that were wrong; such a chain has no time.
    pub mismatches: usize,
    /// A pass, on the slowest of the GPUs; none without a GPU.
    pub pass: Option<Time>,
    /// Tokens of all GPUs over the time of a pass.
    pub tokens_per_second: Option<f64>,
    /// What the emulator counted in a pass; none on a GPU.
    pub counts: Option<Counts>,
}

/// Something that did not run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NotRun {
    /// What.
    pub what: String,
    /// Why.
    pub why: String,
}

/// Why a file is not one of this format.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// Another version.
    #[error(
        "the file has format {found}, this program reads {FORMAT}; measure again, or use the program of its commit"
    )]
    Version {
        /// The file's version.
        found: u64,
    },
    /// Not the fields that the version has.
    #[error("not a file of measurements")]
    Json(#[from] serde_json::Error),
    /// A time in a file of a device that has none, or none in one that has.
    #[error("{what}")]
    Inconsistent {
        /// What does not fit.
        what: String,
    },
    /// A time, a rate or a number of bytes that no measurement gives.
    #[error("`{field}` is {value:?}, which no measurement gives")]
    Impossible {
        /// Where it stands: `cases[2].cold.median_us`.
        field: String,
        /// What stands there.
        value: f64,
    },
}

impl Results {
    /// Reads a file's text.
    ///
    /// # Errors
    /// When the text is not JSON of this format and version, or holds a time that is not a GPU's, or one that no measurement gives.
    pub fn from_json(text: &str) -> Result<Self, FormatError> {
        #[derive(Deserialize)]
        struct Version {
            format: u64,
        }
        let Version { format } = serde_json::from_str(text)?;
        if format != u64::from(FORMAT) {
            return Err(FormatError::Version { found: format });
        }
        let results: Self = serde_json::from_str(text)?;
        results.require_times_of_gpus()?;
        results.require_possible_values()?;
        Ok(results)
    }

    /// The file's text.
    ///
    /// # Errors
    /// As [`Results::from_json`], so that no file is written that cannot be read.
    pub fn to_json(&self) -> Result<String, FormatError> {
        self.require_times_of_gpus()?;
        self.require_possible_values()?;
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    fn require_times_of_gpus(&self) -> Result<(), FormatError> {
        let timed = self.ceilings.is_some()
            || !self.pairs.is_empty()
            || self.cases.iter().any(|case| case.time().is_some())
            || self.models.iter().any(|model| model.pass.is_some());
        if timed && self.device.kind != "cuda" {
            return Err(FormatError::Inconsistent {
                what: format!(
                    "the device `{}` is no GPU, but the file holds times",
                    self.device.name
                ),
            });
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn empty(kind: &str) -> Results {
        Results {
            format: FORMAT,
            date: "2000-01-01T00:00:00Z".to_owned(),
            commit: None,
            device: Device {
                kind: kind.to_owned(),
                name: "a device".to_owned(),
                compute_capability: (9, 0),
                multiprocessors: 1,
                memory_bytes: 1,
                l2_bytes: 1,
                driver: None,
                ptx: "sm_90".to_owned(),
                clocks: None,
            },
            method: Method {
                seed: 1,
                rotated_bytes: 2,
                max_rounds: 3,
                wide_spread: statistics_wide(),
            },
            ceilings: None,
            cases: Vec::new(),
            pairs: Vec::new(),
            models: Vec::new(),
            not_run: Vec::new(),
        }
    }

    fn statistics_wide() -> f64 {
        crate::statistics::WIDE_SPREAD
    }

    #[test]
    fn what_is_written_can_be_read() {
        let results = empty("cuda");
        let text = results.to_json().expect("plain data");
        assert_eq!(Results::from_json(&text).expect("just written"), results);
    }

    #[test]
    fn another_version_and_unknown_fields_are_refused() {
        let text = empty("cuda").to_json().expect("plain data");
        for other in [FORMAT - 1, FORMAT + 1] {
            let text = text.replace(
                &format!("\"format\": {FORMAT}"),
                &format!("\"format\": {other}"),
            );
            let error = Results::from_json(&text).expect_err("another version");
            assert!(matches!(error, FormatError::Version { found } if found == u64::from(other)));
        }
        let unknown = text.replace("\"cases\"", "\"case\"");
        assert!(matches!(
            Results::from_json(&unknown),
            Err(FormatError::Json(_))
        ));
    }

    #[test]
    fn a_time_that_is_no_gpus_is_refused() {
        let time = crate::statistics::summarize(vec![1.0], 1);
        let mut results = empty("emulated");
        results.models.push(Model {
            num_gpus: 1,
            batch_size: 1,
            hidden_size: 1,
            num_layers: 1,
            quantization_bits: 2,
            programmatic: false,
            launches: 1,
            weight_bytes: 1,
            checked: 1,
            mismatches: 0,
            pass: time,
            tokens_per_second: None,
            counts: None,
        });
        assert!(matches!(
            results.to_json(),
            Err(FormatError::Inconsistent { .. })
        ));
        results.device.kind = "cuda".to_owned();
        results.to_json().expect("a GPU has times");
    }
}
