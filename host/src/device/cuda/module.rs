use std::{
    ffi::{CString, c_int, c_void},
    ptr,
};

use cust::sys::CUfunction;
use cust_lazy::ffi;

use super::{
    super::driver::{DriverError, FunctionInfo, RawFunction, RawModule},
    CudaDriver, INVALID_VALUE, NOT_FOUND,
};

/// Bytes for the compiler's messages.
const LOG_BYTES: usize = 16 << 10;

const UNSUPPORTED_PTX_VERSION: c_int = 222;

const JIT_ERROR_LOG_BUFFER: c_int = 5;
const JIT_ERROR_LOG_BUFFER_SIZE_BYTES: c_int = 6;

const FUNCTION_MAX_THREADS_PER_BLOCK: c_int = 0;
const FUNCTION_SHARED_SIZE_BYTES: c_int = 1;

/// Compiles PTX for the device.
pub(super) fn load(driver: &CudaDriver, ptx: &str) -> Result<RawModule, DriverError> {
    // The driver tells a cubin, a fat binary and PTX apart by how they begin, and says nothing of what it does with an empty image.
    if ptx.trim_ascii().is_empty() {
        return Err(DriverError::InvalidPtx {
            log: "the text is empty".to_owned(),
        });
    }
    let image = CString::new(ptx).map_err(|error| DriverError::InvalidPtx {
        log: format!("byte {} is NUL", error.nul_position()),
    })?;
    let mut log = vec![0_u8; LOG_BYTES];
    let mut names = [JIT_ERROR_LOG_BUFFER, JIT_ERROR_LOG_BUFFER_SIZE_BYTES];
    // The driver replaces the size by the length of what it wrote.
    let mut values = [
        log.as_mut_ptr().cast(),
        ptr::without_provenance_mut::<c_void>(LOG_BYTES),
    ];
    let mut module = ptr::null_mut();
    let loaded = driver.call("cuModuleLoadDataEx", || {
        // SAFETY: the image is a C string; names and values are two options, of which the log is as long as its
        // size says; `module` is valid for the write.
        unsafe {
            ffi::cuModuleLoadDataEx(
                &mut module,
                image.as_ptr().cast(),
                2,
                names.as_mut_ptr(),
                values.as_mut_ptr(),
            )
        }
    });
    match loaded {
        Ok(()) => Ok(RawModule(module as u64)),
        // CUDA_ERROR_INVALID_IMAGE, NO_BINARY_FOR_GPU, INVALID_PTX, UNSUPPORTED_PTX_VERSION, INVALID_SOURCE
        Err(DriverError::Code {
            code: code @ (200 | 209 | 218 | UNSUPPORTED_PTX_VERSION | 300),
            name,
            ..
        }) => {
            let end = log.iter().position(|&byte| byte == 0).unwrap_or(log.len());
            let log = String::from_utf8_lossy(&log[..end]);
            let remedy = match code {
                UNSUPPORTED_PTX_VERSION => "; the driver is too old for it, install a newer one",
                _ => "",
            };
            Err(DriverError::InvalidPtx {
                log: format!("{name}: {}{remedy}", log.trim()),
            })
        }
        Err(error) => Err(error),
    }
}

/// Looks up a kernel.
///
/// # Safety
///
/// `module` is loaded.
pub(super) unsafe fn function(
    driver: &CudaDriver,
    module: RawModule,
    kernel: &str,
    ptx: &str,
) -> Result<FunctionInfo, DriverError> {
    let no_such_kernel = || DriverError::NoSuchKernel {
        kernel: kernel.to_owned(),
    };
    let name = CString::new(kernel).ok().filter(|name| !name.is_empty());
    let name = name.ok_or_else(no_such_kernel)?;
    let mut function = ptr::null_mut();
    let found = driver.call("cuModuleGetFunction", || {
        // SAFETY: the caller passes a loaded module; the name is a C string and `function` valid for the write.
        unsafe { ffi::cuModuleGetFunction(&mut function, module.0 as _, name.as_ptr()) }
    });
    match found {
        Err(DriverError::Code {
            code: NOT_FOUND, ..
        }) => return Err(no_such_kernel()),
        found => found?,
    }
    Ok(FunctionInfo {
        raw: RawFunction(function as u64),
        parameter_sizes: parameter_sizes(driver, function, kernel, ptx)?,
        max_threads: attribute(driver, function, FUNCTION_MAX_THREADS_PER_BLOCK)?,
        static_shared: attribute(driver, function, FUNCTION_SHARED_SIZE_BYTES)?,
        waits: waits_for_grid(kernel, ptx),
    })
}

fn attribute(
    driver: &CudaDriver,
    function: CUfunction,
    attribute: c_int,
) -> Result<u32, DriverError> {
    let mut value = 0;
    driver.call("cuFuncGetAttribute", || {
        // SAFETY: the function was just looked up, and `value` is valid for the write.
        unsafe { ffi::cuFuncGetAttribute(&mut value, attribute, function) }
    })?;
    Ok(value.unsigned_abs())
}

/// Asks the driver for the sizes of the kernel's parameters, or where it is too old to tell, the PTX.
fn parameter_sizes(
    driver: &CudaDriver,
    function: CUfunction,
    kernel: &str,
    ptx: &str,
) -> Result<Vec<usize>, DriverError> {
    let mut sizes = Vec::new();
    loop {
        let (mut offset, mut size) = (0, 0);
        let result = driver.call("cuFuncGetParamInfo", || {
            // SAFETY: the function was just looked up; offset and size are valid for the write.
            unsafe { ffi::cuFuncGetParamInfo(function, sizes.len(), &mut offset, &mut size) }
        });
        match result {
            Ok(()) => sizes.push(size),
            // The index is beyond the last parameter.
            Err(DriverError::Code {
                code: INVALID_VALUE,
                ..
            }) => return Ok(sizes),
            Err(DriverError::Code {
                code: NOT_FOUND, ..
            }) => return sizes_from_ptx(kernel, ptx),
            Err(error) => return Err(error),
        }
    }
}

fn sizes_from_ptx(kernel: &str, ptx: &str) -> Result<Vec<usize>, DriverError> {
    let unknown = |reason| DriverError::UnknownParameters {
        kernel: kernel.to_owned(),
        reason,
    };
    let module = ptx_emulator::Module::parse(ptx).map_err(|error| unknown(error.to_string()))?;
    let entry = module.entry(kernel);
    let entry = entry.ok_or_else(|| unknown("it declares no such entry".to_owned()))?;
    Ok(entry
        .params
        .iter()
        .map(|parameter| parameter.size)
        .collect())
}

/// Whether the kernel's body has `griddepcontrol.wait`. A body that is not found, and what a called function does, count as no: the kernel is
/// then launched after the grid in front, which is always right.
fn waits_for_grid(kernel: &str, ptx: &str) -> bool {
    let mut entries = ptx.split(".entry").skip(1);
    let body = entries.find_map(|entry| {
        entry
            .trim_start()
            .strip_prefix(kernel)?
            .trim_start()
            .strip_prefix('(')
    });
    let Some(body) = body.and_then(|entry| entry.split_once('{')) else {
        return false;
    };
    let mut depth = 1_u32;
    let end = body.1.char_indices().find(|&(_, c)| {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        depth == 0
    });
    end.is_some_and(|(end, _)| body.1[..end].contains("griddepcontrol.wait"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_kernel_that_waits_is_said_to() {
        let ptx = "
            .visible .entry before(.param .u64 p) { { griddepcontrol.launch_dependents; } ret; }
            .func helper() { griddepcontrol.wait; ret; }
            .visible .entry waits_not () { ret; }
            .visible .entry  waits
            () .maxntid 32 { { mov.u32 a, {b, c}; } griddepcontrol.wait; }
            .visible .entry open() { griddepcontrol.wait;";
        let found = ["before", "waits_not", "waits", "open", "wait", "none"]
            .map(|kernel| waits_for_grid(kernel, ptx));
        assert_eq!(found, [false, false, true, false, false, false]);
    }
}
