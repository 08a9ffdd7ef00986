//! Counts of launches on the emulator.

use crate::operations::Operation;
use anyhow::Result;
use bitnet_cuda::device::Stream;
use kernel_benches::Counts;
use ptx_emulator::Counters;

/// Runs the operation once: what was counted in all its launches, and their kernels.
pub fn count(stream: &Stream, operation: &mut dyn Operation) -> Result<(Counts, Vec<String>)> {
    let (result, reports) = stream.device().profile(|| operation.launch(stream))?;
    result?;
    let mut counters = Counters::default();
    for report in &reports {
        counters += report.counters;
    }
    let counts = Counts {
        warp_instructions: counters.warp.total,
        lane_instructions: counters.lane.total,
        load_sectors: counters.global.load_sectors,
        store_sectors: counters.global.store_sectors,
        bytes_read: counters.global.bytes_read,
        bytes_written: counters.global.bytes_written,
        bank_conflicts: counters.shared.bank_conflicts,
        divergent_branches: counters.divergent_branches,
    };
    Ok((
        counts,
        reports.into_iter().map(|report| report.kernel).collect(),
    ))
}
