//! Races: requests to shared and global memory, against those that nothing orders.

use super::access::Direction;
use super::between::{BlockRace, block_race};
use super::block::{Context, locate};
use super::dependency::check_early;
use super::lanes::{Row, lanes};
use super::order::{Locations, Order, Past, StrongWrite};
use super::record::{Kind, Record};
use super::shadow::{Others, Race, Request, SameValue, Shadow};
use super::shared::Shared;
use super::stop::{Step, Stop};
use crate::device::Launch;
use crate::fault::{Fault, FaultKind, Site, Space};
use crate::isa::{Access, Ordering, Scope, Slot};

/// Accesses to one memory, and the order that its locations carry.
#[derive(Debug)]
pub(crate) struct Races {
    shadow: Shadow,
    locations: Locations,
}

/// A request of a warp to shared or global memory.
#[derive(Clone, Copy)]
pub(super) struct MemoryRequest<'a> {
    pub(super) warp: u32,
    pub(super) addresses: &'a Row,
    pub(super) active: u32,
    pub(super) size: usize,
    /// Of which an element of a vector has so many.
    pub(super) element: usize,
    /// The bytes that a load uses.
    pub(super) used_bytes: u32,
    pub(super) ordering: Ordering,
    pub(super) scope: Scope,
    /// What it reads must not change during the launch.
    pub(super) non_coherent: bool,
    /// Reads or writes; an atomic that gives its old value loads, a reduction stores.
    pub(super) direction: Direction,
    pub(super) atomic: bool,
    /// What an `st` writes, where it is known.
    pub(super) stored: Option<Stored<'a>>,
}

impl<'a> MemoryRequest<'a> {
    /// What an `ld` or `st` asks for.
    pub(super) fn new(
        access: &Access,
        warp: u32,
        addresses: &'a Row,
        active: u32,
        size: usize,
        direction: Direction,
    ) -> Self {
        Self {
            warp,
            addresses,
            active,
            size,
            element: access.bytes.into(),
            used_bytes: access.used_bytes,
            ordering: access.ordering,
            scope: access.scope,
            non_coherent: access.non_coherent,
            direction,
            atomic: false,
            stored: None,
        }
    }
}

/// The elements that the lanes of an `st` write.
#[derive(Clone, Copy)]
pub(super) struct Stored<'a> {
    pub(super) rows: &'a [Row],
    pub(super) access: &'a Access,
}

impl Stored<'_> {
    /// Which lanes write what is in `memory` already, and which write what others of them write.
    #[cold]
    fn same(&self, addresses: &Row, active: u32, memory: &[u8]) -> SameValue {
        let bytes = usize::from(self.access.bytes);
        let value = |slot: Slot, lane: usize| {
            self.rows[slot as usize][lane] & (u64::MAX >> (64 - 8 * bytes))
        };
        let slots = (0usize..).step_by(bytes).zip(&self.access.elements);
        let mut same = SameValue::default();
        for lane in lanes(active) {
            let unchanged = slots.clone().all(|(offset, &slot)| {
                let start = addresses[lane] as usize + offset;
                let known = memory.get(start..start + bytes);
                known == Some(&value(slot, lane).to_le_bytes()[..bytes])
            });
            let mut lower = lanes(active & !(u32::MAX << lane))
                .filter(|&lower| addresses[lower] == addresses[lane]);
            let repeated = lower.all(|lower| {
                slots
                    .clone()
                    .all(|(_, &slot)| value(slot, lower) == value(slot, lane))
            });
            same.earlier |= u32::from(unchanged) << lane;
            same.own |= u32::from(repeated) << lane;
        }
        same
    }
}

impl Races {
    /// Of a block's shared memory.
    pub(crate) fn shared() -> Self {
        Self::new(Others::Stale)
    }

    /// Of global memory.
    pub(crate) fn global(launch: &Launch<'_>) -> Self {
        Self::new(if launch.independent {
            Others::Unordered
        } else {
            Others::Ordered
        })
    }

    fn new(others: Others) -> Self {
        Self {
            shadow: Shadow::new(others),
            locations: Locations::default(),
        }
    }

    /// A new block's shared memory carries no order.
    pub(crate) fn start(&mut self) {
        self.locations.clear();
    }

    /// Notes a request. `memory` is what shared memory holds, and empty for global memory: that may change meanwhile.
    fn check(
        &mut self,
        order: &mut Order,
        request: MemoryRequest<'_>,
        site: usize,
        memory: &[u8],
    ) -> Result<(), Race> {
        let MemoryRequest {
            warp,
            addresses,
            active,
            size,
            element,
            used_bytes: _,
            ordering,
            scope,
            non_coherent,
            direction,
            atomic,
            stored,
        } = request;
        let strong = atomic || ordering != Ordering::Weak;
        let reads = direction == Direction::Load;
        let writes = atomic || direction == Direction::Store;
        if strong && reads {
            let acquire = matches!(ordering, Ordering::Acquire | Ordering::AcqRel);
            for word in words(addresses, active, size) {
                order.observe(&self.locations, word, warp as usize, acquire, scope);
            }
        }
        let kind = Kind {
            read: reads,
            write: writes,
            strong,
            device: strong && scope == Scope::Device,
            landed: false,
            non_coherent,
            element,
        };
        let request = Request {
            warp,
            addresses,
            active,
            size,
            site,
            kind,
            same: SameValue::default(),
        };
        if let Err(race) = self.shadow.request(order, request) {
            let (Some(stored), true) = (stored, race.earlier.is_weak_write()) else {
                return Err(race);
            };
            // What the first attempt has noted, the second one replaces.
            let same = stored.same(addresses, active, memory);
            self.shadow.request(order, Request { same, ..request })?;
        }
        if strong && writes {
            let write = StrongWrite {
                scope,
                release: matches!(ordering, Ordering::Release | Ordering::AcqRel),
                read_modify_write: atomic,
            };
            for word in words(addresses, active, size) {
                order.publish(&mut self.locations, word, warp as usize, write);
            }
        }
        Ok(())
    }

    /// Notes an access by one thread that an instruction of its past makes: `site` is that of the instruction.
    pub(super) fn note(&mut self, order: &mut Order, copy: CopyAccess) -> Result<(), Race> {
        let lane = copy.thread as usize % 32;
        let mut addresses = [0; 32];
        // In pieces that an instruction could have; addresses are multiples of them.
        let piece = copy.bytes & copy.bytes.wrapping_neg();
        let piece = piece.clamp(1, 16);
        for offset in (0..copy.bytes).step_by(piece) {
            addresses[lane] = copy.address + offset as u64;
            let request = Request {
                warp: copy.thread / 32,
                addresses: &addresses,
                active: 1 << lane,
                size: piece,
                site: copy.site as usize,
                kind: Kind {
                    read: copy.direction == Direction::Load,
                    write: copy.direction == Direction::Store,
                    strong: false,
                    device: false,
                    landed: copy.landed,
                    non_coherent: false,
                    element: piece,
                },
                same: SameValue::default(),
            };
            self.shadow.request(order, request)?;
        }
        Ok(())
    }

    /// What a warp issued after some past has happened: that becomes known to those that learn it from a location.
    pub(super) fn release(&mut self, order: &mut Order, address: u64, warp: usize, past: Past) {
        order.publish_landed(&mut self.locations, address / 4, warp, past);
    }

    /// A warp learns what was released to a location.
    pub(super) fn acquire(&self, order: &mut Order, address: u64, warp: usize) {
        order.observe(&self.locations, address / 4, warp, true, Scope::Block);
    }
}

/// What an asynchronous copy accesses in one memory.
#[derive(Clone, Copy)]
pub(super) struct CopyAccess {
    pub(super) thread: u32,
    pub(super) site: u32,
    pub(super) address: u64,
    pub(super) bytes: usize,
    pub(super) direction: Direction,
    /// It happens by itself, at any time after its thread has issued it.
    pub(super) landed: bool,
}

/// Checks what a copy does to shared memory.
pub(super) fn check_shared_copy(context: &mut Context<'_>, copy: CopyAccess) -> Step<()> {
    if !context.checks.races {
        return Ok(());
    }
    let block = &mut *context.block;
    match block.shared.races.note(&mut block.order, copy) {
        Ok(()) => Ok(()),
        Err(race) => shared_race(context, race),
    }
}

/// Checks what a copy does to global memory.
pub(super) fn check_global_copy(context: &mut Context<'_>, copy: CopyAccess) -> Step<()> {
    if !context.checks.races {
        return Ok(());
    }
    let (warp, lane) = (copy.thread / 32, copy.thread % 32);
    if context.block.dependency.is_early(warp, 1 << lane) {
        let addresses = [copy.address; 32];
        check_early(context, warp, &addresses, 1 << lane, copy.direction);
    }
    match context.races.note(&mut context.block.order, copy) {
        Ok(()) => Ok(()),
        Err(race) => global_race(context, race, false),
    }
}

/// Checks a request to shared memory.
pub(super) fn check_shared(context: &mut Context<'_>, request: MemoryRequest<'_>) -> Step<()> {
    let block = &mut *context.block;
    let Shared { bytes, races, .. } = &mut block.shared;
    let outcome = races.check(&mut block.order, request, context.site, bytes);
    match outcome {
        Ok(()) => Ok(()),
        Err(race) => shared_race(context, race),
    }
}

fn shared_race(context: &Context<'_>, race: Race) -> Step<()> {
    let other = site(context.launch, &race.earlier);
    Stop::access(
        FaultKind::SharedRace { other },
        race.lane as u32,
        Space::Shared,
        race.address,
    )
}

/// Checks a request to global memory.
pub(super) fn check_global(context: &mut Context<'_>, request: MemoryRequest<'_>) -> Step<()> {
    let (warp, active) = (request.warp, request.active);
    if context.block.dependency.is_early(warp, active) {
        let direction = if request.atomic {
            Direction::Store
        } else {
            request.direction
        };
        check_early(context, warp, request.addresses, active, direction);
    }
    let order = &mut context.block.order;
    let outcome = context.races.check(order, request, context.site, &[]);
    match outcome {
        Ok(()) => Ok(()),
        Err(race) => global_race(context, race, request.non_coherent),
    }
}

fn global_race(context: &Context<'_>, race: Race, non_coherent: bool) -> Step<()> {
    Stop::access(
        global_kind(context.launch, &race.earlier, non_coherent),
        race.lane as u32,
        Space::Global,
        race.address,
    )
}

/// What a race in global memory is. `non_coherent` says what the later access is.
fn global_kind(launch: &Launch<'_>, earlier: &Record, non_coherent: bool) -> FaultKind {
    let other = site(launch, earlier);
    if non_coherent || earlier.is_non_coherent() {
        FaultKind::NonCoherentRead { other }
    } else {
        FaultKind::GlobalRace { other }
    }
}

fn site(launch: &Launch<'_>, record: &Record) -> Site {
    let (image, pc) = locate(launch, record.site as usize);
    let line = image.function.lines[pc] as usize;
    let (file, source_line) = image.function.locations[pc];
    Site {
        line,
        instruction: launch.module.text(line).to_owned(),
        source: launch
            .module
            .file(file)
            .map(|file| (file.to_owned(), source_line as usize)),
        block: launch.block_index(record.block.into()),
        thread: launch.thread_index(record.thread.into()),
        write: record.is_write(),
    }
}

/// At the end of a launch whose blocks nothing orders: a byte that one block wrote and another one accessed.
pub(crate) fn between_blocks(launch: &Launch<'_>, races: Vec<Races>) -> Result<(), Box<Fault>> {
    if !launch.independent {
        return Ok(());
    }
    let shadows: Vec<_> = races.into_iter().map(|races| races.shadow).collect();
    let Some(BlockRace {
        address,
        earlier,
        later,
    }) = block_race(&shadows)
    else {
        return Ok(());
    };
    let stop = Stop {
        kind: global_kind(launch, &earlier, later.is_non_coherent()),
        lane: u32::from(later.thread) % 32,
        access: Some((Space::Global, address)),
    };
    Err(super::block::fault(
        launch,
        launch.block_index(later.block.into()),
        usize::from(later.thread) / 32,
        later.site as usize,
        stop,
    ))
}

/// The words of a request, which are the locations that carry order.
fn words(addresses: &Row, active: u32, size: usize) -> impl Iterator<Item = u64> {
    lanes(active).flat_map(move |lane| {
        let address = addresses[lane];
        address / 4..(address + size as u64).div_ceil(4)
    })
}
