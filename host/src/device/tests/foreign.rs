//! Work of another library on a stream, for which a call of the driver stands here.

use std::ffi::c_void;

use cust_lazy::ffi;

use super::*;

const SUCCESS: i32 = 0;

/// Submits a fill with a byte, as another library would.
fn fill(stream: &Stream, buffer: &Buffer<u32>, value: u8) -> Result<(), DeviceError> {
    let submit = |handle: *mut c_void| {
        let (address, bytes) = (buffer.device_ptr(), buffer.size_bytes());
        // SAFETY: the handle is a stream's, and the range is the whole buffer.
        let code = unsafe { ffi::cuMemsetD8Async(address, value, bytes, handle.cast()) };
        match code {
            SUCCESS => Ok(()),
            code => Err(ForeignError {
                call: "cuMemsetD8Async",
                name: cust_lazy::error_name(code),
                code,
            }),
        }
    };
    // SAFETY: one fill of the buffer is submitted, which the tests do not use otherwise until it is done.
    unsafe { stream.submit_foreign("fill", &[buffer.foreign_use()], submit) }
}

/// The first of [`devices`] where it is a GPU, which Miri has not.
fn gpu() -> Option<Device> {
    let [gpu, _] = devices();
    (gpu.kind() == DeviceKind::Cuda).then_some(gpu)
}

#[test]
fn it_keeps_its_place_on_the_stream() {
    let Some(device) = gpu() else { return };
    let stream = device.new_stream().unwrap();
    let buffer = Buffer::from_slice(&device, &[7_u32; 64]).unwrap();
    add_one(&stream, &buffer).unwrap();
    let (filled, submitted, _) = device.observe(|| fill(&stream, &buffer, 1));
    filled.unwrap();
    assert_eq!(submitted[0].name, "fill");
    assert_eq!(submitted[0].bytes, buffer.size_bytes());
    add_one(&stream, &buffer).unwrap();
    assert_eq!(buffer.to_vec().unwrap(), [0x0101_0102; 64]);
    // What reads the buffer waits for the fill, too.
    fill(&stream, &buffer, 2).unwrap();
    assert_eq!(buffer.to_vec().unwrap(), [0x0202_0202; 64]);
}

#[test]
fn it_finds_the_devices_context_current() {
    let Some(gpu) = FakeGpu::take() else { return };
    let (device, other) = (gpu.open(), gpu.other(true).open());
    let stream = device.new_stream().unwrap();
    let buffer = Buffer::<u32>::zeroed(&device, 64).unwrap();
    Buffer::<u32>::zeroed(&other, 1).unwrap();
    assert_eq!(Device::current_cuda().unwrap(), Some(other));
    fill(&stream, &buffer, 1).unwrap();
    assert_eq!(buffer.to_vec().unwrap(), [0x0101_0101; 64]);
}

#[test]
fn a_buffer_outlives_it() {
    let Some(device) = gpu() else { return };
    let stream = device.new_stream().unwrap();
    let buffer = Buffer::<u32>::zeroed(&device, 64).unwrap();
    fill(&stream, &buffer, 1).unwrap();
    // The double runs the fill only when something waits, and it faults on memory that is gone.
    drop(buffer);
    stream.synchronize().unwrap();
}

#[test]
fn a_graph_records_and_replays_it() {
    let Some(device) = gpu() else { return };
    let stream = device.new_stream().unwrap();
    let buffer = Buffer::<u32>::zeroed(&device, 64).unwrap();
    let graph = Graph::capture(&stream, |stream| {
        fill(stream, &buffer, 1)?;
        add_one(stream, &buffer)
    })
    .unwrap();
    assert_eq!(graph.kernels(), ["fill", "add_one"]);
    assert_eq!(buffer.to_vec().unwrap(), [0; 64]);
    for _ in 0..2 {
        graph.launch(&stream).unwrap();
        assert_eq!(buffer.to_vec().unwrap(), [0x0101_0102; 64]);
    }
}

#[test]
fn what_cannot_be_submitted_is_refused_before_it_is_asked_for() {
    for device in devices() {
        let stream = device.new_stream().unwrap();
        let own = Buffer::<u32>::zeroed(&device, 64).unwrap();
        let elsewhere = Buffer::<u32>::zeroed(&Device::emulated().unwrap(), 64).unwrap();
        let uses = [own.foreign_use(), elsewhere.foreign_use()];
        // SAFETY: nothing is submitted.
        let error = unsafe { stream.submit_foreign("fill", &uses, |_| panic!("asked")) };
        let error = error.unwrap_err();
        match device.kind() {
            DeviceKind::Cuda => {
                assert!(
                    matches!(&error, DeviceError::DeviceMismatch { what, .. } if what == "buffer 1 of fill"),
                    "{error}"
                );
            }
            DeviceKind::Emulated => {
                assert!(matches!(error, DeviceError::Unsupported { .. }), "{error}");
            }
        }
    }
}

#[test]
fn its_error_is_passed_on_and_the_stream_stays_usable() {
    let Some(device) = gpu() else { return };
    let stream = device.new_stream().unwrap();
    let buffer = Buffer::<u32>::zeroed(&device, 64).unwrap();
    let refuse = |_| {
        Err(ForeignError {
            call: "cublasGemmEx",
            name: "CUBLAS_STATUS_NOT_SUPPORTED".to_owned(),
            code: 15,
        })
    };
    // SAFETY: nothing is submitted.
    let error = unsafe { stream.submit_foreign("gemm", &[buffer.foreign_use()], refuse) };
    let expected = DeviceError::Driver {
        device: device.name().to_owned(),
        call: "cublasGemmEx",
        name: "CUBLAS_STATUS_NOT_SUPPORTED".to_owned(),
        code: 15,
    };
    assert_eq!(error.unwrap_err(), expected);
    add_one(&stream, &buffer).unwrap();
    assert_eq!(buffer.to_vec().unwrap(), [1; 64]);
}
