//! Recursion, calls through pointers, output and assertions.

use crate::harness::{Arg, Bench, line};
use crate::{bytes_of, run, words};
use ptx_emulator::{Config, FaultKind, LaunchConfig, LaunchError};

fn ackermann(m: u32, n: u32) -> u32 {
    match (m, n) {
        (0, n) => n + 1,
        (m, 0) => ackermann(m - 1, 1),
        (m, n) => ackermann(m - 1, ackermann(m, n - 1)),
    }
}

#[test]
fn recursion() {
    let n = 90;
    let mut out = vec![0; 8 * n];
    run(
        include_str!("../cuda/recursion.ptx"),
        "recursion",
        LaunchConfig {
            grid: [2, 1, 1],
            ..line(48)
        },
        vec![Arg::Bytes(&mut out), Arg::U32(n as u32)],
    );
    for (i, pair) in words(&out).chunks_exact(2).enumerate() {
        let i = i as u32;
        let same_parity = u32::from(i % 20 % 2 == i % 2);
        assert_eq!(pair, [ackermann(i % 3, i % 5), same_parity], "{i}");
    }
}

const PRINTF: &str = include_str!("../cuda/printf.ptx");

#[test]
fn printf() {
    let values = [7i32, -100, 65536];
    let mut data = bytes_of(&values, i32::to_le_bytes);
    let shape = LaunchConfig {
        grid: [2, 1, 1],
        ..line(2)
    };
    let report = Bench::with(PRINTF, Config::default())
        .run("report", shape, &mut [Arg::Bytes(&mut data), Arg::U32(3)])
        .unwrap();
    // What the same calls print on a host.
    assert_eq!(
        report.printed,
        "block 0 thread  0: 7, +0.875, 0x7, a%\n\
         block 0 thread  1: -100, -12.500, 0xffffff9c, b%\n\
         text|left  |   cu|-1234567890123|4|-1.000000e-08\n\
         block 1 thread  0: 65536, +8192.000, 0x10000, c%\n"
    );
}

#[test]
fn assertion() {
    let check = |limit: u32| {
        let mut data = bytes_of(&[1i32, 2, 9, 3], i32::to_le_bytes);
        let args = &mut [Arg::Bytes(&mut data), Arg::U32(limit)];
        Bench::with(PRINTF, Config::default()).run("check", line(4), args)
    };
    check(10).unwrap();
    let Err(LaunchError::Fault(fault)) = check(9) else {
        panic!("the assertion holds");
    };
    let FaultKind::AssertionFailed {
        message,
        file,
        line,
        function,
    } = &fault.kind
    else {
        panic!("{fault}");
    };
    assert_eq!(
        (message.as_str(), file.as_str(), *line),
        ("value < limit", "printf.cu", 16)
    );
    assert_eq!(function, "void check(const int *, int)");
    assert_eq!(fault.thread, [2, 0, 0]);
}
