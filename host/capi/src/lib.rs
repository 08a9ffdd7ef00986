//! The C interface of `bitnet_cuda`: `libbitnet.so`.
//!
//! `include/bitnet.h` is its documentation. Here, each function checks what C's types do not say, turns handles and raw pointers
//! into the library's own types, and calls the library.

#![deny(missing_docs)]

mod activations;
mod arguments;
mod device;
mod error;
mod handles;
mod int8xint2;
mod linear;
mod norm;
mod weights;
