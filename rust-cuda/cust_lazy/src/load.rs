use std::{
    env,
    ffi::{CStr, OsString, c_char, c_int},
    path::{Path, PathBuf},
    ptr,
    sync::OnceLock,
};

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};

use crate::{
    ffi,
    trampolines::{NO_DEVICE, TABLE},
};

/// Environment variable with the path of the driver library to load instead of the system's `libcuda.so.1`. Empty, it counts as not set.
pub const LIBRARY_VARIABLE: &str = "CUST_LAZY_LIBCUDA";

const SYSTEM_LIBRARY: &str = "libcuda.so.1";

const STUB_LIBRARY: c_int = 34;
const SYSTEM_DRIVER_MISMATCH: c_int = 803;

/// Without these no CUDA program can run, so a library that lacks one is not a CUDA driver.
const ESSENTIAL: [&CStr; 3] = [c"cuInit", c"cuDriverGetVersion", c"cuDeviceGetCount"];

/// The loaded CUDA driver. It stays loaded until the process ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Driver {
    library: PathBuf,
    version: u32,
    missing: Vec<&'static str>,
}

impl Driver {
    /// The library as it was opened: a path, or a name that the system's loader has looked up.
    pub fn library(&self) -> &Path {
        &self.library
    }

    /// The newest CUDA version that the driver supports, as CUDA encodes it: 12040 is 12.4.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The functions that this driver does not have. Each returns `CUDA_ERROR_NOT_FOUND`.
    pub fn missing(&self) -> &[&'static str] {
        &self.missing
    }
}

/// Why there is no CUDA driver.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The library does not exist or cannot be opened.
    #[error("cannot open the CUDA driver {}: {reason}", .library.display())]
    Open {
        /// The library.
        library: PathBuf,
        /// The system loader's reason.
        reason: String,
    },
    /// The library is not a CUDA driver.
    #[error("{} is not a CUDA driver: it has no function {function}", .library.display())]
    MissingFunction {
        /// The library.
        library: PathBuf,
        /// The missing function.
        function: &'static str,
    },
    /// The driver is there, but does not start: no GPU, or kernel module and library do not fit.
    #[error("the CUDA driver {} does not start: {call} returned {name} ({code})", .library.display())]
    Start {
        /// The library.
        library: PathBuf,
        /// The function that failed.
        call: &'static str,
        /// The driver's name for the code.
        name: String,
        /// The `CUresult`.
        code: i32,
    },
    /// [`load_from`] came after a driver was loaded, or looked for in vain. A process has one driver.
    #[error("cannot load {}: this process has already looked for a CUDA driver", .library.display())]
    AlreadyLoaded {
        /// The library that was not loaded.
        library: PathBuf,
    },
}

impl LoadError {
    /// What to do about it, as an imperative in lower case.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Open { library, .. } | Self::MissingFunction { library, .. } => {
                if named_by_variable().is_some_and(|named| named == *library) {
                    "unset CUST_LAZY_LIBCUDA, which names that library"
                } else {
                    "install an NVIDIA driver"
                }
            }
            Self::Start { code, .. } => match *code {
                STUB_LIBRARY => {
                    "take the CUDA toolkit's stub of the driver out of the library path"
                }
                NO_DEVICE => {
                    "make a GPU visible (`nvidia-smi` lists them; `docker run` needs `--gpus all`)"
                }
                SYSTEM_DRIVER_MISMATCH => {
                    "give kernel module and library the same version (after an update: restart the machine)"
                }
                _ => "find out with `nvidia-smi` why the driver does not start",
            },
            Self::AlreadyLoaded { .. } => "name the library before anything else asks for a driver",
        }
    }
}

static LOADED: OnceLock<Result<Driver, LoadError>> = OnceLock::new();

/// Loads the system's CUDA driver, or the library that [`LIBRARY_VARIABLE`] names, and initializes it.
///
/// The first call does the work and every later one returns its result. Threads may call it at once.
///
/// # Errors
///
/// Says why there is no driver: no library, a library that is none, or `cuInit`'s error.
pub fn load() -> Result<&'static Driver, LoadError> {
    let library = || named_by_variable().unwrap_or_else(|| SYSTEM_LIBRARY.into());
    LOADED
        .get_or_init(|| open(library()))
        .as_ref()
        .map_err(Clone::clone)
}

/// Loads the CUDA driver from a given library, and initializes it.
///
/// # Errors
///
/// As [`load`]; and [`LoadError::AlreadyLoaded`] where this is not the process's first attempt.
pub fn load_from(library: impl Into<PathBuf>) -> Result<&'static Driver, LoadError> {
    let library = library.into();
    let mut first = false;
    let loaded = LOADED.get_or_init(|| {
        first = true;
        open(library.clone().into_os_string())
    });
    if !first {
        return Err(LoadError::AlreadyLoaded { library });
    }
    loaded.as_ref().map_err(Clone::clone)
}

/// The driver's name for a `CUresult`, such as `CUDA_ERROR_NO_DEVICE`.
pub fn error_name(code: i32) -> String {
    let mut name: *const c_char = ptr::null();
    // SAFETY: `name` is valid for the write, and the trampoline is callable with and without a driver.
    if unsafe { ffi::cuGetErrorName(code, &mut name) } != 0 || name.is_null() {
        return "a code that the driver has no name for".to_owned();
    }
    // SAFETY: the driver has set a pointer to a static C string.
    unsafe { CStr::from_ptr(name) }
        .to_string_lossy()
        .into_owned()
}

fn named_by_variable() -> Option<OsString> {
    env::var_os(LIBRARY_VARIABLE).filter(|name| !name.is_empty())
}

fn open(name: OsString) -> Result<Driver, LoadError> {
    let library = PathBuf::from(&name);
    // SAFETY: opening runs the library's initializers; the caller's system, or the user through the variable,
    // vouches for it as for every library that a program links.
    let handle = match unsafe { Library::open(Some(&name), RTLD_NOW | RTLD_LOCAL) } {
        Ok(handle) => handle,
        Err(error) => {
            return Err(LoadError::Open {
                library,
                reason: reason(&error),
            });
        }
    };
    let find = |symbol: &CStr| {
        // SAFETY: the symbol is only used as an address here.
        let found = unsafe { handle.get::<*mut std::ffi::c_void>(symbol.to_bytes_with_nul()) };
        found
            .ok()
            .map(|symbol| symbol.as_raw_ptr())
            .filter(|address| !address.is_null())
    };
    if let Some(function) = ESSENTIAL.into_iter().find(|symbol| find(symbol).is_none()) {
        let function = function.to_str().expect("the names are ASCII");
        return Err(LoadError::MissingFunction { library, function });
    }
    let (mut missing, mut before) = (Vec::new(), Vec::new());
    for &(symbol, slot) in TABLE {
        before.push(match find(symbol) {
            // SAFETY: the address is that of the driver's function of this name, and the library is never closed.
            Some(address) => unsafe { slot.set(address) },
            None => {
                missing.push(symbol.to_str().expect("the names are ASCII"));
                slot.set_not_found()
            }
        });
    }
    std::mem::forget(handle);

    let version = start(&library);
    if version.is_err() {
        // What such a driver returns may be a code that `cust_raw` does not know.
        for (&(_, slot), target) in TABLE.iter().zip(before) {
            // SAFETY: it is the target that the slot had.
            unsafe { slot.set(target) };
        }
    }
    Ok(Driver {
        version: version?,
        library,
        missing,
    })
}

/// Initializes the driver that the table points to; its version.
fn start(library: &Path) -> Result<u32, LoadError> {
    let checked = |call, code: c_int| match code {
        0 => Ok(()),
        code => Err(LoadError::Start {
            library: library.to_owned(),
            call,
            name: error_name(code),
            code,
        }),
    };
    let mut version = 0;
    // SAFETY: the function is the driver's, with the signature declared; flags have to be 0.
    checked("cuInit", unsafe { ffi::cuInit(0) })?;
    // SAFETY: `version` is valid for the write.
    checked("cuDriverGetVersion", unsafe {
        ffi::cuDriverGetVersion(&mut version)
    })?;
    Ok(version.unsigned_abs())
}

/// The loader's own words, which `libloading` keeps as the error's source.
fn reason(error: &libloading::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => source.to_string(),
        None => error.to_string(),
    }
}
