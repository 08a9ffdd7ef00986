//! The place of a grid among those of its stream.

#[cfg(target_feature = "sm_90")]
use cuda_std::grid;

/// Waits until the grid before this one on the stream has ended and what it wrote is visible, and lets the next one start: as far as its
/// own wait, so that its blocks are resident and its weights on their way to L2 when this one ends.
///
/// On sm_90 the host launches every kernel before the one in front has ended (programmatic dependent launch), so each kernel calls this
/// before it touches memory; prefetching may come before. Elsewhere grids of a stream do not overlap.
#[inline(always)]
pub(crate) fn follow() {
    #[cfg(target_feature = "sm_90")]
    {
        grid::grid_dependency_synchronize();
        // After the wait, not before: so no more than two grids of a stream are ever under way.
        grid::trigger_programmatic_launch_completion();
    }
}
