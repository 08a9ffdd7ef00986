//! What is ordered before what: vector clocks over the warps of all blocks.
//!
//! Every warp has a clock, which goes on when the warp synchronises, and knows how much of every other warp's past is ordered
//! before its own present. An access is ordered after an earlier one if the earlier one's tick is within that. Warps of a block
//! learn of each other at barriers. Any two warps learn of each other through a location that one of them writes in a release
//! pattern and the other reads in an acquire pattern (PTX ISA, "Release and Acquire Patterns"). A location carries what was
//! released to it until a store replaces it; a read-modify-write adds to it.
//!
//! Lanes of one warp are not ordered by running in step: `bar.warp.sync` or a barrier orders them.

use std::collections::HashMap;
use std::ops::{Index, IndexMut};
use std::sync::Arc;

use super::lanes::lanes;
use crate::isa::{Fence, Scope};

/// Where the ticks have that of the block's copies to shared memory that landed by themselves: they are ordered by what waits for
/// them, not by what the warps that issued them do in the meantime.
pub(super) const COPIES: usize = 32;

/// A tick for each warp of a block, and for its copies.
#[derive(Debug, Clone, Copy)]
struct Ticks([u32; COPIES + 1]);

impl Default for Ticks {
    fn default() -> Self {
        Self([0; COPIES + 1])
    }
}

impl Index<usize> for Ticks {
    type Output = u32;

    fn index(&self, warp: usize) -> &u32 {
        &self.0[warp]
    }
}

impl IndexMut<usize> for Ticks {
    fn index_mut(&mut self, warp: usize) -> &mut u32 {
        &mut self.0[warp]
    }
}

fn join(into: &mut Ticks, from: &Ticks) {
    for (into, from) in into.0.iter_mut().zip(&from.0) {
        *into = (*into).max(*from);
    }
}

fn includes(ticks: &Ticks, other: &Ticks) -> bool {
    ticks.0.iter().zip(&other.0).all(|(a, b)| a >= b)
}

/// How much of a block's past is known.
type BlockPast = (u32, Arc<Ticks>);

/// How much of each block's past is known: blocks in ascending order. Most are shared between many warps.
#[derive(Debug, Clone, Default)]
pub(crate) struct Past(Option<Arc<Vec<BlockPast>>>);

impl Past {
    fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    fn blocks(&self) -> &[BlockPast] {
        self.0.as_ref().map_or(&[], |blocks| blocks)
    }

    fn of(&self, block: u32) -> Option<&Ticks> {
        let blocks = self.blocks();
        let at = blocks.binary_search_by_key(&block, |known| known.0).ok()?;
        Some(&blocks[at].1)
    }

    fn join(&mut self, other: &Self) {
        let (Some(ours), Some(theirs)) = (&self.0, &other.0) else {
            if self.is_empty() {
                self.clone_from(other);
            }
            return;
        };
        if Arc::ptr_eq(ours, theirs) {
            return;
        }
        let mut merged = Vec::with_capacity(ours.len().max(theirs.len()));
        let (mut left, mut right) = (ours.iter().peekable(), theirs.iter().peekable());
        loop {
            let next = match (left.peek(), right.peek()) {
                (None, None) => break,
                (Some(a), Some(b)) if a.0 == b.0 => {
                    let both = (a.0, newer(&a.1, &b.1));
                    left.next();
                    right.next();
                    both
                }
                (Some(a), Some(b)) if a.0 > b.0 => {
                    let b = (*b).clone();
                    right.next();
                    b
                }
                (Some(a), _) => {
                    let a = (*a).clone();
                    left.next();
                    a
                }
                (None, Some(b)) => {
                    let b = (*b).clone();
                    right.next();
                    b
                }
            };
            merged.push(next);
        }
        self.0 = Some(Arc::new(merged));
    }
}

fn newer(a: &Arc<Ticks>, b: &Arc<Ticks>) -> Arc<Ticks> {
    if Arc::ptr_eq(a, b) || includes(a, b) {
        Arc::clone(a)
    } else if includes(b, a) {
        Arc::clone(b)
    } else {
        let mut both = **a;
        join(&mut both, b);
        Arc::new(both)
    }
}

/// What a location carries from the writes that released to it.
#[derive(Debug)]
struct Released {
    /// Block and warp of the last store.
    writer: (u32, usize),
    /// For readers in any block.
    device: Past,
    /// For readers in one block only, where fence or write had no wider scope.
    within: Vec<(u32, Past)>,
}

/// Locations, by word, that a release pattern has written to.
#[derive(Debug, Default)]
pub(crate) struct Locations(HashMap<u64, Released>);

impl Locations {
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

/// A strong write, as far as order goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StrongWrite {
    pub(crate) scope: Scope,
    pub(crate) release: bool,
    /// It reads the location as well, so what the location carries stays.
    pub(crate) read_modify_write: bool,
}

#[derive(Debug, Default)]
struct WarpOrder {
    /// Ticks of this block's warps that are ordered before this warp.
    seen: Ticks,
    /// The same of other blocks.
    others: Past,
    /// What the last fences cover, of any scope and of device scope.
    fenced: Past,
    fenced_device: Past,
    /// What relaxed reads saw since the last fence, written by this block and by any.
    observed: Past,
    observed_device: Past,
}

/// Order among the warps of a block, and what they know of other blocks.
#[derive(Debug, Default)]
pub(crate) struct Order {
    block: u32,
    clock: Ticks,
    warps: Vec<WarpOrder>,
    /// Whether any warp has executed a fence that releases.
    fences: bool,
}

impl Order {
    pub(crate) fn start(&mut self, block: u32, warps: usize) {
        self.block = block;
        self.clock = Ticks([1; COPIES + 1]);
        self.warps.clear();
        self.warps.resize_with(warps, WarpOrder::default);
        self.fences = false;
    }

    pub(crate) fn block(&self) -> u32 {
        self.block
    }

    pub(crate) fn now(&self, warp: usize) -> u32 {
        self.clock[warp]
    }

    /// Whether all that a warp did up to a tick is ordered before what another warp does now.
    #[inline(always)]
    pub(crate) fn is_before(&self, block: u32, warp: usize, tick: u32, now: usize) -> bool {
        let known = &self.warps[now];
        if block == self.block {
            known.seen[warp] >= tick
        } else {
            known
                .others
                .of(block)
                .is_some_and(|ticks| ticks[warp] >= tick)
        }
    }

    /// Everything that a warp did or knows.
    fn past(&self, warp: usize) -> Past {
        let known = &self.warps[warp];
        let mut own = known.seen;
        own[warp] = self.clock[warp];
        let mut past = Past(Some(Arc::new(vec![(self.block, Arc::new(own))])));
        past.join(&known.others);
        past
    }

    /// What a warp has done and knows when it issues something asynchronous. What it does from here on is not part of that.
    pub(crate) fn issue(&mut self, warp: usize) -> Past {
        let past = self.past(warp);
        self.clock[warp] += 1;
        past
    }

    /// What happened asynchronously after some past is there for those who look at a location of this block: that past, and
    /// the copies that have landed.
    pub(crate) fn publish_landed(
        &mut self,
        locations: &mut Locations,
        word: u64,
        warp: usize,
        mut past: Past,
    ) {
        let mut landed = Ticks::default();
        landed[COPIES] = self.clock[COPIES];
        self.clock[COPIES] += 1;
        past.join(&Past(Some(Arc::new(vec![(self.block, Arc::new(landed))]))));
        let write = StrongWrite {
            scope: Scope::Block,
            release: true,
            read_modify_write: true,
        };
        self.carry(locations, word, warp, write, (past, Past::default()));
    }

    /// A warp has waited for copies of its own, of which the last one landed at a tick.
    pub(crate) fn learn_landed(&mut self, warp: usize, tick: u32) {
        let known = &mut self.warps[warp].seen[COPIES];
        *known = (*known).max(tick);
    }

    /// `bar.warp.sync`.
    pub(crate) fn warp_sync(&mut self, warp: usize) {
        self.warps[warp].seen[warp] = self.clock[warp];
        self.clock[warp] += 1;
    }

    /// A barrier between warps: those that wait learn the past of all that arrived.
    pub(crate) fn barrier(&mut self, arrived: u32, waiting: u32) {
        let (mut all, mut others) = (Ticks::default(), Past::default());
        for warp in lanes(arrived) {
            join(&mut all, &self.warps[warp].seen);
            all[warp] = self.clock[warp];
            others.join(&self.warps[warp].others);
        }
        for warp in lanes(arrived) {
            self.warp_sync(warp);
        }
        for warp in lanes(waiting) {
            join(&mut self.warps[warp].seen, &all);
            self.warps[warp].others.join(&others);
        }
    }

    pub(crate) fn fence(&mut self, warp: usize, fence: Fence) {
        // What it learns it passes on.
        if fence.acquire {
            let observed = std::mem::take(&mut self.warps[warp].observed);
            self.learn(warp, &observed);
            if fence.scope == Scope::Device {
                let observed = std::mem::take(&mut self.warps[warp].observed_device);
                self.learn(warp, &observed);
            }
        }
        if fence.release {
            self.fences = true;
            let past = self.past(warp);
            // What the warp does from here on is not covered. Its lanes stay unordered among themselves.
            self.clock[warp] += 1;
            let known = &mut self.warps[warp];
            known.fenced = past.clone();
            if fence.scope == Scope::Device {
                known.fenced_device = past;
            }
        }
    }

    fn learn(&mut self, warp: usize, past: &Past) {
        let known = &mut self.warps[warp];
        if let Some(own) = past.of(self.block) {
            join(&mut known.seen, own);
        }
        if past.blocks().iter().any(|(block, _)| *block != self.block) {
            known.others.join(past);
        }
    }

    /// A strong write by a warp.
    pub(crate) fn publish(
        &mut self,
        locations: &mut Locations,
        word: u64,
        warp: usize,
        write: StrongWrite,
    ) {
        if !write.release && !self.fences && locations.0.is_empty() {
            return;
        }
        let (any, device) = if write.release {
            let past = self.past(warp);
            self.clock[warp] += 1;
            (past.clone(), past)
        } else {
            let known = &self.warps[warp];
            (known.fenced.clone(), known.fenced_device.clone())
        };
        let device = match write.scope {
            Scope::Device => device,
            Scope::Block => Past::default(),
        };
        self.carry(locations, word, warp, write, (any, device));
    }

    /// A location carries pasts: one for readers in this block, and one for those in any.
    fn carry(
        &mut self,
        locations: &mut Locations,
        word: u64,
        warp: usize,
        write: StrongWrite,
        (any, device): (Past, Past),
    ) {
        let writer = (self.block, warp);
        let known = locations.0.entry(word).or_insert_with(|| Released {
            writer,
            device: Past::default(),
            within: Vec::new(),
        });
        if !write.read_modify_write && known.writer != writer {
            known.device = Past::default();
            known.within.clear();
        }
        known.writer = writer;
        let same = match (&any.0, &device.0) {
            (Some(any), Some(device)) => Arc::ptr_eq(any, device),
            (any, _) => any.is_none(),
        };
        known.device.join(&device);
        if !same {
            match known
                .within
                .iter_mut()
                .find(|(block, _)| *block == self.block)
            {
                Some((_, within)) => within.join(&any),
                None => known.within.push((self.block, any)),
            }
        }
        if known.device.is_empty() && known.within.is_empty() {
            locations.0.remove(&word);
        }
    }

    /// A strong read by a warp.
    pub(crate) fn observe(
        &mut self,
        locations: &Locations,
        word: u64,
        warp: usize,
        acquire: bool,
        scope: Scope,
    ) {
        if locations.0.is_empty() {
            return;
        }
        let Some(released) = locations.0.get(&word) else {
            return;
        };
        let within = released
            .within
            .iter()
            .find(|(block, _)| *block == self.block);
        let device = Some(&released.device)
            .filter(|_| scope == Scope::Device || released.writer.0 == self.block);
        if acquire {
            for past in [within.map(|(_, past)| past), device].into_iter().flatten() {
                self.learn(warp, past);
            }
        } else {
            let known = &mut self.warps[warp];
            if let Some((_, past)) = within {
                known.observed.join(past);
            }
            if let Some(past) = device {
                known.observed_device.join(past);
                if released.writer.0 == self.block {
                    known.observed.join(past);
                }
            }
        }
    }
}
