//! `cublasGemmEx` with BF16 operands and f32 sums.

use super::library::{self, Symbols, check};
use super::{Gemm, GemmShape, OP_N, OP_T, Operands, R_16BF, WORKSPACE_BYTES};
use anyhow::Result;
use bitnet_cuda::device::{Buffer, Device, ForeignError, Stream};
use half::bf16;
use std::ffi::{c_int, c_void};

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
type Function = unsafe extern "C" fn(
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

// cublas_api.h.
const GEMM_DEFAULT: c_int = -1;
const COMPUTE_32F: c_int = 68;

/// cuBLAS, open, with a handle for one device and stream.
pub struct GemmEx {
    function: Function,
    destroy: Destroy,
    handle: Handle,
    version: c_int,
    workspace: Buffer<u8>,
    _library: Symbols,
}

impl Gemm for GemmEx {
    type Input = bf16;
    type Output = bf16;
    type Plan = ();
    const NAME: &'static str = "cublas bf16";
    const TOKENS: usize = 1;
    const EXACT: bool = false;

    fn open(device: &Device, stream: &Stream) -> Result<Self> {
        let library = library::open(LIBRARIES)?;
        // SAFETY: the functions of cuBLAS's public interface have these types in all versions from 11 to 13.
        let (create, set_stream, set_workspace, get_version, function, destroy) = unsafe {
            (
                library.function::<Create>("cublasCreate_v2")?,
                library.function::<SetStream>("cublasSetStream_v2")?,
                library.function::<SetWorkspace>("cublasSetWorkspace_v2")?,
                library.function::<GetVersion>("cublasGetVersion_v2")?,
                library.function::<Function>("cublasGemmEx")?,
                library.function::<Destroy>("cublasDestroy_v2")?,
            )
        };
        let mut cublas = Self {
            function,
            destroy,
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
        Ok(cublas)
    }

    fn version(&self) -> String {
        library::version(self.version as usize)
    }

    fn plan(&self, _: &Stream, _: GemmShape) -> Result<()> {
        Ok(())
    }

    fn workspace(&self) -> &Buffer<u8> {
        &self.workspace
    }

    unsafe fn submit(
        &self,
        (): &(),
        _: *mut c_void,
        operands: Operands,
        shape: GemmShape,
    ) -> Result<(), ForeignError> {
        let [m, n, k] = [shape.m, shape.n, shape.k].map(|size| size as c_int);
        let (one, zero) = (1.0_f32, 0.0_f32);
        // SAFETY: a live handle on this stream, device pointers to matrices of these shapes, types and leading
        // dimensions, and host pointers to a one and a zero of the type of the sums, read before it returns.
        let status = unsafe {
            (self.function)(
                self.handle,
                OP_T,
                OP_N,
                n,
                m,
                k,
                (&raw const one).cast(),
                operands.weights as *const c_void,
                R_16BF,
                k,
                operands.input as *const c_void,
                R_16BF,
                k,
                (&raw const zero).cast(),
                operands.output as *mut c_void,
                R_16BF,
                n,
                COMPUTE_32F,
                GEMM_DEFAULT,
            )
        };
        check("cublasGemmEx", status)
    }

    /// Exact: an int8 has no more than the 8 significant bits of a bf16.
    fn input(value: i8) -> bf16 {
        bf16::from_f32(f32::from(value))
    }

    fn output(value: bf16) -> f32 {
        value.to_f32()
    }
}

impl Drop for GemmEx {
    fn drop(&mut self) {
        if !self.handle.is_null() {
            // SAFETY: made by this library and not destroyed before; all products hold it, and what they submitted has been
            // waited for by the drop of their buffers.
            unsafe { (self.destroy)(self.handle) };
        }
    }
}
