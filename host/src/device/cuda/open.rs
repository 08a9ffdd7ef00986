use std::{
    ffi::c_int,
    ptr,
    sync::{
        RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use cust::{
    device::{Device as GpuHandle, DeviceAttribute},
    error::CudaError,
    sys::CUdevice_attribute,
};
use cust_lazy::{Driver as LoadedDriver, ffi};

use super::{
    super::{capabilities::Capabilities, driver::DriverError, error::DeviceError, sync::Mutex},
    CudaDriver, check, memory,
};

/// The first driver that captures programmatic launches into graphs, as CUDA encodes its version.
const PROGRAMMATIC_LAUNCH_IN_GRAPHS: u32 = 12_030;

/// How many GPUs have been opened.
static OPENED: AtomicU64 = AtomicU64::new(0);

/// Loads the driver, once a process.
fn load() -> Result<&'static LoadedDriver, DeviceError> {
    cust_lazy::load().map_err(|error| DeviceError::NoDriver {
        reason: error.to_string(),
        remedy: error.remedy(),
    })
}

/// An error of the calls that describe GPUs, before there is a context.
fn describe<'a>(device: &'a str, call: &'static str) -> impl Fn(CudaError) -> DeviceError + 'a {
    move |error| {
        let code = error as i32;
        DeviceError::Driver {
            device: device.to_owned(),
            call,
            name: cust_lazy::error_name(code),
            code,
        }
    }
}

/// An error of the calls that open a GPU, before there is a [`Device`](super::super::Device) to translate it.
fn failed(device: &str, error: DriverError) -> DeviceError {
    let device = device.to_owned();
    match error {
        DriverError::Code { call, name, code } => DeviceError::Driver {
            device,
            call,
            name,
            code,
        },
        DriverError::Fault { cause } => DeviceError::Lost {
            device,
            cause,
            launches: Vec::new(),
        },
        other => unreachable!("opening a GPU neither allocates nor loads: {other:?}"),
    }
}

impl CudaDriver {
    /// How many GPUs the driver lists.
    pub(in super::super) fn count() -> Result<usize, DeviceError> {
        load()?;
        GpuHandle::num_devices()
            .map(|count| count as usize)
            .map_err(describe("cuda", "cuDeviceGetCount"))
    }

    /// Retains the primary context of a GPU, after destroying the one that is there where `reset` says so.
    /// Also returns the GPU's name.
    pub(in super::super) fn open(
        ordinal: usize,
        reset: bool,
    ) -> Result<(Self, String), DeviceError> {
        let loaded = load()?;
        let count = Self::count()?;
        let number = u32::try_from(ordinal).ok().filter(|_| ordinal < count);
        let number = number.ok_or(DeviceError::NoSuchDevice { ordinal, count })?;
        let place = format!("cuda:{ordinal}");
        let gpu = GpuHandle::get_device(number).map_err(describe(&place, "cuDeviceGet"))?;
        let model = gpu.name().map_err(describe(&place, "cuDeviceGetName"))?;
        let name = format!("{place} ({model})");
        let capabilities = capabilities(gpu, &name, model, loaded.version())?;

        let device = gpu.as_raw();
        if reset {
            // SAFETY: the device handle is valid. Everything in the context has been lost to a fault already, and
            // the caller has retired the driver object that had it.
            check("cuDevicePrimaryCtxReset", unsafe {
                ffi::cuDevicePrimaryCtxReset_v2(device)
            })
            .map_err(|error| failed(&name, error))?;
        }
        let mut context = ptr::null_mut();
        check("cuDevicePrimaryCtxRetain", {
            // SAFETY: the device handle is valid, and `context` valid for the write.
            unsafe { ffi::cuDevicePrimaryCtxRetain(&mut context, device) }
        })
        .map_err(|error| failed(&name, error))?;
        let mut driver = Self {
            device,
            context,
            capabilities,
            retired: RwLock::new(false),
            destroyed: AtomicBool::new(false),
            id: OPENED.fetch_add(1, Ordering::Relaxed),
            peers: Mutex::default(),
            host_memory: Mutex::default(),
            scratch_pool: None,
        };
        // Now, because a capture of the caller's may not allow it later.
        driver.scratch_pool = memory::scratch_pool(&driver);
        Ok((driver, name))
    }
}

fn capabilities(
    gpu: GpuHandle,
    name: &str,
    model: String,
    driver_version: u32,
) -> Result<Capabilities, DeviceError> {
    use DeviceAttribute as Attribute;
    let get = |attribute| {
        gpu.get_attribute(attribute)
            .map(i32::unsigned_abs)
            .map_err(describe(name, "cuDeviceGetAttribute"))
    };
    // Attributes that `cust` has no name for.
    let get_raw = |attribute: CUdevice_attribute| {
        let mut value = 0;
        check("cuDeviceGetAttribute", {
            // SAFETY: the device handle is valid, and `value` valid for the write.
            unsafe { ffi::cuDeviceGetAttribute(&mut value, attribute as c_int, gpu.as_raw()) }
        })
        .map_err(|error| failed(name, error))?;
        Ok(value.unsigned_abs())
    };
    // Zero stands for "not known" among the rates. CUDA 13 has removed them from the runtime's `cudaDeviceProp`: no reason to refuse a GPU.
    let get_known = |attribute| get(attribute).ok().filter(|&value| value > 0);
    let compute_capability = (
        get(Attribute::ComputeCapabilityMajor)?,
        get(Attribute::ComputeCapabilityMinor)?,
    );
    Ok(Capabilities {
        model,
        compute_capability,
        multiprocessors: get(Attribute::MultiprocessorCount)?,
        warp_size: get(Attribute::WarpSize)?,
        memory_bytes: gpu
            .total_memory()
            .map_err(describe(name, "cuDeviceTotalMem"))?,
        l2_bytes: get(Attribute::L2CacheSize)? as usize,
        max_threads_per_multiprocessor: get(Attribute::MaxThreadsPerMultiprocessor)?,
        max_threads_per_block: get(Attribute::MaxThreadsPerBlock)?,
        max_block: [
            get(Attribute::MaxBlockDimX)?,
            get(Attribute::MaxBlockDimY)?,
            get(Attribute::MaxBlockDimZ)?,
        ],
        max_grid: [
            get(Attribute::MaxGridDimX)?,
            get(Attribute::MaxGridDimY)?,
            get(Attribute::MaxGridDimZ)?,
        ],
        shared_bytes_per_multiprocessor: get(Attribute::MaxSharedMemoryPerMultiprocessor)?,
        shared_bytes_per_block: get(Attribute::MaxSharedMemoryPerBlock)?,
        shared_bytes_per_block_optin: get_raw(
            CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN,
        )?,
        registers_per_multiprocessor: get(Attribute::MaxRegistersPerMultiprocessor)?,
        cooperative_launch: get_raw(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COOPERATIVE_LAUNCH)?
            != 0,
        programmatic_launch: compute_capability >= (9, 0)
            && driver_version >= PROGRAMMATIC_LAUNCH_IN_GRAPHS,
        clock_khz: get_known(Attribute::ClockRate),
        memory_clock_khz: get_known(Attribute::MemoryClockRate),
        memory_bus_bits: get_known(Attribute::GlobalMemoryBusWidth),
        driver_version: Some(driver_version),
    })
}
