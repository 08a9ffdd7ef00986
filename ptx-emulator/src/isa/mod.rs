//! Decoded instructions: one enum per family.

mod arithmetic;
mod asynchronous;
mod constant;
mod control;
mod matrix;
mod memory;
mod op;
mod types;
mod video;

pub(crate) use arithmetic::*;
pub(crate) use asynchronous::*;
pub(crate) use constant::*;
pub(crate) use control::*;
pub(crate) use matrix::*;
pub(crate) use memory::*;
pub(crate) use op::*;
pub(crate) use types::*;
pub(crate) use video::*;
