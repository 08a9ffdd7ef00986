//! The files that measurements are kept in: `benches/results/<gpu>.json`.
//!
//! `bitnet bench` writes them, `cargo xtask report` reads them. Times are microseconds, sizes bytes, unless a name says
//! otherwise. A file of a device that is no GPU holds counts and no times.

mod possible;
mod results;
mod shapes;
pub mod statistics;

pub use results::*;
pub use shapes::{SHAPES, packed_bytes};
