//! What can be wrong with weights or their packed bytes.

use super::{Layout, MAX_K};

/// Weights that cannot be packed, or bytes that are not packed weights.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// A dimension is zero.
    #[error("a weight matrix of {n} x {k} has no elements: n and k must be at least 1")]
    ZeroSize {
        /// Rows asked for.
        n: usize,
        /// Columns asked for.
        k: usize,
    },
    /// A row is so long that an int32 sum over it could overflow.
    #[error(
        "k = {k} is more than {MAX_K}, beyond which an int32 sum can overflow: split the matrix along k"
    )]
    KTooLarge {
        /// Columns asked for.
        k: usize,
    },
    /// The matrix does not fit the address space.
    #[error(
        "a weight matrix of {n} x {k} is larger than this machine can address: split it along n"
    )]
    SizeOverflow {
        /// Rows asked for.
        n: usize,
        /// Columns asked for.
        k: usize,
    },
    /// Matrices that are to become one have rows of different lengths.
    #[error(
        "matrix {part} has k = {k}, but matrix 0 has {expected}: only layers with the same input can be one"
    )]
    DifferentK {
        /// Which matrix, from 0 on.
        part: usize,
        /// Its columns.
        k: usize,
        /// Columns of the first.
        expected: usize,
    },
    /// The slice of weights is not `n * k` long.
    #[error(
        "{actual} weights given for a matrix of {n} x {k}: pass {expected}, row by row, without padding"
    )]
    WrongWeightCount {
        /// Rows asked for.
        n: usize,
        /// Columns asked for.
        k: usize,
        /// `n * k`.
        expected: usize,
        /// Length of the slice.
        actual: usize,
    },
    /// The bytes are not [`Layout::packed_len`] long.
    #[error(
        "{actual} bytes given for a {layout} matrix of {n} x {k}: its packed length, padding included, is {expected}"
    )]
    WrongByteCount {
        /// Layout asked for.
        layout: Layout,
        /// Rows asked for.
        n: usize,
        /// Columns asked for.
        k: usize,
        /// Length that the shape takes.
        expected: usize,
        /// Length of the bytes.
        actual: usize,
    },
    /// Bytes packed by transformers are not as many as the tensor's elements.
    #[error(
        "{actual} bytes given for a matrix of {n} x {k} as transformers packs it: pass {expected}, one for four weights"
    )]
    WrongTransformersByteCount {
        /// Rows of the matrix, four for each of the tensor.
        n: usize,
        /// Columns.
        k: usize,
        /// `n / 4 * k`.
        expected: usize,
        /// Length of the bytes.
        actual: usize,
    },
    /// A weight is not -1, 0 or 1.
    #[error(
        "weight {value} at row {row}, column {column} is not ternary: quantize to -1, 0 or 1 before packing"
    )]
    NotTernary {
        /// The weight.
        value: i8,
        /// Its row.
        row: usize,
        /// Its column.
        column: usize,
    },
    /// A 2-bit code stands for no weight.
    #[error(
        "code {code} at row {row}, column {column} stands for no weight in {layout}: \
         the bytes are damaged or in another layout"
    )]
    InvalidCode {
        /// Layout asked for.
        layout: Layout,
        /// The code.
        code: u8,
        /// Row of the code in the padded matrix.
        row: usize,
        /// Column of the code in the padded matrix.
        column: usize,
    },
    /// A 2-bit code of transformers' packing is 3, which stands for no weight.
    #[error(
        "code 3 at row {row}, column {column} stands for no weight as transformers packs them: \
         the bytes are damaged or packed otherwise"
    )]
    InvalidTransformersCode {
        /// Row of the weight.
        row: usize,
        /// Column of the weight.
        column: usize,
    },
    /// Padding holds something else than weight 0.
    #[error(
        "code {code} at row {row}, column {column} of the padding of a {n} x {k} matrix in {layout}: \
         padding must hold weight 0 (code {zero})"
    )]
    PaddingNotZero {
        /// Layout asked for.
        layout: Layout,
        /// Rows without padding.
        n: usize,
        /// Columns without padding.
        k: usize,
        /// The code found.
        code: u8,
        /// The code of weight 0.
        zero: u8,
        /// Row of the code in the padded matrix.
        row: usize,
        /// Column of the code in the padded matrix.
        column: usize,
    },
}
