//! Lanes of a warp that wait for each other: at `.sync` instructions, and at barriers that a warp reaches as a whole.

use super::warp::{Split, Wait, Warp};

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
        self.ready().is_some() || self.gather()
    }

    /// The lanes that are needed by those that wait at the instruction of a split, and those that are there.
    fn waiting_with(&self, leader: &Split) -> (u32, u32) {
        let live = self.live();
        let (mut all_needed, mut all_active) = (0, 0);
        for split in &self.splits {
            if let Wait::Lanes { needed, active } = split.wait
                && (split.frame, split.pc) == (leader.frame, leader.pc)
            {
                all_needed |= needed & live;
                all_active |= active;
            }
        }
        (all_needed, all_active)
    }

    /// Lets splits go on that wait at one instruction and together are all the lanes that it needs.
    fn gather(&mut self) -> bool {
        self.bring_together(|needed, active| needed & !active == 0)
    }

    /// Lets lanes go on without those that they wait for.
    pub(super) fn stop_waiting(&mut self) -> bool {
        self.bring_together(|_, _| true)
    }

    fn bring_together(&mut self, suffice: impl Fn(u32, u32) -> bool) -> bool {
        for at in 0..self.splits.len() {
            let leader = self.splits[at];
            if matches!(leader.wait, Wait::Lanes { .. }) {
                let (needed, active) = self.waiting_with(&leader);
                if suffice(needed, active) {
                    self.splits[at].wait = Wait::Together(active);
                    return true;
                }
            }
        }
        false
    }

    /// The splits other than the one at `at` that were brought together with it: those of these lanes.
    pub(super) fn companions(&self, at: usize, together: u32) -> Vec<usize> {
        let leader = self.splits[at];
        (0..self.splits.len())
            .filter(|&other| {
                let split = &self.splits[other];
                let waits = match split.wait {
                    Wait::Lanes { active, .. } => active & !together == 0,
                    _ => false,
                };
                other != at && waits && (split.frame, split.pc) == (leader.frame, leader.pc)
            })
            .collect()
    }
}
