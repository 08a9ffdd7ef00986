//! What only hints at caches: policies, priorities and prefetches. Nothing here changes a value that a program may rely on.

use super::function::FunctionBuilder;
use super::modifiers::Modifiers;
use crate::error::LoadError;
use crate::isa::{AccessSpace, Class, Constant, Op, Slot, Type, ZERO_SLOT};
use crate::syntax::ast::{Instruction, Number, Operand};

const U32: Type = Type::U(32);
const U64: Type = Type::U(64);

/// What `createpolicy` gives. The value means nothing here.
const POLICY: u64 = 1;

impl<'a> FunctionBuilder<'a, '_> {
    /// Takes `.L2::cache_hint`.
    pub(super) fn has_policy(
        modifiers: &mut Modifiers<'_>,
        space: AccessSpace,
    ) -> Result<bool, LoadError> {
        let has_policy = modifiers.flag("L2::cache_hint");
        if has_policy && !matches!(space, AccessSpace::Global | AccessSpace::Generic) {
            return modifiers.error("`.L2::cache_hint` is for `.global`");
        }
        Ok(has_policy)
    }

    /// The operands without the policy that comes last, and the policy.
    pub(super) fn policy(
        &mut self,
        instruction: &'a Instruction<'a>,
        modifiers: &Modifiers<'a>,
        has_policy: bool,
    ) -> Result<(&'a [Operand<'a>], Slot), LoadError> {
        let operands = instruction.operands.as_slice();
        if !has_policy {
            return Ok((operands, ZERO_SLOT));
        }
        match operands {
            [rest @ .., policy] if rest.len() > 1 => Ok((rest, self.src(policy, U64)?)),
            _ => modifiers.error("wrong number of operands"),
        }
    }

    /// `createpolicy.fractional.L2::priority{.L2::other}.b64 d{, fraction}`,
    /// `createpolicy.range{.global}.L2::priority{.L2::other}.b64 d, [a], primary, total` and
    /// `createpolicy.cvt.L2.b64 d, a`.
    pub(super) fn create_policy(
        &mut self,
        instruction: &'a Instruction<'a>,
        mut modifiers: Modifiers<'a>,
    ) -> Result<(), LoadError> {
        if modifiers.flag("cvt") {
            return self.convert_policy(instruction, modifiers);
        }
        let range = modifiers.require("a kind", &[("fractional", false), ("range", true)])?;
        if range {
            modifiers.flag("global");
        }
        modifiers.require(
            "a priority",
            &[
                ("L2::evict_last", ()),
                ("L2::evict_normal", ()),
                ("L2::evict_first", ()),
                ("L2::evict_unchanged", ()),
            ],
        )?;
        modifiers.choose(&[("L2::evict_first", ()), ("L2::evict_unchanged", ())]);
        modifiers.ty_of(&[Type::B(64)])?;
        modifiers.finish()?;
        let dst = match (range, instruction.operands.as_slice()) {
            (false, [dst]) => dst,
            (false, [dst, fraction]) => {
                let value = match fraction {
                    Operand::Number(Number::F64(value)) => Some(*value),
                    Operand::Number(Number::F32(bits)) => Some(f32::from_bits(*bits).into()),
                    _ => None,
                };
                if value.is_some_and(|value| !(value > 0.0 && value <= 1.0)) {
                    return modifiers.error("the fraction must be from 0 to 1");
                }
                self.src(fraction, Type::F32)?;
                dst
            }
            (true, [dst, address, primary, total]) => {
                self.address(address, AccessSpace::Global)?;
                self.src(primary, U32)?;
                self.src(total, U32)?;
                dst
            }
            _ => return modifiers.error("wrong number of operands"),
        };
        self.emit_policy(dst)
    }

    /// The policy of an access property of CUDA's.
    fn convert_policy(
        &mut self,
        instruction: &'a Instruction<'a>,
        mut modifiers: Modifiers<'a>,
    ) -> Result<(), LoadError> {
        if !modifiers.flag("L2") {
            return modifiers.error("needs `.L2`");
        }
        modifiers.ty_of(&[Type::B(64)])?;
        modifiers.finish()?;
        let [dst, property] = self.operands(instruction)?;
        self.src(property, U64)?;
        self.emit_policy(dst)
    }

    fn emit_policy(&mut self, dst: &Operand<'a>) -> Result<(), LoadError> {
        self.named(dst)?;
        let dst = self.dst(dst, U64)?;
        let policy = self.constant(Constant::Value(POLICY));
        let src = [policy, ZERO_SLOT, ZERO_SLOT, ZERO_SLOT];
        self.emit(Op::Mov, dst, src, Class::Other);
        Ok(())
    }

    /// `applypriority.global.L2::evict_normal [a], 128`.
    pub(super) fn apply_priority(
        &mut self,
        instruction: &'a Instruction<'a>,
        mut modifiers: Modifiers<'a>,
    ) -> Result<(), LoadError> {
        let space = Self::access_space(&mut modifiers);
        modifiers.require("a priority", &[("L2::evict_normal", ())])?;
        modifiers.finish()?;
        let [address, Operand::Number(Number::Integer(128))] = self.operands(instruction)? else {
            return modifiers.error("the size must be 128");
        };
        self.hint(&modifiers, address, space, &[AccessSpace::Global])
    }

    /// `prefetch{.space}.level [a]`, `prefetch.global.L2::priority [a]`, `prefetchu.L1 [a]`.
    pub(super) fn prefetch(
        &mut self,
        instruction: &'a Instruction<'a>,
        mut modifiers: Modifiers<'a>,
    ) -> Result<(), LoadError> {
        let space = Self::access_space(&mut modifiers);
        let spaces: &[AccessSpace] = if instruction.opcode == "prefetchu" {
            modifiers.require("a cache level", &[("L1", ())])?;
            &[]
        } else {
            modifiers.require(
                "a cache level",
                &[
                    ("L1", &[AccessSpace::Global, AccessSpace::Local][..]),
                    ("L2", &[AccessSpace::Global, AccessSpace::Local]),
                    ("L2::evict_last", &[AccessSpace::Global]),
                    ("L2::evict_normal", &[AccessSpace::Global]),
                ],
            )?
        };
        modifiers.finish()?;
        let [address] = self.operands(instruction)?;
        self.hint(&modifiers, address, space, spaces)
    }

    /// An instruction that only has an address.
    fn hint(
        &mut self,
        modifiers: &Modifiers<'a>,
        address: &Operand<'a>,
        space: AccessSpace,
        spaces: &[AccessSpace],
    ) -> Result<(), LoadError> {
        if space != AccessSpace::Generic && !spaces.contains(&space) {
            return modifiers.error("not for this state space");
        }
        let (base, ..) = self.address(address, space)?;
        let src = [base, ZERO_SLOT, ZERO_SLOT, ZERO_SLOT];
        self.emit(Op::Nop, ZERO_SLOT, src, Class::Other);
        Ok(())
    }
}
