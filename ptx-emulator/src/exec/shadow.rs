//! The accesses to each byte that a later access could race with.
//!
//! For each place in memory, a list of accesses of which none makes another one superfluous: an earlier access is dropped when a
//! later one, by the same thread or ordered after it, races with everything that the earlier one would race with. So the list holds
//! one access mostly, and is complete. A place is a sector of 32 bytes while consecutive lanes access it as a whole, each
//! the same number of bytes; otherwise a word; and a byte where words are accessed in parts.

use std::collections::HashMap;

use super::lanes::{Row, lanes};
use super::order::Order;

/// Bytes of a sector.
const SECTOR: u64 = 32;
/// Sectors of a page.
const PAGE: usize = 128;

/// An access by a lane to a word or byte, or by several lanes to a sector.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Record {
    /// Tick of the warp, 0 for no access.
    tick: u32,
    pub(crate) block: u32,
    pub(crate) site: u32,
    /// The first one, where there are several.
    pub(crate) thread: u16,
    flags: u16,
}

const WRITE: u16 = 1;
/// Atomic, volatile or stronger.
const STRONG: u16 = 2;
/// Strong for all blocks, not only for its own.
const DEVICE: u16 = 4;
/// From this bit on: the logarithm of the bytes of each lane.
const LANE_BYTES: u16 = 3;

/// What an access is, apart from who makes it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kind {
    pub(crate) write: bool,
    pub(crate) strong: bool,
    pub(crate) device: bool,
}

impl Record {
    fn new(order: &Order, thread: u32, site: usize, kind: Kind, size: usize) -> Self {
        let flag = |set: bool, flag: u16| if set { flag } else { 0 };
        Self {
            tick: order.now(thread as usize / 32),
            block: order.block(),
            site: site as u32,
            thread: thread as u16,
            flags: flag(kind.write, WRITE)
                | flag(kind.strong, STRONG)
                | flag(kind.device, DEVICE)
                | (size.trailing_zeros() as u16) << LANE_BYTES,
        }
    }

    fn is_none(&self) -> bool {
        self.tick == 0
    }

    pub(crate) fn is_write(&self) -> bool {
        self.flags & WRITE != 0
    }

    fn warp(&self) -> usize {
        usize::from(self.thread) / 32
    }

    fn is_subword(&self) -> bool {
        self.flags >> LANE_BYTES < 2
    }

    /// The access, by one lane, to the bytes of a sector that start at an offset.
    fn within_sector(mut self, offset: u16) -> Self {
        self.thread += offset >> (self.flags >> LANE_BYTES);
        self.flags &= (1 << LANE_BYTES) - 1;
        self
    }

    fn same_threads(&self, other: &Self) -> bool {
        (self.block, self.thread, self.flags >> LANE_BYTES)
            == (other.block, other.thread, other.flags >> LANE_BYTES)
    }

    /// Whether the two race unless something orders them.
    fn collides(&self, other: &Self) -> bool {
        let both = self.flags & other.flags;
        let wide = self.block == other.block || both & DEVICE != 0;
        (self.flags | other.flags) & WRITE != 0 && !(both & STRONG != 0 && wide)
    }

    /// Whether this access races with everything, of what is not ordered after it, that an access before it races with.
    fn replaces(&self, earlier: &Self) -> bool {
        let stronger = self.flags & !earlier.flags & (STRONG | DEVICE) != 0;
        !stronger && (self.is_write() || !earlier.is_write())
    }
}

/// What becomes of accesses by other blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Others {
    /// They are of blocks that are over, and this memory was theirs.
    Stale,
    /// Nothing orders blocks: the first and the last one to read and to write are kept, for the end of the launch.
    Unordered,
    /// They race unless something orders them.
    Ordered,
}

/// Accesses of other blocks that are kept in each direction where more are unordered.
const MOST_OTHERS: usize = 8;

/// Accesses to one place.
#[derive(Debug, Clone, Copy, Default)]
struct Cell {
    slots: [Record; 2],
    /// 0: nothing else. [`DIVIDED`] and an index: the parts have cells of their own. Otherwise: an index, plus 1, of a list.
    more: u32,
}

const DIVIDED: u32 = 1 << 31;

impl Cell {
    fn parts(&self) -> Option<usize> {
        (self.more & DIVIDED != 0).then_some((self.more & !DIVIDED) as usize)
    }
}

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
enum Noted {
    Fine,
    Race(Record),
    /// It takes a look at the parts of the place to tell.
    Unclear,
}

#[derive(Debug)]
struct Page {
    number: u64,
    cells: Box<[Cell; PAGE]>,
    written: bool,
}

/// An access that races with an earlier one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Race {
    pub(crate) earlier: Record,
    pub(crate) lane: usize,
    pub(crate) address: u64,
}

/// Two accesses of blocks that nothing orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BlockRace {
    pub(crate) address: u64,
    pub(crate) earlier: Record,
    pub(crate) later: Record,
}

/// A warp's request.
#[derive(Clone, Copy)]
pub(crate) struct Request<'a> {
    pub(crate) warp: u32,
    pub(crate) addresses: &'a Row,
    pub(crate) active: u32,
    pub(crate) size: usize,
    pub(crate) site: usize,
    pub(crate) kind: Kind,
}

/// The accesses to one memory.
#[derive(Debug)]
pub(crate) struct Shadow {
    others: Others,
    pages: Vec<Page>,
    index: HashMap<u64, usize>,
    /// The page used last.
    last: usize,
    lists: Vec<Vec<Record>>,
    free: Vec<u32>,
    sectors: Vec<[Cell; 8]>,
    words: Vec<[Cell; 4]>,
}

impl Shadow {
    pub(crate) fn new(others: Others) -> Self {
        Self {
            others,
            pages: Vec::new(),
            index: HashMap::new(),
            last: 0,
            lists: Vec::new(),
            free: Vec::new(),
            sectors: Vec::new(),
            words: Vec::new(),
        }
    }

    /// Notes what a warp's lanes access. The addresses are multiples of the size, which is a power of two up to 32.
    pub(crate) fn request(&mut self, order: &Order, request: Request<'_>) -> Result<(), Race> {
        let Request {
            warp,
            addresses,
            active,
            size,
            ..
        } = request;
        let mut lane = 0;
        let mut repeats = 0;
        while lane < 32 {
            if active >> lane & 1 == 0 {
                lane += 1;
                continue;
            }
            let address = addresses[lane];
            // Consecutive lanes that fill a sector.
            let run = SECTOR as usize / size;
            let is_sector = address.is_multiple_of(SECTOR)
                && lane + run <= 32
                && (active >> lane).trailing_ones() as usize >= run
                && (1..run).all(|at| addresses[lane + at] == address + (at * size) as u64);
            let thread = warp * 32 + lane as u32;
            let record = Record::new(order, thread, request.site, request.kind, size);
            if is_sector {
                self.sector(order, address / SECTOR, record)?;
                lane += run;
                continue;
            }
            // Whoever races with a third reader of a word races with one of two.
            let repeated =
                lane > 0 && active >> (lane - 1) & 1 != 0 && addresses[lane - 1] == address;
            repeats = if repeated { repeats + 1 } else { 0 };
            if repeats < 2 || request.kind.write {
                self.lane(order, address, size, record.within_sector(0))?;
            }
            lane += 1;
        }
        Ok(())
    }

    fn page(&mut self, number: u64) -> usize {
        if self
            .pages
            .get(self.last)
            .is_none_or(|page| page.number != number)
        {
            self.last = *self.index.entry(number).or_insert_with(|| {
                self.pages.push(Page {
                    number,
                    cells: Box::new([Cell::default(); PAGE]),
                    written: false,
                });
                self.pages.len() - 1
            });
        }
        self.last
    }

    fn sector(&mut self, order: &Order, sector: u64, record: Record) -> Result<(), Race> {
        let page = self.page(sector / PAGE as u64);
        let at = (sector % PAGE as u64) as usize;
        self.pages[page].written |= record.is_write();
        let mut cell = self.pages[page].cells[at];
        if cell.parts().is_none() {
            let noted = self.note(&mut cell, record, order, true);
            self.pages[page].cells[at] = cell;
            match noted {
                Noted::Fine => return Ok(()),
                Noted::Race(earlier) => {
                    return Err(Race {
                        earlier,
                        lane: usize::from(record.thread) % 32,
                        address: sector * SECTOR,
                    });
                }
                Noted::Unclear => {}
            }
        }
        let size = 1usize << (record.flags >> LANE_BYTES);
        for offset in (0..SECTOR as usize).step_by(size) {
            let address = sector * SECTOR + offset as u64;
            self.lane(order, address, size, record.within_sector(offset as u16))?;
        }
        Ok(())
    }

    /// Notes an access by one lane, word by word.
    fn lane(
        &mut self,
        order: &Order,
        address: u64,
        size: usize,
        record: Record,
    ) -> Result<(), Race> {
        let sector = address / SECTOR;
        let page = self.page(sector / PAGE as u64);
        let at = (sector % PAGE as u64) as usize;
        self.pages[page].written |= record.is_write();
        let mut cell = self.pages[page].cells[at];
        let parts = self.divide_sector(&mut cell);
        self.pages[page].cells[at] = cell;
        let race = |earlier, address| {
            Err(Race {
                earlier,
                lane: usize::from(record.thread) % 32,
                address,
            })
        };
        let first = (address % SECTOR) as usize;
        for word in first / 4..(first + size).div_ceil(4) {
            let mut cell = self.sectors[parts][word];
            if size < 4 || cell.parts().is_some() {
                let bytes = self.divide_word(&mut cell);
                for byte in (first % 4..4).take(size) {
                    let mut part = self.words[bytes][byte];
                    let noted = self.note(&mut part, record, order, false);
                    self.words[bytes][byte] = part;
                    if let Noted::Race(earlier) = noted {
                        return race(earlier, sector * SECTOR + (word * 4 + byte) as u64);
                    }
                }
                self.sectors[parts][word] = cell;
                continue;
            }
            let noted = self.note(&mut cell, record, order, false);
            self.sectors[parts][word] = cell;
            if let Noted::Race(earlier) = noted {
                return race(earlier, sector * SECTOR + word as u64 * 4);
            }
        }
        Ok(())
    }

    /// Gives the words of a sector cells of their own.
    fn divide_sector(&mut self, cell: &mut Cell) -> usize {
        if let Some(parts) = cell.parts() {
            return parts;
        }
        let records = self.take_records(cell);
        let mut words = [Cell::default(); 8];
        for (at, word) in words.iter_mut().enumerate() {
            let offset = 4 * at as u16;
            if records.iter().any(Record::is_subword) {
                let mut bytes = [Cell::default(); 4];
                for (byte, part) in bytes.iter_mut().enumerate() {
                    self.put_records(part, &records, offset + byte as u16);
                }
                word.more = DIVIDED | self.words.len() as u32;
                self.words.push(bytes);
            } else {
                self.put_records(word, &records, offset);
            }
        }
        self.sectors.push(words);
        cell.more = DIVIDED | (self.sectors.len() - 1) as u32;
        self.sectors.len() - 1
    }

    fn divide_word(&mut self, cell: &mut Cell) -> usize {
        if let Some(parts) = cell.parts() {
            return parts;
        }
        let records = self.take_records(cell);
        let mut bytes = [Cell::default(); 4];
        for part in &mut bytes {
            self.put_records(part, &records, 0);
        }
        self.words.push(bytes);
        cell.more = DIVIDED | (self.words.len() - 1) as u32;
        self.words.len() - 1
    }

    fn take_records(&mut self, cell: &mut Cell) -> Vec<Record> {
        let mut records: Vec<_> = std::mem::take(&mut cell.slots)
            .into_iter()
            .filter(|record| !record.is_none())
            .collect();
        if cell.more != 0 {
            records.append(&mut self.lists[cell.more as usize - 1]);
            self.free.push(cell.more);
            cell.more = 0;
        }
        records
    }

    /// Fills an empty cell.
    fn put_records(&mut self, cell: &mut Cell, records: &[Record], offset: u16) {
        let records = records.iter().map(|record| record.within_sector(offset));
        let mut rest = Vec::new();
        for (at, record) in records.enumerate() {
            match cell.slots.get_mut(at) {
                Some(slot) => *slot = record,
                None => rest.push(record),
            }
        }
        if !rest.is_empty() {
            cell.more = self.new_list(rest);
        }
    }

    fn new_list(&mut self, list: Vec<Record>) -> u32 {
        match self.free.pop() {
            Some(more) => {
                self.lists[more as usize - 1] = list;
                more
            }
            None => {
                self.lists.push(list);
                self.lists.len() as u32
            }
        }
    }

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
        if old.same_threads(new) || order.is_before(old.block, old.warp(), old.tick, new.warp()) {
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
    fn note(&mut self, cell: &mut Cell, new: Record, order: &Order, several: bool) -> Noted {
        // Lanes of one warp may share some bytes of the sector and not others.
        let unclear = |old: &Record| several && old.block == new.block && old.warp() == new.warp();
        let mut twins = 0;
        for slot in &mut cell.slots {
            match Self::judge(self.others, slot, &new, order) {
                Verdict::Drop => *slot = Record::default(),
                Verdict::Keep => {}
                Verdict::Twin => twins += 1,
                Verdict::Race if unclear(slot) => return Noted::Unclear,
                Verdict::Race => return Noted::Race(*slot),
            }
        }
        if cell.more != 0 {
            return self.note_in_list(cell, new, order, several, twins);
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
        new: Record,
        order: &Order,
        several: bool,
        mut twins: u32,
    ) -> Noted {
        let others = self.others;
        let list = &mut self.lists[cell.more as usize - 1];
        let mut race = None;
        list.retain(|old| {
            let verdict = Self::judge(others, old, &new, order);
            match verdict {
                Verdict::Twin => twins += 1,
                Verdict::Race => race = Some(*old),
                Verdict::Drop | Verdict::Keep => {}
            }
            !matches!(verdict, Verdict::Drop)
        });
        if let Some(old) = race {
            let same_warp = old.block == new.block && old.warp() == new.warp();
            return if several && same_warp {
                Noted::Unclear
            } else {
                Noted::Race(old)
            };
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

    /// Adds what is kept of the accesses to a byte. The size of the place that it is kept for.
    fn records(&self, address: u64, into: &mut Vec<Record>) -> u64 {
        let sector = address / SECTOR;
        let mut place = SECTOR;
        let Some(&page) = self.index.get(&(sector / PAGE as u64)) else {
            return place;
        };
        let mut cell = &self.pages[page].cells[(sector % PAGE as u64) as usize];
        let mut offset = (address % SECTOR) as u16;
        if let Some(parts) = cell.parts() {
            cell = &self.sectors[parts][usize::from(offset / 4)];
            (offset, place) = (0, 4);
            if let Some(parts) = cell.parts() {
                place = 1;
                cell = &self.words[parts][(address % 4) as usize];
            }
        }
        let mut add = |record: &Record| {
            if !record.is_none() {
                into.push(record.within_sector(offset));
            }
        };
        cell.slots.iter().for_each(&mut add);
        if cell.more != 0 {
            self.lists[cell.more as usize - 1].iter().for_each(add);
        }
        place
    }
}

/// The records to keep where nothing orders blocks: those of the current block, and of the first and the last of the others.
fn outermost(list: &[Record], current: Option<u32>) -> Vec<Record> {
    let of_current = |record: &&Record| Some(record.block) == current;
    let mut kept: Vec<_> = list.iter().filter(of_current).copied().collect();
    for write in [false, true] {
        let others = || {
            list.iter()
                .filter(|record| !of_current(record) && record.is_write() == write)
        };
        let first = others().min_by_key(|record| rank(record));
        let last = others().min_by_key(|record| (u32::MAX - record.block, rank(record)));
        kept.extend(first);
        kept.extend(last.filter(|_| first != last));
    }
    kept
}

/// An order of accesses that does not depend on when they were noted.
fn rank(record: &Record) -> (u32, u32, u16) {
    (record.block, record.site, record.thread)
}

/// Drops accesses of other blocks beyond the most that are kept.
fn keep_most(list: &mut Vec<Record>, current: u32) {
    let mut kept = [0; 2];
    list.retain(|record| {
        let kept = &mut kept[usize::from(record.is_write())];
        *kept += usize::from(record.block != current);
        record.block == current || *kept <= MOST_OTHERS
    });
}

/// The first byte that one block wrote and another one accessed, of what several cores noted. What it gives does not depend on
/// which core ran which block.
pub(crate) fn block_race(shadows: &[Shadow]) -> Option<BlockRace> {
    let mut pages: Vec<u64> = shadows
        .iter()
        .flat_map(|shadow| &shadow.pages)
        .filter(|page| page.written)
        .map(|page| page.number)
        .collect();
    pages.sort_unstable();
    pages.dedup();
    let bytes = PAGE as u64 * SECTOR;
    let mut records = Vec::new();
    for page in pages {
        let mut address = page * bytes;
        while address < (page + 1) * bytes {
            records.clear();
            let mut place = SECTOR;
            for shadow in shadows {
                place = place.min(shadow.records(address, &mut records));
            }
            // No current block any more: all are others.
            if let Some((earlier, later)) = race_among(&outermost(&records, None)) {
                return Some(BlockRace {
                    address,
                    earlier,
                    later,
                });
            }
            address += place;
        }
    }
    None
}

/// A write, and an access by another block: the lower block's first.
fn race_among(records: &[Record]) -> Option<(Record, Record)> {
    let write = records
        .iter()
        .filter(|record| record.is_write())
        .min_by_key(|record| rank(record))?;
    let other = records
        .iter()
        .filter(|record| record.block != write.block)
        .min_by_key(|record| rank(record))?;
    Some(if write.block < other.block {
        (*write, *other)
    } else {
        (*other, *write)
    })
}

/// The words of a request, which are the locations that carry order.
pub(crate) fn words(addresses: &Row, active: u32, size: usize) -> impl Iterator<Item = u64> {
    lanes(active).flat_map(move |lane| {
        let address = addresses[lane];
        address / 4..(address + size as u64).div_ceil(4)
    })
}
