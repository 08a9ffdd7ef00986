//! The product of up to 8 tokens, with `mma` on tensor cores, at a cost independent of their number.
//!
//! In a weight fragment, 16 rows x 32 columns, each lane has two words of row `g` and two of row `g + 8`. All come from the lane's own unit: the masks
//! of a `Tiled` word give different sums of its rows, over the same four columns. A unit thus takes four `mma`: two for the first two of its masks
//! (rows for `Ladder`), two for the last two.
//!
//! ```text
//! lane 4g + t         g = 0 .. 3: row group g of the first tile; g = 4 .. 7: of the second
//! load h = 0, 1       columns 16 (t + 4h) .. + 15 of a step
//! activations         lane 4g + t: the same columns of token g
//! sums                lane 4g + t: the four rows of row group g, for tokens 2t and 2t + 1
//! ```

use super::block_sums::{self, of_warp, token_pitch};
use super::epilogue::Epilogue;
use super::layout::Layout;
use super::{
    MAX_TOKENS, Place, Problem, STEP_BYTES, STEP_COLUMNS, TILE_ROWS, UNIT_BYTES, UNIT_COLUMNS,
    UNIT_ROWS, UNIT_WORDS,
};
use crate::grid;
use cuda_std::mma;
use cuda_std::ptr::{self, U32x4};
use cuda_std::thread;
use cuda_std::warp::WARP_SIZE;

/// Tiles per block: the lanes of a warp cover the row groups of two tiles.
pub(super) const TILES: usize = 2;
/// Units that a lane loads per step.
const LOADS: usize = 2;
/// Columns that each of these loads covers, in units.
const LOAD_UNITS: usize = 4;

/// `sums + a * b`, with a 16 x 32 matrix `a` and a 32 x 8 matrix `b`.
///
/// # Safety
/// All lanes of the warp call it together.
#[inline(always)]
unsafe fn multiply(a: [u32; 4], b: [u32; 2], sums: [i32; 4]) -> [i32; 4] {
    // SAFETY: the caller's contract.
    unsafe {
        #[cfg(any(target_feature = "sm_80", not(target_arch = "nvptx64")))]
        return mma::mma_m16n8k32_u8_s8(a, b, sums);
        #[cfg(not(any(target_feature = "sm_80", not(target_arch = "nvptx64"))))]
        {
            let [mut upper, mut lower] = [[sums[0], sums[1]], [sums[2], sums[3]]];
            for half in 0..2 {
                upper = mma::mma_m8n8k16_u8_s8(a[2 * half], b[half], upper);
                lower = mma::mma_m8n8k16_u8_s8(a[2 * half + 1], b[half], lower);
            }
            [upper[0], upper[1], lower[0], lower[1]]
        }
    }
}

/// A lane's accumulators. Both loads of a step share them: other warps run while an `mma` waits for the one before, and the registers saved hold
/// more loads.
struct Sums {
    /// Sums for the first and second mask (or row) of the words, and for the third and fourth; each for tokens `2t` and `2t + 1`.
    pairs: [[i32; 4]; 2],
    /// Sums of the activations of tokens `2t` and `2t + 1`, in the first two elements.
    activations: [i32; 4],
}

impl Sums {
    /// Adds the products of `STEPS` steps.
    ///
    /// # Safety
    /// All lanes of the warp call it together.
    #[inline(always)]
    unsafe fn add<L: Layout, E: Epilogue, const STEPS: usize>(&mut self, loaded: &Loaded<STEPS>) {
        unroll!(step < STEPS <= 2, {
            unroll!(load < LOADS <= 2, {
                let (unit, q) = &loaded[step][load];
                // SAFETY: the caller's contract.
                unsafe { self.add_unit::<L, E>(unit, q) };
            });
        });
    }

    /// Adds a unit's products.
    ///
    /// # Safety
    /// All lanes of the warp call it together.
    #[inline(always)]
    unsafe fn add_unit<L: Layout, E: Epilogue>(
        &mut self,
        unit: &[u32; UNIT_WORDS],
        q: &[u32; UNIT_WORDS],
    ) {
        for half in 0..2 {
            let b = [q[2 * half], q[2 * half + 1]];
            // Indexed by activation word, then by mask or row.
            let words = [
                L::of_columns(unit, 2 * half),
                L::of_columns(unit, 2 * half + 1),
            ];
            // SAFETY: the caller's contract.
            unsafe {
                for pair in 0..2 {
                    let (first, second) = (2 * pair, 2 * pair + 1);
                    let a = [
                        words[0][first],
                        words[0][second],
                        words[1][first],
                        words[1][second],
                    ];
                    self.pairs[pair] = multiply(a, b, self.pairs[pair]);
                }
                if E::SUMS_ACTIVATIONS {
                    self.activations = multiply([0x0101_0101; 4], b, self.activations);
                }
            }
        }
    }
}

/// A lane's units of `STEPS` steps, and the activations that they are multiplied with.
type Loaded<const STEPS: usize> = [[([u32; UNIT_WORDS], [u32; UNIT_WORDS]); LOADS]; STEPS];

impl<const DISTANCE: usize> Place<LOADS, DISTANCE> {
    /// Loads the next `STEPS` steps, units and activations. Unless `WHOLE`, units that start `columns` or more columns after this lane's first are zeros.
    ///
    /// # Safety
    /// The units to load are valid: all with `WHOLE`, else those below `columns`.
    #[inline(always)]
    unsafe fn load_both<const STEPS: usize, const WHOLE: bool>(
        &self,
        columns: u32,
    ) -> Loaded<STEPS> {
        let mut loaded = [[([0; UNIT_WORDS], [0; UNIT_WORDS]); LOADS]; STEPS];
        unroll!(step < STEPS <= 2, {
            unroll!(load < LOADS <= 2, {
                let column = (load * LOAD_UNITS * UNIT_COLUMNS) as u32;
                if WHOLE || column < columns {
                    let place = self.after(step);
                    // SAFETY: the caller's contract.
                    unsafe {
                        let U32x4(unit) = ptr::load_nc_streaming_v4(place.weights[load].cast());
                        let U32x4(q) = *place.activations.add(column as usize).cast();
                        loaded[step][load] = (unit, q);
                    }
                }
            });
        });
        loaded
    }
}

/// Computes the rows of this block. `DISTANCE` is `WARPS * SPLITS`.
///
/// # Safety
/// Launched with `32 * WARPS` threads per block and blocks `(rows, split)`, on buffers as the module describes; `problem.tokens` is at most 8.
#[inline(always)]
pub(super) unsafe fn gemv<
    L: Layout,
    E: Epilogue,
    const WARPS: usize,
    const SPLITS: usize,
    const DISTANCE: usize,
    const STEPS: usize,
>(
    split: u32,
    problem: Problem,
    epilogue: E,
) {
    const { assert!(STEPS <= 2 && DISTANCE == WARPS * SPLITS) };
    let thread = thread::thread_idx_x();
    let (warp, lane) = (thread / WARP_SIZE, (thread % WARP_SIZE) as usize);
    let (group, quarter) = (lane / 4, lane % 4);
    let (tile, row_group) = (group / UNIT_ROWS, group % UNIT_ROWS);
    // Tiles past the last repeat the last one, and so do tokens; their results are not written.
    let tile_of_matrix = (thread::block_idx_x() * TILES as u32 + tile as u32)
        .min((problem.n - 1) / TILE_ROWS as u32);
    let token = (group as u32).min(problem.tokens - 1);

    let k = problem.k;
    // This warp's first step.
    let first = split * WARPS as u32 + warp;
    // SAFETY: tile and token exist, and the pointers are used only where step and columns exist.
    let mut next = unsafe {
        let start = problem
            .weights
            .add(tile_of_matrix as usize * (k * (TILE_ROWS / 4) as u32) as usize)
            .add(first as usize * STEP_BYTES);
        Place::<LOADS, DISTANCE> {
            weights: core::array::from_fn(|load| {
                start.add(L::unit(row_group, quarter + load * LOAD_UNITS) * UNIT_BYTES)
            }),
            activations: problem
                .activations
                .add(token as usize * problem.k_pitch as usize)
                .add(first as usize * STEP_COLUMNS + quarter * UNIT_COLUMNS),
        }
    };
    let all = STEPS as u32;
    let whole_steps = k / STEP_COLUMNS as u32;
    let steps = (whole_steps + DISTANCE as u32 - 1 - first) / DISTANCE as u32;
    let (mut batches, rest) = (steps / all, steps % all);
    let after_batches = next.after((batches * all) as usize);
    // Prefetches what the warp loads first. Prefetching tiles in bulk, as for one token, would spill registers; so would this with partial steps.
    #[cfg(target_feature = "sm_90")]
    if !L::HAS_PARTIAL_STEPS && problem.prefetched_bytes > 0 {
        let prefetch = |place: Place<LOADS, DISTANCE>| {
            for unit in 0..LOADS {
                ptr::prefetch_l2(place.weights[unit]);
            }
        };
        if batches > 0 {
            unroll!(step < STEPS <= 2, {
                prefetch(next.after(step));
            });
        }
        if rest > 0 {
            prefetch(after_batches);
        }
    }
    block_sums::prefetch::<E, TILES>(&epilogue);
    grid::synchronize_and_trigger();
    // Partial steps and two steps a batch leave no registers for them.
    let operands = if L::HAS_PARTIAL_STEPS && STEPS > 1 {
        None
    } else {
        // SAFETY: the caller's contract.
        unsafe { block_sums::operands::<E, TILES, WARPS, SPLITS, MAX_TOKENS>(&problem, &epilogue) }
    };

    let mut sums = Sums {
        pairs: [[0; 4]; 2],
        activations: [0; 4],
    };
    // The leftover step is loaded together with the first batch.
    // SAFETY: all lanes of the warp have the same number of steps: `batches` batches, and `rest` steps after them.
    unsafe {
        if batches == 0 {
            if rest > 0 {
                sums.add::<L, E, 1>(&after_batches.load_both::<1, true>(0));
            }
        } else {
            if rest > 0 {
                let of_rest = after_batches.load_both::<1, true>(0);
                let loaded = next.load_both::<STEPS, true>(0);
                sums.add::<L, E, 1>(&of_rest);
                sums.add::<L, E, STEPS>(&loaded);
            } else {
                sums.add::<L, E, STEPS>(&next.load_both::<STEPS, true>(0));
            }
            while batches > 1 {
                next = next.after(STEPS);
                sums.add::<L, E, STEPS>(&next.load_both::<STEPS, true>(0));
                batches -= 1;
            }
        }
        if L::HAS_PARTIAL_STEPS {
            let column = (first + steps * DISTANCE as u32) * STEP_COLUMNS as u32;
            if column < k {
                let columns = k.saturating_sub(column + (quarter * UNIT_COLUMNS) as u32);
                let place = after_batches.after(rest as usize);
                sums.add::<L, E, 1>(&place.load_both::<1, false>(columns));
            }
        }

        for i in 0..2 {
            let [first, second] = sums.pairs;
            let rows = L::of_sums([first[i], first[2 + i], second[i], second[2 + i]]);
            let own = if E::SUMS_ACTIVATIONS {
                L::CODE_BIAS * sums.activations[i]
            } else {
                0
            };
            let place = (2 * quarter + i) as u32
                * const { token_pitch(TILES as u32, MAX_TOKENS as u32) }
                + (group * UNIT_ROWS) as u32;
            of_warp::<TILES, MAX_TOKENS>(warp as usize)
                .add(place)
                .cast::<U32x4>()
                .write(U32x4(rows.map(|row| (row - own) as u32)));
        }
        block_sums::finish::<L, E, TILES, WARPS, SPLITS, MAX_TOKENS>(&problem, &epilogue, operands);
    }
}
