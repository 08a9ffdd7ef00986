//! Weight quantization and the packed layouts: launchers.

use super::floats::Floats;
use super::{Float, Input, LaunchError, Output, launch, require_alignment};
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

/// One block per [`ROWS`] rows; one warp per [`WARP_COLUMNS`] columns, up to [`MAX_THREADS`] threads.
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
    require_alignment(weights, 16)?;
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
    let entry = Entry::of::<weights::weight_sums>();
    // SAFETY: one warp per row; the kernel reads `[n, k]` and writes one value per row.
    unsafe { launch(stream, entry, config, arguments) }
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
    let config = blocks(1, MAX_THREADS);
    let entry = Entry::of::<weights::weight_scales>();
    // SAFETY: one block; the kernel reads and writes one value per row in each buffer.
    unsafe { launch(stream, entry, config, arguments) }
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
    require_alignment(weights, 16)?;
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
    let entry = Entry::of::<weights::quantize_weights>();
    // SAFETY: the blocks cover the padded rows; the kernel reads `[n, k]` and writes the padded matrix.
    unsafe { launch(stream, entry, config, arguments) }
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
    require_alignment(output, 16)?;
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
    let entry = Entry::of::<packed::dequantize_weights>();
    // SAFETY: the blocks cover the rows; the kernel reads the packed matrix and writes `[n, k]`.
    unsafe { launch(stream, entry, config, arguments) }
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
    require_alignment(values, 4)?;
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
    let entry = Entry::of::<packed::pack_ternary>();
    // SAFETY: the blocks cover the padded rows; the kernel reads `[n, k]` and writes the padded matrix.
    unsafe { launch(stream, entry, config, arguments) }
}

/// Unpacks to int8 values `[n, k]`.
pub(crate) fn unpack_ternary(
    stream: &Stream,
    packed: &Buffer<u8>,
    values: &mut Buffer<i8>,
    matrix: Matrix,
) -> Result<(), LaunchError> {
    let sizes = matrix.arguments()?;
    require_alignment(values, 4)?;
    let arguments = (
        Input::new("packed", packed, matrix.packed_len())?,
        Output::new("values", values, matrix.n * matrix.k)?,
        sizes.layout,
        sizes.n,
        sizes.k,
        sizes.k_padded,
    );
    let config = by_quads(sizes.n, sizes.k);
    let entry = Entry::of::<packed::unpack_ternary>();
    // SAFETY: the blocks cover the rows; the kernel reads the packed matrix and writes `[n, k]`.
    unsafe { launch(stream, entry, config, arguments) }
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
    let entry = Entry::of::<packed::convert_layout>();
    // SAFETY: the blocks cover the padded rows of the target; the kernel touches the two padded matrices.
    unsafe { launch(stream, entry, config, arguments) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{Device, DeviceError};
    use crate::layout::PackedWeights;
    use crate::ops::{OpError, TernaryWeights, WeightQuantizer};

    #[test]
    fn memory_that_vectors_are_not_aligned_to_is_refused() {
        let device = Device::emulated().unwrap();
        let stream = device.default_stream();
        let memory = Buffer::<u8>::zeroed(&device, 256).unwrap();
        // SAFETY: the memory outlives the two, and nothing else uses it.
        let (mut floats, mut values) = unsafe {
            let address = memory.device_ptr();
            (
                Buffer::<f32>::from_raw(&device, address + 4, 16).unwrap(),
                Buffer::<i8>::from_raw(&device, address + 130, 16).unwrap(),
            )
        };
        let refused = |result: Result<(), OpError>, multiple| {
            let Err(OpError::Launch(LaunchError::Device(error))) = result else {
                panic!("{result:?}");
            };
            assert!(
                matches!(error, DeviceError::MisalignedPointer { alignment, .. } if alignment == multiple),
                "{error}"
            );
        };
        let quantize = |weights: &Buffer<f32>| {
            let (quantizer, granularity) = (WeightQuantizer::Ternary, WeightGranularity::Tensor);
            crate::ops::quantize_weights(&stream, weights, 4, 4, quantizer, granularity)
        };
        refused(quantize(&floats).map(drop), 16);
        let weights = Buffer::from_slice(&device, &[0.5_f32; 16]).unwrap();
        let quantized = quantize(&weights).unwrap();
        refused(quantized.dequantize(&stream, &mut floats), 16);
        let packed = TernaryWeights::pack(&stream, Layout::Tiled, &values, 4, 4);
        refused(packed.map(drop), 4);
        let packed = PackedWeights::pack(Layout::Tiled, &[1; 16], 4, 4).unwrap();
        let packed = TernaryWeights::from_packed(&device, &packed).unwrap();
        refused(packed.unpack(&stream, &mut values), 4);
    }
}
