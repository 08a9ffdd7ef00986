//! Counts of one worker. Workers' counts add up to the launch's, in any order.

use std::collections::BTreeMap;

use crate::device::Launch;
use crate::isa::Class;
use crate::report::{AllocationTraffic, Counters, Instructions, LineCounts, Report};

/// Counts of one instruction of the PTX text.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Site {
    pub(crate) warps: u64,
    pub(crate) lanes: u64,
    pub(crate) requests: u64,
    pub(crate) sectors: u64,
    pub(crate) bytes: u64,
    pub(crate) conflicts: u64,
}

/// Warp and lane instructions to count under another class.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Redirected {
    pub(crate) shared: (u64, u64),
    pub(crate) other: (u64, u64),
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Stats {
    pub(crate) sites: Vec<Site>,
    pub(crate) allocations: Vec<AllocationTraffic>,
    /// All but the instruction counts, which follow from the sites.
    pub(crate) counters: Counters,
    /// Generic accesses that reached another space than global memory.
    pub(crate) generic_load: Redirected,
    pub(crate) generic_store: Redirected,
    /// Stores, atomics that changed something, arrivals and exits: what another warp can wait for.
    pub(crate) effects: u64,
}

impl Stats {
    pub(crate) fn new(launch: &Launch<'_>) -> Self {
        Self {
            sites: vec![Site::default(); launch.sites],
            allocations: launch
                .memory
                .allocations()
                .iter()
                .map(|allocation| AllocationTraffic {
                    base: allocation.base,
                    len: allocation.len,
                    ..AllocationTraffic::default()
                })
                .collect(),
            ..Self::default()
        }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (sum, site) in self.sites.iter_mut().zip(&other.sites) {
            sum.warps += site.warps;
            sum.lanes += site.lanes;
            sum.requests += site.requests;
            sum.sectors += site.sectors;
            sum.bytes += site.bytes;
            sum.conflicts += site.conflicts;
        }
        for (sum, traffic) in self.allocations.iter_mut().zip(&other.allocations) {
            sum.bytes_read += traffic.bytes_read;
            sum.bytes_written += traffic.bytes_written;
            sum.sectors_read += traffic.sectors_read;
            sum.sectors_written += traffic.sectors_written;
        }
        for (sums, counts) in [
            (&mut self.generic_load, &other.generic_load),
            (&mut self.generic_store, &other.generic_store),
        ] {
            sums.shared.0 += counts.shared.0;
            sums.shared.1 += counts.shared.1;
            sums.other.0 += counts.other.0;
            sums.other.1 += counts.other.1;
        }
        self.counters += other.counters;
    }

    pub(crate) fn report(self, launch: &Launch<'_>) -> Report {
        let mut counters = self.counters;
        let mut lines: BTreeMap<u32, LineCounts> = BTreeMap::new();
        for image in &launch.images {
            let function = image.function;
            for (pc, &class) in function.classes.iter().enumerate() {
                let site = self.sites[image.first_site + pc];
                if site.warps == 0 {
                    continue;
                }
                count(&mut counters.warp, class, site.warps);
                count(&mut counters.lane, class, site.lanes);
                let number = function.lines[pc];
                let line = lines.entry(number).or_insert_with(|| {
                    let (file, source_line) = function.locations[pc];
                    LineCounts {
                        line: number as usize,
                        source: launch
                            .module
                            .file(file)
                            .map(|file| (file.to_owned(), source_line as usize)),
                        instruction: launch.module.text(number as usize).to_owned(),
                        warp_instructions: 0,
                        lane_instructions: 0,
                        requests: 0,
                        sectors: 0,
                        bytes: 0,
                        bank_conflicts: 0,
                    }
                });
                line.warp_instructions += site.warps;
                line.lane_instructions += site.lanes;
                line.requests += site.requests;
                line.sectors += site.sectors;
                line.bytes += site.bytes;
                line.bank_conflicts += site.conflicts;
            }
        }
        for (from, moved) in [
            (Class::LoadGlobal, &self.generic_load),
            (Class::StoreGlobal, &self.generic_store),
        ] {
            for (to, by) in [(Class::Shared, moved.shared), (Class::Other, moved.other)] {
                move_class(&mut counters.warp, from, to, by.0);
                move_class(&mut counters.lane, from, to, by.1);
            }
        }
        let mut allocations = self.allocations;
        allocations.retain(|traffic| traffic.sectors_read + traffic.sectors_written > 0);
        Report {
            counters,
            allocations,
            lines: lines.into_values().collect(),
            printed: launch.printed.text(None),
        }
    }
}

fn class_mut(instructions: &mut Instructions, class: Class) -> &mut u64 {
    match class {
        Class::Integer => &mut instructions.integer,
        Class::Float => &mut instructions.float,
        Class::Dp4a => &mut instructions.dp4a,
        Class::LoadGlobal => &mut instructions.load_global,
        Class::StoreGlobal => &mut instructions.store_global,
        Class::Shared => &mut instructions.shared,
        Class::Branch => &mut instructions.branch,
        Class::Other => &mut instructions.other,
    }
}

fn count(instructions: &mut Instructions, class: Class, by: u64) {
    instructions.total += by;
    *class_mut(instructions, class) += by;
}

fn move_class(instructions: &mut Instructions, from: Class, to: Class, by: u64) {
    *class_mut(instructions, from) -= by;
    *class_mut(instructions, to) += by;
}
