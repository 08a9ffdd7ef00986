//! `mbarrier`: objects in shared memory that count arrivals and bytes, phase by phase.

use std::collections::BTreeMap;

use super::access::{Direction, check_alignment};
use super::asynchronous::invalid;
use super::block::Context;
use super::claims::Claim;
use super::copy::Target;
use super::data::set_pred;
use super::lanes::{Row, lanes};
use super::order::Past;
use super::race::MemoryRequest;
use super::shared::prepare_unclaimed;
use super::stop::Step;
use super::warp::Frame;
use crate::isa::{AccessSpace, Inst, MBARRIER_MOST, MbarrierOp, Ordering, Scope};

/// One object.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mbarrier {
    /// Arrivals that the next phase starts with.
    expected: u32,
    pending: u32,
    /// Bytes that are expected and have not been copied.
    bytes: i64,
    phase: u64,
}

/// An arrival that takes place when earlier copies of a thread are done.
#[derive(Debug)]
struct LaterArrival {
    mbarrier: u64,
    thread: u32,
    sequence: u64,
    /// What the thread had done before, where races are looked for.
    past: Past,
}

/// The objects of a block, by address.
#[derive(Debug, Default)]
pub(crate) struct Mbarriers {
    objects: BTreeMap<u64, Mbarrier>,
    later: Vec<LaterArrival>,
}

/// The opaque state of a phase: it counts the phases and the pending arrivals.
fn state(object: &Mbarrier) -> u64 {
    object.phase << 21 | u64::from(object.pending) << 1 | 1
}

/// `mbarrier.pending_count`.
pub(crate) fn pending_count(state: u64) -> u64 {
    state >> 1 & u64::from(MBARRIER_MOST)
}

impl Mbarriers {
    pub(crate) fn clear(&mut self) {
        self.objects.clear();
        self.later.clear();
    }

    pub(super) fn object(&mut self, address: u64, lane: usize) -> Step<&mut Mbarrier> {
        match self.objects.get_mut(&address) {
            Some(object) => Ok(object),
            None => invalid(lane, format!("there is no mbarrier at {address:#x}")),
        }
    }
}

impl Mbarrier {
    /// Ends the phase where nothing is pending.
    fn settle(&mut self) {
        if self.pending == 0 && self.bytes == 0 {
            self.phase += 1;
            self.pending = self.expected;
        }
    }

    fn arrive(&mut self, count: u32, lane: usize) -> Step<()> {
        if count == 0 || count > self.pending {
            let pending = self.pending;
            return invalid(
                lane,
                format!("{count} arrivals where {pending} are expected"),
            );
        }
        self.pending -= count;
        self.settle();
        Ok(())
    }

    /// Expects more bytes, or, where negative, fewer.
    fn expect(&mut self, bytes: i64, lane: usize) -> Step<()> {
        self.bytes += bytes;
        if self.bytes.unsigned_abs() > u64::from(MBARRIER_MOST) {
            let bytes = self.bytes;
            return invalid(
                lane,
                format!("{bytes} bytes are more than an mbarrier can count"),
            );
        }
        Ok(())
    }
}

/// How an instruction uses an mbarrier's bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    Set,
    Update,
    Look,
}

/// Checks a lane's use of an mbarrier as an access to its 8 bytes.
fn access(
    context: &mut Context<'_>,
    warp: u32,
    addresses: &Row,
    lane: usize,
    ordering: Ordering,
    how: Use,
) -> Step<()> {
    let active = 1 << lane;
    check_alignment(addresses, active, 8, AccessSpace::Shared)?;
    let request = MemoryRequest {
        warp,
        addresses,
        active,
        size: 8,
        element: 8,
        used_bytes: u32::MAX,
        ordering,
        scope: Scope::Block,
        non_coherent: false,
        atomic: how == Use::Update,
        direction: if how == Use::Look {
            Direction::Load
        } else {
            Direction::Store
        },
        stored: None,
    };
    prepare_unclaimed(context, request)
}

/// Lets what was to happen at an mbarrier happen: copies land, and arrivals take place.
fn deliver(context: &mut Context<'_>, address: u64, lane: usize) -> Step<()> {
    let block = &mut *context.block;
    let mut target = Target {
        shared: &mut block.shared,
        order: &mut block.order,
        races: context.checks.races,
    };
    let state = &mut block.asynchronous;
    let (landed, left): (Vec<_>, Vec<_>) = state
        .bulk
        .loads
        .drain(..)
        .partition(|load| load.mbarrier == address);
    state.bulk.loads = left;
    for load in landed {
        load.bytes.land(&mut target, true);
        target.release(address, load.bytes.thread, load.past);
        let object = state.mbarriers.object(address, lane)?;
        object.expect(-(load.bytes.data.len() as i64), lane)?;
        object.settle();
    }
    let (arriving, left): (Vec<_>, Vec<_>) = state
        .mbarriers
        .later
        .drain(..)
        .partition(|arrival| arrival.mbarrier == address);
    state.mbarriers.later = left;
    for arrival in arriving {
        let (thread, sequence) = (arrival.thread, arrival.sequence);
        state.copies.finish(thread, sequence, &mut target);
        target.release(address, thread, arrival.past);
        state.mbarriers.object(address, lane)?.arrive(1, lane)?;
    }
    Ok(())
}

/// `cp.async.mbarrier.arrive` of some lanes.
pub(super) fn arrive_later(
    context: &mut Context<'_>,
    warp: u32,
    addresses: &Row,
    active: u32,
    counted: bool,
) -> Step<()> {
    let before = context.block.asynchronous.mbarriers.later.len();
    for lane in lanes(active) {
        arrive_later_at(context, warp * 32 + lane as u32, addresses, lane, counted)?;
    }
    if context.checks.races {
        let past = context.block.order.issue(warp as usize);
        let later = &mut context.block.asynchronous.mbarriers.later;
        for arrival in &mut later[before..] {
            arrival.past.clone_from(&past);
        }
    }
    Ok(())
}

fn arrive_later_at(
    context: &mut Context<'_>,
    thread: u32,
    addresses: &Row,
    lane: usize,
    counted: bool,
) -> Step<()> {
    access(
        context,
        thread / 32,
        addresses,
        lane,
        Ordering::Relaxed,
        Use::Update,
    )?;
    let address = addresses[lane];
    let state = &mut context.block.asynchronous;
    let object = state.mbarriers.object(address, lane)?;
    if !counted {
        if object.pending == MBARRIER_MOST {
            return invalid(lane, format!("more than {MBARRIER_MOST} pending arrivals"));
        }
        object.pending += 1;
    }
    let sequence = state.copies.sequence;
    let known = state
        .mbarriers
        .later
        .iter()
        .filter(|later| later.mbarrier == address);
    if known.count() > MBARRIER_MOST as usize {
        return invalid(lane, format!("more than {MBARRIER_MOST} pending arrivals"));
    }
    state.mbarriers.later.push(LaterArrival {
        mbarrier: address,
        thread,
        sequence,
        past: Past::default(),
    });
    Ok(())
}

/// Whether the phase that a wait names is over.
fn is_over(object: &Mbarrier, operand: u64, parity: bool, lane: usize) -> Step<bool> {
    if parity {
        return match operand {
            0 | 1 => Ok(object.phase & 1 != operand),
            other => invalid(lane, format!("the parity is {other}, must be 0 or 1")),
        };
    }
    let (phase, valid) = (operand >> 21, operand & 1 == 1);
    if !valid || phase > object.phase || phase + 1 < object.phase {
        let reason = "the state is not of this mbarrier's current or previous phase".to_owned();
        return invalid(lane, reason);
    }
    Ok(phase < object.phase)
}

/// One `mbarrier` instruction. `addresses` are in shared memory.
pub(super) fn execute(
    context: &mut Context<'_>,
    frame: &mut Frame,
    op: MbarrierOp,
    addresses: &Row,
    inst: &Inst,
    active: u32,
    warp: u32,
) -> Step<()> {
    let operands = frame.rows[inst.src[1] as usize];
    for lane in lanes(active) {
        let address = addresses[lane];
        let operand = operands[lane];
        let count = operand as u32;
        let in_range = |what: &str, least: u32| {
            if (least..=MBARRIER_MOST).contains(&count) {
                return Ok(());
            }
            invalid(
                lane,
                format!("{what} is {count}, must be from {least} to {MBARRIER_MOST}"),
            )
        };
        match op {
            MbarrierOp::Init => {
                in_range("the count", 1)?;
                let objects = &context.block.asynchronous.mbarriers.objects;
                if objects.contains_key(&address) {
                    let reason =
                        "an mbarrier in use has to be invalidated before it is initialized again";
                    return invalid(lane, reason.to_owned());
                }
                access(context, warp, addresses, lane, Ordering::Weak, Use::Set)?;
                let mut row = [0; 32];
                row[lane] = address;
                let races = context.checks.races;
                let shared = &mut context.block.shared;
                shared.claims.check(&row, 1 << lane, 8, true, races)?;
                shared.store(address as usize, 8, 0);
                let size = shared.bytes.len();
                let claims = shared.claims.range(size, address as usize, 8);
                claims.fill(Claim::Mbarrier);
                let object = Mbarrier {
                    expected: count,
                    pending: count,
                    bytes: 0,
                    phase: 0,
                };
                let mbarriers = &mut context.block.asynchronous.mbarriers;
                mbarriers.objects.insert(address, object);
            }
            MbarrierOp::Invalidate => {
                // Other lanes of the warp have waited here: `cuda::pipeline` lets one of them clear up after a `match.sync`, which
                // orders execution alone.
                if context.checks.races {
                    context.block.order.warp_sync(warp as usize);
                }
                access(context, warp, addresses, lane, Ordering::Weak, Use::Set)?;
                let mbarriers = &mut context.block.asynchronous.mbarriers;
                mbarriers.object(address, lane)?;
                mbarriers.objects.remove(&address);
                let shared = &mut context.block.shared;
                let size = shared.bytes.len();
                let claims = shared.claims.range(size, address as usize, 8);
                claims.fill(Claim::Free);
                shared.forget(address as usize, 8);
            }
            MbarrierOp::ExpectTx | MbarrierOp::CompleteTx => {
                in_range("the number of bytes", 0)?;
                access(
                    context,
                    warp,
                    addresses,
                    lane,
                    Ordering::Relaxed,
                    Use::Update,
                )?;
                let object = context.block.asynchronous.mbarriers.object(address, lane)?;
                let bytes = match op {
                    MbarrierOp::ExpectTx => i64::from(count),
                    _ => -i64::from(count),
                };
                object.expect(bytes, lane)?;
                // Bytes can be announced after they have been copied, and after the last arrival.
                object.settle();
            }
            MbarrierOp::Arrive {
                has_count,
                expect_tx,
                drop,
                no_complete,
                release,
            } => {
                let ordering = if release {
                    Ordering::Release
                } else {
                    Ordering::Relaxed
                };
                access(context, warp, addresses, lane, ordering, Use::Update)?;
                let object = context.block.asynchronous.mbarriers.object(address, lane)?;
                let before = state(object);
                if expect_tx {
                    in_range("the number of bytes", 0)?;
                    object.expect(count.into(), lane)?;
                }
                let arrivals = if has_count && !expect_tx { count } else { 1 };
                if no_complete && arrivals == object.pending {
                    let reason = "`.noComplete` arrivals complete the phase".to_owned();
                    return invalid(lane, reason);
                }
                if drop {
                    object.expected = object.expected.saturating_sub(arrivals);
                }
                object.arrive(arrivals, lane)?;
                frame.rows[inst.dst as usize][lane] = before;
                frame.initialized[inst.dst as usize] |= 1 << lane;
            }
            MbarrierOp::Wait {
                parity,
                acquire,
                dst,
            } => {
                access(context, warp, addresses, lane, Ordering::Relaxed, Use::Look)?;
                let over = |context: &mut Context<'_>| {
                    let mbarriers = &mut context.block.asynchronous.mbarriers;
                    is_over(mbarriers.object(address, lane)?, operand, parity, lane)
                };
                // Copies land only where the phase waits for them: one that does not was not announced.
                let mut done = over(context)?;
                if !done {
                    deliver(context, address, lane)?;
                    done = over(context)?;
                }
                if done && acquire && context.checks.races {
                    let block = &mut *context.block;
                    let races = &block.shared.races;
                    races.acquire(&mut block.order, address, warp as usize);
                }
                set_pred(frame, dst, 1 << lane, if done { 1 << lane } else { 0 });
            }
        }
    }
    Ok(())
}
