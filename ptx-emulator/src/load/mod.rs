//! Syntax tree to decoded module: names become indices, and every instruction is checked.

mod atomic;
mod call;
mod cas_loop;
mod compare;
mod control;
mod control_flow;
mod convert;
mod copy;
mod fence;
mod float;
mod function;
mod hints;
mod integer;
mod logic;
mod matrix;
mod mbarrier;
mod memory;
mod modifiers;
mod module;
mod movement;
mod names;
mod operand;
mod qualifiers;
mod scope;
mod special;
mod variables;
mod video;
mod warp;

pub(crate) use function::{Function, NO_JOIN};
pub use module::{EntryInfo, Module, ParamInfo};
pub(crate) use variables::{VariableKind, align_up};
