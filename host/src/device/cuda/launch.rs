use std::{
    ffi::{c_int, c_void},
    ptr,
    sync::Once,
};

use cust::sys::CUfunction;
use cust_lazy::ffi::{self, CUlaunchAttribute, CUlaunchConfig};

use super::{
    super::{
        driver::{DriverError, FunctionInfo, Parameter, RawStream},
        launch::LaunchConfig,
    },
    CudaDriver, INVALID_VALUE, NOT_SUPPORTED, stream,
};

const INVALID_HANDLE: c_int = 400;
const LAUNCH_OUT_OF_RESOURCES: c_int = 701;
const COOPERATIVE_LAUNCH_TOO_LARGE: c_int = 720;

const FUNCTION_MAX_DYNAMIC_SHARED: c_int = 8;

/// `CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION`: the kernel may start before the preceding one has finished.
const PROGRAMMATIC_STREAM_SERIALIZATION: c_int = 6;

/// Whether it was said that such launches are refused.
static REFUSED: Once = Once::new();

/// Submits a kernel.
///
/// # Safety
///
/// As for [`Driver::launch`](super::Driver::launch).
pub(super) unsafe fn submit(
    driver: &CudaDriver,
    raw: RawStream,
    kernel: &str,
    function: &FunctionInfo,
    config: &LaunchConfig,
    early: bool,
    parameters: &[Parameter],
) -> Result<(), DriverError> {
    let handle = function.raw.0 as CUfunction;
    if function.static_shared + config.dynamic_shared > driver.capabilities.shared_bytes_per_block {
        // The same value whatever this launch needs, so that threads which launch the same kernel do not
        // take it from each other.
        let most = driver.capabilities.shared_bytes_per_block_optin - function.static_shared;
        driver.call("cuFuncSetAttribute", || {
            // SAFETY: the function is live as long as its module.
            unsafe { ffi::cuFuncSetAttribute(handle, FUNCTION_MAX_DYNAMIC_SHARED, most as c_int) }
        })?;
    }

    let mut pointers: Vec<*mut c_void> = parameters
        .iter()
        .map(|parameter| parameter.bytes.as_ptr().cast_mut().cast())
        .collect();
    let pointers = pointers.as_mut_ptr();
    let [grid_x, grid_y, grid_z] = config.grid;
    let [block_x, block_y, block_z] = config.block;
    let shared = config.dynamic_shared;
    let in_turn = || {
        driver.call("cuLaunchKernel", || {
            // SAFETY: one pointer for each parameter, to as many bytes as the function takes; the driver copies
            // them during the call. The caller passes live handles.
            unsafe {
                ffi::cuLaunchKernel(
                    handle,
                    grid_x,
                    grid_y,
                    grid_z,
                    block_x,
                    block_y,
                    block_z,
                    shared,
                    stream(raw),
                    pointers,
                    ptr::null_mut(),
                )
            }
        })
    };
    let launched = if config.cooperative {
        driver.call("cuLaunchCooperativeKernel", || {
            // SAFETY: as above.
            unsafe {
                ffi::cuLaunchCooperativeKernel(
                    handle,
                    grid_x,
                    grid_y,
                    grid_z,
                    block_x,
                    block_y,
                    block_z,
                    shared,
                    stream(raw),
                    pointers,
                )
            }
        })
    } else if early {
        let mut attribute = CUlaunchAttribute {
            id: PROGRAMMATIC_STREAM_SERIALIZATION,
            pad: [0; 4],
            // An `int` in front, which on CUDA's little-endian hosts is the low half.
            value: [1, 0, 0, 0, 0, 0, 0, 0],
        };
        let launch = CUlaunchConfig {
            gridDimX: grid_x,
            gridDimY: grid_y,
            gridDimZ: grid_z,
            blockDimX: block_x,
            blockDimY: block_y,
            blockDimZ: block_z,
            sharedMemBytes: shared,
            hStream: stream(raw),
            attrs: &mut attribute,
            numAttrs: 1,
        };
        let launched = driver.call("cuLaunchKernelEx", || {
            // SAFETY: as above; `launch` and its attribute are read during the call. The kernel waits for the grid in front.
            unsafe { ffi::cuLaunchKernelEx(&launch, handle, pointers, ptr::null_mut()) }
        });
        match launched {
            // It may be the attribute, which some drivers have refused in captures: without it the launch does the same, only later.
            Err(DriverError::Code {
                code: INVALID_VALUE | INVALID_HANDLE | NOT_SUPPORTED,
                name,
                ..
            }) => {
                let launched = in_turn();
                if launched.is_ok() {
                    REFUSED.call_once(|| {
                        tracing::warn!(
                            name,
                            "the driver refuses programmatic launches; the kernels are launched in the ordinary way"
                        );
                    });
                }
                launched
            }
            launched => launched,
        }
    } else {
        in_turn()
    };
    launched.map_err(|error| match error {
        DriverError::Code {
            code: INVALID_VALUE | LAUNCH_OUT_OF_RESOURCES | COOPERATIVE_LAUNCH_TOO_LARGE,
            name,
            call,
        } => DriverError::LaunchRefused {
            kernel: kernel.to_owned(),
            reason: format!("{call} returned {name}"),
        },
        error => error,
    })
}
