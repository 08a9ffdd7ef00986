//! Times of launches: events between replays of a graph.

use crate::operations::Operation;
use anyhow::{Context, Result};
use bitnet_cuda::device::{Event, Graph, Stream};
use kernel_benches::Time;
use kernel_benches::statistics::summarize;

/// How long and how often.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// A replay is made of enough launches to take this long: the gap between two replays then counts for little.
    pub replay_us: f64,
    /// Time to spend on the replays of a measurement.
    pub budget_us: f64,
    /// Replays of a measurement.
    pub min_rounds: usize,
    pub max_rounds: usize,
}

impl Settings {
    /// Rounds of a measurement where one takes `round_us`.
    fn rounds(&self, round_us: f64) -> usize {
        ((self.budget_us / round_us) as usize).clamp(self.min_rounds, self.max_rounds)
    }
}

/// The most launches in a graph.
const MAX_LAUNCHES: usize = 4096;

/// A graph of launches of some sets of operands in turn.
pub struct Replay {
    graph: Graph,
    launches: usize,
    /// Estimate, in microseconds.
    replay_us: f64,
}

impl Replay {
    /// Captures launches of `sets` in turn, each equally often.
    pub fn new<O: Operation>(stream: &Stream, sets: &mut [O], settings: &Settings) -> Result<Self> {
        let once = capture(stream, sets, sets.len())?;
        let estimate = replay(stream, &[&once], 2)?[0][1];
        let turns = (settings.replay_us / estimate).ceil().max(1.0) as usize;
        let turns = turns.min(MAX_LAUNCHES / sets.len()).max(1);
        let launches = turns * sets.len();
        let graph = if turns == 1 {
            once
        } else {
            capture(stream, sets, launches)?
        };
        Ok(Self {
            graph,
            launches,
            replay_us: estimate * turns as f64,
        })
    }

    /// Kernels of one launch of the operation.
    pub fn kernels(&self) -> Vec<String> {
        let kernels = self.graph.kernels();
        kernels[..kernels.len() / self.launches].to_vec()
    }

    pub fn time(&self, stream: &Stream, settings: &Settings) -> Result<Time> {
        Ok(Self::times(stream, &[self], settings)?.remove(0).0)
    }

    /// Times of several, whose replays alternate: a round is one of each. With each its microseconds a launch, by rounds.
    pub fn times(
        stream: &Stream,
        replays: &[&Self],
        settings: &Settings,
    ) -> Result<Vec<(Time, Vec<f64>)>> {
        let round: f64 = replays.iter().map(|replay| replay.replay_us).sum();
        let rounds = settings.rounds(round);
        let graphs: Vec<&Graph> = replays.iter().map(|replay| &replay.graph).collect();
        let samples = replay(stream, &graphs, rounds)?;
        let summary = |(replay, sample): (&&Self, Vec<f64>)| {
            let sample: Vec<f64> = sample
                .iter()
                .map(|us| us / replay.launches as f64)
                .collect();
            let time =
                summarize(sample.clone(), replay.launches).context("no replay was measured")?;
            Ok((time, sample))
        };
        replays.iter().zip(samples).map(summary).collect()
    }
}

pub fn capture<O: Operation>(stream: &Stream, sets: &mut [O], launches: usize) -> Result<Graph> {
    Graph::capture(stream, |stream| {
        let count = sets.len();
        (0..launches).try_for_each(|launch| sets[launch % count].launch(stream))
    })
}

/// Microseconds of each replay, by graph and round.
fn replay(stream: &Stream, graphs: &[&Graph], rounds: usize) -> Result<Vec<Vec<f64>>> {
    queue(stream, graphs, rounds)?.wait()
}

/// Replays that were submitted, and the events between them.
struct Queued {
    marks: Vec<Event>,
    graphs: usize,
}

/// Submits all replays before anything is waited for, so that the GPU goes from one to the next. The first round warms up.
fn queue(stream: &Stream, graphs: &[&Graph], rounds: usize) -> Result<Queued> {
    for graph in graphs {
        graph.launch(stream)?;
    }
    let mut marks = vec![stream.record()?];
    for _ in 0..rounds {
        for graph in graphs {
            graph.launch(stream)?;
            marks.push(stream.record()?);
        }
    }
    Ok(Queued {
        marks,
        graphs: graphs.len(),
    })
}

impl Queued {
    fn wait(self) -> Result<Vec<Vec<f64>>> {
        let mut samples = vec![Vec::new(); self.graphs];
        for (index, pair) in self.marks.windows(2).enumerate() {
            let milliseconds = pair[0].elapsed_ms(&pair[1])?;
            let milliseconds = milliseconds.context("only a GPU has times")?;
            samples[index % self.graphs].push(f64::from(milliseconds) * 1e3);
        }
        Ok(samples)
    }
}

/// Times of replays on several devices at once, one a device.
pub fn at_once(replays: &[(Stream, Replay)], settings: &Settings) -> Result<Vec<Time>> {
    let longest = replays
        .iter()
        .map(|(_, replay)| replay.replay_us)
        .fold(1.0, f64::max);
    let rounds = settings.rounds(longest);
    let queued = replays
        .iter()
        .map(|(stream, replay)| queue(stream, &[&replay.graph], rounds));
    let queued: Vec<Queued> = queued.collect::<Result<_>>()?;
    let times = queued
        .into_iter()
        .zip(replays)
        .map(|(queued, (_, replay))| {
            let sample = queued
                .wait()?
                .remove(0)
                .into_iter()
                .map(|us| us / replay.launches as f64);
            summarize(sample.collect(), replay.launches).context("no replay was measured")
        });
    times.collect()
}

/// Microseconds of `count` submissions one by one, by rounds: what a program without graphs gets.
pub fn one_by_one<O: Operation>(
    stream: &Stream,
    operation: &mut O,
    count: usize,
    rounds: usize,
) -> Result<Time> {
    let mut sample = Vec::with_capacity(rounds);
    for _ in 0..=rounds {
        let start = stream.record()?;
        for _ in 0..count {
            operation.launch(stream)?;
        }
        let end = stream.record()?;
        let milliseconds = start.elapsed_ms(&end)?.context("only a GPU has times")?;
        sample.push(f64::from(milliseconds) * 1e3 / count as f64);
    }
    // The first round warmed up.
    summarize(sample.split_off(1), count).context("no round was measured")
}
