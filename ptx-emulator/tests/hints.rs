//! Cache hints, policies and priorities: accepted, checked, and without effect on values.

mod harness;

use harness::{Arg, Bench, HEADER, line};
use ptx_emulator::Module;

fn kernel(body: &str) -> String {
    format!(
        "{HEADER}
.visible .entry k(.param .u64 input, .param .u64 output)
{{
.reg .pred %p<4>;
.reg .b32 %r<12>;
.reg .b64 %rd<12>;
ld.param.u64 %rd1, [input];
ld.param.u64 %rd2, [output];
mov.u32 %r1, %tid.x;
mul.wide.u32 %rd3, %r1, 4;
add.u64 %rd1, %rd1, %rd3;
add.u64 %rd2, %rd2, %rd3;
{body}
ret;
}}
"
    )
}

#[test]
fn values_are_the_same_with_every_hint() {
    let policy = "createpolicy.fractional.L2::evict_first.b64 %rd5, 1.0;";
    for body in [
        "prefetch.global.L1 [%rd1]; prefetch.global.L2::evict_last [%rd1]; prefetchu.L1 [%rd1]; ld.global.u32 %r2, [%rd1];",
        "applypriority.global.L2::evict_normal [%rd1], 128; ld.global.u32 %r2, [%rd1];",
        "createpolicy.fractional.L2::evict_last.L2::evict_unchanged.b64 %rd5, 0.5; ld.global.L2::cache_hint.u32 %r2, [%rd1], %rd5;",
        "createpolicy.fractional.L2::evict_unchanged.b64 %rd5; ld.global.L1::no_allocate.L2::cache_hint.L2::128B.u32 %r2, [%rd1], %rd5;",
        "createpolicy.range.global.L2::evict_last.L2::evict_first.b64 %rd5, [%rd1], 128, 256; ld.global.nc.L2::cache_hint.u32 %r2, [%rd1], %rd5;",
    ] {
        // The result goes back by a store and atomics that have a policy too.
        let body = format!(
            "{policy} {body}
mov.u32 %r3, 0; st.global.L2::cache_hint.u32 [%rd2], %r3, %rd5;
red.global.add.L2::cache_hint.u32 [%rd2], %r2, %rd5;
atom.global.or.L2::cache_hint.b32 %r4, [%rd2], 0, %rd5;
setp.ne.u32 %p1, %r4, %r2; @%p1 trap;"
        );
        let mut input: Vec<u32> = (0..32).map(|i| i * i + 7).collect();
        let want = input.clone();
        let mut output = vec![0; 32];
        Bench::new(&kernel(&body))
            .run(
                "k",
                line(32),
                &mut [Arg::Words(&mut input), Arg::Words(&mut output)],
            )
            .unwrap_or_else(|error| panic!("{error}\n{body}"));
        assert_eq!(output, want, "{body}");
    }
}

#[test]
fn refused() {
    for (body, words) in [
        (
            "ld.global.L2::cache_hint.u32 %r2, [%rd1];",
            "number of operands",
        ),
        (
            "ld.global.L2::cache_hint.u32 %r2, [%rd1], %r3;",
            "`%r3` is .b32",
        ),
        ("ld.global.u32 %r2, [%rd1], %rd5;", "number of operands"),
        (
            "ld.shared.L2::cache_hint.u32 %r2, [%r1], %rd5;",
            "`.global`",
        ),
        (
            "createpolicy.fractional.L2::evict_never.b64 %rd5, 1.0;",
            "a priority",
        ),
        (
            "createpolicy.fractional.L2::evict_first.b64 %rd5, 1.5;",
            "from 0 to 1",
        ),
        (
            "createpolicy.fractional.L2::evict_first.b32 %r5, 1.0;",
            ".b32 is not a type",
        ),
        ("createpolicy.cvt.L2.b64 %rd5, %rd6;", "a kind"),
        ("applypriority.global.L2::evict_normal [%rd1], 64;", "128"),
        ("discard.global.L2 [%rd1], 128;", "unknown instruction"),
        ("prefetch.const.L1 [%rd1];", "state space"),
    ] {
        match Module::parse(&kernel(body)) {
            Err(error) => assert!(error.message.contains(words), "{body}: {error}"),
            Ok(_) => panic!("accepted: {body}"),
        }
    }
}
