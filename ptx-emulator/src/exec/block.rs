//! A block: its warps take turns until all are done.

use std::collections::BTreeSet;

use super::asynchronous::Asynchronous;
use super::control::Pause;
use super::deadlock::Spin;
use super::dependency::Dependency;
use super::division;
use super::order::Order;
use super::race::Races;
use super::shared::Shared;
use super::stats::Stats;
use super::stop::{Step, Stop};
use super::warp::{Wait, Warp};
use crate::device::{Checks, Launch};
use crate::fault::{Fault, FaultKind, Space};
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
    pub(crate) dependency: Dependency,
    pub(crate) barriers: [Barrier; 16],
    /// Warp instructions so far.
    pub(crate) executed: u64,
    /// Sites that were executed after the instruction limit was passed.
    pub(crate) looping: BTreeSet<usize>,
    /// A barrier with new arrivals that [`Block::turn`] has not checked for completion.
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

/// Warp instructions that a block runs past its limit, to see where it loops.
const PAST_LIMIT: u64 = 4096;

impl BlockState {
    /// The instruction limit was passed: notes where, and ends the block after some more.
    #[cold]
    pub(super) fn past_limit(&mut self, site: usize, limit: u64, mask: u32) -> Step<()> {
        self.looping.insert(site);
        if self.executed - limit < PAST_LIMIT {
            return Ok(());
        }
        // The lines are filled in where the fault is made.
        let lines = Vec::new();
        Stop::first(FaultKind::InstructionLimit { limit, lines }, mask)
    }
}

#[derive(Debug)]
pub(crate) struct Block {
    pub(super) state: BlockState,
    pub(super) warps: Vec<Warp>,
    order: Vec<usize>,
    /// For each warp, whether it loops in vain.
    pub(super) spins: Vec<Spin>,
}

/// How a block's turn ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    Done,
    /// Some warp got further.
    Running,
    /// All warps wait for, or loop until, something that only another block can do.
    Stuck,
}

impl Block {
    pub(crate) fn new() -> Self {
        Self {
            state: BlockState {
                index: [0; 3],
                shared: Shared::new(),
                order: Order::default(),
                asynchronous: Asynchronous::default(),
                dependency: Dependency::default(),
                barriers: [Barrier::default(); 16],
                executed: 0,
                looping: BTreeSet::new(),
                changed: None,
            },
            warps: Vec::new(),
            order: Vec::new(),
            spins: Vec::new(),
        }
    }

    pub(crate) fn start(&mut self, launch: &Launch<'_>, linear: u64) {
        self.state.index = launch.block_index(linear);
        self.state.shared.start(launch);
        self.state.asynchronous.start();
        self.state.barriers = [Barrier::default(); 16];
        self.state.executed = 0;
        self.state.changed = None;
        self.state.looping.clear();
        let warps = launch.threads().div_ceil(32);
        self.state.dependency.start(launch, warps);
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
        self.spins.clear();
        self.spins.resize(warps as usize, Spin::default());
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
                    Ok(Pause::Turn) => {
                        self.spins[index].observe(stats.effects, &self.warps[index]);
                        break;
                    }
                    Ok(Pause::Waiting) => break,
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
            if self.state.dependency.held_the_next() {
                launch.overlap.note_wait();
            }
            return match launch.config.instruction_limit {
                Some(limit) if self.state.executed > limit => Err(self.limit_passed(launch, limit)),
                _ => Ok(Turn::Done),
            };
        }
        if !progress && !self.stop_waiting(launch) {
            return Err(self.deadlock(launch, stats.effects));
        }
        if launch.config.checks.synchronization && self.is_stuck(stats.effects) {
            return Ok(Turn::Stuck);
        }
        Ok(Turn::Running)
    }

    /// With synchronisation checks off, lanes that cannot come to their warp are not waited for any longer, and at barriers
    /// threads that have exited count as arrived.
    fn stop_waiting(&mut self, launch: &Launch<'_>) -> bool {
        if launch.config.checks.synchronization {
            return false;
        }
        // One warp only: what its lanes do next may be what the others wait for.
        if self.warps.iter_mut().any(Warp::stop_waiting) {
            return true;
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

    fn fault(&self, launch: &Launch<'_>, warp: usize, site: usize, mut stop: Stop) -> Box<Fault> {
        match stop.kind {
            FaultKind::InstructionLimit { limit, .. } => return self.limit_passed(launch, limit),
            FaultKind::UninitializedRegister { register } => {
                let divisions = &self.warps[warp].divided_by_zero;
                let lane = 1 << stop.lane;
                stop.kind = match division::origin(launch, divisions, site, &register, lane) {
                    None => FaultKind::UninitializedRegister { register },
                    Some(line) => FaultKind::DivisionByZero { register, line },
                };
            }
            _ => {}
        }
        fault(launch, self.state.index, warp, site, stop)
    }

    /// The limit was passed at the first of the lines that it looped over.
    fn limit_passed(&self, launch: &Launch<'_>, limit: u64) -> Box<Fault> {
        let sites = &self.state.looping;
        let lines: BTreeSet<usize> = sites
            .iter()
            .map(|&site| {
                let (image, pc) = locate(launch, site);
                image.function.lines[pc] as usize
            })
            .collect();
        let stop = Stop {
            kind: FaultKind::InstructionLimit {
                limit,
                lines: lines.into_iter().collect(),
            },
            lane: 0,
            access: None,
        };
        let site = sites.first().copied().unwrap_or(0);
        fault(launch, self.state.index, 0, site, stop)
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
        waiting: Vec::new(),
        printed: String::new(),
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
