//! Estimates the cycles of a GEMV on a GPU with cold caches, to rank variants that were not measured.
//!
//! ```text
//! cycles  = overlap(memory, latency, issue) + ends + splitting
//! overlap = the root of the sum of squares: more than the longest where others take about as long
//! memory  = LATENCY + max(weights / (dram * multiprocessors), weights of the busiest multiprocessor / L2_BYTES_PER_SM)
//! latency = waves * (LATENCY + later rounds * later_latency + rounds * instructions of a batch * PIPE_CYCLES)     a round: from a warp's loads to their products
//! issue   = warps of the busiest multiprocessor * instructions of a warp * ISSUE / SCHEDULERS
//! ends    = (ENDS + warps of a block) * DEPENDENT_ISSUE
//! ```
//!
//! `later_latency` is LATENCY, or L2_LATENCY for the share that a kernel has prefetched into L2, where kernels can be launched early. `dram`,
//! in bytes per cycle and multiprocessor, follows from the clocks and the bus width that the driver reports: 19 on an H200, 10 on
//! an A100.

use kernels_gpu::gemv::{STEP_BYTES, STEP_COLUMNS, Shape, TILE_ROWS};

use crate::device::{Capabilities, Stream};

/// Warp instructions that a multiprocessor issues per cycle.
pub(super) const SCHEDULERS: f64 = 4.0;

/// Cycles for which an instruction of a warp occupies its pipe: `dp4a` the FMA pipe, additions and logic the ALU pipe. Each gives 64
/// results per cycle and multiprocessor from sm_75 to sm_90 (CUDA C++ Programming Guide, throughput of native arithmetic instructions;
/// Nsight Compute, Profiling Guide, pipelines).
pub(super) const PIPE_CYCLES: f64 = 2.0;

/// Cycles per scheduler and instruction where many warps execute about as many `dp4a` as other instructions: 1 if the pipes were always
/// busy side by side, 2 if never.
const ISSUE: f64 = 1.5;

/// Cycles from one instruction of a warp to the next that needs its result.
pub(super) const DEPENDENT_ISSUE: f64 = 4.0;

/// Cycles from a load to its bytes from DRAM.
pub(super) const LATENCY: f64 = 800.0;

/// Cycles from a load to its bytes from L2.
const L2_LATENCY: f64 = 300.0;

/// Bytes per cycle and multiprocessor from DRAM if the driver does not report clocks: 3.35 TB/s over 132 multiprocessors at 1.8
/// GHz, as on an H100.
const DRAM_BYTES: f64 = 14.0;

/// Bytes per cycle that one multiprocessor can take from L2.
pub(super) const L2_BYTES_PER_SM: f64 = 64.0;

/// Instructions for 16 rows and 128 columns: 16 `dp4a`, 12 masks, and loads and loop control.
const INSTRUCTIONS_PER_STEP: f64 = 32.0;

/// Instructions before the first load and after the last product.
const ENDS: f64 = 130.0;

/// The most registers per thread of any variant (`cargo xtask ptxas`).
const REGISTERS: u32 = 64;

/// Bytes of each tile that a block with one token prefetches into L2 at its start, if it is launched early. With them, even one warp per
/// multiprocessor has as many bytes in flight as DRAM delivers during its latency.
const PREFETCHED_BYTES: usize = 16 << 10;

/// Cycles from the last sum in a split's workspace to its total: a release, a counter's round trip and a read from L2.
const SPLITTING: f64 = 1400.0;

/// Bytes of each tile for a product to prefetch into L2. A kernel that starts while the preceding one runs has time for it. In one that starts
/// alone the first loads would only wait behind the prefetches of all blocks.
pub(super) fn prefetched_bytes(stream: &Stream) -> u32 {
    if stream.launches_early() {
        PREFETCHED_BYTES as u32
    } else {
        0
    }
}

/// Bytes per cycle and multiprocessor from DRAM.
pub(super) fn dram_bytes(capabilities: &Capabilities) -> f64 {
    let of = |clock: u32, memory_clock: u32, bus_bits: u32| {
        // Two transfers per clock.
        let bytes = 2.0 * f64::from(memory_clock) * f64::from(bus_bits) / 8.0;
        bytes / (f64::from(clock) * f64::from(capabilities.multiprocessors))
    };
    match (
        capabilities.clock_khz,
        capabilities.memory_clock_khz,
        capabilities.memory_bus_bits,
    ) {
        (Some(clock), Some(memory_clock), Some(bus_bits)) => of(clock, memory_clock, bus_bits),
        _ => DRAM_BYTES,
    }
}

/// Cycles in which DRAM could deliver `[n, k]` weights.
pub(super) fn ideal_cycles(capabilities: &Capabilities, n: usize, k: usize) -> f64 {
    let multiprocessors = f64::from(capabilities.multiprocessors);
    n as f64 * k as f64 / 4.0 / (dram_bytes(capabilities) * multiprocessors)
}

/// Steps of 128 columns that the slowest warp of a block takes.
fn steps_per_warp(shape: Shape, k: usize) -> usize {
    k.div_ceil(STEP_COLUMNS)
        .div_ceil((shape.warps * shape.splits) as usize)
}

/// The share of the warps that have a step at all.
pub(super) fn working_share(shape: Shape, k: usize) -> f64 {
    let warps = f64::from(shape.warps * shape.splits);
    (k.div_ceil(STEP_COLUMNS) as f64 / warps).min(1.0)
}

/// Warps of the multiprocessor that has the most.
fn warps_of_busiest(shape: Shape, capabilities: &Capabilities, n: usize) -> f64 {
    let blocks = n.div_ceil(TILE_ROWS * shape.tiles as usize) * shape.splits as usize;
    let of_one = blocks.div_ceil(capabilities.multiprocessors as usize);
    (of_one * shape.warps as usize) as f64
}

/// Cycles in which the warps of a multiprocessor wait for their loads, round after round.
pub(super) fn latency_cycles(shape: Shape, capabilities: &Capabilities, n: usize, k: usize) -> f64 {
    let by_registers = capabilities.registers_per_multiprocessor / REGISTERS;
    let threads = by_registers.min(capabilities.max_threads_per_multiprocessor);
    let resident = f64::from(threads / capabilities.warp_size);
    let waves = (warps_of_busiest(shape, capabilities, n) / resident).max(1.0);
    let instructions = f64::from(shape.steps * shape.tiles) * INSTRUCTIONS_PER_STEP;
    let rounds = rounds(shape, k);
    let later = steps_per_warp(shape, k) - first_steps(shape, k);
    let fetched = match bytes_of_steps(shape, later) {
        0 => 0.0,
        bytes => prefetched(shape, capabilities, k) as f64 / bytes as f64,
    };
    let later_latency = LATENCY + (L2_LATENCY - LATENCY) * fetched;
    // A warp's instructions on one load do not depend on those on another.
    waves * (LATENCY + (rounds - 1.0) * later_latency + rounds * instructions * PIPE_CYCLES)
}

/// Bytes of a block in so many steps of each of its warps.
fn bytes_of_steps(shape: Shape, steps: usize) -> usize {
    // An estimate may be asked for any K, also one that no memory holds.
    steps.saturating_mul((shape.warps * shape.splits) as usize * STEP_BYTES)
}

/// Bytes of a tile that a block launched early prefetches into L2 at its start, beyond those of its first loads.
fn prefetched(shape: Shape, capabilities: &Capabilities, k: usize) -> usize {
    if !capabilities.programmatic_launch || shape.tokens > 1 {
        return 0;
    }
    let tile = bytes_of_steps(shape, steps_per_warp(shape, k));
    let first_loads = bytes_of_steps(shape, first_steps(shape, k));
    tile.min(PREFETCHED_BYTES).saturating_sub(first_loads)
}

/// Steps that a warp has in flight when it first waits: a batch plus the steps left over from whole batches. With one token and nothing
/// left over, the second batch is in flight as well.
fn first_steps(shape: Shape, k: usize) -> usize {
    let (steps, batch) = (steps_per_warp(shape, k), shape.steps as usize);
    let (batches, rest) = (steps / batch, steps % batch);
    let at_once = if rest == 0 {
        batches_in_flight(shape)
    } else {
        1
    };
    rest + batch * batches.min(at_once)
}

/// Whole batches that a warp has in flight: with one token, one is loaded while another one is multiplied.
fn batches_in_flight(shape: Shape) -> usize {
    if shape.tokens == 1 { 2 } else { 1 }
}

/// How often a warp waits for everything that it has in flight.
fn rounds(shape: Shape, k: usize) -> f64 {
    let later = steps_per_warp(shape, k) - first_steps(shape, k);
    let in_flight = shape.steps as usize * batches_in_flight(shape);
    1.0 + later as f64 / in_flight as f64
}

/// The time of activities that overlap but occasionally wait for each other.
fn overlap(times: [f64; 3]) -> f64 {
    times.iter().map(|time| time.powi(2)).sum::<f64>().sqrt()
}

/// The estimate; infinite for a split that leaves a warp without a step.
pub(super) fn cycles(shape: Shape, capabilities: &Capabilities, n: usize, k: usize) -> f64 {
    if shape.splits > 1 && k.div_ceil(STEP_COLUMNS) < (shape.warps * shape.splits) as usize {
        return f64::INFINITY;
    }
    let steps = (steps_per_warp(shape, k) * shape.tiles as usize) as f64;
    let warps = warps_of_busiest(shape, capabilities, n);
    let of_busiest = warps * steps * STEP_BYTES as f64 / L2_BYTES_PER_SM;
    let memory = LATENCY + ideal_cycles(capabilities, n, k).max(of_busiest);
    let latency = latency_cycles(shape, capabilities, n, k);
    let issue = warps * (steps * INSTRUCTIONS_PER_STEP + ENDS) * ISSUE / SCHEDULERS;
    let ends = (ENDS + f64::from(shape.warps)) * DEPENDENT_ISSUE;
    let splitting = if shape.splits > 1 { SPLITTING } else { 0.0 };
    overlap([memory, latency, issue]) + ends + splitting
}

/// Estimates that differ by less than this share count as equal.
const UNDECIDED: f64 = 0.015;

/// Among variants whose estimates for `[n, k]` weights are close to the lowest, the one with the fewest warps: it executes the
/// fewest instructions.
pub(super) fn choose<V>(
    variants: impl Iterator<Item = V>,
    shape: impl Fn(&V) -> Shape,
    capabilities: &Capabilities,
    n: usize,
    k: usize,
) -> Option<V> {
    let estimated = variants.map(|variant| {
        let shape = shape(&variant);
        let cycles = cycles(shape, capabilities, n, k);
        (variant, cycles, f64::from(shape.warps * shape.splits))
    });
    least_work(estimated, UNDECIDED)
}

/// Of candidates, given with estimated cycles and work, the first with the least work among those within `undecided`, a share, of the fewest
/// cycles.
pub(super) fn least_work<V>(
    candidates: impl Iterator<Item = (V, f64, f64)>,
    undecided: f64,
) -> Option<V> {
    let candidates: Vec<(V, f64, f64)> = candidates.collect();
    let cycles = |(_, cycles, _): &(V, f64, f64)| *cycles;
    let fastest = candidates.iter().map(cycles).min_by(f64::total_cmp)?;
    candidates
        .into_iter()
        .filter(|candidate| cycles(candidate) <= fastest * (1.0 + undecided))
        .min_by(|(_, _, a), (_, _, b)| a.total_cmp(b))
        .map(|(candidate, _, _)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;
    use crate::launch::Gemv;
    use crate::layout::Layout;
    use proptest::prelude::*;

    /// An emulated device's capabilities with a GPU's multiprocessors, and its clocks and bus as a driver reports them.
    fn gpu(multiprocessors: u32, clock: u32, memory_clock: u32, bus_bits: u32) -> Capabilities {
        Capabilities {
            multiprocessors,
            clock_khz: Some(clock),
            memory_clock_khz: Some(memory_clock),
            memory_bus_bits: Some(bus_bits),
            ..Device::emulated().unwrap().capabilities().clone()
        }
    }

    fn h200() -> Capabilities {
        gpu(132, 1_980_000, 3_201_000, 6144)
    }

    fn t4() -> Capabilities {
        Capabilities {
            compute_capability: (7, 5),
            programmatic_launch: false,
            ..gpu(40, 1_590_000, 5_001_000, 256)
        }
    }

    /// Bytes of one token's product that the chosen variant has on their way to the busiest multiprocessor, or into L2 for it, after its first loads.
    fn in_flight(capabilities: &Capabilities, n: usize, k: usize) -> f64 {
        let shape = Gemv::choose(capabilities, Layout::Tiled, 1, n, k)
            .unwrap()
            .shape();
        let warps = warps_of_busiest(shape, capabilities, n);
        let loads = (first_steps(shape, k) * shape.tiles as usize * STEP_BYTES) as f64;
        let fetched = prefetched(shape, capabilities, k) as f64;
        warps * (loads + fetched / f64::from(shape.warps))
    }

    #[test]
    fn bandwidth_is_that_of_the_data_sheet() {
        // 4.8 TB/s and 320 GB/s.
        for (capabilities, bytes_a_second) in [(h200(), 4.8e12), (t4(), 320e9)] {
            let clock = f64::from(capabilities.clock_khz.unwrap()) * 1e3;
            let multiprocessors = f64::from(capabilities.multiprocessors);
            let found = dram_bytes(&capabilities) * clock * multiprocessors;
            assert!((found / bytes_a_second - 1.0).abs() < 0.03, "{found}");
        }
        let unknown = Device::emulated().unwrap();
        assert_eq!(dram_bytes(unknown.capabilities()), DRAM_BYTES);
    }

    /// The module's formulas, worked by hand.
    #[test]
    fn cycles_are_those_of_the_formulas() {
        // Bytes per cycle of all multiprocessors.
        let (h200_dram, t4_dram) = (
            2.0 * 3_201_000.0 * 768.0 / 1_980_000.0,
            2.0 * 5_001_000.0 * 32.0 / 1_590_000.0,
        );
        let check =
            |capabilities: &Capabilities, name, (n, k), dram: f64, busiest: f64, rest: [f64; 3]| {
                let weights = n as f64 * k as f64 / 4.0;
                let memory = 800.0 + (weights / dram).max(busiest);
                let [latency, issue, ends] = rest;
                let expected =
                    (memory.powf(2.0) + latency.powf(2.0) + issue.powf(2.0)).sqrt() + ends;
                let found = cycles(Gemv::named(name).unwrap().shape(), capabilities, n, k);
                assert!(
                    (found / expected - 1.0).abs() < 1e-9,
                    "{name} {n} x {k}: {found}, by hand {expected}"
                );
            };
        // 20 steps, 5 per warp; 864 blocks, 7 of them on the busiest of 132 multiprocessors: 28 warps. A warp's first batch of
        // three and the two steps beyond it are loaded together.
        check(
            &h200(),
            "gemv_m1_t1_w4",
            (13_824, 2560),
            h200_dram,
            28.0 * 5.0 * 512.0 / 64.0,
            [
                800.0 + 96.0 * 2.0,
                28.0 * (5.0 * 32.0 + 130.0) * 1.5 / 4.0,
                134.0 * 4.0,
            ],
        );
        // 32 steps per warp, ten batches and two steps. 27 steps come later, six at a time, 54 KiB of the tile: of its first 16 KiB, the 6 beyond the first
        // loads are prefetched.
        let later_latency = 800.0 - 500.0 * 6.0 / 54.0;
        for (n, warps) in [(2560, 8.0), (16, 4.0)] {
            check(
                &h200(),
                "gemv_m1_t1_w4",
                (n, 16_384),
                h200_dram,
                warps * 32.0 * 512.0 / 64.0,
                [
                    800.0 + 4.5 * later_latency + 5.5 * 96.0 * 2.0,
                    warps * (32.0 * 32.0 + 130.0) * 1.5 / 4.0,
                    134.0 * 4.0,
                ],
            );
        }
        // 8 steps per warp: the 3 later ones are all prefetched.
        check(
            &h200(),
            "gemv_m1_t1_w4",
            (2560, 4096),
            h200_dram,
            8.0 * 8.0 * 512.0 / 64.0,
            [
                800.0 + 0.5 * 300.0 + 1.5 * 96.0 * 2.0,
                8.0 * (8.0 * 32.0 + 130.0) * 1.5 / 4.0,
                134.0 * 4.0,
            ],
        );
        // Without early launches nothing is.
        check(
            &t4(),
            "gemv_m1_t1_w4",
            (2560, 16_384),
            t4_dram,
            16.0 * 32.0 * 512.0 / 64.0,
            [
                800.0 + 4.5 * 800.0 + 5.5 * 96.0 * 2.0,
                16.0 * (32.0 * 32.0 + 130.0) * 1.5 / 4.0,
                134.0 * 4.0,
            ],
        );
        // 64 registers per thread leave room for 32 warps: 52 are 1.6 waves.
        check(
            &t4(),
            "gemv_m1_t2_w1",
            (65_536, 256),
            t4_dram,
            52.0 * 2.0 * 2.0 * 512.0 / 64.0,
            [
                52.0 / 32.0 * (800.0 + 64.0 * 2.0),
                52.0 * (2.0 * 2.0 * 32.0 + 130.0) * 1.5 / 4.0,
                131.0 * 4.0,
            ],
        );
        // Eight tokens, 5 steps per warp: a batch of two and a step, and then another batch. 4 blocks of 8 warps on the busiest of 40 multiprocessors.
        check(
            &t4(),
            "gemv_m8_t2_w8",
            (4096, 4992),
            t4_dram,
            32.0 * 5.0 * 2.0 * 512.0 / 64.0,
            [
                800.0 + 1.0 * 800.0 + 2.0 * 128.0 * 2.0,
                32.0 * (10.0 * 32.0 + 130.0) * 1.5 / 4.0,
                138.0 * 4.0,
            ],
        );
        // Eight tokens are not prefetched: 32 steps per warp, 16 rounds.
        check(
            &h200(),
            "gemv_m8_t2_w8",
            (2560, 32_768),
            h200_dram,
            8.0 * 32.0 * 2.0 * 512.0 / 64.0,
            [
                800.0 + 15.0 * 800.0 + 16.0 * 128.0 * 2.0,
                8.0 * (64.0 * 32.0 + 130.0) * 1.5 / 4.0,
                138.0 * 4.0,
            ],
        );
        // 64 steps for 4 blocks of 8 warps each, which meet in the workspace, or 32 for 2.
        for (name, k) in [("gemv_m1_t1_w8_k4", 8192), ("gemv_m1_t1_w8_k2", 4096)] {
            check(
                &h200(),
                name,
                (512, k),
                h200_dram,
                8.0 * 2.0 * 512.0 / 64.0,
                [
                    800.0 + 96.0 * 2.0,
                    8.0 * (2.0 * 32.0 + 130.0) * 1.5 / 4.0,
                    138.0 * 4.0 + 1400.0,
                ],
            );
        }
        // Four splits of 8 warps have no use for less than 32 steps; the warps of one block may be left without one.
        let of = |name, steps: usize| {
            cycles(
                Gemv::named(name).unwrap().shape(),
                &h200(),
                512,
                128 * steps,
            )
        };
        assert_eq!(of("gemv_m1_t1_w8_k4", 31), f64::INFINITY);
        assert!(of("gemv_m1_t1_w8_k4", 32).is_finite());
        assert_eq!(of("gemv_m1_t1_w8_k2", 15), f64::INFINITY);
        assert!(of("gemv_m1_t1_w8_k2", 16).is_finite());
        assert!(of("gemv_m1_t1_w32", 1).is_finite());
    }

    /// Four blocks of 8 warps have more warps than one of 16, which is about as fast.
    #[test]
    fn the_warps_of_all_splits_count() {
        let (whole, split) = ("gemv_m8_t2_w16", "gemv_m8_t2_w8_k4");
        let (n, k) = (1280, 12_800);
        let of = |name| cycles(Gemv::named(name).unwrap().shape(), &h200(), n, k);
        assert!((of(whole) / of(split) - 1.0).abs() < UNDECIDED);
        let chosen = Gemv::choose(&h200(), Layout::Tiled, 8, n, k).unwrap();
        assert_eq!(chosen.name(), whole);
    }

    /// Little's law: what DRAM delivers in the time of its latency has to be on its way.
    #[test]
    fn faster_memory_has_more_in_flight() {
        for (n, k) in [(13824, 2560), (20480, 3200), (3200, 10_240), (8192, 32_768)] {
            let capabilities = h200();
            let needed = dram_bytes(&capabilities) * LATENCY;
            let found = in_flight(&capabilities, n, k);
            assert!(found > needed, "{n} x {k}: {found} of {needed}");
        }
        // As many bytes in all would be more for each of fewer multiprocessors.
        let of_all = |capabilities: &Capabilities| {
            in_flight(capabilities, 13824, 2560) * f64::from(capabilities.multiprocessors)
        };
        assert!(of_all(&t4()) < of_all(&h200()));
    }

    proptest! {
        /// None that the estimate cannot tell from the fastest has fewer warps.
        #[test]
        fn the_choice_is_nearly_the_fastest_with_the_fewest_warps(
            n in 1usize..100_000,
            k in (1usize..300).prop_map(|steps| steps * STEP_COLUMNS),
            m in 1usize..10,
        ) {
            for capabilities in [h200(), t4()] {
                let tokens = if m == 1 { 1 } else { 8 };
                let variants = || Gemv::all(Layout::Tiled).filter(|variant| variant.tokens() == tokens);
                let of = |variant: &Gemv| cycles(variant.shape(), &capabilities, n, k);
                let fastest = variants().map(|variant| of(&variant)).fold(f64::INFINITY, f64::min);
                let chosen = Gemv::choose(&capabilities, Layout::Tiled, m, n, k).unwrap();
                prop_assert_eq!(chosen.tokens(), tokens);
                prop_assert!(of(&chosen) <= 1.015 * fastest, "{}", chosen.name());
                let warps = |variant: &Gemv| variant.shape().warps * variant.shape().splits;
                for other in variants().filter(|variant| of(variant) < 1.0149 * fastest) {
                    prop_assert!(warps(&other) >= warps(&chosen), "{} {}", chosen.name(), other.name());
                }
            }
        }

        #[test]
        fn no_launch_is_faster_than_memory(
            n in 1usize..100_000,
            k in (1usize..300).prop_map(|steps| steps * STEP_COLUMNS),
            multiprocessors in 1u32..200,
        ) {
            for capabilities in [gpu(multiprocessors, 1_980_000, 3_201_000, 6144), gpu(multiprocessors, 1_590_000, 5_001_000, 256)] {
                for variant in Gemv::all(Layout::Tiled).chain(Gemv::all(Layout::Ladder)) {
                    let score = variant.score(&capabilities, n, k);
                    prop_assert!((0.0..1.0).contains(&score), "{}: {score}", variant.name());
                    let shape = variant.shape();
                    let slower = Capabilities {
                        memory_clock_khz: capabilities.memory_clock_khz.map(|khz| khz / 2),
                        ..capabilities.clone()
                    };
                    let here = cycles(shape, &capabilities, n, k);
                    prop_assert!(cycles(shape, &slower, n, k) >= here);
                    prop_assert!(cycles(shape, &capabilities, n + 16, k) >= here);
                    prop_assert!(cycles(shape, &capabilities, n, k + STEP_COLUMNS) >= here || here.is_infinite());
                }
            }
        }
    }
}
