//! `mbarrier`, each thread alone with an object of its own: counts and phases by what the ISA says of them.

use proptest::prelude::*;

use super::family::{Code, Family, THREADS, gives_all, random};
use super::harness::Operands;
use super::syntax::Form;

/// Two counts, the second one less than the first or equal, and two numbers of bytes.
fn counts(_: &Form) -> Vec<Operands> {
    let count = || prop_oneof![1..5u64, 1..=0xf_ffffu64];
    let bytes = || prop_oneof![Just(0), 1..5u64, 1..=0x7_ffffu64];
    let one = (count(), count(), bytes(), bytes())
        .prop_map(|(a, b, bytes, more)| [a.max(b), a.min(b), bytes, more]);
    random(proptest::collection::vec(one, THREADS))
}

/// As [`counts`], the second one less than the first.
fn lesser(form: &Form) -> Vec<Operands> {
    let mut counts = counts(form);
    for [a, b, ..] in &mut counts {
        *a = (*a).max(2);
        *b = (*b).min(*a - 1);
    }
    counts
}

/// `{at}` is the object's address: of shared memory, or generic.
fn placed(form: &Form, text: &str) -> String {
    let shared = form.one_of(&["shared", "shared::cta", "shared::cluster"]);
    text.replace(
        "{at}",
        if shared.is_some() {
            "%shared"
        } else {
            "%shared_generic"
        },
    )
}

const REGISTERS: &str = ".reg .b64 %state;\n.reg .b32 %left;\n.reg .pred %any;\n";

fn family(
    syntax: &'static str,
    text: &'static str,
    results: &'static [u32],
    expected: fn(Operands) -> Operands,
) -> Family {
    Family::new(
        syntax,
        move |form| {
            let text = format!("{REGISTERS}{}", placed(form, text));
            Code::new(text, results, &[32; 4])
        },
        counts,
        gives_all(move |_, operands| expected(operands)),
    )
}

/// Arrivals of `count` threads, one where it is no operand, on an object that expects `{a}` of them. The results: what was pending
/// before, whether the phase is over, what is pending now, and what is pending at the start of the next phase.
fn arrivals(syntax: &'static str, to: &'static str, count: &'static str) -> Family {
    Family::new(
        syntax,
        move |form| {
            let state = match to {
                "_" => "mov.b32 {d}, 0;",
                _ => "mbarrier.pending_count.b64 {d}, %state;",
            };
            let bytes = match form.has("expect_tx") {
                true => "mbarrier.complete_tx.shared.b64 [%shared], {c};",
                false => "",
            };
            let text = format!(
                "{REGISTERS}mbarrier.init.shared.b64 [%shared], {{a}};
{{form}} {to}, [{{at}}]{count};
{state}
mbarrier.test_wait.parity.shared.b64 {{d1}}, [%shared], 0;
{bytes}
mbarrier.arrive.shared.b64 %state, [%shared];
mbarrier.pending_count.b64 {{d2}}, %state;
sub.u32 %left, {{d2}}, 1;
setp.ne.u32 %any, %left, 0;
@%any mbarrier.arrive.shared.b64 _, [%shared], %left;
mbarrier.arrive.shared.b64 %state, [%shared];
mbarrier.pending_count.b64 {{d3}}, %state;
mbarrier.inval.shared.b64 [%shared];"
            );
            Code::new(placed(form, &text), &[32, 1, 32, 32], &[32; 4])
        },
        |form| {
            let fewer = form.has("arrive_drop") || form.has("noComplete");
            if fewer { lesser(form) } else { counts(form) }
        },
        gives_all(move |form, [a, b, c, _]| {
            let arriving = if count == ", {b}" { b } else { 1 };
            let bytes = if form.has("expect_tx") { c } else { 0 };
            let next = if form.has("arrive_drop") {
                a - arriving
            } else {
                a
            };
            let before = if to == "_" { 0 } else { a };
            let now = if arriving == a { next } else { a - arriving };
            [before, u64::from(arriving == a && bytes == 0), now, next]
        }),
    )
}

/// A wait before and after the end of a phase.
fn waits(syntax: &'static str, hint: &'static str) -> Family {
    Family::new(
        syntax,
        move |form| {
            let wait = |result: &str, operand: &str| {
                format!("{{form}} {{{result}}}, [{{at}}], {operand}{hint};\n")
            };
            let [first, second, other, start] = match form.has("parity") {
                true => [
                    wait("d", "0"),
                    wait("d1", "0"),
                    wait("d2", "1"),
                    wait("d3", "1"),
                ],
                false => {
                    let nothing = "setp.ne.u32 {d2}, {a}, {a};\nsetp.ne.u32 {d3}, {a}, {a};\n";
                    [
                        wait("d", "%state"),
                        wait("d1", "%state"),
                        nothing.to_owned(),
                        String::new(),
                    ]
                }
            };
            let text = format!(
                "{REGISTERS}mbarrier.init.shared.b64 [%shared], {{a}};
{start}mbarrier.arrive.shared.b64 %state, [%shared];
{first}sub.u32 %left, {{a}}, 1;
setp.ne.u32 %any, %left, 0;
@%any mbarrier.arrive.shared.b64 _, [%shared], %left;
{second}{other}mbarrier.inval.shared.b64 [%shared];"
            );
            Code::new(placed(form, &text), &[1; 4], &[32; 4])
        },
        counts,
        gives_all(|form, [a, ..]| {
            // Before the first phase is over, that of the other parity, before it, is.
            [u64::from(a == 1), 1, 0, form.has("parity").into()]
        }),
    )
}

pub fn families() -> Vec<Family> {
    let mut families = vec![
        family(
            "mbarrier.init{.shared,.shared::cta}.b64",
            "{form} [{at}], {a};
mbarrier.arrive.shared.b64 %state, [%shared];
mbarrier.pending_count.b64 {d}, %state;
mbarrier.test_wait.parity.shared.b64 {d1}, [%shared], 0;
mbarrier.inval.shared.b64 [%shared];",
            &[32, 1],
            |[a, ..]| [a, u64::from(a == 1), 0, 0],
        ),
        family(
            "mbarrier.inval{.shared,.shared::cta}.b64",
            "mbarrier.init.shared.b64 [%shared], {a};
{form} [{at}];
st.shared.v2.b32 [%shared], {{b}, {c}};
ld.shared.v2.b32 {{d}, {d1}}, [%shared];",
            &[32, 32],
            |[_, b, c, _]| [b, c, 0, 0],
        ),
        family(
            "mbarrier.expect_tx{.relaxed.cta,.relaxed.cluster}{.shared,.shared::cta,.shared::cluster}.b64",
            "mbarrier.init.shared.b64 [%shared], 1;
{form} [{at}], {c};
mbarrier.arrive.shared.b64 %state, [%shared];
mbarrier.test_wait.shared.b64 {d}, [%shared], %state;
mbarrier.complete_tx.shared.b64 [%shared], {c};
mbarrier.test_wait.shared.b64 {d1}, [%shared], %state;
mbarrier.inval.shared.b64 [%shared];",
            &[1, 1],
            |[_, _, bytes, _]| [u64::from(bytes == 0), 1, 0, 0],
        ),
        family(
            "mbarrier.complete_tx{.relaxed.cta,.relaxed.cluster}{.shared,.shared::cta,.shared::cluster}.b64",
            "mbarrier.init.shared.b64 [%shared], 1;
mbarrier.expect_tx.shared.b64 [%shared], {c};
mbarrier.arrive.expect_tx.shared.b64 %state, [%shared], {e};
{form} [{at}], {c};
mbarrier.test_wait.shared.b64 {d}, [%shared], %state;
mbarrier.complete_tx.shared.b64 [%shared], {e};
mbarrier.test_wait.shared.b64 {d1}, [%shared], %state;
mbarrier.inval.shared.b64 [%shared];",
            &[1, 1],
            |[_, _, _, more]| [u64::from(more == 0), 1, 0, 0],
        ),
        family(
            "mbarrier.pending_count.b64",
            "mbarrier.init.shared.b64 [%shared], {a};
mbarrier.arrive.shared.b64 %state, [%shared];
{form} {d}, %state;
mbarrier.inval.shared.b64 [%shared];",
            &[32],
            |[a, ..]| [a, 0, 0, 0],
        ),
        arrivals(
            "mbarrier.{arrive,arrive_drop}.noComplete{.release.cta}{.shared,.shared::cta}.b64",
            "%state",
            ", {b}",
        ),
        arrivals(
            "mbarrier.{arrive,arrive_drop}.noComplete{.release.cta}{.shared,.shared::cta}.b64",
            "_",
            ", {b}",
        ),
    ];
    macro_rules! arrive {
        ($kind:literal, $spaces:literal) => {
            concat!(
                "mbarrier.{arrive,arrive_drop}",
                $kind,
                "{.release.cta,.release.cluster,.relaxed.cta,.relaxed.cluster}",
                $spaces,
                ".b64"
            )
        };
    }
    for count in ["", ", {b}"] {
        families.push(arrivals(
            arrive!("", "{.shared,.shared::cta}"),
            "%state",
            count,
        ));
        // The state is not given where the object may be another block's.
        families.push(arrivals(
            arrive!("", "{.shared,.shared::cta,.shared::cluster}"),
            "_",
            count,
        ));
    }
    families.push(arrivals(
        arrive!(".expect_tx", "{.shared,.shared::cta}"),
        "%state",
        ", {c}",
    ));
    families.push(arrivals(
        arrive!(".expect_tx", "{.shared,.shared::cta,.shared::cluster}"),
        "_",
        ", {c}",
    ));
    let orders = "mbarrier.{test_wait,try_wait}{.parity}{.acquire.cta,.acquire.cluster,.relaxed.cta,.relaxed.cluster}\
{.shared,.shared::cta}.b64";
    families.push(waits(orders, ""));
    // At most that many nanoseconds.
    families.push(waits(
        "mbarrier.try_wait{.parity}{.acquire.cta,.acquire.cluster,.relaxed.cta,.relaxed.cluster}{.shared,.shared::cta}.b64",
        ", {e}",
    ));
    families
}
