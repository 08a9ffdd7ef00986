//! Moves and selections.

use super::function::FunctionBuilder;
use super::modifiers::Modifiers;
use super::operand::Width;
use crate::error::LoadError;
use crate::isa::{Class, Elements, Op, Slot, Type, ZERO_SLOT};
use crate::syntax::ast::{Instruction, Operand};

const S32: Type = Type::S(32);
/// Types of `mov`.
const MOVED: [Type; 12] = [
    Type::Pred,
    Type::B(16),
    Type::U(16),
    Type::S(16),
    Type::B(32),
    Type::U(32),
    S32,
    Type::F32,
    Type::B(64),
    Type::U(64),
    Type::S(64),
    Type::F64,
];

impl<'a> FunctionBuilder<'a, '_> {
    /// `mov`, of registers, addresses, predicates, and between scalars and vectors.
    pub(super) fn mov(
        &mut self,
        instruction: &'a Instruction<'a>,
        mut modifiers: Modifiers<'a>,
    ) -> Result<(), LoadError> {
        let ty = modifiers.ty_of(&MOVED)?;
        modifiers.finish()?;
        let [dst, src] = self.operands(instruction)?;
        let class = Class::Other;
        if ty == Type::Pred {
            let op = Op::MovPred {
                src: self.pred_or_special(src)?,
                dst: self.pred_dst(dst)?,
            };
            self.emit(op, ZERO_SLOT, [ZERO_SLOT; 4], class);
            return Ok(());
        }
        match (dst, src) {
            (dst, Operand::Vector(parts)) => {
                let element = self.part_type(&modifiers, ty, parts.len())?;
                let slots = parts
                    .iter()
                    .map(|part| self.src_or_special(part, element, Width::Exact))
                    .collect::<Result<Vec<_>, _>>()?;
                let dst = self.dst(dst, ty)?;
                let elements = self.elements(&slots, element.bits());
                self.emit(Op::Pack(elements), dst, [ZERO_SLOT; 4], class);
            }
            (Operand::Vector(parts), src) => {
                let element = self.part_type(&modifiers, ty, parts.len())?;
                let src = self.src_or_special(src, ty, Width::Exact)?;
                let slots = parts
                    .iter()
                    .map(|part| self.dst(part, element))
                    .collect::<Result<Vec<_>, _>>()?;
                let elements = self.elements(&slots, element.bits());
                let src = [src, ZERO_SLOT, ZERO_SLOT, ZERO_SLOT];
                self.emit(Op::Unpack(elements), ZERO_SLOT, src, class);
            }
            (dst, src) => {
                if let Some(kind) = self.clock(src, ty)? {
                    let dst = self.dst(dst, ty)?;
                    self.emit(Op::Clock(kind), dst, [ZERO_SLOT; 4], class);
                    return Ok(());
                }
                let src = match self.symbol_address(src, ty)? {
                    Some(address) => address,
                    None => self.src_or_special(src, ty, Width::Exact)?,
                };
                let dst = self.dst(dst, ty)?;
                let src = [src, ZERO_SLOT, ZERO_SLOT, ZERO_SLOT];
                self.emit(Op::Mov, dst, src, class);
            }
        }
        Ok(())
    }

    fn part_type(
        &self,
        modifiers: &Modifiers<'_>,
        ty: Type,
        parts: usize,
    ) -> Result<Type, LoadError> {
        match (ty.bits(), parts) {
            (bits @ (16 | 32 | 64), 2) | (bits @ (32 | 64), 4) => Ok(Type::B(bits / parts as u8)),
            _ => modifiers.error(format!("{parts} parts of {ty} are not possible")),
        }
    }

    fn elements(&mut self, slots: &[Slot], bits: u8) -> Elements {
        let pool = self.out.pool.len() as u32;
        self.out.pool.extend_from_slice(slots);
        Elements {
            pool,
            count: slots.len() as u8,
            bits,
        }
    }

    /// `selp`, `slct`.
    pub(super) fn select(
        &mut self,
        instruction: &'a Instruction<'a>,
        mut modifiers: Modifiers<'a>,
    ) -> Result<(), LoadError> {
        let ftz = modifiers.flag("ftz");
        let ty = modifiers.ty()?;
        let [dst, a, b, c] = self.operands(instruction)?;
        let selected = match ty {
            Type::U(bits) | Type::S(bits) | Type::B(bits) => bits > 8,
            ty => matches!(ty, Type::F32 | Type::F64),
        };
        if !selected {
            return modifiers.error(format!("{ty} is not a type of this instruction"));
        }
        let (a, b) = (self.src(a, ty)?, self.src(b, ty)?);
        let (op, c) = if instruction.opcode == "selp" {
            if ftz {
                return modifiers.error("`.ftz` is not supported here");
            }
            (Op::Selp(self.pred(c)?), ZERO_SLOT)
        } else {
            let selector = modifiers.ty_of(&[S32, Type::F32])?;
            let float = selector == Type::F32;
            if ftz && !float {
                return modifiers.error("`.ftz` is for a selector of `.f32`");
            }
            (Op::Slct { float, ftz }, self.src(c, selector)?)
        };
        modifiers.finish()?;
        self.named(dst)?;
        let dst = self.dst(dst, ty)?;
        self.emit(op, dst, [a, b, c, ZERO_SLOT], Class::Integer);
        Ok(())
    }
}
