//! A double of cuBLASLt for the test double of libcuda, compiled by the test beside this folder: its interface as
//! `cublasLt.h` declares it, for int8 products, computed on the host at the moment that they are submitted.

use std::ffi::{CString, c_char, c_int, c_void};

const SUCCESS: c_int = 0;
const INVALID_VALUE: c_int = 7;
const NOT_SUPPORTED: c_int = 15;

const CUDA_R_8I: c_int = 3;
const CUDA_R_32I: c_int = 10;
const CUBLAS_COMPUTE_32I: c_int = 72;
const CUBLAS_OP_N: c_int = 0;
const CUBLAS_OP_T: c_int = 1;
const WORKSPACE: u64 = 32 << 20;

#[derive(Default)]
struct Operation {
    transposed: [bool; 2],
}

struct Layout {
    of: c_int,
    rows: usize,
    columns: usize,
    leading: usize,
}

#[repr(C)]
struct Heuristic {
    algorithm: [u64; 8],
    workspace: usize,
    state: c_int,
    waves: f32,
    reserved: [c_int; 4],
}

unsafe extern "C" {
    fn dlopen(file: *const c_char, flags: c_int) -> *mut c_void;
    fn dlsym(library: *mut c_void, symbol: *const c_char) -> *mut c_void;
}

/// A function of the driver that the program runs on.
fn driver(symbol: &str) -> *mut c_void {
    const RTLD_NOW: c_int = 2;
    let path = CString::new(std::env::var("CUST_LAZY_LIBCUDA").unwrap()).unwrap();
    let symbol = CString::new(symbol).unwrap();
    unsafe { dlsym(dlopen(path.as_ptr(), RTLD_NOW), symbol.as_ptr()) }
}

/// Copies on a stream of its own, so that a capture of the program's stream does not see it.
fn copy(symbol: &str, first: u64, second: u64, bytes: usize) {
    type Create = unsafe extern "C" fn(*mut *mut c_void, c_int) -> c_int;
    type OfStream = unsafe extern "C" fn(*mut c_void) -> c_int;
    type Copy = unsafe extern "C" fn(u64, u64, usize, *mut c_void) -> c_int;
    let mut stream = std::ptr::null_mut();
    unsafe {
        let create: Create = std::mem::transmute(driver("cuStreamCreate"));
        let synchronize: OfStream = std::mem::transmute(driver("cuStreamSynchronize"));
        let destroy: OfStream = std::mem::transmute(driver("cuStreamDestroy_v2"));
        let copy: Copy = std::mem::transmute(driver(symbol));
        assert_eq!(create(&mut stream, 1), 0);
        assert_eq!(copy(first, second, bytes, stream), 0);
        assert_eq!(synchronize(stream), 0);
        assert_eq!(destroy(stream), 0);
    }
}

fn to_host<T: Copy + Default>(from: u64, len: usize) -> Vec<T> {
    let mut to = vec![T::default(); len];
    copy("cuMemcpyDtoHAsync_v2", to.as_mut_ptr() as u64, from, size_of_val(&to[..]));
    to
}

fn to_device<T>(to: u64, from: &[T]) {
    copy("cuMemcpyHtoDAsync_v2", to, from.as_ptr() as u64, size_of_val(from));
}

fn make<T>(to: *mut *mut c_void, value: T) -> c_int {
    unsafe { *to = Box::into_raw(Box::new(value)).cast() };
    SUCCESS
}

fn destroy<T>(raw: *mut c_void) -> c_int {
    drop(unsafe { Box::from_raw(raw.cast::<T>()) });
    SUCCESS
}

#[unsafe(no_mangle)]
extern "C" fn cublasLtCreate(handle: *mut *mut c_void) -> c_int {
    make(handle, 0_u8)
}

#[unsafe(no_mangle)]
extern "C" fn cublasLtDestroy(handle: *mut c_void) -> c_int {
    destroy::<u8>(handle)
}

#[unsafe(no_mangle)]
extern "C" fn cublasLtGetVersion() -> usize {
    130_001
}

#[unsafe(no_mangle)]
extern "C" fn cublasLtMatmulDescCreate(to: *mut *mut c_void, compute: c_int, scale: c_int) -> c_int {
    if (compute, scale) != (CUBLAS_COMPUTE_32I, CUDA_R_32I) {
        return NOT_SUPPORTED;
    }
    make(to, Operation::default())
}

#[unsafe(no_mangle)]
extern "C" fn cublasLtMatmulDescSetAttribute(
    operation: *mut c_void,
    attribute: c_int,
    value: *const c_void,
    bytes: usize,
) -> c_int {
    let operation = unsafe { &mut *operation.cast::<Operation>() };
    if bytes != 4 || !(3..=4).contains(&attribute) {
        return INVALID_VALUE;
    }
    operation.transposed[attribute as usize - 3] = match unsafe { *value.cast::<c_int>() } {
        CUBLAS_OP_N => false,
        CUBLAS_OP_T => true,
        _ => return INVALID_VALUE,
    };
    SUCCESS
}

#[unsafe(no_mangle)]
extern "C" fn cublasLtMatmulDescDestroy(operation: *mut c_void) -> c_int {
    destroy::<Operation>(operation)
}

#[unsafe(no_mangle)]
extern "C" fn cublasLtMatrixLayoutCreate(
    to: *mut *mut c_void,
    of: c_int,
    rows: u64,
    columns: u64,
    leading: i64,
) -> c_int {
    let [rows, columns, leading] = [rows as usize, columns as usize, leading as usize];
    make(to, Layout { of, rows, columns, leading })
}

#[unsafe(no_mangle)]
extern "C" fn cublasLtMatrixLayoutDestroy(layout: *mut c_void) -> c_int {
    destroy::<Layout>(layout)
}

#[unsafe(no_mangle)]
extern "C" fn cublasLtMatmulPreferenceCreate(to: *mut *mut c_void) -> c_int {
    make(to, 0_u64)
}

#[unsafe(no_mangle)]
extern "C" fn cublasLtMatmulPreferenceSetAttribute(
    preference: *mut c_void,
    attribute: c_int,
    value: *const c_void,
    bytes: usize,
) -> c_int {
    if (attribute, bytes) != (1, 8) {
        return INVALID_VALUE;
    }
    unsafe { *preference.cast::<u64>() = *value.cast::<u64>() };
    SUCCESS
}

#[unsafe(no_mangle)]
extern "C" fn cublasLtMatmulPreferenceDestroy(preference: *mut c_void) -> c_int {
    destroy::<u64>(preference)
}

#[unsafe(no_mangle)]
extern "C" fn cublasLtMatmulAlgoGetHeuristic(
    _handle: *mut c_void,
    _operation: *mut c_void,
    a: *mut c_void,
    b: *mut c_void,
    _c: *mut c_void,
    d: *mut c_void,
    preference: *mut c_void,
    requested: c_int,
    results: *mut Heuristic,
    returned: *mut c_int,
) -> c_int {
    let [a, b, d] = [a, b, d].map(|layout| unsafe { &*layout.cast::<Layout>() });
    let types = [a.of, b.of, d.of] == [CUDA_R_8I, CUDA_R_8I, CUDA_R_32I];
    let fits = [a, b].iter().all(|layout| layout.rows % 4 == 0 && layout.columns % 4 == 0);
    if !types || unsafe { *preference.cast::<u64>() } != WORKSPACE || requested < 1 {
        return INVALID_VALUE;
    }
    unsafe {
        *returned = c_int::from(fits);
        (*results).algorithm = [7; 8];
        (*results).state = SUCCESS;
    }
    SUCCESS
}

#[unsafe(no_mangle)]
extern "C" fn cublasLtMatmul(
    _handle: *mut c_void,
    operation: *mut c_void,
    alpha: *const i32,
    a: u64,
    a_layout: *mut c_void,
    b: u64,
    b_layout: *mut c_void,
    beta: *const i32,
    c: u64,
    _c_layout: *mut c_void,
    d: u64,
    d_layout: *mut c_void,
    algorithm: *const [u64; 8],
    _workspace: u64,
    workspace_bytes: usize,
    _stream: *mut c_void,
) -> c_int {
    let operation = unsafe { &*operation.cast::<Operation>() };
    let layouts = [a_layout, b_layout, d_layout];
    let [of_a, of_b, of_d] = layouts.map(|layout| unsafe { &*layout.cast::<Layout>() });
    let factors = unsafe { (*alpha, *beta) };
    if factors != (1, 0) || c != d || unsafe { *algorithm } != [7; 8] {
        return INVALID_VALUE;
    }
    if workspace_bytes as u64 != WORKSPACE {
        return INVALID_VALUE;
    }
    let (left, right) = (
        to_host::<i8>(a, of_a.leading * of_a.columns),
        to_host::<i8>(b, of_b.leading * of_b.columns),
    );
    let at = |values: &[i8], of: &Layout, transposed: bool, row: usize, column: usize| {
        let (row, column) = if transposed { (column, row) } else { (row, column) };
        assert!(row < of.rows && column < of.columns);
        i32::from(values[column * of.leading + row])
    };
    let depth = if operation.transposed[0] { of_a.rows } else { of_a.columns };
    let mut product = vec![0; of_d.leading * of_d.columns];
    for column in 0..of_d.columns {
        for row in 0..of_d.rows {
            product[column * of_d.leading + row] = (0..depth)
                .map(|i| {
                    at(&left, of_a, operation.transposed[0], row, i)
                        * at(&right, of_b, operation.transposed[1], i, column)
                })
                .sum::<i32>();
        }
    }
    to_device(d, &product);
    SUCCESS
}
