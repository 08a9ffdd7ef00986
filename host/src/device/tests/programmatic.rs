//! Programmatic dependent launches: which kernels get them, and that a chain of them is computed in order.

use super::*;

/// `CUDA_ERROR_INVALID_VALUE`.
const INVALID_VALUE: i32 = 1;

/// `follow` adds 1 to each element after the wait, `plain` without one; `reverse` writes `from` back to front into `to` after the wait, so that
/// each block reads what another block of the grid in front has written.
fn ptx() -> String {
    const WAIT: &str = "griddepcontrol.wait; griddepcontrol.launch_dependents;";
    // %r1 is n, %r2 this thread's element, which is below n in what follows.
    let kernel = |name: &str, parameters: &str, wait: &str, body: &str| {
        format!(
            ".visible .entry {name}({parameters}, .param .u32 n)
            {{
                .reg .pred %p;
                .reg .b32 %r<6>;
                .reg .b64 %rd<6>;
                {wait}
                ld.param.u32 %r1, [n];
                mov.u32 %r2, %ctaid.x;
                mov.u32 %r3, %ntid.x;
                mov.u32 %r4, %tid.x;
                mad.lo.s32 %r2, %r2, %r3, %r4;
                setp.ge.u32 %p, %r2, %r1;
                @%p ret;
                {body}
                ret;
            }}
            "
        )
    };
    let add_one = "
        ld.param.u64 %rd1, [data];
        cvta.to.global.u64 %rd1, %rd1;
        mul.wide.u32 %rd2, %r2, 4;
        add.s64 %rd1, %rd1, %rd2;
        ld.global.u32 %r3, [%rd1];
        add.s32 %r3, %r3, 1;
        st.global.u32 [%rd1], %r3;";
    let reverse = "
        ld.param.u64 %rd1, [to];
        ld.param.u64 %rd2, [from];
        cvta.to.global.u64 %rd1, %rd1;
        cvta.to.global.u64 %rd2, %rd2;
        sub.s32 %r3, %r1, %r2;
        sub.s32 %r3, %r3, 1;
        mul.wide.u32 %rd3, %r2, 4;
        mul.wide.u32 %rd4, %r3, 4;
        add.s64 %rd1, %rd1, %rd3;
        add.s64 %rd2, %rd2, %rd4;
        ld.global.u32 %r4, [%rd2];
        st.global.u32 [%rd1], %r4;";
    [
        ".version 7.8\n.target sm_90\n.address_size 64\n".to_owned(),
        kernel("follow", ".param .u64 data", WAIT, add_one),
        kernel("plain", ".param .u64 data", "", add_one),
        kernel("reverse", ".param .u64 to, .param .u64 from", WAIT, reverse),
    ]
    .concat()
}

fn kernel(device: &Device, name: &str) -> Function {
    let module = device.load_module(&ptx()).expect("the PTX is valid");
    module.function(name).expect("the kernel is in the PTX")
}

pub(super) fn add_one_by(
    stream: &Stream,
    name: &str,
    buffer: &Buffer<u32>,
) -> Result<(), DeviceError> {
    let n = buffer.len() as u32;
    let function = kernel(stream.device(), name);
    stream.launch(
        &function,
        config(n.div_ceil(32), 32),
        &[write(buffer), scalar(n)],
    )
}

/// Always where the tests do not run on the real driver.
fn is_possible(device: &Device) -> bool {
    let possible = device.capabilities().programmatic_launch;
    assert!(possible || is_real(device), "{device:?}");
    possible
}

#[test]
fn a_kernel_that_waits_is_launched_early_unless_that_is_turned_off() {
    let Some(gpu) = FakeGpu::take() else { return };
    let device = gpu.open();
    assert!(device.capabilities().programmatic_launch && device.programmatic_launch());
    let stream = device.new_stream().unwrap();
    let buffer = Buffer::<u32>::zeroed(&device, 100).unwrap();
    let launched = || (gpu.calls("cuLaunchKernelEx"), gpu.calls("cuLaunchKernel"));
    add_one_by(&stream, "follow", &buffer).unwrap();
    assert_eq!(launched(), (1, 0));
    add_one_by(&stream, "plain", &buffer).unwrap();
    assert_eq!(launched(), (1, 1));
    let graph = Graph::capture(&stream, |stream| add_one_by(stream, "follow", &buffer)).unwrap();
    assert_eq!(launched(), (2, 1));
    graph.launch(&stream).unwrap();
    device.set_programmatic_launch(false);
    add_one_by(&stream, "follow", &buffer).unwrap();
    assert_eq!(launched(), (2, 2));
    device.set_programmatic_launch(true);
    add_one_by(&stream, "follow", &buffer).unwrap();
    assert_eq!(launched(), (3, 2));
    assert_eq!(buffer.to_vec().unwrap(), [5; 100]);

    // What is refused for another reason is refused again without the attribute.
    gpu.inject("cuLaunchKernelEx", 1, INVALID_VALUE);
    gpu.inject("cuLaunchKernel", 1, INVALID_VALUE);
    let error = add_one_by(&stream, "follow", &buffer).unwrap_err();
    assert!(
        matches!(error, DeviceError::LaunchRefused { .. }),
        "{error}"
    );
    assert_eq!(buffer.to_vec().unwrap(), [5; 100]);
}

#[test]
fn where_the_driver_refuses_early_launches_a_kernel_is_launched_in_turn() {
    // CUDA_ERROR_INVALID_VALUE, INVALID_HANDLE, NOT_SUPPORTED
    for code in [INVALID_VALUE, 400, 801] {
        let Some(gpu) = FakeGpu::take() else { return };
        let device = gpu.open();
        let stream = device.new_stream().unwrap();
        let buffer = Buffer::<u32>::zeroed(&device, 100).unwrap();
        gpu.inject("cuLaunchKernelEx", 2, code);
        let graph = Graph::capture(&stream, |stream| {
            (0..3).try_for_each(|_| add_one_by(stream, "follow", &buffer))
        })
        .unwrap();
        let launched = (gpu.calls("cuLaunchKernelEx"), gpu.calls("cuLaunchKernel"));
        assert_eq!(launched, (3, 1));
        graph.launch(&stream).unwrap();
        assert_eq!(buffer.to_vec().unwrap(), [3; 100], "{code}");
    }
}

#[test]
fn a_graph_of_early_launches_is_updated_with_ordinary_ones_and_back() {
    for device in devices() {
        if !is_possible(&device) {
            continue;
        }
        let stream = device.new_stream().unwrap();
        let buffer = Buffer::<u32>::zeroed(&device, 100).unwrap();
        let twice = |stream: &Stream| {
            add_one_by(stream, "follow", &buffer)?;
            add_one_by(stream, "follow", &buffer)
        };
        let mut graph = Graph::capture(&stream, twice).unwrap();
        for (round, early) in [(1, true), (2, false), (3, false), (4, true)] {
            device.set_programmatic_launch(early);
            graph.update(&stream, twice).unwrap();
            graph.launch(&stream).unwrap();
            assert_eq!(buffer.to_vec().unwrap(), [2 * round; 100], "{device:?}");
        }
    }
}

#[test]
fn it_cannot_be_turned_on_where_it_is_not_possible() {
    let old = EmulatedConfig {
        compute_capability: (8, 0),
        ..EmulatedConfig::default()
    };
    let device = Device::emulated_with(old).unwrap();
    assert!(!device.programmatic_launch());
    device.set_programmatic_launch(true);
    assert!(!device.programmatic_launch());
}

/// Enough blocks that they do not all run at once, and a grid that reads what other blocks of the one in front have written.
#[test]
fn a_chain_is_computed_in_order() {
    for device in devices() {
        if !is_possible(&device) {
            continue;
        }
        let elements: u32 = match device.kind() {
            DeviceKind::Cuda => 1 << 16,
            DeviceKind::Emulated => 1 << 10,
        };
        let numbers: Vec<u32> = (0..elements).collect();
        let there = Buffer::from_slice(&device, &numbers).unwrap();
        let back = Buffer::<u32>::zeroed(&device, elements as usize).unwrap();
        let stream = device.new_stream().unwrap();
        let reverse = kernel(&device, "reverse");
        let chain = |stream: &Stream| {
            for _ in 0..8 {
                for (to, from) in [(&back, &there), (&there, &back)] {
                    let arguments = [write(to), read(from), scalar(elements)];
                    stream.launch(&reverse, config(elements.div_ceil(64), 64), &arguments)?;
                    add_one_by(stream, "follow", to)?;
                }
            }
            Ok::<(), DeviceError>(())
        };
        chain(&stream).unwrap();
        let graph = Graph::capture(&stream, chain).unwrap();
        graph.launch(&stream).unwrap();
        let expected: Vec<u32> = numbers.iter().map(|number| number + 32).collect();
        assert!(there.to_vec().unwrap() == expected, "{device:?}");
    }
}
