//! What lanes of a warp do together, against a plain computation over the lanes of each group.

use proptest::collection::vec;
use proptest::prelude::*;
use ptx_emulator::LaunchConfig;

use super::family::{Code, Family, THREADS, random};
use super::harness::{Arg, Bench, HEADER, Operands, line};
use super::integer::low;
use super::syntax::{Form, expand};

/// What each lane gets, from the operands of its warp.
fn each_lane(
    expected: impl Fn(&Form, &[Operands], usize) -> Operands + 'static,
) -> impl Fn(&Form, &[Operands], &[Operands]) -> Result<(), String> + 'static {
    move |form, inputs, outputs| {
        for (warp, outputs) in inputs.chunks(32).zip(outputs.chunks(32)) {
            for (lane, got) in outputs.iter().enumerate() {
                let want = expected(form, warp, lane);
                if *got != want {
                    return Err(format!(
                        "lane {lane} got {got:x?}, expected {want:x?}, of {warp:x?}"
                    ));
                }
            }
        }
        Ok(())
    }
}

/// The lanes of a member mask.
fn members(mask: u64) -> impl Iterator<Item = usize> + Clone {
    (0..32).filter(move |lane| mask >> lane & 1 != 0)
}

/// A mask of lanes.
fn mask_of(lanes: impl Iterator<Item = usize>) -> u64 {
    lanes.fold(0, |mask, lane| mask | 1 << lane)
}

/// Whether a set of lanes is all of a warp, none of it, or some.
fn truths() -> impl Strategy<Value = Vec<u64>> {
    prop_oneof![Just(vec![0; 32]), Just(vec![1; 32]), vec(0u64..2, 32)]
}

/// Each lane's member mask: a warp of one group, or of four.
fn groups() -> impl Strategy<Value = Vec<u64>> {
    prop_oneof![Just(vec![0; 32]), vec(0u32..4, 32)].prop_map(|group| {
        let mask = |of| mask_of((0..32).filter(|&lane| group[lane] == of));
        group.iter().map(|&of| mask(of)).collect()
    })
}

/// Tuples for two warps, of what a strategy gives for one.
fn two_warps(warp: impl Strategy<Value = Vec<Operands>>) -> Vec<Operands> {
    random(vec(warp, THREADS / 32)).concat()
}

/// The ISA's pseudo code of `shfl`: source lane, and whether it is within the segment.
fn shuffle(form: &Form, lane: usize, b: u64, c: u64) -> (usize, bool) {
    let lane = lane as i64;
    let (b, clamp, segment) = ((b & 31) as i64, (c & 31) as i64, (c >> 8 & 31) as i64);
    let max_lane = (lane & segment) | (clamp & !segment);
    let min_lane = lane & segment;
    let (j, within) = match form.one_of(&["up", "down", "bfly", "idx"]) {
        Some("up") => (lane - b, lane - b >= max_lane),
        Some("down") => (lane + b, lane + b <= max_lane),
        Some("bfly") => (lane ^ b, lane ^ b <= max_lane),
        _ => {
            let j = min_lane | (b & !segment);
            (j, j <= max_lane)
        }
    };
    (if within { j } else { lane } as usize, within)
}

const SHUFFLE: &str = "shfl.sync.{up,down,bfly,idx}.b32";

fn shuffles() -> [Family; 2] {
    let any = |_: &Form| two_warps(vec(any::<Operands>(), 32));
    // Even and odd lanes by themselves: distances are even, and indices as odd as the lane.
    let by_parity = move |form: &Form| {
        let idx = form.has("idx");
        let mut tuples = any(form);
        for (thread, [_, b, _, mask]) in tuples.iter_mut().enumerate() {
            let odd = thread as u64 & 1;
            *b = *b & !1 | if idx { odd } else { 0 };
            *mask = 0x5555_5555 << odd;
        }
        tuples
    };
    [
        Family::new(
            SHUFFLE,
            |_| Code::new("{form} {d}|{d1}, {a}, {b}, {c}, -1;", &[32, 1], &[32; 3]),
            any,
            each_lane(|form, warp, lane| {
                let [_, b, c, _] = warp[lane];
                let (source, within) = shuffle(form, lane, b, c);
                [warp[source][0] & 0xffff_ffff, within.into(), 0, 0]
            }),
        ),
        Family::new(
            SHUFFLE,
            |_| Code::new("{form} {d}, {a}, {b}, {c}, {e};", &[32], &[32; 4]),
            by_parity,
            each_lane(|form, warp, lane| {
                let [_, b, c, _] = warp[lane];
                let (source, _) = shuffle(form, lane, b, c);
                [warp[source][0] & 0xffff_ffff, 0, 0, 0]
            }),
        ),
    ]
}

/// Every distance, clamp and segment, one for each block.
#[test]
fn all_shuffles() {
    for form in expand(SHUFFLE) {
        let ptx = format!(
            "{HEADER}
.visible .entry k(.param .u64 output)
{{
.reg .pred %p1;
.reg .b32 %r<9>;
.reg .b64 %rd<3>;
mov.u32 %r1, %tid.x;
mov.u32 %r2, %ctaid.x;
mov.u32 %r3, %ctaid.y;
mov.u32 %r4, %ctaid.z;
mad.lo.u32 %r5, %r4, 256, %r3;
{form} %r6|%p1, %r1, %r2, %r5, -1;
selp.b32 %r7, 32, 0, %p1;
or.b32 %r6, %r6, %r7;
mad.lo.u32 %r7, %r4, 32, %r3;
mad.lo.u32 %r7, %r7, 32, %r2;
mad.lo.u32 %r7, %r7, 32, %r1;
ld.param.u64 %rd1, [output];
cvt.u64.u32 %rd2, %r7;
add.u64 %rd1, %rd1, %rd2;
st.global.b8 [%rd1], %r6;
ret;
}}
"
        );
        let shape = LaunchConfig {
            grid: [32; 3],
            ..line(32)
        };
        let mut output = vec![0; 1 << 20];
        Bench::new(&ptx)
            .run("k", shape, &mut [Arg::Bytes(&mut output)])
            .unwrap();
        for (at, got) in output.iter().enumerate() {
            let [lane, b, clamp, segment] = [0, 5, 10, 15].map(|shift| at >> shift & 31);
            let (source, within) = shuffle(&form, lane, b as u64, (segment << 8 | clamp) as u64);
            let want = source | usize::from(within) << 5;
            assert_eq!(
                usize::from(*got),
                want,
                "{form} of lane {lane}, {b}, {clamp}, {segment}"
            );
        }
    }
}

fn vote(syntax: &'static str, text: &'static str, negated: bool) -> Family {
    Family::new(
        syntax,
        move |form| Code::new(text, &[if form.has("ballot") { 32 } else { 1 }], &[1, 32]),
        |_| {
            two_warps((truths(), groups()).prop_map(|(truths, masks)| {
                let pairs = truths.into_iter().zip(masks);
                pairs.map(|(truth, mask)| [truth, mask, 0, 0]).collect()
            }))
        },
        each_lane(move |form, warp, lane| {
            let group = warp[lane][1];
            let ballot = mask_of(members(group).filter(|&lane| (warp[lane][0] != 0) != negated));
            let result = match form.one_of(&["all", "any", "uni", "ballot"]) {
                Some("all") => (ballot == group).into(),
                Some("any") => (ballot != 0).into(),
                Some("uni") => (ballot == group || ballot == 0).into(),
                _ => ballot,
            };
            [result, 0, 0, 0]
        }),
    )
}

/// Values of which lanes of a group have few different ones, some of them different in the upper half only.
fn few_values() -> impl Strategy<Value = Vec<Operands>> {
    let odd_one = prop_oneof![12 => Just(0u64), 1 => Just(1), 1 => Just(1 << 32)];
    (any::<u64>(), vec(odd_one, 32), groups()).prop_map(|(value, odd_ones, masks)| {
        let pairs = odd_ones.into_iter().zip(masks);
        pairs.map(|(odd, mask)| [value ^ odd, mask, 0, 0]).collect()
    })
}

/// `match`, with the results that the text names: a mask in `{d}`, a predicate in `{p}`.
fn matches(syntax: &'static str, results: &'static str) -> Family {
    let (row, pred) = (results.contains("{d}"), results.contains("{p}"));
    let names = if row { ["{d}", "{d1}"] } else { ["", "{d}"] };
    let text = format!(
        "{{form}} {}, {{a}}, {{b}};",
        results.replace("{p}", names[1])
    );
    let mut bits = Vec::new();
    bits.extend(row.then_some(32));
    bits.extend(pred.then_some(1));
    Family::new(
        syntax,
        move |form| Code::new(text.clone(), &bits, &[form.ty().bits, 32]),
        |_| two_warps(few_values()),
        each_lane(move |form, warp, lane| {
            let value = |lane: usize| low(warp[lane][0], form.ty().bits, false);
            let group = warp[lane][1];
            let same = mask_of(members(group).filter(|&other| value(other) == value(lane)));
            let all = same == group;
            let mask = if form.has("any") || all { same } else { 0 };
            match (row, pred) {
                (true, true) => [mask, all.into(), 0, 0],
                (true, false) => [mask, 0, 0, 0],
                _ => [all.into(), 0, 0, 0],
            }
        }),
    )
}

fn redux() -> Family {
    Family::new(
        "redux.sync.{add.u32,add.s32,min.u32,min.s32,max.u32,max.s32,and.b32,or.b32,xor.b32}",
        |_| Code::new("{form} {d}, {a}, {b};", &[32], &[32, 32]),
        |_| {
            let value = || super::harness::operand();
            two_warps((vec(value(), 32), groups()).prop_map(|(values, masks)| {
                let pairs = values.into_iter().zip(masks);
                pairs.map(|(value, mask)| [value, mask, 0, 0]).collect()
            }))
        },
        each_lane(|form, warp, lane| {
            let signed = form.ty().is_signed();
            let mut values = members(warp[lane][1]).map(|lane| low(warp[lane][0], 32, signed));
            let result = match form.words[2] {
                "add" => values.sum(),
                "min" => values.min().unwrap_or(0),
                "max" => values.max().unwrap_or(0),
                "and" => values.fold(-1, |all, value| all & value),
                "or" => values.fold(0, |all, value| all | value),
                _ => values.by_ref().fold(0, |all, value| all ^ value),
            };
            [(result & 0xffff_ffff) as u64, 0, 0, 0]
        }),
    )
}

/// The ISA leaves open which lane of a group is elected: it is one, and all know which.
fn elect(text: &'static str, named: bool) -> Family {
    Family::new(
        "elect.sync",
        move |_| Code::new(text, if named { &[1, 32] } else { &[1] }, &[32]),
        |_| {
            two_warps(
                groups().prop_map(|masks| masks.iter().map(|&mask| [mask, 0, 0, 0]).collect()),
            )
        },
        move |_, inputs, outputs| {
            for (warp, outputs) in inputs.chunks(32).zip(outputs.chunks(32)) {
                for [mask, ..] in warp {
                    let leaders: Vec<_> = members(*mask)
                        .filter(|&lane| outputs[lane][0] != 0)
                        .collect();
                    let [leader] = leaders[..] else {
                        return Err(format!("of {mask:#x}, {leaders:?} were elected"));
                    };
                    if named && members(*mask).any(|lane| outputs[lane][1] != leader as u64) {
                        return Err(format!("lanes of {mask:#x} do not know of lane {leader}"));
                    }
                }
            }
            Ok(())
        },
    )
}

/// Each lane writes its cell of shared memory, and reads that of the next lane of its group.
fn warp_barrier() -> Family {
    let text = "st.shared.b32 [%shared], {a};
mov.u32 {d}, tile;
mad.lo.u32 {d}, {c}, 64, {d};
{form} {b};
ld.shared.b32 {d}, [{d}];
bar.sync 0;";
    Family::new(
        "bar.warp.sync",
        move |_| Code::new(text, &[32], &[32; 3]),
        |_| {
            let mut tuples = two_warps((vec(any::<u64>(), 32), groups()).prop_map(
                |(values, masks)| {
                    let pairs = values.into_iter().zip(masks);
                    pairs.map(|(value, mask)| [value, mask, 0, 0]).collect()
                },
            ));
            for (thread, [_, mask, next, _]) in tuples.iter_mut().enumerate() {
                let mut around = members(*mask)
                    .cycle()
                    .skip_while(|&lane| lane != thread % 32);
                *next = (thread / 32 * 32 + around.nth(1).expect("a lane")) as u64;
            }
            tuples
        },
        each_lane(|_, warp, lane| [warp[warp[lane][2] as usize % 32][0] & 0xffff_ffff, 0, 0, 0]),
    )
}

pub fn families() -> Vec<Family> {
    let mut families = vec![
        vote(
            "vote.sync.{all,any,uni}.pred",
            "{form} {d}, {a}, {b};",
            false,
        ),
        vote(
            "vote.sync.{all,any,uni}.pred",
            "{form} {d}, !{a}, {b};",
            true,
        ),
        vote("vote.sync.ballot.b32", "{form} {d}, {a}, {b};", false),
        vote("vote.sync.ballot.b32", "{form} {d}, !{a}, {b};", true),
        matches("match.any.sync.{b32,b64}", "{d}"),
        matches("match.all.sync.{b32,b64}", "{d}|{p}"),
        matches("match.all.sync.{b32,b64}", "{d}"),
        matches("match.all.sync.{b32,b64}", "_|{p}"),
        redux(),
        elect("{form} {d1}|{d}, {a};", true),
        elect("{form} _|{d}, {a};", false),
        Family::new(
            "activemask.b32",
            |_| Code::new("mov.b32 {d}, 0;\n@{a} {form} {d};", &[32], &[1]),
            |_| {
                let tuple = |truth| [truth, 0, 0, 0];
                two_warps(truths().prop_map(move |truths| truths.into_iter().map(tuple).collect()))
            },
            each_lane(|_, warp, lane| {
                let active = mask_of((0..32).filter(|&lane| warp[lane][0] != 0));
                [if warp[lane][0] != 0 { active } else { 0 }, 0, 0, 0]
            }),
        ),
        warp_barrier(),
    ];
    families.extend(shuffles());
    families
}

/// What stands where a result is to be.
#[test]
fn results_that_are_refused() {
    for (instruction, words) in [
        ("shfl.sync.up.b32 _|%p1, %r1, 1, 0, -1;", "cannot be `_`"),
        ("vote.sync.all.pred _, %p1, -1;", "cannot be `_`"),
        ("redux.sync.add.u32 _, %r1, -1;", "cannot be `_`"),
        ("activemask.b32 _;", "cannot be `_`"),
        ("match.any.sync.b32 %r1|%p1, %r2, -1;", "result of `.all`"),
        ("elect.sync %r1, -1;", "needs a predicate"),
        ("elect.sync %r1|_, -1;", "needs a predicate"),
        ("shfl.up.b32 %r1, %r2, 1, 0;", "needs `.sync`"),
        ("vote.all.pred %p1, %p2;", "needs `.sync`"),
    ] {
        super::refused(
            &format!(".reg .pred %p<3>; .reg .b32 %r<3>; {instruction}"),
            words,
        );
    }
}
