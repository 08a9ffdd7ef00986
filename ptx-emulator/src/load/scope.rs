//! The names of a function: registers, variables and parameters, labels, and lists of targets, block by block.

use std::collections::HashMap;

use super::function::FunctionBuilder;
use crate::error::LoadError;
use crate::isa::{ParamPlace, PredSlot, Slot, Type};
use crate::syntax::ast;

#[derive(Debug, Clone, Copy)]
pub(super) enum Name {
    Register {
        ty: Type,
    },
    Variable(u32),
    /// Parameter bytes: of the kernel, or of the frame.
    Param {
        place: ParamPlace,
        kernel: bool,
    },
    Local {
        offset: u32,
    },
}

/// Names that a block declares.
#[derive(Debug, Default)]
pub(super) struct Scope<'a> {
    names: HashMap<&'a str, Name>,
    /// `%r<10>`.
    ranges: HashMap<&'a str, (Type, u64)>,
    slots: HashMap<&'a str, (Slot, Type)>,
    pub(super) labels: HashMap<&'a str, u32>,
    pub(super) targets: HashMap<&'a str, &'a [&'a str]>,
    pub(super) prototypes: HashMap<&'a str, &'a ast::Prototype<'a>>,
}

/// A register of either kind.
#[derive(Debug, Clone, Copy)]
pub(super) enum Register {
    Row(Slot, Type),
    Pred(PredSlot),
}

impl Scope<'_> {
    /// The type and the index of a register that is one of a range, as `%r5` is of `%r<10>`.
    fn of_range(&self, name: &str) -> Option<(Type, u64)> {
        let (prefix, digits) = numbered(name);
        let &(ty, count) = self.ranges.get(prefix)?;
        let index = digits.parse().ok()?;
        (index < count).then_some((ty, index))
    }
}

/// A name, and the digits at its end.
fn numbered(name: &str) -> (&str, &str) {
    let prefix = name.trim_end_matches(|c: char| c.is_ascii_digit());
    name.split_at(prefix.len())
}

/// `ptxas` takes `%r01` for `%r1`. Here it would be another register.
fn has_padding(name: &str) -> bool {
    let (_, digits) = numbered(name);
    digits.len() > 1 && digits.starts_with('0')
}

impl<'a> FunctionBuilder<'a, '_> {
    pub(super) fn scope(&mut self) -> &mut Scope<'a> {
        self.scopes
            .last_mut()
            .expect("a function always has an outermost scope")
    }

    pub(super) fn declare(&mut self, name: &'a str, what: Name) -> Result<(), LoadError> {
        let of_range = self.scope().of_range(name).is_some();
        if self.scope().names.insert(name, what).is_some() || of_range {
            return self.error(format!("`{name}` is declared twice: rename one"));
        }
        Ok(())
    }

    pub(super) fn declare_range(
        &mut self,
        name: &'a str,
        ty: Type,
        count: u64,
    ) -> Result<(), LoadError> {
        if self.scope().ranges.insert(name, (ty, count)).is_some() {
            return self.error(format!(
                "the registers `{name}<{count}>` are declared twice: rename some"
            ));
        }
        let scope = self.scope();
        let mut known = scope.names.keys();
        if let Some(known) = known.find(|known| scope.of_range(known).is_some()) {
            let message = format!("`{known}` is declared twice: `{name}<{count}>` has it as well");
            return self.error(message);
        }
        Ok(())
    }

    /// What a name stands for, registers aside.
    pub(super) fn lookup(&self, name: &str) -> Option<Name> {
        self.scopes
            .iter()
            .rev()
            .find_map(|scope| scope.names.get(name).copied())
            .or_else(|| self.module.variable_named(name).map(Name::Variable))
    }

    pub(super) fn register(&mut self, name: &'a str) -> Option<Register> {
        for depth in (0..self.scopes.len()).rev() {
            let scope = &self.scopes[depth];
            if let Some(&(slot, ty)) = scope.slots.get(name) {
                return Some(match ty {
                    Type::Pred => Register::Pred(slot as PredSlot),
                    ty => Register::Row(slot, ty),
                });
            }
            let ty = match scope.names.get(name) {
                Some(Name::Register { ty }) => Some(*ty),
                Some(_) => return None,
                None => match scope.of_range(name) {
                    Some(_) if has_padding(name) => return None,
                    found => found.map(|(ty, _)| ty),
                },
            };
            if let Some(ty) = ty {
                let (slot, register) = if ty == Type::Pred {
                    let slot = self.out.preds as PredSlot;
                    self.out.preds += 1;
                    self.out.pred_names.insert(slot, name.to_owned());
                    (Slot::from(slot), Register::Pred(slot))
                } else {
                    let slot = self.new_slot();
                    self.out.slot_names.insert(slot, name.to_owned());
                    (slot, Register::Row(slot, ty))
                };
                self.scopes[depth].slots.insert(name, (slot, ty));
                return Some(register);
            }
        }
        None
    }

    /// Refuses a register of a range whose index has leading zeros.
    pub(super) fn check_padding(&self, name: &str) -> Result<(), LoadError> {
        let mut scopes = self.scopes.iter().rev();
        match scopes.find_map(|scope| scope.of_range(name)) {
            Some((_, index)) => {
                let (prefix, _) = numbered(name);
                self.error(format!("`{name}` is not declared: write `{prefix}{index}`"))
            }
            None => Ok(()),
        }
    }

    pub(super) fn label(&self, name: &str) -> Result<u32, LoadError> {
        match self
            .scopes
            .iter()
            .rev()
            .find_map(|scope| scope.labels.get(name))
        {
            Some(&id) => Ok(id),
            None => self.error(format!("no label `{name}`")),
        }
    }

    pub(super) fn targets(&self, name: &str) -> Result<&'a [&'a str], LoadError> {
        match self
            .scopes
            .iter()
            .rev()
            .find_map(|scope| scope.targets.get(name))
        {
            Some(targets) => Ok(targets),
            None => self.error(format!("no target list `{name}`")),
        }
    }

    pub(super) fn prototype(&self, name: &str) -> Option<&'a ast::Prototype<'a>> {
        self.scopes
            .iter()
            .rev()
            .find_map(|scope| scope.prototypes.get(name).copied())
    }
}
