//! The target architecture.

/// The compute capability of the target, times ten: 75 for sm_75, 80 for sm_80, 90 for sm_90; 0 on the host.
///
/// A constant: a branch on it is decided at compile time. To use a function that an older architecture does
/// not have, `#[cfg(target_feature = "sm_80")]` is needed instead, because both sides of an `if` must compile.
pub const fn compute_capability() -> u32 {
    if cfg!(target_feature = "sm_90") {
        90
    } else if cfg!(target_feature = "sm_80") {
        80
    } else if cfg!(target_feature = "sm_75") {
        75
    } else {
        0
    }
}
