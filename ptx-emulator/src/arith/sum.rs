//! Exact sums of many `f64` terms.

/// The exact sum of some terms, rounded to odd (as [`add_odd`](super::float::add_odd) does), so that rounding it once more
/// to a narrower format gives the correctly rounded sum. Terms must be so small that no partial sum overflows.
pub(crate) fn sum_odd(terms: &[f64]) -> f64 {
    let mut sum = -0.0;
    let mut exact = true;
    for &term in terms {
        let (next, error) = two_sum(sum, term);
        sum = next;
        exact &= error == 0.0;
    }
    // What is not finite stays so, as infinity or NaN.
    if exact || !sum.is_finite() {
        return sum;
    }
    expand(terms)
}

/// Knuth's two-sum: the rounded sum and its exact error.
#[inline(always)]
fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let b_part = sum - a;
    (sum, (a - (sum - b_part)) + (b - b_part))
}

/// Shewchuk's expansion: partial sums that do not overlap, smallest first, and together are the exact sum.
#[cold]
fn expand(terms: &[f64]) -> f64 {
    let mut partials: Vec<f64> = Vec::new();
    for &term in terms {
        let mut carry = term;
        let mut kept = 0;
        for at in 0..partials.len() {
            let (sum, error) = two_sum(carry, partials[at]);
            if error != 0.0 {
                partials[kept] = error;
                kept += 1;
            }
            carry = sum;
        }
        partials.truncate(kept);
        partials.push(carry);
    }
    let mut sum = partials.pop().unwrap_or(0.0);
    while let Some(next) = partials.pop() {
        let (rounded, rest) = two_sum(sum, next);
        sum = rounded;
        if rest == 0.0 {
            continue;
        }
        // Smaller partials do not change the sign of the rest.
        let bits = sum.to_bits();
        if bits & 1 == 0 {
            let outward = (rest > 0.0) == (sum > 0.0);
            sum = f64::from_bits(if outward { bits + 1 } else { bits - 1 });
        }
        break;
    }
    sum
}
