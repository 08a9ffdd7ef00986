//! Other libraries' products, to measure beside this one's. They are opened at run time, where they are found.

mod bitlinear;
mod cublas;
mod stdout;

pub use bitlinear::Bitlinear;
pub use cublas::{Gemm, GemmEx, GemmPeer, Lt};
pub use stdout::Redirected;

use crate::operations::{Check, Operation, ProductData};
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

    /// How far its outputs may be from the exact ones; see [`TOLERANCE`].
    fn tolerance(&self) -> f64 {
        TOLERANCE
    }

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
    /// operands, within [`Peer::tolerance`].
    fn products(&self, data: &ProductData, m: usize) -> Result<Vec<Box<dyn Operation>>>;
}

/// How far an output of a peer may be from the exact one, relative to that or to the outputs' root mean square, whichever is larger: a library
/// may split K, round each part's sum to bf16 (by up to 2^-9) and add those, so that an output near 0 is as far off as any other.
pub const TOLERANCE: f64 = 1.0 / 64.0;

/// The outputs that a peer's are compared with.
struct Expected {
    values: Vec<f32>,
    root_mean_square: f64,
}

impl Expected {
    fn new(values: Vec<f32>) -> Self {
        let squares: f64 = values.iter().map(|&value| f64::from(value).powi(2)).sum();
        Self {
            root_mean_square: (squares / values.len().max(1) as f64).sqrt(),
            values,
        }
    }

    /// Compares outputs within [`TOLERANCE`].
    fn check(&self, found: &[f32]) -> Check {
        Check::compare(found, &self.values, |&found, &expected| {
            let size = f64::from(expected.abs()).max(self.root_mean_square);
            f64::from((found - expected).abs()) <= TOLERANCE * size
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mismatches(found: &[f32]) -> usize {
        Expected::new(vec![100.0, -100.0, 0.5, 1000.0])
            .check(found)
            .mismatches
    }

    #[test]
    fn an_output_near_zero_may_be_as_far_off_as_the_others() {
        // The root mean square is 505.
        assert_eq!(mismatches(&[104.0, -96.0, -4.0, 1015.0]), 0);
        assert_eq!(mismatches(&[108.0, -92.0, 8.5, 1016.0]), 4);
        assert_eq!(mismatches(&[f32::NAN; 4]), 4);
        assert_eq!(mismatches(&[0.0; 4]), 3);
    }
}
