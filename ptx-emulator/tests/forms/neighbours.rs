//! The forms of the families are those that the loader takes: none is missing, going by the instruction's names, and any other
//! that differs from one of them by a word is refused. `ptxas` is asked as well where `PTX_EMULATOR_PTXAS` says where it is.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::rc::Rc;

use ptx_emulator::Module;

use super::family::declared;
use super::syntax::{Form, expand};

/// Modifiers that many instructions have.
const COMMON: [&str; 31] = [
    "u8",
    "s8",
    "b8",
    "u16",
    "s16",
    "b16",
    "u32",
    "s32",
    "b32",
    "u64",
    "s64",
    "b64",
    "b128",
    "f16",
    "f16x2",
    "bf16",
    "bf16x2",
    "f32",
    "f64",
    "u16x2",
    "s16x2",
    "tf32",
    "rn",
    "rz",
    "ftz",
    "sat",
    "relu",
    "satfinite",
    "cc",
    "sync",
    "global",
];

/// Forms with one word less, one more, or another one, that no family has; each with the scope of its kernel.
/// The order of words does not matter to the loader, nor to `ptxas`, so one order will do.
fn neighbours() -> Vec<(Form, String)> {
    let families = super::families();
    let forms: Vec<(Form, usize)> = families
        .iter()
        .enumerate()
        .flat_map(|(index, family)| family.forms().into_iter().map(move |form| (form, index)))
        .collect();
    let known: BTreeSet<_> = forms.iter().map(|(form, _)| form.canonical()).collect();
    let mut vocabulary: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (form, _) in &forms {
        let words = vocabulary
            .entry(form.opcode())
            .or_insert_with(|| COMMON.into());
        words.extend(&form.words[1..]);
    }
    let mut seen = BTreeSet::new();
    let mut neighbours = Vec::new();
    for (form, family) in &forms {
        let scope = families[*family].alone(form);
        let (before, operands) = around(&scope, form);
        let around: Rc<str> = [before, operands].concat().into();
        let mut add = |words: Vec<&'static str>| {
            let neighbour = Form { words };
            let canonical = neighbour.canonical();
            if !known.contains(&canonical) && seen.insert((canonical, around.clone())) {
                let scope = format!("{before}{neighbour}{operands}");
                neighbours.push((neighbour, scope));
            }
        };
        for at in 1..=form.words.len() {
            let in_place = at < form.words.len();
            if in_place {
                let mut shorter = form.words.clone();
                shorter.remove(at);
                add(shorter);
            }
            for word in &vocabulary[form.opcode()] {
                if in_place {
                    let mut other = form.words.clone();
                    other[at] = word;
                    add(other);
                }
                let mut longer = form.words.clone();
                longer.insert(at, word);
                add(longer);
            }
        }
    }
    neighbours
}

/// What is before and behind the form's name in its scope.
fn around<'a>(scope: &'a str, form: &Form) -> (&'a str, &'a str) {
    let name = form.to_string();
    scope
        .match_indices(&name)
        .map(|(at, _)| (&scope[..at], &scope[at + name.len()..]))
        .find(|(_, behind)| behind.starts_with([' ', ';']))
        .expect("the form in its scope")
}

#[test]
fn no_other_form_is_taken() {
    let neighbours = neighbours();
    assert!(neighbours.len() > 1000);
    let taken: BTreeSet<_> = neighbours
        .iter()
        .filter(|(_, scope)| Module::parse(&declared(scope)).is_ok())
        .map(|(form, _)| form.to_string())
        .collect();
    assert!(
        taken.is_empty(),
        "{} forms that no family has are taken: {taken:#?}",
        taken.len()
    );
}

/// What `ptxas` takes and the loader refuses, and why.
const REFUSED: [(&str, &str); 10] = [
    ("addc.sat.s32", "not in the ISA's text"),
    ("subc.sat.s32", "not in the ISA's text"),
    ("madc.hi.sat.s32", "not in the ISA's text"),
    (
        "movmatrix.sync.aligned.m8n8.trans.{b16.bf16,bf16.b16,b16.bf16x2,bf16x2.b16,b16.tf32,tf32.b16}",
        "a second type is passed over by `ptxas`",
    ),
    (
        "fma.{rz,rm,rp}{.relu}.{bf16,bf16x2}",
        "the ISA has `.rn` alone; ptxas rounds to f16 here",
    ),
    (
        "rcp.{rn,rz,rm,rp}.ftz.f64",
        "the ISA flushes with `.approx` alone",
    ),
    ("testp.{f32,f64}", "the ISA asks for a test"),
    (
        "cvt.{bf16.f16,f16.bf16}",
        "the ISA asks for a rounding where something can be lost",
    ),
    (
        "cvt.{rn,rz,rm,rp}.f64.bf16",
        "the ISA takes no rounding where nothing can be lost",
    ),
    (
        "cvt.{rn,rz,rm,rp}{.ftz}.f32.bf16",
        "the ISA takes no rounding where nothing can be lost",
    ),
];

#[test]
fn no_other_form_is_taken_by_ptxas() {
    let Some(ptxas) = std::env::var_os("PTX_EMULATOR_PTXAS") else {
        return;
    };
    // It takes a word twice as it does once.
    let neighbours: Vec<_> = neighbours()
        .into_iter()
        .filter(|(form, _)| {
            (1..form.words.len()).all(|at| !form.words[..at].contains(&form.words[at]))
        })
        .collect();
    let refused: BTreeSet<_> = REFUSED
        .iter()
        .flat_map(|(syntax, _)| expand(syntax))
        .map(|form| form.canonical())
        .collect();
    let mut taken = BTreeSet::new();
    for batch in neighbours.chunks(1000) {
        let mut left: Vec<_> = batch.iter().collect();
        // A word that `ptxas` does not know ends it at once; what is wrong otherwise is all in one list.
        loop {
            let scopes: String = left.iter().map(|(_, scope)| scope.as_str()).collect();
            let ptx = declared(&scopes);
            let wrong = wrong_lines(&ptxas, &ptx);
            if wrong.is_empty() {
                break;
            }
            let before = ptx.find(&scopes).expect("the scopes in the kernel");
            let mut line = ptx[..before].lines().count();
            left.retain(|(_, scope)| {
                let lines = line..line + scope.lines().count();
                line = lines.end;
                !wrong.iter().any(|wrong| lines.contains(wrong))
            });
        }
        let left = left
            .iter()
            .filter(|(form, _)| !refused.contains(&form.canonical()));
        taken.extend(left.map(|(form, _)| form.to_string()));
    }
    assert!(
        taken.is_empty(),
        "ptxas takes {} forms that no family has: {taken:#?}",
        taken.len()
    );
}

/// Lines of a text that `ptxas` finds an error in.
pub fn wrong_lines(ptxas: &std::ffi::OsStr, ptx: &str) -> Vec<usize> {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(ptx.as_bytes()).expect("room for a file");
    let output = std::process::Command::new(ptxas)
        .args(["-arch=sm_90", "-O0", "-o", "/dev/null"])
        .arg(file.path())
        .output()
        .expect("ptxas runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<usize> = errors
        .lines()
        .filter_map(|error| {
            error
                .split_once(", line ")?
                .1
                .split_once(';')?
                .0
                .parse()
                .ok()
        })
        .map(|line: usize| line - 1)
        .collect();
    assert!(
        output.status.success() || !lines.is_empty(),
        "ptxas: {errors}"
    );
    lines
}
