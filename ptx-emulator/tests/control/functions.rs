//! Functions: what calls pass, and the lanes that make them.

use super::harness::{Arg, Bench, line};
use super::{check, kernel, run, two_ways};

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

/// Calls of lanes that went apart are not nested in each other: 32 lanes are each 66 calls deep at the same time.
#[test]
fn recursion_of_lanes_on_their_own() {
    let prefix = "
.func (.param .b32 result) down(.param .b32 n, .param .b32 lane)
{
.reg .pred %p<4>;
.reg .b32 %r<8>;
ld.param.b32 %r1, [n];
ld.param.b32 %r2, [lane];
setp.eq.u32 %p1, %r1, 0;
@%p1 bra bottom;
sub.u32 %r3, %r1, 1;
rem.u32 %r4, %r1, 5;
shr.u32 %r5, %r2, %r4;
and.b32 %r5, %r5, 1;
setp.eq.u32 %p2, %r5, 1;
@%p2 bra odd;
{ .param .b32 a; .param .b32 b; .param .b32 r;
st.param.b32 [a], %r3;
st.param.b32 [b], %r2;
call (r), down, (a, b);
ld.param.b32 %r6, [r]; }
bra up;
odd:
{ .param .b32 a; .param .b32 b; .param .b32 r;
st.param.b32 [a], %r3;
st.param.b32 [b], %r2;
call (r), down, (a, b);
ld.param.b32 %r6, [r]; }
up:
add.u32 %r6, %r6, 1;
st.param.b32 [result], %r6;
ret;
bottom:
// Longer than a turn: the other lanes get here as well before any goes back.
mov.u32 %r7, 0;
wait:
add.u32 %r7, %r7, 1;
setp.lt.u32 %p3, %r7, 2000;
@%p3 bra wait;
st.param.b32 [result], 0;
ret;
}
";
    check(
        prefix,
        "{ .param .b32 a; .param .b32 b; .param .b32 r;
        st.param.b32 [a], 65;
        st.param.b32 [b], %r1;
        call (r), down, (a, b);
        ld.param.b32 %r3, [r]; }",
        |_| 65,
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

/// Lanes that call a function one part after the other wait for each other inside of it.
#[test]
fn collectives_in_functions() {
    let ballot = |thread: u32| if thread < 64 { 0x1111_1111 } else { 0x11 };
    let sum = |thread: u32| {
        let warp = thread / 32 * 32;
        (warp..(warp + 32).min(70)).sum()
    };
    let cases: [(&str, &dyn Fn(u32) -> u32); 7] = [
        // The last warp has no lane 16.
        (
            "setp.ge.u32 %p2, %r1, 64; mov.u32 %r2, %r1;
            @%p2 bra last; shfl.sync.bfly.b32 %r2, %r1, 16, 0x1f, -1; last:",
            &|thread| if thread < 64 { thread ^ 16 } else { thread },
        ),
        ("redux.sync.add.u32 %r2, %r1, -1;", &sum),
        ("vote.sync.ballot.b32 %r2, %p1, -1;", &ballot),
        ("match.any.sync.b32 %r2, %r3, -1;", &|thread| {
            ballot(thread) << (thread % 4) & if thread < 64 { !0 } else { 0x3f }
        }),
        (
            "mov.u32 %r2, cells; mad.lo.u32 %r4, %r1, 4, %r2; st.shared.u32 [%r4], %r1;
            bar.warp.sync -1;
            xor.b32 %r5, %r1, 1; mad.lo.u32 %r4, %r5, 4, %r2; ld.shared.u32 %r2, [%r4];",
            &|thread| thread ^ 1,
        ),
        (
            "mov.u32 %r2, cells; mad.lo.u32 %r4, %r1, 4, %r2; st.shared.u32 [%r4], %r1;
            add.u32 %r5, %r3, 1; sub.u32 %r5, %r5, %r3; bar.sync %r5;
            sub.u32 %r5, 69, %r1; mad.lo.u32 %r4, %r5, 4, %r2; ld.shared.u32 %r2, [%r4];",
            &|thread| 69 - thread,
        ),
        ("bar.red.popc.u32 %r2, 0, %p1;", &|_| 18),
    ];
    for (instructions, expected) in cases {
        let prefix = format!(
            ".shared .b32 cells[70];
            .func (.param .b32 result) together(.param .b32 x)
            {{
            .reg .pred %p<3>;
            .reg .b32 %r<6>;
            ld.param.b32 %r1, [x];
            and.b32 %r3, %r1, 3;
            setp.eq.u32 %p1, %r3, 0;
            {instructions}
            st.param.b32 [result], %r2;
            ret;
            }}"
        );
        let call = "{ .param .b32 a; .param .b32 r;
            st.param.b32 [a], %r1;
            call (r), together, (a);
            ld.param.b32 %r3, [r]; }";
        check(&prefix, &two_ways("", call), expected);
    }
}

/// A lane that waits inside a function has registers of its own in each call that it comes back to.
#[test]
fn shuffle_between_depths() {
    let prefix = "
.func (.param .b32 result) deep(.param .b32 x, .param .b32 depth)
{
.reg .pred %p<2>;
.reg .b32 %r<8>;
ld.param.b32 %r1, [x];
ld.param.b32 %r2, [depth];
mad.lo.u32 %r5, %r2, 1000, %r1;
setp.ne.u32 %p1, %r2, 0;
@%p1 bra deeper;
shfl.sync.bfly.b32 %r3, %r1, 1, 0x1f, -1;
bra end;
deeper:
{ .param .b32 a; .param .b32 b; .param .b32 r;
sub.u32 %r4, %r2, 1;
st.param.b32 [a], %r1;
st.param.b32 [b], %r4;
call (r), deep, (a, b);
ld.param.b32 %r3, [r]; }
end:
add.u32 %r3, %r3, %r5;
st.param.b32 [result], %r3;
ret;
}
";
    check(
        prefix,
        "{ .param .b32 a; .param .b32 b; .param .b32 r;
        st.param.b32 [a], %r1;
        rem.u32 %r2, %r1, 3;
        st.param.b32 [b], %r2;
        call (r), deep, (a, b);
        ld.param.b32 %r3, [r]; }",
        |thread| {
            let own: u32 = (0..=thread % 3).map(|depth| depth * 1000 + thread).sum();
            (thread ^ 1) + own
        },
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
