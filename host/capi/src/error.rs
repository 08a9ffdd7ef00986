//! Error codes, the thread's last message, and what every function of the interface runs in.

use std::any::Any;
use std::cell::RefCell;
use std::ffi::{CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

use bitnet_cuda::device::DeviceError;
use bitnet_cuda::launch::LaunchError;
use bitnet_cuda::layout::LayoutError;
use bitnet_cuda::ops::OpError;
use bitnet_cuda::reference::{ReferenceError, RowScalesError};

/// `bitnet_status` of the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub enum Status {
    Success = 0,
    InvalidArgument = 1,
    InvalidHandle = 2,
    InvalidWeights = 3,
    NoDevice = 4,
    OutOfMemory = 5,
    DeviceLost = 6,
    DriverError = 7,
    InternalError = 8,
}

/// Why a call failed, as C sees it.
#[derive(Debug)]
pub struct Error {
    pub status: Status,
    pub message: String,
}

impl Error {
    pub fn argument(message: impl Into<String>) -> Self {
        Self {
            status: Status::InvalidArgument,
            message: message.into(),
        }
    }

    pub fn handle(message: impl Into<String>) -> Self {
        Self {
            status: Status::InvalidHandle,
            message: message.into(),
        }
    }

    fn panic(payload: &(dyn Any + Send)) -> Self {
        let text = payload
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("no message");
        Self {
            status: Status::InternalError,
            message: format!("internal error in libbitnet, please report it: {text}"),
        }
    }

    /// The same error about an argument of the C function.
    pub fn about(self, argument: &str) -> Self {
        Self {
            message: format!("{argument}: {}", self.message),
            ..self
        }
    }
}

impl From<DeviceError> for Error {
    fn from(error: DeviceError) -> Self {
        use DeviceError as E;
        let status = match error {
            E::NoDriver { .. } | E::NoSuchDevice { .. } => Status::NoDevice,
            E::OutOfMemory { .. }
            | E::PoolExhausted { .. }
            | E::PinnedMemory { .. }
            | E::BufferTooLarge { .. } => Status::OutOfMemory,
            E::Lost { .. } => Status::DeviceLost,
            E::UnknownDevice { .. }
            | E::NotDeviceMemory { .. }
            | E::MisalignedPointer { .. }
            | E::ForeignStream { .. }
            | E::DeviceMismatch { .. }
            | E::LengthMismatch { .. }
            | E::CopyLength { .. }
            | E::CopyRange { .. } => Status::InvalidArgument,
            _ => Status::DriverError,
        };
        Self {
            status,
            message: error.to_string(),
        }
    }
}

impl From<LaunchError> for Error {
    fn from(error: LaunchError) -> Self {
        match error {
            LaunchError::Device(error) => error.into(),
            LaunchError::NoPtx { .. } => Self {
                status: Status::NoDevice,
                message: error.to_string(),
            },
            _ => Self::argument(error.to_string()),
        }
    }
}

impl From<OpError> for Error {
    fn from(error: OpError) -> Self {
        match error {
            OpError::Device(error) => error.into(),
            OpError::Launch(error) => error.into(),
            OpError::Layout(error) => error.into(),
            OpError::Weights(error) => error.into(),
            OpError::RowScales(error) => error.into(),
            _ => Self::argument(error.to_string()),
        }
    }
}

impl From<LayoutError> for Error {
    fn from(error: LayoutError) -> Self {
        let status = match error {
            LayoutError::NotTernary { .. }
            | LayoutError::InvalidCode { .. }
            | LayoutError::InvalidTransformersCode { .. }
            | LayoutError::PaddingNotZero { .. } => Status::InvalidWeights,
            _ => Status::InvalidArgument,
        };
        Self {
            status,
            message: error.to_string(),
        }
    }
}

impl From<ReferenceError> for Error {
    fn from(error: ReferenceError) -> Self {
        let status = match error {
            ReferenceError::NonFiniteWeight { .. } => Status::InvalidWeights,
            _ => Status::InvalidArgument,
        };
        Self {
            status,
            message: error.to_string(),
        }
    }
}

impl From<RowScalesError> for Error {
    fn from(error: RowScalesError) -> Self {
        Self {
            status: Status::InvalidWeights,
            message: error.to_string(),
        }
    }
}

thread_local! {
    static LAST_ERROR: RefCell<CString> = RefCell::default();
}

fn remember(message: &str) {
    // Messages quote what the caller has passed, but no null ends up in them: C strings have none inside.
    let message = CString::new(message.replace('\0', "\u{fffd}")).unwrap_or_default();
    // While a thread ends there may be nothing left to write to, and nobody to read it.
    let _ = LAST_ERROR.try_with(|last| *last.borrow_mut() = message);
}

/// Runs a function of the interface: no panic gets out, and the thread's message is of this call.
pub fn call(function: impl FnOnce() -> Result<(), Error>) -> Status {
    match run(function) {
        Ok(()) => Status::Success,
        Err(error) => error.status,
    }
}

/// As [`call`], for a function that has no status to return.
pub fn run(function: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
    // What a panic leaves half done is behind locks, which recover, or dropped with it.
    let result = catch_unwind(AssertUnwindSafe(function))
        .unwrap_or_else(|payload| Err(Error::panic(payload.as_ref())));
    match &result {
        Ok(()) => remember(""),
        Err(error) => remember(&error.message),
    }
    result
}

/// `bitnet_last_error` of the header.
#[unsafe(no_mangle)]
pub extern "C" fn bitnet_last_error() -> *const c_char {
    LAST_ERROR
        .try_with(|last| {
            last.try_borrow()
                .map_or(c"".as_ptr(), |message| message.as_ptr())
        })
        .unwrap_or(c"".as_ptr())
}

/// `bitnet_version` of the header.
#[unsafe(no_mangle)]
pub extern "C" fn bitnet_version() -> *const c_char {
    const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    VERSION.as_ptr().cast()
}
