//! A block's shared memory.

use super::lanes::{Row, lanes};
use super::race::Races;
use crate::device::Launch;

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) bytes: Vec<u8>,
    written: Vec<bool>,
    pub(crate) races: Races,
}

impl Shared {
    pub(crate) fn new() -> Self {
        Self {
            bytes: Vec::new(),
            written: Vec::new(),
            races: Races::new(),
        }
    }

    pub(crate) fn start(&mut self, launch: &Launch<'_>) {
        let size = launch.shared_bytes;
        self.bytes.clear();
        self.bytes.resize(size, 0xa5);
        self.written.clear();
        self.written.resize(size, false);
        if launch.config.checks.races {
            let warps = launch.threads().div_ceil(32) as usize;
            self.races.start(size, warps);
        }
    }

    #[inline(always)]
    pub(crate) fn load(&self, at: usize, bytes: usize) -> u64 {
        let mut value = [0; 8];
        value[..bytes].copy_from_slice(&self.bytes[at..at + bytes]);
        u64::from_le_bytes(value)
    }

    #[inline(always)]
    pub(crate) fn store(&mut self, at: usize, bytes: usize, value: u64) {
        self.bytes[at..at + bytes].copy_from_slice(&value.to_le_bytes()[..bytes]);
        self.written[at..at + bytes].fill(true);
    }

    #[inline(always)]
    pub(crate) fn is_written(&self, at: usize, bytes: usize) -> bool {
        self.written[at..at + bytes].iter().all(|&written| written)
    }
}

/// Passes over the 32 banks that an access takes, and how many it would take without conflicts.
pub(crate) fn wavefronts(addresses: &Row, mask: u32, size: usize) -> (u64, u64) {
    let words = size.div_ceil(4).max(1);
    let group = (32 / words).max(1);
    let (mut passes, mut ideal) = (0, 0);
    let mut first = 0;
    while first < 32 {
        let members = mask & (u32::MAX >> (32 - group)) << first;
        first += group;
        if members == 0 {
            continue;
        }
        ideal += 1;
        passes += group_passes(addresses, members, words as u64);
    }
    (passes, ideal)
}

/// Most distinct words in one bank.
fn group_passes(addresses: &Row, members: u32, words: u64) -> u64 {
    // Mostly no bank is asked for a second word.
    let mut first = [u64::MAX; 32];
    let mut conflict = false;
    for lane in lanes(members) {
        for word in addresses[lane] / 4..addresses[lane] / 4 + words {
            let known = &mut first[(word % 32) as usize];
            conflict |= *known != u64::MAX && *known != word;
            *known = word;
        }
    }
    if conflict {
        conflicting_passes(addresses, members, words)
    } else {
        1
    }
}

#[cold]
fn conflicting_passes(addresses: &Row, members: u32, words: u64) -> u64 {
    let mut seen = [[0u64; 32]; 32];
    let mut counts = [0usize; 32];
    for lane in lanes(members) {
        for word in addresses[lane] / 4..addresses[lane] / 4 + words {
            let bank = (word % 32) as usize;
            let known = &mut seen[bank];
            if !known[..counts[bank]].contains(&word) {
                known[counts[bank]] = word;
                counts[bank] += 1;
            }
        }
    }
    counts.into_iter().max().unwrap_or(0) as u64
}
