//! Which launches the emulator takes to be under way when a kernel that waits for them by itself starts.

use super::*;

/// `add_one` that loads before it waits for the launch in front of it on the stream.
fn too_early(device: &Device) -> Function {
    let ptx = PTX
        .replace(".target sm_75", ".target sm_90")
        .replace(".version 6.4", ".version 8.0")
        .replacen("    add.s32", "    griddepcontrol.wait;\n    add.s32", 1);
    let module = device.load_module(&ptx).expect("the PTX is valid");
    module
        .function("add_one")
        .expect("the kernel is in the PTX")
}

#[test]
fn what_is_waited_for_is_not_under_way() {
    // On a GPU nothing would find it.
    let double = FakeGpu::take().map(|gpu| gpu.open());
    for device in double.into_iter().chain(Device::emulated()) {
        let early = too_early(&device);
        let buffer = Buffer::<u32>::zeroed(&device, 32).unwrap();
        let add_early =
            |stream: &Stream| stream.launch(&early, config(1, 32), &[write(&buffer), scalar(32)]);
        let (a, b) = (device.new_stream().unwrap(), device.new_stream().unwrap());
        // The host waits for the stream, or for an event.
        add_one(&a, &buffer).unwrap();
        a.synchronize().unwrap();
        add_early(&a).unwrap();
        a.record().unwrap().synchronize().unwrap();
        add_early(&a).unwrap();
        // Another stream waits.
        b.wait(&a.record().unwrap()).unwrap();
        add_early(&b).unwrap();
        // The stream itself waits for an event in between.
        add_one(&b, &buffer).unwrap();
        b.wait(&a.record().unwrap()).unwrap();
        add_early(&b).unwrap();
        // A graph comes after all that is in front of it, and before all that follows.
        let graph = Graph::capture(&b, add_early).unwrap();
        graph.launch(&b).unwrap();
        graph.launch(&b).unwrap();
        add_early(&b).unwrap();
        assert_eq!(buffer.to_vec().unwrap(), [9; 32], "{device:?}");
        // Nobody waits.
        let outcome = add_one(&b, &buffer)
            .and_then(|()| add_early(&b))
            .and_then(|()| b.synchronize());
        assert!(outcome.is_err(), "{device:?}");
    }
}

#[test]
fn launches_of_a_graph_overlap() {
    let device = Device::emulated().unwrap();
    let stream = device.new_stream().unwrap();
    let buffer = Buffer::<u32>::zeroed(&device, 32).unwrap();
    let early = too_early(&device);
    let graph = Graph::capture(&stream, |stream| {
        add_one(stream, &buffer)?;
        stream.launch(&early, config(1, 32), &[write(&buffer), scalar(32)])
    })
    .unwrap();
    let error = graph.launch(&stream).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("kernel `add_one`, launched earlier, may still be writing"),
        "{text}"
    );
}
