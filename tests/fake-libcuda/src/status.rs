//! Error codes, as `cuda.h` numbers them.

use std::ffi::{CStr, c_char, c_int};

macro_rules! codes {
    ($($name:ident = $code:literal, $text:literal;)*) => {
        $(pub(crate) const $name: c_int = $code;)*

        fn describe(code: c_int) -> Option<(&'static CStr, &'static CStr)> {
            match code {
                $($code => {
                    let name = concat!("CUDA_ERROR_", stringify!($name), "\0").as_bytes();
                    let text = concat!($text, "\0").as_bytes();
                    Some((CStr::from_bytes_with_nul(name).ok()?, CStr::from_bytes_with_nul(text).ok()?))
                })*
                0 => Some((c"CUDA_SUCCESS", c"no error")),
                _ => None,
            }
        }
    };
}

codes! {
    INVALID_VALUE = 1, "invalid argument";
    OUT_OF_MEMORY = 2, "out of memory";
    INVALID_DEVICE = 101, "invalid device ordinal";
    INVALID_CONTEXT = 201, "invalid device context";
    NO_BINARY_FOR_GPU = 209, "no kernel image is available for execution on the device";
    PEER_ACCESS_UNSUPPORTED = 217, "peer access is not supported between these two devices";
    INVALID_PTX = 218, "a PTX JIT compilation failed";
    UNSUPPORTED_PTX_VERSION = 222, "the provided PTX was compiled with an unsupported toolchain";
    INVALID_HANDLE = 400, "invalid resource handle";
    NOT_FOUND = 500, "named symbol not found";
    NOT_READY = 600, "device not ready";
    ILLEGAL_ADDRESS = 700, "an illegal memory access was encountered";
    LAUNCH_OUT_OF_RESOURCES = 701, "too many resources requested for launch";
    PEER_ACCESS_ALREADY_ENABLED = 704, "peer access is already enabled";
    HOST_MEMORY_ALREADY_REGISTERED = 712, "part or all of the requested memory range is already mapped";
    HOST_MEMORY_NOT_REGISTERED = 713, "pointer does not correspond to a registered memory region";
    MISALIGNED_ADDRESS = 716, "misaligned address";
    LAUNCH_FAILED = 719, "unspecified launch failure";
    COOPERATIVE_LAUNCH_TOO_LARGE = 720, "too many blocks in cooperative launch";
    GRAPH_EXEC_UPDATE_FAILURE = 910, "the graph update was not performed because it included changes which violated constraints specific to instantiated graph update";
    STREAM_CAPTURE_UNSUPPORTED = 900, "operation not permitted when stream is capturing";
    STREAM_CAPTURE_INVALIDATED = 901, "operation failed due to a previous error during capture";
    STREAM_CAPTURE_IMPLICIT = 906, "operation would make the legacy stream depend on a capturing blocking stream";
    STREAM_CAPTURE_WRONG_THREAD = 908, "attempt to terminate a thread-local capture sequence from another thread";
}

pub(crate) const SUCCESS: c_int = 0;

/// Whether the reference says of the code that the context cannot be used any more.
pub(crate) fn is_sticky(code: c_int) -> bool {
    matches!(code, 214 | 220 | 700 | 702 | 709 | 710 | 714..=719)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuGetErrorName(code: c_int, name: *mut *const c_char) -> c_int {
    // SAFETY: the caller passes a pointer that is valid for the write.
    unsafe { write_text(name, describe(code).map(|(name, _)| name)) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuGetErrorString(code: c_int, text: *mut *const c_char) -> c_int {
    // SAFETY: the caller passes a pointer that is valid for the write.
    unsafe { write_text(text, describe(code).map(|(_, text)| text)) }
}

/// # Safety
///
/// `to` is valid for the write.
unsafe fn write_text(to: *mut *const c_char, text: Option<&'static CStr>) -> c_int {
    // SAFETY: the caller says so.
    unsafe { to.write(text.map_or(std::ptr::null(), CStr::as_ptr)) };
    if text.is_some() {
        SUCCESS
    } else {
        INVALID_VALUE
    }
}
