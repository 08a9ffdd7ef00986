use std::{collections::HashMap, fmt, panic::Location};

use crate::device::{core::lock, driver::MemorySpace, sync::Mutex};

/// What a pool records of each allocation; every level includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TrackingLevel {
    /// Bytes in use only.
    None,
    /// Counts of allocations and frees by size, and the peak.
    Basic,
    /// Bytes asked for, which give the internal fragmentation.
    Standard,
    /// Each buffer with the source location that created it, for [`LeakReport`].
    Detailed,
}

/// A live buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LiveAllocation {
    /// Which memory it is in.
    pub space: MemorySpace,
    /// Its address there.
    pub address: u64,
    /// Bytes asked for.
    pub bytes: usize,
    /// The call that made it, outside the device layer.
    pub site: &'static Location<'static>,
    /// Number of the allocation in that memory, ascending with time.
    pub sequence: u64,
}

/// The buffers that were live when the report was made, the oldest of each memory first.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeakReport {
    /// The pool's level: below [`TrackingLevel::Detailed`], nothing is known.
    pub tracking: TrackingLevel,
    /// The buffers.
    pub live: Vec<LiveAllocation>,
}

impl fmt::Display for LeakReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.tracking < TrackingLevel::Detailed {
            return write!(
                f,
                "buffers are recorded at TrackingLevel::Detailed, not at {:?}",
                self.tracking
            );
        }
        let bytes: usize = self.live.iter().map(|live| live.bytes).sum();
        write!(f, "{} buffers of {bytes} bytes", self.live.len())?;
        for live in &self.live {
            write!(
                f,
                "\n  #{} {:#x}: {} bytes{}, made at {}",
                live.sequence,
                live.address,
                live.bytes,
                match live.space {
                    MemorySpace::Device => "",
                    MemorySpace::PinnedHost => " of pinned host memory",
                },
                live.site
            )?;
        }
        Ok(())
    }
}

/// The recorded allocations, by address.
#[derive(Debug, Default)]
pub(super) struct Sites(Mutex<Recorded>);

#[derive(Debug, Default)]
struct Recorded {
    live: HashMap<u64, (usize, &'static Location<'static>, u64)>,
    sequence: u64,
}

impl Sites {
    pub(super) fn add(&self, address: u64, bytes: usize, site: &'static Location<'static>) {
        let mut recorded = lock(&self.0);
        recorded.sequence += 1;
        let sequence = recorded.sequence;
        recorded.live.insert(address, (bytes, site, sequence));
    }

    pub(super) fn remove(&self, address: u64) {
        lock(&self.0).live.remove(&address);
    }

    /// What is live, the oldest first.
    pub(super) fn live(&self, space: MemorySpace) -> Vec<LiveAllocation> {
        let live = |(&address, &(bytes, site, sequence)): (&u64, &_)| LiveAllocation {
            space,
            address,
            bytes,
            site,
            sequence,
        };
        let mut live: Vec<_> = lock(&self.0).live.iter().map(live).collect();
        live.sort_by_key(|live| live.sequence);
        live
    }
}
