//! Median and spread of a sample of times.

use crate::Time;

/// A sample is *wide* where its 10th and 90th percentile differ by more than this share of its median.
pub const WIDE_SPREAD: f64 = 0.10;

/// Sums up a sample of times of one launch each, in microseconds; none of an empty sample.
///
/// Percentiles are nearest-rank: the smallest value that at least that share of the sample does not exceed.
pub fn summarize(mut sample: Vec<f64>, launches: usize) -> Option<Time> {
    sample.sort_by(f64::total_cmp);
    let time = Time {
        median_us: percentile(&sample, 50)?,
        low_us: percentile(&sample, 10)?,
        high_us: percentile(&sample, 90)?,
        rounds: sample.len(),
        launches,
        wide: false,
    };
    Some(Time {
        wide: time.spread() > WIDE_SPREAD,
        ..time
    })
}

fn percentile(sorted: &[f64], percent: usize) -> Option<f64> {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.max(1) - 1).copied()
}

/// Geometric mean; none where there is no value.
pub fn geometric_mean(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.into_iter().fold((0.0, 0), |(sum, count), value| {
        (sum + value.ln(), count + 1)
    });
    (count > 0).then(|| (sum / f64::from(count)).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_members_of_the_sample() {
        let sample: Vec<f64> = (1..=20).rev().map(f64::from).collect();
        let time = summarize(sample, 7).expect("not empty");
        assert_eq!(
            (time.median_us, time.low_us, time.high_us),
            (10.0, 2.0, 18.0)
        );
        assert_eq!((time.rounds, time.launches), (20, 7));
        let one = summarize(vec![3.5], 1).expect("not empty");
        assert_eq!((one.median_us, one.low_us, one.high_us), (3.5, 3.5, 3.5));
        assert!(summarize(Vec::new(), 1).is_none());
    }

    #[test]
    fn a_wide_sample_is_marked() {
        assert!(
            !summarize(vec![10.0, 10.0, 10.2, 10.9], 1)
                .expect("not empty")
                .wide
        );
        assert!(
            summarize(vec![10.0, 10.0, 10.2, 11.1], 1)
                .expect("not empty")
                .wide
        );
    }

    #[test]
    fn the_geometric_mean_of_a_ratio_and_its_inverse_is_one() {
        let mean = geometric_mean([0.25, 4.0]).expect("two values");
        assert!((mean - 1.0).abs() < 1e-12);
        assert_eq!(geometric_mean([]), None);
    }
}
