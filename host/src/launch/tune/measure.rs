use super::{Cost, CostUnit, TuneKey, model, race};
use crate::device::{Buffer, Device, DeviceKind, Graph, Stream};
use crate::launch::{Gemv, LaunchError, Operands, Sizes, Workspaces, gemv, size};
use crate::layout::{Layout, MAX_K};
use kernels_gpu::gemv::{MAX_TOKENS, TILE_ROWS};

/// Most copies of the weights that a measurement rotates over, as in `bitnet bench`.
const MAX_COPIES: usize = 512;
/// Launches of a graph, at least: enough that an event's resolution of half a microsecond does not matter.
const MIN_LAUNCHES: usize = 32;

/// How carefully to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TuneConfig {
    /// Rounds on a GPU, at least 1. On the emulator there is one round, since counts are exact.
    pub rounds: usize,
}

impl Default for TuneConfig {
    fn default() -> Self {
        Self { rounds: 21 }
    }
}

/// A measured variant.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Candidate {
    /// The variant.
    pub variant: Gemv,
    /// Its cost per launch.
    pub cost: Cost,
    /// Number of rounds in which it was measured.
    pub rounds: usize,
    /// Whether it was dropped early, because it could not win.
    pub dropped: bool,
}

/// The result of [`tune_gemv`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Tuning {
    /// What the result is valid for.
    pub key: TuneKey,
    /// All variants that fit, the best first.
    pub candidates: Vec<Candidate>,
}

impl Tuning {
    /// The fastest candidate that was not dropped.
    pub fn best(&self) -> &Candidate {
        &self.candidates[0]
    }
}

/// Measures the variants for `m` tokens (more than 8 are processed in groups of 8) and `Tiled` weights `[n, k]`.
///
/// On a GPU, it times replays of a graph with events. The launches rotate over copies of the weights that total twice the L2
/// cache, so that weights come from DRAM as in a model. (Where that takes more than 512 copies, as for weights below 240 KiB on an H200, a single
/// copy is measured, from L2.) Rounds of the variants are interleaved, and the median counts; a variant
/// is dropped after three rounds if it was never within 5 % of the leader's median. On the emulator, the cost model of
/// docs/runtime.md is applied to the counts. `progress` is called after each measurement with the number done and the largest
/// number there can be.
///
/// # Errors
/// When `m`, `n` or `k` is 0 or too large, the device does not have enough memory, or a launch fails.
pub fn tune_gemv(
    device: &Device,
    (m, n, k): (usize, usize, usize),
    config: &TuneConfig,
    mut progress: impl FnMut(usize, usize),
) -> Result<Tuning, LaunchError> {
    size("m", m, i32::MAX as usize)?;
    size("n", n, i32::MAX as usize)?;
    size("k", k, MAX_K)?;
    size("rounds", config.rounds, 10_000)?;
    let key = TuneKey::gemv(device, m, n, k).ok_or_else(|| LaunchError::NoPtx {
        device: device.name().to_owned(),
        capability: device.compute_capability(),
    })?;
    let variants: Vec<_> = Gemv::all(Layout::Tiled)
        .filter(|variant| variant.fits(key.m, key.k))
        .collect();
    let mut candidates = match device.kind() {
        DeviceKind::Cuda => {
            let mut bench = Bench::new(device, &key)?;
            let graphs = variants
                .iter()
                .map(|&variant| bench.capture(variant))
                .collect::<Result<Vec<_>, _>>()?;
            // Also compiles and warms up.
            graphs
                .iter()
                .try_for_each(|(graph, _)| graph.launch(&bench.stream))?;
            let total = variants.len() * config.rounds;
            let mut done = 0;
            let runners = race::race(variants.len(), config.rounds, |index| {
                let (graph, launches) = &graphs[index];
                let milliseconds = bench.replay(graph)?;
                done += 1;
                progress(done, total);
                Ok::<_, LaunchError>(f64::from(milliseconds) * 1e3 / *launches as f64)
            })?;
            progress(total, total);
            let candidate = |(&variant, runner): (&Gemv, &race::Runner)| Candidate {
                variant,
                cost: Cost {
                    value: runner.median(),
                    unit: CostUnit::Microseconds,
                },
                rounds: runner.samples.len(),
                dropped: runner.dropped,
            };
            variants.iter().zip(&runners).map(candidate).collect()
        }
        DeviceKind::Emulated => {
            let mut bench = Bench::new(device, &key)?;
            let stream = bench.stream.clone();
            let mut candidates = Vec::new();
            for &variant in &variants {
                let (launched, reports) = device.profile(|| bench.launch(&stream, variant, 0))?;
                launched?;
                let value = reports
                    .iter()
                    .map(|report| {
                        model::cycles(device.capabilities(), report, variant, (key.n, key.k))
                    })
                    .sum();
                candidates.push(Candidate {
                    variant,
                    cost: Cost {
                        value,
                        unit: CostUnit::ModelCycles,
                    },
                    rounds: 1,
                    dropped: false,
                });
                progress(candidates.len(), variants.len());
            }
            candidates
        }
    };
    // Stable: of equals the first in the table of variants, which has the fewest warps.
    candidates.sort_by(|a: &Candidate, b| {
        a.dropped
            .cmp(&b.dropped)
            .then(a.cost.value.total_cmp(&b.cost.value))
    });
    Ok(Tuning { key, candidates })
}

/// Over how many copies of `bytes` of weights a measurement rotates: as many as take twice the L2 cache and half of the `free` memory. Where
/// [`MAX_COPIES`] are too few for the former, they would all stay in L2, and one does as well.
pub(super) fn copies(bytes: usize, l2_bytes: usize, free: usize) -> usize {
    let cold = (2 * l2_bytes).div_ceil(bytes);
    if cold > MAX_COPIES {
        return 1;
    }
    cold.min(free / 2 / bytes).max(1)
}

/// Operands of a product, with random codes for weights and values for activations.
struct Bench {
    stream: Stream,
    sizes: Sizes,
    weights: Vec<Buffer<u8>>,
    activations: Buffer<i8>,
    activation_scale: Buffer<f32>,
    activation_sum: Buffer<i32>,
    row_scale: Buffer<f32>,
    output: Buffer<f32>,
    workspaces: Workspaces,
}

impl Bench {
    fn new(device: &Device, key: &TuneKey) -> Result<Self, LaunchError> {
        let &TuneKey { n, k, m, .. } = key;
        let bytes = n.next_multiple_of(TILE_ROWS) * k / 4;
        let free = device.memory_info()?.free_bytes;
        let copies = match device.kind() {
            DeviceKind::Cuda => copies(bytes, device.capabilities().l2_bytes, free),
            DeviceKind::Emulated => 1,
        };
        // Before as much of the host's memory is taken: the device says how much it has.
        let mut weights = (0..copies)
            .map(|_| Buffer::uninit(device, bytes))
            .collect::<Result<Vec<_>, _>>()?;
        let mut random = fastrand::Rng::with_seed(0x62_6974_6e65_7431);
        // Four ternary codes 0..=2.
        let codes: Vec<u8> = (0..bytes)
            .map(|_| (0..4).fold(0, |byte, _| byte << 2 | random.u8(..3)))
            .collect();
        for weights in &mut weights {
            weights.copy_from_slice(&codes)?;
        }
        let values: Vec<i8> = (0..MAX_TOKENS * k).map(|_| random.i8(..)).collect();
        let sums: Vec<i32> = values
            .chunks(k)
            .take(m)
            .map(|row| row.iter().map(|&q| i32::from(q)).sum())
            .collect();
        Ok(Self {
            stream: device.new_stream()?,
            sizes: Sizes {
                m,
                n,
                k,
                k_pitch: k,
            },
            weights,
            activations: Buffer::from_slice(device, &values)?,
            activation_scale: Buffer::from_slice(device, &vec![1.0; m])?,
            activation_sum: Buffer::from_slice(device, &sums)?,
            row_scale: Buffer::from_slice(device, &vec![1.0; n])?,
            output: Buffer::uninit(device, m * n)?,
            workspaces: Workspaces::default(),
        })
    }

    /// Submits one product with a copy of the weights.
    fn launch(&mut self, stream: &Stream, variant: Gemv, copy: usize) -> Result<(), LaunchError> {
        let operands = Operands {
            weights: &self.weights[copy],
            activations: &self.activations,
            activation_scale: &self.activation_scale,
            activation_sum: &self.activation_sum,
            row_scale: &self.row_scale,
            bias: None,
            activation: None,
            residual: None,
            output: &mut self.output,
            first_token: 0,
            workspaces: &self.workspaces,
        };
        gemv(stream, variant, operands, self.sizes)
    }

    /// A graph that goes over all copies, and how many launches it has.
    fn capture(&mut self, variant: Gemv) -> Result<(Graph, usize), LaunchError> {
        let copies = self.weights.len();
        let launches = MIN_LAUNCHES.next_multiple_of(copies);
        // Launched early, each would hide behind the one in front. In a program that is another kernel, and a product's own time counts.
        let in_turn = self.stream.in_turn();
        let graph = Graph::capture(&in_turn, |stream| {
            (0..launches).try_for_each(|launch| self.launch(stream, variant, launch % copies))
        })?;
        Ok((graph, launches))
    }

    /// Milliseconds of one replay, behind another one: the GPU is busy until the timed one is submitted, whose time is then its own and
    /// not the host's.
    fn replay(&self, graph: &Graph) -> Result<f32, LaunchError> {
        graph.launch(&self.stream)?;
        let start = self.stream.record()?;
        graph.launch(&self.stream)?;
        let end = self.stream.record()?;
        Ok(start.elapsed_ms(&end)?.expect("a GPU has a clock"))
    }
}
