//! A block: its warps take turns until all are done.

use super::asynchronous::Asynchronous;
use super::control::Pause;
use super::order::Order;
use super::race::Races;
use super::shared::Shared;
use super::stats::Stats;
use super::stop::Stop;
use super::warp::{Wait, Warp};
use crate::device::{Checks, Launch};
use crate::error::{Fault, FaultKind, Space};
use crate::isa::{BarrierKind, BarrierOp, Op};

/// Warp instructions after which another warp gets its turn.
const TURN: u32 = 4096;

/// A barrier that some warps wait at.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Barrier {
    /// Threads that have arrived.
    pub(crate) arrived: u32,
    /// Threads that it waits for; `None` until the first arrives.
    pub(crate) expected: Option<u32>,
    /// Warps that have arrived, and those that wait.
    pub(crate) warps: u32,
    pub(crate) waiting: u32,
    /// Predicates that were true.
    pub(crate) votes: u32,
    /// Arrivals that brought a predicate.
    pub(crate) voters: u32,
}

/// What the warps of a block share.
#[derive(Debug)]
pub(crate) struct BlockState {
    pub(crate) index: [u32; 3],
    pub(crate) shared: Shared,
    pub(crate) order: Order,
    pub(crate) asynchronous: Asynchronous,
    pub(crate) barriers: [Barrier; 16],
    /// Warp instructions so far.
    pub(crate) executed: u64,
    /// The barrier that a warp has just arrived at, if it was not looked at yet.
    pub(crate) changed: Option<u8>,
}

/// What one warp needs while it runs.
pub(crate) struct Context<'a> {
    pub(crate) launch: &'a Launch<'a>,
    pub(crate) checks: Checks,
    pub(crate) stats: &'a mut Stats,
    pub(crate) block: &'a mut BlockState,
    /// Accesses to global memory.
    pub(crate) races: &'a mut Races,
    /// The current instruction among those of all functions.
    pub(crate) site: usize,
    /// Allocation that the last access hit.
    pub(crate) last: usize,
}

#[derive(Debug)]
pub(crate) struct Block {
    state: BlockState,
    warps: Vec<Warp>,
    order: Vec<usize>,
}

/// How a block's turn ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    Done,
    /// Some warp got further.
    Running,
}

impl Block {
    pub(crate) fn new() -> Self {
        Self {
            state: BlockState {
                index: [0; 3],
                shared: Shared::new(),
                order: Order::default(),
                asynchronous: Asynchronous::default(),
                barriers: [Barrier::default(); 16],
                executed: 0,
                changed: None,
            },
            warps: Vec::new(),
            order: Vec::new(),
        }
    }

    pub(crate) fn start(&mut self, launch: &Launch<'_>, linear: u64) {
        self.state.index = launch.block_index(linear);
        self.state.shared.start(launch);
        self.state.asynchronous.start();
        self.state.barriers = [Barrier::default(); 16];
        self.state.executed = 0;
        self.state.changed = None;
        let warps = launch.threads().div_ceil(32);
        if launch.config.checks.races {
            self.state.order.start(linear as u32, warps as usize);
        }
        self.warps.truncate(warps as usize);
        for index in 0..warps {
            if self.warps.len() <= index as usize {
                self.warps.push(Warp::new(index));
            }
            self.warps[index as usize].start(launch, self.state.index);
        }
        self.order = (0..warps as usize).collect();
        if let Some(seed) = launch.config.seed {
            super::grid::shuffle(&mut self.order, seed ^ linear.wrapping_mul(0x9e37_79b9));
        }
    }

    /// Gives every warp one turn.
    pub(crate) fn turn(
        &mut self,
        launch: &Launch<'_>,
        stats: &mut Stats,
        races: &mut Races,
    ) -> Result<Turn, Box<Fault>> {
        let mut progress = false;
        for at in 0..self.order.len() {
            let index = self.order[at];
            let warp = &mut self.warps[index];
            if !warp.can_run() {
                continue;
            }
            progress = true;
            loop {
                let mut context = Context {
                    launch,
                    checks: launch.config.checks,
                    stats,
                    block: &mut self.state,
                    races,
                    site: 0,
                    last: 0,
                };
                let outcome = self.warps[index].run(&mut context, TURN);
                let site = context.site;
                match outcome {
                    Ok(Pause::Turn | Pause::Waiting) => break,
                    Ok(Pause::Barrier) => {
                        if let Some(number) = self.state.changed.take() {
                            self.complete(launch, number);
                        }
                    }
                    Err(stop) => return Err(self.fault(launch, index, site, *stop)),
                }
            }
        }
        if self.warps.iter().all(Warp::is_done) {
            return Ok(Turn::Done);
        }
        if !progress && !self.complete_after_exits(launch) {
            return Err(self.deadlock(launch));
        }
        Ok(Turn::Running)
    }

    /// With synchronisation checks off, threads that have exited count as arrived.
    fn complete_after_exits(&mut self, launch: &Launch<'_>) -> bool {
        if launch.config.checks.synchronization {
            return false;
        }
        let exited: u32 = self
            .warps
            .iter()
            .filter(|warp| warp.exited != 0)
            .map(|warp| warp.exited.count_ones())
            .sum();
        for number in 0..16 {
            let barrier = &mut self.state.barriers[usize::from(number)];
            if barrier.waiting != 0 && barrier.arrived + exited >= barrier.expected.unwrap_or(0) {
                barrier.arrived = barrier.expected.unwrap_or(0);
                self.complete(launch, number);
                return true;
            }
        }
        false
    }

    /// Lets the warps at a barrier go on, if all that it waits for are there.
    fn complete(&mut self, launch: &Launch<'_>, number: u8) {
        let barrier = &mut self.state.barriers[usize::from(number)];
        if barrier
            .expected
            .is_none_or(|expected| barrier.arrived < expected)
        {
            return;
        }
        let done = std::mem::take(barrier);
        if launch.config.checks.races {
            self.state.order.barrier(done.warps, done.waiting);
        }
        for warp in &mut self.warps {
            for at in 0..warp.splits.len() {
                let split = warp.splits[at];
                if split.wait != Wait::Barrier(number) {
                    continue;
                }
                let frame = &mut warp.frames[split.frame as usize];
                let function = launch.images[frame.function as usize].function;
                let inst = function.code[split.pc as usize];
                if let Op::Barrier(BarrierOp { kind, .. }) = inst.op {
                    let result = match kind {
                        BarrierKind::RedPopc { .. } => {
                            let row = &mut frame.rows[inst.dst as usize];
                            for lane in super::lanes::lanes(split.mask) {
                                row[lane] = u64::from(done.votes);
                            }
                            frame.initialized[inst.dst as usize] |= split.mask;
                            None
                        }
                        BarrierKind::RedAnd { dst, .. } => Some((dst, done.votes == done.voters)),
                        BarrierKind::RedOr { dst, .. } => Some((dst, done.votes != 0)),
                        BarrierKind::Sync | BarrierKind::Arrive => None,
                    };
                    if let Some((dst, value)) = result {
                        let pred = &mut frame.preds[usize::from(dst)];
                        *pred = (*pred & !split.mask) | if value { split.mask } else { 0 };
                        frame.preds_initialized[usize::from(dst)] |= split.mask;
                    }
                }
                let split = &mut warp.splits[at];
                split.wait = Wait::Nothing;
                split.pc += 1;
            }
        }
    }

    /// Nobody can go on: says why.
    fn deadlock(&mut self, launch: &Launch<'_>) -> Box<Fault> {
        // Lanes that wait for lanes of their own warp are the cause; warps at a barrier only wait for them.
        for index in 0..self.warps.len() {
            let warp = &self.warps[index];
            for split in &warp.splits {
                let Wait::Lanes { needed, active } = split.wait else {
                    continue;
                };
                let needed = needed & warp.live();
                let function = warp.frames[split.frame as usize].function;
                let image = &launch.images[function as usize];
                let present = warp
                    .splits
                    .iter()
                    .filter(|other| (other.frame, other.pc) == (split.frame, split.pc))
                    .fold(active, |lanes, other| match other.wait {
                        Wait::Lanes { active, .. } => lanes | active,
                        _ => lanes,
                    });
                let missing = needed & !present;
                let kind = match image.function.code[split.pc as usize].op {
                    Op::Barrier(_) => FaultKind::DivergentBarrier {
                        active: present,
                        expected: needed,
                    },
                    _ => FaultKind::InactiveLane {
                        lane: missing.trailing_zeros(),
                    },
                };
                let stop = Stop {
                    kind,
                    lane: split.mask.trailing_zeros(),
                    access: None,
                };
                return self.fault(launch, index, image.first_site + split.pc as usize, stop);
            }
        }
        for index in 0..self.warps.len() {
            let warp = &self.warps[index];
            for split in &warp.splits {
                let Wait::Barrier(number) = split.wait else {
                    continue;
                };
                let function = warp.frames[split.frame as usize].function;
                let image = &launch.images[function as usize];
                let barrier = self.state.barriers[usize::from(number)];
                let stop = Stop {
                    kind: FaultKind::BarrierNotReached {
                        barrier: number.into(),
                        arrived: barrier.arrived,
                        expected: barrier.expected.unwrap_or(0),
                    },
                    lane: split.mask.trailing_zeros(),
                    access: None,
                };
                return self.fault(launch, index, image.first_site + split.pc as usize, stop);
            }
        }
        let stop = Stop {
            kind: FaultKind::Deadlock,
            lane: 0,
            access: None,
        };
        self.fault(launch, 0, 0, stop)
    }

    fn fault(&self, launch: &Launch<'_>, warp: usize, site: usize, stop: Stop) -> Box<Fault> {
        fault(launch, self.state.index, warp, site, stop)
    }
}

/// A finding, with all that is known about where it is.
pub(super) fn fault(
    launch: &Launch<'_>,
    block: [u32; 3],
    warp: usize,
    site: usize,
    stop: Stop,
) -> Box<Fault> {
    let (image, pc) = locate(launch, site);
    let function = image.function;
    let line = function.lines[pc] as usize;
    let (file, source_line) = function.locations[pc];
    let nearest = match stop.access {
        Some((Space::Global, address)) => launch.memory.nearest(address),
        _ => None,
    };
    Box::new(Fault {
        kind: stop.kind,
        kernel: launch.entry.name.clone(),
        ptx_line: line,
        instruction: launch.module.text(line).to_owned(),
        source: launch
            .module
            .file(file)
            .map(|file| (file.to_owned(), source_line as usize)),
        block,
        thread: launch.thread_index(warp as u32 * 32 + stop.lane),
        address: stop.access.map(|(_, address)| address),
        space: stop.access.map(|(space, _)| space),
        nearest,
    })
}

/// The function and program counter of a site.
pub(crate) fn locate<'l>(
    launch: &'l Launch<'_>,
    site: usize,
) -> (&'l crate::device::Image<'l>, usize) {
    let after = launch
        .images
        .partition_point(|image| image.first_site <= site);
    let image = &launch.images[after - 1];
    (image, site - image.first_site)
}
