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
