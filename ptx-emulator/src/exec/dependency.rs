//! `griddepcontrol`: which lanes of a block come after a wait for the launches before this one, and what they access until then.

use super::access::Direction;
use super::block::{Context, fault};
use super::lanes::{FULL, Row, lanes};
use super::order::Order;
use super::stop::Stop;
use crate::device::{EarlyAccess, Launch};
use crate::fault::{Fault, FaultKind, Space};

/// The waits of one block.
#[derive(Debug, Default)]
pub(crate) struct Dependency {
    /// For each warp, the lanes not known to come after a wait. None where the launch overlaps no other.
    before: Vec<u32>,
    /// For each warp, the tick of the first wait by one of its lanes; 0 where there was none.
    waits: [u32; 32],
    /// Whether a lane let the next launch start before it came after a wait.
    released: bool,
}

impl Dependency {
    pub(super) fn start(&mut self, launch: &Launch<'_>, warps: u32) {
        let before = if launch.overlap.early { FULL } else { 0 };
        self.before.clear();
        self.before.resize(warps as usize, before);
        self.waits = [0; 32];
        self.released = false;
    }

    /// Whether some of the lanes may be before their wait.
    #[inline(always)]
    pub(super) fn is_early(&self, warp: u32, active: u32) -> bool {
        self.before[warp as usize] & active != 0
    }

    /// `griddepcontrol.wait`.
    pub(super) fn wait(&mut self, order: &Order, warp: u32, active: u32) {
        let warp = warp as usize;
        if self.before[warp] == 0 {
            return;
        }
        self.before[warp] &= !active;
        if self.waits[warp] == 0 {
            self.waits[warp] = order.now(warp);
        }
    }

    /// `griddepcontrol.launch_dependents`.
    pub(super) fn launch_dependents(&mut self, order: &Order, warp: u32, active: u32) {
        self.released |= self.early_lanes(order, warp, active) != 0;
    }

    /// The lanes that nothing orders after a wait: neither their own, nor that of another lane of the block that they have
    /// synchronised with since.
    fn early_lanes(&mut self, order: &Order, warp: u32, active: u32) -> u32 {
        let before = &mut self.before[warp as usize];
        if *before & active != 0 {
            let now = warp as usize;
            let ordered = (0..32).any(|warp| {
                let tick = self.waits[warp];
                tick != 0 && order.is_before(order.block(), warp, tick, now)
            });
            if ordered {
                *before = 0;
            }
        }
        *before & active
    }

    /// At the block's end: whether the next launch, which starts when all blocks let it or have ended, came after a wait.
    pub(super) fn held_the_next(&self) -> bool {
        !self.released && self.waits.iter().any(|&tick| tick != 0)
    }
}

/// Notes an access to global memory by lanes some of which may be before their wait.
#[cold]
pub(super) fn check_early(
    context: &mut Context<'_>,
    warp: u32,
    addresses: &Row,
    active: u32,
    direction: Direction,
) {
    let block = &mut *context.block;
    let early = block.dependency.early_lanes(&block.order, warp, active);
    let launch = context.launch;
    let write = direction == Direction::Store;
    for lane in lanes(early) {
        let address = addresses[lane];
        if let Some((other, wrote)) = launch.memory.in_flight.conflict(address, write) {
            launch.overlap.note(EarlyAccess {
                block: block.order.block(),
                warp,
                lane: lane as u32,
                site: context.site,
                address,
                other: other.clone(),
                wrote,
            });
            return;
        }
    }
}

/// At the end of a launch: the first access that came too early.
pub(super) fn first_early(launch: &Launch<'_>) -> Result<(), Box<Fault>> {
    let Some(access) = launch.overlap.first() else {
        return Ok(());
    };
    let stop = Stop {
        kind: FaultKind::BeforeGridDependency {
            other: access.other.to_string(),
            wrote: access.wrote,
        },
        lane: access.lane,
        access: Some((Space::Global, access.address)),
    };
    Err(fault(
        launch,
        launch.block_index(access.block.into()),
        access.warp as usize,
        access.site,
        stop,
    ))
}
