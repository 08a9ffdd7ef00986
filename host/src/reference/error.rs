//! Errors about the operands of a reference operation.

use crate::layout::MAX_K;

/// Operands that an operation cannot be computed on.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ReferenceError {
    /// A dimension is zero.
    #[error("{what}: {rows} x {columns} is not a matrix: both sizes must be at least 1")]
    ZeroSize {
        /// The operand.
        what: &'static str,
        /// Its rows.
        rows: usize,
        /// Its columns.
        columns: usize,
    },
    /// An operand is not as long as its shape says.
    #[error("{what}: {actual} elements, where {rows} x {columns} were expected")]
    WrongLength {
        /// The operand.
        what: &'static str,
        /// Rows that it should have.
        rows: usize,
        /// Columns that it should have.
        columns: usize,
        /// Its length.
        actual: usize,
    },
    /// A row is so long that an int32 sum over it could overflow.
    #[error(
        "k = {k} is more than {MAX_K}, beyond which an int32 sum can overflow: split the product along k"
    )]
    KTooLarge {
        /// The number of input features.
        k: usize,
    },
    /// A weight is NaN or infinite.
    #[error(
        "weight {value} at row {row}, column {column} is not finite: it has no quantized form, repair the checkpoint"
    )]
    NonFiniteWeight {
        /// The weight.
        value: f32,
        /// Its row.
        row: usize,
        /// Its column.
        column: usize,
    },
    /// The row scales are for another number of rows.
    #[error("the row scales cover {actual} rows and the product has {expected}")]
    WrongScaleRows {
        /// Rows of the product.
        expected: usize,
        /// Rows that the scales cover.
        actual: usize,
    },
}

/// Row ranges that do not give every row of a weight matrix one finite scale.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RowScalesError {
    /// There is no range.
    #[error("no row ranges given: pass at least one (end row, scale)")]
    Empty,
    /// The matrix has no rows.
    #[error("a matrix without rows has no row scales: n must be at least 1")]
    NoRows,
    /// A range does not end after the previous one.
    #[error(
        "row range {index} ends at row {end}, not after the one before it, which ends at {previous_end}: sort the ranges by end row"
    )]
    NotAscending {
        /// Which range.
        index: usize,
        /// Its end row.
        end: usize,
        /// End row of the range before it, 0 if it is the first.
        previous_end: usize,
    },
    /// The last range does not end where the matrix does.
    #[error(
        "the row ranges end at row {end} and the matrix at row {n}: the last range must end there"
    )]
    WrongEnd {
        /// End row of the last range.
        end: usize,
        /// Rows of the matrix.
        n: usize,
    },
    /// A scale is NaN or infinite.
    #[error("the scale {scale} of row range {index} is not finite")]
    NonFinite {
        /// Which range.
        index: usize,
        /// Its scale.
        scale: f32,
    },
}

/// Checks that an operand has `rows * columns` elements, and at least one.
pub(super) fn check_len(
    what: &'static str,
    actual: usize,
    rows: usize,
    columns: usize,
) -> Result<(), ReferenceError> {
    if rows == 0 || columns == 0 {
        return Err(ReferenceError::ZeroSize {
            what,
            rows,
            columns,
        });
    }
    if rows.checked_mul(columns) != Some(actual) {
        return Err(ReferenceError::WrongLength {
            what,
            rows,
            columns,
            actual,
        });
    }
    Ok(())
}
