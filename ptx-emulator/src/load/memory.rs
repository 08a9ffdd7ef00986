//! Loads and stores.

use super::function::FunctionBuilder;
use super::modifiers::Modifiers;
use super::operand::Width;
use super::qualifiers::Qualifiers;
use super::scope::Register;
use crate::error::LoadError;
use crate::isa::{
    Access, AccessSpace, Class, Op, Ordering, SINK_SLOT, Scope, Slot, Type, ZERO_SLOT,
};
use crate::syntax::ast::{Instruction, Operand};

impl<'a> FunctionBuilder<'a, '_> {
    fn vector_length(modifiers: &mut Modifiers<'_>) -> usize {
        modifiers.choose(&[("v2", 2), ("v4", 4)]).unwrap_or(1)
    }

    /// The parts of a vector operand, or the one scalar.
    pub(super) fn parts<'o>(
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

    /// Registers of a vector may be wider than its elements, but are so alike.
    fn alike(&mut self, modifiers: &Modifiers<'_>, parts: &[Operand<'a>]) -> Result<(), LoadError> {
        let mut width = None;
        for part in parts {
            if let Operand::Name(name) = part
                && let Some(Register::Row(_, ty)) = self.register(name)
                && *width.get_or_insert(ty.bits()) != ty.bits()
            {
                return modifiers.error("the registers of a vector are of one size");
            }
        }
        Ok(())
    }

    fn class(space: AccessSpace, store: bool) -> Class {
        match (space, store) {
            (AccessSpace::Global | AccessSpace::Generic, false) => Class::LoadGlobal,
            (AccessSpace::Global | AccessSpace::Generic, true) => Class::StoreGlobal,
            (AccessSpace::Shared, _) => Class::Shared,
            _ => Class::Other,
        }
    }

    pub(super) fn emit_access(&mut self, access: Access, base: Slot, dst: Slot, extra: [Slot; 3]) {
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
        let qualifiers = if instruction.opcode == "ldu" {
            Self::uniform(&mut modifiers)?
        } else {
            Self::qualifiers(&mut modifiers, false)?
        };
        let count = Self::vector_length(&mut modifiers);
        let ty = modifiers.ty()?;
        modifiers.finish()?;
        let bytes = Self::element_bytes(&modifiers, qualifiers, ty, count)?;
        let (operands, policy) = self.policy(instruction, &modifiers, qualifiers.policy)?;
        let [dst, address] = operands else {
            return modifiers.error("wrong number of operands");
        };
        let (base, offset, space) = self.qualified_address(&modifiers, address, qualifiers)?;
        let mut register_bits = ty.bits();
        let mut elements = Vec::with_capacity(count);
        let parts = self.parts(&modifiers, dst, count)?;
        self.alike(&modifiers, parts)?;
        for part in parts {
            let (slot, bits) = self.dst_width(part, ty, Width::AtLeast)?;
            if slot != SINK_SLOT {
                register_bits = bits;
            }
            elements.push(slot);
        }
        if elements.iter().all(|&slot| slot == SINK_SLOT) {
            return modifiers.error("needs a register for what it loads");
        }
        let access = Access {
            space,
            offset,
            bytes,
            signed: matches!(ty, Type::S(_)),
            elements,
            results: Vec::new(),
            register_bits,
            used_bytes: self.used_bytes,
            ordering: qualifiers.ordering,
            scope: qualifiers.scope,
            non_coherent: qualifiers.non_coherent,
            atomic: None,
        };
        self.emit_access(access, base, ZERO_SLOT, [ZERO_SLOT, ZERO_SLOT, policy]);
        Ok(())
    }

    /// `ldu` is a load of global memory, or generic, without any other qualifier.
    fn uniform(modifiers: &mut Modifiers<'_>) -> Result<Qualifiers, LoadError> {
        let space = if modifiers.flag("global") {
            AccessSpace::Global
        } else {
            AccessSpace::Generic
        };
        Ok(Qualifiers {
            space,
            parameters: None,
            ordering: Ordering::Weak,
            scope: Scope::Device,
            policy: false,
            mmio: false,
            non_coherent: false,
        })
    }

    /// Bytes of an element, of which a vector has 16 at most.
    fn element_bytes(
        modifiers: &Modifiers<'_>,
        qualifiers: Qualifiers,
        ty: Type,
        count: usize,
    ) -> Result<u8, LoadError> {
        let integer = matches!(ty, Type::U(_) | Type::S(_) | Type::B(_));
        if !integer && ty != Type::F32 && ty != Type::F64 {
            return modifiers.error(format!("{ty} is not a type of this instruction"));
        }
        let bytes = ty.bits() / 8;
        if usize::from(bytes) * count > 16 {
            return modifiers.error("an access is at most 16 bytes");
        }
        if qualifiers.mmio && count > 1 {
            return modifiers.error("`.mmio` has no vectors");
        }
        Ok(bytes)
    }

    /// An address whose parameter, if it is one, is that of a kernel or a function as the space says. In a function, a register
    /// with the address of a parameter has that of its copy in local memory.
    fn qualified_address(
        &mut self,
        modifiers: &Modifiers<'a>,
        address: &Operand<'a>,
        qualifiers: Qualifiers,
    ) -> Result<(Slot, i64, AccessSpace), LoadError> {
        let (base, offset, space) = self.address(address, qualifiers.space)?;
        let of_kernel = self.entry || qualifiers.parameters == Some(AccessSpace::KernelParam);
        if space == AccessSpace::KernelParam && base != ZERO_SLOT && !of_kernel {
            return Ok((base, offset, AccessSpace::Local));
        }
        match qualifiers.parameters {
            Some(owner) if owner != space => modifiers.error(if space == AccessSpace::FrameParam {
                "the parameter is a function's: use `.param::func`"
            } else {
                "the parameter is a kernel's: use `.param::entry`"
            }),
            _ => Ok((base, offset, space)),
        }
    }

    /// `st`.
    pub(super) fn store(
        &mut self,
        instruction: &'a Instruction<'a>,
        mut modifiers: Modifiers<'a>,
    ) -> Result<(), LoadError> {
        let qualifiers = Self::qualifiers(&mut modifiers, true)?;
        let count = Self::vector_length(&mut modifiers);
        let ty = modifiers.ty()?;
        modifiers.finish()?;
        let bytes = Self::element_bytes(&modifiers, qualifiers, ty, count)?;
        let (operands, policy) = self.policy(instruction, &modifiers, qualifiers.policy)?;
        let [address, src] = operands else {
            return modifiers.error("wrong number of operands");
        };
        let (base, offset, space) = self.qualified_address(&modifiers, address, qualifiers)?;
        if space == AccessSpace::Const || space == AccessSpace::KernelParam {
            return modifiers.error("the state space is read-only");
        }
        let mut elements = Vec::with_capacity(count);
        let parts = self.parts(&modifiers, src, count)?;
        self.alike(&modifiers, parts)?;
        for part in parts {
            elements.push(self.src_width(part, ty, Width::AtLeast)?);
        }
        let access = Access {
            space,
            offset,
            bytes,
            signed: false,
            elements,
            results: Vec::new(),
            register_bits: 0,
            used_bytes: u32::MAX,
            ordering: qualifiers.ordering,
            scope: qualifiers.scope,
            non_coherent: qualifiers.non_coherent,
            atomic: None,
        };
        self.emit_access(access, base, ZERO_SLOT, [ZERO_SLOT, ZERO_SLOT, policy]);
        Ok(())
    }
}
