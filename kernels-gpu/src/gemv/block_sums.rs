//! From the warps' sums to outputs: sums of a block's warps are added through shared memory, those of the blocks that split K through the workspace.

use super::epilogue::Epilogue;
use super::layout::Layout;
use super::{Problem, TILE_ROWS};
use cuda_std::atomic::atomic_fetch_inc_acqrel_u32_device;
use cuda_std::shared::{self, SharedPtr};
use cuda_std::thread;

/// Distance between two tokens' sums, in words. With several tokens it includes 4 words of padding, so that a warp's stores, four rows of
/// two tokens per lane, are spread over all banks.
pub(super) const fn token_pitch(tiles: u32, tokens: u32) -> u32 {
    tiles * TILE_ROWS as u32 + if tokens > 1 { 4 } else { 0 }
}

/// Words of a warp's sums in shared memory.
pub(super) const fn warp_len(tiles: u32, tokens: u32) -> u32 {
    tokens * token_pitch(tiles, tokens)
}

/// Counters at the start of the workspace: the same number for every variant, so that each finds as zero what another has left zero.
pub(super) const fn counters(n: u32) -> u32 {
    n.div_ceil(TILE_ROWS as u32)
}

/// A warp's sums, `[TOKENS, rows]`.
#[inline(always)]
pub(super) fn of_warp<const TILES: usize, const TOKENS: usize>(warp: usize) -> SharedPtr<i32> {
    let len = const { warp_len(TILES as u32, TOKENS as u32) };
    shared::dynamic_shared_mem().add(warp as u32 * len)
}

/// Distributes the indices `0..count` over the threads of the block.
#[inline(always)]
fn each<const WARPS: usize>(count: u32, action: impl Fn(u32)) {
    let mut index = thread::thread_idx_x();
    while index < count {
        action(index);
        index += 32 * WARPS as u32;
    }
}

/// Has L2 fetch what the outputs of this block need besides sums; once for all splits.
#[inline(always)]
pub(super) fn prefetch<E: Epilogue, const TILES: usize>(epilogue: &E) {
    if thread::thread_idx_x() == 0 && thread::block_idx_y() == 0 {
        epilogue.prefetch((thread::block_idx_x() * (TILES * TILE_ROWS) as u32) as usize);
    }
}

/// The operands of the output that this thread writes, to be loaded before the weights, so that they are in flight together; loaded afterwards, they would add
/// a memory latency of their own. `None` where a thread may write several outputs, and where several blocks split K, of which only the last one
/// needs them.
///
/// # Safety
/// The problem's and the epilogue's pointers are as the module describes.
#[inline(always)]
pub(super) unsafe fn operands<
    E: Epilogue,
    const TILES: usize,
    const WARPS: usize,
    const SPLITS: usize,
    const TOKENS: usize,
>(
    problem: &Problem,
    epilogue: &E,
) -> Option<E::Operands> {
    if SPLITS > 1 || 32 * WARPS < TOKENS * TILES * TILE_ROWS {
        return None;
    }
    let rows = (TILES * TILE_ROWS) as u32;
    let index = thread::thread_idx_x();
    let (token, row) = (index / rows, thread::block_idx_x() * rows + index % rows);
    Some(
        if token < problem.tokens.min(TOKENS as u32) && row < problem.n {
            // SAFETY: just checked.
            unsafe { epilogue.operands((token as usize, row as usize)) }
        } else {
            E::Operands::default()
        },
    )
}

/// Adds up the sums of the warps and of the splits, and passes the totals to the epilogue. `operands` are this thread's [`operands`], if they
/// were loaded early.
///
/// # Safety
/// All threads of the block call it, each warp after writing its sums of the block's rows to [`of_warp`]; the grid is `(blocks, SPLITS)`,
/// and the problem's pointers are as the module describes.
#[inline(always)]
pub(super) unsafe fn finish<
    L: Layout,
    E: Epilogue,
    const TILES: usize,
    const WARPS: usize,
    const SPLITS: usize,
    const TOKENS: usize,
>(
    problem: &Problem,
    epilogue: &E,
    operands: Option<E::Operands>,
) {
    let rows = (TILES * TILE_ROWS) as u32;
    let count = TOKENS as u32 * rows;
    let pitch = const { token_pitch(TILES as u32, TOKENS as u32) };
    let block = thread::block_idx_x();
    let output = |index: u32, sum: i32| {
        let (token, row) = (index / rows, block * rows + index % rows);
        if row < problem.n && token < problem.tokens {
            let place = (token as usize, row as usize);
            // SAFETY: just checked.
            unsafe {
                let operands = operands.unwrap_or_else(|| epilogue.operands(place));
                epilogue.write::<L>(problem, place, operands, sum);
            }
        }
    };
    let of_block = |index: u32| {
        let place = index / rows * pitch + index % rows;
        let mut sum = 0;
        for warp in 0..WARPS {
            // SAFETY: written before the barrier below.
            sum += unsafe { of_warp::<TILES, TOKENS>(warp).add(place).read() };
        }
        sum
    };
    thread::sync_threads();
    if SPLITS == 1 {
        each::<WARPS>(count, |index| output(index, of_block(index)));
        return;
    }
    // SAFETY: the workspace has a counter for each block, then `[blocks, SPLITS, TOKENS, rows]` sums; no two blocks write the same sums.
    unsafe {
        let sums = problem
            .workspace
            .add(counters(problem.n) as usize + block as usize * SPLITS * count as usize)
            .cast::<i32>();
        let own = sums.add((thread::block_idx_y() * count) as usize);
        each::<WARPS>(count, |index| *own.add(index as usize) = of_block(index));
        // This barrier orders the sums of all threads before the increment; the next one orders the increment before the last block's reads.
        thread::sync_threads();
        let is_last = thread::thread_idx_x() == 0
            && atomic_fetch_inc_acqrel_u32_device(
                problem.workspace.add(block as usize),
                SPLITS as u32 - 1,
            ) == SPLITS as u32 - 1;
        if thread::sync_threads_or(is_last) {
            each::<WARPS>(count, |index| {
                let mut sum = 0;
                for split in 0..SPLITS as u32 {
                    sum += *sums.add((split * count + index) as usize);
                }
                output(index, sum);
            });
        }
    }
}
