//! The entry points, and their lists for the host.

#[cfg(not(target_arch = "nvptx64"))]
use super::Shape;
use super::epilogue::{Int8xInt2, Rows, Scaled};
use super::layout::{Ladder, Tiled};
use super::{Problem, UNIT_ROWS, one_token, tokens};
use crate::element::AnyFloat;
use cuda_std::{kernel, thread};
use half::bf16;

/// Parameters of a GEMV kernel, as [`cuda_std::kernel::Kernel::Params`].
pub type Params = (
    *const u8,
    *const i8,
    *const f32,
    *const i32,
    *const f32,
    *const f32,
    *const AnyFloat,
    *mut AnyFloat,
    *mut u32,
    u32,
    u32,
    u32,
    u32,
    u32,
    u32,
    u32,
);

/// A kernel and its shape.
#[cfg(not(target_arch = "nvptx64"))]
#[derive(Clone, Copy, Debug)]
pub struct Variant {
    /// How threads map to the matrix.
    pub shape: Shape,
    /// The kernel.
    pub entry: crate::Entry<Params>,
}

/// Defines the variants of a layout: the entry points, and the list for the host.
macro_rules! variants {
    ($list:ident, $layout:ty: $(
        $name:ident: $tokens:tt tokens, $tiles:literal tiles, $warps:literal warps, $splits:literal splits, $steps:literal steps,
            $blocks:literal blocks;
    )*) => {
        /// The compiled variants for this layout.
        #[cfg(not(target_arch = "nvptx64"))]
        pub const $list: &[Variant] = &[$(Variant {
            shape: Shape { tiles: $tiles, warps: $warps, steps: $steps, tokens: $tokens, splits: $splits },
            entry: crate::Entry::of::<$name>(),
        }),*];
        $(
            /// W2A8 GEMV; see the module.
            #[kernel(launch_bounds(1024 / $blocks, $blocks))]
            pub unsafe fn $name(
                weights: *const u8,
                activations: *const i8,
                activation_scale: *const f32,
                activation_sum: *const i32,
                row_scale: *const f32,
                bias: *const f32,
                residual: *const AnyFloat,
                output: *mut AnyFloat,
                workspace: *mut u32,
                dtype: u32,
                activation: u32,
                n: u32,
                k: u32,
                k_pitch: u32,
                tokens: u32,
                prefetched_bytes: u32,
            ) {
                let problem = Problem { weights, activations, n, k, k_pitch, tokens, prefetched_bytes, workspace };
                let rows = Rows { row_scale, bias, activation, residual, output, dtype };
                let epilogue = Scaled { activation_scale, activation_sum, rows };
                // SAFETY: the host launches it on buffers as the module describes.
                unsafe {
                    variants!(@run $tokens, $layout, Scaled, $tiles, $warps, $splits, $steps, problem, epilogue)
                }
            }
        )*
    };
    (@run 1, $layout:ty, $epilogue:ty, $tiles:literal, $warps:literal, $splits:literal, $steps:literal, $($arguments:expr),*) => {
        one_token::gemv::<
            $layout, $epilogue, $tiles, $warps, $splits, { $warps * $splits }, $steps, { $tiles * UNIT_ROWS },
        >($($arguments),*)
    };
    (@run 8, $layout:ty, $epilogue:ty, $tiles:literal, $warps:literal, $splits:literal, $steps:literal, $($arguments:expr),*) => {{
        const { assert!($tiles == tokens::TILES) };
        let split = if $splits == 1 { 0 } else { thread::block_idx_y() };
        tokens::gemv::<$layout, $epilogue, $warps, $splits, { $warps * $splits }, $steps>(split, $($arguments),*)
    }};
}

// `blocks` blocks of 1024 / `blocks` threads per multiprocessor limit the registers to 64, and thereby the number of loads that ptxas keeps in flight.
// A block of one warp counts as two, because no GPU with 1024 threads per multiprocessor holds 32 blocks there.
variants! { TILED, Tiled:
    gemv_m1_t1_w1: 1 tokens, 1 tiles, 1 warps, 1 splits, 3 steps, 16 blocks;
    gemv_m1_t2_w1: 1 tokens, 2 tiles, 1 warps, 1 splits, 1 steps, 16 blocks;
    gemv_m1_t1_w2: 1 tokens, 1 tiles, 2 warps, 1 splits, 3 steps, 16 blocks;
    gemv_m1_t1_w4: 1 tokens, 1 tiles, 4 warps, 1 splits, 3 steps, 8 blocks;
    gemv_m1_t1_w8: 1 tokens, 1 tiles, 8 warps, 1 splits, 3 steps, 4 blocks;
    gemv_m1_t1_w32: 1 tokens, 1 tiles, 32 warps, 1 splits, 2 steps, 1 blocks;
    gemv_m1_t1_w4_k2: 1 tokens, 1 tiles, 4 warps, 2 splits, 3 steps, 8 blocks;
    gemv_m1_t1_w4_k4: 1 tokens, 1 tiles, 4 warps, 4 splits, 3 steps, 8 blocks;
    gemv_m1_t1_w8_k2: 1 tokens, 1 tiles, 8 warps, 2 splits, 3 steps, 4 blocks;
    gemv_m1_t1_w8_k4: 1 tokens, 1 tiles, 8 warps, 4 splits, 3 steps, 4 blocks;
    gemv_m8_t2_w2: 8 tokens, 2 tiles, 2 warps, 1 splits, 2 steps, 16 blocks;
    gemv_m8_t2_w4: 8 tokens, 2 tiles, 4 warps, 1 splits, 2 steps, 8 blocks;
    gemv_m8_t2_w8: 8 tokens, 2 tiles, 8 warps, 1 splits, 2 steps, 4 blocks;
    gemv_m8_t2_w16: 8 tokens, 2 tiles, 16 warps, 1 splits, 2 steps, 2 blocks;
    gemv_m8_t2_w8_k2: 8 tokens, 2 tiles, 8 warps, 2 splits, 2 steps, 4 blocks;
    gemv_m8_t2_w8_k4: 8 tokens, 2 tiles, 8 warps, 4 splits, 2 steps, 4 blocks;
}
variants! { LADDER, Ladder:
    gemv_ladder_m1_t1_w2: 1 tokens, 1 tiles, 2 warps, 1 splits, 2 steps, 16 blocks;
    gemv_ladder_m1_t1_w8: 1 tokens, 1 tiles, 8 warps, 1 splits, 2 steps, 4 blocks;
    gemv_ladder_m1_t1_w32: 1 tokens, 1 tiles, 32 warps, 1 splits, 2 steps, 1 blocks;
    gemv_ladder_m8_t2_w2: 8 tokens, 2 tiles, 2 warps, 1 splits, 2 steps, 16 blocks;
    gemv_ladder_m8_t2_w8: 8 tokens, 2 tiles, 8 warps, 1 splits, 2 steps, 4 blocks;
}

/// Parameters of an `int8xint2` kernel, as [`cuda_std::kernel::Kernel::Params`].
pub type Int8xInt2Params = (
    *const i8,
    *const u8,
    *mut bf16,
    *const bf16,
    *const bf16,
    u32,
    u32,
    u32,
    u32,
    u32,
    u32,
);

/// An `int8xint2` kernel and its shape.
#[cfg(not(target_arch = "nvptx64"))]
#[derive(Clone, Copy, Debug)]
pub struct Int8xInt2Variant {
    /// How threads map to the matrix.
    pub shape: Shape,
    /// The kernel.
    pub entry: crate::Entry<Int8xInt2Params>,
}

macro_rules! int8xint2_variants {
    ($($name:ident: $tokens:tt tokens, $tiles:literal tiles, $warps:literal warps, $steps:literal steps, $blocks:literal blocks;)*) => {
        /// The compiled variants of what Microsoft's `bitlinear_int8xint2` computes; each block along the grid's y computes a group of tokens.
        #[cfg(not(target_arch = "nvptx64"))]
        pub const INT8XINT2: &[Int8xInt2Variant] = &[$(Int8xInt2Variant {
            shape: Shape { tiles: $tiles, warps: $warps, steps: $steps, tokens: $tokens, splits: 1 },
            entry: crate::Entry::of::<$name>(),
        }),*];
        $(
            /// `y[m, n] = sum_k q[m, k] w[n, k] / s[m] * ws[n / rows_per_scale]` on `Ladder` weights.
            ///
            /// `activations` is `[tokens, k_pitch]` and 16-byte aligned; `k_pitch` is a multiple of 16, `k` of 32; `output` is `[tokens, n]`.
            #[kernel(launch_bounds(1024 / $blocks, $blocks))]
            pub unsafe fn $name(
                activations: *const i8,
                weights: *const u8,
                output: *mut bf16,
                activation_scale: *const bf16,
                row_scale: *const bf16,
                rows_per_scale: u32,
                n: u32,
                k: u32,
                k_pitch: u32,
                tokens: u32,
                prefetched_bytes: u32,
            ) {
                let group = thread::block_idx_y();
                let first = (group * $tokens) as usize;
                // SAFETY: the host launches it on buffers as stated above, with one block along y per group of tokens.
                unsafe {
                    let problem = Problem {
                        weights,
                        activations: activations.add(first * k_pitch as usize),
                        n,
                        k,
                        k_pitch,
                        tokens: (tokens - group * $tokens).min($tokens),
                        prefetched_bytes,
                        workspace: core::ptr::null_mut(),
                    };
                    let epilogue = Int8xInt2 {
                        activation_scale: activation_scale.add(first),
                        row_scale,
                        rows_per_scale,
                        output: output.add(first * n as usize),
                    };
                    variants!(@run $tokens, Ladder, Int8xInt2, $tiles, $warps, 1, $steps, problem, epilogue)
                }
            }
        )*
    };
}

int8xint2_variants! {
    int8xint2_w1: 1 tokens, 1 tiles, 1 warps, 2 steps, 16 blocks;
    int8xint2_w2: 1 tokens, 1 tiles, 2 warps, 2 steps, 16 blocks;
    int8xint2_w4: 1 tokens, 1 tiles, 4 warps, 2 steps, 8 blocks;
    int8xint2_w8: 1 tokens, 1 tiles, 8 warps, 2 steps, 4 blocks;
    int8xint2_w32: 1 tokens, 1 tiles, 32 warps, 2 steps, 1 blocks;
    int8xint2_m8_w2: 8 tokens, 2 tiles, 2 warps, 1 steps, 16 blocks;
    int8xint2_m8_w8: 8 tokens, 2 tiles, 8 warps, 1 steps, 4 blocks;
}
