//! `cvt` and `cvta`.

use super::float::half_type;
use super::function::FunctionBuilder;
use super::modifiers::Modifiers;
use super::operand::Width;
use crate::error::LoadError;
use crate::isa::{
    ByteFloat, Class, Conversion, FloatMode, HalfType, Op, Rounding, Type, Window, ZERO_SLOT,
};
use crate::syntax::ast::Instruction;

impl<'a> FunctionBuilder<'a, '_> {
    /// `cvt{.rnd}{.ftz}{.sat}.dtype.atype d, a`, and the forms that make pairs.
    pub(super) fn cvt(
        &mut self,
        instruction: &'a Instruction<'a>,
        mut modifiers: Modifiers<'a>,
    ) -> Result<(), LoadError> {
        if modifiers.flag("pack") {
            return self.cvt_pack(instruction, modifiers);
        }
        let integral = modifiers.choose(&[
            ("rni", Rounding::Nearest),
            ("rzi", Rounding::Zero),
            ("rmi", Rounding::Down),
            ("rpi", Rounding::Up),
        ]);
        let rounding = modifiers
            .rounding()
            .or_else(|| modifiers.flag("rna").then_some(Rounding::NearestAway));
        let ftz = modifiers.flag("ftz");
        let sat = modifiers.flag("sat");
        let relu = modifiers.flag("relu");
        let satfinite = modifiers.flag("satfinite");
        let byte_floats = [("e4m3x2", ByteFloat::E4M3), ("e5m2x2", ByteFloat::E5M2)];
        if let Some(bytes) = modifiers.choose(&byte_floats) {
            if rounding != Some(Rounding::Nearest) || integral.is_some() || ftz || sat {
                return modifiers.error("8-bit floats take `.rn`, `.satfinite` and `.relu`");
            }
            return self.cvt_bytes(instruction, modifiers, bytes, relu, satfinite);
        }
        let to = modifiers.ty()?;
        let from = modifiers.ty()?;
        modifiers.finish()?;
        if let (Some((half, true)), Type::F32) = (half_type(to), from) {
            if ftz || sat || integral.is_some() {
                return modifiers.error("pairs take `.rn` or `.rz`, `.relu` and `.satfinite`");
            }
            return self.cvt_pair(
                instruction,
                &modifiers,
                half,
                to,
                rounding,
                [relu, satfinite],
            );
        }
        if matches!(half_type(from), Some((_, true)))
            || matches!(half_type(to), Some((_, true)))
            || matches!(to, Type::Pred | Type::B(_))
            || matches!(from, Type::Pred | Type::B(_) | Type::TF32)
            || (to == Type::TF32 && from != Type::F32)
        {
            return modifiers.error("these types cannot be converted");
        }
        let mut conversion = Conversion {
            to,
            from,
            rounding: integral.or(rounding).unwrap_or_default(),
            integral: integral.is_some(),
            ftz,
            sat,
            relu,
            satfinite,
            register_bits: to.bits(),
        };
        Self::check_rounding(&modifiers, to, from, integral, rounding)?;
        Self::check_range(&modifiers, &conversion)?;
        let [dst, src] = self.operands(instruction)?;
        self.named(dst)?;
        // Registers may be wider than the types, but for the formats that are types of instructions only.
        let width = if to.is_fundamental() && from.is_fundamental() {
            Width::AtLeast
        } else {
            Width::Exact
        };
        let src = if to.is_float() {
            self.src_width(src, from, width)?
        } else {
            self.src_or_special(src, from, width)?
        };
        let (dst, register_bits) = self.dst_width(dst, to, width)?;
        conversion.register_bits = register_bits;
        let class = if to.is_float() || from.is_float() {
            Class::Float
        } else {
            Class::Integer
        };
        let sources = [src, ZERO_SLOT, ZERO_SLOT, ZERO_SLOT];
        self.emit(Op::Cvt(conversion), dst, sources, class);
        Ok(())
    }

    /// The ISA asks for a rounding exactly where a conversion can be inexact.
    fn check_rounding(
        modifiers: &Modifiers<'_>,
        to: Type,
        from: Type,
        integral: Option<Rounding>,
        rounding: Option<Rounding>,
    ) -> Result<(), LoadError> {
        let narrows = match (from.is_float(), to.is_float()) {
            (false, false) if integral.is_some() || rounding.is_some() => {
                return modifiers.error("a conversion between integers does not round");
            }
            (true, false) if integral.is_none() || rounding.is_some() => {
                return modifiers.error("float to integer needs one of .rni .rzi .rmi .rpi");
            }
            (_, false) => return Ok(()),
            (false, true) => true,
            (true, true) => {
                let precision = |ty| match ty {
                    Type::F64 => 4,
                    Type::F32 => 3,
                    Type::TF32 => 2,
                    _ => 1,
                };
                precision(to) < precision(from)
                    || (to != from && precision(to) == 1 && precision(from) == 1)
            }
        };
        if integral.is_some() && to != from {
            return modifiers.error("integral rounding is for results of the source's type");
        }
        match rounding {
            None if narrows && to == Type::TF32 => modifiers.error("needs one of .rn .rz .rna"),
            None if narrows => modifiers.error("needs one of .rn .rz .rm .rp"),
            Some(_) if !narrows => modifiers.error("nothing is rounded between these types"),
            Some(Rounding::NearestAway) if to != Type::TF32 => {
                modifiers.error("`.rna` is for `.tf32`")
            }
            Some(Rounding::Down | Rounding::Up) if to == Type::TF32 => {
                modifiers.error("needs one of .rn .rz .rna")
            }
            _ => Ok(()),
        }
    }

    /// `.ftz`, `.sat`, `.relu` and `.satfinite`, each where the ISA has it.
    fn check_range(modifiers: &Modifiers<'_>, conversion: &Conversion) -> Result<(), LoadError> {
        let &Conversion {
            to,
            from,
            rounding,
            ftz,
            sat,
            relu,
            satfinite,
            ..
        } = conversion;
        let brain = to == Type::BF16 || from == Type::BF16;
        if brain && (to.bits() == 8 || from.bits() == 8) {
            return modifiers.error("8-bit integers and `.bf16` cannot be converted");
        }
        if ftz && (to == Type::TF32 || (to != Type::F32 && from != Type::F32)) {
            return modifiers.error("`.ftz` is for conversions from and to `.f32`");
        }
        if sat && (brain || to == Type::TF32) {
            return modifiers.error("`.sat` is not for `.bf16` and `.tf32`");
        }
        if sat && !to.is_float() && !from.is_float() && contains(to, from) {
            return modifiers.error(format!("{to} holds every {from}, `.sat` has no use"));
        }
        let narrow = from == Type::F32 && matches!(to, Type::F16 | Type::BF16);
        let direct = matches!(rounding, Rounding::Nearest | Rounding::Zero);
        let away = to == Type::TF32 && rounding == Rounding::NearestAway;
        let plain = !ftz && !sat;
        if relu && !(narrow && direct && plain || to == Type::TF32 && !away) {
            return modifiers
                .error("`.relu` is for `.f32` to `.f16`, `.bf16` or `.tf32` by `.rn` or `.rz`");
        }
        if satfinite && !(narrow && direct && plain || away) {
            return modifiers.error(
                "`.satfinite` is for `.f32` to `.f16` or `.bf16` by `.rn` or `.rz`, and to `.tf32` by `.rna`",
            );
        }
        Ok(())
    }

    /// `cvt.rn.bf16x2.f32 d, a, b`.
    fn cvt_pair(
        &mut self,
        instruction: &'a Instruction<'a>,
        modifiers: &Modifiers<'a>,
        half: HalfType,
        to: Type,
        rounding: Option<Rounding>,
        [relu, satfinite]: [bool; 2],
    ) -> Result<(), LoadError> {
        let Some(rounding @ (Rounding::Nearest | Rounding::Zero)) = rounding else {
            return modifiers.error("pairs need `.rn` or `.rz`");
        };
        let mode = FloatMode {
            rounding,
            relu,
            ..FloatMode::default()
        };
        let op = Op::CvtPair {
            to: half,
            mode,
            satfinite,
        };
        self.emit_typed(instruction, op, [to, Type::F32, Type::F32], Class::Float)
    }

    /// `cvt.rn.satfinite.e4m3x2.f32 d, a, b`, `cvt.rn.satfinite.e4m3x2.f16x2 d, a`, `cvt.rn.f16x2.e4m3x2 d, a`.
    fn cvt_bytes(
        &mut self,
        instruction: &'a Instruction<'a>,
        mut modifiers: Modifiers<'a>,
        bytes: ByteFloat,
        relu: bool,
        satfinite: bool,
    ) -> Result<(), LoadError> {
        let other = modifiers.ty_of(&[Type::F32, Type::F16x2])?;
        modifiers.finish()?;
        // The type of the result comes first.
        let from_bytes = instruction
            .modifiers
            .last()
            .is_some_and(|last| last.ends_with("2x2") || last.ends_with("3x2"));
        if satfinite == from_bytes {
            return modifiers.error("`.satfinite` is for results of 8 bits, which need it");
        }
        let b16 = Type::B(16);
        match (from_bytes, other) {
            (true, Type::F16x2) => {
                let op = Op::CvtFromBytes { from: bytes, relu };
                self.emit_typed(instruction, op, [other, b16], Class::Float)
            }
            (false, other) => {
                let from_f32 = other == Type::F32;
                let op = Op::CvtToBytes {
                    to: bytes,
                    from_f32,
                    relu,
                };
                if from_f32 {
                    self.emit_typed(instruction, op, [b16, other, other], Class::Float)
                } else {
                    self.emit_typed(instruction, op, [b16, other], Class::Float)
                }
            }
            _ => modifiers.error("these types cannot be converted"),
        }
    }

    /// `cvt.pack.sat.convertType.s32 d, a, b` and `cvt.pack.sat.convertType.s32.b32 d, a, b, c`.
    fn cvt_pack(
        &mut self,
        instruction: &'a Instruction<'a>,
        mut modifiers: Modifiers<'a>,
    ) -> Result<(), LoadError> {
        if !modifiers.flag("sat") {
            return modifiers.error("needs `.sat`");
        }
        let (bits, signed) = modifiers.require(
            "a type of the result",
            &[
                ("u2", (2, false)),
                ("s2", (2, true)),
                ("u4", (4, false)),
                ("s4", (4, true)),
                ("u8", (8, false)),
                ("s8", (8, true)),
                ("u16", (16, false)),
                ("s16", (16, true)),
            ],
        )?;
        modifiers.ty_of(&[Type::S(32)])?;
        let has_c = modifiers.has_type();
        if has_c {
            modifiers.ty_of(&[Type::B(32)])?;
        }
        modifiers.finish()?;
        if has_c == (bits == 16) {
            return modifiers
                .error("all results but those of 16 bits take `.b32` and a third source");
        }
        let op = Op::CvtPack { bits, signed };
        let (s32, b32) = (Type::S(32), Type::B(32));
        if has_c {
            self.emit_typed(instruction, op, [b32, s32, s32, b32], Class::Integer)
        } else {
            self.emit_typed(instruction, op, [b32, s32, s32], Class::Integer)
        }
    }

    pub(super) fn window(&self, modifiers: &mut Modifiers<'_>) -> Result<Window, LoadError> {
        modifiers.require(
            "a state space",
            &[
                ("global", Window::Global),
                ("shared", Window::Shared),
                ("shared::cta", Window::Shared),
                // A cluster is one block.
                ("shared::cluster", Window::Shared),
                ("local", Window::Local),
                ("const", Window::Const),
                ("param", Window::Param),
                ("param::entry", Window::Param),
            ],
        )
    }

    /// `cvta{.to}.space.u64 d, a`.
    pub(super) fn cvta(
        &mut self,
        instruction: &'a Instruction<'a>,
        mut modifiers: Modifiers<'a>,
    ) -> Result<(), LoadError> {
        let to_space = modifiers.flag("to");
        let window = self.window(&mut modifiers)?;
        let ty = modifiers.ty_of(&[Type::U(64)])?;
        let op = if to_space {
            Op::CvtaTo(window)
        } else {
            Op::CvtaFrom(window)
        };
        modifiers.finish()?;
        let [dst, src] = self.operands(instruction)?;
        self.named(dst)?;
        let address = match to_space {
            true => None,
            false => self.symbol_address(src, ty)?,
        };
        let src = match address {
            Some(address) => address,
            None => self.src(src, ty)?,
        };
        let dst = self.dst(dst, ty)?;
        self.emit(
            op,
            dst,
            [src, ZERO_SLOT, ZERO_SLOT, ZERO_SLOT],
            Class::Integer,
        );
        Ok(())
    }
}

/// Whether an integer type has every value of another one.
fn contains(outer: Type, inner: Type) -> bool {
    match (outer, inner) {
        (Type::S(outer), Type::U(inner)) => outer > inner,
        (Type::U(_), Type::S(_)) => false,
        (outer, inner) => outer.bits() >= inner.bits(),
    }
}
