//! The accesses to each byte that a later access could race with.
//!
//! For each place in memory, a list of accesses of which none makes another one superfluous: an earlier access is dropped when a
//! later one, by the same thread or ordered after it, races with everything that the earlier one would race with. So the list holds
//! one access mostly, and is complete. A place is a sector of 32 bytes while consecutive lanes access it as a whole, each
//! the same number of bytes; otherwise a word; and a byte where words are accessed in parts.

mod judge;

use std::collections::HashMap;

use super::lanes::Row;
use super::order::Order;
use super::record::{Kind, LANE_BYTES, Record};
use judge::Noted;
pub(crate) use judge::SameValue;

/// Bytes of a sector.
pub(super) const SECTOR: u64 = 32;
/// Sectors of a page.
const PAGE: usize = 128;
pub(super) const PAGE_BYTES: u64 = PAGE as u64 * SECTOR;

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

/// A warp's request.
#[derive(Clone, Copy)]
pub(crate) struct Request<'a> {
    pub(crate) warp: u32,
    pub(crate) addresses: &'a Row,
    pub(crate) active: u32,
    pub(crate) size: usize,
    pub(crate) site: usize,
    pub(crate) kind: Kind,
    pub(crate) same: SameValue,
}

/// The accesses to one memory.
#[derive(Debug)]
pub(crate) struct Shadow {
    others: Others,
    pages: Vec<Page>,
    index: HashMap<u64, usize>,
    /// The page used last.
    last: usize,
    /// Requests so far.
    time: u32,
    /// Of the current request.
    same: SameValue,
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
            time: 0,
            same: SameValue::default(),
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
        self.time = self.time.wrapping_add(1);
        self.same = request.same;
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
            let record = Record::new(order, thread, request.site, request.kind, size, self.time);
            if is_sector {
                self.sector(order, address / SECTOR, record)?;
                lane += run;
                continue;
            }
            // Whoever races with a third reader of a word races with one of two.
            let repeated =
                lane > 0 && active >> (lane - 1) & 1 != 0 && addresses[lane - 1] == address;
            repeats = if repeated { repeats + 1 } else { 0 };
            if repeats < 2 || request.kind.write || request.kind.strong {
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

    /// Numbers of the pages that were written to.
    pub(super) fn written_pages(&self) -> impl Iterator<Item = u64> {
        self.pages
            .iter()
            .filter(|page| page.written)
            .map(|page| page.number)
    }

    /// Adds what is kept of the accesses to a byte. The size of the place that it is kept for.
    pub(super) fn records(&self, address: u64, into: &mut Vec<Record>) -> u64 {
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
