//! `cublasLtMatmul` with INT8 operands and int32 outputs: without the scales, which would be another kernel.

use super::library::{self, Symbols, check};
use super::{Gemm, GemmShape, OP_N, OP_T, Operands, R_8I, R_32I, WORKSPACE_BYTES};
use anyhow::Result;
use bitnet_cuda::device::{Buffer, Device, ForeignError, Stream};
use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::rc::Rc;

const LIBRARIES: [&str; 4] = [
    "libcublasLt.so.13",
    "libcublasLt.so.12",
    "libcublasLt.so.11",
    "libcublasLt.so",
];

/// `cublasLtHandle_t` and the descriptors, all opaque.
type Opaque = *mut c_void;
type Create = unsafe extern "C" fn(*mut Opaque) -> c_int;
type Destroy = unsafe extern "C" fn(Opaque) -> c_int;
type GetVersion = unsafe extern "C" fn() -> usize;
/// `(descriptor, compute_type, scale_type)`
type DescCreate = unsafe extern "C" fn(*mut Opaque, c_int, c_int) -> c_int;
/// `(descriptor, type, rows, columns, leading_dimension)`
type LayoutCreate = unsafe extern "C" fn(*mut Opaque, c_int, u64, u64, i64) -> c_int;
/// `(descriptor, attribute, value, bytes_of_value)`
type SetAttribute = unsafe extern "C" fn(Opaque, c_int, *const c_void, usize) -> c_int;
/// `(handle, operation, a, b, c, d, preference, requested, results, returned)`
type GetHeuristic = unsafe extern "C" fn(
    Opaque,
    Opaque,
    Opaque,
    Opaque,
    Opaque,
    Opaque,
    Opaque,
    c_int,
    *mut Heuristic,
    *mut c_int,
) -> c_int;
/// `(handle, operation, alpha, a, a_layout, b, b_layout, beta, c, c_layout, d, d_layout, algorithm, workspace, bytes, stream)`
type Matmul = unsafe extern "C" fn(
    Opaque,
    Opaque,
    *const c_void,
    *const c_void,
    Opaque,
    *const c_void,
    Opaque,
    *const c_void,
    *const c_void,
    Opaque,
    *mut c_void,
    Opaque,
    *const Algorithm,
    *mut c_void,
    usize,
    *mut c_void,
) -> c_int;

/// `cublasLtMatmulAlgo_t`
type Algorithm = [u64; 8];

/// `cublasLtMatmulHeuristicResult_t`
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Heuristic {
    algorithm: Algorithm,
    workspace_bytes: usize,
    state: c_int,
    waves: f32,
    reserved: [c_int; 4],
}

// cublas_api.h and cublasLt.h.
const COMPUTE_32I: c_int = 72;
const DESC_TRANSA: c_int = 3;
const DESC_TRANSB: c_int = 4;
const PREF_MAX_WORKSPACE_BYTES: c_int = 1;
const NOT_SUPPORTED: c_int = 15;

/// The functions that are called.
struct Functions {
    matmul: Matmul,
    get_heuristic: GetHeuristic,
    desc_create: DescCreate,
    desc_set: SetAttribute,
    desc_destroy: Destroy,
    layout_create: LayoutCreate,
    layout_destroy: Destroy,
    preference_create: Create,
    preference_set: SetAttribute,
    preference_destroy: Destroy,
    _library: Symbols,
}

/// cuBLASLt, open, with a handle for one device.
pub struct Lt {
    functions: Rc<Functions>,
    handle: Opaque,
    destroy: Destroy,
    version: usize,
    workspace: Buffer<u8>,
}

/// A descriptor, destroyed when it goes.
struct Descriptor {
    raw: Opaque,
    destroy: Destroy,
    /// Keeps the library open.
    _functions: Rc<Functions>,
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        // SAFETY: made by this library, and not destroyed before.
        unsafe { (self.destroy)(self.raw) };
    }
}

/// Descriptors of a shape's matrices, and the algorithm that cuBLASLt's heuristic puts first.
pub struct Plan {
    operation: Descriptor,
    weights: Descriptor,
    input: Descriptor,
    output: Descriptor,
    algorithm: Algorithm,
}

impl Lt {
    fn descriptor(
        &self,
        call: &'static str,
        destroy: Destroy,
        create: impl FnOnce(*mut Opaque) -> c_int,
    ) -> Result<Descriptor, ForeignError> {
        let mut raw = std::ptr::null_mut();
        check(call, create(&mut raw))?;
        Ok(Descriptor {
            raw,
            destroy,
            _functions: Rc::clone(&self.functions),
        })
    }

    fn layout(&self, of: c_int, rows: usize, columns: usize) -> Result<Descriptor, ForeignError> {
        let Functions {
            layout_create,
            layout_destroy,
            ..
        } = *self.functions;
        let (rows, columns) = (rows as u64, columns as u64);
        // Column-major without padding.
        let create = |raw: *mut Opaque| {
            // SAFETY: a pointer that is valid for the write.
            unsafe { layout_create(raw, of, rows, columns, rows as i64) }
        };
        self.descriptor("cublasLtMatrixLayoutCreate", layout_destroy, create)
    }

    fn find(&self, GemmShape { m, n, k }: GemmShape) -> Result<Plan, ForeignError> {
        let functions = &*self.functions;
        let create = |raw: *mut Opaque| {
            // SAFETY: as for layouts.
            unsafe { (functions.desc_create)(raw, COMPUTE_32I, R_32I) }
        };
        let destroy = functions.desc_destroy;
        let operation = self.descriptor("cublasLtMatmulDescCreate", destroy, create)?;
        for (attribute, value) in [(DESC_TRANSA, OP_T), (DESC_TRANSB, OP_N)] {
            let value = (&raw const value).cast();
            // SAFETY: a live descriptor, and a value of the attribute's type, an int32.
            let status = unsafe {
                (functions.desc_set)(operation.raw, attribute, value, size_of::<c_int>())
            };
            check("cublasLtMatmulDescSetAttribute", status)?;
        }
        let create = |raw: *mut Opaque| {
            // SAFETY: as for layouts.
            unsafe { (functions.preference_create)(raw) }
        };
        let destroy = functions.preference_destroy;
        let preference = self.descriptor("cublasLtMatmulPreferenceCreate", destroy, create)?;
        let most = WORKSPACE_BYTES as u64;
        // SAFETY: a live descriptor, and a value of the attribute's type, an uint64.
        let status = unsafe {
            let most = (&raw const most).cast();
            let attribute = PREF_MAX_WORKSPACE_BYTES;
            (functions.preference_set)(preference.raw, attribute, most, size_of::<u64>())
        };
        check("cublasLtMatmulPreferenceSetAttribute", status)?;
        let (weights, input) = (self.layout(R_8I, k, n)?, self.layout(R_8I, k, m)?);
        let output = self.layout(R_32I, n, m)?;
        let (mut best, mut returned) = (Heuristic::default(), 0);
        // SAFETY: a live handle and live descriptors, and room for the one result that is asked for.
        let status = unsafe {
            (functions.get_heuristic)(
                self.handle,
                operation.raw,
                weights.raw,
                input.raw,
                output.raw,
                output.raw,
                preference.raw,
                1,
                &mut best,
                &mut returned,
            )
        };
        check("cublasLtMatmulAlgoGetHeuristic", status)?;
        if returned == 0 {
            check("cublasLtMatmulAlgoGetHeuristic", NOT_SUPPORTED)?;
        }
        check("cublasLtMatmulAlgoGetHeuristic", best.state)?;
        Ok(Plan {
            operation,
            weights,
            input,
            output,
            algorithm: best.algorithm,
        })
    }
}

impl Gemm for Lt {
    type Input = i8;
    type Output = i32;
    type Plan = Plan;
    const NAME: &'static str = "cublaslt int8";
    /// cuBLASLt takes int8 matrices whose sizes are multiples of 4.
    const TOKENS: usize = 4;
    const EXACT: bool = true;

    fn open(device: &Device, stream: &Stream) -> Result<Self> {
        let library = library::open(LIBRARIES)?;
        // SAFETY: the functions of cuBLASLt's public interface have these types in all versions from 11 to 13.
        let (create, destroy, version, functions) = unsafe {
            (
                library.function::<Create>("cublasLtCreate")?,
                library.function::<Destroy>("cublasLtDestroy")?,
                library.function::<GetVersion>("cublasLtGetVersion")?,
                Functions {
                    matmul: library.function("cublasLtMatmul")?,
                    get_heuristic: library.function("cublasLtMatmulAlgoGetHeuristic")?,
                    desc_create: library.function("cublasLtMatmulDescCreate")?,
                    desc_set: library.function("cublasLtMatmulDescSetAttribute")?,
                    desc_destroy: library.function("cublasLtMatmulDescDestroy")?,
                    layout_create: library.function("cublasLtMatrixLayoutCreate")?,
                    layout_destroy: library.function("cublasLtMatrixLayoutDestroy")?,
                    preference_create: library.function("cublasLtMatmulPreferenceCreate")?,
                    preference_set: library.function("cublasLtMatmulPreferenceSetAttribute")?,
                    preference_destroy: library.function("cublasLtMatmulPreferenceDestroy")?,
                    _library: library,
                },
            )
        };
        let mut lt = Self {
            functions: Rc::new(functions),
            handle: std::ptr::null_mut(),
            destroy,
            // SAFETY: takes nothing.
            version: unsafe { version() },
            workspace: Buffer::uninit(device, WORKSPACE_BYTES)?,
        };
        let setup = |_: *mut c_void| {
            // SAFETY: the context is current, and the pointer is valid for the write.
            check("cublasLtCreate", unsafe { create(&mut lt.handle) })
        };
        // SAFETY: nothing is submitted.
        unsafe { stream.submit_foreign("cublasLtCreate", &[], setup) }?;
        Ok(lt)
    }

    fn version(&self) -> String {
        library::version(self.version)
    }

    fn plan(&self, stream: &Stream, shape: GemmShape) -> Result<Plan> {
        let plan = Cell::new(None);
        let find = |_: *mut c_void| self.find(shape).map(|found| plan.set(Some(found)));
        // SAFETY: nothing is submitted; the heuristic wants the context current.
        unsafe { stream.submit_foreign("cublasLtMatmulAlgoGetHeuristic", &[], find) }?;
        Ok(plan.take().expect("set where there was no error"))
    }

    fn workspace(&self) -> &Buffer<u8> {
        &self.workspace
    }

    unsafe fn submit(
        &self,
        plan: &Plan,
        stream: *mut c_void,
        operands: Operands,
        _: GemmShape,
    ) -> Result<(), ForeignError> {
        let (one, zero) = (1_i32, 0_i32);
        let output = operands.output as *mut c_void;
        // SAFETY: a live handle, descriptors and pointers of matching shapes, and host pointers to a one and a zero of the
        // scale's type, read before it returns.
        let status = unsafe {
            (self.functions.matmul)(
                self.handle,
                plan.operation.raw,
                (&raw const one).cast(),
                operands.weights as *const c_void,
                plan.weights.raw,
                operands.input as *const c_void,
                plan.input.raw,
                (&raw const zero).cast(),
                output,
                plan.output.raw,
                output,
                plan.output.raw,
                &plan.algorithm,
                self.workspace.device_ptr() as *mut c_void,
                WORKSPACE_BYTES,
                stream,
            )
        };
        check("cublasLtMatmul", status)
    }

    fn input(value: i8) -> i8 {
        value
    }

    fn output(value: i32) -> f32 {
        value as f32
    }
}

impl Drop for Lt {
    fn drop(&mut self) {
        if !self.handle.is_null() {
            // SAFETY: as for cuBLAS's handle.
            unsafe { (self.destroy)(self.handle) };
        }
    }
}
