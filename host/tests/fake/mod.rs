//! The test double of the driver, for tests of the public interface.

use bitnet_cuda::device::Device;
use std::env;
use std::ffi::{CString, c_char, c_int};
use std::path::PathBuf;
use std::sync::LazyLock;

static IS_LOADED: LazyLock<bool> = LazyLock::new(|| {
    let real = env::var("BITNET_TEST_DEVICE").is_ok_and(|device| device.starts_with("cuda"));
    if real && env::var_os(cust_lazy::LIBRARY_VARIABLE).is_none() {
        return false;
    }
    cust_lazy::load_from(path()).expect("the test double loads");
    true
});

/// Makes the double this process's driver, before anything else asks for one. `false` where the tests run on the real one.
pub fn load() -> bool {
    *IS_LOADED
}

/// Cargo builds the dependency beside the test program.
fn path() -> PathBuf {
    env::current_exe()
        .expect("the test program has a path")
        .with_file_name("libfake_libcuda.so")
}

/// Makes the `nth` call from now of a driver function fail with `code`, on a GPU of the double, which is loaded.
#[allow(dead_code, reason = "not every test program injects errors")]
pub fn inject(ordinal: usize, entry: &str, nth: u64, code: i32) {
    let entry = CString::new(entry).expect("no NUL");
    // SAFETY: the library is open already; the function has this signature, and asks for a C string.
    unsafe {
        let library = libloading::Library::new(path()).expect("the double is loaded");
        let inject: libloading::Symbol<unsafe extern "C" fn(c_int, *const c_char, u64, c_int)> =
            library.get(b"fake_cuda_inject").expect("the double has it");
        inject(ordinal as c_int, entry.as_ptr(), nth, code);
    }
}

/// GPUs of the double, of which even ordinals reach each other's memory, and odd ones; `None` where there is none.
#[allow(dead_code, reason = "not every test program asks for several")]
pub fn gpus<const N: usize>(ordinals: [usize; N]) -> Option<[Device; N]> {
    load().then(|| ordinals.map(|ordinal| Device::cuda(ordinal).expect("the double has this GPU")))
}
