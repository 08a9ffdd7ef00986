//! The device code of the BitNet kernels, one file per family. Depends on `cuda_std` and, for types, `half`.
//!
//! Compiled for `nvptx64-nvidia-cuda`, it becomes the PTX in `host/ptx`. Compiled for the host, it provides a type for each kernel
//! that carries its signature ([`cuda_std::kernel::Kernel`]), and the lists of variants that the host chooses from.
#![no_std]
#![cfg_attr(target_arch = "nvptx64", feature(abi_ptx, asm_experimental_arch))]
// Kernels run on many threads at once, on pointers that only the host can validate. The table in each file states the requirements.
#![allow(clippy::missing_safety_doc, clippy::too_many_arguments)]
// Loops use the index names of the formulas.
#![allow(clippy::needless_range_loop)]

/// Repeats a block with a constant index, so that arrays indexed by it stay in registers whatever LLVM's unrolling limits are.
///
/// `unroll!(i < count <= 4, { ... })` writes the block four times and keeps the copies with `i < count`, a constant of at most 4. The
/// bound is explicit because the copies of nested blocks multiply.
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
