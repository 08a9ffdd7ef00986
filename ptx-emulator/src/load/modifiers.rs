//! The dot words of one instruction, taken one by one; what is left over is an error.

use crate::error::LoadError;
use crate::isa::{Compare, Rounding, Type};
use crate::syntax::ast::Instruction;

/// Modifiers that have not been taken yet.
pub(crate) struct Modifiers<'a> {
    line: usize,
    opcode: &'a str,
    all: &'a [&'a str],
    left: Vec<&'a str>,
}

impl<'a> Modifiers<'a> {
    pub(crate) fn new(instruction: &'a Instruction<'a>) -> Self {
        Self {
            line: instruction.line,
            opcode: instruction.opcode,
            all: &instruction.modifiers,
            left: instruction.modifiers.clone(),
        }
    }

    /// The instruction's name with all its modifiers.
    pub(crate) fn name(&self) -> String {
        let mut name = self.opcode.to_owned();
        for word in self.all {
            name.push('.');
            name.push_str(word);
        }
        name
    }

    pub(crate) fn error<T>(&self, message: impl std::fmt::Display) -> Result<T, LoadError> {
        Err(LoadError::new(
            self.line,
            format!("`{}`: {message}", self.name()),
        ))
    }

    /// Whether this modifier is left.
    pub(crate) fn has(&self, word: &str) -> bool {
        self.left.contains(&word)
    }

    pub(crate) fn flag(&mut self, word: &str) -> bool {
        self.choose(&[(word, ())]).is_some()
    }

    /// Takes the first modifier that is among the choices.
    pub(crate) fn choose<T: Copy>(&mut self, choices: &[(&str, T)]) -> Option<T> {
        for (at, left) in self.left.iter().enumerate() {
            if let Some((_, value)) = choices.iter().find(|(word, _)| word == left) {
                self.left.remove(at);
                return Some(*value);
            }
        }
        None
    }

    /// Like [`choose`](Self::choose), where one of the choices must be there.
    pub(crate) fn require<T: Copy>(
        &mut self,
        what: &str,
        choices: &[(&str, T)],
    ) -> Result<T, LoadError> {
        match self.choose(choices) {
            Some(value) => Ok(value),
            None => {
                let words: Vec<_> = choices.iter().map(|(word, _)| format!(".{word}")).collect();
                self.error(format!("needs {what}, one of {}", words.join(" ")))
            }
        }
    }

    /// Takes the first type.
    pub(crate) fn ty(&mut self) -> Result<Type, LoadError> {
        for (at, left) in self.left.iter().enumerate() {
            if let Some(ty) = Type::parse(left) {
                self.left.remove(at);
                return Ok(ty);
            }
        }
        self.error("has no type, or one that is not supported")
    }

    /// Takes the only type, which must be among those given.
    pub(crate) fn ty_of(&mut self, allowed: &[Type]) -> Result<Type, LoadError> {
        let ty = self.ty()?;
        if allowed.contains(&ty) {
            return Ok(ty);
        }
        self.error(format!("{ty} is not a type of this instruction"))
    }

    pub(crate) fn has_type(&self) -> bool {
        self.left.iter().any(|word| Type::parse(word).is_some())
    }

    pub(crate) fn rounding(&mut self) -> Option<Rounding> {
        self.choose(&[
            ("rn", Rounding::Nearest),
            ("rz", Rounding::Zero),
            ("rm", Rounding::Down),
            ("rp", Rounding::Up),
        ])
    }

    /// A comparison operator, and whether it is one of `.lo`, `.ls`, `.hi` and `.hs`, which compare unsigned integers.
    pub(crate) fn compare(&mut self) -> Result<(Compare, bool), LoadError> {
        let unsigned = ["lo", "ls", "hi", "hs"].iter().any(|word| self.has(word));
        let compare = self.require(
            "a comparison",
            &[
                ("eq", Compare::Eq),
                ("ne", Compare::Ne),
                ("lt", Compare::Lt),
                ("le", Compare::Le),
                ("gt", Compare::Gt),
                ("ge", Compare::Ge),
                ("lo", Compare::Lt),
                ("ls", Compare::Le),
                ("hi", Compare::Gt),
                ("hs", Compare::Ge),
                ("equ", Compare::EqU),
                ("neu", Compare::NeU),
                ("ltu", Compare::LtU),
                ("leu", Compare::LeU),
                ("gtu", Compare::GtU),
                ("geu", Compare::GeU),
                ("num", Compare::Num),
                ("nan", Compare::Nan),
            ],
        )?;
        Ok((compare, unsigned))
    }

    /// Refuses what nobody took.
    pub(crate) fn finish(&self) -> Result<(), LoadError> {
        match self.left.first() {
            None => Ok(()),
            Some(word) => self.error(format!("`.{word}` is not supported here")),
        }
    }
}
