//! What the integration tests share: the device under test, and random data with a printed seed.

use bitnet_cuda::device::Device;

/// The device that `BITNET_TEST_DEVICE` names (`cuda`, `cuda:<ordinal>`, `emulated`); the emulator where it is not set.
///
/// # Panics
/// When that device cannot be opened.
pub fn device() -> Device {
    let name = std::env::var("BITNET_TEST_DEVICE").unwrap_or_else(|_| "emulated".to_owned());
    Device::from_name(&name).unwrap_or_else(|error| panic!("BITNET_TEST_DEVICE={name}: {error}"))
}

/// A generator with a fresh seed, which is printed (and so shown where a test fails). `BITNET_TEST_SEED` repeats a run.
///
/// # Panics
/// When `BITNET_TEST_SEED` is not a number.
pub fn random() -> fastrand::Rng {
    let seed = match std::env::var("BITNET_TEST_SEED") {
        Ok(seed) => seed.parse().expect("BITNET_TEST_SEED is a number"),
        Err(_) => fastrand::u64(..),
    };
    println!("BITNET_TEST_SEED={seed}");
    fastrand::Rng::with_seed(seed)
}

/// `len` ternary weights.
pub fn ternary(random: &mut fastrand::Rng, len: usize) -> Vec<i8> {
    (0..len).map(|_| random.i8(-1..=1)).collect()
}

/// `len` int8 values, the whole range.
pub fn int8(random: &mut fastrand::Rng, len: usize) -> Vec<i8> {
    (0..len).map(|_| random.i8(..)).collect()
}

/// `len` floats in `-scale..scale`.
pub fn floats(random: &mut fastrand::Rng, len: usize, scale: f32) -> Vec<f32> {
    (0..len).map(|_| (random.f32() * 2.0 - 1.0) * scale).collect()
}
