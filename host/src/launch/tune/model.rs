//! What the emulator's counts would cost on the GPU that it stands for: a model, for an order among variants of one kernel.
//!
//! ```text
//! cycles = max(issue, tensor, dram, l2, latency) + tail
//! issue  = max(warp instructions, 2 * integer ones, 2 * dp4a) / (4 * busy)     two pipes, each at half rate
//! tensor = 8 * mma / (4 * busy)                            m16n8k32: 4096 products, an A100's tensor core takes 512 per cycle
//! dram   = sum over buffers of min(sectors * 32, length) / (bytes per cycle and multiprocessor * multiprocessors)
//! l2     = all sectors * 32 / (64 * busy)
//! tail   = 4 * warp instructions / warps with a step of K  a last warp's dependent instructions
//! busy   = min(multiprocessors, blocks)
//! ```
//!
//! `latency` and the rates are those of the estimate without counts (`launch/estimate.rs`).

use super::super::Gemv;
use super::super::estimate::{
    self, DEPENDENT_ISSUE, L2_BYTES_PER_SM, PIPE_CYCLES, SCHEDULERS, dram_bytes,
};
use crate::device::{Capabilities, LaunchReport};

const MMA_CYCLES: f64 = 8.0;
const SECTOR: u64 = 32;

/// Model cycles of a launch of `variant` for `[n, k]` weights.
pub(super) fn cycles(
    capabilities: &Capabilities,
    report: &LaunchReport,
    variant: Gemv,
    (n, k): (usize, usize),
) -> f64 {
    let multiprocessors = f64::from(capabilities.multiprocessors);
    let blocks: f64 = report
        .config
        .grid
        .iter()
        .map(|&size| f64::from(size))
        .product();
    let threads: u32 = report.config.block.iter().product();
    let warps = blocks * f64::from(threads.div_ceil(capabilities.warp_size));
    // Others would only lower the mean.
    let working = warps * estimate::working_share(variant.shape(), k);
    let busy = multiprocessors.min(blocks);

    let instructions = &report.counters.warp;
    let of_busier_pipe = PIPE_CYCLES * instructions.integer.max(instructions.dp4a) as f64;
    let issue = of_busier_pipe.max(instructions.total as f64) / (SCHEDULERS * busy);
    let mma: u64 = report
        .lines
        .iter()
        .filter(|line| line.instruction.contains("mma.sync"))
        .map(|line| line.warp_instructions)
        .sum();
    let tensor = MMA_CYCLES * mma as f64 / (SCHEDULERS * busy);
    // What is read again comes from a cache.
    let compulsory: u64 = report
        .arguments
        .iter()
        .map(|argument| {
            (argument.sectors_read + argument.sectors_written)
                .saturating_mul(SECTOR)
                .min(argument.len as u64)
        })
        .sum();
    let dram = compulsory as f64 / (dram_bytes(capabilities) * multiprocessors);
    let l2 = (report.counters.global.sectors() * SECTOR) as f64 / (L2_BYTES_PER_SM * busy);
    let latency = estimate::latency_cycles(variant.shape(), capabilities, n, k);
    issue.max(tensor).max(dram).max(l2).max(latency)
        + DEPENDENT_ISSUE * instructions.total as f64 / working
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{Buffer, Device};
    use crate::layout::{Layout, PackedWeights};
    use crate::ops::{BitLinear, QuantizedActivations};
    use crate::reference::RowScales;

    const SIZES: (usize, usize) = (64, 512);

    /// The report of eight tokens' product, and what ran.
    fn report(device: &Device) -> (LaunchReport, Gemv) {
        let (m, (n, k)) = (8, SIZES);
        let packed = PackedWeights::pack(Layout::Tiled, &vec![1; n * k], n, k).unwrap();
        let scales = RowScales::per_tensor(n, 1.0).unwrap();
        let layer = BitLinear::from_packed(device, &packed, &scales).unwrap();
        let input = QuantizedActivations::from_values(device, &vec![1; m * k], &vec![1.0; m], m, k)
            .unwrap();
        let mut y = Buffer::<f32>::uninit(device, m * n).unwrap();
        let stream = device.default_stream();
        let (result, mut reports) = device
            .profile(|| layer.forward_quantized(&stream, &input, &mut y))
            .unwrap();
        result.unwrap();
        (reports.pop().unwrap(), layer.variant(m))
    }

    /// What issue, DRAM, L2 and the tail cost, worked by hand where each is the longest.
    #[test]
    fn cycles_are_those_of_the_formulas() {
        const MANY: u64 = 1 << 40;
        let device = Device::emulated().unwrap();
        let (mut plain, variant) = report(&device);
        // 20 blocks of 3 warps, on as many of the multiprocessors.
        (plain.config.grid, plain.config.block) = ([10, 2, 1], [40, 2, 1]);
        plain.lines.clear();
        plain.arguments.truncate(2);
        plain.counters = Default::default();
        let plain = plain;
        let cycles = |report: &LaunchReport| cycles(device.capabilities(), report, variant, SIZES);

        // Issued by four schedulers of 20 multiprocessors: one a cycle, or the busier pipe at half of that; and the last of 60 warps.
        for (integer, dp4a, issued) in [(3, 2, 10.0), (7, 2, 14.0), (3, 6, 12.0)] {
            let mut report = plain.clone();
            report.counters.warp.total = 10 * MANY;
            report.counters.warp.integer = integer * MANY;
            report.counters.warp.dp4a = dp4a * MANY;
            let expected = (issued / 80.0 + 4.0 * 10.0 / 60.0) * MANY as f64;
            assert!((cycles(&report) / expected - 1.0).abs() < 1e-9);
        }

        let mut report = plain.clone();
        let capabilities = device.capabilities();
        let dram = dram_bytes(capabilities) * f64::from(capabilities.multiprocessors);
        for (argument, sectors, len) in [(0, 5, 1 << 50), (1, 1 << 20, 96 * MANY)] {
            let argument = &mut report.arguments[argument];
            argument.len = len as usize;
            (argument.sectors_read, argument.sectors_written) = (sectors * MANY, MANY);
        }
        // Six sectors of the first buffer, and of the second, which is read again and again, its length.
        let expected = (6.0 * 32.0 + 96.0) * MANY as f64 / dram;
        assert!((cycles(&report) / expected - 1.0).abs() < 1e-9);

        let mut report = plain.clone();
        report.counters.global.load_sectors = 7 * MANY;
        let expected = 7.0 * 32.0 * MANY as f64 / (64.0 * 20.0);
        assert!((cycles(&report) / expected - 1.0).abs() < 1e-9);

        // More blocks than multiprocessors.
        report.config.grid = [1000, 1, 1];
        let expected = 7.0 * 32.0 * MANY as f64 / (64.0 * f64::from(capabilities.multiprocessors));
        assert!((cycles(&report) / expected - 1.0).abs() < 1e-9);
    }

    #[test]
    fn tensor_cores_can_be_what_a_launch_waits_for() {
        const MANY: u64 = 1_000_000;
        let device = Device::emulated().unwrap();
        let (before, variant) = report(&device);
        let mut after = before.clone();
        let is_mma = |line: &&mut ptx_emulator::LineCounts| line.instruction.contains("mma.sync");
        let lines = after.lines.iter_mut().filter(is_mma);
        let mut mma = 0;
        for line in lines {
            line.warp_instructions *= MANY;
            mma += line.warp_instructions;
        }
        assert!(mma > 0);
        let busy = f64::from(after.config.grid.iter().product::<u32>());
        let tensor = 8.0 * mma as f64 / (4.0 * busy);
        let (before, after) = (
            cycles(device.capabilities(), &before, variant, SIZES),
            cycles(device.capabilities(), &after, variant, SIZES),
        );
        // All but the tail, which is in both.
        assert!(
            after > tensor && after <= tensor + before,
            "{before} {after} {tensor}"
        );
    }
}
