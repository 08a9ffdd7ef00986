//! `atom` and `red`.

use super::function::FunctionBuilder;
use super::modifiers::Modifiers;
use crate::error::LoadError;
use crate::isa::{
    Access, AccessSpace, AtomicKind, AtomicOp, Ordering, SINK_SLOT, Scope, Type, ZERO_SLOT,
};
use crate::syntax::ast::{Instruction, Operand};

/// Whether there is the operation on one value of a type.
fn has_scalar(kind: AtomicKind, no_ftz: bool, ty: Type) -> bool {
    let half = matches!(ty, Type::F16 | Type::F16x2 | Type::BF16 | Type::BF16x2);
    if half || no_ftz {
        return no_ftz && kind == AtomicKind::Add && (half || ty == Type::F32);
    }
    match kind {
        AtomicKind::Add => matches!(ty, Type::U(32 | 64) | Type::S(32) | Type::F32 | Type::F64),
        AtomicKind::Min | AtomicKind::Max => matches!(ty, Type::U(32 | 64) | Type::S(32 | 64)),
        AtomicKind::And | AtomicKind::Or | AtomicKind::Xor | AtomicKind::Exch => {
            matches!(ty, Type::B(32 | 64))
        }
        AtomicKind::Cas => matches!(ty, Type::B(16 | 32 | 64)),
        AtomicKind::Inc | AtomicKind::Dec => ty == Type::U(32),
    }
}

/// Whether there is the operation on a vector.
fn has_vector(kind: AtomicKind, no_ftz: bool, ty: Type, count: usize) -> bool {
    match (ty, kind) {
        (Type::F32, AtomicKind::Add) => count <= 4,
        (Type::F16 | Type::BF16, AtomicKind::Add | AtomicKind::Min | AtomicKind::Max) => no_ftz,
        (Type::F16x2 | Type::BF16x2, AtomicKind::Add | AtomicKind::Min | AtomicKind::Max) => {
            no_ftz && count <= 4
        }
        _ => false,
    }
}

impl<'a> FunctionBuilder<'a, '_> {
    /// `atom{.sem}{.scope}{.space}.op{.L2::cache_hint}{.vec}.type d, [a], b{, c}{, policy}`; `red` is without `d`.
    pub(super) fn atomic(
        &mut self,
        instruction: &'a Instruction<'a>,
        mut modifiers: Modifiers<'a>,
    ) -> Result<(), LoadError> {
        let reduction = instruction.opcode == "red";
        let ordering = modifiers
            .choose(&[
                ("relaxed", Ordering::Relaxed),
                ("acquire", Ordering::Acquire),
                ("release", Ordering::Release),
                ("acq_rel", Ordering::AcqRel),
            ])
            .unwrap_or(Ordering::Relaxed);
        if reduction && matches!(ordering, Ordering::Acquire | Ordering::AcqRel) {
            return modifiers.error("a reduction cannot acquire");
        }
        let scope = Self::memory_scope(&mut modifiers).unwrap_or(Scope::Device);
        let space = Self::cluster_space(&mut modifiers);
        let has_policy = Self::has_policy(&mut modifiers, space)?;
        let kind = modifiers.require(
            "an operation",
            &[
                ("add", AtomicKind::Add),
                ("min", AtomicKind::Min),
                ("max", AtomicKind::Max),
                ("and", AtomicKind::And),
                ("or", AtomicKind::Or),
                ("xor", AtomicKind::Xor),
                ("exch", AtomicKind::Exch),
                ("cas", AtomicKind::Cas),
                ("inc", AtomicKind::Inc),
                ("dec", AtomicKind::Dec),
            ],
        )?;
        let no_ftz = modifiers.flag("noftz");
        let count = modifiers
            .choose(&[("v2", 2), ("v4", 4), ("v8", 8)])
            .unwrap_or(1);
        let ty = modifiers.ty()?;
        modifiers.finish()?;
        let fits = match count {
            1 => has_scalar(kind, no_ftz, ty),
            count => has_vector(kind, no_ftz, ty, count),
        };
        if !fits || (reduction && matches!(kind, AtomicKind::Exch | AtomicKind::Cas)) {
            return modifiers.error(format!("{ty} is not a type of this operation"));
        }
        let anywhere = matches!(space, AccessSpace::Global | AccessSpace::Generic);
        if !anywhere && space != AccessSpace::Shared {
            return modifiers.error("atomics are for global and shared memory");
        }
        if !anywhere && count > 1 {
            return modifiers.error("atomics on vectors are for global memory");
        }
        if has_policy && kind == AtomicKind::Cas {
            return modifiers.error("`.cas` takes no cache policy");
        }
        let (operands, policy) = self.policy(instruction, &modifiers, has_policy)?;
        let (result, rest) = match operands {
            rest if reduction => (None, rest),
            [result, rest @ ..] => (Some(result), rest),
            [] => return modifiers.error("needs operands"),
        };
        let (address, b, c) = match (kind, rest) {
            (AtomicKind::Cas, [address, b, c]) => (address, b, Some(c)),
            (kind, [address, b]) if kind != AtomicKind::Cas => (address, b, None),
            _ => return modifiers.error("wrong number of operands"),
        };
        let (base, offset, space) = self.address(address, space)?;
        let mut access = Access {
            space,
            offset,
            bytes: ty.bits() / 8,
            signed: false,
            elements: Vec::new(),
            results: Vec::new(),
            register_bits: ty.bits(),
            used_bytes: u32::MAX,
            ordering,
            scope,
            non_coherent: false,
            atomic: Some(AtomicOp {
                kind,
                ty,
                no_ftz,
                reduction,
            }),
        };
        let mut dst = SINK_SLOT;
        let mut extra = [ZERO_SLOT, ZERO_SLOT, policy];
        if count > 1 {
            access.elements = self
                .parts(&modifiers, b, count)?
                .iter()
                .map(|part| self.src(part, ty))
                .collect::<Result<_, _>>()?;
            access.results = match result {
                None | Some(Operand::Name("_")) => vec![SINK_SLOT; count],
                Some(result) => self
                    .parts(&modifiers, result, count)?
                    .iter()
                    .map(|part| self.dst(part, ty))
                    .collect::<Result<_, _>>()?,
            };
        } else {
            extra[0] = self.src(b, ty)?;
            if let Some(c) = c {
                extra[1] = self.src(c, ty)?;
            }
            if let Some(result) = result {
                dst = self.dst(result, ty)?;
            }
        }
        self.emit_access(access, base, dst, extra);
        Ok(())
    }
}
