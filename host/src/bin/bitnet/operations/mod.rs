//! The operations that `bench` times and `compare` compares, each on random data and with its reference.

mod fused;
mod product;
mod rows;

pub use fused::Fused;
pub use product::{MAX_TOKENS, Product, ProductData};
pub use rows::ROW_OPERATIONS;

use anyhow::Result;
use bitnet_cuda::device::Stream;

/// An operation with its inputs and outputs on a device.
pub trait Operation {
    /// Submits it.
    fn launch(&mut self, stream: &Stream) -> Result<()>;

    /// The bytes of all outputs, as the last launch left them.
    fn outputs(&self) -> Result<Vec<u8>>;

    /// Compares the outputs with the CPU reference.
    fn check(&self) -> Result<Check>;

    /// Bytes that have to be moved: each input read once, each output written once.
    fn bytes(&self) -> usize;

    /// Multiplications and additions, each counted as one.
    fn operations(&self) -> usize;

    /// Whether every device gives the same bits. The hardware's `ex2.approx` and `rcp.approx` do not.
    fn exact(&self) -> bool {
        true
    }
}

impl<O: Operation + ?Sized> Operation for Box<O> {
    fn launch(&mut self, stream: &Stream) -> Result<()> {
        (**self).launch(stream)
    }
    fn outputs(&self) -> Result<Vec<u8>> {
        (**self).outputs()
    }
    fn check(&self) -> Result<Check> {
        (**self).check()
    }
    fn bytes(&self) -> usize {
        (**self).bytes()
    }
    fn operations(&self) -> usize {
        (**self).operations()
    }
    fn exact(&self) -> bool {
        (**self).exact()
    }
}

/// Outputs compared, and how many of them are wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Check {
    pub checked: usize,
    pub mismatches: usize,
}

impl Check {
    /// Compares two equally long lists; a difference in length is a mismatch for each element that is too many.
    pub fn compare<T>(found: &[T], expected: &[T], equal: impl Fn(&T, &T) -> bool) -> Self {
        let wrong = found
            .iter()
            .zip(expected)
            .filter(|(f, e)| !equal(f, e))
            .count();
        Self {
            checked: expected.len(),
            mismatches: wrong + found.len().abs_diff(expected.len()),
        }
    }

    pub fn and(self, other: Self) -> Self {
        Self {
            checked: self.checked + other.checked,
            mismatches: self.mismatches + other.mismatches,
        }
    }
}
