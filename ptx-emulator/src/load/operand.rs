//! Operands to rows, predicates and addresses, with their types checked.

use std::ops::RangeInclusive;

use super::function::FunctionBuilder;
use super::modifiers::Modifiers;
use super::scope::{Name, Register};
use super::special;
use super::variables::VariableKind;
use crate::error::LoadError;
use crate::isa::{
    AccessSpace, Constant, ParamPlace, Pred, PredSlot, SINK_PRED, SINK_SLOT, Slot, Type, ZERO_SLOT,
};
use crate::syntax::ast::{AddressBase, Number, Operand};

/// Alignment of parameters in local memory: the greatest that one can be declared with.
const STACK_ALIGN: usize = 128;

/// Bits of a literal used as a value of a type.
pub(super) fn literal_bits(number: Number, ty: Type) -> u64 {
    let bits = match (number, ty) {
        (Number::Integer(value), _) => value,
        (Number::F32(bits), Type::F64) => f64::from(f32::from_bits(bits)).to_bits(),
        (Number::F32(bits), _) => u64::from(bits),
        (Number::F64(value), Type::F32) => u64::from((value as f32).to_bits()),
        (Number::F64(value), _) => value.to_bits(),
    };
    match ty.bits() {
        64 => bits,
        width => bits & ((1 << width) - 1),
    }
}

/// How strictly a register's width must be that of the instruction's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Width {
    Exact,
    /// `ld`, `st` and `cvt` allow wider registers.
    AtLeast,
}

impl<'a> FunctionBuilder<'a, '_> {
    fn check_register(
        &self,
        name: &str,
        register: Type,
        ty: Type,
        width: Width,
    ) -> Result<(), LoadError> {
        let fits = match width {
            Width::Exact => register.bits() == ty.bits(),
            Width::AtLeast => register.bits() >= ty.bits(),
        };
        if fits && ty.agrees_with(register) {
            return Ok(());
        }
        self.error(format!(
            "register `{name}` is {register}, the instruction takes {ty}"
        ))
    }

    /// A source operand of a type.
    pub(super) fn src(&mut self, operand: &Operand<'a>, ty: Type) -> Result<Slot, LoadError> {
        self.src_width(operand, ty, Width::Exact)
    }

    /// A source operand of `.u32`. As a literal it is in a range, and a multiple of `step`.
    pub(super) fn src_within(
        &mut self,
        modifiers: &Modifiers<'_>,
        operand: &Operand<'a>,
        range: RangeInclusive<u64>,
        step: u64,
    ) -> Result<Slot, LoadError> {
        if let Operand::Number(Number::Integer(value)) = operand
            && !(range.contains(value) && value.is_multiple_of(step))
        {
            let value = *value as i64;
            let (low, high) = range.into_inner();
            return modifiers.error(match step {
                1 => format!("{value} is not from {low} to {high}"),
                _ => format!("{value} is not a multiple of {step} from {low} to {high}"),
            });
        }
        self.src(operand, Type::U(32))
    }

    pub(super) fn src_width(
        &mut self,
        operand: &Operand<'a>,
        ty: Type,
        width: Width,
    ) -> Result<Slot, LoadError> {
        match operand {
            Operand::Number(number) => {
                let (kind, fits) = match number {
                    Number::Integer(_) => ("an integer", !ty.is_float()),
                    Number::F32(_) => (
                        "a 32-bit float",
                        matches!(ty, Type::F32 | Type::F64 | Type::B(32)),
                    ),
                    Number::F64(_) => {
                        ("a float", matches!(ty, Type::F32 | Type::F64 | Type::B(64)))
                    }
                };
                if !fits {
                    return self.error(format!("{kind} literal cannot be used as {ty}"));
                }
                Ok(self.constant(Constant::Value(literal_bits(*number, ty))))
            }
            Operand::Name(name) => match self.register(name) {
                Some(Register::Row(slot, register)) => {
                    self.check_register(name, register, ty, width)?;
                    Ok(slot)
                }
                Some(Register::Pred(_)) => self.error(format!(
                    "`{name}` is a predicate, the instruction takes {ty}"
                )),
                None => self.no_value(name),
            },
            Operand::Member(name, member) => self.error(special::why_not(name, Some(member))),
            Operand::NameOffset(name, _) => self.no_value(name),
            _ => self.error(format!("expected an operand of type {ty}")),
        }
    }

    fn no_value(&self, name: &str) -> Result<Slot, LoadError> {
        match self.symbol(name, 0, false) {
            Some(_) => self.error(format!("`{name}` is an address: read it with `mov`")),
            None => {
                self.check_padding(name)?;
                self.error(special::why_not(name, None))
            }
        }
    }

    /// The address that an operand of `mov` or `cvta` names.
    pub(super) fn symbol_address(
        &mut self,
        operand: &Operand<'a>,
        ty: Type,
    ) -> Result<Option<Slot>, LoadError> {
        let (name, offset) = match operand {
            Operand::Name(name) => (name, 0),
            Operand::NameOffset(name, offset) => (name, *offset),
            _ => return Ok(None),
        };
        if self.register(name).is_some() {
            return Ok(None);
        }
        let constant = match self.lookup(name) {
            Some(Name::Param {
                place,
                kernel: false,
            }) => Constant::Local {
                offset: self.stacked_param(name, place)?,
                add: offset,
                generic: false,
            },
            _ => match self.symbol(name, offset, false) {
                Some(constant) => constant,
                None => return Ok(None),
            },
        };
        if ty.bits() < 32 || ty.is_float() {
            return self.error(format!("the address of `{name}` is not a {ty}"));
        }
        Ok(Some(self.constant(constant)))
    }

    /// Where in local memory a parameter lies whose address is taken.
    fn stacked_param(&mut self, name: &str, place: ParamPlace) -> Result<u32, LoadError> {
        if !self.out.params.contains(&place) {
            return self.error(format!(
                "`{name}` is a result or belongs to a call: only parameters of the function have addresses"
            ));
        }
        let known = self.out.stacked.iter().find(|(param, _)| *param == place);
        if let Some(&(_, offset)) = known {
            return Ok(offset);
        }
        let offset = self.local_place(place.size as usize, STACK_ALIGN)?;
        self.out.stacked.push((place, offset));
        Ok(offset)
    }

    /// Address of a variable, parameter or function.
    pub(super) fn symbol(&self, name: &str, offset: i64, generic: bool) -> Option<Constant> {
        match self.lookup(name) {
            Some(Name::Variable(index)) => Some(Constant::Variable {
                index,
                offset,
                generic,
            }),
            Some(Name::Local { offset: place }) => Some(Constant::Local {
                offset: place,
                add: offset,
                generic,
            }),
            Some(Name::Param {
                place,
                kernel: true,
            }) => Some(Constant::KernelParam {
                offset: place.offset.wrapping_add(offset as u32),
                generic,
            }),
            Some(Name::Param { .. } | Name::Register { .. }) => None,
            None => {
                let index = self.module.function(name)?.index?;
                Some(Constant::Function(index))
            }
        }
    }

    /// Refuses `_`, which is for one of several results.
    pub(super) fn named(&self, operand: &Operand<'a>) -> Result<(), LoadError> {
        match operand {
            Operand::Name("_") => self.error("the only result cannot be `_`"),
            _ => Ok(()),
        }
    }

    /// A destination register of a type; `_` is a sink.
    pub(super) fn dst(&mut self, operand: &Operand<'a>, ty: Type) -> Result<Slot, LoadError> {
        self.dst_width(operand, ty, Width::Exact)
            .map(|(slot, _)| slot)
    }

    /// A destination register and its width in bits.
    pub(super) fn dst_width(
        &mut self,
        operand: &Operand<'a>,
        ty: Type,
        width: Width,
    ) -> Result<(Slot, u8), LoadError> {
        let Operand::Name(name) = operand else {
            return self.error("the destination must be a register");
        };
        if *name == "_" {
            return Ok((SINK_SLOT, ty.bits()));
        }
        match self.register(name) {
            Some(Register::Row(slot, register)) => {
                self.check_register(name, register, ty, width)?;
                Ok((slot, register.bits()))
            }
            Some(Register::Pred(_)) => {
                self.error(format!("`{name}` is a predicate, the result is {ty}"))
            }
            None => {
                self.check_padding(name)?;
                self.error(format!("register `{name}` is not declared"))
            }
        }
    }

    pub(super) fn pred(&mut self, operand: &Operand<'a>) -> Result<Pred, LoadError> {
        match operand {
            Operand::Name(name) => Ok(Pred {
                slot: self.pred_slot(name)?,
                negated: false,
            }),
            Operand::Not(name) => Ok(Pred {
                slot: self.pred_slot(name)?,
                negated: true,
            }),
            Operand::Number(Number::Integer(value)) => Ok(Pred {
                negated: *value == 0,
                ..Pred::TRUE
            }),
            _ => self.error("expected a predicate"),
        }
    }

    pub(super) fn pred_dst(&mut self, operand: &Operand<'a>) -> Result<PredSlot, LoadError> {
        match operand {
            Operand::Name("_") => Ok(SINK_PRED),
            Operand::Name(name) => self.pred_slot(name),
            _ => self.error("the destination must be a predicate register"),
        }
    }

    /// Splits `d|p`; the second is the sink where it is left out.
    pub(super) fn row_and_pred(
        &mut self,
        operand: &Operand<'a>,
        ty: Type,
    ) -> Result<(Slot, PredSlot), LoadError> {
        match operand {
            Operand::Pair(row, pred) => Ok((self.dst(row, ty)?, self.pred_dst(pred)?)),
            row => Ok((self.dst(row, ty)?, SINK_PRED)),
        }
    }

    /// Refuses `d` and `d|_` where the predicate is what the instruction is for.
    pub(super) fn check_pred_result(
        modifiers: &Modifiers<'_>,
        operand: &Operand<'a>,
    ) -> Result<(), LoadError> {
        match operand {
            Operand::Pair(_, pred) if !matches!(**pred, Operand::Name("_")) => Ok(()),
            _ => modifiers.error("needs a predicate for its result, as in `d|p`"),
        }
    }

    /// Splits `p|q`.
    pub(super) fn two_preds(
        &mut self,
        operand: &Operand<'a>,
    ) -> Result<(PredSlot, PredSlot), LoadError> {
        match operand {
            Operand::Pair(first, second) => Ok((self.pred_dst(first)?, self.pred_dst(second)?)),
            first => Ok((self.pred_dst(first)?, SINK_PRED)),
        }
    }

    /// Row and offset of an address, and which parameter area it is in where the space is `.param`.
    pub(super) fn address(
        &mut self,
        operand: &Operand<'a>,
        space: AccessSpace,
    ) -> Result<(Slot, i64, AccessSpace), LoadError> {
        let Operand::Address(address) = operand else {
            return self.error("expected an address in brackets");
        };
        let name = match address.base {
            AddressBase::Absolute(_) if space != AccessSpace::Local => {
                return self.error("an address without a register or name is for `.local`");
            }
            AddressBase::Absolute(base) => {
                return Ok((ZERO_SLOT, (base as i64).wrapping_add(address.offset), space));
            }
            AddressBase::Name(name) => name,
        };
        match self.register(name) {
            Some(Register::Row(slot, ty)) if !ty.is_float() && ty.bits() >= 32 => {
                return Ok((slot, address.offset, space));
            }
            Some(_) => {
                return self.error(format!("register `{name}` cannot hold an address"));
            }
            None => {}
        }
        if let Some(Name::Param { place, kernel }) = self.lookup(name) {
            if space != AccessSpace::KernelParam {
                return self.error(format!("`{name}` is a parameter: use `.param`"));
            }
            let space = if kernel {
                AccessSpace::KernelParam
            } else {
                AccessSpace::FrameParam
            };
            let offset = i64::from(place.offset).wrapping_add(address.offset);
            return Ok((ZERO_SLOT, offset, space));
        }
        let generic = space == AccessSpace::Generic;
        let Some(constant) = self.symbol(name, address.offset, generic) else {
            return self.error(format!("`{name}` is not declared"));
        };
        let matches = match (constant, space) {
            (Constant::Local { .. }, AccessSpace::Local | AccessSpace::Generic) => true,
            // Constants are behind a window, which `cvta` finds.
            (Constant::Variable { index, .. }, AccessSpace::Generic) => {
                self.module.kind(index) != VariableKind::Const
            }
            (Constant::Variable { index, .. }, space) => matches!(
                (self.module.kind(index), space),
                (
                    VariableKind::Global | VariableKind::Undefined,
                    AccessSpace::Global
                ) | (
                    VariableKind::Const | VariableKind::Undefined,
                    AccessSpace::Const
                ) | (
                    VariableKind::Shared | VariableKind::DynamicShared,
                    AccessSpace::Shared
                )
            ),
            _ => false,
        };
        if !matches {
            return self.error(format!("`{name}` is not in the state space of the access"));
        }
        Ok((self.constant(constant), 0, space))
    }
}
