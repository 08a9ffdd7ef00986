//! Which accesses to shared memory are ordered.
//!
//! Every warp has a clock that ticks when it synchronises, and remembers how much of every other warp's past is ordered
//! before its own present (a vector clock). An access is ordered after an earlier one if the earlier one's tick is within
//! that. Lanes of one warp are not ordered by running in step: `bar.warp.sync` or a barrier orders them.

use super::lanes::lanes;

/// A conflict: the earlier access.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Conflict {
    pub(crate) site: u32,
    pub(crate) thread: u32,
    pub(crate) write: bool,
}

/// One access to a byte.
#[derive(Debug, Clone, Copy, Default)]
struct Record {
    /// Tick of the warp, 0 for none.
    tick: u32,
    site: u32,
    thread: u16,
    /// Atomic, volatile or stronger: two of these do not race.
    strong: bool,
    /// Several lanes of the warp did it in this tick.
    shared: bool,
}

/// The last accesses to a byte.
#[derive(Debug, Clone, Copy, Default)]
struct Shadow {
    write: Record,
    /// The last read, and the last one by another warp.
    reads: [Record; 2],
}

type Ticks = [u32; 32];

fn join(into: &mut Ticks, from: &Ticks) {
    for (into, from) in into.iter_mut().zip(from) {
        *into = (*into).max(*from);
    }
}

#[derive(Debug)]
pub(crate) struct Races {
    bytes: Vec<Shadow>,
    /// For each warp, the ticks of all warps that are ordered before it.
    seen: Vec<Ticks>,
    clock: Ticks,
    /// What release operations published.
    published: Ticks,
    /// For each warp, what its last fence covers, and what relaxed reads saw since.
    fenced: Vec<Ticks>,
    observed: Vec<Ticks>,
    /// Ticks up to here belong to earlier blocks.
    start: u32,
}

impl Races {
    pub(crate) fn new() -> Self {
        Self {
            bytes: Vec::new(),
            seen: Vec::new(),
            clock: [1; 32],
            published: [0; 32],
            fenced: Vec::new(),
            observed: Vec::new(),
            start: 0,
        }
    }

    /// Forgets everything, for a new block.
    pub(crate) fn start(&mut self, bytes: usize, warps: usize) {
        let start = self.clock.iter().copied().max().unwrap_or(1);
        if self.bytes.len() != bytes || start > u32::MAX / 2 {
            self.bytes.clear();
            self.bytes.resize(bytes, Shadow::default());
            self.start = 0;
        } else {
            self.start = start;
        }
        let initial = [self.start; 32];
        self.clock = [self.start + 1; 32];
        self.published = initial;
        for ticks in [&mut self.seen, &mut self.fenced, &mut self.observed] {
            ticks.clear();
            ticks.resize(warps, initial);
        }
    }

    /// Everything that a warp did or saw up to now.
    fn past(&self, warp: usize) -> Ticks {
        let mut past = self.seen[warp];
        past[warp] = self.clock[warp];
        past
    }

    fn tick(&mut self, warp: usize) {
        self.seen[warp][warp] = self.clock[warp];
        self.clock[warp] += 1;
    }

    /// `bar.warp.sync`.
    pub(crate) fn warp_sync(&mut self, warp: usize) {
        self.tick(warp);
    }

    /// A barrier between warps: those that wait see the past of all that arrived.
    pub(crate) fn barrier(&mut self, arrived: u32, waiting: u32) {
        let mut all = [0; 32];
        for warp in lanes(arrived) {
            join(&mut all, &self.past(warp));
        }
        for warp in lanes(arrived) {
            self.tick(warp);
        }
        for warp in lanes(waiting) {
            join(&mut self.seen[warp], &all);
        }
    }

    pub(crate) fn fence(&mut self, warp: usize) {
        self.fenced[warp] = self.past(warp);
        self.tick(warp);
        let observed = self.observed[warp];
        join(&mut self.seen[warp], &observed);
    }

    /// A strong write makes a release pattern visible; `release` is without a fence before it.
    pub(crate) fn publish(&mut self, warp: usize, release: bool) {
        let past = if release {
            self.past(warp)
        } else {
            self.fenced[warp]
        };
        join(&mut self.published, &past);
        if release {
            self.tick(warp);
        }
    }

    /// A strong read sees what was published, at once or after the next fence.
    pub(crate) fn observe(&mut self, warp: usize, acquire: bool) {
        let published = self.published;
        let into = if acquire {
            &mut self.seen[warp]
        } else {
            &mut self.observed[warp]
        };
        join(into, &published);
    }

    #[inline(always)]
    fn conflicts(&self, record: &Record, thread: u32, strong: bool) -> bool {
        if record.tick <= self.start || (record.strong && strong) {
            return false;
        }
        let (warp, other) = (thread as usize / 32, usize::from(record.thread) / 32);
        if self.seen[warp][other] >= record.tick {
            return false;
        }
        record.shared || u32::from(record.thread) != thread
    }

    /// Notes a read of some bytes, and returns the write that it races with.
    pub(crate) fn read(
        &mut self,
        address: usize,
        size: usize,
        thread: u32,
        site: u32,
        strong: bool,
    ) -> Option<Conflict> {
        let warp = thread as usize / 32;
        let tick = self.clock[warp];
        for at in address..address + size {
            let shadow = self.bytes[at];
            if self.conflicts(&shadow.write, thread, strong) {
                return Some(conflict(&shadow.write, true));
            }
            let [last, other] = shadow.reads;
            let same_warp = usize::from(last.thread) / 32 == warp;
            let same_tick = same_warp && last.tick == tick;
            let record = Record {
                tick,
                site,
                thread: thread as u16,
                strong: strong && (!same_tick || last.strong),
                shared: same_tick && (last.shared || u32::from(last.thread) != thread),
            };
            self.bytes[at].reads = if same_warp {
                [record, other]
            } else {
                [record, last]
            };
        }
        None
    }

    /// Notes a write of some bytes, and returns the access that it races with.
    pub(crate) fn write(
        &mut self,
        address: usize,
        size: usize,
        thread: u32,
        site: u32,
        strong: bool,
    ) -> Option<Conflict> {
        let warp = thread as usize / 32;
        let record = Record {
            tick: self.clock[warp],
            site,
            thread: thread as u16,
            strong,
            shared: false,
        };
        for at in address..address + size {
            let shadow = self.bytes[at];
            if self.conflicts(&shadow.write, thread, strong) {
                return Some(conflict(&shadow.write, true));
            }
            for read in &shadow.reads {
                if self.conflicts(read, thread, strong) {
                    return Some(conflict(read, false));
                }
            }
            self.bytes[at].write = record;
        }
        None
    }
}

fn conflict(record: &Record, write: bool) -> Conflict {
    Conflict {
        site: record.site,
        thread: record.thread.into(),
        write,
    }
}
