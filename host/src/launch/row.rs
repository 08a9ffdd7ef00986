//! Kernels whose blocks process one row each: how many threads, and which variant.

use super::LaunchError;
use crate::device::{Buffer, Capabilities, LaunchConfig};
use bytemuck::Pod;
use kernels_gpu::Entry;
use kernels_gpu::row::{CHUNK, MAX_THREADS, Variant, WIDE_IN_REGISTERS};

/// Shared memory that reductions have beside the dynamic one, and what the device takes of each block.
pub(super) const FIXED_SHARED_BYTES: u32 = 512 + 1024;

/// The kernel for rows of `width` elements whose output is padded to `padded`, and its launch for `rows` of them.
///
/// A thread takes one chunk as long as a block has threads enough. Of the variants, the first that takes the rows is the best. `aligned`
/// says whether all that it reads and writes begins where a vector may.
pub(super) fn choose<P>(
    capabilities: &Capabilities,
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
        dynamic_shared: variant.shared_bytes(
            padded,
            threads,
            WIDE_IN_REGISTERS,
            room(capabilities),
        ),
        cooperative: false,
    };
    Ok((variant.entry, config))
}

/// Dynamic shared memory that a block can have, in bytes.
pub(super) fn room(capabilities: &Capabilities) -> u32 {
    capabilities.shared_bytes_per_block_optin - FIXED_SHARED_BYTES
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
    use crate::device::Device;
    use crate::layout::MAX_K;
    use kernels_gpu::{norm, quantize};

    /// The kernel's name, and its dynamic shared memory, for rows on the emulator's H100.
    fn chosen<P>(variants: &[Variant<P>], width: usize, aligned: bool) -> (&'static str, u32) {
        let device = Device::emulated().unwrap();
        let padded = width.next_multiple_of(CHUNK);
        let (entry, config) =
            choose(device.capabilities(), variants, 1, width, padded, aligned).unwrap();
        (entry.name, config.dynamic_shared)
    }

    fn name(width: usize) -> &'static str {
        chosen(norm::VARIANTS, width, true).0
    }

    #[test]
    fn vectors_are_for_pointers_that_are_aligned_to_them() {
        assert_eq!(
            [8, 8192, 8200].map(|width| chosen(norm::VARIANTS, width, false).0),
            ["norm_c1_any", "norm_c1_any", "norm_wide"]
        );
    }

    #[test]
    fn a_row_stays_in_registers_where_it_fits() {
        assert_eq!([name(8), name(2560), name(8192)], ["norm_c1"; 3]);
        assert_eq!([name(8200), name(24_576)], ["norm_c3"; 2]);
        assert_eq!([name(1), name(2561), name(8191)], ["norm_c1_any"; 3]);
        assert_eq!([name(8193), name(24_584), name(65_536)], ["norm_wide"; 3]);
    }

    #[test]
    fn what_a_wide_row_has_beyond_a_chunk_per_thread_is_in_shared_memory() {
        let shared = |width| chosen(norm::VARIANTS, width, true).1;
        assert_eq!([shared(2560), shared(24_576)], [0; 2]);
        // Chunks of 1024 threads are 32 KiB of f32: of a row, all but the first.
        let chunks = |count: u32| count * 32 * 1024;
        assert_eq!([8193, 16_384 + 1].map(shared), [1, 2].map(chunks));
        assert_eq!([24_584, 27_648, 65_536].map(shared), [3, 3, 7].map(chunks));
        // An H100 has 227 KiB for a block.
        assert_eq!([65_537, MAX_K].map(shared), [chunks(7); 2]);
        let wide = norm::VARIANTS.last().unwrap();
        assert_eq!(
            wide.shared_bytes(65_536, 1024, 1, 2 * 32 * 1024 - 1),
            chunks(1)
        );
        assert_eq!(wide.shared_bytes(65_536, 1024, 1, 32 * 1024 - 1), 0);
        assert_eq!(wide.shared_bytes(65_536, 1024, 0, u32::MAX), chunks(8));
        assert_eq!(wide.shared_bytes(257, 64, 1, u32::MAX), 0);
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
        assert_eq!(
            [8192, 8320, 16_384, 32_768, 32_896].map(|k| chosen(quantize::VARIANTS, k, false).0),
            [
                "quantize_c1",
                "quantize_c2",
                "quantize_c2",
                "quantize_c4",
                "quantize_wide"
            ]
        );
    }
}
