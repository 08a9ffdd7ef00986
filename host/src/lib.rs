//! bitnet-cuda

pub mod layout;
pub mod reference;
