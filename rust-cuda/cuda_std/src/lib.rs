//! The device side of CUDA for Rust kernels: Rust-CUDA's `cuda_std` interface on rustc's own
//! `nvptx64-nvidia-cuda` target.
//!
//! A kernel crate starts with
//!
//! ```ignore
//! #![cfg_attr(target_arch = "nvptx64", no_std, feature(abi_ptx, asm_experimental_arch))]
//! use cuda_std::prelude::*;
//! ```
//!
//! and is compiled to PTX by `cuda_builder`. On every other target it type-checks: each device function
//! has the same signature there and panics with a message that names it. `f16` and `bf16` come from the
//! `half` crate, which compiles for the device unchanged; [`float`] converts their bits with the GPU's
//! own instructions.
//!
//! # Choosing by architecture
//!
//! rustc sets `target_feature = "sm_NN"` for the architecture that a kernel is compiled for and for every
//! older one, so `#[cfg(target_feature = "sm_80")]` means "sm_80 or newer" and
//! [`cfg::compute_capability`] gives the number. A function that needs more than sm_75 exists only from
//! that architecture on; using it on an older one is a compile error that names the missing `sm_NN`.
//!
//! # Convergence
//!
//! What the lanes of a warp or the threads of a block execute together (shuffles, votes, barriers) uses
//! LLVM's intrinsics, which LLVM knows not to move across branches. Inline assembly is not marked that
//! way on this target, and is used only for what a lane executes on its own. rustc itself does copy such
//! calls into branches, unless it is told not to (`-Zmir-enable-passes=-JumpThreading`), as `cuda_builder` does.

#![no_std]
#![cfg_attr(
    target_arch = "nvptx64",
    feature(asm_experimental_arch, link_llvm_intrinsics, abi_unadjusted),
    // The only way to reach LLVM's NVPTX intrinsics, which `core::arch::nvptx` covers only in part.
    allow(internal_features)
)]

extern crate self as cuda_std;

#[cfg(target_arch = "nvptx64")]
mod llvm;
#[cfg(target_arch = "nvptx64")]
mod rt;

pub mod async_copy;
pub mod atomic;
pub mod cfg;
pub mod float;
pub mod grid;
pub mod intrinsics;
pub mod kernel;
pub mod mma;
pub mod ptr;
pub mod shared;
pub mod thread;
pub mod warp;

pub use cuda_std_macros::{gpu_only, kernel, shared_array};
pub use float::GpuFloat;

/// What nearly every kernel uses.
pub mod prelude {
    pub use crate::{GpuFloat, gpu_only, kernel, shared_array, thread, warp};
}
