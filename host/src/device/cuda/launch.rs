use std::{
    ffi::{c_int, c_void},
    ptr,
    sync::Once,
};

use cust::sys::{CUfunction, CUstream};
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
    let pointers = parameters
        .iter()
        .map(|parameter| parameter.bytes.as_ptr().cast_mut().cast())
        .collect();
    let mut submission = Submission {
        driver,
        stream: stream(raw),
        function: function.raw.0 as CUfunction,
        config,
        parameters: pointers,
    };
    // SAFETY: the caller's contract.
    let launched = unsafe {
        submission.opt_in_to_shared(function.static_shared)?;
        if config.cooperative {
            submission.cooperative()
        } else if early {
            submission.early()
        } else {
            submission.in_turn()
        }
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

/// What the driver's functions need for a launch.
///
/// # Safety
///
/// Of all methods: stream and function are live, and there is one pointer for each of the function's parameters, to as many bytes as it
/// takes. The driver copies them during the call.
struct Submission<'a> {
    driver: &'a CudaDriver,
    stream: CUstream,
    function: CUfunction,
    config: &'a LaunchConfig,
    parameters: Vec<*mut c_void>,
}

impl Submission<'_> {
    /// Allows the function as much dynamic shared memory as the device has, where this launch needs more than the default limit.
    unsafe fn opt_in_to_shared(&self, static_shared: u32) -> Result<(), DriverError> {
        let capabilities = &self.driver.capabilities;
        if static_shared + self.config.dynamic_shared <= capabilities.shared_bytes_per_block {
            return Ok(());
        }
        // The same value whatever this launch needs, so that threads which launch the same kernel do not
        // take it from each other.
        let most = (capabilities.shared_bytes_per_block_optin - static_shared) as c_int;
        self.driver.call("cuFuncSetAttribute", || {
            // SAFETY: the struct's contract.
            unsafe { ffi::cuFuncSetAttribute(self.function, FUNCTION_MAX_DYNAMIC_SHARED, most) }
        })
    }

    /// Launches the kernel after all that was submitted before it.
    unsafe fn in_turn(&mut self) -> Result<(), DriverError> {
        let [grid_x, grid_y, grid_z] = self.config.grid;
        let [block_x, block_y, block_z] = self.config.block;
        self.driver.call("cuLaunchKernel", || {
            // SAFETY: the struct's contract.
            unsafe {
                ffi::cuLaunchKernel(
                    self.function,
                    grid_x,
                    grid_y,
                    grid_z,
                    block_x,
                    block_y,
                    block_z,
                    self.config.dynamic_shared,
                    self.stream,
                    self.parameters.as_mut_ptr(),
                    ptr::null_mut(),
                )
            }
        })
    }

    /// As [`Submission::in_turn`], with all blocks running at once.
    unsafe fn cooperative(&mut self) -> Result<(), DriverError> {
        let [grid_x, grid_y, grid_z] = self.config.grid;
        let [block_x, block_y, block_z] = self.config.block;
        self.driver.call("cuLaunchCooperativeKernel", || {
            // SAFETY: the struct's contract.
            unsafe {
                ffi::cuLaunchCooperativeKernel(
                    self.function,
                    grid_x,
                    grid_y,
                    grid_z,
                    block_x,
                    block_y,
                    block_z,
                    self.config.dynamic_shared,
                    self.stream,
                    self.parameters.as_mut_ptr(),
                )
            }
        })
    }

    /// Launches the kernel before the preceding one has finished, for which it waits itself; in turn where the driver refuses that.
    unsafe fn early(&mut self) -> Result<(), DriverError> {
        let [grid_x, grid_y, grid_z] = self.config.grid;
        let [block_x, block_y, block_z] = self.config.block;
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
            sharedMemBytes: self.config.dynamic_shared,
            hStream: self.stream,
            attrs: &mut attribute,
            numAttrs: 1,
        };
        let launched = self.driver.call("cuLaunchKernelEx", || {
            let parameters = self.parameters.as_mut_ptr();
            // SAFETY: the struct's contract; `launch` and its attribute are read during the call.
            unsafe { ffi::cuLaunchKernelEx(&launch, self.function, parameters, ptr::null_mut()) }
        });
        match launched {
            // It may be the attribute, which some drivers have refused in captures: without it the launch does the same, only later.
            Err(DriverError::Code {
                code: INVALID_VALUE | INVALID_HANDLE | NOT_SUPPORTED,
                name,
                ..
            }) => {
                // SAFETY: the struct's contract.
                unsafe { self.in_turn() }?;
                REFUSED.call_once(|| {
                    tracing::warn!(
                        name,
                        "the driver refuses programmatic launches; the kernels are launched in the ordinary way"
                    );
                });
                Ok(())
            }
            launched => launched,
        }
    }
}
