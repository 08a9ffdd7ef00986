use std::{fmt, sync::Arc};

use super::{
    Device,
    buffer::Allocation,
    capabilities::Capabilities,
    driver::{Parameter, Target},
    error::DeviceError,
    module::Function,
};

/// The shape of one kernel launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LaunchConfig {
    /// Blocks in x, y and z; each at least 1.
    pub grid: [u32; 3],
    /// Threads of a block in x, y and z; each at least 1.
    pub block: [u32; 3],
    /// Dynamic shared memory of a block in bytes.
    pub dynamic_shared: u32,
    /// Whether all blocks have to be resident at once, so that they can wait for each other (a cooperative launch).
    pub cooperative: bool,
}

/// One argument of a kernel launch, in the order of the kernel's parameters.
#[derive(Clone, Copy)]
pub enum KernelArg<'a> {
    /// A device pointer into an allocation.
    Pointer {
        /// As errors call the buffer.
        name: &'static str,
        allocation: &'a Arc<Allocation>,
        offset_bytes: usize,
        /// How many bytes from there on the kernel touches.
        bytes: usize,
        /// Whether the kernel may write through it.
        write: bool,
    },
    /// A plain value of at most 8 bytes: the first `len` of `bytes`.
    Scalar { bytes: [u8; 8], len: usize },
}

/// A launch, as it appears in errors.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LaunchRecord {
    /// Name of the kernel, or of all kernels of a graph.
    pub kernel: String,
    /// The launch's shape; `None` for a graph.
    pub config: Option<LaunchConfig>,
    /// Number of the launch on its stream, from 1.
    pub sequence: u64,
}

impl fmt::Display for LaunchRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "launch {} ({}", self.sequence, self.kernel)?;
        if let Some(config) = &self.config {
            let [gx, gy, gz] = config.grid;
            let [bx, by, bz] = config.block;
            write!(f, ", grid {gx}x{gy}x{gz}, block {bx}x{by}x{bz}")?;
        }
        f.write_str(")")
    }
}

/// Checks a launch against the device and the kernel, and lays out its parameters.
pub(super) fn check(
    device: &Device,
    function: &Function,
    config: &LaunchConfig,
    args: &[KernelArg<'_>],
) -> Result<Vec<Parameter>, DeviceError> {
    let kernel = function.name();
    if device != function.device() {
        return Err(device.mismatch(format!("kernel {kernel}"), function.device().core()));
    }
    check_shape(device, function, config)?;

    let sizes = &function.info().parameter_sizes;
    if args.len() != sizes.len() {
        return Err(DeviceError::ArgumentCount {
            kernel: kernel.to_owned(),
            expected: sizes.len(),
            actual: args.len(),
        });
    }
    args.iter()
        .zip(sizes)
        .enumerate()
        .map(|(index, (arg, &size))| parameter(device, kernel, index, arg, size))
        .collect()
}

fn parameter(
    device: &Device,
    kernel: &str,
    index: usize,
    arg: &KernelArg<'_>,
    size: usize,
) -> Result<Parameter, DeviceError> {
    let parameter = match *arg {
        KernelArg::Pointer {
            name,
            allocation,
            offset_bytes,
            write,
            ..
        } => {
            if !Arc::ptr_eq(allocation.core(), device.core()) {
                let what = format!("buffer `{name}` of kernel {kernel}");
                return Err(device.mismatch(what, allocation.core()));
            }
            if offset_bytes > allocation.len() {
                return Err(DeviceError::ArgumentOffset {
                    kernel: kernel.to_owned(),
                    index,
                    offset: offset_bytes,
                    len: allocation.len(),
                });
            }
            let whole = allocation.whole();
            Parameter {
                bytes: (allocation.address() + offset_bytes as u64).to_ne_bytes(),
                len: size_of::<u64>(),
                target: Some(Target {
                    base: whole.base,
                    len: whole.len,
                    write,
                }),
            }
        }
        KernelArg::Scalar { bytes, len } => Parameter {
            bytes,
            len,
            target: None,
        },
    };
    // Beyond 8 bytes there is nothing to pass, whatever `len` says.
    if parameter.len != size || parameter.len > parameter.bytes.len() {
        return Err(DeviceError::ArgumentSize {
            kernel: kernel.to_owned(),
            index,
            expected: size,
            actual: parameter.len,
        });
    }
    Ok(parameter)
}

fn check_shape(
    device: &Device,
    function: &Function,
    config: &LaunchConfig,
) -> Result<(), DeviceError> {
    let capabilities: &Capabilities = device.capabilities();
    let require = |what: &'static str, value: u64, least: u64, most: u64| {
        if (least..=most).contains(&value) {
            return Ok(());
        }
        Err(DeviceError::LaunchLimit {
            kernel: function.name().to_owned(),
            what,
            value,
            limit: format!("{least} to {most}"),
            device: device.name().to_owned(),
        })
    };
    let names = [
        ["grid x", "grid y", "grid z"],
        ["block x", "block y", "block z"],
    ];
    let sizes = [config.grid, config.block];
    let limits = [capabilities.max_grid, capabilities.max_block];
    for ((names, sizes), limits) in names.iter().zip(sizes).zip(limits) {
        for ((name, size), limit) in names.iter().zip(sizes).zip(limits) {
            require(name, size.into(), 1, limit.into())?;
        }
    }

    // No overflow: each dimension has passed its own limit.
    let threads = config.block.iter().map(|&size| u64::from(size)).product();
    let most = capabilities
        .max_threads_per_block
        .min(function.max_threads_per_block());
    require("block size in threads", threads, 1, most.into())?;
    let shared = u64::from(function.static_shared_bytes()) + u64::from(config.dynamic_shared);
    let most = capabilities.shared_bytes_per_block_optin;
    require("shared memory in bytes", shared, 0, most.into())?;
    if config.cooperative && !capabilities.cooperative_launch {
        return Err(DeviceError::Unsupported {
            operation: "a cooperative launch",
            device: device.name().to_owned(),
        });
    }
    Ok(())
}
