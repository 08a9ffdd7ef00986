//! `setp` and `set`.

use super::float::half_type;
use super::function::FunctionBuilder;
use super::modifiers::Modifiers;
use crate::error::LoadError;
use crate::isa::{
    Class, Combine, Compare, CompareType, HalfType, Op, Pred, SINK_PRED, Slot, Type, ZERO_SLOT,
};
use crate::syntax::ast::{Instruction, Operand};

impl<'a> FunctionBuilder<'a, '_> {
    fn combine(modifiers: &mut Modifiers<'_>) -> Combine {
        modifiers
            .choose(&[
                ("and", Combine::And),
                ("or", Combine::Or),
                ("xor", Combine::Xor),
            ])
            .unwrap_or(Combine::None)
    }

    fn compare_type(
        &self,
        modifiers: &Modifiers<'_>,
        (compare, unsigned): (Compare, bool),
        ty: Type,
        ftz: bool,
    ) -> Result<CompareType, LoadError> {
        let compared = match (ty, half_type(ty)) {
            (Type::F32, _) => CompareType::F32 { ftz },
            (Type::F64, _) => CompareType::F64,
            (_, Some((half, _))) => CompareType::Half { ty: half, ftz },
            _ => match ty.as_int() {
                Some(int) => CompareType::Int(int),
                None => {
                    return modifiers.error(format!("{ty} is not a type of this instruction"));
                }
            },
        };
        if ftz && !matches!(ty, Type::F32 | Type::F16 | Type::F16x2) {
            return modifiers.error(format!("`.ftz` is not for {ty}"));
        }
        let integer = matches!(compared, CompareType::Int(_));
        let ordered = matches!(
            compare,
            Compare::Eq | Compare::Ne | Compare::Lt | Compare::Le | Compare::Gt | Compare::Ge
        );
        if integer && !ordered {
            return modifiers.error("compares floats, the type is an integer");
        }
        if unsigned && !matches!(ty, Type::U(_)) {
            return modifiers.error(format!("compares unsigned integers, not {ty}"));
        }
        if matches!(ty, Type::B(_)) && !matches!(compare, Compare::Eq | Compare::Ne) {
            return modifiers.error("untyped bits can only be compared by `.eq` and `.ne`");
        }
        Ok(compared)
    }

    /// What a comparison counts as.
    fn class_of(compared: CompareType) -> Class {
        match compared {
            CompareType::Int(_) => Class::Integer,
            CompareType::F32 { .. } | CompareType::F64 | CompareType::Half { .. } => Class::Float,
        }
    }

    /// The operands of a comparison: the result, the two that are compared, and the predicate that the outcome is combined with.
    fn compared(
        &mut self,
        modifiers: &Modifiers<'_>,
        instruction: &'a Instruction<'a>,
        ty: Type,
        combine: Combine,
    ) -> Result<(&'a Operand<'a>, [Slot; 4], Pred), LoadError> {
        let (dst, a, b, with) = match (combine, instruction.operands.as_slice()) {
            (Combine::None, [dst, a, b]) => (dst, a, b, Pred::TRUE),
            (Combine::And | Combine::Or | Combine::Xor, [dst, a, b, with]) => {
                (dst, a, b, self.pred(with)?)
            }
            _ => return modifiers.error("wrong number of operands"),
        };
        let src = [self.src(a, ty)?, self.src(b, ty)?, ZERO_SLOT, ZERO_SLOT];
        Ok((dst, src, with))
    }

    /// `setp.CmpOp{.BoolOp}{.ftz}.type p|q, a, b{, c}`.
    pub(super) fn setp(
        &mut self,
        instruction: &'a Instruction<'a>,
        mut modifiers: Modifiers<'a>,
    ) -> Result<(), LoadError> {
        let (compare, unsigned) = modifiers.compare()?;
        let combine = Self::combine(&mut modifiers);
        let ftz = modifiers.flag("ftz");
        let ty = modifiers.ty()?;
        modifiers.finish()?;
        let compared = self.compare_type(&modifiers, (compare, unsigned), ty, ftz)?;
        let (dst, src, with) = self.compared(&modifiers, instruction, ty, combine)?;
        let (dst, second) = self.two_preds(dst)?;
        let op = match half_type(ty) {
            Some((_, false)) if second != SINK_PRED => {
                return modifiers.error(format!("{ty} has one predicate"));
            }
            Some((half, true)) => Op::SetPHalf2 {
                compare,
                ty: half,
                ftz,
                combine,
                with,
                dst,
                dst_high: second,
            },
            _ => Op::SetP {
                compare,
                ty: compared,
                combine,
                with,
                dst,
                dst_not: second,
            },
        };
        self.emit(op, ZERO_SLOT, src, Self::class_of(compared));
        Ok(())
    }

    /// `set.CmpOp{.BoolOp}{.ftz}.dtype.stype d, a, b{, c}`.
    pub(super) fn set(
        &mut self,
        instruction: &'a Instruction<'a>,
        mut modifiers: Modifiers<'a>,
    ) -> Result<(), LoadError> {
        let (compare, unsigned) = modifiers.compare()?;
        let combine = Self::combine(&mut modifiers);
        let ftz = modifiers.flag("ftz");
        let result = modifiers.ty()?;
        let ty = modifiers.ty()?;
        modifiers.finish()?;
        let half = half_type(ty);
        let fits = match (result, half) {
            (Type::U(32) | Type::S(32), _) => true,
            (Type::U(16) | Type::S(16), Some((_, false))) => true,
            (Type::F32, None) | (Type::BF16, None | Some((_, false))) => true,
            (Type::F16, None | Some((HalfType::F16, false))) => true,
            (Type::F16x2 | Type::BF16x2, _) => result == ty,
            _ => false,
        };
        if !fits {
            return modifiers.error(format!("{result} is not a result for {ty}"));
        }
        if ftz && result == Type::BF16 {
            return modifiers.error("`.ftz` is not for results of `.bf16`");
        }
        // What is true, in each half where there are two.
        let yes = match result {
            Type::F32 => 1f32.to_bits(),
            Type::F16 | Type::F16x2 => 0x3c00,
            Type::BF16 | Type::BF16x2 => 0x3f80,
            Type::U(16) | Type::S(16) => 0xffff,
            _ if matches!(half, Some((_, true))) => 0xffff,
            _ => u32::MAX,
        };
        let compared = self.compare_type(&modifiers, (compare, unsigned), ty, ftz)?;
        let (dst, src, with) = self.compared(&modifiers, instruction, ty, combine)?;
        self.named(dst)?;
        let dst = self.dst(dst, result)?;
        let op = if let Some((half, true)) = half {
            Op::SetHalf2 {
                compare,
                ty: half,
                ftz,
                combine,
                with,
                yes: yes as u16,
            }
        } else {
            Op::Set {
                compare,
                ty: compared,
                combine,
                with,
                yes,
            }
        };
        self.emit(op, dst, src, Self::class_of(compared));
        Ok(())
    }

    /// `isspacep.space p, a`.
    pub(super) fn isspacep(
        &mut self,
        instruction: &'a Instruction<'a>,
        mut modifiers: Modifiers<'a>,
    ) -> Result<(), LoadError> {
        let space = self.window(&mut modifiers)?;
        modifiers.finish()?;
        let [dst, src] = self.operands(instruction)?;
        let src = self.src(src, Type::U(64))?;
        self.named(dst)?;
        let dst = self.pred_dst(dst)?;
        let sources = [src, ZERO_SLOT, ZERO_SLOT, ZERO_SLOT];
        self.emit(
            Op::IsSpace { space, dst },
            ZERO_SLOT,
            sources,
            Class::Integer,
        );
        Ok(())
    }
}
