//! The autotuner: measures the variants of an operation for a shape, and records the fastest.
//!
//! [`tune_gemv`] measures, [`TuneCache`] keeps results in a file, [`choose_gemv`] uses them. Every variant gives the same result,
//! bit for bit, so the choice affects only speed.

mod cache;
mod key;
mod measure;
mod model;
mod race;

pub use cache::{CACHE_VARIABLE, CacheError, TuneCache};
pub use key::{Cost, CostUnit, TuneKey};
pub use measure::{Candidate, TuneConfig, Tuning, tune_gemv};

use super::Gemv;
use crate::device::Device;
use crate::layout::Layout;
use kernels_gpu::gemv::{MAX_TOKENS, STEP_COLUMNS};

/// A chosen variant, and the reason.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    /// The variant.
    pub variant: Gemv,
    /// Why it was chosen.
    pub reason: Reason,
}

/// Why a variant was chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Reason {
    /// The caller named it.
    Caller,
    /// It was the fastest when measured on such a device, at this cost.
    Tuned(Cost),
    /// Nothing was measured for this shape; [`Gemv::choose`] chose it.
    Heuristic {
        /// Its [`Gemv::score`], in 0..=1.
        score: f64,
    },
}

/// The variant for `Tiled` weights `[n, k]` and `m` tokens: the measured one if `cache` has one that fits, else that of
/// [`Gemv::choose`]. `None` if no variant supports this K.
pub fn choose_gemv(
    device: &Device,
    cache: Option<&TuneCache>,
    (m, n, k): (usize, usize, usize),
) -> Option<Choice> {
    let table = cache.map(TuneCache::load).unwrap_or_default();
    choose_from(device, &table, m, n, k)
}

/// As [`choose_gemv`] for 1, 2, ... [`MAX_TOKENS`] tokens, with one look at the file.
pub(crate) fn choose_gemv_all(
    device: &Device,
    cache: Option<&TuneCache>,
    n: usize,
    k: usize,
) -> Option<[Choice; MAX_TOKENS]> {
    let table = cache.map(TuneCache::load).unwrap_or_default();
    let choices: Option<Vec<_>> = (1..=MAX_TOKENS)
        .map(|m| choose_from(device, &table, m, n, k))
        .collect();
    choices?.try_into().ok()
}

fn choose_from(
    device: &Device,
    table: &cache::Table,
    m: usize,
    n: usize,
    k: usize,
) -> Option<Choice> {
    if let Some(choice) = tuned(device, table, m, n, k) {
        return Some(choice);
    }
    let padded = k.checked_next_multiple_of(STEP_COLUMNS)?;
    let variant = Gemv::choose(device.capabilities(), Layout::Tiled, m, n, padded)?;
    let score = variant.score(device.capabilities(), n, padded);
    Some(Choice {
        variant,
        reason: Reason::Heuristic { score },
    })
}

fn tuned(device: &Device, table: &cache::Table, m: usize, n: usize, k: usize) -> Option<Choice> {
    if table.is_empty() {
        return None;
    }
    let key = TuneKey::gemv(device, m, n, k)?;
    let entry = table.get(&key)?;
    // The file may name anything, also where its key is right.
    let fits = Gemv::named(&entry.variant)
        .ok()
        .filter(|variant| variant.fits(key.m, key.k));
    if fits.is_none() {
        tracing::warn!(
            variant = entry.variant,
            ?key,
            "the tuning cache names a variant that does not fit; using the heuristic"
        );
    }
    Some(Choice {
        variant: fits?,
        reason: Reason::Tuned(entry.cost),
    })
}

#[cfg(test)]
mod tests;
