//! Branches, where lanes meet again, and blocks that wait for each other.

use ptx_emulator::{Checks, Config, LaunchConfig};

use super::harness::{Arg, Bench, HEADER, line};
use super::{check, kernel, run, two_ways};

#[test]
fn loops_of_different_lengths() {
    // Collatz steps: every lane leaves at another time, with a branch inside.
    check(
        "",
        "mov.u32 %r3, 0;
        add.u32 %r2, %r1, 1;
        loop:
        setp.eq.u32 %p1, %r2, 1;
        @%p1 bra done;
        and.b32 %r4, %r2, 1;
        setp.eq.u32 %p2, %r4, 0;
        @%p2 bra even;
        mad.lo.u32 %r2, %r2, 3, 1;
        bra.uni next;
        even:
        shr.u32 %r2, %r2, 1;
        next:
        add.u32 %r3, %r3, 1;
        bra loop;
        done:",
        |thread| {
            let (mut n, mut steps) = (thread + 1, 0);
            while n != 1 {
                n = if n % 2 == 0 { n / 2 } else { 3 * n + 1 };
                steps += 1;
            }
            steps
        },
    );
}

#[test]
fn nested_branches_meet_again() {
    // After each `if`, all lanes are together: the vote sees the whole warp.
    check(
        "",
        "mov.u32 %r3, 0;
        and.b32 %r4, %r1, 3;
        setp.lt.u32 %p1, %r4, 2;
        @!%p1 bra outer_else;
        setp.eq.u32 %p2, %r4, 0;
        @!%p2 bra inner_else;
        mov.u32 %r3, 10;
        bra inner_end;
        inner_else:
        mov.u32 %r3, 20;
        inner_end:
        activemask.b32 %r5;
        popc.b32 %r5, %r5;
        add.u32 %r3, %r3, %r5;
        bra outer_end;
        outer_else:
        mov.u32 %r3, 30;
        outer_end:
        activemask.b32 %r6;
        popc.b32 %r6, %r6;
        mad.lo.u32 %r3, %r6, 1000, %r3;",
        |thread| {
            let warp = if thread < 64 { 32 } else { 6 };
            let low = if thread < 64 { 16 } else { 4 };
            warp * 1000
                + match thread % 4 {
                    0 => 10 + low,
                    1 => 20 + low,
                    _ => 30,
                }
        },
    );
}

#[test]
fn lanes_that_leave_are_not_waited_for() {
    let ptx = kernel(
        "",
        "setp.lt.u32 %p1, %r1, 10;
        @%p1 bra go;
        setp.gt.u32 %p2, %r1, 20;
        @%p2 exit;
        ret;
        go:
        mov.u32 %r2, 1;
        redux.sync.add.u32 %r3, %r2, 0x3ff;
        vote.sync.ballot.b32 %r4, %p1, -1;
        add.u32 %r3, %r3, %r4;",
    );
    let output = run(&ptx, 32);
    // Ten lanes: their count, plus a mask of them.
    let want: Vec<u32> = (0..32)
        .map(|thread| if thread < 10 { 10 + 0x3ff } else { 0 })
        .collect();
    assert_eq!(output, want);
}

/// Lanes that part and reach one `.sync` instruction on different ways wait for each other.
#[test]
fn shuffle_after_different_ways() {
    let ptx = kernel(
        "",
        "setp.lt.u32 %p1, %r1, 16;
        mov.u32 %r5, 0;
        @%p1 bra short;
        long:
        add.u32 %r5, %r5, 1;
        setp.lt.u32 %p2, %r5, 5;
        @%p2 bra long;
        bra together;
        short:
        add.u32 %r5, %r1, 100;
        together:
        shfl.sync.bfly.b32 %r3, %r5, 16, 0x1f, -1;",
    );
    let want: Vec<u32> = (0..32)
        .map(|thread| if thread < 16 { 5 } else { thread - 16 + 100 })
        .collect();
    assert_eq!(run(&ptx, 32), want);
}

const EXCHANGE: &str = "shfl.sync.bfly.b32 %r3, %r1, 16, 0x1f, -1;";

/// Whether lanes wait for each other does not depend on what is checked.
#[test]
fn lanes_wait_whatever_is_checked() {
    let through_memory = ".shared .b32 cells[64];
        mov.u32 %r4, cells;
        mad.lo.u32 %r4, %r1, 4, %r4;
        xor.b32 %r5, %r4, 64;
        st.shared.u32 [%r4], %r1;
        bar.warp.sync -1;
        ld.shared.u32 %r3, [%r5];";
    // Four lanes of the first warp wait for the second one.
    let wait_for_flag = "sub.u32 %r4, %r1, 28;
        setp.ge.u32 %p3, %r4, 4;
        @%p3 bra go;
        wait:
        ld.volatile.global.u32 %r4, [%rd5+256];
        setp.eq.u32 %p3, %r4, 0;
        @%p3 bra wait;
        go:";
    let set_flag = format!(
        "{EXCHANGE}
        setp.eq.u32 %p3, %r1, 32;
        @%p3 st.volatile.global.u32 [%rd5+256], 1;"
    );
    let races = Checks {
        races: true,
        ..Checks::NONE
    };
    for (late, meet) in [
        ("", EXCHANGE),
        ("", through_memory),
        (wait_for_flag, &set_flag),
    ] {
        let ptx = kernel("", &two_ways(late, meet));
        for checks in [Checks::ALL, races, Checks::NONE] {
            let config = Config {
                checks,
                ..Config::default()
            };
            let mut output = vec![0; 65];
            Bench::with(&ptx, config)
                .run("k", line(64), &mut [Arg::Words(&mut output)])
                .unwrap_or_else(|error| panic!("{error}\n{ptx}"));
            let want: Vec<u32> = (0..64).map(|thread| thread ^ 16).collect();
            assert_eq!(output[..64], want, "{checks:?}\n{ptx}");
        }
    }
}

/// `bar.warp.sync` is for all lanes that execute one with the same members, wherever they do.
#[test]
fn warp_barriers_in_different_places() {
    let body = "mov.u32 %r2, cells;
        mad.lo.u32 %r2, %r1, 4, %r2;
        xor.b32 %r4, %r2, 64;
        st.shared.u32 [%r2], %r1;
        setp.lt.u32 %p1, %r1, 16;
        @%p1 bra low;
        HIGH
        ld.shared.u32 %r3, [%r4];
        add.u32 %r3, %r3, 100;
        bra end;
        low:
        bar.warp.sync -1;
        ld.shared.u32 %r3, [%r4];
        end:";
    let prefix = ".shared .b32 cells[32];
        .func meet() { bar.warp.sync -1; ret; }
        .func meet_below() { .reg .b32 %r<2>; mov.u32 %r1, 1; call meet; ret; }";
    // Of the upper lanes alone as well, while the others wait already.
    let twice = "bar.warp.sync 0xffff0000; bar.warp.sync -1;";
    for high in ["bar.warp.sync -1;", "call meet_below;", twice] {
        let ptx = kernel(prefix, &body.replace("HIGH", high));
        let want: Vec<u32> = (0..32)
            .map(|thread| (thread ^ 16) + if thread < 16 { 0 } else { 100 })
            .collect();
        assert_eq!(run(&ptx, 32), want, "{high}");
    }
}

/// Lanes wait for those that they name, and for no others: not for lanes that are with them and name others, nor for
/// lanes that run in a loop until they go on.
#[test]
fn lanes_wait_for_their_members_only() {
    // Lanes from 0 and from `second` come to `meet` at once, lanes from `looping` after lane 0 has been there.
    for (second, looping) in [(4, 8), (12, 12)] {
        let body = format!(
            "ld.param.u64 %rd5, [output];
            and.b32 %r4, %r1, 8;
            mov.u32 %r5, 0xff;
            shl.b32 %r4, %r5, %r4;
            setp.lt.u32 %p1, %r1, {second};
            @%p1 bra meet;
            setp.lt.u32 %p1, %r1, {looping};
            @%p1 bra meet;
            wait:
            ld.volatile.global.u32 %r6, [%rd5+64];
            setp.eq.u32 %p1, %r6, 0;
            @%p1 bra wait;
            mov.u32 %r3, 0;
            setp.gt.u32 %p1, %r1, 1000;
            @%p1 bra past;
            meet:
            redux.sync.add.u32 %r3, %r1, %r4;
            setp.eq.u32 %p1, %r1, 0;
            @%p1 st.volatile.global.u32 [%rd5+64], 1;
            past:"
        );
        let mut output = vec![0; 17];
        Bench::new(&kernel("", &body))
            .run("k", line(16), &mut [Arg::Words(&mut output)])
            .unwrap_or_else(|error| panic!("{error}\n{body}"));
        let want = [[(0..8).sum(); 8], [(8..16).sum(); 8]].concat();
        assert_eq!(output[..16], want);
    }
}

#[test]
fn indexed_branches() {
    check(
        "",
        "and.b32 %r2, %r1, 3;
        table: .branchtargets one, two, three, two;
        brx.idx %r2, table;
        one:
        mov.u32 %r3, 111;
        bra end;
        two:
        mov.u32 %r3, 222;
        bra end;
        three:
        mov.u32 %r3, 333;
        end:
        activemask.b32 %r4;
        popc.b32 %r4, %r4;
        mad.lo.u32 %r3, %r4, 1000, %r3;",
        |thread| {
            let lanes = if thread < 64 { 32000 } else { 6000 };
            lanes + [111, 222, 333, 222][thread as usize % 4]
        },
    );
}

#[test]
fn nested_scopes() {
    // Inline assembly declares registers and labels of its own, again and again.
    check(
        "",
        "mov.u32 %r3, 0;
        { .reg .b32 %r1; .reg .pred p; mov.u32 %r1, 7; setp.eq.u32 p, %r3, 0; @p bra SKIP; mov.u32 %r1, 8; SKIP: add.u32 %r3, %r3, %r1; }
        { .reg .b32 t; .reg .pred p; mov.u32 t, 50; setp.ne.u32 p, %r3, 7; @p bra SKIP; add.u32 t, t, %r1; SKIP: add.u32 %r3, %r3, t; }",
        |thread| 57 + thread,
    );
}

/// A way that ends in `trap` or `exit` does not keep the other lanes apart.
#[test]
fn failed_checks_do_not_keep_lanes_apart() {
    check(
        "",
        "setp.lt.u32 %p1, %r1, 20;
        @!%p1 bra after;
        setp.gt.u32 %p2, %r1, 1000;
        @%p2 bra panic;
        and.b32 %r4, %r1, 1;
        after:
        activemask.b32 %r3;
        popc.b32 %r3, %r3;
        bra done;
        panic:
        trap;
        done:",
        |thread| if thread < 64 { 32 } else { 6 },
    );
}

/// All blocks of a cooperative launch wait for each other, in any order.
#[test]
fn grid_barrier() {
    let ptx = format!(
        "{HEADER}
.visible .entry k(.param .u64 count, .param .u64 output)
{{
.reg .pred %p<3>;
.reg .b32 %r<12>;
.reg .b64 %rd<8>;
ld.param.u64 %rd1, [count];
ld.param.u64 %rd2, [output];
mov.u32 %r1, %tid.x;
mov.u32 %r2, %nctaid.x;
setp.ne.u32 %p1, %r1, 0;
@%p1 bra after;
atom.acq_rel.gpu.global.add.u32 %r3, [%rd1], 1;
spin:
ld.acquire.gpu.global.u32 %r4, [%rd1];
setp.lt.u32 %p2, %r4, %r2;
@%p2 bra spin;
after:
bar.sync 0;
ld.relaxed.gpu.global.u32 %r5, [%rd1];
mov.u32 %r6, %ctaid.x;
mad.lo.u32 %r7, %r6, 64, %r1;
mul.wide.u32 %rd3, %r7, 4;
add.s64 %rd4, %rd2, %rd3;
st.global.u32 [%rd4], %r5;
ret;
}}
"
    );
    for seed in [None, Some(1), Some(99)] {
        let (mut count, mut output) = (vec![0], vec![0; 20 * 64]);
        let shape = LaunchConfig {
            grid: [20, 1, 1],
            block: [64, 1, 1],
            dynamic_shared: 0,
            cooperative: true,
        };
        let config = Config {
            seed,
            ..Config::default()
        };
        Bench::with(&ptx, config)
            .run(
                "k",
                shape,
                &mut [Arg::Words(&mut count), Arg::Words(&mut output)],
            )
            .unwrap();
        assert!(output.iter().all(|&seen| seen == 20));
    }
}
