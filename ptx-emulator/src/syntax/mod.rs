//! PTX text to a syntax tree: names and numbers only, no meaning yet.

pub(crate) mod ast;
mod body;
mod initializer;
mod literal;
mod parser;
mod token;

pub(crate) use parser::parse;
