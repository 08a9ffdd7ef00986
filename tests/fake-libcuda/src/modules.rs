//! Modules, functions and launches.

use std::{
    ffi::{CStr, c_char, c_int, c_uint, c_void},
    ptr,
    sync::Arc,
};

use ptx_emulator::{EntryInfo, LaunchConfig};

use crate::{
    context::{Context, Function, Module, Work},
    driver::with_context,
    status::{
        COOPERATIVE_LAUNCH_TOO_LARGE, INVALID_HANDLE, INVALID_PTX, INVALID_VALUE,
        LAUNCH_OUT_OF_RESOURCES, NO_BINARY_FOR_GPU, NOT_FOUND, UNSUPPORTED_PTX_VERSION,
    },
};

/// The newest PTX ISA of a driver of this version: a newer `.version` is refused, whatever the text makes of it.
const PTX_ISA: (u32, u32) = (8, 4);
/// Shared memory of a function, its own included, before it opts in to more.
const DEFAULT_SHARED: u32 = 48 << 10;
const MOST_SHARED: u32 = 227 << 10;
const MOST_THREADS: u32 = 1024;
const MOST_BLOCK: [u32; 3] = [1024, 1024, 64];
const MOST_GRID: [u32; 3] = [i32::MAX as u32, 65_535, 65_535];
/// Blocks that a cooperative launch may have, at one a multiprocessor.
const MOST_RESIDENT: u64 = 132;

const JIT_ERROR_LOG_BUFFER: c_int = 5;
const JIT_ERROR_LOG_BUFFER_SIZE_BYTES: c_int = 6;

#[unsafe(no_mangle)]
unsafe extern "C" fn cuModuleLoadDataEx(
    module: *mut *mut c_void,
    image: *const c_void,
    options: c_uint,
    names: *const c_int,
    values: *mut *mut c_void,
) -> c_int {
    with_context("cuModuleLoadDataEx", |context| {
        context.refuse_unsafe_call()?;
        // SAFETY: PTX is passed as a C string.
        let ptx = unsafe { CStr::from_ptr(image.cast()) }.to_string_lossy();
        match load(context, &ptx) {
            Ok(handle) => {
                // SAFETY: the caller passes a pointer that is valid for the write.
                unsafe { module.write(ptr::without_provenance_mut(handle)) };
                Ok(())
            }
            Err((code, message)) => {
                // SAFETY: the caller passes arrays of `options` names and values.
                unsafe { write_log(options as usize, names, values, &message) };
                Err(code)
            }
        }
    })
}

fn load(context: &mut Context, ptx: &str) -> Result<usize, (c_int, String)> {
    let parsed = ptx_emulator::Module::parse(ptx)
        .map_err(|error| (INVALID_PTX, format!("ptxas fatal   : {error}")))?;
    if parsed.ptx_version() > PTX_ISA {
        let (major, minor) = parsed.ptx_version();
        return Err((
            UNSUPPORTED_PTX_VERSION,
            format!("ptxas fatal   : Unsupported .version {major}.{minor}"),
        ));
    }
    let parsed = Arc::new(parsed);
    let loaded = context
        .emulator
        .load(&parsed)
        .map_err(|error| (NO_BINARY_FOR_GPU, format!("ptxas fatal   : {error}")))?;
    let handle = context.new_handle();
    context.modules.insert(
        handle,
        Module {
            parsed,
            loaded: Arc::new(loaded),
        },
    );
    Ok(handle)
}

/// # Safety
///
/// `names` and `values` are arrays of `options` elements; a log buffer among them is as long as its size says.
unsafe fn write_log(options: usize, names: *const c_int, values: *mut *mut c_void, message: &str) {
    let mut buffer = None;
    let mut size = None;
    for index in 0..options {
        // SAFETY: the arrays have that many elements.
        let (name, value) = unsafe { (names.add(index).read(), values.add(index)) };
        match name {
            // SAFETY: as above.
            JIT_ERROR_LOG_BUFFER => buffer = Some(unsafe { value.read() }),
            JIT_ERROR_LOG_BUFFER_SIZE_BYTES => size = Some(value),
            _ => {}
        }
    }
    let (Some(buffer), Some(size)) = (buffer, size) else {
        return;
    };
    // SAFETY: as above.
    let room = unsafe { size.read() }.addr();
    let len = message.len().min(room.saturating_sub(1));
    // SAFETY: the buffer has room for that many bytes and a NUL, and the size is replaced by what was written.
    unsafe {
        buffer
            .cast::<u8>()
            .copy_from_nonoverlapping(message.as_ptr(), len);
        buffer.cast::<u8>().add(len).write(0);
        size.write(ptr::without_provenance_mut(len + 1));
    }
}

#[unsafe(no_mangle)]
extern "C" fn cuModuleUnload(module: *mut c_void) -> c_int {
    with_context("cuModuleUnload", |context| {
        context.refuse_unsafe_call()?;
        context
            .modules
            .remove(&module.addr())
            .ok_or(INVALID_HANDLE)?;
        context
            .functions
            .retain(|_, function| function.module != module.addr());
        Ok(())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuModuleGetFunction(
    function: *mut *mut c_void,
    module: *mut c_void,
    name: *const c_char,
) -> c_int {
    with_context("cuModuleGetFunction", |context| {
        // SAFETY: the caller passes a C string.
        let name = unsafe { CStr::from_ptr(name) }
            .to_string_lossy()
            .into_owned();
        let parsed = &context
            .modules
            .get(&module.addr())
            .ok_or(INVALID_HANDLE)?
            .parsed;
        let entry = parsed.entry(&name).ok_or(NOT_FOUND)?;
        let max_dynamic_shared = DEFAULT_SHARED.saturating_sub(entry.static_shared as u32);
        let handle = context.new_handle();
        let new = Function {
            module: module.addr(),
            name,
            max_dynamic_shared,
        };
        context.functions.insert(handle, new);
        // SAFETY: the caller passes a pointer that is valid for the write.
        unsafe { function.write(ptr::without_provenance_mut(handle)) };
        Ok(())
    })
}

/// The function's state, and what its PTX says.
fn entry(context: &Context, function: *mut c_void) -> Result<(&Function, &EntryInfo), c_int> {
    let function = context
        .functions
        .get(&function.addr())
        .ok_or(INVALID_HANDLE)?;
    let parsed = &context
        .modules
        .get(&function.module)
        .ok_or(INVALID_HANDLE)?
        .parsed;
    let entry = parsed.entry(&function.name);
    Ok((function, entry.ok_or(INVALID_HANDLE)?))
}

fn max_threads(entry: &EntryInfo) -> u32 {
    entry
        .max_threads
        .map_or(MOST_THREADS, |[x, y, z]| x * y * z)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuFuncGetAttribute(
    value: *mut c_int,
    attribute: c_int,
    function: *mut c_void,
) -> c_int {
    with_context("cuFuncGetAttribute", |context| {
        let (function, entry) = entry(context, function)?;
        let answer = match attribute {
            0 => max_threads(entry),
            1 => entry.static_shared as u32,
            8 => function.max_dynamic_shared,
            _ => return Err(INVALID_VALUE),
        };
        // SAFETY: the caller passes a pointer that is valid for the write.
        unsafe { value.write(answer as c_int) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuFuncSetAttribute(function: *mut c_void, attribute: c_int, value: c_int) -> c_int {
    with_context("cuFuncSetAttribute", |context| {
        let (_, entry) = entry(context, function)?;
        let most = MOST_SHARED - entry.static_shared as u32;
        let value = u32::try_from(value)
            .ok()
            .filter(|&value| attribute == 8 && value <= most);
        let value = value.ok_or(INVALID_VALUE)?;
        let function = context
            .functions
            .get_mut(&function.addr())
            .ok_or(INVALID_HANDLE)?;
        function.max_dynamic_shared = value;
        Ok(())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuFuncGetParamInfo(
    function: *mut c_void,
    index: usize,
    offset: *mut usize,
    size: *mut usize,
) -> c_int {
    with_context("cuFuncGetParamInfo", |context| {
        let (_, entry) = entry(context, function)?;
        let parameter = entry.params.get(index).ok_or(INVALID_VALUE)?;
        let before = entry.params[..=index]
            .iter()
            .fold(0, |end: usize, parameter| {
                end.next_multiple_of(parameter.align) + parameter.size
            });
        // SAFETY: the caller passes pointers that are valid for the write.
        unsafe {
            offset.write(before - parameter.size);
            size.write(parameter.size);
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuLaunchKernel(
    function: *mut c_void,
    grid_x: c_uint,
    grid_y: c_uint,
    grid_z: c_uint,
    block_x: c_uint,
    block_y: c_uint,
    block_z: c_uint,
    dynamic_shared: c_uint,
    stream: *mut c_void,
    parameters: *const *const c_void,
    extra: *mut *mut c_void,
) -> c_int {
    with_context("cuLaunchKernel", |context| {
        if !extra.is_null() {
            return Err(INVALID_VALUE);
        }
        let config = LaunchConfig {
            grid: [grid_x, grid_y, grid_z],
            block: [block_x, block_y, block_z],
            dynamic_shared,
            cooperative: false,
        };
        // SAFETY: the caller passes a pointer for each parameter.
        unsafe { launch(context, function, config, false, stream, parameters) }
    })
}

/// `CUlaunchConfig`.
#[repr(C)]
struct ExtendedConfig {
    grid: [c_uint; 3],
    block: [c_uint; 3],
    dynamic_shared: c_uint,
    stream: *mut c_void,
    attributes: *const Attribute,
    count: c_uint,
}

/// `CUlaunchAttribute`, whose value is a union of 64 bytes.
#[repr(C)]
struct Attribute {
    id: c_int,
    _padding: [u8; 4],
    value: [u64; 8],
}

const PROGRAMMATIC_STREAM_SERIALIZATION: c_int = 6;

/// Takes programmatic launches only, of kernels that wait. They run in order here, as a GPU may do it, too.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuLaunchKernelEx(
    extended: *const ExtendedConfig,
    function: *mut c_void,
    parameters: *const *const c_void,
    extra: *mut *mut c_void,
) -> c_int {
    with_context("cuLaunchKernelEx", |context| {
        // SAFETY: the caller passes a configuration.
        let extended = unsafe { &*extended };
        if !extra.is_null() || extended.count != 1 {
            return Err(INVALID_VALUE);
        }
        // SAFETY: the configuration has one attribute.
        let attribute = unsafe { &*extended.attributes };
        // The value is an `int`; a driver does not look at what is behind it.
        if attribute.id != PROGRAMMATIC_STREAM_SERIALIZATION || attribute.value[0] as u32 != 1 {
            return Err(INVALID_VALUE);
        }
        let config = LaunchConfig {
            grid: extended.grid,
            block: extended.block,
            dynamic_shared: extended.dynamic_shared,
            cooperative: false,
        };
        // SAFETY: the caller passes a pointer for each parameter.
        unsafe { launch(context, function, config, true, extended.stream, parameters) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuLaunchCooperativeKernel(
    function: *mut c_void,
    grid_x: c_uint,
    grid_y: c_uint,
    grid_z: c_uint,
    block_x: c_uint,
    block_y: c_uint,
    block_z: c_uint,
    dynamic_shared: c_uint,
    stream: *mut c_void,
    parameters: *const *const c_void,
) -> c_int {
    with_context("cuLaunchCooperativeKernel", |context| {
        let config = LaunchConfig {
            grid: [grid_x, grid_y, grid_z],
            block: [block_x, block_y, block_z],
            dynamic_shared,
            cooperative: true,
        };
        let blocks: u64 = config.grid.iter().map(|&size| u64::from(size)).product();
        if blocks > MOST_RESIDENT {
            return Err(COOPERATIVE_LAUNCH_TOO_LARGE);
        }
        // SAFETY: the caller passes a pointer for each parameter.
        unsafe { launch(context, function, config, false, stream, parameters) }
    })
}

/// # Safety
///
/// `parameters` has a pointer for each parameter, valid for as many bytes as that has.
unsafe fn launch(
    context: &mut Context,
    function: *mut c_void,
    config: LaunchConfig,
    programmatic: bool,
    stream: *mut c_void,
    parameters: *const *const c_void,
) -> Result<(), c_int> {
    let (state, entry) = entry(context, function)?;
    let mut sizes = config.grid.iter().chain(&config.block);
    let mut limits = MOST_GRID.iter().chain(&MOST_BLOCK);
    if !sizes.all(|&size| size > 0 && limits.next().is_some_and(|&most| size <= most))
        || config.dynamic_shared > state.max_dynamic_shared
    {
        return Err(INVALID_VALUE);
    }
    if config.block.iter().product::<u32>() > max_threads(entry) {
        return Err(LAUNCH_OUT_OF_RESOURCES);
    }
    let arguments = entry.params.iter().enumerate().map(|(index, parameter)| {
        // SAFETY: the caller says so.
        unsafe {
            let value = parameters.add(index).read().cast::<u8>();
            std::slice::from_raw_parts(value, parameter.size).to_vec()
        }
    });
    let arguments = arguments.collect();
    let work = Work::Launch {
        function: function.addr(),
        config,
        programmatic,
        arguments,
    };
    context.submit(stream, work).map(drop)
}
