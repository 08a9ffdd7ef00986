//! The typed instruction set: one enum a family, every modifier a type of its own.

mod asynchronous;
mod matrix;
mod op;
mod types;

pub(crate) use asynchronous::*;
pub(crate) use matrix::*;
pub(crate) use op::*;
pub(crate) use types::*;
