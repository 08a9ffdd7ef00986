//! NVIDIA's libraries: BF16 products by cuBLAS's `cublasGemmEx`, INT8 ones by cuBLASLt's `cublasLtMatmul`.

mod gemm_ex;
mod library;
mod lt;

pub use gemm_ex::GemmEx;
pub use lt::Lt;

use super::{Expected, Peer, PeerWeights, TOLERANCE};
use crate::operations::{Check, Operation, ProductData};
use anyhow::Result;
use bitnet_cuda::device::{Buffer, Device, ForeignError, Stream};
use bytemuck::Pod;
use std::ffi::{c_int, c_void};
use std::rc::Rc;

// cublas_api.h and library_types.h.
const OP_N: c_int = 0;
const OP_T: c_int = 1;
const R_8I: c_int = 3;
const R_32I: c_int = 10;
const R_16BF: c_int = 14;

/// What NVIDIA recommends for Hopper; older GPUs need less.
const WORKSPACE_BYTES: usize = 32 << 20;

/// A library's matrix product on one device and stream.
///
/// Row-major `y = x w^T` is column-major `y^T = (w^T)^T x^T`: `w` is read as a column-major `k x n` and transposed, `x` as a
/// column-major `k x m`, and `y` is written as `n x m`.
pub trait Gemm: Sized + 'static {
    type Input: Pod;
    type Output: Pod;
    /// What is found out about a shape before it is computed.
    type Plan;
    const NAME: &'static str;
    /// Tokens are padded to a multiple of this.
    const TOKENS: usize;
    /// Whether outputs are the sums themselves, and not rounded.
    const EXACT: bool;

    /// Opens the newest version that the loader finds, for products on this stream.
    fn open(device: &Device, stream: &Stream) -> Result<Self>;

    fn version(&self) -> String;

    fn plan(&self, stream: &Stream, shape: GemmShape) -> Result<Self::Plan>;

    fn workspace(&self) -> &Buffer<u8>;

    /// Submits a product.
    ///
    /// # Safety
    /// `stream` is the one that this was opened for, its context is current, and the pointers are to operands of `shape`, for
    /// which the plan was made.
    unsafe fn submit(
        &self,
        plan: &Self::Plan,
        stream: *mut c_void,
        operands: Operands,
        shape: GemmShape,
    ) -> Result<(), ForeignError>;

    fn input(value: i8) -> Self::Input;
    fn output(value: Self::Output) -> f32;
}

#[derive(Clone, Copy)]
pub struct GemmShape {
    pub m: usize,
    pub n: usize,
    pub k: usize,
}

/// Device addresses of `w`, `[n, k]`, of `x`, `[m, k]`, and of `y`, `[m, n]`.
#[derive(Clone, Copy)]
pub struct Operands {
    pub weights: u64,
    pub input: u64,
    pub output: u64,
}

/// A library as a peer.
pub struct GemmPeer<G>(Rc<G>);

impl<G: Gemm> GemmPeer<G> {
    pub fn open(stream: &Stream) -> Result<Self> {
        let gemm = G::open(stream.device(), stream)?;
        tracing::info!(version = gemm.version(), "{} is measured beside", G::NAME);
        Ok(Self(Rc::new(gemm)))
    }
}

impl<G: Gemm> Peer for GemmPeer<G> {
    fn name(&self) -> &str {
        G::NAME
    }

    fn tolerance(&self) -> f64 {
        if G::EXACT { 0.0 } else { TOLERANCE }
    }

    fn weight_bytes(&self, n: usize, k: usize) -> usize {
        n * k * size_of::<G::Input>()
    }

    fn weights(
        &self,
        device: &Device,
        data: &ProductData,
        copies: usize,
    ) -> Result<Box<dyn PeerWeights>> {
        let weights: Vec<G::Input> = data.packed.unpack().into_iter().map(G::input).collect();
        let copy = |_| Ok(Rc::new(Buffer::from_slice(device, &weights)?));
        Ok(Box::new(Weights::<G> {
            gemm: Rc::clone(&self.0),
            copies: (0..copies).map(copy).collect::<Result<_>>()?,
        }))
    }
}

struct Weights<G: Gemm> {
    gemm: Rc<G>,
    copies: Vec<Rc<Buffer<G::Input>>>,
}

impl<G: Gemm> PeerWeights for Weights<G> {
    fn products(&self, data: &ProductData, m: usize) -> Result<Vec<Box<dyn Operation>>> {
        let shape = GemmShape {
            m: m.next_multiple_of(G::TOKENS),
            n: data.n,
            k: data.k,
        };
        let mut input: Vec<G::Input> = data.values[..m * data.k]
            .iter()
            .map(|&q| G::input(q))
            .collect();
        input.resize(shape.m * data.k, G::input(0));
        let sums = data.sums[..m * data.n].iter().map(|&sum| sum as f32);
        let expected = Rc::new(Expected::new(sums.collect()));
        let product = |weights: &Rc<Buffer<G::Input>>| -> Result<Box<dyn Operation>> {
            let device = weights.device();
            Ok(Box::new(Product {
                plan: self.gemm.plan(&device.default_stream(), shape)?,
                gemm: Rc::clone(&self.gemm),
                weights: Rc::clone(weights),
                input: Buffer::from_slice(device, &input)?,
                output: Buffer::zeroed(device, shape.m * data.n)?,
                shape,
                expected: Rc::clone(&expected),
            }))
        };
        self.copies.iter().map(product).collect()
    }
}

struct Product<G: Gemm> {
    plan: G::Plan,
    gemm: Rc<G>,
    weights: Rc<Buffer<G::Input>>,
    input: Buffer<G::Input>,
    output: Buffer<G::Output>,
    shape: GemmShape,
    expected: Rc<Expected>,
}

impl<G: Gemm> Operation for Product<G> {
    fn launch(&mut self, stream: &Stream) -> Result<()> {
        let uses = [
            self.gemm.workspace().foreign_use(),
            self.weights.foreign_use(),
            self.input.foreign_use(),
            self.output.foreign_use(),
        ];
        let operands = Operands {
            weights: self.weights.device_ptr(),
            input: self.input.device_ptr(),
            output: self.output.device_ptr(),
        };
        let submit = |raw: *mut c_void| {
            // SAFETY: the run has one stream, for which the library was opened; the buffers have this shape.
            unsafe { self.gemm.submit(&self.plan, raw, operands, self.shape) }
        };
        // SAFETY: the library works on this stream, with the operands and the workspace, all named; the output is held
        // mutably, and products on one stream have the workspace one after the other.
        Ok(unsafe { stream.submit_foreign(G::NAME, &uses, submit) }?)
    }

    fn outputs(&self) -> Result<Vec<u8>> {
        Ok(bytemuck::cast_slice(&self.output.to_vec()?).to_vec())
    }

    fn check(&self) -> Result<Check> {
        let outputs = self.output.to_vec()?;
        let tokens = &outputs[..self.expected.values.len()];
        let found: Vec<f32> = tokens.iter().map(|&y| G::output(y)).collect();
        if G::EXACT {
            return Ok(Check::compare(&found, &self.expected.values, f32::eq));
        }
        Ok(self.expected.check(&found))
    }

    fn bytes(&self) -> usize {
        self.weights.size_bytes() + self.input.size_bytes() + self.output.size_bytes()
    }

    fn operations(&self) -> usize {
        2 * self.shape.m * self.shape.n * self.shape.k
    }
}
