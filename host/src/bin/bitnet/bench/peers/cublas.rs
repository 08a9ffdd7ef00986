//! cuBLAS: `cublasGemmEx` with BF16 operands and f32 sums, and with INT8 operands and int32 sums.

use super::{Peer, PeerError, PeerWeights, is_close};
use crate::operations::{Check, Operation, ProductData};
use anyhow::Result;
use bitnet_cuda::device::{Buffer, Device, ForeignError, Stream};
use bytemuck::Pod;
use half::bf16;
use libloading::Library;
use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::marker::PhantomData;
use std::path::PathBuf;
use std::rc::Rc;

const LIBRARIES: [&str; 4] = [
    "libcublas.so.13",
    "libcublas.so.12",
    "libcublas.so.11",
    "libcublas.so",
];

type Handle = *mut c_void;
type Create = unsafe extern "C" fn(*mut Handle) -> c_int;
type Destroy = unsafe extern "C" fn(Handle) -> c_int;
type SetStream = unsafe extern "C" fn(Handle, *mut c_void) -> c_int;
type SetWorkspace = unsafe extern "C" fn(Handle, *mut c_void, usize) -> c_int;
type GetVersion = unsafe extern "C" fn(Handle, *mut c_int) -> c_int;
/// `(handle, transa, transb, m, n, k, alpha, a, a_type, lda, b, b_type, ldb, beta, c, c_type, ldc, compute, algorithm)`
type GemmEx = unsafe extern "C" fn(
    Handle,
    c_int,
    c_int,
    c_int,
    c_int,
    c_int,
    *const c_void,
    *const c_void,
    c_int,
    c_int,
    *const c_void,
    c_int,
    c_int,
    *const c_void,
    *mut c_void,
    c_int,
    c_int,
    c_int,
    c_int,
) -> c_int;

// cublas_api.h and library_types.h.
const OP_N: c_int = 0;
const OP_T: c_int = 1;
const GEMM_DEFAULT: c_int = -1;
const COMPUTE_32F: c_int = 68;
const COMPUTE_32I: c_int = 72;
const R_8I: c_int = 3;
const R_32I: c_int = 10;
const R_16BF: c_int = 14;

/// What NVIDIA recommends for Hopper; older GPUs need less.
const WORKSPACE_BYTES: usize = 32 << 20;
/// `cublasGemmEx` takes int8 operands whose sizes are multiples of this.
const INT8_MULTIPLE: usize = 4;

/// Types of a product.
pub trait Precision: 'static {
    type Input: Pod;
    type Output: Pod;
    const NAME: &'static str;
    const INPUT_TYPE: c_int;
    const OUTPUT_TYPE: c_int;
    const COMPUTE: c_int;
    /// 1 and 0 in the type of the sums.
    const ONE: [u8; 4];
    const ZERO: [u8; 4] = [0; 4];
    /// Tokens are padded to a multiple of this.
    const TOKENS: usize;

    fn input(value: i8) -> Self::Input;
    fn output(value: Self::Output) -> f32;
}

/// BF16 operands and outputs, f32 sums.
pub struct Bf16;

impl Precision for Bf16 {
    type Input = bf16;
    type Output = bf16;
    const NAME: &'static str = "cublas bf16";
    const INPUT_TYPE: c_int = R_16BF;
    const OUTPUT_TYPE: c_int = R_16BF;
    const COMPUTE: c_int = COMPUTE_32F;
    const ONE: [u8; 4] = 1.0_f32.to_ne_bytes();
    const TOKENS: usize = 1;

    /// Exact: an int8 has no more than the 8 significant bits of a bf16.
    fn input(value: i8) -> bf16 {
        bf16::from_f32(f32::from(value))
    }
    fn output(value: bf16) -> f32 {
        value.to_f32()
    }
}

/// INT8 operands, int32 outputs: without the scales, which would be another kernel.
pub struct Int8;

impl Precision for Int8 {
    type Input = i8;
    type Output = i32;
    const NAME: &'static str = "cublas int8";
    const INPUT_TYPE: c_int = R_8I;
    const OUTPUT_TYPE: c_int = R_32I;
    const COMPUTE: c_int = COMPUTE_32I;
    const ONE: [u8; 4] = 1_i32.to_ne_bytes();
    const TOKENS: usize = INT8_MULTIPLE;

    fn input(value: i8) -> i8 {
        value
    }
    fn output(value: i32) -> f32 {
        value as f32
    }
}

/// The library, open, with a handle for one device and stream.
pub struct Cublas {
    gemm: GemmEx,
    destroy: Destroy,
    handle: Handle,
    version: c_int,
    workspace: Buffer<u8>,
    _library: Library,
}

impl Cublas {
    /// Opens the newest cuBLAS that the loader finds, for products on this stream.
    pub fn open(device: &Device, stream: &Stream) -> Result<Rc<Self>> {
        let (path, library) = find()?;
        fn function<T: Copy>(
            path: &str,
            library: &Library,
            symbol: &'static str,
        ) -> Result<T, PeerError> {
            // SAFETY: the functions of cuBLAS's public interface have these types in all versions from 11 to 13.
            unsafe { library.get::<T>(symbol) }
                .map(|function| *function)
                .map_err(|reason| PeerError::NoSymbol {
                    path: PathBuf::from(path),
                    symbol,
                    reason,
                })
        }
        let create: Create = function(path, &library, "cublasCreate_v2")?;
        let set_stream: SetStream = function(path, &library, "cublasSetStream_v2")?;
        let set_workspace: SetWorkspace = function(path, &library, "cublasSetWorkspace_v2")?;
        let get_version: GetVersion = function(path, &library, "cublasGetVersion_v2")?;
        let mut cublas = Self {
            gemm: function(path, &library, "cublasGemmEx")?,
            destroy: function(path, &library, "cublasDestroy_v2")?,
            handle: std::ptr::null_mut(),
            version: 0,
            workspace: Buffer::uninit(device, WORKSPACE_BYTES)?,
            _library: library,
        };
        let workspace = cublas.workspace.device_ptr() as *mut c_void;
        let setup = |raw: *mut c_void| {
            // SAFETY: the context is current, the pointers are valid for the writes, and the workspace lives as long as
            // the handle. Setting the stream resets the workspace, so it comes first.
            unsafe {
                check("cublasCreate", create(&mut cublas.handle))?;
                check(
                    "cublasGetVersion",
                    get_version(cublas.handle, &mut cublas.version),
                )?;
                check("cublasSetStream", set_stream(cublas.handle, raw))?;
                check(
                    "cublasSetWorkspace",
                    set_workspace(cublas.handle, workspace, WORKSPACE_BYTES),
                )
            }
        };
        // SAFETY: nothing is submitted. The handle keeps the stream, which the caller keeps for the whole run.
        unsafe { stream.submit_foreign("cublasCreate", &[], setup) }?;
        Ok(Rc::new(cublas))
    }

    /// Such as `12.4.5`, as the library encodes it: 120405.
    pub fn version(&self) -> String {
        // Since 11: major * 10000 + minor * 100 + patch.
        let version = self.version;
        format!(
            "{}.{}.{}",
            version / 10_000,
            version / 100 % 100,
            version % 100
        )
    }
}

impl Drop for Cublas {
    fn drop(&mut self) {
        if !self.handle.is_null() {
            // SAFETY: made by this library and not destroyed before; all products hold it, and what they submitted has been
            // waited for by the drop of their buffers.
            unsafe { (self.destroy)(self.handle) };
        }
    }
}

fn find() -> Result<(&'static str, Library), PeerError> {
    let mut last = None;
    for name in LIBRARIES {
        // SAFETY: cuBLAS's initializers ask for nothing.
        match unsafe { Library::new(name) } {
            Ok(library) => return Ok((name, library)),
            // The first error is about the newest version, and as good as the others.
            Err(error) => last = Some(last.unwrap_or(error)),
        }
    }
    let last = last.expect("there is a name to try");
    Err(PeerError::NotFound {
        tried: LIBRARIES.join(", "),
        last,
    })
}

fn check(call: &'static str, status: c_int) -> Result<(), ForeignError> {
    let name = match status {
        0 => return Ok(()),
        1 => "CUBLAS_STATUS_NOT_INITIALIZED",
        3 => "CUBLAS_STATUS_ALLOC_FAILED",
        7 => "CUBLAS_STATUS_INVALID_VALUE",
        8 => "CUBLAS_STATUS_ARCH_MISMATCH",
        13 => "CUBLAS_STATUS_EXECUTION_FAILED",
        14 => "CUBLAS_STATUS_INTERNAL_ERROR",
        15 => "CUBLAS_STATUS_NOT_SUPPORTED",
        _ => "a cublasStatus_t",
    };
    Err(ForeignError {
        call,
        name: name.to_owned(),
        code: status,
    })
}

/// cuBLAS in one precision, as a peer.
pub struct CublasPeer<P>(pub Rc<Cublas>, PhantomData<P>);

impl Cublas {
    pub fn peer<P: Precision>(self: &Rc<Self>) -> CublasPeer<P> {
        CublasPeer(Rc::clone(self), PhantomData)
    }
}

impl<P: Precision> Peer for CublasPeer<P> {
    fn name(&self) -> &str {
        P::NAME
    }

    fn weight_bytes(&self, n: usize, k: usize) -> usize {
        n * k * size_of::<P::Input>()
    }

    fn weights(
        &self,
        device: &Device,
        data: &ProductData,
        copies: usize,
    ) -> Result<Box<dyn PeerWeights>> {
        let weights: Vec<P::Input> = data.packed.unpack().into_iter().map(P::input).collect();
        let copy = |_| Ok(Rc::new(Buffer::from_slice(device, &weights)?));
        Ok(Box::new(Weights::<P> {
            cublas: Rc::clone(&self.0),
            copies: (0..copies).map(copy).collect::<Result<_>>()?,
        }))
    }
}

struct Weights<P: Precision> {
    cublas: Rc<Cublas>,
    copies: Vec<Rc<Buffer<P::Input>>>,
}

impl<P: Precision> PeerWeights for Weights<P> {
    fn products(&self, data: &ProductData, m: usize) -> Result<Vec<Box<dyn Operation>>> {
        let tokens = m.next_multiple_of(P::TOKENS);
        let mut input: Vec<P::Input> = data.values[..m * data.k]
            .iter()
            .map(|&q| P::input(q))
            .collect();
        input.resize(tokens * data.k, P::input(0));
        // Rounded as the peer's outputs are, but once.
        let expected: Rc<Vec<f32>> = Rc::new(
            data.sums[..m * data.n]
                .iter()
                .map(|&sum| sum as f32)
                .collect(),
        );
        let product = |weights: &Rc<Buffer<P::Input>>| -> Result<Box<dyn Operation>> {
            let device = weights.device();
            Ok(Box::new(Gemm::<P> {
                cublas: Rc::clone(&self.cublas),
                weights: Rc::clone(weights),
                input: Buffer::from_slice(device, &input)?,
                output: Buffer::zeroed(device, tokens * data.n)?,
                shape: [tokens, data.n, data.k],
                expected: Rc::clone(&expected),
            }))
        };
        self.copies.iter().map(product).collect()
    }
}

struct Gemm<P: Precision> {
    cublas: Rc<Cublas>,
    weights: Rc<Buffer<P::Input>>,
    input: Buffer<P::Input>,
    output: Buffer<P::Output>,
    shape: [usize; 3],
    expected: Rc<Vec<f32>>,
}

impl<P: Precision> Operation for Gemm<P> {
    fn launch(&mut self, stream: &Stream) -> Result<()> {
        let cublas = &self.cublas;
        let uses = [
            cublas.workspace.foreign_use(),
            self.weights.foreign_use(),
            self.input.foreign_use(),
            self.output.foreign_use(),
        ];
        let [m, n, k] = self.shape.map(|size| size as c_int);
        // Aligned as the type that cuBLAS reads.
        let (one, zero) = (
            Cell::new(u32::from_ne_bytes(P::ONE)),
            Cell::new(u32::from_ne_bytes(P::ZERO)),
        );
        let submit = |_: *mut c_void| {
            // Row-major y = x w^T is column-major y^T = (w^T)^T x^T: w is read as k x n and transposed, x as k x m.
            // SAFETY: a live handle on this stream, device pointers to matrices of these shapes, types and leading
            // dimensions, and host pointers to a one and a zero of the type of the sums.
            let status = unsafe {
                (cublas.gemm)(
                    cublas.handle,
                    OP_T,
                    OP_N,
                    n,
                    m,
                    k,
                    one.as_ptr().cast(),
                    self.weights.device_ptr() as *const c_void,
                    P::INPUT_TYPE,
                    k,
                    self.input.device_ptr() as *const c_void,
                    P::INPUT_TYPE,
                    k,
                    zero.as_ptr().cast(),
                    self.output.device_ptr() as *mut c_void,
                    P::OUTPUT_TYPE,
                    n,
                    P::COMPUTE,
                    GEMM_DEFAULT,
                )
            };
            check("cublasGemmEx", status)
        };
        // SAFETY: cuBLAS works on the handle's stream, which is the one of this run, with the operands and the workspace,
        // all named; the output is held mutably, and products on one stream have the workspace one after the other.
        Ok(unsafe { stream.submit_foreign(P::NAME, &uses, submit) }?)
    }

    fn outputs(&self) -> Result<Vec<u8>> {
        Ok(bytemuck::cast_slice(&self.output.to_vec()?).to_vec())
    }

    fn check(&self) -> Result<Check> {
        let found: Vec<f32> = self.output.to_vec()?[..self.expected.len()]
            .iter()
            .map(|&y| P::output(y))
            .collect();
        Ok(Check::compare(
            &found,
            &self.expected,
            |&found, &expected| is_close(found, expected),
        ))
    }

    fn bytes(&self) -> usize {
        self.weights.size_bytes() + self.input.size_bytes() + self.output.size_bytes()
    }

    fn operations(&self) -> usize {
        2 * self.shape.iter().product::<usize>()
    }
}
