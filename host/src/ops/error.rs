use crate::device::DeviceError;
use crate::launch::LaunchError;
use crate::layout::{Layout, LayoutError};
use crate::reference::{ReferenceError, RowScalesError};

/// Why an operation failed. All arguments are checked before work is submitted, so an error about them leaves every output
/// unchanged.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum OpError {
    /// The device refused the call, or an earlier operation failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The launch was refused.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// A weight matrix that cannot be packed.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// Weights in a layout that the operation does not accept.
    #[error(
        "the weights have the layout {actual}, but {expected} is required; convert them with `PackedWeights::convert`"
    )]
    WrongLayout {
        /// The layout that is needed.
        expected: Layout,
        /// The weights' layout.
        actual: Layout,
    },
    /// Weights that cannot be quantized.
    #[error(transparent)]
    Weights(#[from] ReferenceError),
    /// Row scales that are invalid.
    #[error(transparent)]
    RowScales(#[from] RowScalesError),
    /// An operand whose length does not fit the shape.
    #[error("`{name}` has {actual} elements, but {shape} is {expected}")]
    Length {
        /// The operand, as the operation's documentation calls it.
        name: &'static str,
        /// Its shape, such as `[m, k] = [3, 2560]`.
        shape: String,
        /// Elements of that shape.
        expected: usize,
        /// Elements given.
        actual: usize,
    },
    /// An operand whose length is not a positive multiple of the width of a token.
    #[error(
        "`{name}` has {actual} elements, which is not a positive multiple of {width}, the features of a token; pass {width} elements for each token"
    )]
    Tokens {
        /// The operand, as the operation's documentation calls it.
        name: &'static str,
        /// Elements given.
        actual: usize,
        /// Features of a token.
        width: usize,
    },
    /// A dimension that disagrees with another operand.
    #[error("`{name}` = {actual}, but {other} has {expected}")]
    Dimension {
        /// The dimension.
        name: &'static str,
        /// What it has to agree with.
        other: &'static str,
        /// Its value there.
        expected: usize,
        /// Its value here.
        actual: usize,
    },
    /// A dimension of 0, or one that no buffer can have.
    #[error("{name} = {value} is outside 1..={limit}")]
    Size {
        /// The dimension.
        name: &'static str,
        /// Its value.
        value: usize,
        /// The largest it can be.
        limit: usize,
    },
    /// An empty list of devices.
    #[error("no device given; pass at least one")]
    NoDevice,
    /// A parameter that is not finite.
    #[error("{name}[{index}] = {value} is not finite")]
    NonFinite {
        /// The parameter, as the operation's documentation calls it.
        name: &'static str,
        /// The element.
        index: usize,
        /// Its value.
        value: f32,
    },
    /// An `eps` that cannot keep a norm from dividing by 0.
    #[error("eps = {eps} is not a positive normal number; models use 1e-6 to 1e-5")]
    Epsilon {
        /// The value.
        eps: f32,
    },
    /// An output with one scale for all tokens, passed to an operation that gives each token its own.
    #[error(
        "{operation} gives each token its own scale, but the output was created for one scale per tensor; create it with `QuantizedActivations::uninit`"
    )]
    PerTensor {
        /// The operation.
        operation: &'static str,
    },
}

/// Checks that `actual` elements are `[rows, columns]`.
pub(crate) fn require_matrix(
    name: &'static str,
    actual: usize,
    (rows_name, rows): (&'static str, usize),
    (columns_name, columns): (&'static str, usize),
) -> Result<(), OpError> {
    let expected = rows.checked_mul(columns);
    if expected == Some(actual) {
        return Ok(());
    }
    Err(OpError::Length {
        name,
        shape: format!("[{rows_name}, {columns_name}] = [{rows}, {columns}]"),
        expected: expected.unwrap_or(usize::MAX),
        actual,
    })
}

/// Checks that a parameter is finite throughout.
pub(super) fn require_finite(name: &'static str, parameter: &[f32]) -> Result<(), OpError> {
    match parameter.iter().position(|value| !value.is_finite()) {
        None => Ok(()),
        Some(index) => Err(OpError::NonFinite {
            name,
            index,
            value: parameter[index],
        }),
    }
}

/// How many tokens of `width` features, which is not 0, `actual` elements are.
pub(crate) fn require_tokens(
    name: &'static str,
    actual: usize,
    width: usize,
) -> Result<usize, OpError> {
    if actual == 0 || !actual.is_multiple_of(width) {
        return Err(OpError::Tokens {
            name,
            actual,
            width,
        });
    }
    let m = actual / width;
    require_size("m", m, i32::MAX as usize)?;
    Ok(m)
}

/// Checks that a dimension is in `1..=limit`.
pub(super) fn require_size(name: &'static str, value: usize, limit: usize) -> Result<(), OpError> {
    if (1..=limit).contains(&value) {
        Ok(())
    } else {
        Err(OpError::Size { name, value, limit })
    }
}
