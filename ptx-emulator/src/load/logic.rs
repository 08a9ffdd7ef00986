//! Logic, shifts, bit fields, permutations and dot products.

use super::function::FunctionBuilder;
use super::modifiers::Modifiers;
use super::operand::literal_bits;
use crate::error::LoadError;
use crate::isa::{Class, IntOp, IntUnaryOp, Op, PredOp, PrmtMode, Type, ZERO_SLOT};
use crate::syntax::ast::{Instruction, Number, Operand};

const S32: Type = Type::S(32);
const U32: Type = Type::U(32);
const B32: Type = Type::B(32);

impl<'a> FunctionBuilder<'a, '_> {
    /// `and`, `or`, `xor`, `not`, `cnot`.
    pub(super) fn logic(
        &mut self,
        instruction: &'a Instruction<'a>,
        mut modifiers: Modifiers<'a>,
    ) -> Result<(), LoadError> {
        let ty = modifiers.ty_of(&[Type::Pred, Type::B(16), B32, Type::B(64)])?;
        modifiers.finish()?;
        if ty == Type::Pred {
            return self.pred_logic(instruction, &modifiers);
        }
        let int = self.int_type(&modifiers, ty)?;
        let op = match instruction.opcode {
            "and" => IntOp::And,
            "or" => IntOp::Or,
            "xor" => IntOp::Xor,
            opcode => {
                let op = if opcode == "not" {
                    IntUnaryOp::Not
                } else {
                    IntUnaryOp::Cnot
                };
                let op = Op::IntUnary(op, int);
                return self.emit_uniform::<2>(instruction, op, ty, Class::Integer);
            }
        };
        self.emit_uniform::<3>(instruction, Op::Int(op, int), ty, Class::Integer)
    }

    fn pred_logic(
        &mut self,
        instruction: &'a Instruction<'a>,
        modifiers: &Modifiers<'a>,
    ) -> Result<(), LoadError> {
        let op = match instruction.opcode {
            "and" => PredOp::And,
            "or" => PredOp::Or,
            "xor" => PredOp::Xor,
            "not" => {
                let [dst, src] = self.operands(instruction)?;
                let mut src = self.pred(src)?;
                src.negated = !src.negated;
                let dst = self.pred_dst(dst)?;
                let op = Op::MovPred { dst, src };
                self.emit(op, ZERO_SLOT, [ZERO_SLOT; 4], Class::Integer);
                return Ok(());
            }
            _ => return modifiers.error(".pred is not a type of this instruction"),
        };
        let [dst, a, b] = self.operands(instruction)?;
        let (a, b, dst) = (self.pred(a)?, self.pred(b)?, self.pred_dst(dst)?);
        let op = Op::PredLogic { op, dst, a, b };
        self.emit(op, ZERO_SLOT, [ZERO_SLOT; 4], Class::Integer);
        Ok(())
    }

    /// `shl`, `shr`: the shift amount is always 32 bits.
    pub(super) fn shift(
        &mut self,
        instruction: &'a Instruction<'a>,
        mut modifiers: Modifiers<'a>,
    ) -> Result<(), LoadError> {
        let ty = modifiers.ty()?;
        modifiers.finish()?;
        let int = self.int_type(&modifiers, ty)?;
        let op = match (instruction.opcode, ty) {
            ("shl", Type::B(_)) => IntOp::Shl,
            ("shr", _) => IntOp::Shr,
            _ => return modifiers.error(format!("{ty} is not a type of this instruction")),
        };
        self.emit_typed(instruction, Op::Int(op, int), [ty, ty, U32], Class::Integer)
    }

    /// Bit-field and bit-counting instructions, permutations and dot products.
    pub(super) fn bits(
        &mut self,
        instruction: &'a Instruction<'a>,
        mut modifiers: Modifiers<'a>,
    ) -> Result<(), LoadError> {
        let class = Class::Integer;
        match instruction.opcode {
            "clz" | "popc" | "brev" => {
                let op = match instruction.opcode {
                    "clz" => IntUnaryOp::Clz,
                    "popc" => IntUnaryOp::Popc,
                    _ => IntUnaryOp::Brev,
                };
                let ty = modifiers.ty_of(&[B32, Type::B(64)])?;
                modifiers.finish()?;
                let result = if op == IntUnaryOp::Brev { ty } else { U32 };
                let int = self.int_type(&modifiers, ty)?;
                self.emit_typed(instruction, Op::IntUnary(op, int), [result, ty], class)
            }
            "bfe" => {
                let ty = modifiers.ty_of(&[U32, S32, Type::U(64), Type::S(64)])?;
                modifiers.finish()?;
                self.check_field(&modifiers, instruction)?;
                let op = Op::Bfe(self.int_type(&modifiers, ty)?);
                self.emit_typed(instruction, op, [ty, ty, U32, U32], class)
            }
            "bfi" => {
                let ty = modifiers.ty_of(&[B32, Type::B(64)])?;
                modifiers.finish()?;
                self.check_field(&modifiers, instruction)?;
                let wide = ty.bits() == 64;
                self.emit_typed(instruction, Op::Bfi { wide }, [ty, ty, ty, U32, U32], class)
            }
            "bfind" => {
                let shift_amount = modifiers.flag("shiftamt");
                let ty = modifiers.ty_of(&[U32, S32, Type::U(64), Type::S(64)])?;
                modifiers.finish()?;
                let op = Op::Bfind {
                    ty: self.int_type(&modifiers, ty)?,
                    shift_amount,
                };
                self.emit_typed(instruction, op, [U32, ty], class)
            }
            "bmsk" => {
                let clamp = self.clamp_or_wrap(&mut modifiers)?;
                modifiers.ty_of(&[B32])?;
                modifiers.finish()?;
                self.emit_uniform::<3>(instruction, Op::Bmsk { clamp }, B32, class)
            }
            "szext" => {
                let clamp = self.clamp_or_wrap(&mut modifiers)?;
                let ty = modifiers.ty_of(&[U32, S32])?;
                modifiers.finish()?;
                let signed = ty == S32;
                self.emit_typed(
                    instruction,
                    Op::Szext { clamp, signed },
                    [ty, ty, U32],
                    class,
                )
            }
            "shf" => {
                let left = modifiers.require("a direction", &[("l", true), ("r", false)])?;
                let clamp = self.clamp_or_wrap(&mut modifiers)?;
                modifiers.ty_of(&[B32])?;
                modifiers.finish()?;
                let op = Op::Shf { left, clamp };
                self.emit_typed(instruction, op, [B32, B32, B32, U32], class)
            }
            "prmt" => {
                modifiers.ty_of(&[B32])?;
                let mode = modifiers
                    .choose(&[
                        ("f4e", PrmtMode::F4e),
                        ("b4e", PrmtMode::B4e),
                        ("rc8", PrmtMode::Rc8),
                        ("ecl", PrmtMode::Ecl),
                        ("ecr", PrmtMode::Ecr),
                        ("rc16", PrmtMode::Rc16),
                    ])
                    .unwrap_or(PrmtMode::Index);
                modifiers.finish()?;
                self.emit_uniform::<4>(instruction, Op::Prmt(mode), B32, class)?;
                // Of an operand that a literal selects no byte of, LLVM does not care whether it has a value.
                if let (PrmtMode::Index, Some(Operand::Number(selector))) =
                    (mode, instruction.operands.last())
                {
                    let inst = self.out.code.last_mut();
                    let src = &mut inst.expect("the instruction that was just emitted").src;
                    match literal_bits(*selector, B32) & 0x4444 {
                        0 => src[1] = ZERO_SLOT,
                        0x4444 => src[0] = ZERO_SLOT,
                        _ => {}
                    }
                }
                Ok(())
            }
            "fns" => {
                modifiers.ty_of(&[B32])?;
                modifiers.finish()?;
                self.emit_typed(instruction, Op::Fns, [B32, B32, B32, S32], class)
            }
            "dp4a" | "dp2a" => {
                let half = (instruction.opcode == "dp2a")
                    .then(|| modifiers.require("a half", &[("lo", false), ("hi", true)]))
                    .transpose()?;
                let a = modifiers.ty_of(&[U32, S32])?;
                let b = modifiers.ty_of(&[U32, S32])?;
                modifiers.finish()?;
                let (a_signed, b_signed) = (a == S32, b == S32);
                let sum = if a_signed || b_signed { S32 } else { U32 };
                let op = match half {
                    None => Op::Dp4a { a_signed, b_signed },
                    Some(high) => Op::Dp2a {
                        a_signed,
                        b_signed,
                        high,
                    },
                };
                self.emit_typed(instruction, op, [sum, a, b, sum], Class::Dp4a)
            }
            _ => modifiers.error("unknown instruction"),
        }
    }

    /// Position and length of a bit field, which come last, are bytes.
    fn check_field(
        &self,
        modifiers: &Modifiers<'_>,
        instruction: &Instruction<'_>,
    ) -> Result<(), LoadError> {
        for operand in instruction.operands.iter().rev().take(2) {
            if let Operand::Number(Number::Integer(value @ 256..)) = operand {
                let value = *value as i64;
                return modifiers.error(format!("{value} is not from 0 to 255"));
            }
        }
        Ok(())
    }

    fn clamp_or_wrap(&self, modifiers: &mut Modifiers<'_>) -> Result<bool, LoadError> {
        modifiers.require("a mode", &[("clamp", true), ("wrap", false)])
    }

    /// `lop3.b32` and `lop3.and.b32 d|p, …, q`.
    pub(super) fn lop3(
        &mut self,
        instruction: &'a Instruction<'a>,
        mut modifiers: Modifiers<'a>,
    ) -> Result<(), LoadError> {
        let combine = modifiers.choose(&[("or", true), ("and", false)]);
        modifiers.ty_of(&[B32])?;
        modifiers.finish()?;
        let (operands, with) = match (combine, instruction.operands.as_slice()) {
            (None, operands @ [_, _, _, _, _]) => (operands, None),
            (Some(_), [operands @ .., with]) if operands.len() == 5 => (operands, Some(with)),
            _ => return modifiers.error("wrong number of operands"),
        };
        let Operand::Number(number) = &operands[4] else {
            return modifiers.error("the table must be a number");
        };
        let lut = literal_bits(*number, B32);
        let Ok(lut) = u8::try_from(lut) else {
            return modifiers.error(format!("the table {lut:#x} is more than a byte"));
        };
        let src = [
            self.src(&operands[1], B32)?,
            self.src(&operands[2], B32)?,
            self.src(&operands[3], B32)?,
            ZERO_SLOT,
        ];
        let (dst, op) = match (combine, with) {
            (Some(or), Some(with)) => {
                let src = self.pred(with)?;
                Self::check_pred_result(&modifiers, &operands[0])?;
                let (row, dst) = self.row_and_pred(&operands[0], B32)?;
                (row, Op::Lop3Pred { lut, or, dst, src })
            }
            _ => (self.dst(&operands[0], B32)?, Op::Lop3(lut)),
        };
        self.emit(op, dst, src, Class::Integer);
        Ok(())
    }
}
