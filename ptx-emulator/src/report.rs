//! What a launch did, in exact numbers.

use std::ops::AddAssign;

use std::collections::BTreeMap;

use serde::Serialize;

/// Instructions by class.
///
/// A class is decided by the instruction alone, except for generic loads and stores, which belong to the space
/// that they reach. `mov`, `mma`, barriers, fences, shuffles, votes, clocks, `griddepcontrol`, atomics on global memory, and
/// accesses to parameters, local and constant memory are `other`; integer comparison, selection and conversion are `integer`;
/// `ldmatrix` and `stmatrix` are `shared`, and `cp.async` is `load_global`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub struct Instructions {
    pub total: u64,
    pub integer: u64,
    pub float: u64,
    pub dp4a: u64,
    pub load_global: u64,
    pub store_global: u64,
    pub shared: u64,
    pub branch: u64,
    pub other: u64,
}

/// Traffic between a kernel and global memory. A request is one instruction of one warp.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct GlobalCounters {
    /// Loads, and atomics, that at least one lane executed.
    pub load_requests: u64,
    /// Stores, and atomics, that at least one lane executed.
    pub store_requests: u64,
    /// Distinct 32-byte sectors of each load request, summed.
    pub load_sectors: u64,
    /// Distinct 32-byte sectors of each store request, summed.
    pub store_sectors: u64,
    /// Distinct bytes of each load request, summed: bytes that several lanes of a request ask for count once.
    pub bytes_read: u64,
    /// Distinct bytes of each store request, summed.
    pub bytes_written: u64,
}

impl GlobalCounters {
    /// Bytes asked for over bytes in the sectors that were moved; 1 where nothing was loaded.
    pub fn load_efficiency(&self) -> f64 {
        efficiency(self.bytes_read, self.load_sectors)
    }

    /// Bytes stored over bytes in the sectors that were touched; 1 where nothing was stored.
    pub fn store_efficiency(&self) -> f64 {
        efficiency(self.bytes_written, self.store_sectors)
    }

    /// All sectors.
    pub fn sectors(&self) -> u64 {
        self.load_sectors + self.store_sectors
    }

    /// All requests.
    pub fn requests(&self) -> u64 {
        self.load_requests + self.store_requests
    }
}

fn efficiency(bytes: u64, sectors: u64) -> f64 {
    if sectors == 0 {
        1.0
    } else {
        bytes as f64 / (sectors * 32) as f64
    }
}

/// Traffic with shared memory, which has 32 banks of 4 bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct SharedCounters {
    /// Loads, stores and atomics that at least one lane executed.
    pub requests: u64,
    /// Passes that the requests take. 64-bit accesses go by half warps and 128-bit ones by quarter warps.
    pub wavefronts: u64,
    /// Wavefronts beyond what the requests would take if no two words were in one bank.
    pub bank_conflicts: u64,
    /// Bytes that lanes load, each lane's counted.
    pub bytes_read: u64,
    /// Bytes that lanes store, each lane's counted.
    pub bytes_written: u64,
}

/// Everything that is counted for a launch. The same kernel with the same arguments gives the same counts on every
/// machine, with any number of threads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Counters {
    /// Instructions that lanes executed: an instruction of a full warp counts 32 times, lanes whose guard is false
    /// do not count.
    pub lane: Instructions,
    /// Instructions that warps issued, those that no lane executed included.
    pub warp: Instructions,
    /// Global memory.
    pub global: GlobalCounters,
    /// Shared memory.
    pub shared: SharedCounters,
    /// Bytes that lanes loaded from local memory.
    pub local_bytes_read: u64,
    /// Bytes that lanes stored to local memory.
    pub local_bytes_written: u64,
    /// Branches at which lanes of a warp parted.
    pub divergent_branches: u64,
    /// Block-wide barriers that warps arrived at.
    pub barriers: u64,
}

/// Adds field by field; destructured, so that a new field cannot be left out.
macro_rules! add_fields {
    ($type:ident: $($field:ident)*) => {
        impl AddAssign for $type {
            fn add_assign(&mut self, other: Self) {
                let Self { $($field),* } = other;
                $(self.$field += $field;)*
            }
        }
    };
}
add_fields!(Instructions: total integer float dp4a load_global store_global shared branch other);
add_fields!(GlobalCounters: load_requests store_requests load_sectors store_sectors bytes_read bytes_written);
add_fields!(SharedCounters: requests wavefronts bank_conflicts bytes_read bytes_written);
add_fields!(Counters: lane warp global shared local_bytes_read local_bytes_written divergent_branches barriers);

/// What a launch did to one allocation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct AllocationTraffic {
    /// First address.
    pub base: u64,
    /// Length in bytes.
    pub len: u64,
    /// As [`GlobalCounters::bytes_read`].
    pub bytes_read: u64,
    /// As [`GlobalCounters::bytes_written`].
    pub bytes_written: u64,
    /// As [`GlobalCounters::load_sectors`].
    pub sectors_read: u64,
    /// As [`GlobalCounters::store_sectors`].
    pub sectors_written: u64,
}

/// What a launch did on one line of the PTX text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LineCounts {
    /// Line, from 1.
    pub line: usize,
    /// Source file and line, where the PTX says so.
    pub source: Option<(String, usize)>,
    /// The text of the line.
    pub instruction: String,
    /// Instructions that warps issued.
    pub warp_instructions: u64,
    /// Instructions that lanes executed.
    pub lane_instructions: u64,
    /// Requests to global memory.
    pub requests: u64,
    /// Sectors of those.
    pub sectors: u64,
    /// Distinct bytes of those.
    pub bytes: u64,
    /// Extra wavefronts of shared-memory requests.
    pub bank_conflicts: u64,
}

/// What a launch did on one line of a source file: the sum over the lines of the PTX text that say they come from there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SourceCounts {
    /// Name of the file, as `.file` gives it.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// As [`LineCounts::warp_instructions`].
    pub warp_instructions: u64,
    /// As [`LineCounts::lane_instructions`].
    pub lane_instructions: u64,
    /// As [`LineCounts::requests`].
    pub requests: u64,
    /// As [`LineCounts::sectors`].
    pub sectors: u64,
    /// As [`LineCounts::bytes`].
    pub bytes: u64,
    /// As [`LineCounts::bank_conflicts`].
    pub bank_conflicts: u64,
}

/// The outcome of a launch.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Totals.
    pub counters: Counters,
    /// Traffic with each allocation that was touched, by address.
    pub allocations: Vec<AllocationTraffic>,
    /// Every line that was executed, in the order of the text.
    pub lines: Vec<LineCounts>,
    /// What the kernel printed, by block; blocks that run in an order of their own print in that. At most 1 MiB.
    pub printed: String,
}

impl Report {
    /// The counts by source line, by file and line; empty where the PTX has no `.loc` directives.
    pub fn sources(&self) -> Vec<SourceCounts> {
        let mut sources: BTreeMap<(&str, usize), SourceCounts> = BTreeMap::new();
        for counts in &self.lines {
            let Some((file, line)) = &counts.source else {
                continue;
            };
            let sum = sources
                .entry((file, *line))
                .or_insert_with(|| SourceCounts {
                    file: file.clone(),
                    line: *line,
                    ..SourceCounts::default()
                });
            sum.warp_instructions += counts.warp_instructions;
            sum.lane_instructions += counts.lane_instructions;
            sum.requests += counts.requests;
            sum.sectors += counts.sectors;
            sum.bytes += counts.bytes;
            sum.bank_conflicts += counts.bank_conflicts;
        }
        sources.into_values().collect()
    }
}
