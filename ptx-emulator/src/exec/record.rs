//! An access to memory, as the race check remembers it.

use super::order::{COPIES, Order};
use super::shadow::SECTOR;

/// An access by a lane to a word or byte, or by several lanes to a sector.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Record {
    /// Tick of the warp, 0 for no access.
    pub(super) tick: u32,
    /// The number of the request, of those to this memory.
    pub(super) time: u32,
    pub(crate) block: u32,
    pub(crate) site: u32,
    /// The first one, where there are several.
    pub(crate) thread: u16,
    pub(super) flags: u16,
}

const WRITE: u16 = 1;
/// Reads, and atomics that give the old value.
const READ: u16 = 2;
/// Atomic, volatile or stronger.
const STRONG: u16 = 4;
/// Strong for all blocks, not only for its own.
const DEVICE: u16 = 8;
/// A copy that landed by itself, whatever its thread was doing.
const LANDED: u16 = 16;
/// A read of what must not change during the launch.
const NON_COHERENT: u16 = 32;
/// From this bit on, in two bits: the logarithm of the bytes of an element.
const ELEMENT: u16 = 6;
/// From this bit on: the logarithm of the bytes of each lane.
pub(super) const LANE_BYTES: u16 = 8;

/// What an access is, apart from who makes it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kind {
    pub(crate) read: bool,
    pub(crate) write: bool,
    pub(crate) strong: bool,
    pub(crate) device: bool,
    /// It is a copy that lands by itself.
    pub(crate) landed: bool,
    /// It reads what must not change during the launch.
    pub(crate) non_coherent: bool,
    /// Bytes of an element: those of a vector are accesses of their own.
    pub(crate) element: usize,
}

impl Record {
    pub(super) fn new(
        order: &Order,
        thread: u32,
        site: usize,
        kind: Kind,
        size: usize,
        time: u32,
    ) -> Self {
        let flag = |set: bool, flag: u16| if set { flag } else { 0 };
        let clock = if kind.landed {
            COPIES
        } else {
            thread as usize / 32
        };
        Self {
            tick: order.now(clock),
            time,
            block: order.block(),
            site: site as u32,
            thread: thread as u16,
            flags: flag(kind.read, READ)
                | flag(kind.write, WRITE)
                | flag(kind.strong, STRONG)
                | flag(kind.device, DEVICE)
                | flag(kind.landed, LANDED)
                | flag(kind.non_coherent, NON_COHERENT)
                | (kind.element.trailing_zeros().min(3) as u16) << ELEMENT
                | (size.trailing_zeros() as u16) << LANE_BYTES,
        }
    }

    pub(super) fn is_none(&self) -> bool {
        self.tick == 0
    }

    pub(crate) fn is_write(&self) -> bool {
        self.flags & WRITE != 0
    }

    /// An ordinary store, or an asynchronous copy.
    pub(super) fn is_weak_write(&self) -> bool {
        self.flags & (READ | WRITE | STRONG) == WRITE
    }

    pub(super) fn is_strong(&self) -> bool {
        self.flags & STRONG != 0
    }

    pub(crate) fn is_non_coherent(&self) -> bool {
        self.flags & NON_COHERENT != 0
    }

    /// Whether one of the two writes what the other one expects not to change, whatever orders them.
    pub(super) fn changes_read_only(&self, other: &Self) -> bool {
        (self.flags | other.flags) & (NON_COHERENT | WRITE) == NON_COHERENT | WRITE
    }

    pub(super) fn warp(&self) -> usize {
        usize::from(self.thread) / 32
    }

    /// Which of the block's ticks the access has: its warp's, or that of copies.
    pub(super) fn clock(&self) -> usize {
        if self.flags & LANDED != 0 {
            COPIES
        } else {
            self.warp()
        }
    }

    pub(super) fn is_subword(&self) -> bool {
        self.flags >> LANE_BYTES < 2
    }

    /// How many lanes it takes to access a sector.
    pub(super) fn sector_lanes(&self) -> u32 {
        SECTOR as u32 >> (self.flags >> LANE_BYTES)
    }

    /// The access, by one lane, to the bytes of a sector that start at an offset.
    pub(super) fn within_sector(mut self, offset: u16) -> Self {
        self.thread += offset >> (self.flags >> LANE_BYTES);
        self.flags &= (1 << LANE_BYTES) - 1;
        self
    }

    /// Whether the order of their threads puts this access before a later one. A copy that landed by itself is not in that order.
    pub(super) fn same_threads(&self, later: &Self) -> bool {
        self.flags & LANDED == 0
            && (self.block, self.thread, self.flags >> LANE_BYTES)
                == (later.block, later.thread, later.flags >> LANE_BYTES)
    }

    /// Whether the two race unless something orders them.
    pub(super) fn collides(&self, other: &Self) -> bool {
        (self.flags | other.flags) & WRITE != 0 && !self.is_strong_for(other)
    }

    /// Whether both are strong, with scopes that include each other, and overlap completely ("Morally Strong Operations").
    fn is_strong_for(&self, other: &Self) -> bool {
        let both = self.flags & other.flags;
        let wide = self.block == other.block || both & DEVICE != 0;
        both & STRONG != 0 && wide && self.wide_elements() == other.wide_elements()
    }

    /// Whether elements are larger than a word. Compilers make atomics of parts of a word from a `cas` of the word, and load the part
    /// alone, so parts count as the word.
    fn wide_elements(&self) -> bool {
        self.flags >> ELEMENT & 3 == 3
    }

    /// Whether elements that overlap are the same bytes.
    pub(super) fn same_elements(&self, other: &Self) -> bool {
        (self.flags ^ other.flags) >> ELEMENT & 3 == 0
    }

    /// Whether this access saw what an earlier one wrote, as strong accesses to one location do.
    pub(super) fn observes(&self, write: &Self) -> bool {
        self.flags & READ != 0
            && write.is_write()
            && self.is_strong_for(write)
            && self.time > write.time
    }

    /// Whether this access races with everything, of what is not ordered after it, that an access before it races with.
    pub(super) fn replaces(&self, earlier: &Self) -> bool {
        let less = self.flags & !earlier.flags & (STRONG | DEVICE) != 0
            || earlier.flags & !self.flags & NON_COHERENT != 0
            || self.is_strong() && self.wide_elements() != earlier.wide_elements();
        !less && (self.is_write() || !earlier.is_write())
    }
}
