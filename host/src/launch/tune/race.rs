//! Which of several things is the fastest, without measuring the slow ones to the end.

/// Rounds before anything is dropped.
const GRACE_ROUNDS: usize = 3;
/// How much slower than the leader's median the best round of a loser is.
const MARGIN: f64 = 1.05;

/// One contestant's rounds.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Runner {
    pub(super) samples: Vec<f64>,
    /// Whether it left the race before the end.
    pub(super) dropped: bool,
}

impl Runner {
    pub(super) fn median(&self) -> f64 {
        let mut sorted = self.samples.clone();
        sorted.sort_by(f64::total_cmp);
        match sorted.len() {
            0 => f64::INFINITY,
            len if len % 2 == 1 => sorted[len / 2],
            len => (sorted[len / 2 - 1] + sorted[len / 2]) / 2.0,
        }
    }

    fn fastest(&self) -> f64 {
        self.samples.iter().copied().fold(f64::INFINITY, f64::min)
    }
}

/// Measures `count` contestants in up to `rounds` rounds.
///
/// A round measures each once, starting with another one each time, so that a drift of the clock meets all alike. After
/// [`GRACE_ROUNDS`], contestants that were never within [`MARGIN`] of the leader's median are dropped.
pub(super) fn race<E>(
    count: usize,
    rounds: usize,
    mut measure: impl FnMut(usize) -> Result<f64, E>,
) -> Result<Vec<Runner>, E> {
    let mut runners = vec![
        Runner {
            samples: Vec::new(),
            dropped: false
        };
        count
    ];
    for round in 0..rounds {
        for index in (0..count).map(|place| (place + round) % count) {
            if !runners[index].dropped {
                let sample = measure(index)?;
                runners[index].samples.push(sample);
            }
        }
        if round + 1 >= GRACE_ROUNDS {
            let leader = runners
                .iter()
                .filter(|runner| !runner.dropped)
                .map(Runner::median)
                .fold(f64::INFINITY, f64::min);
            for runner in &mut runners {
                runner.dropped |= runner.fastest() > leader * MARGIN;
            }
        }
    }
    Ok(runners)
}
