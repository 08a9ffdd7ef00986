use std::{collections::HashMap, fmt, sync::Arc};

use super::{
    Device,
    core::lock,
    driver::{FunctionInfo, RawModule},
    error::DeviceError,
    sync::Mutex,
};

/// PTX loaded on a device.
///
/// A cheap handle to an entry of the device's cache: a text is compiled once per device. The code stays loaded as long as the
/// device is open, so functions never dangle. Usable from any thread.
#[derive(Clone)]
pub struct Module {
    device: Device,
    inner: Arc<ModuleInner>,
}

pub(super) struct ModuleInner {
    raw: RawModule,
    ptx: Arc<str>,
    functions: Mutex<HashMap<Arc<str>, Arc<FunctionInfo>>>,
}

impl ModuleInner {
    pub(super) fn new(raw: RawModule, ptx: Arc<str>) -> Self {
        Self {
            raw,
            ptx,
            functions: Mutex::default(),
        }
    }

    pub(super) fn raw(&self) -> RawModule {
        self.raw
    }
}

impl Module {
    pub(super) fn from_inner(device: &Device, inner: Arc<ModuleInner>) -> Self {
        Self {
            device: device.clone(),
            inner,
        }
    }

    pub(super) fn inner(&self) -> Arc<ModuleInner> {
        Arc::clone(&self.inner)
    }

    /// The device that the module is loaded on.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Whether both are the same entry of the device's cache.
    #[cfg(test)]
    pub(super) fn same_code(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    /// Looks up a kernel by the name of its PTX entry.
    ///
    /// # Errors
    ///
    /// [`DeviceError::NoSuchKernel`], or [`DeviceError::UnknownParameters`] if an older driver does not report the sizes of its
    /// parameters and the PTX cannot be read; [`DeviceError::Lost`] on a lost device.
    pub fn function(&self, kernel: &str) -> Result<Function, DeviceError> {
        let core = self.device.core();
        core.usable()?;
        let mut functions = lock(&self.inner.functions);
        let (name, info) = match functions.get_key_value(kernel) {
            Some((name, info)) => (Arc::clone(name), Arc::clone(info)),
            None => {
                // SAFETY: the module is alive as long as the device.
                let info = unsafe {
                    core.driver
                        .function(self.inner.raw, kernel, &self.inner.ptx)
                };
                let (name, info) = (Arc::<str>::from(kernel), Arc::new(core.check(info)?));
                functions.insert(Arc::clone(&name), Arc::clone(&info));
                (name, info)
            }
        };
        Ok(Function {
            device: self.device.clone(),
            name,
            info,
        })
    }
}

impl fmt::Debug for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Module({}, {:#x})", self.device.name(), self.inner.raw.0)
    }
}

/// A kernel of a [`Module`], ready to be launched on its device. A cheap handle, usable from any thread.
#[derive(Debug, Clone)]
pub struct Function {
    device: Device,
    name: Arc<str>,
    info: Arc<FunctionInfo>,
}

impl Function {
    /// The device that the kernel is loaded on.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Name of the PTX entry.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Most threads of a block that the kernel can be launched with.
    pub fn max_threads_per_block(&self) -> u32 {
        self.info.max_threads
    }

    /// Shared memory that the kernel itself declares, in bytes.
    pub fn static_shared_bytes(&self) -> u32 {
        self.info.static_shared
    }

    pub(super) fn shared_name(&self) -> &Arc<str> {
        &self.name
    }

    pub(super) fn info(&self) -> &FunctionInfo {
        &self.info
    }
}

/// Refuses PTX for an architecture that the device cannot run, with the same message on every device.
///
/// PTX runs on its own architecture and newer ones; a target with the suffix `a` only on exactly its
/// own, with `f` only within its family of the same major version.
pub(super) fn require_target(ptx: &str, device: &Device) -> Result<(), DeviceError> {
    // Without a directive to read, the device's compiler gives its own verdict.
    let Some(target) = target(ptx) else {
        return Ok(());
    };
    let Some((major, minor, suffix)) = parse_architecture(target) else {
        return Ok(());
    };
    let own = device.compute_capability();
    let runs = match suffix {
        "" => own >= (major, minor),
        "f" => own.0 == major && own.1 >= minor,
        _ => own == (major, minor),
    };
    if runs {
        return Ok(());
    }
    Err(DeviceError::PtxTarget {
        target: target.to_owned(),
        device: device.name().to_owned(),
        compute_capability: own,
    })
}

/// The architecture that the `.target` directive names.
fn target(ptx: &str) -> Option<&str> {
    let operands = ptx
        .lines()
        .find_map(|line| line.trim_start().strip_prefix(".target"))?;
    operands
        .split(',')
        .map(str::trim)
        .find(|operand| operand.starts_with("sm_"))
}

/// Splits `sm_120a` into 12, 0 and `a`.
fn parse_architecture(target: &str) -> Option<(u32, u32, &str)> {
    let version = target.strip_prefix("sm_")?;
    let suffix_at = version
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(version.len());
    let (digits, suffix) = version.split_at(suffix_at);
    let number: u32 = digits.parse().ok()?;
    Some((
        number / 10,
        number % 10,
        suffix.split_whitespace().next().unwrap_or(""),
    ))
}
