//! Programmatic dependent launch: a grid that starts before the one it follows has ended.

#[cfg(any(target_feature = "sm_90", not(target_arch = "nvptx64")))]
use crate::gpu_only;

/// Waits until the grids that this one depends on have ended and their writes are visible; returns at once where
/// there are none. CUDA's `cudaGridDependencySynchronize`. PTX: `griddepcontrol.wait`; sm_90.
#[cfg(any(target_feature = "sm_90", not(target_arch = "nvptx64")))]
#[gpu_only]
pub fn grid_dependency_synchronize() {
    // SAFETY: waits only.
    unsafe { crate::llvm::griddepcontrol_wait() }
}

/// Says that the grids which depend on this one may be launched, once every block has said so or ended. CUDA's
/// `cudaTriggerProgrammaticLaunchCompletion`. PTX: `griddepcontrol.launch_dependents`; sm_90.
#[cfg(any(target_feature = "sm_90", not(target_arch = "nvptx64")))]
#[gpu_only]
pub fn trigger_programmatic_launch_completion() {
    // SAFETY: a hint to the scheduler.
    unsafe { crate::llvm::griddepcontrol_launch_dependents() }
}
