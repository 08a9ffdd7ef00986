//! A warp: its lanes' registers, and the paths that they are on.
//!
//! Lanes that are at one place form a [`Split`]. A divergent branch turns one split into two, and makes a [`Join`] where
//! they meet again: at the branch's immediate post-dominator. A call makes a join as well, at the instruction after it.
//! Splits of a warp take turns, so lanes that wait for others of their warp do not keep them from running.

use std::collections::BTreeMap;

use super::Row;
use super::lanes::FULL;
use super::together::Meeting;
use crate::device::{Image, Launch, RESERVED_SHARED};
use crate::isa::{ParamPlace, Slot, Special};
use crate::load::NO_JOIN;

/// No join: lanes run until they exit.
pub(crate) const NO_PARENT: u32 = u32::MAX;

/// Program counter of joins that only `ret` reaches.
const RETURN_PC: u32 = NO_JOIN;

/// Lanes at one place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Split {
    pub(crate) pc: u32,
    pub(crate) mask: u32,
    pub(crate) frame: u32,
    /// Where these lanes meet others, or [`NO_PARENT`].
    pub(crate) join: u32,
    pub(crate) wait: Wait,
}

/// What a split waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    Nothing,
    /// These lanes wait for others of their warp: see [`super::together`].
    Lanes(u32),
    /// Lanes that were waited for are there: run the instruction for all of these.
    Together(u32),
    /// A barrier of the block.
    Barrier(u8),
}

/// A place where lanes meet.
#[derive(Debug, Clone)]
struct Join {
    pc: u32,
    frame: u32,
    /// Lanes still on their way.
    pending: u32,
    arrived: u32,
    parent: u32,
    /// Frame to drop once all lanes have returned from it.
    callee: Option<u32>,
    /// Where the callee puts its results, and where the caller wants them.
    results: Vec<(ParamPlace, ParamPlace)>,
}

/// Registers of one function call.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    pub(crate) function: u32,
    /// Calls that led here, one inside the other.
    pub(crate) depth: u32,
    pub(crate) rows: Vec<Row>,
    /// For each row, the lanes that were written.
    pub(crate) initialized: Vec<u32>,
    /// Rows of which some lanes have a value in some elements only.
    pub(crate) partly_packed: Vec<PartlyPacked>,
    pub(crate) preds: Vec<u32>,
    pub(crate) preds_initialized: Vec<u32>,
    /// Parameter bytes, lane by lane.
    pub(crate) params: Vec<u8>,
    /// For each parameter byte, the lanes in which it was written.
    pub(crate) params_initialized: Vec<u32>,
    /// Condition-code register, and the lanes in which it was written since the last call.
    pub(crate) carry: u32,
    pub(crate) carry_initialized: u32,
    /// Where the frame's local memory starts and ends, the same for every lane.
    pub(crate) local_base: u32,
    pub(crate) local_end: u32,
}

/// A row that was packed from elements, some of them without a value: as a whole it counts as not written.
#[derive(Debug, Clone)]
pub(crate) struct PartlyPacked {
    pub(crate) slot: Slot,
    /// Lanes that were packed in this way.
    pub(crate) lanes: u32,
    /// Of an element.
    pub(crate) bits: u32,
    /// For each element, the lanes that have a value in it.
    pub(crate) known: [u32; 8],
}

/// Local memory of one lane, and which bytes were written.
#[derive(Debug, Default)]
pub(crate) struct Local {
    pub(crate) bytes: Vec<u8>,
    pub(crate) written: Vec<bool>,
}

#[derive(Debug)]
pub(crate) struct Warp {
    pub(crate) index: u32,
    /// Lanes that exist.
    pub(crate) lanes: u32,
    pub(crate) exited: u32,
    pub(crate) splits: Vec<Split>,
    /// For each lane that waits for others, where they meet.
    pub(super) meetings: [Meeting; 32],
    joins: Vec<Join>,
    free_joins: Vec<u32>,
    pub(crate) frames: Vec<Frame>,
    free_frames: Vec<u32>,
    pub(crate) local: Vec<Local>,
    /// For each integer division, by its site, the lanes that divided by zero there.
    pub(crate) divided_by_zero: BTreeMap<usize, u32>,
}

impl Warp {
    pub(crate) fn new(index: u32) -> Self {
        Self {
            index,
            lanes: 0,
            exited: 0,
            splits: Vec::new(),
            meetings: [Meeting::default(); 32],
            joins: Vec::new(),
            free_joins: Vec::new(),
            frames: Vec::new(),
            free_frames: Vec::new(),
            local: (0..32).map(|_| Local::default()).collect(),
            divided_by_zero: BTreeMap::new(),
        }
    }

    /// Puts all lanes at the start of the kernel.
    pub(crate) fn start(&mut self, launch: &Launch<'_>, block: [u32; 3]) {
        let threads = launch.threads() - self.index * 32;
        self.lanes = if threads >= 32 {
            FULL
        } else {
            (1 << threads) - 1
        };
        self.exited = 0;
        self.joins.clear();
        self.free_joins.clear();
        self.free_frames = (0..self.frames.len() as u32).rev().collect();
        self.divided_by_zero.clear();
        let frame = self.push_frame(launch, launch.entry.function, block, self.lanes, 0, 0);
        self.splits.clear();
        self.splits.push(Split {
            pc: 0,
            mask: self.lanes,
            frame,
            join: NO_PARENT,
            wait: Wait::Nothing,
        });
    }

    /// Makes the frame of a function, with its constants in place. Its local memory starts at `local_base`.
    pub(crate) fn push_frame(
        &mut self,
        launch: &Launch<'_>,
        function: u32,
        block: [u32; 3],
        lanes: u32,
        depth: u32,
        local_base: u32,
    ) -> u32 {
        let index = self.free_frames.pop().unwrap_or_else(|| {
            self.frames.push(Frame {
                function: 0,
                depth: 0,
                rows: Vec::new(),
                initialized: Vec::new(),
                partly_packed: Vec::new(),
                preds: Vec::new(),
                preds_initialized: Vec::new(),
                params: Vec::new(),
                params_initialized: Vec::new(),
                carry: 0,
                carry_initialized: 0,
                local_base: 0,
                local_end: 0,
            });
            self.frames.len() as u32 - 1
        });
        let image = &launch.images[function as usize];
        let local_end = local_base + image.function.local_bytes;
        for lane in super::lanes::lanes(lanes) {
            let local = &mut self.local[lane];
            let (start, end) = (local_base as usize, local_end as usize);
            if local.bytes.len() < end {
                local.bytes.resize(end, 0);
                local.written.resize(end, false);
            }
            local.bytes[start..end].fill(0);
            local.written[start..end].fill(false);
        }
        let frame = &mut self.frames[index as usize];
        frame.function = function;
        frame.depth = depth;
        frame.rows.clone_from(&image.rows);
        frame.initialized.clone_from(&image.initialized);
        frame.partly_packed.clear();
        let preds = image.function.preds;
        frame.preds.clear();
        frame.preds.resize(preds, 0);
        frame.preds[0] = FULL;
        frame.preds_initialized.clear();
        frame.preds_initialized.resize(preds, 0);
        frame.preds_initialized[0] = FULL;
        frame.params.clear();
        frame
            .params
            .resize(32 * image.function.param_bytes as usize, 0);
        frame.params_initialized.clear();
        frame
            .params_initialized
            .resize(image.function.param_bytes as usize, 0);
        frame.carry = 0;
        frame.carry_initialized = 0;
        frame.local_base = local_base;
        frame.local_end = local_end;
        fill_specials(frame, image, launch, self.index, block);
        for &(slot, value) in &image.locals {
            frame.rows[slot as usize] = [value + u64::from(local_base); 32];
        }
        index
    }

    pub(crate) fn is_done(&self) -> bool {
        self.splits.is_empty()
    }

    pub(crate) fn live(&self) -> u32 {
        self.lanes & !self.exited
    }

    /// The program counter at which a split meets others.
    pub(crate) fn join_pc(&self, split: &Split) -> u32 {
        match self.joins.get(split.join as usize) {
            Some(join) if join.frame == split.frame => join.pc,
            _ => RETURN_PC,
        }
    }

    fn new_join(&mut self, join: Join) -> u32 {
        match self.free_joins.pop() {
            Some(index) => {
                self.joins[index as usize] = join;
                index
            }
            None => {
                self.joins.push(join);
                self.joins.len() as u32 - 1
            }
        }
    }

    /// Parts a split at a branch. Lanes in `taken` go to `target`, the others to `next`.
    pub(crate) fn diverge(&mut self, at: usize, taken: u32, target: u32, next: u32, meet: u32) {
        let split = self.splits[at];
        let join = if meet == NO_JOIN || self.join_pc(&split) == meet {
            split.join
        } else {
            self.new_join(Join {
                pc: meet,
                frame: split.frame,
                pending: split.mask,
                arrived: 0,
                parent: split.join,
                callee: None,
                results: Vec::new(),
            })
        };
        let others = split.mask & !taken;
        self.splits[at] = Split {
            pc: next,
            mask: others,
            join,
            ..split
        };
        self.splits.push(Split {
            pc: target,
            mask: taken,
            join,
            ..split
        });
    }

    /// A split has reached its join.
    pub(crate) fn arrive(&mut self, at: usize) {
        let split = self.splits.swap_remove(at);
        let join = &mut self.joins[split.join as usize];
        join.arrived |= split.mask;
        join.pending &= !split.mask;
        self.settle(split.join);
    }

    /// Lets lanes go on from joins that wait for nobody any more.
    fn settle(&mut self, mut index: u32) {
        while index != NO_PARENT {
            let join = &self.joins[index as usize];
            if join.pending != 0 {
                return;
            }
            let (parent, arrived, pc, frame) = (join.parent, join.arrived, join.pc, join.frame);
            let callee = join.callee;
            self.free_joins.push(index);
            if let Some(callee) = callee {
                self.free_frames.push(callee);
            }
            if arrived != 0 {
                self.splits.push(Split {
                    pc,
                    mask: arrived,
                    frame,
                    join: parent,
                    wait: Wait::Nothing,
                });
                return;
            }
            index = parent;
        }
    }

    /// Lanes of a split end; the split goes on without them, or ends.
    pub(crate) fn exit(&mut self, at: usize, lanes: u32) {
        self.exited |= lanes;
        let split = &mut self.splits[at];
        split.mask &= !lanes;
        let (left, join) = (split.mask, split.join);
        let mut index = join;
        while index != NO_PARENT {
            let join = &mut self.joins[index as usize];
            join.pending &= !lanes;
            index = join.parent;
        }
        if left == 0 {
            self.splits.swap_remove(at);
            self.settle(join);
        }
    }

    /// Lanes call a function whose frame is ready; `next` is where they go on.
    pub(crate) fn enter(
        &mut self,
        at: usize,
        lanes: u32,
        callee: u32,
        next: u32,
        results: Vec<(ParamPlace, ParamPlace)>,
    ) {
        let split = self.splits[at];
        // Lanes that do not call wait at the next instruction, which is where the call ends.
        let join = self.new_join(Join {
            pc: next,
            frame: split.frame,
            pending: lanes,
            arrived: split.mask & !lanes,
            parent: split.join,
            callee: Some(callee),
            results,
        });
        self.splits[at] = Split {
            pc: 0,
            mask: lanes,
            frame: callee,
            join,
            wait: Wait::Nothing,
        };
    }

    /// Lanes of a split return from a function. Returns false where they are in the kernel itself.
    pub(crate) fn leave(&mut self, at: usize, lanes: u32) -> bool {
        let split = self.splits[at];
        let mut index = split.join;
        // Joins inside the function do not get these lanes any more.
        let mut inner = Vec::new();
        while index != NO_PARENT && self.joins[index as usize].callee != Some(split.frame) {
            inner.push(index);
            index = self.joins[index as usize].parent;
        }
        if index == NO_PARENT {
            return false;
        }
        for &inner in &inner {
            self.joins[inner as usize].pending &= !lanes;
        }
        let call = &mut self.joins[index as usize];
        call.pending &= !lanes;
        call.arrived |= lanes;
        super::call::copy_results(
            &mut self.frames,
            split.frame,
            call.frame,
            &call.results,
            lanes,
        );
        let join = split.join;
        self.splits[at].mask &= !lanes;
        if self.splits[at].mask == 0 {
            self.splits.swap_remove(at);
            self.settle(join);
        }
        true
    }
}

fn fill_specials(
    frame: &mut Frame,
    image: &Image<'_>,
    launch: &Launch<'_>,
    warp: u32,
    block: [u32; 3],
) {
    let warps = launch.threads().div_ceil(32);
    for &(slot, special, bits) in &image.specials {
        let row = &mut frame.rows[slot as usize];
        for (lane, value) in row.iter_mut().enumerate() {
            let lane = lane as u32;
            let number = match special {
                Special::Tid(axis) => launch.thread_index(warp * 32 + lane)[usize::from(axis)],
                Special::Ntid(axis) => launch.block[usize::from(axis)],
                Special::Ctaid(axis) => block[usize::from(axis)],
                Special::Nctaid(axis) => launch.grid[usize::from(axis)],
                Special::LaneId => lane,
                Special::WarpId => warp,
                Special::NWarpId => warps,
                Special::SmId | Special::GridId => 0,
                Special::NSmId => 1,
                Special::LaneMaskEq => 1 << lane,
                Special::LaneMaskLe => u32::MAX >> (31 - lane),
                Special::LaneMaskLt => (1 << lane) - 1,
                Special::LaneMaskGe => u32::MAX << lane,
                Special::LaneMaskGt => u32::MAX << lane & !(1 << lane),
                Special::DynamicSmemSize => launch.dynamic_shared,
                Special::TotalSmemSize => launch.shared_taken(),
                Special::AggrSmemSize => launch.shared_taken() + RESERVED_SHARED,
                // The ABI of cooperative groups: the address of the grid's workspace.
                Special::EnvReg(1) => (launch.workspace >> 32) as u32,
                Special::EnvReg(2) => launch.workspace as u32,
                Special::EnvReg(_) => 0,
                Special::Fixed(value) => value,
            };
            *value = u64::from(number) & (u64::MAX >> (64 - bits));
        }
    }
}
