//! The forms of the families are those that the loader takes: none is missing, going by the instruction's names, and any other
//! that differs from one of them by a word is refused. `ptxas` is asked as well where `PTX_EMULATOR_PTXAS` says where it is.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher as _, RandomState};
use std::rc::Rc;

use ptx_emulator::Module;

use super::family::declared;
use super::harness::run_ptxas;
use super::syntax::{Form, Type, expand};

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

/// Words of the ISA that only forms have that are refused.
const OTHER: [(&str, &str); 2] = [("fma", "oob"), ("cvt", "rs")];

/// Hints to caches. They have nothing to do with types and the length of vectors, so that families have them with a few of these.
const HINTS: [&str; 16] = [
    "ca",
    "cg",
    "cs",
    "lu",
    "cv",
    "wb",
    "wt",
    "L1::evict_normal",
    "L1::evict_unchanged",
    "L1::evict_first",
    "L1::evict_last",
    "L1::no_allocate",
    "L2::cache_hint",
    "L2::64B",
    "L2::128B",
    "L2::256B",
];

/// Neighbours of an opcode that are tried, another choice in each run, where it has more and `PTX_EMULATOR_NEIGHBOURS` says no
/// other number.
const MOST: usize = 10_000;

/// A form with one word less, one more, or another one than a form of a family.
struct Neighbour {
    form: Form,
    /// The scope of its kernel.
    scope: String,
    /// It has a family's hints with the type and vector length of another form.
    hinted: bool,
}

/// The forms of all families.
struct Language {
    known: BTreeSet<Vec<&'static str>>,
    /// Those with hints, without types and vector lengths.
    hinted: BTreeSet<Vec<&'static str>>,
}

impl Language {
    fn new<'a>(forms: impl Iterator<Item = &'a Form> + Clone) -> Self {
        Self {
            known: forms.clone().map(Form::canonical).collect(),
            hinted: forms
                .filter(|form| has_hints(form))
                .map(|form| shapeless(form).canonical())
                .collect(),
        }
    }

    fn is_hinted(&self, form: &Form) -> bool {
        has_hints(form) && self.hinted.contains(&shapeless(form).canonical()) && {
            let bare = form.keep(|word| !HINTS.contains(&word));
            self.known.contains(&bare.canonical())
        }
    }
}

fn has_hints(form: &Form) -> bool {
    HINTS.iter().any(|hint| form.has(hint))
}

fn is_shape(word: &'static str) -> bool {
    Type::of(word).is_some() || ["v2", "v4", "v8"].contains(&word)
}

fn shapeless(form: &Form) -> Form {
    form.keep(|word| !is_shape(word))
}

/// What is neither a hint nor of the shape.
fn stem(form: &Form) -> Form {
    form.keep(|word| !is_shape(word) && !HINTS.contains(&word))
}

/// Forms that no family has.
fn neighbours() -> Vec<Neighbour> {
    let most = std::env::var("PTX_EMULATOR_NEIGHBOURS").map_or(MOST, |most| {
        most.parse().expect("PTX_EMULATOR_NEIGHBOURS is a number")
    });
    let families = super::families();
    let forms: Vec<(Form, usize)> = families
        .iter()
        .enumerate()
        .flat_map(|(index, family)| family.forms().into_iter().map(move |form| (form, index)))
        .collect();
    let language = Language::new(forms.iter().map(|(form, _)| form));
    let mut vocabulary: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (form, _) in &forms {
        let words = vocabulary
            .entry(form.opcode())
            .or_insert_with(|| COMMON.into());
        words.extend(&form.words[1..]);
    }
    for (opcode, word) in OTHER {
        vocabulary.entry(opcode).or_default().insert(word);
    }
    let mut sizes: BTreeMap<&str, usize> = BTreeMap::new();
    for (form, _) in &forms {
        let edits = form.words.len() * (1 + 2 * vocabulary[form.opcode()].len());
        *sizes.entry(form.opcode()).or_default() += edits;
    }
    let chance = RandomState::new();
    let mut seen = BTreeSet::new();
    let mut neighbours = Vec::new();
    for (form, family) in &forms {
        let size = sizes[form.opcode()];
        let text = OnceCell::new();
        let mut add = |edit: (usize, &'static str, bool)| {
            if size > most && chance.hash_one((&form.words, edit)) % size as u64 >= most as u64 {
                return;
            }
            let (at, word, longer) = edit;
            let mut words = form.words.clone();
            match (word, longer) {
                ("", _) => drop(words.remove(at)),
                (word, true) => words.insert(at, word),
                (word, false) => words[at] = word,
            }
            let neighbour = Form { words };
            let canonical = neighbour.canonical();
            if language.known.contains(&canonical) {
                return;
            }
            if language.is_hinted(&neighbour) {
                // The family's kernel is as well one for another shape, but not for another space.
                if stem(&neighbour) == stem(form) && seen.insert((canonical, "".into())) {
                    let (before, behind) = families[*family].around(&neighbour);
                    neighbours.push(Neighbour {
                        scope: format!("{before}{neighbour}{behind}"),
                        form: neighbour,
                        hinted: true,
                    });
                }
                return;
            }
            let (before, behind, text) = text.get_or_init(|| {
                let (before, behind) = families[*family].around(form);
                let text: Rc<str> = [&*before, &*behind].concat().into();
                (before, behind, text)
            });
            if seen.insert((canonical, text.clone())) {
                neighbours.push(Neighbour {
                    hinted: false,
                    scope: format!("{before}{neighbour}{behind}"),
                    form: neighbour,
                });
            }
        };
        for at in 1..=form.words.len() {
            let in_place = at < form.words.len();
            if in_place {
                add((at, "", false));
            }
            for word in &vocabulary[form.opcode()] {
                if in_place {
                    add((at, word, false));
                }
                add((at, word, true));
            }
        }
    }
    neighbours
}

#[test]
fn no_other_form_is_taken() {
    let neighbours = neighbours();
    assert!(neighbours.len() > 1000);
    let mut taken = BTreeSet::new();
    let mut refused = BTreeSet::new();
    for Neighbour {
        form,
        scope,
        hinted,
    } in neighbours
    {
        match (Module::parse(&declared(&scope)), hinted) {
            (Ok(_), false) => drop(taken.insert(form.to_string())),
            (Err(error), true) => drop(refused.insert(format!("{form}: {error}"))),
            _ => {}
        }
    }
    assert!(
        taken.is_empty(),
        "{} forms that no family has are taken: {taken:#?}",
        taken.len()
    );
    assert!(refused.is_empty(), "hints are refused: {refused:#?}");
}

/// What `ptxas` takes and the loader refuses, and why.
const REFUSED: [(&str, &str); 20] = [
    ("st.global.b128", "there are no registers of 128 bits"),
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
        "fma.rn.oob{.relu}.{f16,f16x2,bf16,bf16x2}",
        "the ISA does not say which NaN it looks for, and only tensor copies make one",
    ),
    (
        "fma.{rz,rm,rp,rn.sat}.oob{.relu}.{f16,f16x2,bf16,bf16x2}",
        "not in the ISA's text",
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
    (
        "fence.async{.mbarrier_init}{.sc,.acq_rel,.acquire,.release}{.sync_restrict::shared::cta,.sync_restrict::shared::cluster}\
.{cta,cluster,gpu,sys}",
        "not in the ISA's text",
    ),
    (
        "fence.{mbarrier_init.release,acq_rel,acquire,release}.{sync_restrict::shared::cta,sync_restrict::shared::cluster}.cluster",
        "not in the ISA's text",
    ),
    (
        "fence.proxy.{alias,async}{.global,.shared::cta,.shared::cluster}.{sync_restrict::shared::cta,sync_restrict::shared::cluster}",
        "not in the ISA's text",
    ),
    (
        "fence.proxy.async::generic.{acq_rel,acquire,release}{.global,.shared::cta,.shared::cluster}\
{.sync_restrict::shared::cta,.sync_restrict::shared::cluster}.{cta,cluster,gpu,sys}",
        "not in the ISA's text",
    ),
    (
        "cp.async.bulk.b128.global.shared::cta.bulk_group{.L2::cache_hint}",
        "not in the ISA's text",
    ),
    (
        "cp.async.bulk.b128.{shared::cta,shared::cluster}.global.mbarrier::complete_tx::bytes{.L2::cache_hint}",
        "not in the ISA's text",
    ),
    (
        "cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes",
        "between blocks of a cluster",
    ),
];

#[test]
fn no_other_form_is_taken_by_ptxas() {
    let Some(ptxas) = std::env::var_os("PTX_EMULATOR_PTXAS") else {
        return;
    };
    let mut neighbours = neighbours();
    // It takes a word twice as it does once.
    neighbours.retain(|neighbour| {
        let words = &neighbour.form.words;
        !neighbour.hinted && (1..words.len()).all(|at| !words[..at].contains(&words[at]))
    });
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
            let scopes: String = left.iter().map(|left| left.scope.as_str()).collect();
            let ptx = declared(&scopes);
            let wrong = wrong_lines(&ptxas, &ptx);
            if wrong.is_empty() {
                break;
            }
            let before = ptx.find(&scopes).expect("the scopes in the kernel");
            let mut line = ptx[..before].lines().count();
            left.retain(|neighbour| {
                let lines = line..line + neighbour.scope.lines().count();
                line = lines.end;
                !wrong.iter().any(|wrong| lines.contains(wrong))
            });
        }
        let left = left
            .iter()
            .map(|neighbour| &neighbour.form)
            .filter(|form| !refused.contains(&form.canonical()));
        taken.extend(left.map(Form::to_string));
    }
    assert!(
        taken.is_empty(),
        "ptxas takes {} forms that no family has: {taken:#?}",
        taken.len()
    );
}

/// Lines of a text that `ptxas` finds an error in.
pub fn wrong_lines(ptxas: &std::ffi::OsStr, ptx: &str) -> Vec<usize> {
    let output = run_ptxas(ptxas, ptx);
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
