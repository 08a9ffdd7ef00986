//! Kernels that cannot go on: every warp waits, or loops without changing anything.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use super::block::{Block, fault};
use super::lanes::lanes;
use super::stop::Stop;
use super::warp::{Split, Wait, Warp};
use crate::device::Launch;
use crate::fault::{Fault, FaultKind, WaitReason, Waiter};
use crate::isa::Op;

/// Finds that a warp is in a state that it was in before, and that nothing has changed since: it will never leave the loop.
///
/// States are compared at the ends of turns, with one that was kept after 1, 2, 4, 8, … turns, so any loop is found.
#[derive(Debug, Default, Clone)]
pub(super) struct Spin {
    /// Stores, atomics, arrivals and exits by anyone when this began.
    effects: u64,
    kept: Option<u64>,
    turns: u64,
    keep_for: u64,
    found: bool,
}

impl Spin {
    /// The warp has used up a turn.
    pub(super) fn observe(&mut self, effects: u64, warp: &Warp) {
        if self.effects != effects || self.keep_for == 0 {
            *self = Self {
                effects,
                keep_for: 1,
                ..Self::default()
            };
            return;
        }
        let state = state(warp);
        if self.kept == Some(state) {
            self.found = true;
            return;
        }
        self.turns += 1;
        if self.turns == self.keep_for || self.kept.is_none() {
            self.kept = Some(state);
            self.keep_for *= 2;
            self.turns = 0;
        }
    }

    pub(super) fn is_found(&self, effects: u64) -> bool {
        self.found && self.effects == effects
    }
}

/// Everything of a warp that decides what it does next, apart from memory.
fn state(warp: &Warp) -> u64 {
    let mut hasher = DefaultHasher::new();
    for split in &warp.splits {
        (split.pc, split.mask, split.frame, split.join).hash(&mut hasher);
    }
    for frame in &warp.frames {
        frame.depth.hash(&mut hasher);
        frame.rows.hash(&mut hasher);
        frame.preds.hash(&mut hasher);
        frame.params.hash(&mut hasher);
        frame.carry.hash(&mut hasher);
    }
    warp.exited.hash(&mut hasher);
    hasher.finish()
}

impl Block {
    /// Whether no warp can go on, or will ever do anything but loop.
    pub(super) fn is_stuck(&mut self, effects: u64) -> bool {
        self.warps
            .iter_mut()
            .zip(&self.spins)
            .all(|(warp, spin)| warp.is_done() || spin.is_found(effects) || !warp.can_run())
    }

    /// Nobody can go on: says why.
    pub(super) fn deadlock(&self, launch: &Launch<'_>, effects: u64) -> Box<Fault> {
        let (warp, split, kind) = self.cause(launch, effects);
        let lane = split.mask.trailing_zeros();
        let site = self.site(launch, warp, split);
        let stop = Stop {
            kind,
            lane,
            access: None,
        };
        let mut found = fault(launch, self.state.index, warp, site, stop);
        found.waiting = self.waiters(launch);
        found
    }

    fn site(&self, launch: &Launch<'_>, warp: usize, split: &Split) -> usize {
        let function = self.warps[warp].frames[split.frame as usize].function;
        launch.images[function as usize].first_site + split.pc as usize
    }

    /// The splits of all warps that a test accepts.
    fn splits(&self, accepts: impl Fn(&Wait) -> bool) -> impl Iterator<Item = (usize, &Split)> {
        self.warps
            .iter()
            .enumerate()
            .flat_map(|(index, warp)| warp.splits.iter().map(move |split| (index, split)))
            .filter(move |(_, split)| accepts(&split.wait))
    }

    /// Where the block is stuck, and how.
    fn cause(&self, launch: &Launch<'_>, effects: u64) -> (usize, &Split, FaultKind) {
        let loops = self
            .splits(|wait| matches!(wait, Wait::Nothing | Wait::Together(_)))
            .find(|(warp, _)| self.spins[*warp].is_found(effects));
        if let Some((warp, split)) = loops {
            return (warp, split, FaultKind::Deadlock);
        }
        // Lanes that wait for lanes of their own warp are the cause; warps at a barrier only wait for them.
        if let Some((index, split)) = self.splits(|wait| matches!(wait, Wait::Lanes(_))).next() {
            return (index, split, self.missing_lanes(launch, index, split));
        }
        for (index, split) in self.splits(|wait| matches!(wait, Wait::Barrier(_))) {
            if let Wait::Barrier(number) = split.wait {
                let barrier = self.state.barriers[usize::from(number)];
                let kind = FaultKind::BarrierNotReached {
                    barrier: number.into(),
                    arrived: barrier.arrived,
                    expected: barrier.expected.unwrap_or(0),
                };
                return (index, split, kind);
            }
        }
        unreachable!("a block that is stuck has a split that waits or loops")
    }

    fn missing_lanes(&self, launch: &Launch<'_>, index: usize, split: &Split) -> FaultKind {
        let warp = &self.warps[index];
        let Wait::Lanes(active) = split.wait else {
            return FaultKind::Deadlock;
        };
        let missing = lanes(active)
            .map(|lane| (warp.needed(1 << lane), warp.present(lane)))
            .find(|(needed, present)| needed & !present != 0);
        let Some((needed, present)) = missing else {
            return FaultKind::Deadlock;
        };
        let function = warp.frames[split.frame as usize].function;
        match launch.images[function as usize].function.code[split.pc as usize].op {
            Op::Barrier(_) => FaultKind::DivergentBarrier {
                active: present,
                expected: needed,
            },
            _ => FaultKind::InactiveLane {
                lane: (needed & !present).trailing_zeros(),
            },
        }
    }

    /// Who waits where.
    pub(super) fn waiters(&self, launch: &Launch<'_>) -> Vec<Waiter> {
        self.splits(|_| true)
            .map(|(warp, split)| {
                let function = self.warps[warp].frames[split.frame as usize].function;
                let function = launch.images[function as usize].function;
                let line = function.lines[split.pc as usize] as usize;
                let (file, source_line) = function.locations[split.pc as usize];
                Waiter {
                    block: self.state.index,
                    thread: launch.thread_index(warp as u32 * 32 + split.mask.trailing_zeros()),
                    threads: split.mask.count_ones(),
                    line,
                    instruction: launch.module.text(line).to_owned(),
                    source: launch
                        .module
                        .file(file)
                        .map(|file| (file.to_owned(), source_line as usize)),
                    reason: match split.wait {
                        Wait::Nothing | Wait::Together(_) => WaitReason::Memory,
                        Wait::Lanes(active) => {
                            WaitReason::Lanes(self.warps[warp].needed(active) & !active)
                        }
                        Wait::Barrier(number) => WaitReason::Barrier(number.into()),
                    },
                }
            })
            .collect()
    }
}
