//! Up to 8 tokens at once, by `mma` on tensor cores: their number costs nothing.
//!
//! A fragment of the weights, 16 rows x 32 columns, has two words of the rows `g` and `g + 8` a lane. Both are made of one lane's unit: masks of a
//! `Tiled` word are different sums of its rows, over the same four columns. So a unit is four products, two of the first and two of the last
//! two of its masks or rows.
//!
//! ```text
//! lane 4g + t         g = 0 .. 3: row group g of the first tile; g = 4 .. 7: of the second
//! load h = 0, 1       columns 16 (t + 4h) .. + 15 of a step
//! activations         lane 4g + t: the same columns of token g
//! sums                lane 4g + t: the four rows of row group g, of tokens 2t and 2t + 1
//! ```

use super::block_sums::{self, of_warp, token_pitch};
use super::epilogue::Epilogue;
use super::layout::Layout;
use super::{
    MAX_TOKENS, Problem, STEP_BYTES, STEP_COLUMNS, TILE_ROWS, UNIT_BYTES, UNIT_COLUMNS, UNIT_ROWS,
    UNIT_WORDS,
};
use crate::grid;
use cuda_std::mma;
use cuda_std::ptr::{self, U32x4};
use cuda_std::thread;

/// Tiles of a block: what the lanes' row groups are.
pub(super) const TILES: usize = 2;
/// Loads that a lane's units of a step take.
const LOADS: usize = 2;
/// Columns, in units, that a load covers.
const LOAD_UNITS: usize = 4;

/// `sums + a b`, 16 x 32 by 32 x 8.
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

/// A lane's accumulators. Each load has its own, so that products need not wait for each other so often.
#[derive(Clone, Copy)]
struct Sums {
    /// Of each unit's words by their first and second, third and fourth mask or row: two by tokens `2t` and `2t + 1`.
    pairs: [[i32; 4]; 2],
    /// Of the activations of tokens `2t` and `2t + 1`, in front.
    activations: [i32; 4],
}

impl Sums {
    /// Adds a unit's products.
    ///
    /// # Safety
    /// All lanes of the warp call it together.
    #[inline(always)]
    unsafe fn add<L: Layout, E: Epilogue>(
        &mut self,
        unit: &[u32; UNIT_WORDS],
        q: &[u32; UNIT_WORDS],
    ) {
        for half in 0..2 {
            let b = [q[2 * half], q[2 * half + 1]];
            // By word of the activations, then by mask or row.
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

/// A lane's place.
#[derive(Clone, Copy)]
struct Pointers {
    weights: [*const u8; LOADS],
    activations: *const i8,
}

/// Adds `STEPS` steps, `DISTANCE` steps apart. All weight loads come before the first use. With fewer than `columns` columns left of this
/// lane's on, a unit is zeros.
///
/// # Safety
/// All lanes of the warp call it together; the units below `columns` are valid.
#[inline(always)]
unsafe fn accumulate<
    L: Layout,
    E: Epilogue,
    const DISTANCE: usize,
    const STEPS: usize,
    const WHOLE: bool,
>(
    pointers: Pointers,
    columns: u32,
    sums: &mut [Sums; LOADS],
) {
    let mut units = [[[0u32; UNIT_WORDS]; LOADS]; STEPS];
    let is_there = |load: usize| WHOLE || ((load * LOAD_UNITS * UNIT_COLUMNS) as u32) < columns;
    unroll!(step < STEPS <= 4, {
        unroll!(load < LOADS <= 2, {
            if is_there(load) {
                let offset = step * DISTANCE * STEP_BYTES;
                // SAFETY: the caller's contract.
                units[step][load] =
                    unsafe { ptr::load_nc_streaming_v4(pointers.weights[load].add(offset).cast()) }.0;
            }
        });
    });
    unroll!(step < STEPS <= 4, {
        unroll!(load < LOADS <= 2, {
            let mut q = [0; UNIT_WORDS];
            if is_there(load) {
                let offset = step * DISTANCE * STEP_COLUMNS + load * LOAD_UNITS * UNIT_COLUMNS;
                // SAFETY: the caller's contract.
                U32x4(q) = unsafe { *pointers.activations.add(offset).cast() };
            }
            // SAFETY: the caller's contract.
            unsafe { sums[load].add::<L, E>(&units[step][load], &q) };
        });
    });
}

/// The rows of this block. `DISTANCE` is `WARPS * SPLITS`.
///
/// # Safety
/// Launched with `32 * WARPS` threads and blocks `(rows, split)`, on buffers as the module says; `problem.tokens` is at most 8.
#[inline(always)]
pub(super) unsafe fn gemv<
    L: Layout,
    E: Epilogue,
    const WARPS: usize,
    const SPLITS: usize,
    const DISTANCE: usize,
    const STEPS: usize,
>(
    split: usize,
    problem: Problem,
    epilogue: E,
) {
    const { assert!(STEPS <= 4 && DISTANCE == WARPS * SPLITS) };
    let thread = thread::thread_idx_x() as usize;
    let (warp, lane) = (thread / 32, thread % 32);
    let (group, quarter) = (lane / 4, lane % 4);
    let (tile, row_group) = (group / UNIT_ROWS, group % UNIT_ROWS);
    // Tiles beyond what there is repeat the last one, tokens likewise; nothing of them is written.
    let tile_of_matrix =
        (thread::block_idx_x() as usize * TILES + tile).min((problem.n as usize - 1) / TILE_ROWS);
    let token = group.min(problem.tokens as usize - 1);

    let k = problem.k as usize;
    let mut step = split * WARPS + warp;
    // SAFETY: tile and token exist, and where the pointers are used, so do step and columns.
    let mut pointers = unsafe {
        let start = problem
            .weights
            .add(tile_of_matrix * (k / 4 * TILE_ROWS) + step * STEP_BYTES);
        Pointers {
            weights: core::array::from_fn(|load| {
                start.add(L::unit(row_group, quarter + load * LOAD_UNITS) * UNIT_BYTES)
            }),
            activations: problem.activations.add(
                token * problem.k_pitch as usize + step * STEP_COLUMNS + quarter * UNIT_COLUMNS,
            ),
        }
    };
    let whole_steps = k / STEP_COLUMNS;
    // What the warp loads first. Whole tiles, as for one token, would take registers that spill; so would this with partial steps.
    #[cfg(target_feature = "sm_90")]
    if !L::HAS_PARTIAL_STEPS && step + (STEPS - 1) * DISTANCE < whole_steps {
        unroll!(step < STEPS <= 4, {
            for start in pointers.weights {
                ptr::prefetch_l2(start.wrapping_add(step * DISTANCE * STEP_BYTES));
            }
        });
    }
    grid::follow();
    let advance = |pointers: Pointers, steps: usize| Pointers {
        weights: pointers
            .weights
            .map(|p| p.wrapping_add(steps * DISTANCE * STEP_BYTES)),
        activations: pointers
            .activations
            .wrapping_add(steps * DISTANCE * STEP_COLUMNS),
    };

    let mut sums = [Sums {
        pairs: [[0; 4]; 2],
        activations: [0; 4],
    }; LOADS];
    // SAFETY: the warp's lanes agree on `step`; the steps that are added exist.
    unsafe {
        while STEPS > 1 && step + (STEPS - 1) * DISTANCE < whole_steps {
            accumulate::<L, E, DISTANCE, STEPS, true>(pointers, 0, &mut sums);
            pointers = advance(pointers, STEPS);
            step += STEPS * DISTANCE;
        }
        while step < whole_steps {
            accumulate::<L, E, DISTANCE, 1, true>(pointers, 0, &mut sums);
            pointers = advance(pointers, 1);
            step += DISTANCE;
        }
        if L::HAS_PARTIAL_STEPS && step * STEP_COLUMNS < k {
            let columns = k as i32 - (step * STEP_COLUMNS + quarter * UNIT_COLUMNS) as i32;
            accumulate::<L, E, DISTANCE, 1, false>(pointers, columns.max(0) as u32, &mut sums);
        }

        for i in 0..2 {
            let of_pair = |pair: usize, half: usize| {
                sums[0].pairs[pair][2 * half + i] + sums[1].pairs[pair][2 * half + i]
            };
            let rows = L::of_sums([of_pair(0, 0), of_pair(0, 1), of_pair(1, 0), of_pair(1, 1)]);
            let own = if E::SUMS_ACTIVATIONS {
                L::CODE_BIAS * (sums[0].activations[i] + sums[1].activations[i])
            } else {
                0
            };
            let place = (2 * quarter + i) as u32
                * const { token_pitch(TILES as u32, MAX_TOKENS as u32) }
                + (group * UNIT_ROWS) as u32;
            of_warp::<TILES, MAX_TOKENS>(warp)
                .add(place)
                .cast::<U32x4>()
                .write(U32x4(rows.map(|row| (row - own) as u32)));
        }
        block_sums::finish::<L, E, TILES, WARPS, SPLITS, MAX_TOKENS>(&problem, &epilogue, None);
    }
}
