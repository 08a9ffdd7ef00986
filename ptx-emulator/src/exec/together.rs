//! Lanes of a warp that wait for each other: at `.sync` instructions, and at barriers that a warp reaches as a whole.

use super::data::set_initialized;
use super::lanes::{Row, lanes, write_row};
use super::warp::{Frame, Split, Wait, Warp};
use crate::isa::Inst;

/// Where a lane meets others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Meeting {
    /// The instruction among those of all functions. Lanes may have come to it by different calls. `None` for
    /// `bar.warp.sync`, which lanes may execute anywhere.
    site: Option<usize>,
    /// The lanes that are to come, unless they exit.
    members: u32,
}

impl Frame {
    /// Takes the registers of some lanes from another frame of the same function.
    fn take_lanes(&mut self, from: &Self, mask: u32) {
        let masks = |into: &mut [u32], from: &[u32]| {
            for (into, from) in into.iter_mut().zip(from) {
                *into = (*into & !mask) | (from & mask);
            }
        };
        for (into, from) in self.rows.iter_mut().zip(&from.rows) {
            write_row(into, mask, from);
        }
        masks(&mut self.initialized, &from.initialized);
        masks(&mut self.preds, &from.preds);
        masks(&mut self.preds_initialized, &from.preds_initialized);
    }
}

impl Warp {
    fn is_ready(split: &Split) -> bool {
        matches!(split.wait, Wait::Nothing | Wait::Together(_))
    }

    /// The split to run next: the youngest that waits for nothing.
    pub(super) fn ready(&self) -> Option<usize> {
        self.splits.iter().rposition(Self::is_ready)
    }

    /// Whether any split can go on, after lanes that waited for each other were brought together.
    pub(super) fn can_run(&mut self) -> bool {
        self.ready().is_some() || self.release_meetings()
    }

    /// Makes lanes of a split wait for the `members` that each of them names.
    pub(super) fn wait_for(&mut self, at: usize, active: u32, site: Option<usize>, members: &Row) {
        for lane in lanes(active) {
            self.meetings[lane] = Meeting {
                site,
                members: members[lane] as u32,
            };
        }
        self.splits[at].wait = Wait::Lanes(active);
    }

    /// All lanes named by the masks of these waiting lanes, themselves included.
    pub(super) fn needed(&self, waiting: u32) -> u32 {
        let all = lanes(waiting).fold(0, |all, lane| all | self.meetings[lane].members);
        all & self.live()
    }

    /// The lanes that wait at the same place with the same mask as a waiting lane does, itself included.
    pub(super) fn present(&self, lane: usize) -> u32 {
        lanes(self.waiting())
            .filter(|&other| self.meetings[other] == self.meetings[lane])
            .fold(0, |present, other| present | 1 << other)
    }

    fn waiting(&self) -> u32 {
        self.splits.iter().fold(0, |all, split| match split.wait {
            Wait::Lanes(active) => all | active,
            _ => all,
        })
    }

    /// The waiting lanes that have met all that they wait for.
    fn complete(&self) -> u32 {
        let (mut complete, mut left) = (0, self.waiting());
        while left != 0 {
            let present = self.present(left.trailing_zeros() as usize);
            if self.needed(present) & !present == 0 {
                complete |= present;
            }
            left &= !present;
        }
        complete
    }

    /// Waiting lanes, with those that they meet. Lanes of one split stay together.
    fn company(&self, mut all: u32) -> u32 {
        loop {
            let met = lanes(all).fold(all, |met, lane| met | self.present(lane));
            let whole = self
                .splits
                .iter()
                .fold(met, |whole, split| match split.wait {
                    Wait::Lanes(active) if active & met != 0 => whole | active,
                    _ => whole,
                });
            if whole == all {
                return all;
            }
            all = whole;
        }
    }

    /// Lets lanes go on that have met all those they wait for, with the rest of their splits if possible.
    fn release_meetings(&mut self) -> bool {
        let complete = self.complete();
        if complete == 0 {
            return false;
        }
        let suffices = |company: u32| company & !complete == 0;
        if !self.bring_together(suffices) {
            self.part(self.present(complete.trailing_zeros() as usize));
            self.bring_together(suffices);
        }
        true
    }

    /// Lets all lanes go on that can. They need not wait until no other lane of the warp can run: one may run for ever, until one
    /// of these does something.
    pub(super) fn release_all_meetings(&mut self) {
        while self.release_meetings() {}
    }

    /// Lets lanes go on without those that they wait for.
    pub(super) fn stop_waiting(&mut self) -> bool {
        self.bring_together(|_| true)
    }

    fn bring_together(&mut self, suffices: impl Fn(u32) -> bool) -> bool {
        for at in 0..self.splits.len() {
            if let Wait::Lanes(active) = self.splits[at].wait {
                let company = self.company(active);
                if suffices(company) {
                    self.splits[at].wait = Wait::Together(company);
                    return true;
                }
            }
        }
        false
    }

    /// Takes waiting lanes out of splits in which others, with other members, have to wait longer.
    fn part(&mut self, group: u32) {
        for at in 0..self.splits.len() {
            let split = self.splits[at];
            let Wait::Lanes(active) = split.wait else {
                continue;
            };
            let (go, stay) = (active & group, active & !group);
            if go != 0 && stay != 0 {
                self.splits[at].mask &= !go;
                self.splits[at].wait = Wait::Lanes(stay);
                self.splits.push(Split {
                    mask: go,
                    wait: Wait::Lanes(go),
                    ..split
                });
            }
        }
    }

    /// The splits other than the one at `at` that were brought together with it: those of these lanes.
    pub(super) fn companions(&self, at: usize, together: u32) -> Vec<usize> {
        (0..self.splits.len())
            .filter(|&other| {
                let brought = match self.splits[other].wait {
                    Wait::Lanes(active) => active & together != 0,
                    _ => false,
                };
                other != at && brought
            })
            .collect()
    }

    /// The registers of all lanes that were brought together, where calls of their own have given them frames of their own.
    pub(super) fn registers(&self, at: usize, companions: &[usize]) -> Option<Frame> {
        let own = self.splits[at].frame;
        let mut all = None;
        for &other in companions {
            let Split { frame, mask, .. } = self.splits[other];
            if frame != own {
                // Not into the first frame itself: in a recursion, others have registers there that they come back to.
                all.get_or_insert_with(|| self.frames[own as usize].clone())
                    .take_lanes(&self.frames[frame as usize], mask);
            }
        }
        all
    }

    /// Gives the lanes that ran an instruction on [`Self::registers`] theirs back.
    pub(super) fn put_back(
        &mut self,
        at: usize,
        companions: &[usize],
        all: &Frame,
        inst: &Inst,
        executing: u32,
    ) {
        for &member in companions.iter().chain([&at]) {
            let split = self.splits[member];
            let (frame, ran) = (
                &mut self.frames[split.frame as usize],
                split.mask & executing,
            );
            frame.take_lanes(all, ran);
            // What was known of parts of the old value goes with it.
            let known = all.initialized[inst.dst as usize];
            set_initialized(frame, inst.dst, ran, known);
        }
    }
}
