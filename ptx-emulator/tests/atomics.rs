//! Atomics and reductions: of every type, by many threads on one place, and as locks.

mod harness;

use harness::{Arg, Bench, HEADER, line};
use ptx_emulator::LaunchConfig;

fn kernel(params: &str, body: &str) -> String {
    format!("{HEADER}\n.visible .entry k({params})\n{{\n{body}\nret;\n}}\n")
}

/// Every atomic operation from 48 threads on one address, and the value each thread saw.
#[test]
fn atomics() {
    for (op, ty, start, values, want) in [
        (
            "add",
            "u32",
            5u64,
            (0..48).collect::<Vec<u64>>(),
            5 + 47 * 24,
        ),
        (
            "add",
            "u64",
            1 << 40,
            (0..48).collect(),
            (1 << 40) + 47 * 24,
        ),
        ("min", "u32", 1000, (20..68).rev().collect(), 20),
        (
            "min",
            "s32",
            3,
            (0..48u64)
                .map(|i| u64::from((7 - i as i32) as u32))
                .collect(),
            u64::from(-40i32 as u32),
        ),
        ("max", "u64", 3, (0..48).collect(), 47),
        (
            "max",
            "s64",
            3,
            (0..48u64).map(|i| (i as i64 - 40) as u64).collect(),
            7,
        ),
        (
            "and",
            "b32",
            0xffff,
            (0..48).map(|i| !(1 << (i % 16))).collect(),
            0,
        ),
        (
            "or",
            "b32",
            0,
            (0..48).map(|i| 1 << (i % 32)).collect(),
            0xffff_ffff,
        ),
        (
            "xor",
            "b64",
            0,
            (0..48).collect(),
            (0..48).fold(0, |x, y| x ^ y),
        ),
        ("exch", "b32", 9, vec![33; 48], 33),
        ("inc", "u32", 40, vec![44; 48], 43),
        ("dec", "u32", 3, vec![44; 48], 0),
        (
            "add",
            "f32",
            u64::from(1f32.to_bits()),
            vec![u64::from(0.5f32.to_bits()); 48],
            u64::from(25f32.to_bits()),
        ),
        (
            "add",
            "f64",
            1f64.to_bits(),
            vec![0.5f64.to_bits(); 48],
            25f64.to_bits(),
        ),
    ] {
        let wide = ty.ends_with("64");
        let (bits, size) = if wide { (64, 8) } else { (32, 4) };
        for space in ["global", "shared"] {
            let target = if space == "global" { "%rd3" } else { "%rd8" };
            let ptx = kernel(
                ".param .u64 input, .param .u64 output, .param .u64 cell",
                &format!(
                    ".reg .pred %p<2>;
                    .reg .b32 %r<4>;
                    .reg .b64 %rd<10>;
                    .reg .b{bits} %v<4>;
                    .shared .align 8 .b64 own;
                    ld.param.u64 %rd1, [input];
                    ld.param.u64 %rd2, [output];
                    ld.param.u64 %rd3, [cell];
                    mov.u64 %rd8, own;
                    mov.u32 %r1, %tid.x;
                    setp.ne.u32 %p1, %r1, 0;
                    @%p1 bra ready;
                    ld.global.b{bits} %v1, [%rd3];
                    st.shared.b{bits} [%rd8], %v1;
                    ready:
                    bar.sync 0;
                    mul.wide.u32 %rd4, %r1, {size};
                    add.s64 %rd5, %rd1, %rd4;
                    add.s64 %rd6, %rd2, %rd4;
                    ld.global.b{bits} %v1, [%rd5];
                    atom.{space}.{op}.{ty} %v2, [{target}], %v1;
                    st.global.b{bits} [%rd6], %v2;
                    bar.sync 0;
                    @%p1 bra done;
                    ld.{space}.b{bits} %v3, [{target}];
                    st.global.b{bits} [%rd3], %v3;
                    done:"
                ),
            );
            let bytes = |value: u64| value.to_le_bytes()[..size].to_vec();
            let mut input: Vec<u8> = values.iter().flat_map(|&value| bytes(value)).collect();
            let mut output = vec![0; input.len()];
            let mut cell = bytes(start);
            Bench::new(&ptx)
                .run(
                    "k",
                    line(48),
                    &mut [
                        Arg::Bytes(&mut input),
                        Arg::Bytes(&mut output),
                        Arg::Bytes(&mut cell),
                    ],
                )
                .unwrap();
            assert_eq!(cell, bytes(want), "atom.{space}.{op}.{ty}");
            // Somebody was first, and saw the start.
            assert!(
                output.chunks(size).any(|seen| seen == bytes(start)),
                "atom.{space}.{op}.{ty}"
            );
        }
    }
}

/// A lock by compare-and-swap, within a warp and between warps: every thread gets its turn.
#[test]
fn spin_lock() {
    let ptx = kernel(
        ".param .u64 lock, .param .u64 counter",
        ".reg .pred %p<3>;
        .reg .b32 %r<6>;
        .reg .b64 %rd<4>;
        ld.param.u64 %rd1, [lock];
        ld.param.u64 %rd2, [counter];
        mov.u32 %r5, 0;
        again:
        atom.acquire.gpu.global.cas.b32 %r1, [%rd1], 0, 1;
        setp.ne.u32 %p1, %r1, 0;
        @%p1 bra wait;
        ld.volatile.global.u32 %r2, [%rd2];
        add.u32 %r2, %r2, 1;
        st.volatile.global.u32 [%rd2], %r2;
        membar.gl;
        atom.release.gpu.global.exch.b32 %r3, [%rd1], 0;
        mov.u32 %r5, 1;
        wait:
        setp.eq.u32 %p2, %r5, 0;
        @%p2 bra again;",
    );
    let (mut lock, mut counter) = (vec![0], vec![0]);
    let shape = LaunchConfig {
        grid: [3, 1, 1],
        ..line(64)
    };
    Bench::new(&ptx)
        .run(
            "k",
            shape,
            &mut [Arg::Words(&mut lock), Arg::Words(&mut counter)],
        )
        .unwrap();
    assert_eq!((lock[0], counter[0]), (0, 192));
}

#[test]
fn reductions() {
    let ptx = kernel(
        ".param .u64 cells",
        ".reg .b32 %r<4>;
        .reg .b64 %rd<4>;
        ld.param.u64 %rd1, [cells];
        mov.u32 %r1, %tid.x;
        red.global.add.u32 [%rd1], %r1;
        red.relaxed.gpu.global.max.s32 [%rd1+4], %r1;
        red.global.or.b32 [%rd1+8], %r1;",
    );
    let mut cells = vec![0; 3];
    Bench::new(&ptx)
        .run("k", line(64), &mut [Arg::Words(&mut cells)])
        .unwrap();
    assert_eq!(cells, [63 * 32, 63, 63]);
}

/// An atomic on a vector reaches global memory only, and takes registers that are also its results.
#[test]
fn atomics_on_vectors() {
    let ptx = |address: &str| {
        kernel(
            ".param .u64 cells",
            &format!(
                ".shared .align 16 .b8 tile[16];
                .reg .b32 %r<6>;
                .reg .f32 %f<4>;
                .reg .b64 %rd<4>;
                ld.param.u64 %rd1, [cells];
                mov.u64 %rd2, tile;
                cvta.shared.u64 %rd2, %rd2;
                mov.f32 %f1, 1.0;
                mov.f32 %f2, 2.0;
                atom.add.v2.f32 {{%f2, %f1}}, [{address}+8], {{%f1, %f2}};
                bar.sync 0;
                red.global.add.v2.f32 [%rd1], {{%f1, %f2}};"
            ),
        )
    };
    let mut cells = vec![0; 4];
    Bench::new(&ptx("%rd1"))
        .run("k", line(64), &mut [Arg::Words(&mut cells)])
        .unwrap();
    // Each thread sees the sums of those before it, in some order.
    let before: f32 = (0..64).sum::<u32>() as f32;
    let want = [2.0 * before, before, 64.0, 128.0];
    assert_eq!(cells, want.map(f32::to_bits));
    let outcome = Bench::new(&ptx("%rd2")).run("k", line(1), &mut [Arg::Words(&mut cells)]);
    let error = outcome.unwrap_err().to_string();
    assert!(error.contains("vectors are for global memory"), "{error}");
}
