//! The middle of a BitNet feed-forward layer: `quantize(norm(act(gate) * up))`, in one pass over memory.
//!
//! Intermediate values are f32. Formulas, pointer layouts and thread mapping are those of the `activation`, `norm` and `quantize`
//! modules, with `width` as `k`: a block processes a token, and a thread keeps its chunks in registers, those of wide rows in shared
//! memory. Bound by memory bandwidth.

use crate::activation::Gated;
use crate::element::AnyFloat;
use crate::grid;
use crate::norm::Norm;
use crate::quantize::Quantized;
#[cfg(not(target_arch = "nvptx64"))]
use crate::row::Variant;
use crate::row::{ANY, MAX_THREADS, WHOLE, WIDE};
use cuda_std::{kernel, thread};

/// Parameters of the kernels, as [`cuda_std::kernel::Kernel::Params`].
pub type Params = (
    *const AnyFloat,
    *const AnyFloat,
    u32,
    *const f32,
    *const f32,
    *mut i8,
    *mut f32,
    *mut i32,
    f32,
    u32,
    u32,
    u32,
    u32,
    u32,
);

/// Defines the kernels: the entry points, and the list for the host.
macro_rules! variants {
    ($($name:ident $chunks:expr, $whole:expr;)*) => {
        /// The kernels, in order of preference; the last accepts any row.
        #[cfg(not(target_arch = "nvptx64"))]
        pub const VARIANTS: &[Variant<Params>] =
            &[$(Variant { chunks: $chunks, whole: $whole, entry: crate::Entry::of::<$name>() }),*];
        $(
            /// Gated activation, norm and quantization; see the module.
            #[kernel(launch_bounds(MAX_THREADS, 1))]
            pub unsafe fn $name(
                gate: *const AnyFloat,
                up: *const AnyFloat,
                dtype: u32,
                gamma: *const f32,
                beta: *const f32,
                values: *mut i8,
                scale: *mut f32,
                sum: *mut i32,
                eps: f32,
                norm: u32,
                activation: u32,
                layout: u32,
                width: u32,
                k_padded: u32,
            ) {
                let norm = Norm::<$whole> { kind: norm, gamma, beta, eps, width };
                // SAFETY: the host launches it on buffers as the modules describe.
                unsafe { norm.prefetch() };
                grid::synchronize_and_trigger();
                let source = Gated::<$whole>::new(gate, up, dtype, activation, layout, width);
                let output = Quantized { values, scale, sum, k_padded };
                // SAFETY: the host launches it on buffers as the modules describe.
                unsafe { norm.run::<_, _, $chunks>(thread::block_idx_x() as usize, source, None, output, 0) }
            }
        )*
    };
}

variants! {
    gated_norm_quantize_c1 1, WHOLE;
    gated_norm_quantize_c2 2, WHOLE;
    gated_norm_quantize_c1_any 1, ANY;
    gated_norm_quantize_wide WIDE, ANY;
}
