//! Floating-point arithmetic of every width.

use super::function::FunctionBuilder;
use super::modifiers::Modifiers;
use crate::error::LoadError;
use crate::isa::{Class, FloatMode, FloatOp, FloatTest, HalfType, Op, Rounding, Type, ZERO_SLOT};
use crate::syntax::ast::Instruction;

/// The 16-bit types, and whether they come in pairs.
pub(super) fn half_type(ty: Type) -> Option<(HalfType, bool)> {
    match ty {
        Type::F16 => Some((HalfType::F16, false)),
        Type::F16x2 => Some((HalfType::F16, true)),
        Type::BF16 => Some((HalfType::BF16, false)),
        Type::BF16x2 => Some((HalfType::BF16, true)),
        _ => None,
    }
}

impl<'a> FunctionBuilder<'a, '_> {
    /// Emits a float instruction of `N` operands, destination included.
    fn float<const N: usize>(
        &mut self,
        instruction: &'a Instruction<'a>,
        modifiers: &Modifiers<'a>,
        op: FloatOp,
        ty: Type,
        mode: FloatMode,
    ) -> Result<(), LoadError> {
        modifiers.finish()?;
        Self::check_mode(modifiers, op, ty, mode)?;
        let op = match (ty, half_type(ty)) {
            (Type::F32, _) => Op::F32(op, mode),
            (Type::F64, _) => Op::F64(op, mode),
            (_, Some((half, pair))) => Op::Half {
                op,
                ty: half,
                pair,
                mode,
            },
            _ => return modifiers.error(format!("{ty} is not a type of this instruction")),
        };
        self.emit_uniform::<N>(instruction, op, ty, Class::Float)
    }

    /// Which types have `.ftz`, `.sat` and directed rounding.
    fn check_mode(
        modifiers: &Modifiers<'_>,
        op: FloatOp,
        ty: Type,
        mode: FloatMode,
    ) -> Result<(), LoadError> {
        if mode.rounding != Rounding::Nearest && !matches!(ty, Type::F32 | Type::F64) {
            return modifiers.error("only `.rn` for this type");
        }
        let brain = matches!(half_type(ty), Some((HalfType::BF16, _)));
        if mode.sat && (brain || ty == Type::F64) {
            return modifiers.error(format!("`.sat` is not for {ty}"));
        }
        let flushes = match op {
            FloatOp::Tanh => false,
            FloatOp::Ex2 if half_type(ty).is_some() => brain,
            // The approximate reciprocals are the only `.f64` instructions that flush.
            FloatOp::Rcp | FloatOp::Rsqrt => true,
            _ => !brain && ty != Type::F64,
        };
        if mode.ftz && !flushes {
            return modifiers.error(format!("`.ftz` is not for {ty} here"));
        }
        if !mode.ftz && op == FloatOp::Ex2 && brain {
            return modifiers.error(format!("needs `.ftz` for {ty}"));
        }
        Ok(())
    }

    /// `add`, `sub`, `mul`, `fma`, `mad` on floats.
    pub(super) fn float_arithmetic(
        &mut self,
        instruction: &'a Instruction<'a>,
        mut modifiers: Modifiers<'a>,
    ) -> Result<(), LoadError> {
        let needs_rounding = matches!(instruction.opcode, "fma" | "mad");
        let rounding = modifiers.rounding();
        let mode = FloatMode {
            rounding: rounding.unwrap_or_default(),
            relu: modifiers.flag("relu"),
            ftz: modifiers.flag("ftz"),
            sat: modifiers.flag("sat"),
            ..FloatMode::default()
        };
        let ty = modifiers.ty()?;
        if needs_rounding && rounding.is_none() {
            return modifiers.error("needs a rounding, one of .rn .rz .rm .rp");
        }
        if mode.relu && (instruction.opcode != "fma" || half_type(ty).is_none() || mode.sat) {
            return modifiers.error("`.relu` is for `fma` on 16-bit types, without `.sat`");
        }
        if instruction.opcode == "mad" && half_type(ty).is_some() {
            return modifiers.error(format!("{ty} is not a type of this instruction"));
        }
        match instruction.opcode {
            "add" => self.float::<3>(instruction, &modifiers, FloatOp::Add, ty, mode),
            "sub" => self.float::<3>(instruction, &modifiers, FloatOp::Sub, ty, mode),
            "mul" => self.float::<3>(instruction, &modifiers, FloatOp::Mul, ty, mode),
            _ => self.float::<4>(instruction, &modifiers, FloatOp::Fma, ty, mode),
        }
    }

    /// `min`, `max` on floats.
    pub(super) fn float_min_max(
        &mut self,
        instruction: &'a Instruction<'a>,
        mut modifiers: Modifiers<'a>,
    ) -> Result<(), LoadError> {
        let mode = FloatMode {
            ftz: modifiers.flag("ftz"),
            nan: modifiers.flag("NaN"),
            xorsign_abs: {
                let xorsign = modifiers.flag("xorsign");
                if xorsign != modifiers.flag("abs") {
                    return modifiers.error("`.xorsign` and `.abs` go together");
                }
                xorsign
            },
            ..FloatMode::default()
        };
        let ty = modifiers.ty()?;
        let op = if instruction.opcode == "min" {
            FloatOp::Min
        } else {
            FloatOp::Max
        };
        if ty == Type::F64 && mode != FloatMode::default() {
            return modifiers.error("no modifiers for `.f64`");
        }
        self.float::<3>(instruction, &modifiers, op, ty, mode)
    }

    /// `neg`, `abs` on floats.
    pub(super) fn float_sign(
        &mut self,
        instruction: &'a Instruction<'a>,
        mut modifiers: Modifiers<'a>,
    ) -> Result<(), LoadError> {
        let mode = FloatMode {
            ftz: modifiers.flag("ftz"),
            ..FloatMode::default()
        };
        let ty = modifiers.ty()?;
        let op = if instruction.opcode == "neg" {
            FloatOp::Neg
        } else {
            FloatOp::Abs
        };
        self.float::<2>(instruction, &modifiers, op, ty, mode)
    }

    /// `div` on floats: `.approx`, `.full` or a rounding.
    pub(super) fn float_div(
        &mut self,
        instruction: &'a Instruction<'a>,
        mut modifiers: Modifiers<'a>,
    ) -> Result<(), LoadError> {
        let approximate =
            modifiers.choose(&[("approx", FloatOp::DivApprox), ("full", FloatOp::Div)]);
        let rounding = modifiers.rounding();
        if approximate.is_some() == rounding.is_some() {
            return modifiers.error("needs one of .approx .full .rn .rz .rm .rp");
        }
        let mode = FloatMode {
            rounding: rounding.unwrap_or_default(),
            ftz: modifiers.flag("ftz"),
            ..FloatMode::default()
        };
        let ty = modifiers.ty_of(&[Type::F32, Type::F64])?;
        if approximate.is_some() && ty == Type::F64 {
            return modifiers.error("`.approx` and `.full` are for `.f32`");
        }
        let op = approximate.unwrap_or(FloatOp::Div);
        self.float::<3>(instruction, &modifiers, op, ty, mode)
    }

    /// `sqrt`, `rcp`: `.approx` or a rounding.
    pub(super) fn root_or_reciprocal(
        &mut self,
        instruction: &'a Instruction<'a>,
        mut modifiers: Modifiers<'a>,
    ) -> Result<(), LoadError> {
        let approximate = modifiers.flag("approx");
        let rounding = modifiers.rounding();
        if approximate == rounding.is_some() {
            return modifiers.error("needs one of .approx .rn .rz .rm .rp");
        }
        let mode = FloatMode {
            rounding: rounding.unwrap_or_default(),
            ftz: modifiers.flag("ftz"),
            ..FloatMode::default()
        };
        let ty = modifiers.ty_of(&[Type::F32, Type::F64])?;
        let op = if instruction.opcode == "sqrt" {
            FloatOp::Sqrt
        } else {
            FloatOp::Rcp
        };
        let flushed_double = ty == Type::F64 && op == FloatOp::Rcp && mode.ftz;
        if ty == Type::F64 && approximate != flushed_double {
            return modifiers.error("`.f64` takes a rounding, or for `rcp` `.approx.ftz`");
        }
        self.float::<2>(instruction, &modifiers, op, ty, mode)
    }

    /// `rsqrt`, `sin`, `cos`, `lg2`, `ex2`, `tanh`: `.approx` only.
    pub(super) fn approximate(
        &mut self,
        instruction: &'a Instruction<'a>,
        mut modifiers: Modifiers<'a>,
    ) -> Result<(), LoadError> {
        let op = match instruction.opcode {
            "rsqrt" => FloatOp::Rsqrt,
            "sin" => FloatOp::Sin,
            "cos" => FloatOp::Cos,
            "lg2" => FloatOp::Lg2,
            "ex2" => FloatOp::Ex2,
            _ => FloatOp::Tanh,
        };
        if !modifiers.flag("approx") {
            return modifiers.error("needs `.approx`");
        }
        let mode = FloatMode {
            ftz: modifiers.flag("ftz"),
            ..FloatMode::default()
        };
        let ty = modifiers.ty()?;
        let fits = match op {
            FloatOp::Rsqrt => matches!(ty, Type::F32 | Type::F64),
            FloatOp::Ex2 | FloatOp::Tanh => ty == Type::F32 || half_type(ty).is_some(),
            _ => ty == Type::F32,
        };
        if !fits {
            return modifiers.error(format!("{ty} is not a type of this instruction"));
        }
        self.float::<2>(instruction, &modifiers, op, ty, mode)
    }

    /// `copysign`.
    pub(super) fn copysign(
        &mut self,
        instruction: &'a Instruction<'a>,
        mut modifiers: Modifiers<'a>,
    ) -> Result<(), LoadError> {
        let ty = modifiers.ty_of(&[Type::F32, Type::F64])?;
        self.float::<3>(
            instruction,
            &modifiers,
            FloatOp::Copysign,
            ty,
            FloatMode::default(),
        )
    }

    /// `testp`.
    pub(super) fn testp(
        &mut self,
        instruction: &'a Instruction<'a>,
        mut modifiers: Modifiers<'a>,
    ) -> Result<(), LoadError> {
        let test = modifiers.require(
            "a test",
            &[
                ("finite", FloatTest::Finite),
                ("infinite", FloatTest::Infinite),
                ("number", FloatTest::Number),
                ("notanumber", FloatTest::NotANumber),
                ("normal", FloatTest::Normal),
                ("subnormal", FloatTest::Subnormal),
            ],
        )?;
        let ty = modifiers.ty_of(&[Type::F32, Type::F64])?;
        modifiers.finish()?;
        let [dst, src] = self.operands(instruction)?;
        let src = self.src(src, ty)?;
        self.named(dst)?;
        let op = Op::TestP {
            test,
            double: ty == Type::F64,
            dst: self.pred_dst(dst)?,
        };
        let sources = [src, ZERO_SLOT, ZERO_SLOT, ZERO_SLOT];
        self.emit(op, ZERO_SLOT, sources, Class::Float);
        Ok(())
    }
}
