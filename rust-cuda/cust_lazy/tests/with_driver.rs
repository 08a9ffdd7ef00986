//! A process whose driver is the test double in `tests/fake-libcuda`.

use std::{
    env,
    ffi::{CString, c_void},
    ptr,
    sync::LazyLock,
};

use cust::{context::Context, device::Device, error::CudaError, memory::DeviceBuffer};
use cust_lazy::{Driver, ffi};

static DRIVER: LazyLock<&Driver> = LazyLock::new(|| {
    // Cargo builds the dependency beside the test program.
    let mut path = env::current_exe().expect("the test program has a path");
    path.set_file_name("libfake_libcuda.so");
    cust_lazy::load_from(path).expect("the test double loads")
});

const PTX: &str = "
.version 6.4
.target sm_75
.address_size 64
.visible .entry eleven(
    .param .u64 to, .param .u64 a, .param .u64 b
)
{
    .reg .b64 %rd<5>;
    ld.param.u64 %rd1, [to];
    ld.param.u64 %rd2, [a];
    ld.param.u64 %rd3, [b];
    sub.s64 %rd4, %rd2, %rd3;
    st.global.u64 [%rd1], %rd4;
    ret;
}
";

#[test]
fn the_driver_says_what_it_has() {
    assert_eq!(DRIVER.version(), 12_040);
    assert!(DRIVER.library().ends_with("libfake_libcuda.so"));
    assert_eq!(cust_lazy::load(), Ok(*DRIVER));
    assert_eq!(cust_lazy::error_name(700), "CUDA_ERROR_ILLEGAL_ADDRESS");
    let missing = DRIVER.missing();
    assert!(missing.contains(&"cuMemAllocManaged") && missing.contains(&"cuMemAdvise"));
    assert!(!missing.contains(&"cuLaunchKernel") && !missing.contains(&"cuFuncGetParamInfo"));
}

#[test]
fn cust_works_through_the_trampolines() {
    LazyLock::force(&DRIVER);
    let device = Device::get_device(2).unwrap();
    assert_eq!(device.name().unwrap(), "Fake GPU (test double)");
    assert_eq!(Device::num_devices().unwrap(), 256);
    assert_eq!(
        Device::get_device(256).unwrap_err(),
        CudaError::InvalidDevice
    );
    let _context = Context::new(device).unwrap();
    // SAFETY: nothing reads the memory.
    let buffer = unsafe { DeviceBuffer::<u32>::uninitialized(100) }.unwrap();
    assert_eq!(buffer.len(), 100);
    drop(buffer);
}

#[test]
fn a_function_that_the_driver_lacks_is_not_found() {
    LazyLock::force(&DRIVER);
    let mut address = 0;
    // SAFETY: `address` is valid for the write.
    let result = unsafe { cust::sys::cuMemAllocManaged(&mut address, 1, 1) };
    assert_eq!(result as i32, 500);
}

/// Eleven arguments, of which five are on the stack, reach the driver; a 64-bit parameter stays whole.
#[test]
fn trampolines_pass_every_argument() {
    LazyLock::force(&DRIVER);
    let _context = Context::new(Device::get_device(3).unwrap()).unwrap();
    let image = CString::new(PTX).unwrap();
    let (mut module, mut function, mut stream) =
        (ptr::null_mut(), ptr::null_mut(), ptr::null_mut());
    let mut to = 0_u64;
    let (a, b) = (0x1234_5678_9abc_def0_u64, 0x0fed_cba9_8765_4321_u64);
    let mut result = [0_u64];
    // SAFETY: the calls follow the driver's contracts; what is passed outlives the last synchronization.
    unsafe {
        let no_options = ptr::null_mut();
        let loaded = ffi::cuModuleLoadDataEx(
            &mut module,
            image.as_ptr().cast(),
            0,
            no_options,
            ptr::null_mut(),
        );
        assert_eq!(loaded, 0);
        assert_eq!(
            ffi::cuModuleGetFunction(&mut function, module, c"eleven".as_ptr()),
            0
        );
        assert_eq!(ffi::cuStreamCreate(&mut stream, 1), 0);
        assert_eq!(ffi::cuMemAlloc_v2(&mut to, 8), 0);
        let mut parameters: [*mut c_void; 3] = [
            (&raw mut to).cast(),
            (&raw const a).cast_mut().cast(),
            (&raw const b).cast_mut().cast(),
        ];
        let parameters = parameters.as_mut_ptr();
        let launched = ffi::cuLaunchKernel(
            function,
            1,
            1,
            1,
            1,
            1,
            1,
            0,
            stream,
            parameters,
            ptr::null_mut(),
        );
        assert_eq!(launched, 0);
        assert_eq!(
            ffi::cuMemcpyDtoHAsync_v2(result.as_mut_ptr().cast(), to, 8, stream),
            0
        );
        assert_eq!(ffi::cuStreamSynchronize(stream), 0);
        assert_eq!(ffi::cuMemFree_v2(to), 0);
        assert_eq!(ffi::cuStreamDestroy_v2(stream), 0);
    }
    assert_eq!(result, [a - b]);
}
