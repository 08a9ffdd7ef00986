//! W2A8 GEMV: launcher and variant choice.

use super::estimate;
use super::floats::Floats;
use super::workspace::Workspaces;
use super::{Input, LaunchError, Output, launch};
use crate::device::{Buffer, Capabilities, LaunchConfig, Stream};
use crate::layout::Layout;
use crate::reference::activation::Activation;
use half::{bf16, f16};
use kernels_gpu::Dtype;
use kernels_gpu::gemv::{self, Shape, Variant};
use std::fmt;

/// A floating-point type on a device: f32, f16 or bf16. Sealed.
pub trait Float: sealed::Float {}

impl Float for f32 {}
impl Float for f16 {}
impl Float for bf16 {}

pub(super) mod sealed {
    use super::*;

    // Kernels are told the type by number, so an implementation of somebody else's could have them access memory beyond a
    // buffer.
    pub trait Float: bytemuck::Pod {
        /// Its name for a kernel.
        const DTYPE: Dtype;
    }

    impl Float for f32 {
        const DTYPE: Dtype = Dtype::F32;
    }
    impl Float for f16 {
        const DTYPE: Dtype = Dtype::F16;
    }
    impl Float for bf16 {
        const DTYPE: Dtype = Dtype::Bf16;
    }
}

/// One of the compiled GEMV variants; `Display` prints its name.
#[derive(Clone, Copy)]
pub struct Gemv(&'static Variant);

impl PartialEq for Gemv {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for Gemv {}

impl fmt::Display for Gemv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Debug for Gemv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gemv({self})")
    }
}

impl Gemv {
    /// All variants for weights in `layout`; there are none for `RowMajor`.
    pub fn all(layout: Layout) -> impl Iterator<Item = Gemv> {
        let variants = match layout {
            Layout::Tiled => gemv::TILED,
            Layout::Ladder => gemv::LADDER,
            Layout::RowMajor => &[],
        };
        variants.iter().map(Gemv)
    }

    /// The variant for `Tiled` weights with this [`Gemv::name`].
    ///
    /// # Errors
    /// [`LaunchError::UnknownVariant`], which lists the names that exist.
    pub fn named(name: &str) -> Result<Self, LaunchError> {
        Self::all(Layout::Tiled)
            .find(|variant| variant.name() == name)
            .ok_or_else(|| LaunchError::UnknownVariant {
                name: name.to_owned(),
                known: Self::names(Layout::Tiled),
            })
    }

    /// The names of the variants for weights in `layout`, as a list to read.
    fn names(layout: Layout) -> String {
        let names: Vec<_> = Self::all(layout).map(|variant| variant.name()).collect();
        names.join(", ")
    }

    /// The default variant for `[n, k]` weights and `m` tokens on a device. Candidates are the variants for the smallest number
    /// of tokens that is at least `m` (or, if none is, for the largest); of those whose estimated time is about the
    /// shortest (`launch/estimate.rs`), the one with the fewest warps is chosen. `None` if no kernel supports the layout or K.
    pub fn choose(
        capabilities: &Capabilities,
        layout: Layout,
        m: usize,
        n: usize,
        k: usize,
    ) -> Option<Self> {
        let all = || Self::all(layout).filter(|variant| variant.require_k(k).is_ok());
        let most = all().map(|variant| variant.tokens()).max()?;
        let enough = all().filter(|variant| variant.tokens() >= m.min(most));
        Self::choose_from(enough, capabilities, n, k)
    }

    /// As [`Gemv::choose`], among variants that take as many tokens and columns as there are.
    pub(crate) fn choose_from(
        variants: impl Iterator<Item = Self>,
        capabilities: &Capabilities,
        n: usize,
        k: usize,
    ) -> Option<Self> {
        let variants: Vec<Self> = variants.collect();
        let tokens = variants.iter().map(Self::tokens).min()?;
        let fitting = variants
            .into_iter()
            .filter(|variant| variant.tokens() == tokens);
        estimate::choose(fitting, Self::shape, capabilities, n, k)
    }

    /// The time that DRAM takes to deliver the weights, as a share in 0..=1 of the estimated time of a launch with cold caches
    /// (`launch/estimate.rs` has the estimate). A split that leaves a warp without work scores 0.
    pub fn score(&self, capabilities: &Capabilities, n: usize, k: usize) -> f64 {
        estimate::ideal_cycles(capabilities, n, k)
            / estimate::cycles(self.shape(), capabilities, n, k)
    }

    /// Whether it supports `m` tokens in one launch and weights of `k` padded columns.
    pub fn fits(&self, m: usize, k: usize) -> bool {
        self.tokens() >= m && self.require_k(k).is_ok()
    }

    /// Refuses a K beyond [`Shape::max_k`].
    pub(crate) fn require_k(&self, k: usize) -> Result<(), LaunchError> {
        let limit = self.shape().max_k();
        if k as u64 > limit {
            return Err(LaunchError::VariantK {
                variant: self.name().to_owned(),
                limit,
                k,
            });
        }
        Ok(())
    }

    /// Refuses weights of a layout that it is not made for.
    pub(crate) fn require_layout(&self, layout: Layout) -> Result<(), LaunchError> {
        if Self::all(layout).any(|variant| variant.name() == self.name()) {
            return Ok(());
        }
        Err(LaunchError::VariantLayout {
            variant: self.name().to_owned(),
            layout,
            known: Self::names(layout),
        })
    }

    /// How its threads map to the matrix.
    pub fn shape(&self) -> Shape {
        self.0.shape
    }

    /// The most tokens of one launch.
    pub fn tokens(&self) -> usize {
        self.shape().tokens as usize
    }

    /// The kernel's name, such as `gemv_m1_t1_w4_k2`: tokens, tiles of 16 rows per block, warps per block, blocks that split K.
    pub fn name(&self) -> &'static str {
        self.0.entry.name
    }
}

/// The operands of a product. Rows of activations and outputs are counted from `first_token`.
#[derive(Debug)]
pub(crate) struct Operands<'a, T> {
    pub weights: &'a Buffer<u8>,
    pub activations: &'a Buffer<i8>,
    pub activation_scale: &'a Buffer<f32>,
    pub activation_sum: &'a Buffer<i32>,
    pub row_scale: &'a Buffer<f32>,
    pub bias: Option<&'a Buffer<f32>>,
    pub activation: Option<Activation>,
    pub residual: Option<&'a Buffer<T>>,
    pub output: &'a mut Buffer<T>,
    pub first_token: usize,
    pub workspaces: &'a Workspaces,
}

/// Sizes of a product's launch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    /// Tokens, at most the variant's.
    pub m: usize,
    pub n: usize,
    /// Columns of the weights, padded as their layout has it.
    pub k: usize,
    /// Columns of the activations, padded.
    pub k_pitch: usize,
}

/// `[m, n]` outputs.
pub(crate) fn gemv<T: Float>(
    stream: &Stream,
    variant: Gemv,
    operands: Operands<'_, T>,
    Sizes { m, n, k, k_pitch }: Sizes,
) -> Result<(), LaunchError> {
    variant.require_k(k)?;
    let shape = variant.shape();
    let n_argument = super::size("n", n, i32::MAX as usize)?;
    let m_argument = super::size("m", m, variant.tokens())?;
    let workspace_len = shape.workspace_len(n_argument);
    let mut workspace = match workspace_len {
        0 => None,
        len => Some(operands.workspaces.take(stream, len)?),
    };
    let first = operands.first_token;
    let arguments = (
        Input::new(
            "weights",
            operands.weights,
            n.next_multiple_of(gemv::TILE_ROWS) * k / 4,
        )?,
        Input::slice(
            "activations",
            operands.activations,
            first * k_pitch,
            m * k_pitch,
        )?,
        Input::slice("activation_scale", operands.activation_scale, first, m)?,
        Input::slice("activation_sum", operands.activation_sum, first, m)?,
        Input::new("row_scale", operands.row_scale, n)?,
        operands
            .bias
            .map(|bias| Input::new("bias", bias, n))
            .transpose()?,
        operands
            .residual
            .map(|residual| Input::slice("residual", residual, first * n, m * n).map(Floats))
            .transpose()?,
        Floats(Output::slice("output", operands.output, first * n, m * n)?),
        workspace
            .as_mut()
            .map(|workspace| Output::new("workspace", workspace, workspace_len))
            .transpose()?,
        T::DTYPE as u32,
        super::activation::kind_or_none(operands.activation),
        n_argument,
        k as u32,
        k_pitch as u32,
        m_argument,
        estimate::prefetched_bytes(stream),
    );
    let config = LaunchConfig {
        grid: [shape.blocks(n_argument), shape.splits, 1],
        block: [shape.threads(), 1, 1],
        dynamic_shared: shape.shared_bytes(),
        cooperative: false,
    };
    // SAFETY: grid and block are the variant's for this shape, which its module's table states in terms of these lengths.
    unsafe { launch(stream, variant.0.entry, config, arguments)? };
    if let Some(workspace) = workspace {
        operands.workspaces.give_back(stream, workspace);
    }
    Ok(())
}
