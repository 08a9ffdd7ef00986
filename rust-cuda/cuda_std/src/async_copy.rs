//! Asynchronous copies.
