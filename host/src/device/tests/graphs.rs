//! Updates of a graph's arguments.

use super::*;

const NOT_FOUND: i32 = 500;
const NOT_PERMITTED: i32 = 800;

/// Submits `copy` of the first `n` elements.
fn copy(
    stream: &Stream,
    to: &Buffer<u32>,
    from: &Buffer<u32>,
    n: usize,
) -> Result<(), DeviceError> {
    let function = function(stream.device(), "copy");
    let shape = config((n as u32).div_ceil(32), 32);
    stream.launch(&function, shape, &[write(to), read(from), scalar(n as u32)])
}

#[test]
fn an_update_changes_buffers_values_and_shapes() {
    for device in devices() {
        let stream = device.new_stream().unwrap();
        let small = Buffer::from_slice(&device, &[5_u32; 8]).unwrap();
        let large = Buffer::from_slice(&device, &[7_u32; 100]).unwrap();
        let mut to = Buffer::<u32>::zeroed(&device, 100).unwrap();
        let mut graph = Graph::capture(&stream, |stream| {
            copy(stream, &to, &small, 8)?;
            add_one(stream, &small)
        })
        .unwrap();
        graph.launch(&stream).unwrap();
        // Nothing has waited: on a GPU the replay above is still to come, with the arguments it had.
        graph
            .update(&stream, |stream| {
                copy(stream, &to, &large, 99)?;
                add_one(stream, &large)
            })
            .unwrap();
        let mut expected = [0; 100];
        expected[..8].fill(5);
        assert_eq!(to.to_vec().unwrap(), expected, "{device:?}");
        assert_eq!(graph.kernels(), ["copy", "add_one"]);
        for round in 0..2 {
            let (launched, submitted, _) = device.observe(|| graph.launch(&stream));
            launched.unwrap();
            assert_eq!(submitted[0].bytes, 3 * 400, "`to`, and `large` twice");
            expected[..99].fill(7 + round);
            assert_eq!(to.to_vec().unwrap(), expected, "{device:?}");
        }
        assert_eq!(small.to_vec().unwrap(), [6; 8]);
        to.fill_bytes(0).unwrap();
    }
}

#[test]
fn other_kernels_are_refused_and_the_graph_stays() {
    for device in devices() {
        let stream = device.new_stream().unwrap();
        let buffer = Buffer::<u32>::zeroed(&device, 8).unwrap();
        let other = Buffer::<u32>::zeroed(&device, 8).unwrap();
        let mut graph = Graph::capture(&stream, |stream| add_one(stream, &buffer)).unwrap();
        let mut refused = |launches: &dyn Fn(&Stream) -> Result<(), DeviceError>| match graph
            .update(&stream, launches)
            .unwrap_err()
        {
            error @ DeviceError::GraphMismatch { .. } => {
                let text = error.to_string();
                text.split_once("; ").expect("what to do").0.to_owned()
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(
            refused(&|stream| copy(stream, &other, &buffer, 8)),
            "launch 0 of the graph is add_one, but that of the update is copy"
        );
        assert_eq!(
            refused(&|stream| {
                add_one(stream, &other)?;
                copy(stream, &other, &buffer, 8)
            }),
            "launch 1 of the graph is missing, but that of the update is copy"
        );
        assert_eq!(
            refused(&|_| Ok(())),
            "launch 0 of the graph is add_one, but that of the update is missing"
        );
        let failed = graph.update(&stream, |stream| {
            add_one(stream, &other)?;
            stream.synchronize()
        });
        assert!(matches!(failed, Err(DeviceError::Capturing { .. })));
        graph.launch(&stream).unwrap();
        assert_eq!(
            (buffer.to_vec().unwrap(), other.to_vec().unwrap()),
            (vec![1; 8], vec![0; 8]),
            "{device:?}"
        );
    }
    let [gpu, emulated] = devices();
    let buffer = Buffer::<u32>::zeroed(&gpu, 8).unwrap();
    let stream = gpu.default_stream();
    let mut graph = Graph::capture(&stream, |stream| add_one(stream, &buffer)).unwrap();
    assert!(matches!(
        graph.update(&emulated.default_stream(), |_| Ok::<_, DeviceError>(())),
        Err(DeviceError::DeviceMismatch { .. })
    ));
}

#[test]
fn what_only_the_old_arguments_need_is_let_go() {
    let Some(gpu) = FakeGpu::take() else { return };
    let device = gpu.open();
    let stream = device.new_stream().unwrap();
    let old = Buffer::<u32>::zeroed(&device, 8).unwrap();
    let new = Buffer::<u32>::zeroed(&device, 8).unwrap();
    let mut graph = Graph::capture(&stream, |stream| add_one(stream, &old)).unwrap();
    graph.launch(&stream).unwrap();
    drop(old);
    let alive = gpu.alive();
    graph
        .update(&stream, |stream| add_one(stream, &new))
        .unwrap();
    assert_eq!(gpu.alive(), alive - 1, "the old buffer, after its replay");
    graph.launch(&stream).unwrap();
    drop(graph);
    assert_eq!(new.to_vec().unwrap(), [1; 8]);
}

#[test]
fn a_driver_that_cannot_update_makes_another_graph() {
    let Some(gpu) = FakeGpu::take() else { return };
    let device = gpu.open();
    let stream = device.new_stream().unwrap();
    let buffers = [0, 10].map(|value| Buffer::from_slice(&device, &[value; 8]).unwrap());
    let mut graph = Graph::capture(&stream, |stream| add_one(stream, &buffers[0])).unwrap();
    graph.launch(&stream).unwrap();
    let alive = gpu.alive();
    for (target, code) in [(1, NOT_FOUND), (0, NOT_PERMITTED)] {
        gpu.inject("cuGraphExecUpdate_v2", 1, code);
        graph
            .update(&stream, |stream| add_one(stream, &buffers[target]))
            .unwrap();
        graph.launch(&stream).unwrap();
    }
    assert_eq!(gpu.alive(), alive, "the replaced graphs are gone");
    assert_eq!(buffers[0].to_vec().unwrap(), [2; 8]);
    assert_eq!(buffers[1].to_vec().unwrap(), [11; 8]);

    // Where that fails, too, the caller hears of it, and the graph stays.
    gpu.inject("cuGraphExecUpdate_v2", 1, NOT_PERMITTED);
    gpu.inject("cuGraphInstantiateWithFlags", 1, NOT_PERMITTED);
    let updated = graph.update(&stream, |stream| add_one(stream, &buffers[1]));
    let error = updated.unwrap_err();
    assert!(
        matches!(
            error,
            DeviceError::Driver {
                code: NOT_PERMITTED,
                ..
            }
        ),
        "{error}"
    );
    graph.launch(&stream).unwrap();
    assert_eq!(buffers[0].to_vec().unwrap(), [3; 8]);
    drop((graph, buffers, stream, device));
    assert_eq!(gpu.alive(), 0);
}
