//! Kernels that nvcc compiled, each against a plain computation. `cuda/README.md` says how their PTX is made.

#[path = "../harness/mod.rs"]
mod harness;

mod arithmetic;
mod control;
mod matrix;
mod pipeline;

use harness::{Arg, Bench, EACH_CHECK_OFF};
use ptx_emulator::{Checks, Config, LaunchConfig, Report};

/// Orders in which to run, and what is checked: everything, or all but one kind.
fn configs() -> Vec<Config> {
    let orders = [None, Some(1), Some(2), Some(3)].map(|seed| (seed, Checks::ALL));
    let others = EACH_CHECK_OFF.map(|checks| (None, checks));
    orders
        .into_iter()
        .chain(others)
        .map(|(seed, checks)| Config {
            seed,
            checks,
            ..Config::default()
        })
        .collect()
}

/// Runs a kernel in ascending order and in orders of some seeds, and with each check off, which must all come to the same.
pub fn run(ptx: &str, entry: &str, shape: LaunchConfig, mut args: Vec<Arg<'_>>) -> Report {
    let before: Vec<_> = args
        .iter()
        .map(|arg| match arg {
            Arg::Bytes(bytes) => (*bytes).clone(),
            _ => Vec::new(),
        })
        .collect();
    let mut outcome: Option<(Vec<Vec<u8>>, Report)> = None;
    for config in configs() {
        let (seed, checks) = (config.seed, config.checks);
        for (arg, before) in args.iter_mut().zip(&before) {
            if let Arg::Bytes(bytes) = arg {
                bytes.clone_from(before);
            }
        }
        let report = Bench::with(ptx, config)
            .run(entry, shape, &mut args)
            .unwrap_or_else(|error| panic!("{entry}, seed {seed:?}, {checks:?}: {error}"));
        let after: Vec<Vec<u8>> = args
            .iter()
            .map(|arg| match arg {
                Arg::Bytes(bytes) => (*bytes).clone(),
                _ => Vec::new(),
            })
            .collect();
        match &outcome {
            None => outcome = Some((after, report)),
            Some((known, _)) => {
                assert!(
                    *known == after,
                    "{entry}: seed {seed:?} with {checks:?} gives another result"
                );
            }
        }
    }
    outcome.expect("it ran").1
}

/// The bytes of some values, one after the other.
pub fn bytes_of<T: Copy, const N: usize>(values: &[T], bytes: impl Fn(T) -> [u8; N]) -> Vec<u8> {
    values.iter().flat_map(|&value| bytes(value)).collect()
}

/// Bytes as 32-bit words.
pub fn words(bytes: &[u8]) -> Vec<u32> {
    bytes
        .chunks_exact(4)
        .map(|chunk| u32::from_le_bytes(chunk.try_into().unwrap()))
        .collect()
}

/// Bytes as `f32`.
pub fn floats(bytes: &[u8]) -> Vec<f32> {
    words(bytes).into_iter().map(f32::from_bits).collect()
}

/// Numbers that are the same in every run.
pub fn random(count: usize, seed: u32) -> Vec<u32> {
    let mut state = seed | 1;
    (0..count)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state
        })
        .collect()
}
