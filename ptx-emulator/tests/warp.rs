//! What lanes of a warp, and warps of a block, do together.

mod harness;

use harness::{Arg, Bench, HEADER, line};
use proptest::prelude::*;
use ptx_emulator::LaunchConfig;

/// A kernel of one warp: `%r1` is the lane, `%r2` its input; `body` leaves a result in `%r3`.
fn warp_kernel(body: &str) -> String {
    format!(
        "{HEADER}
.visible .entry k(.param .u64 input, .param .u64 output)
{{
.reg .pred %p<6>;
.reg .b32 %r<12>;
.reg .b64 %rd<8>;
ld.param.u64 %rd1, [input];
ld.param.u64 %rd2, [output];
mov.u32 %r1, %tid.x;
mul.wide.u32 %rd3, %r1, 4;
add.s64 %rd4, %rd1, %rd3;
add.s64 %rd5, %rd2, %rd3;
ld.global.u32 %r2, [%rd4];
{body}
st.global.u32 [%rd5], %r3;
ret;
}}
"
    )
}

fn run(body: &str, input: &[u32]) -> Vec<u32> {
    let mut input = input.to_vec();
    let mut output = vec![0; input.len()];
    let threads = input.len() as u32;
    Bench::new(&warp_kernel(body))
        .run(
            "k",
            line(threads),
            &mut [Arg::Words(&mut input), Arg::Words(&mut output)],
        )
        .unwrap_or_else(|error| panic!("{error}\n{body}"));
    output
}

/// The ISA's pseudo code: source lane and predicate.
fn shfl(mode: &str, lane: u32, b: u32, c: u32) -> (u32, bool) {
    let (b, clamp, segment) = (b & 0x1f, c & 0x1f, (c >> 8) & 0x1f);
    let max_lane = (lane & segment) | (clamp & !segment);
    let min_lane = lane & segment;
    let (j, p) = match mode {
        "up" => {
            let j = lane as i64 - i64::from(b);
            (j, j >= i64::from(max_lane))
        }
        "down" => {
            let j = i64::from(lane + b);
            (j, j <= i64::from(max_lane))
        }
        "bfly" => {
            let j = i64::from(lane ^ b);
            (j, j <= i64::from(max_lane))
        }
        _ => {
            let j = i64::from(min_lane | (b & !segment));
            (j, j <= i64::from(max_lane))
        }
    };
    (if p { j as u32 } else { lane }, p)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn shuffles(input in proptest::collection::vec(any::<u32>(), 32), b in 0u32..40, width in 0u32..6) {
        let segment = (32 - (1 << width)) << 8;
        for mode in ["up", "down", "bfly", "idx"] {
            let c = segment | if mode == "up" { 0 } else { 0x1f };
            let got = run(
                &format!("shfl.sync.{mode}.b32 %r3|%p1, %r2, {b}, {c}, -1; selp.b32 %r4, 1, 0, %p1; xor.b32 %r3, %r3, %r4;"),
                &input,
            );
            for lane in 0..32 {
                let (source, within) = shfl(mode, lane, b, c);
                prop_assert_eq!(got[lane as usize], input[source as usize] ^ u32::from(within), "{} {} {:#x}", mode, b, c);
            }
        }
    }

    #[test]
    fn votes(input in proptest::collection::vec(0u32..3, 32)) {
        let ballot = (0..32).fold(0, |mask, lane| mask | u32::from(input[lane] == 1) << lane);
        for (instruction, want) in [
            ("vote.sync.ballot.b32 %r3, %p1, -1;", ballot),
            ("vote.sync.ballot.b32 %r3, !%p1, 0xffffffff;", !ballot),
            ("vote.sync.all.pred %p2, %p1, -1; selp.b32 %r3, 1, 0, %p2;", u32::from(ballot == u32::MAX)),
            ("vote.sync.any.pred %p2, %p1, -1; selp.b32 %r3, 1, 0, %p2;", u32::from(ballot != 0)),
            ("vote.sync.uni.pred %p2, %p1, -1; selp.b32 %r3, 1, 0, %p2;", u32::from(ballot == 0 || ballot == u32::MAX)),
        ] {
            let got = run(&format!("setp.eq.u32 %p1, %r2, 1; {instruction}"), &input);
            prop_assert_eq!(got, vec![want; 32], "{}", instruction);
        }
    }

    #[test]
    fn matches(input in proptest::collection::vec(0u32..4, 32)) {
        let any = run("match.any.sync.b32 %r3, %r2, -1;", &input);
        let wide = run("cvt.u64.u32 %rd6, %r2; shl.b64 %rd6, %rd6, 33; match.any.sync.b64 %r3, %rd6, -1;", &input);
        for lane in 0..32 {
            let want = (0..32).fold(0, |mask, other| mask | u32::from(input[other] == input[lane]) << other);
            prop_assert_eq!(any[lane], want);
            prop_assert_eq!(wide[lane], want);
        }
        let same = input.iter().all(|&value| value == input[0]);
        let all = run("match.all.sync.b32 %r3|%p1, %r2, -1;", &input);
        prop_assert_eq!(all, vec![if same { u32::MAX } else { 0 }; 32]);
    }

    #[test]
    fn reductions(input in proptest::collection::vec(any::<u32>(), 32)) {
        let signed = || input.iter().map(|&value| value as i32);
        for (op, want) in [
            ("add.u32", input.iter().fold(0u32, |sum, &value| sum.wrapping_add(value))),
            ("add.s32", input.iter().fold(0u32, |sum, &value| sum.wrapping_add(value))),
            ("min.u32", *input.iter().min().unwrap()),
            ("max.u32", *input.iter().max().unwrap()),
            ("min.s32", signed().min().unwrap() as u32),
            ("max.s32", signed().max().unwrap() as u32),
            ("and.b32", input.iter().fold(u32::MAX, |all, &value| all & value)),
            ("or.b32", input.iter().fold(0, |all, &value| all | value)),
            ("xor.b32", input.iter().fold(0, |all, &value| all ^ value)),
        ] {
            let got = run(&format!("redux.sync.{op} %r3, %r2, -1;"), &input);
            prop_assert_eq!(got, vec![want; 32], "{}", op);
        }
    }

    /// Groups of lanes with member masks of their own do not see each other.
    #[test]
    fn groups(input in proptest::collection::vec(any::<u32>(), 32)) {
        let body = "and.b32 %r4, %r1, 24; shl.b32 %r5, 255, %r4; redux.sync.max.u32 %r3, %r2, %r5;";
        let got = run(body, &input);
        for (group, input) in got.chunks(8).zip(input.chunks(8)) {
            prop_assert_eq!(group, [*input.iter().max().unwrap(); 8]);
        }
    }
}

#[test]
fn elect_and_activemask() {
    let input: Vec<u32> = (0..32).collect();
    let elected = run(
        "elect.sync %r4|%p1, -1; selp.b32 %r3, 100, 0, %p1; add.u32 %r3, %r3, %r4;",
        &input,
    );
    assert_eq!(elected[0], 100);
    assert!(elected[1..].iter().all(|&value| value == 0));
    let active = run(
        "mov.u32 %r3, 0; setp.lt.u32 %p1, %r1, 5; @%p1 activemask.b32 %r3;",
        &input,
    );
    assert_eq!(active[..6], [31, 31, 31, 31, 31, 0]);
}

/// Waiting for time to pass, or for grids that are over, changes nothing.
#[test]
fn waiting_without_effect() {
    let input: Vec<u32> = (0..32).map(|i| i * 1000).collect();
    let body = "nanosleep.u32 100; nanosleep.u32 %r2; griddepcontrol.wait; griddepcontrol.launch_dependents; mov.u32 %r3, %r2;";
    assert_eq!(run(body, &input), input);
}

#[test]
fn special_registers() {
    let ptx = format!(
        "{HEADER}
.visible .entry k(.param .u64 output)
{{
.reg .b32 %r<24>;
.reg .b64 %rd<8>;
ld.param.u64 %rd1, [output];
mov.u32 %r1, %tid.x; mov.u32 %r2, %tid.y; mov.u32 %r3, %tid.z;
mov.u32 %r4, %ntid.x; mov.u32 %r5, %ntid.y; mov.u32 %r6, %ntid.z;
mov.u32 %r7, %ctaid.x; mov.u32 %r8, %ctaid.y; mov.u32 %r9, %ctaid.z;
mov.u32 %r10, %nctaid.x; mov.u32 %r11, %nctaid.y; mov.u32 %r12, %nctaid.z;
mov.u32 %r13, %laneid; mov.u32 %r14, %warpid; mov.u32 %r15, %nwarpid;
mov.u32 %r16, %lanemask_lt; mov.u32 %r17, WARP_SZ; mov.u32 %r18, %dynamic_smem_size;
// Linear thread: (((block z * 3 + y) * 2 + x) * 60) + thread.
mad.lo.u32 %r19, %r9, %r11, %r8;
mad.lo.u32 %r19, %r19, %r10, %r7;
mad.lo.u32 %r20, %r3, %r5, %r2;
mad.lo.u32 %r20, %r20, %r4, %r1;
mad.lo.u32 %r19, %r19, 60, %r20;
mul.wide.u32 %rd2, %r19, 32;
add.s64 %rd3, %rd1, %rd2;
st.global.v4.u32 [%rd3], {{%r20, %r13, %r14, %r15}};
st.global.v4.u32 [%rd3+16], {{%r16, %r17, %r18, %r12}};
ret;
}}
"
    );
    let shape = LaunchConfig {
        grid: [2, 3, 2],
        block: [5, 4, 3],
        dynamic_shared: 48,
        cooperative: false,
    };
    let mut output = vec![0; 12 * 60 * 8];
    Bench::new(&ptx)
        .run("k", shape, &mut [Arg::Words(&mut output)])
        .unwrap();
    for (index, words) in output.chunks_exact(8).enumerate() {
        let thread = index as u32 % 60;
        let lane = thread % 32;
        assert_eq!(
            words,
            [thread, lane, thread / 32, 2, (1 << lane) - 1, 32, 48, 2]
        );
    }
}

/// A block-wide sum through shared memory, and the barrier's own reductions.
#[test]
fn barriers() {
    let ptx = format!(
        "{HEADER}
.visible .entry k(.param .u64 output)
{{
.reg .pred %p<6>;
.reg .b32 %r<12>;
.reg .b64 %rd<8>;
.shared .align 4 .b32 cells[100];
ld.param.u64 %rd1, [output];
mov.u32 %r1, %tid.x;
shl.b32 %r2, %r1, 2;
mov.u32 %r3, cells;
add.u32 %r4, %r3, %r2;
st.shared.u32 [%r4], %r1;
barrier.sync 1;
sub.u32 %r5, 99, %r1;
shl.b32 %r5, %r5, 2;
add.u32 %r5, %r3, %r5;
ld.shared.u32 %r6, [%r5];
setp.lt.u32 %p1, %r1, 70;
bar.red.popc.u32 %r7, 0, %p1;
bar.red.and.pred %p2, 0, %p1;
bar.red.or.pred %p3, 0, !%p1;
barrier.cta.red.or.aligned.pred %p4, 2, 0, %p1;
selp.u32 %r8, 1, 0, %p2;
selp.u32 %r9, 2, 0, %p3;
selp.u32 %r10, 4, 0, %p4;
add.u32 %r8, %r8, %r9;
add.u32 %r8, %r8, %r10;
mul.wide.u32 %rd2, %r1, 16;
add.s64 %rd3, %rd1, %rd2;
st.global.v4.u32 [%rd3], {{%r6, %r7, %r8, %r1}};
ret;
}}
"
    )
    .replace(
        "barrier.cta.red.or.aligned.pred %p4, 2, 0, %p1;",
        "barrier.cta.red.or.aligned.pred %p4, 2, %p1;",
    );
    let mut output = vec![0; 400];
    Bench::new(&ptx)
        .run("k", line(100), &mut [Arg::Words(&mut output)])
        .unwrap();
    for (thread, words) in output.chunks_exact(4).enumerate() {
        assert_eq!(words, [99 - thread as u32, 70, 6, thread as u32]);
    }
}

/// Producers arrive without waiting, consumers wait for them: two warps each.
#[test]
fn named_barriers() {
    let ptx = format!(
        "{HEADER}
.visible .entry k(.param .u64 output)
{{
.reg .pred %p<3>;
.reg .b32 %r<12>;
.reg .b64 %rd<8>;
.shared .align 4 .b32 cells[64];
ld.param.u64 %rd1, [output];
mov.u32 %r1, %tid.x;
mov.u32 %r2, cells;
and.b32 %r3, %r1, 63;
shl.b32 %r4, %r3, 2;
add.u32 %r5, %r2, %r4;
setp.lt.u32 %p1, %r1, 64;
@%p1 bra consume;
mul.lo.u32 %r6, %r3, 5;
st.shared.u32 [%r5], %r6;
bar.arrive 3, 128;
exit;
consume:
bar.sync 3, 128;
xor.b32 %r7, %r4, 4;
add.u32 %r7, %r2, %r7;
ld.shared.u32 %r8, [%r7];
mul.wide.u32 %rd2, %r1, 4;
add.s64 %rd3, %rd1, %rd2;
st.global.u32 [%rd3], %r8;
ret;
}}
"
    );
    let mut output = vec![0; 64];
    Bench::new(&ptx)
        .run("k", line(128), &mut [Arg::Words(&mut output)])
        .unwrap();
    let want: Vec<u32> = (0..64).map(|thread| (thread ^ 1) * 5).collect();
    assert_eq!(output, want);
}

/// Counts of a barrier are of whole warps: 40 threads are two of them, and count as 64.
#[test]
fn barrier_counts_are_of_whole_warps() {
    let ptx = format!(
        "{HEADER}
.visible .entry k(.param .u64 output)
{{
.reg .b32 %r<8>;
.reg .b64 %rd<4>;
.shared .align 4 .b32 cells[40];
ld.param.u64 %rd1, [output];
mov.u32 %r1, %tid.x;
shl.b32 %r2, %r1, 2;
mov.u32 %r3, cells;
add.u32 %r4, %r3, %r2;
st.shared.u32 [%r4], %r1;
bar.sync 5, 64;
sub.u32 %r5, 156, %r2;
add.u32 %r5, %r3, %r5;
ld.shared.u32 %r6, [%r5];
mul.wide.u32 %rd2, %r1, 4;
add.s64 %rd3, %rd1, %rd2;
st.global.u32 [%rd3], %r6;
ret;
}}
"
    );
    let mut output = vec![0; 40];
    Bench::new(&ptx)
        .run("k", line(40), &mut [Arg::Words(&mut output)])
        .unwrap();
    assert_eq!(output, (0..40).rev().collect::<Vec<u32>>());
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
        let config = ptx_emulator::Config {
            seed,
            ..Default::default()
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
