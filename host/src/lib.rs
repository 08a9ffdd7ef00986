//! bitnet-cuda

pub mod device;
pub mod layout;
pub mod reference;
