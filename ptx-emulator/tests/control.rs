//! Branches, divergence, functions, and blocks that wait for each other.

mod harness;

use harness::{Arg, Bench, HEADER, line};
use ptx_emulator::{Config, LaunchConfig};

/// A kernel with one thread a word: `%r1` is the thread, `body` leaves a result in `%r3`.
fn kernel(prefix: &str, body: &str) -> String {
    format!(
        "{HEADER}
{prefix}
.visible .entry k(.param .u64 output)
{{
.reg .pred %p<8>;
.reg .b32 %r<16>;
.reg .b64 %rd<8>;
mov.u32 %r1, %tid.x;
{body}
ld.param.u64 %rd1, [output];
mul.wide.u32 %rd2, %r1, 4;
add.s64 %rd3, %rd1, %rd2;
st.global.u32 [%rd3], %r3;
ret;
}}
"
    )
}

fn run(ptx: &str, threads: u32) -> Vec<u32> {
    let mut output = vec![0; threads as usize];
    Bench::new(ptx)
        .run("k", line(threads), &mut [Arg::Words(&mut output)])
        .unwrap_or_else(|error| panic!("{error}\n{ptx}"));
    output
}

fn check(prefix: &str, body: &str, expected: impl Fn(u32) -> u32) {
    let want: Vec<u32> = (0..70).map(expected).collect();
    assert_eq!(run(&kernel(prefix, body), 70), want, "{body}");
}

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

#[test]
fn functions() {
    let prefix = "
.func (.param .b32 result) square_plus(.param .b32 x, .param .b64 y)
{
.reg .b32 %r<4>;
.reg .b64 %rd<2>;
ld.param.b32 %r1, [x];
ld.param.b64 %rd1, [y];
cvt.u32.u64 %r2, %rd1;
mad.lo.u32 %r3, %r1, %r1, %r2;
st.param.b32 [result], %r3;
ret;
}
";
    check(
        prefix,
        "{ .param .b32 a; .param .b64 b; .param .b32 r;
        st.param.b32 [a], %r1;
        st.param.b64 [b], 1000;
        call.uni (r), square_plus, (a, b);
        ld.param.b32 %r3, [r]; }",
        |thread| thread * thread + 1000,
    );
    // An argument that was never written is no fault until it is used.
    check(
        ".func (.param .b32 result) first(.param .b32 x, .param .b32 y) { .reg .b32 %r<3>; ld.param.b32 %r1, [x]; ld.param.b32 %r2, [y]; st.param.b32 [result], %r1; ret; }",
        "{ .param .b32 a; .param .b32 b; .param .b32 r;
        st.param.b32 [a], %r1;
        st.param.b32 [b], %r9;
        call.uni (r), first, (a, b);
        ld.param.b32 %r3, [r]; }",
        |thread| thread,
    );
    // Only some lanes call.
    check(
        prefix,
        "mov.u32 %r3, 5;
        setp.lt.u32 %p1, %r1, 9;
        @!%p1 bra past;
        { .param .b32 a; .param .b64 b; .param .b32 r;
        st.param.b32 [a], %r1;
        st.param.b64 [b], 1000;
        call (r), square_plus, (a, b);
        ld.param.b32 %r3, [r]; }
        past:",
        |thread| {
            if thread < 9 {
                thread * thread + 1000
            } else {
                5
            }
        },
    );
}

/// The address of a parameter is that of a copy of it in local memory, one for each call.
#[test]
fn addresses_of_parameters() {
    check(
        ".func (.param .b32 result) pick(.param .align 8 .b8 list[20], .param .b32 at)
        {
            .reg .pred %p;
            .reg .b32 %r<6>;
            .reg .b64 %rd<6>;
            ld.param.b32 %r1, [at];
            mov.b64 %rd1, list;
            mul.wide.u32 %rd2, %r1, 4;
            add.s64 %rd3, %rd1, %rd2;
            ld.local.b32 %r2, [%rd3];
            add.u32 %r2, %r2, 1000;
            st.local.b32 [%rd3], %r2;
            setp.ne.u32 %p, %r1, 0;
            @%p bra last;
            // The copy changes, the caller's and the parameter itself do not. Reading it twice gives one address.
            mov.b64 %rd4, list+4;
            cvta.local.u64 %rd4, %rd4;
            ld.u32 %r3, [%rd4+-4];
            ld.param.b32 %r4, [list];
            sub.u32 %r2, %r3, %r4;
            // nvcc reads members of packed structures in this way.
            ld.param.b32 %r5, [%rd1+8];
            ld.param::func.b8 %r4, [%rd1+9];
            add.u32 %r2, %r2, %r5;
            add.u32 %r2, %r2, %r4;
        last:
            st.param.b32 [result], %r2;
            ret;
        }",
        "{ .param .align 8 .b8 a[20]; .param .b32 b; .param .b32 r;
        mul.lo.u32 %r4, %r1, 10;
        add.u32 %r5, %r4, 1; add.u32 %r6, %r4, 2; add.u32 %r7, %r4, 3; add.u32 %r8, %r4, 4;
        st.param.b32 [a], %r4; st.param.b32 [a+4], %r5; st.param.b32 [a+8], %r6; st.param.b32 [a+12], %r7; st.param.b32 [a+16], %r8;
        rem.u32 %r9, %r1, 5;
        st.param.b32 [b], %r9;
        call.uni (r), pick, (a, b);
        ld.param.b32 %r3, [r]; }",
        |thread| match thread % 5 {
            0 => 1000 + thread * 10 + 2 + (thread * 10 + 2) / 256,
            at => thread * 10 + at + 1000,
        },
    );
}

/// `.align` holds in every space, and in every call whatever its caller has in local memory.
#[test]
fn alignments() {
    check(
        ".global .b8 before;
        .global .align 4096 .b8 global[3];
        .const .align 1024 .b8 constant[3];
        .func (.param .b32 result) misaligned(.param .align 128 .b8 list[8], .param .b32 depth)
        {
            .local .b8 odd[7];
            .local .align 256 .b8 own[5];
            .reg .pred %p;
            .reg .b32 %r<4>;
            .reg .b64 %rd<4>;
            mov.b64 %rd1, own;
            cvta.local.u64 %rd1, %rd1;
            and.b64 %rd2, %rd1, 255;
            mov.b64 %rd1, list;
            cvta.local.u64 %rd1, %rd1;
            and.b64 %rd3, %rd1, 127;
            or.b64 %rd2, %rd2, %rd3;
            cvt.u32.u64 %r1, %rd2;
            ld.param.b32 %r2, [depth];
            setp.eq.u32 %p, %r2, 0;
            @%p bra last;
            sub.u32 %r2, %r2, 1;
            { .param .align 128 .b8 a[8]; .param .b32 b; .param .b32 r;
            st.param.b64 [a], %rd1;
            st.param.b32 [b], %r2;
            call (r), misaligned, (a, b);
            ld.param.b32 %r3, [r]; }
            or.b32 %r1, %r1, %r3;
        last:
            st.param.b32 [result], %r1;
            ret;
        }",
        ".local .b8 odd[3];
        .shared .b8 first;
        .shared .align 2048 .b8 shared[3];
        { .param .align 128 .b8 a[8]; .param .b32 b; .param .b32 r;
        mov.b64 %rd4, 0;
        st.param.b64 [a], %rd4;
        rem.u32 %r2, %r1, 4;
        st.param.b32 [b], %r2;
        call (r), misaligned, (a, b);
        ld.param.b32 %r3, [r]; }
        mov.u64 %rd4, global;
        and.b64 %rd4, %rd4, 4095;
        cvt.u32.u64 %r2, %rd4;
        or.b32 %r3, %r3, %r2;
        mov.u64 %rd4, constant;
        and.b64 %rd4, %rd4, 1023;
        cvt.u32.u64 %r2, %rd4;
        or.b32 %r3, %r3, %r2;
        mov.u32 %r2, shared;
        and.b32 %r2, %r2, 2047;
        or.b32 %r3, %r3, %r2;",
        |_| 0,
    );
}

/// Fibonacci numbers, each lane to another depth, with a local variable in every call.
#[test]
fn recursion() {
    let prefix = "
.func (.param .b32 result) fib(.param .b32 n)
{
.local .align 4 .b8 frame[8];
.reg .pred %p<2>;
.reg .b32 %r<8>;
ld.param.b32 %r1, [n];
setp.lt.u32 %p1, %r1, 2;
@%p1 bra small;
st.local.b32 [frame+4], %r1;
{ .param .b32 a; .param .b32 r;
sub.u32 %r2, %r1, 1;
st.param.b32 [a], %r2;
call.uni (r), fib, (a);
ld.param.b32 %r3, [r]; }
ld.local.b32 %r4, [frame+4];
{ .param .b32 a; .param .b32 r;
sub.u32 %r5, %r4, 2;
st.param.b32 [a], %r5;
call.uni (r), fib, (a);
ld.param.b32 %r6, [r]; }
add.u32 %r1, %r3, %r6;
small:
st.param.b32 [result], %r1;
ret;
}
";
    fn fib(n: u32) -> u32 {
        if n < 2 { n } else { fib(n - 1) + fib(n - 2) }
    }
    check(
        prefix,
        "{ .param .b32 a; .param .b32 r;
        rem.u32 %r2, %r1, 11;
        st.param.b32 [a], %r2;
        call.uni (r), fib, (a);
        ld.param.b32 %r3, [r]; }",
        |thread| fib(thread % 11),
    );
}

#[test]
fn indirect_calls() {
    let prefix = "
.func (.param .b32 result) twice(.param .b32 x) { .reg .b32 %r<3>; ld.param.b32 %r1, [x]; add.u32 %r2, %r1, %r1; st.param.b32 [result], %r2; ret; }
.func (.param .b32 result) thrice(.param .b32 x) { .reg .b32 %r<3>; ld.param.b32 %r1, [x]; mul.lo.u32 %r2, %r1, 3; st.param.b32 [result], %r2; ret; }
.global .align 8 .u64 handlers[2] = {twice, thrice};
";
    for list in [
        "prototype: .callprototype (.param .b32 _) _ (.param .b32 _);",
        "prototype: .calltargets twice, thrice;",
    ] {
        check(
            prefix,
            &format!(
                "and.b32 %r2, %r1, 1;
                mul.wide.u32 %rd4, %r2, 8;
                mov.u64 %rd5, handlers;
                add.s64 %rd6, %rd5, %rd4;
                ld.global.u64 %rd7, [%rd6];
                {{ .param .b32 a; .param .b32 r;
                st.param.b32 [a], %r1;
                {list}
                call (r), %rd7, (a), prototype;
                ld.param.b32 %r3, [r]; }}"
            ),
            |thread| {
                if thread % 2 == 0 {
                    2 * thread
                } else {
                    3 * thread
                }
            },
        );
    }
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

/// Lanes that exit inside a function are not waited for by those that call it.
#[test]
fn exits_inside_functions() {
    let prefix = "
.func leave_if_odd(.param .b32 x)
{
.reg .pred %p<2>;
.reg .b32 %r<3>;
ld.param.b32 %r1, [x];
and.b32 %r2, %r1, 1;
setp.eq.u32 %p1, %r2, 0;
@%p1 bra stay;
exit;
stay:
ret;
}
";
    let body = "setp.lt.u32 %p1, %r1, 20;
        @!%p1 bra after;
        { .param .b32 a; st.param.b32 [a], %r1; call leave_if_odd, (a); }
        after:
        activemask.b32 %r3;
        popc.b32 %r3, %r3;";
    check(prefix, body, |thread| match thread {
        0..20 if thread % 2 != 0 => 0,
        // Ten of the first warp have exited.
        0..32 => 22,
        32..64 => 32,
        _ => 6,
    });
}

/// What rustc makes of panics and of bounds checks.
#[test]
fn noreturn_functions_trap() {
    let ptx = kernel(
        "
.func panicking(.param .b64 index) .noreturn ;
.func panicking(.param .b64 index) .noreturn
{
// begin inline asm
trap;
// end inline asm
}
",
        "setp.lt.u32 %p1, %r1, 70;
        @%p1 bra fine;
        { .param .b64 a; st.param.b64 [a], 3; call.uni panicking, (a); }
        fine:
        mov.u32 %r3, 1;",
    );
    assert_eq!(run(&ptx, 70), vec![1; 70]);
    let error = Bench::new(&ptx)
        .run("k", line(96), &mut [Arg::Words(&mut vec![0; 96])])
        .unwrap_err();
    let ptx_emulator::LaunchError::Fault(fault) = error else {
        panic!("{error}");
    };
    assert_eq!(fault.kind, ptx_emulator::FaultKind::Trap);
    assert_eq!(
        (fault.instruction.as_str(), fault.thread),
        ("trap;", [70, 0, 0])
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
