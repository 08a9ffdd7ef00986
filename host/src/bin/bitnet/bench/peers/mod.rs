//! Other libraries' products, to measure beside this one's. They are opened at run time, where they are found.

mod bitlinear;
mod cublas;

pub use bitlinear::Bitlinear;
pub use cublas::{Gemm, GemmEx, GemmPeer, Lt};

use crate::operations::{Operation, ProductData};
use anyhow::Result;
use bitnet_cuda::device::Device;
use std::path::PathBuf;

/// Why a library cannot be measured.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    #[error("cannot open {}: {reason}", path.display())]
    Open {
        path: PathBuf,
        reason: libloading::Error,
    },
    #[error("none of {tried} can be opened; put cuBLAS's folder into LD_LIBRARY_PATH ({last})")]
    NotFound {
        tried: String,
        last: libloading::Error,
    },
    #[error("{} has no function `{symbol}`: {reason}", path.display())]
    NoSymbol {
        path: PathBuf,
        symbol: &'static str,
        reason: libloading::Error,
    },
}

/// A library that multiplies.
pub trait Peer {
    fn name(&self) -> &str;

    /// Bytes that its weights of this shape take.
    fn weight_bytes(&self, n: usize, k: usize) -> usize;

    /// Uploads `copies` of the weights.
    fn weights(
        &self,
        device: &Device,
        data: &ProductData,
        copies: usize,
    ) -> Result<Box<dyn PeerWeights>>;
}

/// Copies of a matrix on the device.
pub trait PeerWeights {
    /// Products of the first `m` tokens, one with each copy. Their check compares with what the reference says of the same
    /// operands, within [`TOLERANCE`].
    fn products(&self, data: &ProductData, m: usize) -> Result<Vec<Box<dyn Operation>>>;
}

/// How far an output of a peer may be from the exact one, relative to that: a bf16 is rounded by up to 2^-9, and a library may
/// round an intermediate once more.
pub const TOLERANCE: f64 = 1.0 / 128.0;

fn is_close(found: f32, expected: f32) -> bool {
    f64::from((found - expected).abs()) <= TOLERANCE * f64::from(expected.abs())
}
