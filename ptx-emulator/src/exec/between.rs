//! Races between blocks: which accesses of other blocks are kept, and what those that nothing orders come to.

use super::record::Record;
use super::shadow::{PAGE_BYTES, SECTOR, Shadow};

/// Accesses of other blocks that are kept in each direction where more are unordered.
pub(super) const MOST_OTHERS: usize = 8;

/// Two accesses of blocks that nothing orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BlockRace {
    pub(crate) address: u64,
    pub(crate) earlier: Record,
    pub(crate) later: Record,
}

/// The records to keep where nothing orders blocks: those of the current block, and of the first and the last of the others.
pub(super) fn outermost(list: &[Record], current: Option<u32>) -> Vec<Record> {
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
pub(super) fn keep_most(list: &mut Vec<Record>, current: u32) {
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
    let mut pages: Vec<u64> = shadows.iter().flat_map(Shadow::written_pages).collect();
    pages.sort_unstable();
    pages.dedup();
    let mut records = Vec::new();
    for page in pages {
        let mut address = page * PAGE_BYTES;
        while address < (page + 1) * PAGE_BYTES {
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
