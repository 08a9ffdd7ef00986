//! bitnet-cuda
