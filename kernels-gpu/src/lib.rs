//! The device code of BitNet's kernels, one file a family. Knows `cuda_std` and nothing else.
//!
//! Compiled for `nvptx64-nvidia-cuda` it is the PTX in `host/ptx`. Compiled for the host it leaves, for each kernel, the type
//! that carries its signature ([`cuda_std::kernel::Kernel`]) and the lists of variants that the host chooses from.
#![no_std]
#![cfg_attr(target_arch = "nvptx64", feature(abi_ptx, asm_experimental_arch))]
// Kernels run on many threads at once, on pointers that only the host can vouch for. Each file's table says what they must be.
#![allow(clippy::missing_safety_doc, clippy::too_many_arguments)]
// Indexed by the same names as the formulas.
#![allow(clippy::needless_range_loop)]

/// Repeats a block with a constant index, so that arrays indexed by it stay in registers whatever LLVM's unrolling limits are.
///
/// `unroll!(i < count <= 4, { ... })` writes the block four times and keeps those with `i < count`, a constant of at most 4. The
/// bound is spelled because the copies of nested blocks multiply.
macro_rules! unroll {
    ($index:ident < $count:tt <= 2, $body:block) => { unroll!(@copies $index $count $body 0 1) };
    ($index:ident < $count:tt <= 3, $body:block) => { unroll!(@copies $index $count $body 0 1 2) };
    ($index:ident < $count:tt <= 4, $body:block) => { unroll!(@copies $index $count $body 0 1 2 3) };
    ($index:ident < $count:tt <= 5, $body:block) => { unroll!(@copies $index $count $body 0 1 2 3 4) };
    ($index:ident < $count:tt <= 8, $body:block) => { unroll!(@copies $index $count $body 0 1 2 3 4 5 6 7) };
    ($index:ident < $count:tt <= 16, $body:block) => {
        unroll!(@copies $index $count $body 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)
    };
    (@copies $index:ident $count:tt $body:block $($i:literal)*) => {
        $(if $i < $count {
            let $index: usize = $i;
            $body
        })*
    };
}

pub mod activation;
mod block;
mod element;
#[cfg(not(target_arch = "nvptx64"))]
mod entry;
pub mod feed_forward;
pub mod gemv;
mod grid;
pub mod norm;
pub mod packed;
pub mod quantize;
pub mod row;
pub mod weights;

pub use element::{AnyFloat, Dtype};
#[cfg(not(target_arch = "nvptx64"))]
pub use entry::Entry;
