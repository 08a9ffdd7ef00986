//! Launches and modules that no device accepts.

use std::sync::Arc;

use ptx_emulator::{Config, Emulator, LaunchConfig, LaunchError, Module};

use super::harness::line;
use super::kernel;

#[test]
fn bad_launches() {
    let ptx = kernel("st.shared.u32 [dynamic], %r1;").replace(
        "(.param .u64 buffer)\n",
        "(.param .u64 buffer)\n.maxntid 64, 2, 1\n",
    );
    let device = Emulator::new(Config::default());
    let loaded = device
        .load(&Arc::new(Module::parse(&ptx).unwrap()))
        .unwrap();
    let address = device.alloc(16).unwrap().to_le_bytes();
    let launch = |entry: &str, shape: LaunchConfig, args: &[&[u8]]| {
        device.launch(&loaded, entry, &shape, args).unwrap_err()
    };
    let good = line(1);
    assert!(matches!(
        launch("other", good, &[&address]),
        LaunchError::NoSuchEntry { .. }
    ));
    assert!(matches!(
        launch("k", good, &[]),
        LaunchError::ArgumentCount {
            expected: 1,
            given: 0,
            ..
        }
    ));
    assert!(matches!(
        launch("k", good, &[&[0; 4]]),
        LaunchError::ArgumentSize {
            index: 0,
            expected: 8,
            given: 4,
            ..
        }
    ));
    for shape in [
        LaunchConfig {
            grid: [0, 1, 1],
            ..good
        },
        LaunchConfig {
            grid: [1, 65536, 1],
            ..good
        },
        LaunchConfig {
            block: [1, 0, 1],
            ..good
        },
        LaunchConfig {
            block: [1025, 1, 1],
            ..good
        },
        LaunchConfig {
            block: [64, 32, 1],
            ..good
        },
        LaunchConfig {
            block: [1, 1, 65],
            ..good
        },
    ] {
        assert!(
            matches!(launch("k", shape, &[&address]), LaunchError::Shape { .. }),
            "{shape:?}"
        );
    }
    assert!(matches!(
        launch("k", line(129), &[&address]),
        LaunchError::BlockDirective {
            directive: ".maxntid",
            ..
        }
    ));
    assert!(matches!(
        launch(
            "k",
            LaunchConfig {
                dynamic_shared: 227 << 10,
                ..good
            },
            &[&address]
        ),
        LaunchError::SharedMemory { .. }
    ));
    assert!(matches!(
        launch(
            "k",
            LaunchConfig {
                grid: [1 << 20, 1, 1],
                cooperative: true,
                ..good
            },
            &[&address]
        ),
        LaunchError::CooperativeTooLarge { .. }
    ));
    let elsewhere = Emulator::new(Config::default());
    assert!(matches!(
        elsewhere
            .launch(&loaded, "k", &good, &[&address])
            .unwrap_err(),
        LaunchError::ForeignModule
    ));
    // Without dynamic shared memory, its first byte is past the end.
    assert!(matches!(
        launch("k", good, &[&address]),
        LaunchError::Fault(_)
    ));
    device
        .launch(
            &loaded,
            "k",
            &LaunchConfig {
                dynamic_shared: 4,
                ..good
            },
            &[&address],
        )
        .unwrap();
}

#[test]
fn newer_architecture() {
    let ptx = kernel("");
    let device = Emulator::new(Config {
        compute_capability: 75,
        ..Config::default()
    });
    let error = device
        .load(&Arc::new(Module::parse(&ptx).unwrap()))
        .unwrap_err();
    assert!(
        error.message.contains("sm_90") && error.message.contains("sm_75"),
        "{error}"
    );
}
