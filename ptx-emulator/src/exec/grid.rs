//! All blocks of a launch: one after the other, on several cores, or in turns.

use std::sync::atomic::{AtomicU64, Ordering};

use super::block::{Block, Turn};
use super::dependency::first_early;
use super::race::{Races, between_blocks};
use super::stats::Stats;
use crate::device::Launch;
use crate::error::LaunchError;
use crate::fault::Fault;
use crate::report::Report;

/// Runs a launch to its end.
pub(crate) fn run(launch: &Launch<'_>) -> Result<Report, LaunchError> {
    let outcome = if launch.cooperative {
        run_together(launch)
    } else {
        let cores = match launch.config.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        };
        if launch.parallel && cores > 1 && launch.blocks() > 1 {
            run_parallel(launch, cores)
        } else {
            run_one_by_one(launch)
        }
    };
    match outcome.and_then(|stats| first_early(launch).map(|()| stats)) {
        Ok(stats) => Ok(stats.report(launch)),
        Err(mut fault) => {
            let [x, y, z] = fault.block.map(u64::from);
            let [width, height, _] = launch.grid.map(u64::from);
            let block = (z * height + y) * width + x;
            fault.printed = launch.printed.text(Some(block));
            Err(LaunchError::Fault(fault))
        }
    }
}

fn run_block(
    launch: &Launch<'_>,
    block: &mut Block,
    stats: &mut Stats,
    races: &mut Races,
    index: u64,
) -> Result<(), Box<Fault>> {
    block.start(launch, index);
    loop {
        match block.turn(launch, stats, races)? {
            Turn::Done => return Ok(()),
            Turn::Running => {}
            Turn::Stuck => return Err(block.deadlock(launch, stats.effects)),
        }
    }
}

fn run_one_by_one(launch: &Launch<'_>) -> Result<Stats, Box<Fault>> {
    let mut stats = Stats::new(launch);
    let mut races = Races::global(launch);
    let mut block = Block::new();
    if let Some(seed) = launch.config.seed {
        // An order that visits every block once, without a list of them.
        let count = launch.blocks();
        let (step, offset) = (coprime_step(count, seed), seed % count);
        for at in 0..count {
            let index =
                (u128::from(at) * u128::from(step) + u128::from(offset)) % u128::from(count);
            run_block(launch, &mut block, &mut stats, &mut races, index as u64)?;
        }
    } else {
        for index in 0..launch.blocks() {
            run_block(launch, &mut block, &mut stats, &mut races, index)?;
        }
    }
    between_blocks(launch, vec![races])?;
    Ok(stats)
}

/// Blocks go to whichever core is free. A fault of a lower block wins, whoever finds one first, so that the outcome is
/// that of running one by one.
fn run_parallel(launch: &Launch<'_>, cores: usize) -> Result<Stats, Box<Fault>> {
    let next = AtomicU64::new(0);
    let first_fault = AtomicU64::new(u64::MAX);
    let count = launch.blocks();
    let worker = || {
        let mut stats = Stats::new(launch);
        let mut races = Races::global(launch);
        let mut block = Block::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count || index > first_fault.load(Ordering::Relaxed) {
                return Ok((stats, races));
            }
            if let Err(fault) = run_block(launch, &mut block, &mut stats, &mut races, index) {
                first_fault.fetch_min(index, Ordering::Relaxed);
                return Err((index, fault));
            }
        }
    };
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let handles: Vec<_> = (1..cores.min(usize::try_from(count).unwrap_or(usize::MAX)))
            .map(|_| scope.spawn(worker))
            .collect();
        let own = worker();
        let mut outcomes = vec![own];
        for handle in handles {
            match handle.join() {
                Ok(outcome) => outcomes.push(outcome),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        outcomes
    });
    let mut total = Stats::new(launch);
    let mut all_races = Vec::new();
    let mut first: Option<(u64, Box<Fault>)> = None;
    for outcome in outcomes {
        match outcome {
            Ok((stats, races)) => {
                total.add(&stats);
                all_races.push(races);
            }
            Err((index, fault)) => {
                if first.as_ref().is_none_or(|(known, _)| index < *known) {
                    first = Some((index, fault));
                }
            }
        }
    }
    match first {
        None => between_blocks(launch, all_races).map(|()| total),
        Some((_, fault)) => Err(fault),
    }
}

/// All blocks at once, in turns, so that they may wait for each other.
fn run_together(launch: &Launch<'_>) -> Result<Stats, Box<Fault>> {
    let mut stats = Stats::new(launch);
    let mut races = Races::global(launch);
    let mut order: Vec<usize> = (0..launch.blocks() as usize).collect();
    if let Some(seed) = launch.config.seed {
        shuffle(&mut order, seed);
    }
    let mut blocks: Vec<(Block, bool)> = order
        .iter()
        .map(|&index| {
            let mut block = Block::new();
            block.start(launch, index as u64);
            (block, true)
        })
        .collect();
    let mut running = blocks.len();
    while running > 0 {
        let effects = stats.effects;
        let mut stuck = 0;
        for (block, alive) in blocks.iter_mut().filter(|(_, alive)| *alive) {
            match block.turn(launch, &mut stats, &mut races)? {
                Turn::Done => {
                    *alive = false;
                    running -= 1;
                }
                Turn::Running => {}
                Turn::Stuck => stuck += 1,
            }
        }
        if stuck == running && stuck > 0 && stats.effects == effects {
            return Err(grid_deadlock(launch, &blocks, effects));
        }
    }
    Ok(stats)
}

/// Every block that is left waits for another one.
fn grid_deadlock(launch: &Launch<'_>, blocks: &[(Block, bool)], effects: u64) -> Box<Fault> {
    let mut stuck = blocks.iter().filter(|(_, alive)| *alive);
    let mut fault = match stuck.next() {
        Some((block, _)) => block.deadlock(launch, effects),
        None => unreachable!("a deadlock is of at least one block"),
    };
    for (block, _) in stuck {
        fault.waiting.extend(block.waiters(launch));
    }
    fault
}

/// The next number of the splitmix64 generator.
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Fisher and Yates' shuffle.
pub(crate) fn shuffle(items: &mut [usize], seed: u64) {
    let mut state = seed;
    for last in (1..items.len()).rev() {
        let other = (random(&mut state) % (last as u64 + 1)) as usize;
        items.swap(last, other);
    }
}

fn coprime_step(count: u64, seed: u64) -> u64 {
    let gcd = |mut a: u64, mut b: u64| {
        while b != 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    let mut state = seed;
    loop {
        let step = random(&mut state) % count + 1;
        if gcd(step, count) == 1 {
            return step;
        }
    }
}
