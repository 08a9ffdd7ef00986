//! The test double of the driver, for tests of the public interface.

use bitnet_cuda::device::Device;
use std::env;

/// Makes the double this process's driver. `false` where the tests run on the real one.
pub fn load() -> bool {
    let real = env::var("BITNET_TEST_DEVICE").is_ok_and(|device| device.starts_with("cuda"));
    if real && env::var_os(cust_lazy::LIBRARY_VARIABLE).is_none() {
        return false;
    }
    // Cargo builds the dependency beside the test program.
    let mut path = env::current_exe().expect("the test program has a path");
    path.set_file_name("libfake_libcuda.so");
    cust_lazy::load_from(&path).expect("the test double loads");
    true
}

/// GPUs of the double, of which even ordinals reach each other's memory, and odd ones; `None` where there is none.
#[allow(dead_code, reason = "not every test program asks for several")]
pub fn gpus<const N: usize>(ordinals: [usize; N]) -> Option<[Device; N]> {
    load().then(|| ordinals.map(|ordinal| Device::cuda(ordinal).expect("the double has this GPU")))
}
