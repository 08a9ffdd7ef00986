//! One operation: checked, then timed on a GPU or counted on the emulator.

use super::counts::count;
use super::timing::{Replay, Settings};
use crate::operations::{Check, Operation};
use anyhow::Result;
use bitnet_cuda::device::{DeviceKind, Stream};
use kernel_benches::{Case, Counts, Time};

/// The most sets of operands that are rotated.
const MAX_SETS: usize = 512;

/// How many sets of operands of `bytes` it takes to have `rotated` bytes, and two at least; none where that is too many.
pub fn sets_to_rotate(bytes: usize, rotated: usize) -> Option<usize> {
    Some(rotated.div_ceil(bytes.max(1)).max(1) + 1).filter(|&sets| sets <= MAX_SETS)
}

/// What was found out about an operation.
#[derive(Debug, Default)]
pub struct Measured {
    pub check: Check,
    pub kernels: Vec<String>,
    pub cold: Option<Time>,
    pub warm: Option<Time>,
    pub counts: Option<Counts>,
}

/// Checks the first of `sets` and, where it is right, measures: `cold` says whether all sets together exceed L2.
pub fn measure<O: Operation>(
    stream: &Stream,
    sets: &mut [O],
    cold: bool,
    settings: &Settings,
) -> Result<Measured> {
    if stream.device().kind() == DeviceKind::Emulated {
        let (counts, kernels) = count(stream, &mut sets[0])?;
        let check = sets[0].check()?;
        let counts = (check.mismatches == 0).then_some(counts);
        return Ok(Measured {
            check,
            kernels,
            counts,
            ..Measured::default()
        });
    }
    sets[0].launch(stream)?;
    let check = sets[0].check()?;
    if check.mismatches > 0 {
        return Ok(Measured {
            check,
            ..Measured::default()
        });
    }
    let warm = Replay::new(stream, &mut sets[..1], settings)?;
    let warm_time = warm.time(stream, settings)?;
    let cold = if cold {
        Some(Replay::new(stream, sets, settings)?.time(stream, settings)?)
    } else {
        None
    };
    // Once more, after everything that ran at full speed.
    let check = sets[0].check()?;
    let (cold, warm_time) = if check.mismatches == 0 {
        (cold, Some(warm_time))
    } else {
        (None, None)
    };
    Ok(Measured {
        check,
        kernels: warm.kernels(),
        cold,
        warm: warm_time,
        counts: None,
    })
}

/// The record of an operation; what only some have is left at none.
pub fn case(
    op: &str,
    (m, n, k): (usize, Option<usize>, usize),
    operation: &dyn Operation,
    measured: Measured,
) -> Case {
    Case {
        op: op.to_owned(),
        m,
        n,
        k,
        kernels: measured.kernels,
        chosen: true,
        best: false,
        checked: measured.check.checked,
        mismatches: measured.check.mismatches,
        bytes: operation.bytes(),
        operations: operation.operations(),
        cold: measured.cold,
        warm: measured.warm,
        bandwidth_fraction: None,
        counts: measured.counts,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotated_operands_exceed_the_cache_without_the_one_in_use() {
        assert_eq!(sets_to_rotate(10, 100), Some(11));
        assert_eq!(sets_to_rotate(200, 100), Some(2));
        assert_eq!(sets_to_rotate(1, MAX_SETS), None);
    }
}
