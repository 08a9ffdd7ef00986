//! Layouts of a ternary weight matrix `[n, k]` (output features x input features), 2 bits a weight.
//!
//! | layout | code | padded to | order |
//! |---|---|---|---|
//! | [`Layout::RowMajor`] | `w + 1` | k to 4 | plain: element `4j + i` of a row in bits `2i` of its byte `j` |
//! | [`Layout::Ladder`] | `w + 2` | n to 16, k to 32 | Microsoft's W2A8 kernel: 16x32 blocks, permuted, interleaved |
//! | [`Layout::Tiled`] | `w + 1` | n to 16, k to 128 | this project's: 16x128 blocks, four rows to a byte, see [`tiled`] |
//!
//! [`PackedWeights::from_transformers`] reads the packed order of Hugging Face's checkpoints.
//!
//! Padding holds weight 0, so a kernel may multiply it by any finite activation. Conversion between any two layouts is lossless,
//! and runs on all cores.

mod blocks;
mod error;
pub mod ladder;
pub mod row_major;
#[cfg(test)]
mod tests;
pub mod tiled;
mod transformers;

use std::fmt;

use rayon::prelude::*;

pub use error::LayoutError;

/// Largest k for which no int32 sum of `k` products int8 x ternary can overflow.
///
/// A product is at most `|-128 * 1| = 128` in magnitude, so a sum is at most `128 k`, and
/// `128 k <= 2^31 - 1` holds up to `floor((2^31 - 1) / 128) = 16_777_215`.
pub const MAX_K: usize = (i32::MAX / 128) as usize;

/// Rows that are packed together: the height of a Ladder or Tiled block.
const TILE_ROWS: usize = 16;

/// How the 2-bit codes of a ternary matrix are arranged in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Layout {
    /// Rows one after the other, four weights to a byte.
    RowMajor,
    /// The layout of BitNet's published W2A8 GPU kernel.
    Ladder,
    /// The layout of this project's kernels.
    Tiled,
}

impl Layout {
    /// Every layout there is.
    pub const ALL: [Self; 3] = [Self::RowMajor, Self::Ladder, Self::Tiled];

    /// The shape that `[n, k]` is padded to with weight 0.
    ///
    /// # Errors
    /// When n or k is 0, k exceeds [`MAX_K`], or the matrix is too large for this machine's address space.
    pub fn padded_shape(self, n: usize, k: usize) -> Result<(usize, usize), LayoutError> {
        if n == 0 || k == 0 {
            return Err(LayoutError::ZeroSize { n, k });
        }
        if k > MAX_K {
            return Err(LayoutError::KTooLarge { k });
        }
        let (row_multiple, column_multiple) = self.multiples();
        let overflow = || LayoutError::SizeOverflow { n, k };
        let rows = n
            .checked_next_multiple_of(row_multiple)
            .ok_or_else(overflow)?;
        let columns = k.next_multiple_of(column_multiple);
        // An unpacked copy (one byte a weight) has to fit as well, and Rust's allocations end at isize::MAX.
        match rows.checked_mul(columns) {
            Some(weights) if isize::try_from(weights).is_ok() => Ok((rows, columns)),
            _ => Err(overflow()),
        }
    }

    /// Bytes that an `[n, k]` matrix takes, padding included.
    ///
    /// # Errors
    /// As [`Layout::padded_shape`].
    pub fn packed_len(self, n: usize, k: usize) -> Result<usize, LayoutError> {
        let (rows, columns) = self.padded_shape(n, k)?;
        Ok(rows * columns / 4)
    }

    /// Rows and columns are padded to multiples of these.
    const fn multiples(self) -> (usize, usize) {
        match self {
            Self::RowMajor => (1, 4),
            Self::Ladder => (ladder::BLOCK_ROWS, ladder::BLOCK_COLUMNS),
            Self::Tiled => (tiled::BLOCK_ROWS, tiled::BLOCK_COLUMNS),
        }
    }

    /// The code of weight 0; -1 and 1 are one below and one above it.
    const fn zero_code(self) -> u8 {
        match self {
            Self::RowMajor | Self::Tiled => 1,
            Self::Ladder => 2,
        }
    }

    /// The one 2-bit code that stands for no weight.
    const fn invalid_code(self) -> u8 {
        (self.zero_code() + 2) % 4
    }

    /// Bytes of [`TILE_ROWS`] rows.
    fn tile_len(self, k: usize) -> usize {
        TILE_ROWS * k.next_multiple_of(self.multiples().1) / 4
    }

    /// Byte index, and lowest bit inside that byte, of the code at (row, column) of a matrix with `k` columns.
    fn address(self, k: usize, row: usize, column: usize) -> (usize, u32) {
        let padded_k = k.next_multiple_of(self.multiples().1);
        match self {
            Self::RowMajor => row_major::address(padded_k, row, column),
            Self::Ladder => ladder::address(padded_k, row, column),
            Self::Tiled => tiled::address(padded_k, row, column),
        }
    }

    /// Packs up to [`TILE_ROWS`] rows of `k` weights each; `packed` holds code-0 bits on entry.
    fn pack_tile(self, rows: &[i8], k: usize, packed: &mut [u8]) {
        match self {
            Self::RowMajor => row_major::pack_rows(rows, k, packed),
            Self::Ladder => ladder::pack_tile(rows, k, packed),
            Self::Tiled => tiled::pack_tile(rows, k, packed),
        }
    }

    /// The inverse of [`Layout::pack_tile`]; padding is dropped.
    fn unpack_tile(self, packed: &[u8], k: usize, rows: &mut [i8]) {
        match self {
            Self::RowMajor => row_major::unpack_rows(packed, k, rows),
            Self::Ladder => ladder::unpack_tile(packed, k, rows),
            Self::Tiled => tiled::unpack_tile(packed, k, rows),
        }
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RowMajor => "RowMajor",
            Self::Ladder => "Ladder",
            Self::Tiled => "Tiled",
        })
    }
}

/// A ternary weight matrix `[n, k]` in one of the packed layouts.
///
/// Whatever way it was made, its length fits its shape, every code stands for a weight, and padding holds weight 0.
#[derive(Clone, PartialEq, Eq)]
pub struct PackedWeights {
    layout: Layout,
    n: usize,
    k: usize,
    bytes: Vec<u8>,
}

impl PackedWeights {
    /// Packs row-major weights, each -1, 0 or 1.
    ///
    /// # Errors
    /// When the shape is not one that [`Layout::padded_shape`] takes, `weights.len() != n * k`, or a weight is not
    /// ternary (the first such in row-major order is named).
    pub fn pack(layout: Layout, weights: &[i8], n: usize, k: usize) -> Result<Self, LayoutError> {
        let len = layout.packed_len(n, k)?;
        if weights.len() != n * k {
            return Err(LayoutError::WrongWeightCount {
                n,
                k,
                expected: n * k,
                actual: weights.len(),
            });
        }
        // Chunk by chunk without an early exit inside, so that the scan vectorises.
        let ternary = |chunk: &[i8]| {
            chunk
                .iter()
                .fold(true, |all, &w| all & ((w as u8).wrapping_add(1) <= 2))
        };
        if !weights.par_chunks(1 << 16).all(ternary) {
            let index = weights
                .iter()
                .position(|w| !(-1..=1).contains(w))
                .unwrap_or_default();
            return Err(LayoutError::NotTernary {
                value: weights[index],
                row: index / k,
                column: index % k,
            });
        }
        let mut bytes = vec![0; len];
        bytes
            .par_chunks_mut(layout.tile_len(k))
            .zip(weights.par_chunks(TILE_ROWS * k))
            .for_each(|(packed, rows)| layout.pack_tile(rows, k, packed));
        Ok(Self {
            layout,
            n,
            k,
            bytes,
        })
    }

    /// Takes bytes that are already packed, and checks them.
    ///
    /// # Errors
    /// When the shape is not one that [`Layout::padded_shape`] takes, the length is not [`Layout::packed_len`], or
    /// the bytes hold the layout's unused code or padding other than weight 0 (the first in row-major order is named, the unused code
    /// where there are both).
    pub fn from_bytes(
        layout: Layout,
        bytes: Vec<u8>,
        n: usize,
        k: usize,
    ) -> Result<Self, LayoutError> {
        let (padded_n, padded_k) = layout.padded_shape(n, k)?;
        let expected = layout.packed_len(n, k)?;
        if bytes.len() != expected {
            return Err(LayoutError::WrongByteCount {
                layout,
                n,
                k,
                expected,
                actual: bytes.len(),
            });
        }
        let packed = Self {
            layout,
            n,
            k,
            bytes,
        };
        // A field is 3 where both its bits are set, 0 where neither is; the unused code is one of the two.
        let flip = if layout.invalid_code() == 0 { 0xff } else { 0 };
        let valid = |chunk: &[u8]| {
            chunk.iter().fold(0, |found, &byte| {
                let byte = byte ^ flip;
                found | (byte & (byte >> 1) & 0x55)
            }) == 0
        };
        if !packed.bytes.par_chunks(1 << 16).all(valid) {
            let first = (0..padded_n)
                .flat_map(|row| (0..padded_k).map(move |column| (row, column)))
                .find(|&(row, column)| packed.code(row, column) == layout.invalid_code());
            let (row, column) = first.unwrap_or_default();
            return Err(LayoutError::InvalidCode {
                layout,
                code: layout.invalid_code(),
                row,
                column,
            });
        }
        let right_of = (0..n).flat_map(|row| (k..padded_k).map(move |column| (row, column)));
        let below = (n..padded_n).flat_map(|row| (0..padded_k).map(move |column| (row, column)));
        for (row, column) in right_of.chain(below) {
            let code = packed.code(row, column);
            if code != layout.zero_code() {
                return Err(LayoutError::PaddingNotZero {
                    layout,
                    n,
                    k,
                    code,
                    zero: layout.zero_code(),
                    row,
                    column,
                });
            }
        }
        Ok(packed)
    }

    /// The weights in row-major order, each -1, 0 or 1; `n * k` of them.
    pub fn unpack(&self) -> Vec<i8> {
        let mut weights = vec![0; self.n * self.k];
        weights
            .par_chunks_mut(TILE_ROWS * self.k)
            .zip(self.bytes.par_chunks(self.layout.tile_len(self.k)))
            .for_each(|(rows, packed)| self.layout.unpack_tile(packed, self.k, rows));
        weights
    }

    /// The same weights in another layout.
    ///
    /// # Errors
    /// [`LayoutError::SizeOverflow`] when the other layout's padding does not fit the address space.
    pub fn convert(&self, layout: Layout) -> Result<Self, LayoutError> {
        let Self { n, k, .. } = *self;
        let mut bytes = vec![0; layout.packed_len(n, k)?];
        bytes
            .par_chunks_mut(layout.tile_len(k))
            .zip(self.bytes.par_chunks(self.layout.tile_len(k)))
            .enumerate()
            .for_each_init(
                || vec![0; TILE_ROWS * k],
                |rows, (tile, (to, from))| {
                    let rows = &mut rows[..TILE_ROWS.min(n - tile * TILE_ROWS) * k];
                    self.layout.unpack_tile(from, k, rows);
                    layout.pack_tile(rows, k, to);
                },
            );
        Ok(Self {
            layout,
            n,
            k,
            bytes,
        })
    }

    /// The rows of several matrices, one matrix below the other, in `layout`; each may be in any layout. Projections of the same
    /// input, such as Q, K and V, become one layer this way, with [`RowScales::concat`] for their scales.
    ///
    /// ```
    /// use bitnet_cuda::device::Device;
    /// use bitnet_cuda::layout::{Layout, PackedWeights};
    /// use bitnet_cuda::ops::BitLinear;
    /// use bitnet_cuda::ops::RowScales;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// // As `TensorFile::packed_weights` and `TensorFile::scalar` read them from a checkpoint: [4, 2], [4, 2] and [8, 2].
    /// let q = PackedWeights::from_transformers(Layout::Tiled, &[0b10_00_01_10, 0b10_01_10_00], 1, 2)?;
    /// let k = PackedWeights::from_transformers(Layout::Tiled, &[0b00_00_01_01, 0b10_10_10_10], 1, 2)?;
    /// let v = PackedWeights::from_transformers(Layout::Tiled, &[0b01_01_01_01; 4], 2, 2)?;
    /// let scales = [(&q, 1.5), (&k, 0.75), (&v, 2.0)].map(|(weights, scale)| RowScales::per_tensor(weights.n(), scale));
    /// let [q_scale, k_scale, v_scale] = scales;
    ///
    /// let weights = PackedWeights::concat(Layout::Tiled, &[&q, &k, &v])?;
    /// let scales = RowScales::concat(&[&q_scale?, &k_scale?, &v_scale?])?;
    /// let qkv = BitLinear::from_packed(&Device::emulated()?, &weights, &scales)?;
    /// assert_eq!((qkv.n(), qkv.k()), (16, 2));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`LayoutError::ZeroSize`] when there is no part, [`LayoutError::DifferentK`] when one has another K than the first, and
    /// [`LayoutError::SizeOverflow`] when all rows together do not fit the address space.
    ///
    /// [`RowScales::concat`]: crate::ops::RowScales::concat
    pub fn concat(layout: Layout, parts: &[&Self]) -> Result<Self, LayoutError> {
        let k = parts.first().map_or(0, |first| first.k);
        if let Some((part, other)) = parts.iter().enumerate().find(|(_, other)| other.k != k) {
            return Err(LayoutError::DifferentK {
                part,
                k: other.k,
                expected: k,
            });
        }
        let n = parts
            .iter()
            .map(|part| part.n)
            .fold(0, usize::saturating_add);
        layout.padded_shape(n, k)?;
        let mut weights = Vec::with_capacity(n * k);
        for part in parts {
            weights.extend(part.unpack());
        }
        Self::pack(layout, &weights, n, k)
    }

    /// How the codes are arranged.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Output features: rows, without padding.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Input features: columns, without padding.
    pub fn k(&self) -> usize {
        self.k
    }

    /// The packed bytes, [`Layout::packed_len`] of them.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The packed bytes, without a copy.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// The 2-bit code at (row, column), padding included.
    fn code(&self, row: usize, column: usize) -> u8 {
        let (byte, shift) = self.layout.address(self.k, row, column);
        self.bytes[byte] >> shift & 3
    }
}

impl fmt::Debug for PackedWeights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PackedWeights")
            .field("layout", &self.layout)
            .field("n", &self.n)
            .field("k", &self.k)
            .finish_non_exhaustive()
    }
}
