//! Forms of an instruction, written as the ISA's manual writes them.
//!
//! `add{.sat}.s32` is two forms, `mul.{lo,hi}.{u32,s32}` four: `{.x,.y}` is at most one of them, `.{x,y}` exactly one. A choice
//! may be of several words, as in `.{relaxed.gpu,acquire.gpu}`.

use std::fmt;

/// An instruction's name and its modifiers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Form {
    pub words: Vec<&'static str>,
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words.join("."))
    }
}

impl Form {
    pub fn opcode(&self) -> &'static str {
        self.words[0]
    }

    pub fn has(&self, word: &str) -> bool {
        self.words[1..].contains(&word)
    }

    /// The one of these words that the form has.
    pub fn one_of(&self, words: &[&'static str]) -> Option<&'static str> {
        words.iter().copied().find(|word| self.has(word))
    }

    pub fn types(&self) -> impl DoubleEndedIterator<Item = Type> {
        self.words[1..].iter().filter_map(|word| Type::of(word))
    }

    /// The last of its types: the only one, or that of the source.
    pub fn ty(&self) -> Type {
        self.types()
            .next_back()
            .unwrap_or_else(|| panic!("{self} has no type"))
    }

    /// The form without some of its words.
    pub fn keep(&self, keep: impl Fn(&'static str) -> bool) -> Self {
        let words = self.words[1..].iter().copied().filter(|word| keep(word));
        Self {
            words: std::iter::once(self.opcode()).chain(words).collect(),
        }
    }

    /// What the loader takes for the same form: the order of words does not matter, that of types does.
    pub fn canonical(&self) -> Vec<&'static str> {
        let (types, mut words): (Vec<_>, Vec<_>) = self.words[1..]
            .iter()
            .partition(|word| Type::of(word).is_some());
        words.sort_unstable();
        [vec![self.opcode()], words, types].concat()
    }
}

/// A type of operands, as its letters and its bits: `.f16x2` is `f` and 32, two times 16.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Type {
    pub name: &'static str,
    pub bits: u32,
}

impl Type {
    pub fn of(word: &'static str) -> Option<Self> {
        let bits = match word {
            "pred" => 1,
            "e4m3" | "e5m2" => 8,
            "e4m3x2" | "e5m2x2" => 16,
            "tf32" => 32,
            _ => {
                let letters = word.trim_end_matches(|c: char| c.is_ascii_digit() || c == 'x');
                if !["u", "s", "b", "f", "bf"].contains(&letters) {
                    return None;
                }
                let mut numbers = word[letters.len()..].split('x').map(str::parse::<u32>);
                let bits = numbers.next()?.ok()?;
                match numbers.next() {
                    Some(count) => bits * count.ok()?,
                    None => bits,
                }
            }
        };
        Some(Self { name: word, bits })
    }

    pub fn is_signed(self) -> bool {
        self.name.starts_with('s')
    }

    /// Bits of a register that holds it.
    pub fn register(self) -> u32 {
        if self.bits == 1 { 1 } else { self.bits.max(16) }
    }
}

/// All forms of a syntax, in order.
pub fn expand(syntax: &'static str) -> Vec<Form> {
    let mut forms = vec![Vec::new()];
    for slot in slots(syntax) {
        forms = forms
            .iter()
            .flat_map(|form: &Vec<_>| slot.iter().map(move |words| [&form[..], words].concat()))
            .collect();
    }
    forms.into_iter().map(|words| Form { words }).collect()
}

/// The choices of each place, a choice being no word, one or several.
fn slots(syntax: &'static str) -> Vec<Vec<Vec<&'static str>>> {
    let mut slots = Vec::new();
    let mut left = syntax;
    while !left.is_empty() {
        if let Some(inside) = left.strip_prefix('{') {
            let (choices, after) = inside.split_once('}').expect("a closing brace");
            let mut slot = vec![Vec::new()];
            slot.extend(choices.split(',').map(|choice| {
                let choice = choice
                    .strip_prefix('.')
                    .expect("a dot in an optional choice");
                choice.split('.').collect()
            }));
            slots.push(slot);
            left = after;
        } else if let Some(inside) = left.strip_prefix(".{") {
            let (choices, after) = inside.split_once('}').expect("a closing brace");
            slots.push(
                choices
                    .split(',')
                    .map(|choice| choice.split('.').collect())
                    .collect(),
            );
            left = after;
        } else {
            let word = left.strip_prefix('.').unwrap_or(left);
            let end = word.find(['.', '{']).unwrap_or(word.len());
            slots.push(vec![vec![&word[..end]]]);
            left = &word[end..];
        }
    }
    slots
}

#[test]
fn expansion() {
    let names = |syntax| {
        expand(syntax)
            .iter()
            .map(Form::to_string)
            .collect::<Vec<_>>()
    };
    assert_eq!(names("add{.sat}.s32"), ["add.s32", "add.sat.s32"]);
    assert_eq!(names("mul.{lo,hi}.u32"), ["mul.lo.u32", "mul.hi.u32"]);
    assert_eq!(
        names("ld{.relaxed.gpu,.weak}.b8"),
        ["ld.b8", "ld.relaxed.gpu.b8", "ld.weak.b8"]
    );
    let form = &expand("set.eq.bf16.f16x2")[0];
    let bits: Vec<_> = form.types().map(|ty| ty.bits).collect();
    assert_eq!(bits, [16, 32]);
}
