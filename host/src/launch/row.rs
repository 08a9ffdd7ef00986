//! Kernels that take a row a block: how many threads, and which variant.

use super::LaunchError;
use crate::device::{Buffer, LaunchConfig};
use bytemuck::Pod;
use kernels_gpu::Entry;
use kernels_gpu::row::{CHUNK, MAX_THREADS, Variant};

/// The kernel for rows of `width` elements whose output is padded to `padded`, and its launch for `rows` of them.
///
/// A thread takes one chunk as long as a block has threads enough. Of the variants, the first that takes the rows is the best. `aligned`
/// says whether all that it reads and writes begins where a vector may.
pub(super) fn choose<P>(
    variants: &[Variant<P>],
    rows: usize,
    width: usize,
    padded: usize,
    aligned: bool,
) -> Result<(Entry<P>, LaunchConfig), LaunchError> {
    let grid = super::size("m", rows, i32::MAX as usize)?;
    let threads = threads(padded);
    let variant = variants
        .iter()
        .find(|variant| takes(variant, width, padded, aligned))
        .expect("the last variant takes any row");
    let config = LaunchConfig {
        grid: [grid, 1, 1],
        block: [threads, 1, 1],
        dynamic_shared: 0,
        cooperative: false,
    };
    Ok((variant.entry, config))
}

/// Whether a variant takes rows of `width` elements, and pointers that are `aligned` or not.
pub(super) fn takes<P>(variant: &Variant<P>, width: usize, padded: usize, aligned: bool) -> bool {
    variant.takes(width, padded, threads(padded)) && (aligned || !variant.whole)
}

/// Whether a buffer begins where vectors of 16 bytes may. Only memory of the caller's does not.
pub(super) fn is_aligned<T: Pod>(buffer: &Buffer<T>) -> bool {
    super::require_alignment(buffer, 16).is_ok()
}

/// Threads of a block: enough for one chunk each, whole warps.
pub(super) fn threads(padded: usize) -> u32 {
    let chunks = padded
        .div_ceil(CHUNK)
        .next_multiple_of(32)
        .min(MAX_THREADS as usize);
    chunks as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use kernels_gpu::{norm, quantize};

    fn name(width: usize) -> &'static str {
        choose(norm::VARIANTS, 1, width, width.next_multiple_of(8), true)
            .unwrap()
            .0
            .name
    }

    #[test]
    fn vectors_are_for_pointers_that_are_aligned_to_them() {
        let unaligned = |width| {
            let (entry, _) = choose(norm::VARIANTS, 1, width, width, false).unwrap();
            entry.name
        };
        assert_eq!(
            [8, 8192, 8200].map(unaligned),
            ["norm_c1_any", "norm_c1_any", "norm_streamed"]
        );
    }

    #[test]
    fn a_row_stays_in_registers_where_it_fits() {
        assert_eq!([name(8), name(2560), name(8192)], ["norm_c1"; 3]);
        assert_eq!([name(8200), name(24_576)], ["norm_c3"; 2]);
        assert_eq!([name(1), name(2561), name(8191)], ["norm_c1_any"; 3]);
        assert_eq!(
            [name(8193), name(24_584), name(65_536)],
            ["norm_streamed"; 3]
        );
    }

    #[test]
    fn threads_are_whole_warps() {
        assert_eq!(
            [1, 256, 257, 2560, 8192, 65_536].map(threads),
            [32, 32, 64, 320, 1024, 1024]
        );
    }

    #[test]
    fn quantization_holds_a_padded_row() {
        let chosen = |k| {
            let (entry, _) = choose(quantize::VARIANTS, 1, k, k, false).unwrap();
            entry.name
        };
        assert_eq!(
            [8192, 8320, 16_384, 32_768, 32_896].map(chosen),
            [
                "quantize_c1",
                "quantize_c2",
                "quantize_c2",
                "quantize_c4",
                "quantize_streamed"
            ]
        );
    }
}
