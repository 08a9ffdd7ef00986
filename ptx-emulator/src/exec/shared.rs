//! A block's shared memory.

use super::access::{Direction, check_end, read_elements, used_bytes};
use super::block::Context;
use super::claims::Claims;
use super::lanes::{Row, lanes};
use super::race::{MemoryRequest, Races, check_shared};
use super::stats::Stats;
use super::stop::{Step, Stop};
use super::warp::Warp;
use crate::device::Launch;
use crate::fault::{FaultKind, Space};
use crate::isa::{Access, AccessSpace};

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) bytes: Vec<u8>,
    written: Vec<bool>,
    pub(crate) claims: Claims,
    pub(crate) races: Races,
}

impl Shared {
    pub(crate) fn new() -> Self {
        Self {
            bytes: Vec::new(),
            written: Vec::new(),
            claims: Claims::default(),
            races: Races::shared(),
        }
    }

    pub(crate) fn start(&mut self, launch: &Launch<'_>) {
        let size = launch.shared_bytes;
        self.bytes.clear();
        self.bytes.resize(size, 0xa5);
        self.written.clear();
        self.written.resize(size, false);
        self.claims.clear();
        self.races.start();
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

    /// What the bytes hold says nothing any more.
    pub(super) fn forget(&mut self, at: usize, bytes: usize) {
        self.written[at..at + bytes].fill(false);
    }

    /// Counts the bytes that an asynchronous copy brings.
    pub(crate) fn count_copy(&self, stats: &mut Stats, active: u32, bytes: usize) {
        let counters = &mut stats.counters.shared;
        let bytes = active.count_ones() as usize * bytes;
        counters.requests += 1;
        counters.wavefronts += bytes.div_ceil(128) as u64;
        counters.bytes_written += bytes as u64;
    }

    #[inline(always)]
    pub(crate) fn is_written(&self, at: usize, bytes: usize) -> bool {
        self.written[at..at + bytes].iter().all(|&written| written)
    }

    /// Whether those bytes were written that a load uses.
    #[inline(always)]
    fn are_used_written(&self, at: usize, bytes: usize, used: u32) -> bool {
        self.is_written(at, bytes)
            || (used != u32::MAX && used_bytes(used, bytes).all(|byte| self.written[at + byte]))
    }
}

/// Passes over the 32 banks that an access takes, and how many it would take without conflicts.
fn wavefronts(addresses: &Row, mask: u32, size: usize) -> (u64, u64) {
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

/// Bounds, claims, counts and races of a request to shared memory.
pub(super) fn prepare_shared(context: &mut Context<'_>, request: MemoryRequest<'_>) -> Step<()> {
    check_bounds(context, request)?;
    let MemoryRequest {
        addresses,
        active,
        size,
        ..
    } = request;
    let write = request.atomic || request.direction == Direction::Store;
    let races = context.checks.races;
    let claims = &context.block.shared.claims;
    claims.check(addresses, active, size, write, races)?;
    prepare_checked(context, request)
}

/// [`prepare_shared`] of bytes that may belong to a copy or an mbarrier.
pub(super) fn prepare_unclaimed(context: &mut Context<'_>, request: MemoryRequest<'_>) -> Step<()> {
    check_bounds(context, request)?;
    prepare_checked(context, request)
}

#[inline(always)]
fn check_bounds(context: &Context<'_>, request: MemoryRequest<'_>) -> Step<()> {
    let end = context.block.shared.bytes.len() as u64;
    let MemoryRequest {
        addresses,
        active,
        size,
        ..
    } = request;
    check_end(addresses, active, size, end, AccessSpace::Shared)
}

/// Counts and races of a request that is within bounds.
#[inline(always)]
fn prepare_checked(context: &mut Context<'_>, request: MemoryRequest<'_>) -> Step<()> {
    let MemoryRequest {
        addresses,
        active,
        size,
        used_bytes,
        atomic,
        direction,
        ..
    } = request;
    let (passes, ideal) = wavefronts(addresses, active, size);
    let counters = &mut context.stats.counters.shared;
    counters.requests += 1;
    counters.wavefronts += passes;
    counters.bank_conflicts += passes - ideal;
    let bytes = u64::from(active.count_ones()) * size as u64;
    if atomic || direction == Direction::Load {
        counters.bytes_read += bytes;
    }
    if atomic || direction == Direction::Store {
        counters.bytes_written += bytes;
    }
    context.stats.sites[context.site].conflicts += passes - ideal;
    if context.checks.initialization && (atomic || direction == Direction::Load) {
        for lane in lanes(active) {
            let at = addresses[lane] as usize;
            let shared = &context.block.shared;
            if !shared.are_used_written(at, size, used_bytes) {
                return Stop::access(
                    FaultKind::UninitializedMemory { size: size as u32 },
                    lane as u32,
                    Space::Shared,
                    addresses[lane],
                );
            }
        }
    }
    if !context.checks.races {
        return Ok(());
    }
    check_shared(context, request)
}

pub(super) fn load_shared(
    context: &mut Context<'_>,
    warp: &mut Warp,
    frame: usize,
    access: &Access,
    addresses: &Row,
    active: u32,
    size: usize,
) -> Step<()> {
    let direction = Direction::Load;
    let request = MemoryRequest::new(access, warp.index, addresses, active, size, direction);
    prepare_shared(context, request)?;
    let shared = &context.block.shared;
    read_elements(warp, frame, access, active, |lane, offset, bytes| {
        shared.load(addresses[lane] as usize + offset, bytes)
    });
    Ok(())
}
