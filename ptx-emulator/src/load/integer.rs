//! Integer arithmetic, logic, shifts and bit fields.

use super::function::FunctionBuilder;
use super::modifiers::Modifiers;
use crate::error::LoadError;
use crate::isa::{
    CarryOp, Class, Elements, IntOp, IntType, IntUnaryOp, MadOp, Op, PredOp, PrmtMode, Slot, Type,
    ZERO_SLOT,
};
use crate::syntax::ast::{Instruction, Operand};

const S32: Type = Type::S(32);
const U32: Type = Type::U(32);
const B32: Type = Type::B(32);

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
        let dst = self.dst(&operands[0], types[0])?;
        self.emit(op, dst, src, class);
        Ok(())
    }

    fn int_type(&self, modifiers: &Modifiers<'_>, ty: Type) -> Result<IntType, LoadError> {
        match ty.as_int() {
            Some(int) => Ok(int),
            None => modifiers.error(format!("{ty} is not a type of this instruction")),
        }
    }

    /// `add`, `sub` on integers.
    pub(super) fn int_add_sub(
        &mut self,
        instruction: &'a Instruction<'a>,
        mut modifiers: Modifiers<'a>,
        subtract: bool,
    ) -> Result<(), LoadError> {
        let carry_out = modifiers.flag("cc");
        let saturate = modifiers.flag("sat");
        let ty =
            modifiers.ty_of(&[Type::U(16), Type::S(16), U32, S32, Type::U(64), Type::S(64)])?;
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
        let ty = modifiers.ty_of(&[U32, S32, Type::U(64), Type::S(64)])?;
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
        let ty = modifiers.ty()?;
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
        let ty = modifiers.ty()?;
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
        let ty = modifiers.ty()?;
        modifiers.finish()?;
        let int = self.int_type(&modifiers, ty)?;
        let signed = matches!(ty, Type::S(_));
        if matches!(ty, Type::B(_)) {
            return modifiers.error(format!("{ty} is not a type of this instruction"));
        }
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
                let op = Op::Bfe(self.int_type(&modifiers, ty)?);
                self.emit_typed(instruction, op, [ty, ty, U32, U32], class)
            }
            "bfi" => {
                let ty = modifiers.ty_of(&[B32, Type::B(64)])?;
                modifiers.finish()?;
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
                self.emit_uniform::<4>(instruction, Op::Prmt(mode), B32, class)
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
        let lut = super::operand::literal_bits(*number, B32);
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
                let (row, dst) = self.row_and_pred(&operands[0], B32)?;
                (row, Op::Lop3Pred { lut, or, dst, src })
            }
            _ => (self.dst(&operands[0], B32)?, Op::Lop3(lut)),
        };
        self.emit(op, dst, src, Class::Integer);
        Ok(())
    }

    /// `mov`, of registers, addresses, predicates, and between scalars and vectors.
    pub(super) fn mov(
        &mut self,
        instruction: &'a Instruction<'a>,
        mut modifiers: Modifiers<'a>,
    ) -> Result<(), LoadError> {
        let ty = modifiers.ty()?;
        modifiers.finish()?;
        let [dst, src] = self.operands(instruction)?;
        let class = Class::Other;
        if ty == Type::Pred {
            let op = Op::MovPred {
                src: self.pred(src)?,
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
                    .map(|part| self.src(part, element))
                    .collect::<Result<Vec<_>, _>>()?;
                let dst = self.dst(dst, ty)?;
                let elements = self.elements(&slots, element.bits());
                self.emit(Op::Pack(elements), dst, [ZERO_SLOT; 4], class);
            }
            (Operand::Vector(parts), src) => {
                let element = self.part_type(&modifiers, ty, parts.len())?;
                let src = self.src(src, ty)?;
                let slots = parts
                    .iter()
                    .map(|part| self.dst(part, element))
                    .collect::<Result<Vec<_>, _>>()?;
                let elements = self.elements(&slots, element.bits());
                let src = [src, ZERO_SLOT, ZERO_SLOT, ZERO_SLOT];
                self.emit(Op::Unpack(elements), ZERO_SLOT, src, class);
            }
            (dst, src) => {
                if let Some(kind) = Self::clock(src) {
                    let dst = self.dst(dst, ty)?;
                    self.emit(Op::Clock(kind), dst, [ZERO_SLOT; 4], class);
                    return Ok(());
                }
                let src = self.src(src, ty)?;
                let dst = self.dst(dst, ty)?;
                let src = [src, ZERO_SLOT, ZERO_SLOT, ZERO_SLOT];
                self.emit(Op::Mov, dst, src, class);
            }
        }
        Ok(())
    }

    fn clock(operand: &Operand<'_>) -> Option<crate::isa::ClockKind> {
        use crate::isa::ClockKind;
        match operand {
            Operand::Name("%clock") => Some(ClockKind::Low),
            Operand::Name("%clock_hi") => Some(ClockKind::High),
            Operand::Name("%clock64") => Some(ClockKind::Full),
            Operand::Name("%globaltimer") => Some(ClockKind::GlobalTimer),
            _ => None,
        }
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
        if !matches!(ty.bits(), 16 | 32 | 64) {
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
            (Op::Slct { float, ftz }, self.src(c, selector)?)
        };
        modifiers.finish()?;
        let dst = self.dst(dst, ty)?;
        self.emit(op, dst, [a, b, c, ZERO_SLOT], Class::Integer);
        Ok(())
    }
}
