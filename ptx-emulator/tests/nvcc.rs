//! Kernels that nvcc compiled from CUDA C++ (`tests/cuda/`), on random data: each against a plain computation, with every check on.

mod harness;

use std::collections::BTreeMap;

use harness::{Arg, Bench};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use ptx_emulator::{Config, Fault, FaultKind, LaunchConfig, LaunchError, Report};

const REDUCTION: &str = include_str!("cuda/reduction.ptx");
const SCAN: &str = include_str!("cuda/scan.ptx");
const TRANSPOSE: &str = include_str!("cuda/transpose.ptx");
const MATMUL: &str = include_str!("cuda/matmul.ptx");
const HISTOGRAM: &str = include_str!("cuda/histogram.ptx");
const FILTER: &str = include_str!("cuda/filter.ptx");
const GRID_BARRIER: &str = include_str!("cuda/grid_barrier.ptx");

fn shape(grid: u32, block: u32) -> LaunchConfig {
    LaunchConfig {
        grid: [grid, 1, 1],
        block: [block, 1, 1],
        dynamic_shared: 0,
        cooperative: false,
    }
}

/// In ascending order on one core and on several, and in other orders.
fn configs() -> impl Iterator<Item = Config> {
    [(None, 1), (None, 3), (Some(1), 1), (Some(2), 1)]
        .into_iter()
        .map(|(seed, threads)| Config {
            seed,
            threads,
            ..Config::default()
        })
}

/// Some lists of random words.
fn random_words(lengths: std::ops::Range<usize>, cases: u32, test: impl Fn(Vec<u32>)) {
    let config = ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let words = proptest::collection::vec(any::<u32>(), lengths);
    TestRunner::new(config)
        .run(&words, |words| {
            test(words);
            Ok(())
        })
        .unwrap();
}

fn run(bench: &Bench, entry: &str, shape: LaunchConfig, args: &mut [Arg<'_>]) -> Report {
    match bench.run(entry, shape, args) {
        Ok(report) => report,
        Err(error) => panic!("{entry}: {error}"),
    }
}

fn fault(bench: &Bench, entry: &str, shape: LaunchConfig, args: &mut [Arg<'_>]) -> Fault {
    match bench.run(entry, shape, args) {
        Err(LaunchError::Fault(fault)) => *fault,
        other => panic!("{entry}: {other:?}"),
    }
}

/// The line of a source file that holds some text.
fn source_line(source: &str, text: &str) -> usize {
    let at = source.lines().position(|line| line.contains(text));
    1 + at.unwrap_or_else(|| panic!("no `{text}`"))
}

#[test]
fn reduction() {
    random_words(1..3000, 8, |mut input| {
        let total = input.iter().fold(0u32, |sum, &x| sum.wrapping_add(x));
        let count = input.len() as u32;
        for config in configs() {
            let bench = Bench::with(REDUCTION, config);
            let (mut partial, mut sum) = (vec![0; 7], vec![0]);
            let args = &mut [
                Arg::Words(&mut input),
                Arg::Fresh(&mut partial),
                Arg::U32(count),
            ];
            run(&bench, "block_sums", shape(7, 128), args);
            assert_eq!(partial.iter().fold(0u32, |a, &b| a.wrapping_add(b)), total);
            // The module's counter is back at 0 each time.
            let args = &mut [
                Arg::Words(&mut input),
                Arg::Fresh(&mut partial),
                Arg::Fresh(&mut sum),
                Arg::U32(count),
            ];
            for _ in 0..2 {
                run(&bench, "last_block_sum", shape(7, 128), args);
            }
            assert_eq!(sum, [total]);
        }
    });
}

/// Without its first fence, the last block reads what nothing orders before it.
#[test]
fn reduction_without_a_fence() {
    assert!(
        REDUCTION.contains("membar.gl;"),
        "what __threadfence becomes"
    );
    let broken = REDUCTION.replacen("membar.gl;", "", 1);
    let found = fault(
        &Bench::new(&broken),
        "last_block_sum",
        shape(4, 64),
        &mut [
            Arg::Words(&mut vec![1; 500]),
            Arg::Fresh(&mut vec![0; 4]),
            Arg::Fresh(&mut vec![0]),
            Arg::U32(500),
        ],
    );
    let FaultKind::GlobalRace { other } = &found.kind else {
        panic!("{found}");
    };
    let source = include_str!("cuda/reduction.cu");
    let sums = source.find("last_block_sum").unwrap();
    let skipped = source[..sums].lines().count() - 1;
    let line = |text| skipped + source_line(&source[sums..], text);
    let write = line("partial[blockIdx.x] = sum");
    assert_eq!(other.source, Some(("reduction.cu".into(), write)));
    let read = line("partial[threadIdx.x] : 0");
    assert_eq!(found.source, Some(("reduction.cu".into(), read)));
    assert_ne!(found.block, other.block);
}

#[test]
fn scan() {
    random_words(1024..1025, 6, |mut input| {
        for (config, block) in configs().zip([32, 256, 512, 1024]) {
            let mut output = vec![0; input.len()];
            let grid = input.len() as u32 / block;
            let bench = Bench::with(SCAN, config);
            let args = &mut [Arg::Words(&mut input), Arg::Fresh(&mut output)];
            run(&bench, "inclusive_scan", shape(grid, block), args);
            let expected = input.chunks(block as usize).flat_map(|block| {
                block.iter().scan(0u32, |sum, &x| {
                    *sum = sum.wrapping_add(x);
                    Some(*sum)
                })
            });
            assert_eq!(output, expected.collect::<Vec<_>>());
        }
    });
}

#[test]
fn transpose() {
    let (width, height) = (96, 64);
    let tiles = LaunchConfig {
        grid: [width / 32, height / 32, 1],
        block: [32, 8, 1],
        ..shape(1, 1)
    };
    let elements = (width * height) as usize;
    random_words(elements..elements + 1, 4, |mut input| {
        let blocks = u64::from(width / 32 * height / 32);
        for (entry, conflicts_a_load) in [("transpose_padded", 0), ("transpose_unpadded", 31)] {
            let mut output = vec![0; elements];
            let args = &mut [
                Arg::Words(&mut input),
                Arg::Fresh(&mut output),
                Arg::U32(width),
                Arg::U32(height),
            ];
            let report = run(&Bench::new(TRANSPOSE), entry, tiles, args);
            for y in 0..height as usize {
                for x in 0..width as usize {
                    let (from, to) = (y * width as usize + x, x * height as usize + y);
                    assert_eq!(output[to], input[from]);
                }
            }
            // Eight warps a block, each with four rows to store and four columns to load.
            let shared = report.counters.shared;
            assert_eq!(shared.requests, blocks * 8 * 8);
            assert_eq!(shared.bank_conflicts, blocks * 8 * 4 * conflicts_a_load);
            let global = report.counters.global;
            assert_eq!(global.load_sectors, elements as u64 / 8);
            assert_eq!(global.store_sectors, elements as u64 / 8);
            // The conflicts are those of the line that reads columns.
            let line = source_line(include_str!("cuda/transpose.cu"), "= tile[threadIdx.x]");
            let at = ("transpose.cu".to_owned(), line);
            let there = report
                .lines
                .iter()
                .filter(|counts| counts.source.as_ref() == Some(&at));
            assert_eq!(
                there.map(|counts| counts.bank_conflicts).sum::<u64>(),
                shared.bank_conflicts
            );
            let sources = report.sources();
            let there = sources
                .iter()
                .find(|counts| (&counts.file, counts.line) == (&at.0, at.1));
            assert_eq!(there.unwrap().bank_conflicts, shared.bank_conflicts);
        }
    });
}

/// Without its barrier, a thread reads what another one may not have written yet.
#[test]
fn transpose_without_a_barrier() {
    let (first, rest) = TRANSPOSE.split_once("transpose_unpadded").unwrap();
    let broken = format!(
        "{first}transpose_unpadded{}",
        rest.replace("bar.sync", "// bar.sync")
    );
    let tile = LaunchConfig {
        block: [32, 8, 1],
        ..shape(1, 1)
    };
    let args = &mut [
        Arg::Words(&mut vec![1; 1024]),
        Arg::Fresh(&mut vec![0; 1024]),
        Arg::U32(32),
        Arg::U32(32),
    ];
    // The race alone: what was not written yet is a finding of its own.
    let checks = ptx_emulator::Checks {
        initialization: false,
        ..ptx_emulator::Checks::ALL
    };
    let config = Config {
        checks,
        ..Config::default()
    };
    let found = fault(
        &Bench::with(&broken, config),
        "transpose_unpadded",
        tile,
        args,
    );
    let FaultKind::SharedRace { other } = &found.kind else {
        panic!("{found}");
    };
    let source = include_str!("cuda/transpose.cu");
    let lines = [
        source_line(source, "= input["),
        source_line(source, "= tile[threadIdx.x]"),
    ];
    let mut found_lines = [other.source.clone(), found.source.clone()].map(|at| at.unwrap().1);
    found_lines.sort_unstable();
    assert_eq!(found_lines, lines, "{found}");
}

#[test]
fn matmul() {
    for n in [1usize, 16, 21, 40] {
        random_words(2 * n * n..2 * n * n + 1, 2, |words| {
            // Small integers: every sum is exact, in any order.
            let value = |word: u32| (word % 17) as f32 - 8.0;
            let a: Vec<f32> = words[..n * n].iter().map(|&word| value(word)).collect();
            let b: Vec<f32> = words[n * n..].iter().map(|&word| value(word)).collect();
            let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<u32>>();
            let mut c = vec![0; n * n];
            let tiles = n.div_ceil(16) as u32;
            let tiled = LaunchConfig {
                grid: [tiles, tiles, 1],
                block: [16, 16, 1],
                ..shape(1, 1)
            };
            for config in configs() {
                let args = &mut [
                    Arg::Words(&mut bits(&a)),
                    Arg::Words(&mut bits(&b)),
                    Arg::Fresh(&mut c),
                    Arg::U32(n as u32),
                ];
                run(&Bench::with(MATMUL, config), "matmul", tiled, args);
                for row in 0..n {
                    for column in 0..n {
                        let sum: f32 = (0..n).map(|k| a[row * n + k] * b[k * n + column]).sum();
                        assert_eq!(f32::from_bits(c[row * n + column]), sum);
                    }
                }
            }
        });
    }
}

#[test]
fn histogram() {
    random_words(100..1000, 6, |words| {
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let mut expected = vec![0; 256];
        bytes
            .iter()
            .for_each(|&byte| expected[usize::from(byte)] += 1);
        for config in configs() {
            let mut bins = vec![0; 256];
            let count = bytes.len() as u32;
            let args = &mut [
                Arg::Bytes(&mut bytes),
                Arg::Words(&mut bins),
                Arg::U32(count),
            ];
            run(
                &Bench::with(HISTOGRAM, config),
                "histogram",
                shape(3, 96),
                args,
            );
            assert_eq!(bins, expected);
        }
    });
}

#[test]
fn filter() {
    random_words(1..2000, 8, |mut input| {
        let mut expected: Vec<u32> = input.iter().copied().filter(|x| x % 2 == 0).collect();
        expected.sort_unstable();
        for config in configs() {
            let (mut output, mut kept) = (vec![0; input.len()], vec![0]);
            let count = input.len() as u32;
            let args = &mut [
                Arg::Words(&mut input),
                Arg::Fresh(&mut output),
                Arg::Words(&mut kept),
                Arg::U32(count),
            ];
            let bench = Bench::with(FILTER, config);
            run(&bench, "filter_even", shape(count.div_ceil(128), 128), args);
            let mut found = output[..kept[0] as usize].to_vec();
            found.sort_unstable();
            assert_eq!(found, expected);
        }
    });
}

/// Cooperative groups' `grid.sync()`, as the CUDA headers have it.
#[test]
fn grid_barrier() {
    let (blocks, threads, steps) = (5, 64, 4);
    let count = (blocks * threads) as usize;
    let cooperative = LaunchConfig {
        cooperative: true,
        ..shape(blocks, threads)
    };
    random_words(count..count + 1, 3, |start| {
        let mut expected = start.clone();
        for _ in 0..steps {
            let at = |index: usize| expected[index % count];
            expected = (0..count)
                .map(|i| {
                    let twice = at(i).wrapping_mul(2);
                    at(i + count - 1)
                        .wrapping_add(twice)
                        .wrapping_add(at(i + 1))
                })
                .collect();
        }
        for config in configs() {
            let mut values = start.clone();
            let bench = Bench::with(GRID_BARRIER, config);
            let before = bench.device.memory_in_use();
            let args = &mut [
                Arg::Words(&mut values),
                Arg::Fresh(&mut vec![0; count]),
                Arg::U32(steps),
            ];
            run(&bench, "ring_steps", cooperative, args);
            assert_eq!(values, expected);
            assert_eq!(bench.device.memory_in_use(), before);
        }
    });
    // `cg::this_grid().sync()` traps where the launch is not cooperative.
    let found = fault(
        &Bench::new(GRID_BARRIER),
        "ring_steps",
        shape(blocks, threads),
        &mut [
            Arg::Words(&mut vec![0; count]),
            Arg::Fresh(&mut vec![0; count]),
            Arg::U32(1),
        ],
    );
    assert_eq!(found.kind, FaultKind::Trap);
    // An arrival that releases nothing is no barrier.
    let relaxed = GRID_BARRIER.replace("atom.add.release.gpu", "atom.add.relaxed.gpu");
    let found = fault(
        &Bench::new(&relaxed),
        "ring_steps",
        cooperative,
        &mut [
            Arg::Words(&mut vec![0; count]),
            Arg::Fresh(&mut vec![0; count]),
            Arg::U32(2),
        ],
    );
    assert!(
        matches!(found.kind, FaultKind::GlobalRace { .. }),
        "{found}"
    );
}

/// A source line is that of the CUDA file, in findings and in counts.
#[test]
fn source_lines() {
    let source = include_str!("cuda/scan.cu");
    let found = fault(
        &Bench::new(SCAN),
        "inclusive_scan",
        shape(2, 64),
        &mut [Arg::Words(&mut vec![0; 100]), Arg::Fresh(&mut vec![0; 128])],
    );
    let line = source_line(source, "int sum = input[at]");
    assert_eq!(found.source, Some(("scan.cu".into(), line)));
    assert_eq!((found.block, found.thread), ([1, 0, 0], [36, 0, 0]));

    let args = &mut [Arg::Words(&mut vec![0; 128]), Arg::Fresh(&mut vec![0; 128])];
    let report = run(&Bench::new(SCAN), "inclusive_scan", shape(2, 64), args);
    let mut sums: BTreeMap<(String, usize), u64> = BTreeMap::new();
    for counts in &report.lines {
        if let Some(at) = &counts.source {
            *sums.entry(at.clone()).or_default() += counts.warp_instructions;
        }
    }
    let sources = report.sources();
    assert_eq!(sources.len(), sums.len());
    for counts in &sources {
        let at = (counts.file.clone(), counts.line);
        assert_eq!(sums[&at], counts.warp_instructions, "{at:?}");
    }
    let loads = sources
        .iter()
        .find(|counts| counts.line == line && counts.file == "scan.cu");
    // 128 elements of 4 bytes.
    assert_eq!(loads.unwrap().sectors, 16);
}
