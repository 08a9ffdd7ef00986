//! Barriers of a block, against what every thread brought.

use proptest::collection::vec;
use proptest::prelude::*;

use super::family::{Code, Family, THREADS, random};
use super::harness::{Arg, Bench, HEADER, Operands, line};
use super::syntax::Form;

const SYNC: [&str; 2] = ["bar{.cta}.sync", "barrier{.cta}.sync{.aligned}"];
const ARRIVE: [&str; 2] = ["bar{.cta}.arrive", "barrier{.cta}.arrive{.aligned}"];
const RED: [[&str; 2]; 2] = [
    [
        "bar{.cta}.red.popc.u32",
        "barrier{.cta}.red.popc{.aligned}.u32",
    ],
    [
        "bar{.cta}.red.{and,or}.pred",
        "barrier{.cta}.red.{and,or}{.aligned}.pred",
    ],
];

/// `{e}` is another thread, whose cell of shared memory is read into `{d}`.
const READ: &str = "mov.u32 {d}, tile;
mad.lo.u32 {d}, {e}, 64, {d};
ld.shared.b32 {d}, [{d}];
bar.sync 0;";

/// A value, a barrier and a number of threads for each thread, and which other thread it reads: one of so many around it.
fn exchanges(number: impl Fn(usize) -> u64, count: u64, around: usize) -> Vec<Operands> {
    let values = random(vec(any::<u64>(), THREADS));
    let threads: Vec<usize> = (0..around).collect();
    let others = random(Just(threads).prop_shuffle());
    let tuple = |(thread, value)| {
        let first = thread / around * around;
        [
            value,
            number(thread),
            count,
            (first + others[thread % around]) as u64,
        ]
    };
    values.into_iter().enumerate().map(tuple).collect()
}

/// Each thread gets the value of the other one.
fn exchanged(_: &Form, inputs: &[Operands], outputs: &[Operands]) -> Result<(), String> {
    for (thread, (input, got)) in inputs.iter().zip(outputs).enumerate() {
        let want = inputs[input[3] as usize][0] & 0xffff_ffff;
        if got[0] != want {
            return Err(format!(
                "thread {thread} got {:#x}, expected {want:#x}",
                got[0]
            ));
        }
    }
    Ok(())
}

fn sync(syntax: &'static str) -> [Family; 4] {
    let text = |operands: &str| {
        let text = format!("st.shared.b32 [%shared], {{a}};\n{{form}} {operands};\n{READ}");
        move |_: &Form| Code::new(text.clone(), &[32], &[32; 4])
    };
    [
        Family::new(syntax, text("7"), |_| exchanges(|_| 0, 0, 64), exchanged),
        // A count of 0 is none: only `.arrive` needs one.
        Family::new(syntax, text("7, 0"), |_| exchanges(|_| 0, 0, 64), exchanged),
        Family::new(
            syntax,
            text("{b}, {c}"),
            |_| exchanges(|_| 15, 64, 64),
            exchanged,
        ),
        // A barrier for each warp.
        Family::new(
            syntax,
            text("{b}, 32"),
            |_| exchanges(|thread| 3 + thread as u64 / 32, 32, 32),
            exchanged,
        ),
    ]
}

/// Lanes of a warp come to the barrier on different ways, which only `barrier` without `.aligned` allows.
fn apart_in_the_warp() -> Family {
    let text = format!(
        "{{
.reg .pred %odd;
and.b32 {{b}}, %thread, 1;
setp.ne.u32 %odd, {{b}}, 0;
@%odd bra ODD;
st.shared.b32 [%shared], {{a}};
{{form}} 9;
bra MEET;
ODD:
st.shared.b32 [%shared], {{a}};
{{form}} 9;
MEET:
}}
{READ}"
    );
    Family::new(
        "barrier{.cta}.sync",
        move |_| Code::new(text.clone(), &[32], &[32; 4]),
        |_| exchanges(|_| 0, 0, 64),
        exchanged,
    )
}

/// The lanes of a warp name two barriers in turn, at each of which the block's other warp is as well: only `barrier` without
/// `.aligned` allows it.
fn of_each_thread() -> [Family; 2] {
    let inputs = || {
        let mut tuples = exchanges(|thread| 6 + thread as u64 % 2, 32, 64);
        for (thread, [.., other]) in tuples.iter_mut().enumerate() {
            *other = (*other & !1) + thread as u64 % 2;
        }
        tuples
    };
    let text = format!("st.shared.b32 [%shared], {{a}};\n{{form}} {{b}}, {{c}};\n{READ}");
    [
        Family::new(
            "barrier{.cta}.sync",
            move |_| Code::new(text.clone(), &[32], &[32; 4]),
            move |_| inputs(),
            exchanged,
        ),
        Family::new(
            "barrier{.cta}.red.popc.u32",
            |_| {
                let text = "{ .reg .pred %odd; and.b32 {a}, {a}, 1; setp.ne.u32 %odd, {a}, 0; {form} {d}, {b}, {c}, %odd; }";
                Code::new(text, &[32], &[32; 3])
            },
            move |_| inputs(),
            |_, inputs, outputs| {
                for (input, got) in inputs.iter().zip(outputs) {
                    let there = inputs.iter().filter(|other| other[1] == input[1]);
                    let want = there.map(|other| other[0] & 1).sum::<u64>();
                    if got[0] != want {
                        return Err(format!("{} at barrier {}, not {want}", got[0], input[1]));
                    }
                }
                Ok(())
            },
        ),
    ]
}

/// One warp writes and arrives, the other one waits and reads.
fn arrive(syntax: &'static str, writers: &str, operands: &str) -> Family {
    let text = format!(
        "{{
.reg .pred %writes;
setp.{writers}.u32 %writes, %thread, 32;
mov.b32 {{d}}, {{a}};
@!%writes bra READ;
st.shared.b32 [%shared], {{a}};
{{form}} {operands};
bra DONE;
READ:
bar.sync 5, 64;
mov.u32 {{d}}, tile;
mad.lo.u32 {{d}}, {{e}}, 64, {{d}};
ld.shared.b32 {{d}}, [{{d}}];
DONE:
bar.sync 0;
}}"
    );
    let lower = writers == "lt";
    Family::new(
        syntax,
        move |_| Code::new(text.clone(), &[32], &[32; 4]),
        move |_| {
            let mut tuples = exchanges(|_| 5, 64, 64);
            for (thread, [.., other]) in tuples.iter_mut().enumerate() {
                let writes = (thread < 32) == lower;
                // A writer keeps its own value.
                *other = if writes {
                    thread
                } else {
                    *other as usize % 32 + if lower { 0 } else { 32 }
                } as u64;
            }
            tuples
        },
        exchanged,
    )
}

/// `negated` where the text has `!` before the predicate.
fn reduction(syntax: &'static str, operands: &'static str, negated: bool) -> Family {
    let bits = |form: &Form| if form.has("popc") { 32 } else { 1 };
    Family::new(
        syntax,
        move |form| {
            Code::new(
                format!("{{form}} {{d}}, {operands};"),
                &[bits(form)],
                &[1, 32, 32],
            )
        },
        |_| {
            let truths = prop_oneof![
                Just(vec![0; THREADS]),
                Just(vec![1; THREADS]),
                vec(0u64..2, THREADS)
            ];
            let tuple = |truth| [truth, 11, 64, 0];
            random(truths).into_iter().map(tuple).collect()
        },
        move |form, inputs, outputs| {
            let count = inputs
                .iter()
                .filter(|input| (input[0] != 0) != negated)
                .count();
            let want = match form.one_of(&["popc", "and", "or"]) {
                Some("popc") => count as u64,
                Some("and") => (count == THREADS).into(),
                _ => (count != 0).into(),
            };
            match outputs.iter().find(|got| got[0] != want) {
                Some(got) => Err(format!("{} for {count} true predicates", got[0])),
                None => Ok(()),
            }
        },
    )
}

pub fn families() -> Vec<Family> {
    let mut families = vec![apart_in_the_warp()];
    families.extend(of_each_thread());
    for syntax in SYNC {
        families.extend(sync(syntax));
    }
    for syntax in ARRIVE {
        families.push(arrive(syntax, "lt", "5, 64"));
        families.push(arrive(syntax, "ge", "{b}, {c}"));
    }
    for syntax in RED.into_iter().flatten() {
        families.push(reduction(syntax, "11, {a}", false));
        families.push(reduction(syntax, "{b}, {c}, !{a}", true));
    }
    families
}

/// Counts of a barrier are of whole warps: 40 threads are two of them, and count as 64.
#[test]
fn counts_are_of_whole_warps() {
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

/// All threads of a block that is no multiple of a warp bring their predicate.
#[test]
fn reductions_over_a_part_of_a_warp() {
    let ptx = format!(
        "{HEADER}
.visible .entry k(.param .u64 output)
{{
.reg .pred %p<4>;
.reg .b32 %r<8>;
.reg .b64 %rd<4>;
ld.param.u64 %rd1, [output];
mov.u32 %r1, %tid.x;
setp.lt.u32 %p1, %r1, 70;
bar.red.popc.u32 %r2, 0, !%p1;
barrier.red.and.aligned.pred %p2, 1, %p1;
barrier.cta.red.or.pred %p3, 2, !%p1;
selp.u32 %r3, 1000, 0, %p2;
selp.u32 %r4, 2000, 0, %p3;
add.u32 %r2, %r2, %r3;
add.u32 %r2, %r2, %r4;
mul.wide.u32 %rd2, %r1, 4;
add.s64 %rd3, %rd1, %rd2;
st.global.u32 [%rd3], %r2;
ret;
}}
"
    );
    let mut output = vec![0; 100];
    Bench::new(&ptx)
        .run("k", line(100), &mut [Arg::Words(&mut output)])
        .unwrap();
    assert_eq!(output, vec![2030; 100]);
}

/// Lanes at a barrier of their own go on while others wait, here for what they do next. Each executes the instruction once.
#[test]
fn barriers_of_some_lanes_open_others() {
    let ptx = format!(
        "{HEADER}
.visible .entry k(.param .u64 output)
{{
.reg .pred %p<4>;
.reg .b32 %r<8>;
.reg .b64 %rd<4>;
ld.param.u64 %rd1, [output];
mov.u32 %r1, %tid.x;
shr.u32 %r2, %r1, 4;
and.b32 %r3, %r2, 1;
setp.eq.u32 %p1, %r3, 0;
mov.u32 %r4, 64;
@%p1 mov.u32 %r4, 32;
barrier.sync %r3, %r4;
@%p1 barrier.arrive 1, 64;
mul.wide.u32 %rd2, %r1, 4;
add.s64 %rd3, %rd1, %rd2;
st.global.u32 [%rd3], %r4;
ret;
}}
"
    );
    let mut output = vec![0; 64];
    let report = Bench::new(&ptx)
        .run("k", line(64), &mut [Arg::Words(&mut output)])
        .unwrap();
    let counts: Vec<u32> = (0..64).map(|thread| 32 << (thread / 16 % 2)).collect();
    assert_eq!(output, counts);
    let mut lines = report.lines.iter();
    let barrier = lines.find(|line| line.instruction.starts_with("barrier.sync"));
    let counts = barrier.map(|line| (line.lane_instructions, line.warp_instructions));
    assert_eq!(counts, Some((64, 2)));
}

#[test]
fn operands_that_are_refused() {
    for (instruction, words) in [
        ("barrier.sync 16;", "from 0 to 15"),
        ("bar.sync 0, 63;", "multiple of 32"),
        ("bar.arrive 0;", "number of operands"),
        ("bar.arrive 0, 0;", "0 threads"),
        ("bar.sync 0, 64, 1;", "number of operands"),
        ("bar.red.popc.u32 _, 0, %p1;", "cannot be `_`"),
        ("bar.red.and.pred %p1;", "number of operands"),
        ("bar.warp.sync;", "1 operands"),
    ] {
        super::refused(&format!(".reg .pred %p<2>; {instruction}"), words);
    }
}
