//! The operations that `bench` times, `compare` compares and `profile` counts, each on random data and with its reference.

mod fused;
mod ladder;
mod product;
mod rows;
mod weights;

pub use fused::{Fused, Kernels};
pub use product::{MAX_TOKENS, PRODUCTS, Product, ProductData};
pub use rows::ROW_OPERATIONS;
pub use weights::WEIGHT_OPERATIONS;

use anyhow::{Result, ensure};
use bitnet_cuda::device::{Buffer, Device, Stream};
use bitnet_cuda::layout::tiled::BLOCK_COLUMNS;
use std::fmt;
use std::ops::Range;

/// Sizes of an operation: `m` tokens of `k` features, weights `[n, k]`. Some have no tokens or no weights.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    pub m: usize,
    pub n: usize,
    pub k: usize,
}

impl Sizes {
    /// Fails where a matrix of these sizes, as the kernels pad it, has more than `limit` elements: before anything of that size is made.
    pub fn require_at_most(&self, limit: usize) -> Result<()> {
        let rows = self.m.max(self.n);
        // Of all layouts, `Tiled` pads k the most.
        let columns = self
            .k
            .next_multiple_of(BLOCK_COLUMNS)
            .max(self.n.min(self.m));
        ensure!(
            rows.saturating_mul(columns) <= limit,
            "{self}: matrices of more than {limit} elements, k padded to a multiple of {BLOCK_COLUMNS}, are not made up and checked here"
        );
        Ok(())
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = [("m", self.m), ("n", self.n), ("k", self.k)];
        let there = all.iter().filter(|(_, size)| *size > 0);
        let texts: Vec<String> = there.map(|(name, size)| format!("{name} {size}")).collect();
        f.write_str(&texts.join(" "))
    }
}

/// An operation's name, and how it is made on random data.
pub struct Named(pub &'static str, pub Make);

/// Makes an operation on random data of these sizes.
pub type Make = fn(&Device, Sizes, &mut fastrand::Rng) -> Result<Box<dyn Operation>>;

/// An operation with its inputs and outputs on a device.
pub trait Operation {
    /// Submits it.
    fn launch(&mut self, stream: &Stream) -> Result<()>;

    /// The bytes of all outputs, as the last launch left them.
    fn outputs(&self) -> Result<Vec<u8>>;

    /// Compares the outputs with the CPU reference.
    fn check(&self) -> Result<Check>;

    /// The minimal traffic in bytes: each input read once, each output written once.
    fn bytes(&self) -> usize;

    /// Multiplications and additions, each counted as one.
    fn operations(&self) -> usize;

    /// Whether every device gives the same bits. The hardware's `ex2.approx` and `rcp.approx` do not.
    fn exact(&self) -> bool {
        true
    }

    /// Device addresses of the packed weights that it reads, where it does.
    fn weights(&self) -> Option<Range<u64>> {
        None
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
    fn weights(&self) -> Option<Range<u64>> {
        (**self).weights()
    }
}

/// The addresses of a buffer's bytes.
fn addresses(buffer: &Buffer<u8>) -> Range<u64> {
    let first = buffer.device_ptr();
    first..first + buffer.size_bytes() as u64
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
