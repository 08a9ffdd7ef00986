//! Programmatic dependent launch: a grid starts before the preceding one has finished.

#[cfg(any(target_feature = "sm_90", not(target_arch = "nvptx64")))]
use crate::gpu_only;

/// Waits until the grids that this one depends on have finished and their writes are visible; returns at once if
/// there are none. CUDA's `cudaGridDependencySynchronize`. PTX: `griddepcontrol.wait`; sm_90.
#[cfg(any(target_feature = "sm_90", not(target_arch = "nvptx64")))]
#[gpu_only]
pub fn grid_dependency_synchronize() {
    // SAFETY: waits only.
    unsafe { crate::llvm::griddepcontrol_wait() }
}

/// Allows the grids that depend on this one to be launched, once every block has called this or exited. CUDA's
/// `cudaTriggerProgrammaticLaunchCompletion`. PTX: `griddepcontrol.launch_dependents`; sm_90.
#[cfg(any(target_feature = "sm_90", not(target_arch = "nvptx64")))]
#[gpu_only]
pub fn trigger_programmatic_launch_completion() {
    // SAFETY: a hint to the scheduler.
    unsafe { crate::llvm::griddepcontrol_launch_dependents() }
}
