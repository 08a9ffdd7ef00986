//! Two buffers that `cp.async` fills in turn, and what happens where a wait or a barrier is left out.

use crate::harness::{Arg, Bench, line};
use crate::{bytes_of, floats, random, run};
use ptx_emulator::{Config, FaultKind, LaunchConfig, LaunchError};

const PTX: &str = include_str!("../cuda/pipeline.ptx");

fn shape() -> LaunchConfig {
    LaunchConfig {
        grid: [3, 1, 1],
        ..line(128)
    }
}

#[test]
fn sums_of_neighbours() {
    // The last tile has 37 floats of 128.
    let (tiles, n) = (4usize, 11 * 128 + 37);
    let input: Vec<f32> = random(n, 9)
        .into_iter()
        .map(|bits| (bits >> 12) as f32)
        .collect();
    let mut data = bytes_of(&input, f32::to_le_bytes);
    let mut out = vec![0; 4 * n];
    run(
        PTX,
        "pipeline",
        shape(),
        vec![
            Arg::Bytes(&mut data),
            Arg::Bytes(&mut out),
            Arg::U32(n as u32),
            Arg::U32(tiles as u32),
        ],
    );
    for (at, got) in floats(&out).into_iter().enumerate() {
        // Past the end, the tile is filled with zeros.
        let neighbour = input.get(at ^ 1).copied().unwrap_or(0.0);
        assert_eq!(got, input[at] + neighbour, "{at}");
    }
}

/// Each wait of the pipeline, left out: somebody reads what has not arrived.
#[test]
fn a_missing_wait_is_found() {
    let n = 12 * 128;
    let launch = |ptx: &str| {
        let mut data = bytes_of(&vec![1.0f32; n], f32::to_le_bytes);
        Bench::with(ptx, Config::default()).run(
            "pipeline",
            shape(),
            &mut [
                Arg::Bytes(&mut data),
                Arg::Bytes(&mut vec![0; 4 * n]),
                Arg::U32(n as u32),
                Arg::U32(4),
            ],
        )
    };
    let report = launch(PTX).unwrap();
    let waits: Vec<usize> = report
        .lines
        .iter()
        .filter(|line| line.instruction.contains("cp.async.wait_group"))
        .map(|line| line.line)
        .collect();
    assert!(waits.len() > 1);
    for wait in waits {
        let mut lines: Vec<&str> = PTX.lines().collect();
        lines[wait - 1] = "";
        let Err(LaunchError::Fault(fault)) = launch(&lines.join("\n")) else {
            panic!("without the wait of line {wait} nothing is found");
        };
        assert_eq!(
            fault.kind,
            FaultKind::UnfinishedCopy { writes: true },
            "{fault}"
        );
        let file = fault.source.as_ref().map(|(file, _)| file.as_str());
        assert_eq!(file, Some("pipeline.cu"));
    }
}
