//! Weight scales by ranges of rows.

use std::fmt;

use super::RowScalesError;

/// Consecutive rows with one weight scale: from the end of the previous range to `end`, exclusive.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScaleRange {
    /// The first row after the range.
    pub end: usize,
    /// The weight scale of its rows.
    pub scale: f32,
}

/// One finite weight scale for every row of a weight matrix, by ranges of rows.
///
/// One range is a scale per tensor, a range per row is a scale per output channel, and fused projections are in between: Q, K and
/// V in one matrix have three.
#[derive(Clone, PartialEq)]
pub struct RowScales {
    ranges: Vec<ScaleRange>,
}

impl RowScales {
    /// Scales of the ranges `[(end_row, scale)]` of a matrix with `n` rows.
    ///
    /// # Errors
    /// When the ranges are not ascending, do not end at `n`, leave a row without scale, or a scale is not finite.
    pub fn from_ranges(n: usize, ranges: &[(usize, f32)]) -> Result<Self, RowScalesError> {
        let mut previous_end = 0;
        for (index, &(end, scale)) in ranges.iter().enumerate() {
            if end <= previous_end {
                return Err(RowScalesError::NotAscending {
                    index,
                    end,
                    previous_end,
                });
            }
            if !scale.is_finite() {
                return Err(RowScalesError::NonFinite { index, scale });
            }
            previous_end = end;
        }
        if ranges.is_empty() {
            return Err(RowScalesError::Empty);
        }
        if previous_end != n {
            return Err(RowScalesError::WrongEnd {
                end: previous_end,
                n,
            });
        }
        Ok(Self {
            ranges: ranges
                .iter()
                .map(|&(end, scale)| ScaleRange { end, scale })
                .collect(),
        })
    }

    /// One scale for all `n` rows.
    ///
    /// # Errors
    /// When `n` is 0 or the scale is not finite.
    pub fn per_tensor(n: usize, scale: f32) -> Result<Self, RowScalesError> {
        if n == 0 {
            return Err(RowScalesError::NoRows);
        }
        Self::from_ranges(n, &[(n, scale)])
    }

    /// A scale for each row.
    ///
    /// # Errors
    /// When there is none, or one is not finite.
    pub fn per_row(scales: &[f32]) -> Result<Self, RowScalesError> {
        if scales.is_empty() {
            return Err(RowScalesError::NoRows);
        }
        let ranges: Vec<_> = scales
            .iter()
            .enumerate()
            .map(|(row, &scale)| (row + 1, scale))
            .collect();
        Self::from_ranges(scales.len(), &ranges)
    }

    /// The scales of several matrices, one below the other, as [`PackedWeights::concat`] joins their weights.
    ///
    /// ```
    /// use bitnet_cuda::ops::RowScales;
    ///
    /// let [q, k] = [RowScales::per_tensor(4, 1.5)?, RowScales::per_tensor(2, 0.75)?];
    /// assert_eq!(RowScales::concat(&[&q, &k])?, RowScales::from_ranges(6, &[(4, 1.5), (6, 0.75)])?);
    /// # Ok::<(), bitnet_cuda::reference::RowScalesError>(())
    /// ```
    ///
    /// # Errors
    /// When there is no part.
    ///
    /// [`PackedWeights::concat`]: crate::layout::PackedWeights::concat
    pub fn concat(parts: &[&Self]) -> Result<Self, RowScalesError> {
        let mut n: usize = 0;
        let mut ranges = Vec::new();
        for part in parts {
            let end = |range: &ScaleRange| (n.saturating_add(range.end), range.scale);
            ranges.extend(part.ranges.iter().map(end));
            n = n.saturating_add(part.n());
        }
        Self::from_ranges(n, &ranges)
    }

    /// Rows that have a scale.
    pub fn n(&self) -> usize {
        self.ranges[self.ranges.len() - 1].end
    }

    /// The ranges, ascending; the last ends at [`RowScales::n`].
    pub fn ranges(&self) -> &[ScaleRange] {
        &self.ranges
    }

    /// The scale of each row, [`RowScales::n`] of them.
    ///
    /// # Panics
    /// When these are more than this machine can address; scales of such a matrix can be made, as they are stored by range.
    pub fn expand(&self) -> Vec<f32> {
        let mut scales = Vec::with_capacity(self.n());
        for range in &self.ranges {
            scales.resize(range.end, range.scale);
        }
        scales
    }
}

impl fmt::Debug for RowScales {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RowScales")
            .field("n", &self.n())
            .field("ranges", &self.ranges.len())
            .finish_non_exhaustive()
    }
}
