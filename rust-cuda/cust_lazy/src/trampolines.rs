//! The driver's functions as jumps through a table.

use std::{
    ffi::{CStr, c_char, c_int, c_void},
    sync::atomic::{AtomicPtr, Ordering},
};

use crate::names::with_driver_functions;

const SUCCESS: c_int = 0;
const INVALID_VALUE: c_int = 1;
pub(crate) const NO_DEVICE: c_int = 100;
pub(crate) const NOT_FOUND: c_int = 500;

/// Where one function jumps to. It has the layout of a pointer, which the assembly below reads.
#[repr(transparent)]
pub(crate) struct Slot(AtomicPtr<c_void>);

impl Slot {
    const fn new(default: *mut c_void) -> Self {
        Self(AtomicPtr::new(default))
    }

    /// Returns the target before.
    ///
    /// # Safety
    ///
    /// `target` is the driver's function of this slot's name and is never unloaded, or a target that the slot had before.
    pub(crate) unsafe fn set(&self, target: *mut c_void) -> *mut c_void {
        self.0.swap(target, Ordering::AcqRel)
    }

    /// Makes the function say that the driver does not have it; returns the target before.
    pub(crate) fn set_not_found(&self) -> *mut c_void {
        self.0.swap(not_found as *mut c_void, Ordering::AcqRel)
    }
}

// In C's calling conventions a function may be called with more arguments than it looks at.
extern "C" fn no_device() -> c_int {
    NO_DEVICE
}

extern "C" fn not_found() -> c_int {
    NOT_FOUND
}

/// `cuGetErrorName` without a driver, because `cust` formats its errors through the driver.
unsafe extern "C" fn error_name(code: c_int, name: *mut *const c_char) -> c_int {
    let text = match code {
        SUCCESS => c"CUDA_SUCCESS",
        NO_DEVICE => c"CUDA_ERROR_NO_DEVICE",
        NOT_FOUND => c"CUDA_ERROR_NOT_FOUND",
        _ => return INVALID_VALUE,
    };
    // SAFETY: the driver's function asks its caller for a valid pointer, too.
    unsafe { name.write(text.as_ptr()) };
    SUCCESS
}

/// `cuGetErrorString` without a driver.
unsafe extern "C" fn error_string(code: c_int, description: *mut *const c_char) -> c_int {
    let text = match code {
        SUCCESS => c"no error",
        NO_DEVICE => c"no CUDA-capable device is detected",
        NOT_FOUND => c"the driver does not have this function",
        _ => return INVALID_VALUE,
    };
    // SAFETY: the driver's function asks its caller for a valid pointer, too.
    unsafe { description.write(text.as_ptr()) };
    SUCCESS
}

macro_rules! default_target {
    (cuGetErrorName) => {
        error_name as *mut c_void
    };
    (cuGetErrorString) => {
        error_string as *mut c_void
    };
    ($name:ident) => {
        no_device as *mut c_void
    };
}

macro_rules! trampolines {
    ($($name:ident)*; $($newer:ident)*) => {
        trampolines! { @define $($name)* $($newer)* }
    };
    (@define $($name:ident)*) => {
        #[allow(non_upper_case_globals)]
        mod slots {
            use super::*;
            $(pub(super) static $name: Slot = Slot::new(default_target!($name));)*
        }

        /// Every function's name and slot.
        pub(crate) static TABLE: &[(&CStr, &Slot)] = &[$(
            (
                match CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()) {
                    Ok(name) => name,
                    Err(_) => unreachable!(),
                },
                &slots::$name,
            ),
        )*];

        $(
            // SAFETY: nothing else in the program defines this symbol, since the only libcuda that the linker
            // finds is this crate's empty archive.
            #[unsafe(no_mangle)]
            #[unsafe(naked)]
            unsafe extern "C" fn $name() {
                // A tail jump passes on all arguments and the return address, whatever the signature.
                #[cfg(target_arch = "x86_64")]
                std::arch::naked_asm!("jmp qword ptr [rip + {slot}]", slot = sym slots::$name);
                // x16 is reserved for exactly this purpose between a call and its target.
                #[cfg(target_arch = "aarch64")]
                std::arch::naked_asm!(
                    "adrp x16, {slot}",
                    "ldr x16, [x16, :lo12:{slot}]",
                    "br x16",
                    slot = sym slots::$name,
                );
            }
        )*
    };
}

with_driver_functions!(trampolines);
