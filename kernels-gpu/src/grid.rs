//! Programmatic dependent launch: ordering of a grid within its stream.

#[cfg(target_feature = "sm_90")]
use cuda_std::grid;

/// Waits until the preceding grid of the stream has finished and its writes are visible, then allows the next grid to start. The next grid
/// runs up to its own wait, so that its blocks are resident and its weights are being fetched into L2 when this grid ends.
///
/// From sm_90 on, the host may launch a kernel before the preceding one has finished (programmatic dependent launch). Such a kernel calls
/// this before it reads or writes memory; it may prefetch earlier. On older architectures the grids of a stream do not overlap.
#[inline(always)]
pub(crate) fn synchronize_and_trigger() {
    #[cfg(target_feature = "sm_90")]
    {
        grid::grid_dependency_synchronize();
        // After the wait, not before it, so that at most two grids of a stream run at once.
        grid::trigger_programmatic_launch_completion();
    }
}
