//! Whether an access races with those that are kept of its place, and which of them are kept.

use super::{Cell, Others, Shadow};
use crate::exec::between::{MOST_OTHERS, keep_most, outermost};
use crate::exec::order::Order;
use crate::exec::record::Record;

#[derive(Clone, Copy)]
enum Verdict {
    /// The earlier access need not be kept.
    Drop,
    Keep,
    /// Of the same warp and tick and of the same kind, by another lane.
    Twin,
    Race,
}

/// What noting an access comes to.
pub(super) enum Noted {
    Fine,
    Race(Record),
    /// It takes a look at the parts of the place to tell.
    Unclear,
}

/// Lanes whose store changes nothing, so that it does not matter which of several comes last.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SameValue {
    /// They write what is in memory.
    pub(crate) earlier: u32,
    /// They write what each lower lane of the request that has the same address writes.
    pub(crate) own: u32,
}

impl SameValue {
    /// Whether two stores by threads of one block that nothing orders write the same. `several` where the new one is to a sector.
    #[cold]
    fn is_harmless(self, old: &Record, new: &Record, several: bool) -> bool {
        let same = if old.time == new.time {
            self.own
        } else {
            self.earlier
        };
        let count = if several { new.sector_lanes() } else { 1 };
        let lanes = (u32::MAX >> (32 - count)) << (new.thread % 32);
        let alike = old.same_elements(new) && old.is_weak_write() && new.is_weak_write();
        old.block == new.block && alike && lanes & !same == 0
    }
}

impl Shadow {
    #[inline(always)]
    fn judge(others: Others, old: &Record, new: &Record, order: &Order) -> Verdict {
        if old.is_none() {
            return Verdict::Drop;
        }
        if old.block != new.block {
            match others {
                Others::Stale => return Verdict::Drop,
                Others::Unordered => return Verdict::Keep,
                Others::Ordered => {}
            }
        }
        if old.changes_read_only(new) {
            return Verdict::Race;
        }
        if old.same_threads(new) || order.is_before(old.block, old.clock(), old.tick, new.warp()) {
            return if new.replaces(old) {
                Verdict::Drop
            } else {
                Verdict::Keep
            };
        }
        if old.collides(new) {
            return Verdict::Race;
        }
        let twin = (old.block, old.warp(), old.tick, old.flags)
            == (new.block, new.warp(), new.tick, new.flags);
        if twin { Verdict::Twin } else { Verdict::Keep }
    }

    /// Notes an access to a place. `several` where the place is a sector.
    #[inline(always)]
    pub(super) fn note(
        &mut self,
        cell: &mut Cell,
        new: Record,
        order: &Order,
        several: bool,
    ) -> Noted {
        // Lanes of one warp may share some bytes of the sector and not others.
        let unclear = |old: &Record| several && old.block == new.block && old.warp() == new.warp();
        let mut twins = 0;
        let before = *cell;
        for slot in &mut cell.slots {
            let mut verdict = Self::judge(self.others, slot, &new, order);
            if matches!(verdict, Verdict::Race) {
                let list = match before.more {
                    0 => &[],
                    more => self.lists[more as usize - 1].as_slice(),
                };
                let known = before.slots.iter().chain(list);
                verdict = judge_observed(known, slot, &new, order);
            }
            match verdict {
                Verdict::Drop => *slot = Record::default(),
                Verdict::Keep => {}
                Verdict::Twin => twins += 1,
                Verdict::Race if unclear(slot) => return Noted::Unclear,
                Verdict::Race if self.same.is_harmless(slot, &new, several) => {}
                Verdict::Race => return Noted::Race(*slot),
            }
        }
        if cell.more != 0 {
            return self.note_in_list(cell, &before.slots, new, order, several, twins);
        }
        // Whoever races with a third lane races with one of two.
        if twins == 2 && !several {
            return Noted::Fine;
        }
        match cell.slots.iter_mut().find(|slot| slot.is_none()) {
            Some(slot) => *slot = new,
            None => cell.more = self.new_list(vec![new]),
        }
        Noted::Fine
    }

    fn note_in_list(
        &mut self,
        cell: &mut Cell,
        slots: &[Record],
        new: Record,
        order: &Order,
        several: bool,
        mut twins: u32,
    ) -> Noted {
        let (others, same) = (self.others, self.same);
        let list = &mut self.lists[cell.more as usize - 1];
        let mut unordered = Vec::new();
        let mut strong = Vec::new();
        list.retain(|old| {
            let verdict = Self::judge(others, old, &new, order);
            match verdict {
                Verdict::Twin => twins += 1,
                Verdict::Race => unordered.push(*old),
                Verdict::Drop if old.is_strong() => strong.push(*old),
                Verdict::Drop | Verdict::Keep => {}
            }
            !matches!(verdict, Verdict::Drop)
        });
        for old in unordered {
            let known = slots.iter().chain(&strong).chain(&*list);
            match judge_observed(known, &old, &new, order) {
                Verdict::Drop => list.retain(|record| *record != old),
                Verdict::Race if several && old.block == new.block && old.warp() == new.warp() => {
                    return Noted::Unclear;
                }
                Verdict::Race if same.is_harmless(&old, &new, several) => {}
                Verdict::Race => return Noted::Race(old),
                Verdict::Keep | Verdict::Twin => {}
            }
        }
        if twins < 2 || several {
            match cell.slots.iter_mut().find(|slot| slot.is_none()) {
                Some(slot) => *slot = new,
                None => list.push(new),
            }
        }
        if list.len() > 2 * MOST_OTHERS {
            match others {
                Others::Stale => {}
                Others::Unordered => *list = outermost(list, Some(new.block)),
                Others::Ordered => keep_most(list, new.block),
            }
        }
        if list.is_empty() {
            self.free.push(cell.more);
            cell.more = 0;
        }
        Noted::Fine
    }
}

/// Whether one of the accesses that are known saw what `old` wrote and comes before `new`: then `old` does as well (PTX ISA,
/// "Causality Order"), though nothing else of its thread's past does.
#[cold]
fn judge_observed<'a>(
    mut known: impl Iterator<Item = &'a Record>,
    old: &Record,
    new: &Record,
    order: &Order,
) -> Verdict {
    let comes_before = |access: &Record| {
        (access.block == new.block && access.warp() == new.warp())
            || order.is_before(access.block, access.warp(), access.tick, new.warp())
    };
    if old.changes_read_only(new)
        || !known.any(|access| !access.is_none() && access.observes(old) && comes_before(access))
    {
        Verdict::Race
    } else if new.replaces(old) {
        Verdict::Drop
    } else {
        Verdict::Keep
    }
}
