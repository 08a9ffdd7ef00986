//! Branches, calls, ends, and instructions that only take time.

use proptest::collection::vec;
use proptest::prelude::*;
use ptx_emulator::{FaultKind, LaunchError};

use super::family::{Code, Family, THREADS, gives, random};
use super::harness::{Arg, Bench, HEADER, Operands, line};
use super::syntax::Form;

/// A number, and a choice below `choices`, which with `.uni` is one for each warp.
fn choices(choices: u64) -> impl Fn(&Form) -> Vec<Operands> {
    move |form| {
        let tuples = random(vec((any::<u32>(), 0..choices), THREADS));
        let choice = |thread: usize| {
            if form.has("uni") {
                tuples[thread / 32].1
            } else {
                tuples[thread].1
            }
        };
        (0..THREADS)
            .map(|thread| [tuples[thread].0.into(), choice(thread), 0, 0])
            .collect()
    }
}

/// A branch past something, or calls, or both: `text` with a choice in `{b}`, that makes `{d}` of `{a}`.
fn chosen(
    syntax: &'static str,
    text: &'static str,
    of: u64,
    meaning: fn(u32, u64) -> u32,
) -> Family {
    Family::new(
        syntax,
        move |_| Code::new(format!("{{\n{text}\n}}"), &[32], &[32, 32]),
        choices(of),
        gives(move |_, [a, b, ..]| meaning(a as u32, b).into()),
    )
}

const FORWARD: &str = ".reg .pred %past;
setp.ne.u32 %past, {b}, 0;
mov.b32 {d}, {a};
@%past {form} PAST;
add.u32 {d}, {d}, 1;
PAST:";

const LOOP: &str = ".reg .pred %again;
mov.b32 {d}, {a};
AGAIN:
add.u32 {d}, {d}, 3;
sub.u32 {b}, {b}, 1;
setp.lt.s32 %again, {b}, 0;
@!%again {form} AGAIN;";

const TABLE: &str = "LIST: .branchtargets ONE, TWO, THREE, TWO;
{form} {b}, LIST;
ONE:
add.u32 {d}, {a}, 10;
bra END;
TWO:
add.u32 {d}, {a}, 20;
bra END;
THREE:
add.u32 {d}, {a}, 30;
END:";

const GUARDED_CALL: &str = ".reg .pred %calls;
.param .b32 x;
.param .b32 y;
setp.ne.u32 %calls, {b}, 0;
st.param.b32 [x], {a};
@%calls {form} (y), twice, (x);
ld.param.b32 {d}, [y];
selp.b32 {d}, {d}, {a}, %calls;";

const CALL_WITHOUT_RESULT: &str = ".param .b64 place;
.param .b32 x;
st.param.b64 [place], %global;
st.param.b32 [x], {a};
{form} store, (place, x);
ld.global.b32 {d}, [%global];";

const CALL_WITHOUT_ARGUMENTS: &str = ".param .b32 y;
{form} (y), seven;
ld.param.b32 {d}, [y];
add.u32 {d}, {d}, {a};";

const CALL_WITH_EMPTY_LIST: &str = ".param .b32 y;
{form} (y), seven, ();
ld.param.b32 {d}, [y];
add.u32 {d}, {d}, {a};";

const CALL_OF_NOTHING: &str = "{form} note;
mov.u64 %wide, noted;
mad.wide.u32 %wide, %thread, 4, %wide;
ld.global.b32 {d}, [%wide];
add.u32 {d}, {d}, {a};
sub.u32 {d}, {d}, %thread;";

const CALL_FROM_LIST: &str = "LIST: .calltargets twice, thrice;
.reg .pred %first;
.reg .b64 %other;
.param .b32 x;
.param .b32 y;
setp.eq.u32 %first, {b}, 0;
mov.u64 %wide, twice;
mov.u64 %other, thrice;
selp.b64 %wide, %wide, %other, %first;
st.param.b32 [x], {a};
{form} (y), %wide, (x), LIST;
ld.param.b32 {d}, [y];";

const CALL_BY_PROTOTYPE: &str = "PROTOTYPE: .callprototype (.param .b32 _) _ (.param .b32 _);
.reg .pred %first;
.reg .b64 %other;
.param .b32 x;
.param .b32 y;
setp.eq.u32 %first, {b}, 0;
mov.u64 %wide, twice;
mov.u64 %other, thrice;
selp.b64 %wide, %wide, %other, %first;
st.param.b32 [x], {a};
{form} (y), %wide, (x), PROTOTYPE;
ld.param.b32 {d}, [y];";

const CALL_BY_PROTOTYPE_WITHOUT_RESULT: &str =
    "PROTOTYPE: .callprototype ()_ (.param .b64 _, .param .b32 _);
.param .b64 place;
.param .b32 x;
st.param.b64 [place], %global;
st.param.b32 [x], {a};
mov.u64 %wide, store;
{form} %wide, (place, x), PROTOTYPE;
ld.global.b32 {d}, [%global];";

const REGISTERS_IN_PARAMETERS: &str = "{form} ({d}), twice, ({a});";

const NUMBER_IN_PARAMETER: &str = "{form} ({d}), twice, (-21);
add.u32 {d}, {d}, {a};";

const RESULT_NOT_WANTED: &str = "{form} (_), twice, ({a});
mov.b32 {d}, {a};";

const PARAMETERS_IN_REGISTERS: &str = "cvt.u64.u32 %wide, {b};
{form} ({d}), reduced, ({a}, %wide);";

const BOTH: &str = ".param .b32 x;
.param .b32 y;
st.param.b32 [x], {a};
{form} (y), reduced, (x, 3);
ld.param.b32 {d}, [y];";

const REGISTERS_BY_PROTOTYPE: &str =
    "PROTOTYPE: .callprototype (.reg .b32 _) _ (.reg .b32 _, .reg .b64 _);
.reg .b64 %place;
cvt.u64.u32 %wide, {b};
mov.u64 %place, reduced;
{form} ({d}), %place, ({a}, %wide), PROTOTYPE;";

fn reduced(a: u32, by: u64) -> u32 {
    a.saturating_sub(by as u32)
}

fn double_or_triple(a: u32, b: u64) -> u32 {
    a.wrapping_mul(2 + b as u32)
}

/// Threads of [`run`]'s kernel: the last warp is not whole.
const ENDING: u32 = 50;

/// What a kernel writes for each thread: 1, then what `body` makes of it.
fn run(functions: &str, body: &str) -> Result<Vec<u32>, LaunchError> {
    let ptx = format!(
        "{HEADER}
{functions}
.visible .entry k(.param .u64 output)
{{
.reg .pred %p<3>;
.reg .b32 %r<6>;
.reg .b64 %rd<4>;
mov.u32 %r1, %tid.x;
ld.param.u64 %rd1, [output];
mad.wide.u32 %rd1, %r1, 4, %rd1;
st.global.u32 [%rd1], 1;
shr.u32 %r2, %r1, 5;
and.b32 %r3, %r1, 1;
{body}
}}
"
    );
    let mut output = vec![0; ENDING as usize];
    Bench::new(&ptx).run("k", line(ENDING), &mut [Arg::Words(&mut output)])?;
    Ok(output)
}

/// Some threads end in the middle: those of one warp, or with lanes of both kinds in each.
fn ends(form: &Form) {
    let uniform = form.has("uni");
    let chooser = if uniform { "%r2" } else { "%r3" };
    let chosen = |thread: u32| {
        if uniform {
            thread >= 32
        } else {
            !thread.is_multiple_of(2)
        }
    };
    let body = format!(
        "setp.ne.u32 %p1, {chooser}, 0;
@%p1 {form};
st.global.u32 [%rd1], 2;
{form};
st.global.u32 [%rd1], 3;
ret;"
    );
    let want: Vec<u32> = (0..ENDING)
        .map(|thread| if chosen(thread) { 1 } else { 2 })
        .collect();
    assert_eq!(run("", &body).unwrap(), want, "{form}");
    // The same in a function: `exit` ends the thread, `ret` goes back.
    let function = format!(
        ".func end(.param .b64 place, .param .b32 which)
{{
.reg .pred %p<2>;
.reg .b32 %r<3>;
.reg .b64 %rd<2>;
ld.param.b64 %rd1, [place];
ld.param.b32 %r1, [which];
setp.ne.u32 %p1, %r1, 0;
@%p1 {form};
st.global.u32 [%rd1], 2;
{form};
st.global.u32 [%rd1], 3;
ret;
}}"
    );
    let body = format!(
        "{{ .param .b64 place; .param .b32 which;
st.param.b64 [place], %rd1;
st.param.b32 [which], {chooser};
call end, (place, which); }}
ld.global.u32 %r4, [%rd1];
add.u32 %r4, %r4, 10;
st.global.u32 [%rd1], %r4;
ret;"
    );
    let after = if form.opcode() == "exit" { 0 } else { 10 };
    let want: Vec<u32> = want.iter().map(|value| value + after).collect();
    assert_eq!(run(&function, &body).unwrap(), want, "{form} in a function");
}

/// One thread comes to it.
fn faults(form: &Form) {
    let kind = match form.opcode() {
        "trap" => FaultKind::Trap,
        _ => FaultKind::Breakpoint,
    };
    let body = |thread: u32| format!("setp.eq.u32 %p1, %r1, {thread};\n@%p1 {form};\nret;");
    let Err(LaunchError::Fault(fault)) = run("", &body(41)) else {
        panic!("{form} does not end the kernel");
    };
    assert_eq!((fault.kind, fault.thread), (kind, [41, 0, 0]));
    assert_eq!(fault.instruction, format!("@%p1 {form};"));
    // Nobody comes to it.
    run("", &body(ENDING)).unwrap();
}

/// An instruction by itself, for the loader.
fn alone(_: &Form) -> Code {
    Code::new("{form};", &[], &[])
}

pub fn families() -> Vec<Family> {
    vec![
        chosen("bra{.uni}", FORWARD, 2, |a, b| {
            a.wrapping_add(u32::from(b == 0))
        }),
        chosen("bra{.uni}", LOOP, 9, |a, b| {
            a.wrapping_add(3 * (b as u32 + 1))
        }),
        chosen("brx.idx{.uni}", TABLE, 4, |a, b| {
            a.wrapping_add([10, 20, 30, 20][b as usize])
        }),
        chosen("call{.uni}", GUARDED_CALL, 2, |a, b| {
            a.wrapping_mul(1 + b as u32)
        }),
        chosen("call{.uni}", CALL_WITHOUT_RESULT, 1, |a, _| a),
        chosen("call{.uni}", CALL_WITHOUT_ARGUMENTS, 1, |a, _| {
            a.wrapping_add(7)
        }),
        chosen("call{.uni}", CALL_WITH_EMPTY_LIST, 1, |a, _| {
            a.wrapping_add(7)
        }),
        chosen("call{.uni}", CALL_OF_NOTHING, 1, |a, _| a.wrapping_add(100)),
        chosen("call{.uni}", CALL_FROM_LIST, 2, double_or_triple),
        chosen("call{.uni}", CALL_BY_PROTOTYPE, 2, double_or_triple),
        chosen("call{.uni}", CALL_BY_PROTOTYPE_WITHOUT_RESULT, 1, |a, _| a),
        chosen("call{.uni}", REGISTERS_IN_PARAMETERS, 1, |a, _| {
            a.wrapping_mul(2)
        }),
        chosen("call{.uni}", NUMBER_IN_PARAMETER, 1, |a, _| {
            a.wrapping_sub(42)
        }),
        chosen("call{.uni}", RESULT_NOT_WANTED, 1, |a, _| a),
        chosen("call{.uni}", PARAMETERS_IN_REGISTERS, 1 << 32, reduced),
        chosen("call{.uni}", BOTH, 1, |a, _| reduced(a, 3)),
        chosen("call{.uni}", REGISTERS_BY_PROTOTYPE, 1 << 32, reduced),
        Family::apart("ret{.uni}", alone, ends),
        Family::apart("exit", alone, ends),
        Family::apart("trap", alone, faults),
        Family::apart("brkpt", alone, faults),
        // Waiting for time to pass, or for the launches before, changes no value.
        chosen(
            "nanosleep.u32",
            "{form} {b};\nmov.b32 {d}, {a};",
            1 << 20,
            |a, _| a,
        ),
        chosen(
            "nanosleep.u32",
            "{form} 100;\nmov.b32 {d}, {a};",
            1,
            |a, _| a,
        ),
        chosen(
            "griddepcontrol.{launch_dependents,wait}",
            "{form};\nmov.b32 {d}, {a};",
            1,
            |a, _| a,
        ),
    ]
}

#[test]
fn calls_that_are_refused() {
    const TWICE: &str = "mov.u64 %rd1, twice;";
    for (call, words) in [
        ("call (%r1), twice, (%rd1);", "`%rd1` is .b64"),
        ("call (%rd1), twice, (%r1);", "`%rd1` is .b64"),
        ("call (%r1), twice, (%p1);", "predicate"),
        (
            "call (%r1), twice;",
            "takes 1 arguments and gives 1 results, 0 and 1",
        ),
        ("call twice, (%r1);", "1 and 0 were given"),
        ("call (x), twice, (%r1);", "`x` has 8 bytes"),
        ("call (%r1), twice, (inputs);", "load it first"),
        ("call (%r1), twice, (noted);", "a register or a number"),
        ("call (%r1), twice, ([%rd1]);", "a register or a number"),
        ("call (%r1), %rd1, (%r1);", "needs a list or prototype"),
        ("call (%r1), %rd1, (%r1), NONE;", "no target list"),
        (
            "LIST: .calltargets twice, store; call (%r1), %rd1, (%r1), LIST;",
            "differ in what they take",
        ),
        (
            "LIST: .calltargets twice, others; call (%r1), %rd1, (%r1), LIST;",
            "no function `others`",
        ),
        (
            "LIST: .calltargets twice; call (%r1), %rd1, (%rd1), LIST;",
            "`%rd1` is .b64",
        ),
        (
            "P: .callprototype (.param .b64 _) _ (.param .b32 _); call (%r1), %rd1, (%r1), P;",
            "`%r1` is .b32",
        ),
        (
            "P: .callprototype _ (.param .b32 _); call (%r1), %rd1, (%r1), P;",
            "gives 0 results",
        ),
    ] {
        let registers = ".reg .pred %p<2>; .reg .b32 %r<2>; .reg .b64 %rd<2>; .param .b64 x;";
        super::refused(&format!("{registers} {TWICE} {call}"), words);
    }
}

/// A function that is not what the prototype says is no target, whatever it would have made of what it is given.
#[test]
fn prototypes_of_other_functions() {
    for prototype in [
        "(.param .b32 _) _ (.param .b32 _)",
        "(.param .b64 _) _ (.param .b64 _, .param .b32 _)",
        "_ (.param .b64 _)",
    ] {
        let results = if prototype.starts_with('_') {
            ""
        } else {
            "(_), "
        };
        let arguments = if prototype.contains(", ") {
            "7, 8"
        } else {
            "7"
        };
        let wide = ".func (.param .b64 y) wide(.param .b64 x) { .reg .b64 %r; ld.param.b64 %r, [x]; st.param.b64 [y], %r; ret; }";
        let body = format!(
            "P: .callprototype {prototype};
mov.u64 %rd2, wide;
call {results}%rd2, ({arguments}), P;
ret;"
        );
        let Err(LaunchError::Fault(fault)) = run(wide, &body) else {
            panic!("{prototype} is taken for `wide`");
        };
        assert_eq!(fault.kind, FaultKind::InvalidTarget);
    }
}
