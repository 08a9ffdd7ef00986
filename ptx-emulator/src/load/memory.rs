//! Loads, stores, atomics and what only hints at caches.

use super::function::FunctionBuilder;
use super::modifiers::Modifiers;
use super::operand::Width;
use crate::error::LoadError;
use crate::isa::{
    Access, AccessSpace, AtomicKind, AtomicOp, Class, Op, Ordering, SINK_SLOT, Scope, Slot, Type,
    ZERO_SLOT,
};
use crate::syntax::ast::{Instruction, Operand};

impl<'a> FunctionBuilder<'a, '_> {
    pub(super) fn access_space(modifiers: &mut Modifiers<'_>) -> AccessSpace {
        modifiers
            .choose(&[
                ("global", AccessSpace::Global),
                ("shared", AccessSpace::Shared),
                ("shared::cta", AccessSpace::Shared),
                ("local", AccessSpace::Local),
                ("const", AccessSpace::Const),
                ("param", AccessSpace::KernelParam),
                ("param::entry", AccessSpace::KernelParam),
                ("param::func", AccessSpace::KernelParam),
            ])
            .unwrap_or(AccessSpace::Generic)
    }

    /// Memory-model qualifiers.
    fn ordering(modifiers: &mut Modifiers<'_>) -> (Ordering, Scope) {
        let ordering = modifiers
            .choose(&[
                ("volatile", Ordering::Relaxed),
                ("relaxed", Ordering::Relaxed),
                ("acquire", Ordering::Acquire),
                ("release", Ordering::Release),
                ("acq_rel", Ordering::AcqRel),
                ("weak", Ordering::Weak),
            ])
            .unwrap_or(Ordering::Weak);
        // `.volatile` has no scope and means `.sys`; for atomics the default is `.gpu`.
        let scope = modifiers
            .choose(&[
                ("cta", Scope::Block),
                ("cluster", Scope::Block),
                ("gpu", Scope::Device),
                ("sys", Scope::Device),
            ])
            .unwrap_or(Scope::Device);
        // `.mmio` is `.relaxed.sys` for the emulator's purposes.
        modifiers.flag("mmio");
        (ordering, scope)
    }

    /// Cache operators and eviction hints change no value.
    fn cache_hints(modifiers: &mut Modifiers<'_>) {
        let hints = [
            ("ca", ()),
            ("cg", ()),
            ("cs", ()),
            ("lu", ()),
            ("cv", ()),
            ("wb", ()),
            ("wt", ()),
            ("L1::evict_normal", ()),
            ("L1::evict_unchanged", ()),
            ("L1::evict_first", ()),
            ("L1::evict_last", ()),
            ("L1::no_allocate", ()),
            ("L2::evict_normal", ()),
            ("L2::evict_first", ()),
            ("L2::evict_last", ()),
            ("L2::64B", ()),
            ("L2::128B", ()),
            ("L2::256B", ()),
        ];
        while modifiers.choose(&hints).is_some() {}
    }

    fn vector_length(modifiers: &mut Modifiers<'_>) -> usize {
        modifiers
            .choose(&[("v2", 2), ("v4", 4), ("v8", 8)])
            .unwrap_or(1)
    }

    /// The parts of a vector operand, or the one scalar.
    fn parts<'o>(
        &self,
        modifiers: &Modifiers<'_>,
        operand: &'o Operand<'a>,
        count: usize,
    ) -> Result<&'o [Operand<'a>], LoadError> {
        match operand {
            Operand::Vector(parts) if parts.len() == count => Ok(parts),
            Operand::Vector(parts) => {
                modifiers.error(format!("{} registers for {count} elements", parts.len()))
            }
            _ if count == 1 => Ok(std::slice::from_ref(operand)),
            _ => modifiers.error(format!("expected {{…}} with {count} registers")),
        }
    }

    fn class(space: AccessSpace, store: bool) -> Class {
        match (space, store) {
            (AccessSpace::Global | AccessSpace::Generic, false) => Class::LoadGlobal,
            (AccessSpace::Global | AccessSpace::Generic, true) => Class::StoreGlobal,
            (AccessSpace::Shared, _) => Class::Shared,
            _ => Class::Other,
        }
    }

    fn emit_access(&mut self, access: Access, base: Slot, dst: Slot, extra: [Slot; 3]) {
        let space = access.space;
        let is_store = access.register_bits == 0;
        let atomic = access.atomic.is_some();
        let shared_or_frame = matches!(
            space,
            AccessSpace::Shared | AccessSpace::Local | AccessSpace::FrameParam
        );
        if !shared_or_frame && (atomic || access.ordering != Ordering::Weak) {
            self.out.strong = true;
        }
        let index = self.out.accesses.len() as u32;
        self.out.accesses.push(access);
        let (op, class) = if atomic {
            let class = if space == AccessSpace::Shared {
                Class::Shared
            } else {
                Class::Other
            };
            (Op::Atomic(index), class)
        } else if is_store {
            (Op::Store(index), Self::class(space, true))
        } else {
            (Op::Load(index), Self::class(space, false))
        };
        let src = [base, extra[0], extra[1], extra[2]];
        self.emit(op, dst, src, class);
    }

    /// `ld`, `ldu`.
    pub(super) fn load(
        &mut self,
        instruction: &'a Instruction<'a>,
        mut modifiers: Modifiers<'a>,
    ) -> Result<(), LoadError> {
        let (ordering, scope) = Self::ordering(&mut modifiers);
        let space = Self::access_space(&mut modifiers);
        let non_coherent = modifiers.flag("nc");
        Self::cache_hints(&mut modifiers);
        let has_policy = Self::has_policy(&mut modifiers, space)?;
        let count = Self::vector_length(&mut modifiers);
        let ty = modifiers.ty()?;
        modifiers.finish()?;
        if non_coherent && space != AccessSpace::Global {
            return modifiers.error("`.nc` is for `.global`");
        }
        if ordering == Ordering::Release || ordering == Ordering::AcqRel {
            return modifiers.error("a load cannot release");
        }
        let bytes = self.element_bytes(&modifiers, ty, count)?;
        let (operands, policy) = self.policy(instruction, &modifiers, has_policy)?;
        let [dst, address] = operands else {
            return modifiers.error("wrong number of operands");
        };
        let (base, offset, space) = self.address(address, space)?;
        let mut register_bits = ty.bits();
        let mut elements = Vec::with_capacity(count);
        for part in self.parts(&modifiers, dst, count)? {
            let (slot, bits) = self.dst_width(part, ty, Width::AtLeast)?;
            if slot != SINK_SLOT {
                register_bits = bits;
            }
            elements.push(slot);
        }
        let access = Access {
            space,
            offset,
            bytes,
            signed: matches!(ty, Type::S(_)),
            elements,
            register_bits,
            ordering,
            scope,
            atomic: None,
        };
        self.emit_access(access, base, ZERO_SLOT, [ZERO_SLOT, ZERO_SLOT, policy]);
        Ok(())
    }

    fn element_bytes(
        &self,
        modifiers: &Modifiers<'_>,
        ty: Type,
        count: usize,
    ) -> Result<u8, LoadError> {
        let bytes = ty.bits() / 8;
        if bytes == 0 {
            return modifiers.error("predicates cannot be in memory");
        }
        if usize::from(bytes) * count > 32 {
            return modifiers.error("an access is at most 32 bytes");
        }
        Ok(bytes)
    }

    /// `st`.
    pub(super) fn store(
        &mut self,
        instruction: &'a Instruction<'a>,
        mut modifiers: Modifiers<'a>,
    ) -> Result<(), LoadError> {
        let (ordering, scope) = Self::ordering(&mut modifiers);
        let space = Self::access_space(&mut modifiers);
        Self::cache_hints(&mut modifiers);
        let has_policy = Self::has_policy(&mut modifiers, space)?;
        let count = Self::vector_length(&mut modifiers);
        let ty = modifiers.ty()?;
        modifiers.finish()?;
        if ordering == Ordering::Acquire || ordering == Ordering::AcqRel {
            return modifiers.error("a store cannot acquire");
        }
        let bytes = self.element_bytes(&modifiers, ty, count)?;
        let (operands, policy) = self.policy(instruction, &modifiers, has_policy)?;
        let [address, src] = operands else {
            return modifiers.error("wrong number of operands");
        };
        let (base, offset, space) = self.address(address, space)?;
        if space == AccessSpace::Const || space == AccessSpace::KernelParam {
            return modifiers.error("the state space is read-only");
        }
        let mut elements = Vec::with_capacity(count);
        for part in self.parts(&modifiers, src, count)? {
            elements.push(self.src_width(part, ty, Width::AtLeast)?);
        }
        let access = Access {
            space,
            offset,
            bytes,
            signed: false,
            elements,
            register_bits: 0,
            ordering,
            scope,
            atomic: None,
        };
        self.emit_access(access, base, ZERO_SLOT, [ZERO_SLOT, ZERO_SLOT, policy]);
        Ok(())
    }

    /// `atom`, `red`.
    pub(super) fn atomic(
        &mut self,
        instruction: &'a Instruction<'a>,
        mut modifiers: Modifiers<'a>,
    ) -> Result<(), LoadError> {
        let reduction = instruction.opcode == "red";
        let (ordering, scope) = match Self::ordering(&mut modifiers) {
            (Ordering::Weak, scope) => (Ordering::Relaxed, scope),
            qualified => qualified,
        };
        let space = Self::access_space(&mut modifiers);
        Self::cache_hints(&mut modifiers);
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
        let ty = modifiers.ty()?;
        modifiers.finish()?;
        let half = super::float::half_type(ty).is_some();
        let fits = match kind {
            AtomicKind::Add => {
                matches!(
                    ty,
                    Type::U(32 | 64) | Type::S(32 | 64) | Type::F32 | Type::F64
                ) || (half && no_ftz)
            }
            AtomicKind::Min | AtomicKind::Max => {
                matches!(ty, Type::U(32 | 64) | Type::S(32 | 64))
            }
            AtomicKind::And | AtomicKind::Or | AtomicKind::Xor | AtomicKind::Exch => {
                matches!(ty, Type::B(32 | 64))
            }
            AtomicKind::Cas => matches!(ty, Type::B(16 | 32 | 64)),
            AtomicKind::Inc | AtomicKind::Dec => ty == Type::U(32),
        };
        if !fits || (reduction && matches!(kind, AtomicKind::Exch | AtomicKind::Cas)) {
            return modifiers.error(format!("{ty} is not a type of this operation"));
        }
        if !matches!(
            space,
            AccessSpace::Global | AccessSpace::Shared | AccessSpace::Generic
        ) {
            return modifiers.error("atomics are for global and shared memory");
        }
        let (operands, policy) = self.policy(instruction, &modifiers, has_policy)?;
        let (dst, rest) = if reduction {
            (SINK_SLOT, operands)
        } else {
            match operands {
                [dst, rest @ ..] => (self.dst(dst, ty)?, rest),
                [] => return modifiers.error("needs operands"),
            }
        };
        let (address, b, c) = match (kind, rest) {
            (AtomicKind::Cas, [address, b, c]) => (address, b, Some(c)),
            (kind, [address, b]) if kind != AtomicKind::Cas => (address, b, None),
            _ => return modifiers.error("wrong number of operands"),
        };
        let (base, offset, space) = self.address(address, space)?;
        let extra = [
            self.src(b, ty)?,
            match c {
                Some(c) => self.src(c, ty)?,
                None => ZERO_SLOT,
            },
            policy,
        ];
        let access = Access {
            space,
            offset,
            bytes: ty.bits() / 8,
            signed: false,
            elements: Vec::new(),
            register_bits: ty.bits(),
            ordering,
            scope,
            atomic: Some(AtomicOp {
                kind,
                ty,
                reduction,
            }),
        };
        self.emit_access(access, base, dst, extra);
        Ok(())
    }
}
