//! The product of one token, with `dp4a`.
//!
//! ```text
//! a warp's load, 512 bytes: 16 rows (a tile) x 128 columns (a step)
//!            columns 0..15   16..31   ...   112..127
//! rows 0..3        lane 0    lane 1         lane 7       the lane -> unit map of Tiled; Ladder's is a permutation of it
//! rows 4..7        lane 8    lane 9         lane 15
//! rows 8..11       lane 16   ...
//! rows 12..15      lane 24   ...            lane 31
//! ```

use super::block_sums::{self, of_warp};
use super::epilogue::Epilogue;
use super::layout::Layout;
use super::{
    Place, Problem, STEP_BYTES, STEP_COLUMNS, TILE_ROWS, UNIT_BYTES, UNIT_COLUMNS, UNIT_ROWS,
    UNIT_WORDS, prefetch_and_synchronize,
};
use core::mem::MaybeUninit;
use cuda_std::ptr::{self, U32x4};
use cuda_std::warp::{self, FULL_MASK, WARP_SIZE};
use cuda_std::{intrinsics, thread};

/// A lane's units of up to `STEPS` steps, for each of its tiles.
type Units<const TILES: usize, const STEPS: usize> = [[[u32; UNIT_WORDS]; TILES]; STEPS];

/// The activations that the units of up to `STEPS` steps are multiplied with.
type Activations<const STEPS: usize> = [MaybeUninit<[u32; UNIT_WORDS]>; STEPS];

/// A lane's accumulators.
struct Sums<L: Layout, const TILES: usize> {
    tiles: [L::Sums; TILES],
    activations: i32,
}

impl<L: Layout, const TILES: usize> Sums<L, TILES> {
    /// Adds the products of the first `count` steps.
    ///
    /// # Safety
    /// The activations of the first `count` steps are initialized.
    #[inline(always)]
    unsafe fn add<E: Epilogue, const STEPS: usize>(
        &mut self,
        units: &Units<TILES, STEPS>,
        activations: &Activations<STEPS>,
        count: u32,
    ) {
        unroll!(step < STEPS <= 8, {
            if (step as u32) < count {
                // SAFETY: the caller's contract.
                let q = unsafe { activations[step].assume_init() };
                for word in 0..UNIT_WORDS {
                    if E::SUMS_ACTIVATIONS {
                        self.activations = intrinsics::dp4a(0x0101_0101, q[word] as i32, self.activations);
                    }
                    for tile in 0..TILES {
                        L::add(&mut self.tiles[tile], &units[step][tile], word, q[word] as i32);
                    }
                }
            }
        });
    }
}

impl<const TILES: usize, const DISTANCE: usize> Place<TILES, DISTANCE> {
    /// Loads the units of the next `STEPS` steps.
    ///
    /// # Safety
    /// At least `STEPS` steps remain.
    #[inline(always)]
    unsafe fn load<const STEPS: usize>(&self) -> Units<TILES, STEPS> {
        let mut units = [[[0; UNIT_WORDS]; TILES]; STEPS];
        unroll!(step < STEPS <= 8, {
            let weights = self.after(step).weights;
            for tile in 0..TILES {
                // SAFETY: the caller's contract.
                units[step][tile] = unsafe { ptr::load_nc_streaming_v4(weights[tile].cast()) }.0;
            }
        });
        units
    }

    /// As [`Place::load`], for the first `count` steps, at least one; the units of the others are zeros. `count` is less than `STEPS`; with partial
    /// steps it may be `STEPS`.
    ///
    /// # Safety
    /// At least `count` steps remain.
    #[inline(always)]
    unsafe fn load_some<L: Layout, const STEPS: usize>(&self, count: u32) -> Units<TILES, STEPS> {
        let mut units = [[[0; UNIT_WORDS]; TILES]; STEPS];
        unroll!(step < STEPS <= 8, {
            if step == 0 || L::HAS_PARTIAL_STEPS || step + 1 < STEPS {
                for tile in 0..TILES {
                    let weights = self.after(step).weights[tile].cast();
                    // SAFETY: the caller's contract.
                    U32x4(units[step][tile]) = unsafe {
                        if step == 0 {
                            ptr::load_nc_streaming_v4(weights)
                        } else {
                            ptr::load_nc_streaming_v4_if(weights, (step as u32) < count)
                        }
                    };
                }
            }
        });
        units
    }

    /// Loads the activations of the first `count` steps.
    ///
    /// # Safety
    /// At least `count` steps remain.
    #[inline(always)]
    unsafe fn activations<const STEPS: usize>(&self, count: u32) -> Activations<STEPS> {
        let mut activations = [MaybeUninit::uninit(); STEPS];
        unroll!(step < STEPS <= 8, {
            if (step as u32) < count {
                // SAFETY: the caller's contract.
                let U32x4(q) = unsafe { *self.after(step).activations.cast() };
                activations[step].write(q);
            }
        });
        activations
    }
}

/// Sums each of `COUNT` values over the lanes that differ in the bits `lane_bits`, and distributes the totals over these lanes: the first
/// `COUNT / 8` elements of `values`, at least one, become the totals from index [`first_value`] on.
///
/// In each round a lane keeps one half of its values and sends the other half to its partner; with one value left, both keep it.
///
/// # Safety
/// All lanes of the warp call it together.
#[inline(always)]
pub(super) unsafe fn reduce_scatter<const COUNT: usize>(
    values: &mut [i32; COUNT],
    lane_bits: [u32; 3],
) {
    let lane = warp::lane_id();
    unroll!(round < 3 <= 3, {
        let bit = lane_bits[round];
        let half = COUNT >> (round + 1);
        if half == 0 {
            // SAFETY: the caller's contract.
            values[0] += unsafe { warp::warp_shuffle_xor(FULL_MASK, values[0], bit, WARP_SIZE) };
        } else {
            let upper = lane & bit != 0;
            unroll!(i < half <= 4, {
                let (low, high) = (values[i], values[i + half]);
                let (keep, send) = if upper { (high, low) } else { (low, high) };
                // SAFETY: the caller's contract.
                values[i] = keep + unsafe { warp::warp_shuffle_xor(FULL_MASK, send, bit, WARP_SIZE) };
            });
        }
    });
}

/// Index of the first total that a lane holds after [`reduce_scatter`].
#[inline(always)]
pub(super) fn first_value<const COUNT: usize>(lane: usize, lane_bits: [u32; 3]) -> usize {
    let mut first = 0;
    for round in 0..3 {
        first += (COUNT >> (round + 1)) * usize::from(lane as u32 & lane_bits[round] != 0);
    }
    first
}

/// Computes the rows of this block. `COUNT` is `TILES * 4`, the number of sums per lane; `DISTANCE` is `WARPS * SPLITS`.
///
/// # Safety
/// Launched with `32 * WARPS` threads per block and blocks `(rows, split)`, on buffers as the module describes; `problem.tokens` is 1.
#[inline(always)]
pub(super) unsafe fn gemv<
    L: Layout,
    E: Epilogue,
    const TILES: usize,
    const WARPS: usize,
    const SPLITS: usize,
    const DISTANCE: usize,
    const STEPS: usize,
    const COUNT: usize,
>(
    problem: Problem,
    epilogue: E,
) {
    const {
        assert!(
            STEPS <= 8
                && COUNT == TILES * UNIT_ROWS
                && COUNT <= 8
                && COUNT.is_power_of_two()
                && DISTANCE == WARPS * SPLITS
        )
    };
    let thread = thread::thread_idx_x();
    // A block of one warp has only 32 threads, which the compiler cannot know.
    let (warp, lane) = if WARPS == 1 {
        (0, thread as usize)
    } else {
        (thread / WARP_SIZE, (thread % WARP_SIZE) as usize)
    };
    let first_tile = thread::block_idx_x() * TILES as u32;
    // This warp's first step.
    let first = if SPLITS == 1 {
        warp
    } else {
        thread::block_idx_y() * WARPS as u32 + warp
    };
    let k = problem.k;
    let column = first * STEP_COLUMNS as u32 + (L::column_group(lane) * UNIT_COLUMNS) as u32;

    // Tiles past the last repeat the last one; their results are not written.
    let last_tile = (problem.n - 1) / TILE_ROWS as u32;
    let tile_bytes = k * (TILE_ROWS / 4) as u32;
    // SAFETY: tiles up to the last exist, and the pointers are used only where `column` is below `k`.
    let start = unsafe {
        let step = problem
            .weights
            .add(first as usize * STEP_BYTES + lane * UNIT_BYTES);
        Place::<TILES, DISTANCE> {
            weights: core::array::from_fn(|tile| {
                step.add((first_tile + tile as u32).min(last_tile) as usize * tile_bytes as usize)
            }),
            activations: problem.activations.wrapping_add(column as usize),
        }
    };
    block_sums::prefetch::<E, TILES>(&epilogue);
    // SAFETY: the caller's contract.
    unsafe { prefetch_and_synchronize::<TILES>(&problem) };
    // SAFETY: the caller's contract.
    let operands =
        unsafe { block_sums::operands::<E, TILES, WARPS, SPLITS, 1>(&problem, &epilogue) };

    // Steps that are whole for all lanes of this warp; and the steps of this lane, including its part of a partial step.
    let whole_steps = (k / STEP_COLUMNS as u32 + DISTANCE as u32 - 1 - first) / DISTANCE as u32;
    let steps = if L::HAS_PARTIAL_STEPS {
        let columns = (DISTANCE * STEP_COLUMNS) as u32;
        (k + columns - 1).saturating_sub(column) / columns
    } else {
        whole_steps
    };
    let all = STEPS as u32;
    let mut batches = whole_steps / all;
    let mut sums = Sums::<L, TILES> {
        tiles: [L::ZERO; TILES],
        activations: 0,
    };
    // Each batch is loaded while the one before is multiplied. Leftover steps are loaded with the first batch, and so are the activations of both.
    // SAFETY: this lane has `batches` batches, and `rest` steps before or after them.
    unsafe {
        let in_batches = batches * all;
        let rest = steps - in_batches;
        // What is used first comes first in memory, as in the prefetch; but a partial step is the last.
        let (leftover, mut next) = if L::HAS_PARTIAL_STEPS {
            (start.after(in_batches as usize), start)
        } else {
            (start, start.after(rest as usize))
        };
        // LLVM cannot derive this, and would generate code for one more step.
        core::hint::assert_unchecked(L::HAS_PARTIAL_STEPS || rest < all);
        // Written only if there are enough batches or leftover steps, and read only then.
        let mut even = MaybeUninit::<Units<TILES, STEPS>>::uninit();
        let mut odd = MaybeUninit::<Units<TILES, STEPS>>::uninit();
        let mut of_first: Activations<STEPS> = [MaybeUninit::uninit(); STEPS];
        let mut of_rest = of_first;
        if rest > 0 {
            odd.write(leftover.load_some::<L, STEPS>(rest));
            of_rest = leftover.activations(rest);
        }
        if batches > 0 {
            even.write(next.load());
            of_first = next.activations(all);
        }
        if rest > 0 {
            sums.add::<E, STEPS>(odd.assume_init_ref(), &of_rest, rest);
        }
        if batches > 1 {
            odd.write(next.after(STEPS).load());
        }
        if batches > 0 {
            sums.add::<E, STEPS>(even.assume_init_ref(), &of_first, all);
        }
        while batches > 3 {
            even.write(next.after(2 * STEPS).load());
            let activations = next.after(STEPS).activations(all);
            sums.add::<E, STEPS>(odd.assume_init_ref(), &activations, all);
            odd.write(next.after(3 * STEPS).load());
            let activations = next.after(2 * STEPS).activations(all);
            sums.add::<E, STEPS>(even.assume_init_ref(), &activations, all);
            next = next.after(2 * STEPS);
            batches -= 2;
        }
        if batches > 2 {
            even.write(next.after(2 * STEPS).load());
        }
        if batches > 1 {
            let activations = next.after(STEPS).activations(all);
            sums.add::<E, STEPS>(odd.assume_init_ref(), &activations, all);
        }
        if batches > 2 {
            let activations = next.after(2 * STEPS).activations(all);
            sums.add::<E, STEPS>(even.assume_init_ref(), &activations, all);
        }
    }

    // Each lane subtracts the activations of its own columns: over all lanes of a row, each activation is subtracted once.
    let own = if E::SUMS_ACTIVATIONS {
        L::CODE_BIAS * sums.activations
    } else {
        0
    };
    let mut values = [0; COUNT];
    for tile in 0..TILES {
        let rows = L::rows(sums.tiles[tile]);
        for row in 0..UNIT_ROWS {
            values[tile * UNIT_ROWS + row] = rows[row] - own;
        }
    }
    // SAFETY: all lanes of the warp have left the loops above, and each address is written by one lane.
    unsafe {
        reduce_scatter(&mut values, L::COLUMN_BITS);
        // With 4 values, two lanes hold the same total.
        if COUNT == 8 || lane as u32 & L::COLUMN_BITS[2] == 0 {
            let value = first_value::<COUNT>(lane, L::COLUMN_BITS);
            let (tile, row) = (value / UNIT_ROWS, value % UNIT_ROWS);
            let row = tile * TILE_ROWS + L::row_group(lane) * UNIT_ROWS + row;
            of_warp::<TILES, 1>(warp as usize)
                .add(row as u32)
                .write(values[0]);
        }
        block_sums::finish::<L, E, TILES, WARPS, SPLITS, 1>(&problem, &epilogue, operands);
    }
}
