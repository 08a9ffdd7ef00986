//! Activation functions, plain (`act(x)`) and gated (`act(gate) * up`).
//!
//! | function | formula | computed as |
//! |---|---|---|
//! | squared ReLU | `max(x, 0)^2` | as stated |
//! | SiLU | `x / (1 + exp(-x))` | `x * rcp(1 + ex2(-x a))`, `a = log2 e` |
//! | GELU, tanh | `x / 2 * (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))` | `x * rcp(1 + ex2(-x (a + b x^2)))`, as `1 + tanh(z) = 2 / (1 + exp(-2z))` |
//! | GELU, erf | `x * Phi(x)`, `Phi(x) = (1 + erf(x / sqrt(2))) / 2` | `Phi(-z) = ex2(-z^2 log2(e) / 2) t P(t)`, `t = rcp(1 + p z)` for `z = abs(x)` |
//!
//! `ex2` and `rcp` are the approximate instructions, whose last bits differ between GPUs and the emulator; docs/numerics.md has
//! the bounds. None of the forms suffers from cancellation: each keeps its relative accuracy in the negative tail.
//!
//! | pointer | shape | dtype | alignment |
//! |---|---|---|---|
//! | `gate` | `[rows, width]`, or `[rows, 2 * width]` including up | f32, f16, bf16: `dtype` | 16 bytes; rows of whole chunks are faster |
//! | `up` (or null) | `[rows, width]` | same | same |
//! | `output` | `[rows, width]` | same | same |
//!
//! Threads: blocks `(row, segment)`; thread `t` of segment `s` processes chunk `s * block_dim + t` of 8 elements, then every
//! `segments * block_dim`-th chunk after it. Bound by memory bandwidth.

use crate::element::{AnyFloat, Floats};
use crate::grid;
use crate::norm::Source;
use crate::row::{ANY, CHUNK};
use cuda_std::{GpuFloat, kernel, thread};

/// The functions, with the numbers that are passed to kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// `max(x, 0)^2`.
    SquaredRelu = 0,
    /// `x / (1 + exp(-x))`.
    Silu = 1,
    /// GELU with the error function.
    GeluErf = 2,
    /// GELU with the hyperbolic tangent.
    GeluTanh = 3,
}

/// The number that is passed to kernels with an optional activation function to apply none.
pub const NO_ACTIVATION: u32 = u32::MAX;

/// How gate and up are stored, with the numbers that are passed to kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum GateUp {
    /// There is no up: the plain function is computed.
    Plain = 0,
    /// In separate buffers.
    Separate = 1,
    /// Both in the gate's buffer: in each row, all gate values, then all up values.
    Concatenated = 2,
    /// Both in the gate's buffer: gate and up of a feature are adjacent.
    Interleaved = 3,
}

const LOG2_E: f32 = core::f32::consts::LOG2_E;
/// `2 sqrt(2 / pi) log2(e)`.
const TANH_LINEAR: f32 = 2.302_208_2;
/// `0.044715 * TANH_LINEAR`.
const TANH_CUBIC: f32 = 0.102_943_24;

/// `p` of `t = 1 / (1 + p z)`.
const PHI_P: f32 = 0.27;
/// Coefficients of `P`, constant term first: `Phi(-z) exp(z^2 / 2) = t P(t)` within a relative error of 2.4e-8 for z in 0..=14.5. A
/// least-squares fit of the relative error, its weights adjusted until the error's extrema were equal in size.
const PHI: [f32; 9] = [
    0.107_720_66,
    0.107_542_87,
    0.101_810_61,
    0.072_049_61,
    0.107_825_64,
    -0.069_210_78,
    0.169_786_19,
    -0.126_485_87,
    0.028_961_103,
];

/// The activation function of a launch.
#[derive(Clone, Copy)]
pub(crate) struct Function {
    kind: u32,
    /// Coefficients of the exponent, for the functions that use a sigmoid.
    linear: f32,
    cubic: f32,
}

impl Function {
    #[inline(always)]
    pub fn new(kind: u32) -> Self {
        let (linear, cubic) = if kind == Kind::Silu as u32 {
            (LOG2_E, 0.0)
        } else {
            (TANH_LINEAR, TANH_CUBIC)
        };
        Self {
            kind,
            linear,
            cubic,
        }
    }

    #[inline(always)]
    pub fn apply(&self, x: f32) -> f32 {
        if self.kind == Kind::SquaredRelu as u32 {
            // NaN fails the comparison and is kept.
            let positive = if x <= 0.0 { 0.0 } else { x };
            return positive * positive;
        }
        // Clamped: infinity times SiLU's cubic coefficient, 0, would be NaN.
        let square = (x * x).min(f32::MAX);
        if self.kind == Kind::GeluErf as u32 {
            let t = x.abs().mul_add(PHI_P, 1.0).recip_approx();
            let mut polynomial = PHI[8];
            unroll!(i < 8 <= 8, {
                polynomial = polynomial.mul_add(t, PHI[7 - i]);
            });
            let tail = (square * (-0.5 * LOG2_E)).exp2_approx() * (polynomial * t);
            x * if x < 0.0 { tail } else { 1.0 - tail }
        } else {
            let exponent = x * square.mul_add(self.cubic, self.linear);
            x * (1.0 + (-exponent).exp2_approx()).recip_approx()
        }
    }
}

/// Gate and up of a launch, and the function of the gate.
///
/// A chunk of the result needs two chunks, one of `first` and one of `second`: a gate chunk and an up chunk, or two chunks of interleaved pairs.
#[derive(Clone, Copy)]
pub(crate) struct Gated<const WHOLE: bool> {
    first: Floats,
    second: Floats,
    layout: u32,
    function: Function,
}

impl<const WHOLE: bool> Gated<WHOLE> {
    #[inline(always)]
    pub fn new(
        gate: *const AnyFloat,
        up: *const AnyFloat,
        dtype: u32,
        kind: u32,
        layout: u32,
        width: u32,
    ) -> Self {
        let interleaved = layout == GateUp::Interleaved as u32;
        let concatenated = layout == GateUp::Concatenated as u32;
        let columns = if interleaved { 2 * width } else { width };
        let second = if interleaved || concatenated {
            gate
        } else {
            up
        };
        Self {
            first: Floats::new(gate, dtype, columns),
            second: Floats::new(second, dtype, columns),
            layout,
            function: Function::new(kind),
        }
    }
}

impl<const WHOLE: bool> Source for Gated<WHOLE> {
    #[inline(always)]
    unsafe fn load(&self, row: usize, chunk: u32, _first: bool) -> [f32; CHUNK] {
        let interleaved = self.layout == GateUp::Interleaved as u32;
        let (rows, chunks) = if interleaved {
            ([row, row], [2 * chunk, 2 * chunk + 1])
        } else if self.layout == GateUp::Concatenated as u32 {
            // A row of gate values, then a row of up values.
            ([2 * row, 2 * row + 1], [chunk, chunk])
        } else {
            ([row, row], [chunk, chunk])
        };
        // SAFETY: `row` is a row of the launch. A plain function has no second chunk.
        let (a, b) = unsafe {
            (
                self.first.load::<WHOLE>(rows[0], chunks[0]),
                if self.second.is_null() {
                    [1.0; CHUNK]
                } else {
                    self.second.load::<WHOLE>(rows[1], chunks[1])
                },
            )
        };
        let mut y = [0.0; CHUNK];
        unroll!(i < CHUNK <= 8, {
            let (gate, up) = if !interleaved {
                (a[i], b[i])
            } else if i < CHUNK / 2 {
                (a[2 * i % CHUNK], a[(2 * i + 1) % CHUNK])
            } else {
                (b[2 * i % CHUNK], b[(2 * i + 1) % CHUNK])
            };
            // All functions are 0 at 0, so zeros past the end stay zero; the factor 1 of a plain function changes nothing.
            y[i] = self.function.apply(gate) * up;
        });
        y
    }
}

/// Computes this block's segment of a row.
///
/// # Safety
/// Launched with blocks `(row, segment)`, on buffers as the module describes.
#[inline(always)]
unsafe fn run(source: Gated<ANY>, output: Floats) {
    let row = thread::block_idx_x() as usize;
    let mut chunk = thread::block_idx_y() * thread::block_dim_x() + thread::thread_idx_x();
    while chunk * (CHUNK as u32) < output.columns() {
        // SAFETY: the row is a row of the launch, and each chunk belongs to one thread.
        unsafe { output.store::<ANY>(row, chunk, &source.load(row, chunk, true)) };
        chunk += thread::grid_dim_y() * thread::block_dim_x();
    }
}

/// Maximum number of threads per block.
pub const MAX_THREADS: u32 = 256;

/// Activation functions; see the module.
#[kernel(launch_bounds(MAX_THREADS, 4))]
pub unsafe fn activation(
    gate: *const AnyFloat,
    up: *const AnyFloat,
    output: *mut AnyFloat,
    dtype: u32,
    kind: u32,
    layout: u32,
    width: u32,
) {
    grid::synchronize_and_trigger();
    let source = Gated::new(gate, up, dtype, kind, layout, width);
    // SAFETY: the host launches it on buffers as the module describes.
    unsafe { run(source, Floats::new(output, dtype, width)) }
}
