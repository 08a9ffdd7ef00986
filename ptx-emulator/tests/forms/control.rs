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
        Family::apart("ret{.uni}", alone, ends),
        Family::apart("exit", alone, ends),
        Family::apart("trap", alone, faults),
        Family::apart("brkpt", alone, faults),
        // Waiting for time to pass, or for grids that are over, changes nothing.
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
