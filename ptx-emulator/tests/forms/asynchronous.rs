//! Asynchronous copies: the bytes that are there after the wait.

use super::family::{Code, Family, gives_all, shared_integers};
use super::harness::Operands;
use super::load::policy;
use super::syntax::Form;

/// What is there before a copy.
const BEFORE: u64 = 0xe1e2_e3e4_e5e6_e7e8;

/// Fills 32 bytes of shared memory.
fn fill() -> String {
    format!(
        ".reg .b64 %fill;
mov.b64 %fill, {BEFORE};
st.shared.v2.b64 [%shared], {{%fill, %fill}};
st.shared.v2.b64 [%shared+16], {{%fill, %fill}};
"
    )
}

const READ: &str = "ld.shared.v2.b64 {{d}, {d1}}, [%shared];
ld.shared.v2.b64 {{d2}, {d3}}, [%shared+16];
";

fn family(
    syntax: &'static str,
    text: impl Fn(&Form) -> String + 'static,
    expected: impl Fn(Operands) -> Operands + 'static,
) -> Family {
    Family::new(
        syntax,
        move |form| {
            let (make, _) = policy(form);
            Code::new(
                format!("{make}{}{}{READ}", fill(), text(form)),
                &[64; 4],
                &[64; 4],
            )
        },
        shared_integers(),
        gives_all(move |_, operands| expected(operands)),
    )
}

/// The low bytes of a word above those of another one.
fn low_bytes(word: u64, count: u64, above: u64) -> u64 {
    let mask = 1u64
        .checked_shl(8 * count as u32)
        .map_or(u64::MAX, |bit| bit - 1);
    word & mask | above & !mask
}

/// The text of a copy at an offset, of a size, with the operands after it.
type Copy = dyn Fn(u32, u32, &str) -> String;

/// Copies of every size that the cache operator has.
fn copies(text: fn(&Copy) -> String) -> impl Fn(&Form) -> String {
    move |form| {
        let (_, policy) = policy(form);
        let whole = form.has("cg");
        let copy = move |at: u32, size: u32, rest: &str| {
            if whole && size != 16 {
                return String::new();
            }
            format!("{{form}} [%shared+{at}], [{{input}}+{at}], {size}{rest}{policy};\n")
        };
        text(&copy) + "cp.async.wait_all;\n"
    }
}

macro_rules! copy {
    ($operator:literal) => {
        concat!(
            "cp.async.",
            $operator,
            ".{shared,shared::cta}.global{.L2::cache_hint}{.L2::64B,.L2::128B,.L2::256B}"
        )
    };
}

fn plain(copy: &Copy) -> String {
    copy(0, 4, "") + &copy(8, 8, "") + &copy(16, 16, "")
}

/// As many bytes as an operand says, and zeros.
fn sized(copy: &Copy) -> String {
    let size = |name: &str, modulus: u32| {
        format!(
            ".reg .b32 %{name};\ncvt.u32.u64 %{name}, {{a}};\nrem.u32 %{name}, %{name}, {modulus};\n"
        )
    };
    [
        size("four", 5),
        size("eight", 9),
        size("sixteen", 17),
        copy(0, 4, ", %four"),
        copy(8, 8, ", %eight"),
        copy(16, 16, ", %sixteen"),
    ]
    .concat()
}

/// Zeros where a predicate says so.
fn ignored(copy: &Copy) -> String {
    let odd =
        ".reg .pred %odd;\n.reg .b64 %low;\nand.b64 %low, {a}, 1;\nsetp.ne.b64 %odd, %low, 0;\n";
    [
        odd.to_owned(),
        copy(0, 4, ", %odd"),
        copy(8, 8, ", !%odd"),
        copy(16, 16, ", %odd"),
    ]
    .concat()
}

/// The last two words of `sized` copies.
fn sixteen([a, _, c, e]: Operands) -> [u64; 2] {
    let size = u64::from(a as u32 % 17);
    [
        low_bytes(c, size.min(8), 0),
        low_bytes(e, size.saturating_sub(8), 0),
    ]
}

fn sized_result(operands: Operands) -> Operands {
    let [a, b, ..] = operands;
    let size = a as u32;
    let [c, e] = sixteen(operands);
    let four = low_bytes(a, u64::from(size % 5), 0);
    [
        low_bytes(four, 4, BEFORE),
        low_bytes(b, u64::from(size % 9), 0),
        c,
        e,
    ]
}

fn ignored_result([a, b, c, e]: Operands) -> Operands {
    if a & 1 != 0 {
        [low_bytes(0, 4, BEFORE), b, 0, 0]
    } else {
        [low_bytes(a, 4, BEFORE), 0, c, e]
    }
}

/// A copy of the operands by an instruction that has a family of its own, and what comes after it.
fn after_copies(syntax: &'static str, after: &'static str) -> Family {
    family(
        syntax,
        move |_| {
            format!(
                "cp.async.cg.shared.global [%shared], [{{input}}], 16;
cp.async.cg.shared.global [%shared+16], [{{input}}+16], 16;
{after}
"
            )
        },
        |operands| operands,
    )
}

const OBJECT: &str = "mbarrier.init.shared.b64 [%shared+32], 1;
.reg .pred %over;
";

const WAIT: &str = "wait:
mbarrier.try_wait.parity.shared.b64 %over, [%shared+32], 0;
@!%over bra wait;
mbarrier.inval.shared.b64 [%shared+32];
";

/// Arrivals at an object when earlier copies are done. Those that are not counted come on top of the thread's own.
fn arrivals(form: &Form) -> String {
    let address = match form.one_of(&["shared", "shared::cta"]) {
        Some(_) => "%shared",
        None => "%shared_generic",
    };
    let own = if form.has("noinc") {
        String::new()
    } else {
        "mbarrier.test_wait.parity.shared.b64 %over, [%shared+32], 0;
@%over trap;
mbarrier.arrive.shared.b64 _, [%shared+32];
"
        .to_owned()
    };
    format!(
        "{OBJECT}cp.async.cg.shared.global [%shared], [{{input}}], 16;
cp.async.cg.shared.global [%shared+16], [{{input}}+16], 16;
{{form}} [{address}+32];
{own}{WAIT}"
    )
}

fn bulk_load(form: &Form) -> String {
    let (_, policy) = policy(form);
    format!(
        "{OBJECT}fence.proxy.async;
mbarrier.arrive.expect_tx.shared.b64 _, [%shared+32], 32;
{{form}} [%shared], [{{input}}], 32, [%shared+32]{policy};
{WAIT}"
    )
}

/// A copy to global memory and back by loads and stores; the group's wait has a family of its own.
fn bulk_store(copy: &str, commit: &str, wait: &str) -> String {
    format!(
        "st.shared.v2.b64 [%shared], {{{{a}}, {{b}}}};
st.shared.v2.b64 [%shared+16], {{{{c}}, {{e}}}};
fence.proxy.async;
{copy}
{commit};
{wait};
st.shared.v2.b64 [%shared], {{%fill, %fill}};
st.shared.v2.b64 [%shared+16], {{%fill, %fill}};
ld.global.v2.b64 {{{{d}}, {{d1}}}}, [%global];
st.shared.v2.b64 [%shared], {{{{d}}, {{d1}}}};
ld.global.v2.b64 {{{{d}}, {{d1}}}}, [%global+16];
st.shared.v2.b64 [%shared+16], {{{{d}}, {{d1}}}};
"
    )
}

const STORE: &str = "cp.async.bulk.global.shared::cta.bulk_group [%global], [%shared], 32;";
const COMMIT: &str = "cp.async.bulk.commit_group";
const WAIT_FOR_GROUPS: &str = "cp.async.bulk.wait_group 0";

pub fn families() -> Vec<Family> {
    let first_four = |[a, b, c, e]: Operands| [low_bytes(a, 4, BEFORE), b, c, e];
    let only_sixteen = |[_, _, c, e]: Operands| [BEFORE, BEFORE, c, e];
    vec![
        family(copy!("ca"), copies(plain), first_four),
        family(copy!("cg"), copies(plain), only_sixteen),
        family(copy!("ca"), copies(sized), sized_result),
        family(copy!("cg"), copies(sized), |operands| {
            let [c, e] = sixteen(operands);
            [BEFORE, BEFORE, c, e]
        }),
        family(copy!("ca"), copies(ignored), ignored_result),
        family(copy!("cg"), copies(ignored), |operands| {
            let [_, _, c, e] = ignored_result(operands);
            [BEFORE, BEFORE, c, e]
        }),
        after_copies("cp.async.wait_all", "{form};"),
        after_copies("cp.async.commit_group", "{form};\ncp.async.wait_group 0;"),
        after_copies("cp.async.wait_group", "cp.async.commit_group;\n{form} 0;"),
        family(
            "cp.async.mbarrier.arrive{.noinc}{.shared,.shared::cta}.b64",
            arrivals,
            |operands| operands,
        ),
        family(
            "cp.async.bulk.{shared::cta,shared::cluster}.global.mbarrier::complete_tx::bytes{.L2::cache_hint}",
            bulk_load,
            |operands| operands,
        ),
        family(
            "cp.async.bulk.global.shared::cta.bulk_group{.L2::cache_hint}",
            |form| {
                let (_, policy) = policy(form);
                let copy = format!("{{form}} [%global], [%shared], 32{policy};");
                bulk_store(&copy, COMMIT, WAIT_FOR_GROUPS)
            },
            |operands| operands,
        ),
        family(
            "cp.async.bulk.commit_group",
            |_| bulk_store(STORE, "{form}", WAIT_FOR_GROUPS),
            |operands| operands,
        ),
        family(
            "cp.async.bulk.wait_group{.read}",
            |_| bulk_store(STORE, COMMIT, "{form} 0"),
            |operands| operands,
        ),
        family(
            "cp.async.bulk.prefetch.L2.global{.L2::cache_hint}",
            |form| {
                let (_, policy) = policy(form);
                format!("{{form}} [{{input}}], 32{policy};\n")
            },
            |_| [BEFORE; 4],
        ),
    ]
}
