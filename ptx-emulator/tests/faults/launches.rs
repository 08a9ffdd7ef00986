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

/// What a block can have, and how many are resident at once, depends on the compute capability.
#[test]
fn limits_of_compute_capabilities() {
    let ptx = kernel("").replace("sm_90", "sm_70");
    let module = Arc::new(Module::parse(&ptx).unwrap());
    // Shared memory of a block, and cooperative blocks of so many threads with so much of it.
    for (capability, most, resident) in [
        (
            70,
            96,
            [(32, 1, 80 * 32), (1024, 1, 80 * 2), (32, 96 << 10, 80)],
        ),
        (
            75,
            64,
            [(32, 1, 72 * 16), (512, 1, 72 * 2), (32, 32 << 10, 72 * 2)],
        ),
        (
            80,
            163,
            [
                (32, 1, 108 * 32),
                (1024, 1, 108 * 2),
                (32, 81 << 10, 108 * 2),
            ],
        ),
        (
            86,
            99,
            [(32, 1, 84 * 16), (1024, 1, 84), (32, 50 << 10, 84)],
        ),
        (
            90,
            227,
            [(32, 1, 132 * 32), (1024, 1, 132 * 2), (32, 227 << 10, 132)],
        ),
        (
            120,
            99,
            [
                (32, 1, 188 * 24),
                (768, 1, 188 * 2),
                (32, 49 << 10, 188 * 2),
            ],
        ),
    ] {
        let device = Emulator::new(Config {
            compute_capability: capability,
            ..Config::default()
        });
        let loaded = device.load(&module).unwrap();
        let address = device.alloc(16).unwrap().to_le_bytes();
        let launch = |shape| device.launch(&loaded, "k", &shape, &[&address]).map(drop);
        // The kernel has 1 KiB of its own.
        let with_shared = |bytes: u32, threads| LaunchConfig {
            dynamic_shared: bytes.saturating_sub(1024),
            ..line(threads)
        };
        assert_eq!(launch(with_shared(most << 10, 32)), Ok(()));
        let refused = launch(with_shared((most << 10) + 1, 32));
        assert!(matches!(refused, Err(LaunchError::SharedMemory { .. })));
        for (threads, shared, limit) in resident {
            let cooperative = |blocks| LaunchConfig {
                grid: [blocks, 1, 1],
                cooperative: true,
                ..with_shared(shared, threads)
            };
            let expected = LaunchError::CooperativeTooLarge {
                blocks: u64::from(limit) + 1,
                limit: limit.into(),
            };
            assert_eq!(
                launch(cooperative(limit + 1)),
                Err(expected),
                "sm_{capability}"
            );
        }
    }
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
