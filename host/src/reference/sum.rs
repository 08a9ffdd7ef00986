//! f64 sums in an order that a warp can follow.

/// Terms that are summed side by side: the lanes of a warp.
const LANES: usize = 32;

/// The sum of the values in the order that docs/numerics.md fixes.
///
/// Lane `l` adds the values `l, l + 32, l + 64, ...` in ascending order, starting from 0; the 32 lane sums are then
/// added in a butterfly of distance 16, 8, 4, 2, 1. A warp that does the same gets the same bits.
pub(super) fn lane_sum(values: &[f64]) -> f64 {
    let mut lanes = [0.0; LANES];
    for chunk in values.chunks(LANES) {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane += value;
        }
    }
    for distance in [16, 8, 4, 2, 1] {
        for l in 0..distance {
            lanes[l] += lanes[l + distance];
        }
    }
    lanes[0]
}
