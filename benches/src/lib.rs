//! kernel-benches
