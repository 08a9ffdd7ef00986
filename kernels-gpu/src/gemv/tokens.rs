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
use core::mem::MaybeUninit;
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

/// A lane's accumulators. Those of both loads of a step meet in them: other warps fill the time that a product waits for the one before, and the
/// registers hold more loads.
struct Sums {
    /// Of each unit's words by their first and second, third and fourth mask or row: two by tokens `2t` and `2t + 1`.
    pairs: [[i32; 4]; 2],
    /// Of the activations of tokens `2t` and `2t + 1`, in front.
    activations: [i32; 4],
}

impl Sums {
    /// Adds the products of steps.
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

/// A lane's units of `STEPS` steps, and the activations that they meet.
type Loaded<const STEPS: usize> = [[([u32; UNIT_WORDS], [u32; UNIT_WORDS]); LOADS]; STEPS];

/// A lane's units and activations, from a step on.
#[derive(Clone, Copy)]
struct Place<const DISTANCE: usize> {
    weights: [*const u8; LOADS],
    activations: *const i8,
}

impl<const DISTANCE: usize> Place<DISTANCE> {
    /// `steps` of this warp's steps further.
    #[inline(always)]
    fn after(self, steps: usize) -> Self {
        Self {
            weights: self
                .weights
                .map(|p| p.wrapping_add(steps * DISTANCE * STEP_BYTES)),
            activations: self
                .activations
                .wrapping_add(steps * DISTANCE * STEP_COLUMNS),
        }
    }

    /// Loads the next `STEPS` steps. With fewer than `columns` columns left of this lane's on, a unit is zeros.
    ///
    /// # Safety
    /// The units below `columns` are valid.
    #[inline(always)]
    unsafe fn load<const STEPS: usize, const WHOLE: bool>(&self, columns: u32) -> Loaded<STEPS> {
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
    split: u32,
    problem: Problem,
    epilogue: E,
) {
    const { assert!(STEPS <= 2 && DISTANCE == WARPS * SPLITS) };
    let thread = thread::thread_idx_x();
    let (warp, lane) = (thread / 32, (thread % 32) as usize);
    let (group, quarter) = (lane / 4, lane % 4);
    let (tile, row_group) = (group / UNIT_ROWS, group % UNIT_ROWS);
    // Tiles beyond what there is repeat the last one, tokens likewise; nothing of them is written.
    let tile_of_matrix = (thread::block_idx_x() * TILES as u32 + tile as u32)
        .min((problem.n - 1) / TILE_ROWS as u32);
    let token = (group as u32).min(problem.tokens - 1);

    let k = problem.k;
    // This warp's first step.
    let first = split * WARPS as u32 + warp;
    // SAFETY: tile and token exist, and where the pointers are used, so do step and columns.
    let mut next = unsafe {
        let start = problem
            .weights
            .add(tile_of_matrix as usize * (k * (TILE_ROWS / 4) as u32) as usize)
            .add(first as usize * STEP_BYTES);
        Place::<DISTANCE> {
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
    // What the warp loads first. Whole tiles, as for one token, would take registers that spill; so would this with partial steps.
    #[cfg(target_feature = "sm_90")]
    if !L::HAS_PARTIAL_STEPS && batches > 0 {
        unroll!(step < STEPS <= 2, {
            for start in next.after(step).weights {
                ptr::prefetch_l2(start);
            }
        });
    }
    grid::follow();
    // Where a thread writes one output, and the registers suffice.
    let operands = (SPLITS == 1
        && 32 * WARPS >= MAX_TOKENS * TILES * TILE_ROWS
        && !(L::HAS_PARTIAL_STEPS && STEPS > 1))
        .then(|| {
            // SAFETY: the caller's contract.
            unsafe { block_sums::operands::<E, TILES, MAX_TOKENS>(&problem, &epilogue) }
        });

    let mut sums = Sums {
        pairs: [[0; 4]; 2],
        activations: [0; 4],
    };
    // The step that makes no whole batch is loaded together with the first batch.
    // SAFETY: the warp's lanes agree on the number of steps; `rest` of them and `batches` batches exist.
    unsafe {
        // Written where there is a rest, and read only there.
        let mut of_rest = MaybeUninit::<Loaded<1>>::uninit();
        if rest > 0 {
            of_rest.write(after_batches.load::<1, true>(0));
        }
        if batches > 0 {
            let loaded = next.load::<STEPS, true>(0);
            if rest > 0 {
                sums.add::<L, E, 1>(of_rest.assume_init_ref());
            }
            sums.add::<L, E, STEPS>(&loaded);
            while batches > 1 {
                next = next.after(STEPS);
                sums.add::<L, E, STEPS>(&next.load::<STEPS, true>(0));
                batches -= 1;
            }
        } else if rest > 0 {
            sums.add::<L, E, 1>(of_rest.assume_init_ref());
        }
        if L::HAS_PARTIAL_STEPS {
            let column = (first + steps * DISTANCE as u32) * STEP_COLUMNS as u32;
            if column < k {
                let columns = k.saturating_sub(column + (quarter * UNIT_COLUMNS) as u32);
                let place = after_batches.after(rest as usize);
                sums.add::<L, E, 1>(&place.load::<1, false>(columns));
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
