//! Norm, quantization and product of one token in one kernel: launcher, variant and grid.

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
    padded <= limit as usize
        && normed::VARIANTS.last().is_some_and(|last| {
            normed::shared_bytes(padded as u32, row::threads(padded), last.tiles) <= limit
        })
}

/// A launch of a variant.
#[derive(Clone, Copy)]
struct Plan {
    variant: &'static Variant,
    threads: u32,
    shared: u32,
    /// Groups of rows that the grid walks over.
    groups: u32,
    /// Blocks that the device can run at once.
    resident: u32,
}

impl Plan {
    fn new(
        capabilities: &Capabilities,
        variant: &'static Variant,
        n: usize,
        k_padded: usize,
    ) -> Self {
        let threads = row::threads(k_padded);
        let needed = normed::shared_bytes(k_padded as u32, threads, variant.tiles);
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
        let blocks = by_registers.min(by_threads).min(by_shared);
        Self {
            variant,
            threads,
            shared,
            groups: n.div_ceil(TILE_ROWS * variant.tiles as usize) as u32,
            resident: blocks * capabilities.multiprocessors,
        }
    }

    /// Of the variants that take the token, the one that takes the most rows at a time and still leaves each block several groups; else the
    /// one that takes the fewest.
    fn choose(
        capabilities: &Capabilities,
        n: usize,
        width: usize,
        k_padded: usize,
        aligned: bool,
    ) -> Self {
        const GROUPS_A_BLOCK: u32 = 2;
        let mut plans = normed::VARIANTS
            .iter()
            .filter(|variant| row::takes(&variant.row, width, k_padded, aligned))
            .map(|variant| Self::new(capabilities, variant, n, k_padded));
        let first = plans.next().expect("the last variant takes any token");
        plans
            .filter(|plan| plan.variant.row.chunks == first.variant.row.chunks)
            .rfind(|plan| plan.groups >= GROUPS_A_BLOCK * plan.resident)
            .unwrap_or(first)
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
    );
    let config = LaunchConfig {
        grid: [plan.groups.min(plan.resident), 1, 1],
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

    fn plan(n: usize, width: usize) -> (&'static str, u32, u32) {
        let device = Device::emulated().unwrap();
        let plan = Plan::choose(
            device.capabilities(),
            n,
            width,
            width.next_multiple_of(STEP_COLUMNS),
            true,
        );
        (
            plan.variant.row.entry.name,
            plan.groups.min(plan.resident),
            plan.groups,
        )
    }

    #[test]
    fn a_grid_is_what_the_device_can_run_at_once() {
        let processors = Device::emulated().unwrap().capabilities().multiprocessors;
        assert_eq!(plan(2560, 2560), ("norm_gemv_c1_t1", 160, 160));
        // Three blocks of 320 threads with 64 registers.
        assert_eq!(plan(13824, 2560), ("norm_gemv_c1_t1", 3 * processors, 864));
        assert_eq!(plan(55296, 2560), ("norm_gemv_c1_t2", 3 * processors, 1728));
        // Two tiles a group as soon as there are two groups for each block.
        let rows = 2 * 3 * processors as usize * 2 * TILE_ROWS;
        assert_eq!(plan(rows, 2560).0, "norm_gemv_c1_t2");
        assert_eq!(plan(rows - 2 * TILE_ROWS, 2560).0, "norm_gemv_c1_t1");
        assert_eq!(plan(2560, 2561).0, "norm_gemv_wide_t1");
        // The registers of a multiprocessor are those of 1024 threads.
        assert_eq!(plan(13824, 20480), ("norm_gemv_wide_t1", processors, 864));
    }

    #[test]
    fn a_wide_token_is_kept_where_shared_memory_has_room_for_it() {
        let device = Device::emulated().unwrap();
        let wide = normed::VARIANTS.last().unwrap();
        for (k, chunks) in [(8320, 2), (27_648, 4), (65_536, 4)] {
            let plan = Plan::new(device.capabilities(), wide, 16, k);
            let needed = normed::shared_bytes(k as u32, plan.threads, 1);
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
