//! Branches, divergence, functions, and blocks that wait for each other.

#[path = "../harness/mod.rs"]
mod harness;

mod branches;
mod functions;

use harness::{Arg, Bench, HEADER, line};

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

/// Lanes reach the label `meet` in two ways, one of which passes `late` and could also leave `meet` out.
fn two_ways(late: &str, meet: &str) -> String {
    format!(
        "mov.u32 %r3, 0;
        ld.param.u64 %rd5, [output];
        and.b32 %r6, %r1, 31;
        setp.lt.u32 %p1, %r6, 16;
        @%p1 bra meet;
        {late}
        setp.gt.u32 %p2, %r1, 1000;
        @%p2 bra past;
        meet:
        {meet}
        past:"
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
