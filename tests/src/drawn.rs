//! Shapes and values for proptest to draw: those at which kernels change their way, and those at which rounding does.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

/// A runner that leaves no file behind; a failure prints what was drawn. `PROPTEST_CASES` overrides the number of cases.
pub fn runner(cases: u32) -> TestRunner {
    let config = Config::default();
    TestRunner::new(Config {
        cases: match std::env::var_os("PROPTEST_CASES") {
            Some(_) => config.cases,
            None => cases,
        },
        failure_persistence: None,
        ..config
    })
}

/// A size in `1..=limit`: any, a prime, a power of two or a neighbour of one.
pub fn size(limit: usize) -> impl Strategy<Value = usize> {
    let most = limit.ilog2();
    let primes: Vec<usize> = [2, 3, 5, 7, 31, 127, 131, 509, 1021, 2053, 4093]
        .into_iter()
        .filter(|&prime| prime <= limit)
        .chain([1])
        .collect();
    prop_oneof![
        1..=limit,
        prop::sample::select(primes),
        (0..=most, -1_i64..=1).prop_map(move |(exponent, off)| {
            let near = (1_i64 << exponent) + off;
            (near as usize).clamp(1, limit)
        }),
    ]
}

/// Values of a tensor.
#[derive(Clone, Copy, Debug)]
pub enum Values {
    /// A few units.
    Ordinary,
    /// Below the normal range of f32.
    Subnormal,
    /// One magnitude, both signs.
    EqualMagnitudes,
    /// Quantized with the scale 1, each is the middle between two integers.
    Ties,
}

impl Values {
    /// One of them.
    pub fn any() -> impl Strategy<Value = Self> {
        prop_oneof![
            Just(Self::Ordinary),
            Just(Self::Subnormal),
            Just(Self::EqualMagnitudes),
            Just(Self::Ties),
        ]
    }

    /// `rows` tokens of `width` such values.
    pub fn of(self, random: &mut fastrand::Rng, rows: usize, width: usize) -> Vec<f32> {
        let magnitude = 4.0 * random.f32();
        (0..rows * width)
            .map(|index| {
                let sign = if random.bool() { 1.0 } else { -1.0 };
                sign * match self {
                    Self::Ordinary => 3.0 * random.f32(),
                    Self::Subnormal => f32::from_bits(random.u32(..0x0080_0000)),
                    Self::EqualMagnitudes => magnitude,
                    // The largest magnitude of each token, 127, makes its scale 1.
                    Self::Ties if index % width == 0 => 127.0,
                    Self::Ties => random.u8(..126) as f32 + 0.5,
                }
            })
            .collect()
    }
}
