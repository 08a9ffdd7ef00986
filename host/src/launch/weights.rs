//! Weight quantization and the packed layouts: launchers.

use super::floats::Floats;
use super::{Float, Input, LaunchError, Output, launch};
use crate::device::{Buffer, LaunchConfig, Stream};
use crate::layout::{Layout, MAX_K};
use crate::reference::quantize::WeightGranularity;
use kernels_gpu::Entry;
use kernels_gpu::packed::{self, MAX_THREADS, ROWS, WARP_COLUMNS};
use kernels_gpu::weights::{self, SUM_ROWS};

/// Sizes of a matrix `[n, k]` and of its padded form in a layout.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Matrix {
    pub layout: Layout,
    pub n: usize,
    pub k: usize,
    pub n_padded: usize,
    pub k_padded: usize,
}

/// Sizes as kernels take them.
struct Arguments {
    layout: u32,
    n: u32,
    k: u32,
    n_padded: u32,
    k_padded: u32,
}

impl Matrix {
    fn arguments(&self) -> Result<Arguments, LaunchError> {
        const MAX_N: usize = i32::MAX as usize;
        let layout = match self.layout {
            Layout::RowMajor => packed::Layout::RowMajor,
            Layout::Ladder => packed::Layout::Ladder,
            Layout::Tiled => packed::Layout::Tiled,
        };
        Ok(Arguments {
            layout: layout as u32,
            n: super::size("n", self.n, MAX_N)?,
            k: super::size("k", self.k, MAX_K)?,
            n_padded: super::size("padded n", self.n_padded, MAX_N)?,
            k_padded: super::size("padded k", self.k_padded, MAX_K + 1)?,
        })
    }

    fn packed_len(&self) -> usize {
        self.n_padded * self.k_padded / 4
    }
}

/// A block for the rows that it takes, with a warp for the columns that one takes, as far as a block has warps.
fn by_quads(rows: u32, columns: u32) -> LaunchConfig {
    let threads = columns.div_ceil(WARP_COLUMNS) * 32;
    blocks(rows.div_ceil(ROWS), threads.min(MAX_THREADS))
}

fn blocks(grid: u32, threads: u32) -> LaunchConfig {
    LaunchConfig {
        grid: [grid, 1, 1],
        block: [threads, 1, 1],
        dynamic_shared: 0,
        cooperative: false,
    }
}

/// f64 sums of the magnitudes in each row of `[n, k]`, and of the rows where there is a buffer for them.
pub(crate) fn weight_sums<T: Float>(
    stream: &Stream,
    weights: &Buffer<T>,
    abs_sums: &mut Buffer<f64>,
    sums: Option<&mut Buffer<f64>>,
    matrix: Matrix,
) -> Result<(), LaunchError> {
    let sizes = matrix.arguments()?;
    let arguments = (
        Floats(Input::new("weights", weights, matrix.n * matrix.k)?),
        T::DTYPE as u32,
        Output::new("abs_sums", abs_sums, matrix.n)?,
        sums.map(|sums| Output::new("sums", sums, matrix.n))
            .transpose()?,
        sizes.n,
        sizes.k,
    );
    let config = blocks(sizes.n.div_ceil(SUM_ROWS), MAX_THREADS);
    // SAFETY: a warp a row; the kernel reads `[n, k]` and writes a number a row.
    unsafe {
        launch(
            stream,
            Entry::of::<weights::weight_sums>(),
            config,
            arguments,
        )
    }
}

/// Means of `abs_sums`, at least `least`, into `scale`, and of `sums` into `threshold`.
pub(crate) fn weight_scales(
    stream: &Stream,
    (abs_sums, scale): (&Buffer<f64>, &mut Buffer<f32>),
    binary: Option<(&Buffer<f64>, &mut Buffer<f32>)>,
    granularity: WeightGranularity,
    least: f32,
    matrix: Matrix,
) -> Result<(), LaunchError> {
    let sizes = matrix.arguments()?;
    let rows = matrix.n;
    let (sums, threshold) = match binary {
        Some((sums, threshold)) => (
            Some(Input::new("sums", sums, rows)?),
            Some(Output::new("threshold", threshold, rows)?),
        ),
        None => (None, None),
    };
    let arguments = (
        Input::new("abs_sums", abs_sums, rows)?,
        sums,
        Output::new("scale", scale, rows)?,
        threshold,
        sizes.n,
        sizes.k,
        u32::from(granularity == WeightGranularity::Tensor),
        least,
    );
    // SAFETY: one block; the kernel reads and writes a number a row in each buffer.
    unsafe {
        launch(
            stream,
            Entry::of::<weights::weight_scales>(),
            blocks(1, MAX_THREADS),
            arguments,
        )
    }
}

/// Quantizes `[n, k]` into `packed`, `Tiled`: to ternary by `scale`, or to binary by `threshold` where there is one.
pub(crate) fn quantize_weights<T: Float>(
    stream: &Stream,
    weights: &Buffer<T>,
    scale: &Buffer<f32>,
    threshold: Option<&Buffer<f32>>,
    packed: &mut Buffer<u8>,
    matrix: Matrix,
) -> Result<(), LaunchError> {
    let sizes = matrix.arguments()?;
    let arguments = (
        Floats(Input::new("weights", weights, matrix.n * matrix.k)?),
        T::DTYPE as u32,
        Input::new("scale", scale, matrix.n)?,
        threshold
            .map(|threshold| Input::new("threshold", threshold, matrix.n))
            .transpose()?,
        Output::new("packed", packed, matrix.packed_len())?,
        sizes.n,
        sizes.k,
        sizes.n_padded,
        sizes.k_padded,
    );
    let config = by_quads(sizes.n_padded, sizes.k_padded);
    // SAFETY: the blocks cover the padded rows; the kernel reads `[n, k]` and writes the padded matrix.
    unsafe {
        launch(
            stream,
            Entry::of::<weights::quantize_weights>(),
            config,
            arguments,
        )
    }
}

/// Multiplies packed weights with their rows' scales, into `[n, k]`.
pub(crate) fn dequantize_weights<T: Float>(
    stream: &Stream,
    packed: &Buffer<u8>,
    scale: &Buffer<f32>,
    output: &mut Buffer<T>,
    matrix: Matrix,
) -> Result<(), LaunchError> {
    let sizes = matrix.arguments()?;
    let arguments = (
        Input::new("packed", packed, matrix.packed_len())?,
        Input::new("scale", scale, matrix.n)?,
        Floats(Output::new("output", output, matrix.n * matrix.k)?),
        T::DTYPE as u32,
        sizes.layout,
        sizes.n,
        sizes.k,
        sizes.k_padded,
    );
    let config = by_quads(sizes.n, sizes.k);
    // SAFETY: the blocks cover the rows; the kernel reads the packed matrix and writes `[n, k]`.
    unsafe {
        launch(
            stream,
            Entry::of::<packed::dequantize_weights>(),
            config,
            arguments,
        )
    }
}

/// Packs int8 values `[n, k]`, and sets `invalid` where one is not ternary.
pub(crate) fn pack_ternary(
    stream: &Stream,
    values: &Buffer<i8>,
    packed: &mut Buffer<u8>,
    invalid: &mut Buffer<u32>,
    matrix: Matrix,
) -> Result<(), LaunchError> {
    let sizes = matrix.arguments()?;
    let arguments = (
        Input::new("values", values, matrix.n * matrix.k)?,
        Output::new("packed", packed, matrix.packed_len())?,
        Output::new("invalid", invalid, 1)?,
        sizes.layout,
        sizes.n,
        sizes.k,
        sizes.n_padded,
        sizes.k_padded,
    );
    let config = by_quads(sizes.n_padded, sizes.k_padded);
    // SAFETY: the blocks cover the padded rows; the kernel reads `[n, k]` and writes the padded matrix.
    unsafe {
        launch(
            stream,
            Entry::of::<packed::pack_ternary>(),
            config,
            arguments,
        )
    }
}

/// Unpacks to int8 values `[n, k]`.
pub(crate) fn unpack_ternary(
    stream: &Stream,
    packed: &Buffer<u8>,
    values: &mut Buffer<i8>,
    matrix: Matrix,
) -> Result<(), LaunchError> {
    let sizes = matrix.arguments()?;
    let arguments = (
        Input::new("packed", packed, matrix.packed_len())?,
        Output::new("values", values, matrix.n * matrix.k)?,
        sizes.layout,
        sizes.n,
        sizes.k,
        sizes.k_padded,
    );
    let config = by_quads(sizes.n, sizes.k);
    // SAFETY: the blocks cover the rows; the kernel reads the packed matrix and writes `[n, k]`.
    unsafe {
        launch(
            stream,
            Entry::of::<packed::unpack_ternary>(),
            config,
            arguments,
        )
    }
}

/// Copies packed weights to another layout.
pub(crate) fn convert_layout(
    stream: &Stream,
    (source, from): (&Buffer<u8>, Matrix),
    (target, to): (&mut Buffer<u8>, Matrix),
) -> Result<(), LaunchError> {
    let (source_sizes, target_sizes) = (from.arguments()?, to.arguments()?);
    let arguments = (
        Input::new("source", source, from.packed_len())?,
        Output::new("target", target, to.packed_len())?,
        source_sizes.layout,
        source_sizes.n_padded,
        source_sizes.k_padded,
        target_sizes.layout,
        target_sizes.n_padded,
        target_sizes.k_padded,
    );
    let config = by_quads(target_sizes.n_padded, target_sizes.k_padded);
    // SAFETY: the blocks cover the padded rows of the target; the kernel touches the two padded matrices.
    unsafe {
        launch(
            stream,
            Entry::of::<packed::convert_layout>(),
            config,
            arguments,
        )
    }
}
