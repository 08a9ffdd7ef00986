//! Counts of launches on the emulator.

use crate::operations::Operation;
use anyhow::Result;
use bitnet_cuda::device::{LaunchReport, Stream};
use kernel_benches::Counts;

/// Runs the operation once: what was counted in all its launches, and their kernels.
pub fn count(stream: &Stream, operation: &mut dyn Operation) -> Result<(Counts, Vec<String>)> {
    let (result, reports) = stream.device().profile(|| operation.launch(stream))?;
    result?;
    let counts = reports.iter().fold(Counts::default(), add);
    Ok((
        counts,
        reports.into_iter().map(|report| report.kernel).collect(),
    ))
}

fn add(sum: Counts, report: &LaunchReport) -> Counts {
    let counters = &report.counters;
    Counts {
        warp_instructions: sum.warp_instructions + counters.warp.total,
        lane_instructions: sum.lane_instructions + counters.lane.total,
        load_sectors: sum.load_sectors + counters.global.load_sectors,
        store_sectors: sum.store_sectors + counters.global.store_sectors,
        bytes_read: sum.bytes_read + counters.global.bytes_read,
        bytes_written: sum.bytes_written + counters.global.bytes_written,
        bank_conflicts: sum.bank_conflicts + counters.shared.bank_conflicts,
        divergent_branches: sum.divergent_branches + counters.divergent_branches,
    }
}
