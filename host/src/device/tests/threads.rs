//! What is shared between threads.

use std::thread;

use super::*;

#[test]
fn everything_is_send_and_sync() {
    fn check<T: Send + Sync>() {}
    check::<Device>();
    check::<Buffer<f32>>();
    check::<PinnedBuffer<f32>>();
    check::<HybridMemoryPool>();
    check::<Stream>();
    check::<Event>();
    check::<Graph>();
    check::<Module>();
    check::<Function>();
    check::<DeviceError>();
}

#[test]
fn threads_share_a_device() {
    // A fresh thread has no current context, which the double insists on.
    for device in devices() {
        thread::scope(|scope| {
            for thread in 0..4_u32 {
                let device = &device;
                scope.spawn(move || {
                    let stream = device.new_stream().unwrap();
                    for round in 0..8 {
                        let buffer =
                            Buffer::from_slice(device, &[thread * 100 + round; 33]).unwrap();
                        add_one(&stream, &buffer).unwrap();
                        assert_eq!(buffer.to_vec().unwrap(), [thread * 100 + round + 1; 33]);
                    }
                });
            }
        });
    }
}

#[test]
fn threads_share_a_stream_and_a_graph() {
    for device in devices() {
        let buffer = Buffer::<u32>::zeroed(&device, 8).unwrap();
        let stream = device.new_stream().unwrap();
        let graph = Graph::capture(&stream, |stream| add_one(stream, &buffer)).unwrap();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..5 {
                        add_one(&stream, &buffer).unwrap();
                        graph.launch(&stream).unwrap();
                    }
                });
            }
        });
        assert_eq!(buffer.to_vec().unwrap(), [40; 8], "{device:?}");
    }
}

#[test]
fn a_capture_does_not_disturb_other_threads() {
    for device in devices() {
        let captured = Buffer::<u32>::zeroed(&device, 8).unwrap();
        let stream = device.new_stream().unwrap();
        thread::scope(|scope| {
            let graph = Graph::capture(&stream, |stream| {
                add_one(stream, &captured)?;
                let other = scope.spawn(|| {
                    let stream = device.new_stream().unwrap();
                    let buffer = Buffer::<u32>::zeroed(&device, 8).unwrap();
                    add_one(&stream, &buffer).unwrap();
                    assert_eq!(buffer.to_vec().unwrap(), [1; 8]);
                });
                other.join().unwrap();
                add_one(stream, &captured)
            })
            .unwrap();
            graph.launch(&stream).unwrap();
        });
        assert_eq!(captured.to_vec().unwrap(), [2; 8], "{device:?}");
    }
}
