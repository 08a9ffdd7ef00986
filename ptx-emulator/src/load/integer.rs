//! Integer arithmetic.

use super::function::FunctionBuilder;
use super::modifiers::Modifiers;
use crate::error::LoadError;
use crate::isa::{CarryOp, Class, IntOp, IntType, IntUnaryOp, MadOp, Op, Slot, Type, ZERO_SLOT};
use crate::syntax::ast::{Instruction, Operand};

const S32: Type = Type::S(32);
const U32: Type = Type::U(32);
/// Types that a carry flag is for.
const CARRIED: [Type; 4] = [U32, S32, Type::U(64), Type::S(64)];
const NUMBERS: [Type; 6] = [Type::U(16), Type::S(16), U32, S32, Type::U(64), Type::S(64)];

impl<'a> FunctionBuilder<'a, '_> {
    /// The operands of an instruction, which must be exactly `N`.
    pub(super) fn operands<'i, const N: usize>(
        &self,
        instruction: &'i Instruction<'a>,
    ) -> Result<&'i [Operand<'a>; N], LoadError> {
        match instruction.operands.as_slice().try_into() {
            Ok(operands) => Ok(operands),
            Err(_) => self.error(format!(
                "`{}` takes {N} operands here, {} were given",
                instruction.opcode,
                instruction.operands.len()
            )),
        }
    }

    /// Emits an instruction whose operands all have one type.
    pub(super) fn emit_uniform<const N: usize>(
        &mut self,
        instruction: &'a Instruction<'a>,
        op: Op,
        ty: Type,
        class: Class,
    ) -> Result<(), LoadError> {
        let types = [ty; N];
        self.emit_typed(instruction, op, types, class)
    }

    /// Emits an instruction with a type for each operand, the destination first.
    pub(super) fn emit_typed<const N: usize>(
        &mut self,
        instruction: &'a Instruction<'a>,
        op: Op,
        types: [Type; N],
        class: Class,
    ) -> Result<(), LoadError> {
        let operands: &[Operand<'a>; N] = self.operands(instruction)?;
        let mut src: [Slot; 4] = [ZERO_SLOT; 4];
        for index in 1..N {
            src[index - 1] = self.src(&operands[index], types[index])?;
        }
        self.named(&operands[0])?;
        let dst = self.dst(&operands[0], types[0])?;
        self.emit(op, dst, src, class);
        Ok(())
    }

    pub(super) fn int_type(
        &self,
        modifiers: &Modifiers<'_>,
        ty: Type,
    ) -> Result<IntType, LoadError> {
        match ty.as_int() {
            Some(int) => Ok(int),
            None => modifiers.error(format!("{ty} is not a type of this instruction")),
        }
    }

    /// `.u16x2` and `.s16x2`, as the type of a half.
    fn packed_type(modifiers: &mut Modifiers<'_>) -> Option<IntType> {
        modifiers.choose(&[("u16x2", IntType::U16), ("s16x2", IntType::S16)])
    }

    /// `add`, `sub` on integers.
    pub(super) fn int_add_sub(
        &mut self,
        instruction: &'a Instruction<'a>,
        mut modifiers: Modifiers<'a>,
        subtract: bool,
    ) -> Result<(), LoadError> {
        if !subtract && let Some(ty) = Self::packed_type(&mut modifiers) {
            modifiers.finish()?;
            let op = Op::IntPair(IntOp::Add, ty);
            return self.emit_uniform::<3>(instruction, op, Type::B(32), Class::Integer);
        }
        let carry_out = modifiers.flag("cc");
        let saturate = modifiers.flag("sat");
        let ty = modifiers.ty_of(if carry_out { &CARRIED } else { &NUMBERS })?;
        modifiers.finish()?;
        let int = self.int_type(&modifiers, ty)?;
        let op = match (carry_out, saturate, subtract) {
            (true, true, _) => return modifiers.error("`.cc` and `.sat` exclude each other"),
            (true, false, _) => Op::Carry {
                op: if subtract { CarryOp::Sub } else { CarryOp::Add },
                ty: int,
                carry_in: false,
                carry_out: true,
            },
            (false, true, _) if ty != S32 => {
                return modifiers.error("`.sat` is for `.s32` only");
            }
            (false, true, false) => Op::Int(IntOp::AddSat, int),
            (false, true, true) => Op::Int(IntOp::SubSat, int),
            (false, false, false) => Op::Int(IntOp::Add, int),
            (false, false, true) => Op::Int(IntOp::Sub, int),
        };
        self.emit_uniform::<3>(instruction, op, ty, Class::Integer)
    }

    /// `addc`, `subc`, `madc`.
    pub(super) fn carry(
        &mut self,
        instruction: &'a Instruction<'a>,
        mut modifiers: Modifiers<'a>,
    ) -> Result<(), LoadError> {
        let op = match instruction.opcode {
            "addc" => CarryOp::Add,
            "subc" => CarryOp::Sub,
            _ => modifiers.require(
                "a half of the product",
                &[("lo", CarryOp::MadLo), ("hi", CarryOp::MadHi)],
            )?,
        };
        let carry_out = modifiers.flag("cc");
        let ty = modifiers.ty_of(&CARRIED)?;
        modifiers.finish()?;
        let op = Op::Carry {
            op,
            ty: self.int_type(&modifiers, ty)?,
            carry_in: true,
            carry_out,
        };
        if instruction.opcode == "madc" {
            self.emit_uniform::<4>(instruction, op, ty, Class::Integer)
        } else {
            self.emit_uniform::<3>(instruction, op, ty, Class::Integer)
        }
    }

    fn wider(ty: Type) -> Option<Type> {
        match ty {
            Type::U(bits @ (16 | 32)) => Some(Type::U(2 * bits)),
            Type::S(bits @ (16 | 32)) => Some(Type::S(2 * bits)),
            _ => None,
        }
    }

    /// `mul`, `mul24` on integers.
    pub(super) fn int_mul(
        &mut self,
        instruction: &'a Instruction<'a>,
        mut modifiers: Modifiers<'a>,
    ) -> Result<(), LoadError> {
        let short = instruction.opcode == "mul24";
        let part = modifiers.require(
            "a part of the product",
            &[
                ("lo", IntOp::MulLo),
                ("hi", IntOp::MulHi),
                ("wide", IntOp::MulWide),
            ],
        )?;
        let ty = modifiers.ty_of(&NUMBERS)?;
        modifiers.finish()?;
        let int = self.int_type(&modifiers, ty)?;
        let class = Class::Integer;
        match (short, part) {
            (true, IntOp::MulLo | IntOp::MulHi) if ty == U32 || ty == S32 => {
                let op = if part == IntOp::MulLo {
                    IntOp::Mul24Lo
                } else {
                    IntOp::Mul24Hi
                };
                self.emit_uniform::<3>(instruction, Op::Int(op, int), ty, class)
            }
            (true, _) => modifiers.error("only `.lo` and `.hi` of 32-bit types"),
            (false, IntOp::MulWide) => match Self::wider(ty) {
                Some(wide) => {
                    self.emit_typed(instruction, Op::Int(part, int), [wide, ty, ty], class)
                }
                None => modifiers.error(format!("{ty} cannot be widened")),
            },
            (false, _) => self.emit_uniform::<3>(instruction, Op::Int(part, int), ty, class),
        }
    }

    /// `mad`, `mad24` on integers.
    pub(super) fn int_mad(
        &mut self,
        instruction: &'a Instruction<'a>,
        mut modifiers: Modifiers<'a>,
    ) -> Result<(), LoadError> {
        let short = instruction.opcode == "mad24";
        let part = modifiers.require(
            "a part of the product",
            &[("lo", MadOp::Lo), ("hi", MadOp::Hi), ("wide", MadOp::Wide)],
        )?;
        let carry_out = modifiers.flag("cc");
        let saturate = modifiers.flag("sat");
        let ty = modifiers.ty_of(if carry_out { &CARRIED } else { &NUMBERS })?;
        modifiers.finish()?;
        let int = self.int_type(&modifiers, ty)?;
        let op = match (short, part, saturate) {
            (true, MadOp::Lo, false) if ty.bits() == 32 => MadOp::Lo24,
            (true, MadOp::Hi, false) if ty.bits() == 32 => MadOp::Hi24,
            (true, MadOp::Hi, true) if ty == S32 => MadOp::Hi24Sat,
            (false, MadOp::Hi, true) if ty == S32 => MadOp::HiSat,
            (false, part, false) => part,
            _ => return modifiers.error("no such combination"),
        };
        if carry_out {
            let op = match op {
                MadOp::Lo => CarryOp::MadLo,
                MadOp::Hi => CarryOp::MadHi,
                _ => return modifiers.error("`.cc` is for `.lo` and `.hi` only"),
            };
            let op = Op::Carry {
                op,
                ty: int,
                carry_in: false,
                carry_out: true,
            };
            return self.emit_uniform::<4>(instruction, op, ty, Class::Integer);
        }
        let op = Op::Mad(op, int);
        if part == MadOp::Wide {
            return match Self::wider(ty) {
                Some(wide) => {
                    self.emit_typed(instruction, op, [wide, ty, ty, wide], Class::Integer)
                }
                None => modifiers.error(format!("{ty} cannot be widened")),
            };
        }
        self.emit_uniform::<4>(instruction, op, ty, Class::Integer)
    }

    /// `div`, `rem`, `min`, `max`, `abs`, `neg` and `sad` on integers.
    pub(super) fn int_simple(
        &mut self,
        instruction: &'a Instruction<'a>,
        mut modifiers: Modifiers<'a>,
    ) -> Result<(), LoadError> {
        let relu = modifiers.flag("relu");
        if matches!(instruction.opcode, "min" | "max")
            && let Some(ty) = Self::packed_type(&mut modifiers)
        {
            modifiers.finish()?;
            let op = match (instruction.opcode, relu) {
                (_, true) if ty == IntType::U16 => {
                    return modifiers.error("`.relu` is for signed types");
                }
                ("min", false) => IntOp::Min,
                ("min", true) => IntOp::MinRelu,
                (_, false) => IntOp::Max,
                (_, true) => IntOp::MaxRelu,
            };
            let op = Op::IntPair(op, ty);
            return self.emit_uniform::<3>(instruction, op, Type::B(32), Class::Integer);
        }
        let ty = modifiers.ty_of(&NUMBERS)?;
        modifiers.finish()?;
        let int = self.int_type(&modifiers, ty)?;
        let signed = matches!(ty, Type::S(_));
        if relu && (ty != S32 || !matches!(instruction.opcode, "min" | "max")) {
            return modifiers.error("`.relu` is for `min.s32` and `max.s32`");
        }
        let binary = match (instruction.opcode, relu) {
            ("div", _) => IntOp::Div,
            ("rem", _) => IntOp::Rem,
            ("min", false) => IntOp::Min,
            ("max", false) => IntOp::Max,
            ("min", true) => IntOp::MinRelu,
            ("max", true) => IntOp::MaxRelu,
            ("sad", _) => {
                let op = Op::Mad(MadOp::Sad, int);
                return self.emit_uniform::<4>(instruction, op, ty, Class::Integer);
            }
            (opcode, _) => {
                if !signed {
                    return modifiers.error("is for signed types only");
                }
                let op = if opcode == "abs" {
                    IntUnaryOp::Abs
                } else {
                    IntUnaryOp::Neg
                };
                return self.emit_uniform::<2>(
                    instruction,
                    Op::IntUnary(op, int),
                    ty,
                    Class::Integer,
                );
            }
        };
        self.emit_uniform::<3>(instruction, Op::Int(binary, int), ty, Class::Integer)
    }
}
