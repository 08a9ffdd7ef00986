//! Ternary weights as Hugging Face's transformers packs them in checkpoints (its `integrations/bitnet.py`), such as the published
//! BitNet b1.58 2B4T: a uint8 tensor `[n / 4, k]` for weights `[n, k]`, code `w + 1`.
//!
//! A byte holds four rows of one column, a quarter of the matrix apart: row `r` is in bits `2 i` of the tensor's row `r - i n /
//! 4`, where `i = floor(4 r / n)`. No kernel uses this order; it is only read from files.

use super::{Layout, LayoutError, PackedWeights};

impl PackedWeights {
    /// Converts the bytes of a tensor `[rows, k]` packed by transformers to `layout`. The result has `n = 4 rows` output
    /// features.
    ///
    /// ```
    /// use bitnet_cuda::layout::{Layout, PackedWeights};
    ///
    /// // One row of two bytes: weights 1 -1, 0 1, -1 0 and 1 1, the first row in the lowest bits.
    /// let bytes = [0b10_00_01_10, 0b10_01_10_00];
    /// let weights = PackedWeights::from_transformers(Layout::Tiled, &bytes, 1, 2)?;
    /// assert_eq!((weights.n(), weights.unpack()), (4, vec![1, -1, 0, 1, -1, 0, 1, 1]));
    /// # Ok::<(), bitnet_cuda::layout::LayoutError>(())
    /// ```
    ///
    /// # Errors
    /// When `[4 rows, k]` is not a shape that [`Layout::padded_shape`] takes, `bytes.len() != rows * k`, or a code is 3, which stands
    /// for no weight ([`LayoutError::InvalidTransformersCode`]).
    pub fn from_transformers(
        layout: Layout,
        bytes: &[u8],
        rows: usize,
        k: usize,
    ) -> Result<Self, LayoutError> {
        let n = rows.saturating_mul(4);
        layout.padded_shape(n, k)?;
        if bytes.len() != rows * k {
            return Err(LayoutError::WrongTransformersByteCount {
                n,
                k,
                expected: rows * k,
                actual: bytes.len(),
            });
        }
        let mut weights = vec![0; n * k];
        for (quarter, weights) in weights.chunks_mut(rows * k).enumerate() {
            for (index, (weight, byte)) in weights.iter_mut().zip(bytes).enumerate() {
                let code = byte >> (2 * quarter) & 3;
                if code == 3 {
                    return Err(LayoutError::InvalidTransformersCode {
                        row: quarter * rows + index / k,
                        column: index % k,
                    });
                }
                *weight = code as i8 - 1;
            }
        }
        Self::pack(layout, &weights, n, k)
    }
}
