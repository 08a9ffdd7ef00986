//! Loading PTX.

use super::*;

#[test]
fn modules_are_loaded_once() {
    for device in devices() {
        let (a, b) = (
            device.load_module(PTX).unwrap(),
            device.load_module(PTX).unwrap(),
        );
        assert!(a.same_code(&b));
        let c = device.load_module(&format!("// changed\n{PTX}")).unwrap();
        assert!(!a.same_code(&c));
    }
}

#[test]
fn bad_ptx_is_an_error_with_the_compilers_words() {
    for device in devices() {
        for cut_at in ["st.global", "mul.wide.u32 %rd3", "add_one_n\n"] {
            let cut = &PTX[..PTX.find(cut_at).expect("it is in the PTX")];
            match device.load_module(cut).unwrap_err() {
                DeviceError::InvalidPtx { device: name, log } => {
                    assert_eq!(name, device.name());
                    // What the compiler says, and not only the driver's code for it.
                    let by = match device.kind() {
                        DeviceKind::Cuda => "ptxas",
                        DeviceKind::Emulated => "line",
                    };
                    assert!(log.contains(by), "{log}");
                }
                other => panic!("cut before {cut_at}: {other}"),
            }
        }
        let nul = format!("{PTX}\0");
        assert!(matches!(
            device.load_module(&nul),
            Err(DeviceError::InvalidPtx { .. })
        ));
        assert!(matches!(
            device.load_module(""),
            Err(DeviceError::InvalidPtx { .. })
        ));
        let module = device.load_module(PTX).unwrap();
        for kernel in ["missing", "", "add_one\0"] {
            let expected = DeviceError::NoSuchKernel {
                kernel: kernel.to_owned(),
            };
            assert_eq!(module.function(kernel).unwrap_err(), expected);
        }
    }
}

#[test]
fn ptx_for_another_architecture_is_refused() {
    let config = |compute_capability| EmulatedConfig {
        compute_capability,
        ..Default::default()
    };
    let cases = [
        ((7, 5), "sm_80", false),
        ((8, 0), "sm_75", true),
        ((8, 6), "sm_89", false),
        ((9, 0), "sm_90a", true),
        ((10, 0), "sm_90a", false),
        ((12, 0), "sm_100f", false),
        ((9, 0), "sm_100", false),
    ];
    for (compute_capability, target, runs) in cases {
        let device = Device::emulated_with(config(compute_capability)).unwrap();
        let ptx = PTX
            .replace("sm_75", target)
            .replace(".version 6.4", ".version 8.6");
        match device.load_module(&ptx) {
            Ok(_) => assert!(runs, "{target} on {device:?}"),
            Err(DeviceError::PtxTarget {
                target: named,
                compute_capability: own,
                ..
            }) => {
                assert_eq!((named.as_str(), own), (target, compute_capability));
                assert!(!runs, "{target} on {device:?}");
            }
            Err(other) => panic!("{target} on {device:?}: {other}"),
        }
    }
    // A family is a major version, from the minor one on that the target names.
    for (major, minor, runs) in [(10, 2, false), (10, 3, true), (10, 4, true), (12, 4, false)] {
        let Some(gpu) = FakeGpu::take() else { continue };
        gpu.set_attribute(opening::COMPUTE_CAPABILITY_MAJOR, major);
        gpu.set_attribute(opening::COMPUTE_CAPABILITY_MINOR, minor);
        let loaded = gpu.open().load_module(&PTX.replace("sm_75", "sm_103f"));
        // What the double's compiler then says is its own affair.
        let refused = matches!(loaded, Err(DeviceError::PtxTarget { .. }));
        assert_eq!(refused, !runs, "sm_{major}{minor}");
    }
    let [gpu, _] = devices();
    let ptx = PTX.replace("sm_75", "sm_999");
    assert!(matches!(
        gpu.load_module(&ptx),
        Err(DeviceError::PtxTarget { .. })
    ));
}
