//! `cp.async`: copies and their groups.

use super::*;

/// A tail is filled with zeros without reading past the buffer, whose last 16 bytes are words 508 to 511.
#[test]
fn nothing_is_read_where_nothing_is_asked_for() {
    let body = |size: u32| {
        format!(
            "add.u64 %rd7, %rd1, 2048; /*!*/ cp.async.cg.shared.global [%r4], [%rd7], 16, {size};"
        )
    };
    run(&body(0), 1);
    assert_eq!(fault(&body(4), 1), FaultKind::OutOfBounds { size: 4 });
}

#[test]
fn groups() {
    let copies = "cp.async.ca.shared.global [%r3], [%rd3], 4; cp.async.commit_group;
cp.async.ca.shared.global [%r3+1024], [%rd3+4], 4; cp.async.commit_group; cp.async.commit_group;
cp.async.ca.shared.global [%r3+2048], [%rd3+8], 4;";
    let load = |at: u32| format!("/*!*/ ld.shared.u32 %r6, [%r3+{at}]; st.global.u32 [%rd4], %r6;");
    for (wait, readable) in [
        ("cp.async.wait_group 3;", 0),
        ("cp.async.wait_group 2;", 1),
        ("cp.async.wait_group 1;", 2),
        ("cp.async.wait_group 0;", 2),
        ("cp.async.wait_all;", 3),
        ("cp.async.commit_group; cp.async.wait_group 0;", 3),
    ] {
        for at in 0..3u32 {
            let body = format!("{copies}\n{wait}\n{}", load(1024 * at));
            if at < readable {
                assert_eq!(
                    run(&body, 96)[..96],
                    input()[at as usize..][..96],
                    "{wait} {at}"
                );
            } else {
                assert_eq!(
                    fault(&body, 96),
                    FaultKind::UnfinishedCopy { writes: true },
                    "{wait} {at}"
                );
            }
        }
    }
}

/// Without the check, what is read too early is what was there before.
#[test]
fn early_reads_unchecked() {
    let body = "st.shared.u32 [%r3], 77; cp.async.ca.shared.global [%r3], [%rd3], 4;
ld.shared.u32 %r6, [%r3]; cp.async.wait_all; ld.shared.u32 %r7, [%r3]; add.u32 %r6, %r6, %r7; st.global.u32 [%rd4], %r6;";
    let config = Config {
        checks: Checks {
            races: false,
            ..Checks::ALL
        },
        ..Config::default()
    };
    let got = run_with(body, 32, config).unwrap();
    let want: Vec<u32> = input()[..32]
        .iter()
        .map(|word| word.wrapping_add(77))
        .collect();
    assert_eq!(got[..32], want);
    // Copies over each other then arrive in their order.
    let twice =
        "cp.async.ca.shared.global [%r3], [%rd3], 4; cp.async.ca.shared.global [%r3], [%rd3+4], 4;
cp.async.wait_all; ld.shared.u32 %r6, [%r3]; st.global.u32 [%rd4], %r6;";
    let config = Config {
        checks: Checks::NONE,
        ..Config::default()
    };
    assert_eq!(run_with(twice, 32, config).unwrap()[..32], input()[1..33]);
}

#[test]
fn copies_and_races() {
    let copy = "cp.async.ca.shared.global [%r3], [%rd3], 4; cp.async.wait_all;";
    let neighbour =
        "xor.b32 %r7, %r3, 128; /*!*/ ld.shared.u32 %r6, [%r7]; st.global.u32 [%rd4], %r6;";
    // A wait is for the thread's own copies: others need a barrier.
    let got = run(&format!("{copy} bar.sync 0;\n{neighbour}"), 64);
    let want: Vec<u32> = (0..64).map(|thread| input()[thread ^ 32]).collect();
    assert_eq!(got[..64], want);
    assert!(matches!(
        fault(&format!("{copy}\n{neighbour}"), 64),
        FaultKind::SharedRace { .. } | FaultKind::UninitializedMemory { .. }
    ));
    assert_eq!(
        fault(
            &format!("cp.async.ca.shared.global [%r3], [%rd3], 4; bar.sync 0;\n{neighbour}"),
            64
        ),
        FaultKind::UnfinishedCopy { writes: true }
    );
    // What has arrived is a store by the thread that asked for it, and a load of the source.
    for access in [
        "ld.shared.u32 %r6, [%r3+-128];",
        "st.shared.u32 [%r3+-128], 1;",
    ] {
        let body = format!("{copy}\nsetp.ge.u32 %p2, %r1, 32;\n/*!*/ @%p2 {access}");
        let FaultKind::SharedRace { other } = fault(&body, 64) else {
            panic!("{access}");
        };
        assert!(
            other.write && other.instruction.contains("cp.async"),
            "{other:?}"
        );
    }
    let body =
        format!("{copy}\nsetp.ge.u32 %p2, %r1, 32;\n/*!*/ @%p2 st.global.u32 [%rd3+-128], 1;");
    let FaultKind::GlobalRace { other } = fault(&body, 64) else {
        panic!("{body}");
    };
    assert!(
        !other.write && other.instruction.contains("cp.async"),
        "{other:?}"
    );
    // A copy into what others still read: which of the two is found first depends on who runs first.
    let reuse = |between: &str| {
        let body = format!(
            "st.shared.u32 [%r3], %r1; bar.sync 0; xor.b32 %r7, %r3, 128; ld.shared.u32 %r6, [%r7]; {between}
cp.async.ca.shared.global [%r3], [%rd3], 4;\nbar.sync 0; cp.async.wait_all;"
        );
        run_with(&body, 64, Config::default())
    };
    reuse("bar.sync 0;").unwrap();
    let Err(LaunchError::Fault(fault_of_reuse)) = reuse("") else {
        panic!("a race goes unseen");
    };
    assert!(matches!(
        fault_of_reuse.kind,
        FaultKind::SharedRace { .. } | FaultKind::UnfinishedCopy { writes: true }
    ));
    // Two copies into one place, and a store into one.
    assert_eq!(
        fault("/*!*/ cp.async.ca.shared.global [%r2], [%rd3], 4;", 2),
        FaultKind::UnfinishedCopy { writes: true }
    );
    assert_eq!(
        fault(
            "cp.async.ca.shared.global [%r3], [%rd3], 4;\n/*!*/ st.shared.u32 [%r3], 1;",
            2
        ),
        FaultKind::UnfinishedCopy { writes: true }
    );
    assert_eq!(
        fault(
            "cp.async.ca.shared.global [%r3], [%rd3], 4;\n/*!*/ atom.shared.add.u32 %r6, [%r3], 1;",
            2
        ),
        FaultKind::UnfinishedCopy { writes: true }
    );
}

#[test]
fn bad_copies() {
    let kind = |copy: &str| fault(&format!("/*!*/ {copy}"), 1);
    assert_eq!(
        kind("cp.async.ca.shared.global [%r3+2], [%rd3], 4;"),
        FaultKind::Misaligned { required: 4 }
    );
    assert_eq!(
        kind("cp.async.ca.shared.global [%r3], [%rd3+8], 16;"),
        FaultKind::Misaligned { required: 16 }
    );
    assert_eq!(
        kind("cp.async.ca.shared.global [%r3+8192], [%rd3], 4;"),
        FaultKind::OutOfBounds { size: 4 }
    );
    assert_eq!(
        kind("cp.async.ca.shared.global [%r3], [%rd3+-4], 4;"),
        FaultKind::OutOfBounds { size: 4 }
    );
    assert!(invalid(
        &kind("mov.u32 %r9, 5; cp.async.ca.shared.global [%r3], [%rd3], 4, %r9;"),
        "5 bytes of 4"
    ));
    let fresh = kernel("/*!*/ cp.async.ca.shared.global [%r3], [%rd4], 4;");
    let outcome = Bench::new(&fresh).run(
        "k",
        line(1),
        &mut [Arg::Words(&mut input()), Arg::Fresh(&mut vec![0; 4])],
    );
    let Err(LaunchError::Fault(fault)) = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!(fault.kind, FaultKind::UninitializedMemory { size: 4 });
}

#[test]
fn copies_are_counted() {
    let mut output = vec![0; 512];
    let report = Bench::new(&kernel(
        "cp.async.cg.shared.global [%r4], [%rd6], 16; cp.async.wait_all;",
    ))
    .run(
        "k",
        line(64),
        &mut [Arg::Words(&mut input()), Arg::Words(&mut output)],
    )
    .unwrap();
    let global = report.counters.global;
    assert_eq!(
        (global.load_requests, global.load_sectors, global.bytes_read),
        (2, 32, 1024)
    );
    assert_eq!(report.counters.shared.bytes_written, 1024);
    assert_eq!(report.counters.warp.load_global, 2);
}
