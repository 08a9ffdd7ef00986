//! Norm, quantization and product of one token in one kernel: launcher, variant and grid.

use super::estimate::{LATENCY, SCHEDULERS, least_work};
use super::floats::Floats;
use super::{Float, Input, LaunchError, Norm, Output, activation, launch, row};
use crate::device::{Buffer, Capabilities, LaunchConfig, Stream};
use crate::layout::MAX_K;
use crate::reference::activation::Activation;
use kernels_gpu::gemv::normed::{self, Variant};
use kernels_gpu::gemv::{STEP_COLUMNS, TILE_ROWS};

/// Rows of weights with what belongs to them: all but `weights` as a [`BitLinear`](crate::ops::BitLinear) has it.
#[derive(Debug)]
pub(crate) struct NormedRows<'a, Y> {
    /// `Tiled`.
    pub weights: &'a Buffer<u8>,
    pub row_scale: &'a Buffer<f32>,
    pub bias: Option<&'a Buffer<f32>>,
    pub activation: Option<Activation>,
    pub residual: Option<&'a Buffer<Y>>,
    pub output: &'a mut Buffer<Y>,
}

/// Whether a block has room for the values of a token of `width` features.
pub(crate) fn takes_norm(capabilities: &Capabilities, width: usize) -> bool {
    let padded = width.next_multiple_of(STEP_COLUMNS);
    let limit = row::room(capabilities);
    padded <= limit as usize && normed::shared_bytes(padded as u32) <= limit
}

/// Instructions of a warp for the norm, and those before and after it: counted in sm_90 machine code, as is the next.
const NORM_INSTRUCTIONS: f64 = 360.0;

/// Instructions of a warp for a group: so many, and as many again for each tile.
const GROUP_INSTRUCTIONS: f64 = 70.0;

/// Cycles from the start of a block to the first product: a load, two reductions over the block and three divisions.
const NORM_CYCLES: f64 = 1200.0;

/// Cycles from a group's weights to its outputs.
const GROUP_CYCLES: f64 = 400.0;

/// Estimates that differ by less than this share count as equal.
const UNDECIDED: f64 = 0.05;

/// A launch of a variant.
#[derive(Clone, Copy)]
struct Plan {
    variant: &'static Variant,
    threads: u32,
    shared: u32,
    blocks: u32,
    /// Estimated duration in cycles.
    cycles: f64,
    /// Instructions of the busiest multiprocessor's warps, by warp of a block.
    instructions: f64,
}

impl Plan {
    /// The launches of a variant, by ascending number of blocks.
    fn all(
        capabilities: &Capabilities,
        variant: &'static Variant,
        n: usize,
        k_padded: usize,
    ) -> impl Iterator<Item = Self> {
        let threads = row::threads(k_padded);
        let needed = normed::shared_bytes(k_padded as u32);
        let room = row::room(capabilities) - needed;
        let shared = needed
            + variant
                .row
                .shared_bytes(k_padded, threads, normed::WIDE_IN_REGISTERS, room);
        let by_registers =
            capabilities.registers_per_multiprocessor / (normed::REGISTERS * threads);
        let by_threads = capabilities.max_threads_per_multiprocessor / threads;
        let by_shared =
            capabilities.shared_bytes_per_multiprocessor / (shared + row::FIXED_SHARED_BYTES);
        // A block that did not fit would be an error of the launch.
        let resident = by_registers.min(by_threads).min(by_shared).max(1);
        let groups = n.div_ceil(TILE_ROWS * variant.tiles as usize) as u32;
        (1..=resident).map(move |blocks_per_multiprocessor| {
            let blocks = groups.min(blocks_per_multiprocessor * capabilities.multiprocessors);
            let busiest = f64::from(blocks.div_ceil(capabilities.multiprocessors));
            let groups = f64::from(groups.div_ceil(blocks));
            let tiles = f64::from(variant.tiles);
            let instructions =
                busiest * (NORM_INSTRUCTIONS + groups * GROUP_INSTRUCTIONS * (1.0 + tiles));
            let warps = f64::from(threads / capabilities.warp_size);
            let issue = instructions * warps / SCHEDULERS;
            // A block loads the next group while it multiplies one.
            let waits = NORM_CYCLES + GROUP_CYCLES + (groups - 1.0) * LATENCY;
            Self {
                variant,
                threads,
                shared,
                blocks,
                cycles: issue.max(waits),
                instructions,
            }
        })
    }

    /// Of the variants that take the token, and of the numbers of blocks that the device can run at once, those with the shortest estimated
    /// duration; of several about equal ones, that with the fewest instructions. More blocks hide more latency, but each computes the norm for
    /// itself.
    fn choose(
        capabilities: &Capabilities,
        n: usize,
        width: usize,
        k_padded: usize,
        aligned: bool,
    ) -> Self {
        let takes = |variant: &&Variant| row::takes(&variant.row, width, k_padded, aligned);
        let first = normed::VARIANTS.iter().find(takes);
        let chunks = first.expect("the last variant takes any token").row.chunks;
        let plans = normed::VARIANTS
            .iter()
            .filter(takes)
            .filter(|variant| variant.row.chunks == chunks)
            .flat_map(|variant| Self::all(capabilities, variant, n, k_padded))
            .map(|plan| (plan, plan.cycles, plan.instructions));
        least_work(plans, UNDECIDED).expect("a variant has a plan")
    }
}

/// Normalizes `input`, one token, quantizes it and multiplies it with `[n, k]` weights. [`takes_norm`] is true for the width.
pub(crate) fn norm_gemv<X: Float, Y: Float>(
    stream: &Stream,
    norm: Norm<'_>,
    input: &Buffer<X>,
    rows: NormedRows<'_, Y>,
    n: usize,
) -> Result<(), LaunchError> {
    let k = norm.width;
    let k_argument = super::size("k", k, MAX_K)?;
    let n_argument = super::size("n", n, i32::MAX as usize)?;
    let k_padded = k.next_multiple_of(STEP_COLUMNS);
    let aligned = row::is_aligned(input);
    let plan = Plan::choose(stream.device().capabilities(), n, k, k_padded, aligned);
    let packed = n.next_multiple_of(TILE_ROWS) * k_padded / 4;
    let arguments = (
        Floats(Input::new("input", input, k)?),
        X::DTYPE as u32,
        norm.parameter("gamma", norm.gamma)?,
        norm.parameter("beta", norm.beta)?,
        norm.eps,
        norm.kind as u32,
        k_argument,
        Input::new("weights", rows.weights, packed)?,
        Input::new("row_scale", rows.row_scale, n)?,
        rows.bias
            .map(|bias| Input::new("bias", bias, n))
            .transpose()?,
        rows.residual
            .map(|residual| Input::new("residual", residual, n).map(Floats))
            .transpose()?,
        Floats(Output::new("output", rows.output, n)?),
        Y::DTYPE as u32,
        activation::kind_or_none(rows.activation),
        n_argument,
        k_padded as u32,
        u32::from(stream.launches_early()),
    );
    let config = LaunchConfig {
        grid: [plan.blocks, 1, 1],
        block: [plan.threads, 1, 1],
        dynamic_shared: plan.shared,
        cooperative: false,
    };
    // SAFETY: the variant takes the token with so many threads and so much shared memory; it touches `k` of the input, the
    // parameters and the rows.
    unsafe { launch(stream, plan.variant.row.entry, config, arguments) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;

    fn plan(n: usize, width: usize) -> (&'static str, u32) {
        let device = Device::emulated().unwrap();
        let plan = Plan::choose(
            device.capabilities(),
            n,
            width,
            width.next_multiple_of(STEP_COLUMNS),
            true,
        );
        (plan.variant.row.entry.name, plan.blocks)
    }

    #[test]
    fn a_multiprocessor_computes_the_norm_as_rarely_as_its_latency_allows() {
        let multiprocessors = Device::emulated().unwrap().capabilities().multiprocessors;
        // At most one block for each multiprocessor: all of them, rather than two tiles a block.
        assert_eq!(plan(1024, 2560), ("norm_gemv_c1_t1", 64));
        // More tiles than multiprocessors: one block with two tiles, not two blocks with one.
        assert_eq!(plan(2560, 2560), ("norm_gemv_c1_t2", 80));
        assert_eq!(plan(3840, 2560), ("norm_gemv_c1_t2", 120));
        // Several groups for each block, which computes the norm once.
        assert_eq!(plan(13824, 2560), ("norm_gemv_c1_t2", multiprocessors));
        // Few warps per block, each of which waits for memory with every group: up to four blocks per multiprocessor.
        assert_eq!(plan(16_384, 1024), ("norm_gemv_c1_t2", 512));
        assert_eq!(plan(2560, 2561).0, "norm_gemv_wide_t1");
        // The registers of a multiprocessor are those of 1024 threads.
        assert_eq!(plan(13824, 20480), ("norm_gemv_wide_t1", multiprocessors));
    }

    #[test]
    fn a_wide_token_is_kept_where_shared_memory_has_room_for_it() {
        let device = Device::emulated().unwrap();
        let wide = normed::VARIANTS.last().unwrap();
        for (k, chunks) in [(8320, 2), (27_648, 4), (65_536, 5)] {
            let plan = Plan::all(device.capabilities(), wide, 16, k)
                .next()
                .unwrap();
            let needed = normed::shared_bytes(k as u32);
            assert_eq!(plan.shared - needed, chunks * 32 * 1024, "{k}");
        }
    }

    #[test]
    fn a_token_has_to_fit_shared_memory() {
        let device = Device::emulated().unwrap();
        assert!(takes_norm(device.capabilities(), 65_536));
        assert!(!takes_norm(device.capabilities(), 1 << 18));
        assert!(!takes_norm(device.capabilities(), MAX_K));
    }
}
