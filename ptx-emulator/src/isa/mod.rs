//! The typed instruction set: one enum a family, every modifier a type of its own.

mod op;
mod types;

pub(crate) use op::*;
pub(crate) use types::*;
