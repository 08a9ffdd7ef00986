//! `membar` and `fence`.

use super::function::FunctionBuilder;
use super::modifiers::Modifiers;
use crate::error::LoadError;
use crate::isa::{Class, Op, Scope, ZERO_SLOT};
use crate::syntax::ast::Instruction;

impl<'a> FunctionBuilder<'a, '_> {
    /// Decodes `membar` or `fence`.
    pub(super) fn fence(
        &mut self,
        instruction: &'a Instruction<'a>,
        mut modifiers: Modifiers<'a>,
    ) -> Result<(), LoadError> {
        let op = if modifiers.flag("proxy") {
            Self::proxy_fence(instruction, &mut modifiers)?
        } else if instruction.opcode == "membar" {
            Op::Fence(modifiers.require(
                "a level",
                &[
                    ("cta", Scope::Block),
                    ("gl", Scope::Device),
                    ("sys", Scope::Device),
                ],
            )?)
        } else if modifiers.flag("mbarrier_init") {
            if !modifiers.flag("release") || !modifiers.flag("cluster") {
                return modifiers.error("needs `.release.cluster`");
            }
            Op::Fence(Scope::Block)
        } else {
            Self::thread_fence(&mut modifiers)?
        };
        modifiers.finish()?;
        let [] = self.operands(instruction)?;
        self.emit(op, ZERO_SLOT, [ZERO_SLOT; 4], Class::Other);
        Ok(())
    }

    /// `fence{.sem}.scope`, `fence.{acquire,release}.sync_restrict::….cluster`.
    fn thread_fence(modifiers: &mut Modifiers<'_>) -> Result<Op, LoadError> {
        if Self::sync_restrict(modifiers)? {
            return Ok(Op::Fence(Scope::Block));
        }
        modifiers.choose(&[
            ("sc", ()),
            ("acq_rel", ()),
            ("acquire", ()),
            ("release", ()),
        ]);
        match Self::memory_scope(modifiers) {
            Some(scope) => Ok(Op::Fence(scope)),
            None => modifiers.error("needs a scope, one of .cta .cluster .gpu .sys"),
        }
    }

    /// Takes `.acquire.sync_restrict::shared::cluster.cluster` or `.release.sync_restrict::shared::cta.cluster`.
    fn sync_restrict(modifiers: &mut Modifiers<'_>) -> Result<bool, LoadError> {
        let order = match () {
            () if modifiers.flag("sync_restrict::shared::cluster") => "acquire",
            () if modifiers.flag("sync_restrict::shared::cta") => "release",
            () => return Ok(false),
        };
        if !modifiers.flag(order) || !modifiers.flag("cluster") {
            return modifiers.error(format!("needs `.{order}` and `.cluster`"));
        }
        Ok(true)
    }

    /// All proxies see the same memory here, in one order.
    fn proxy_fence(
        instruction: &Instruction<'_>,
        modifiers: &mut Modifiers<'_>,
    ) -> Result<Op, LoadError> {
        if modifiers.flag("async::generic") {
            return match Self::sync_restrict(modifiers)? {
                true => Ok(Op::Fence(Scope::Block)),
                false => modifiers.error("needs `.sync_restrict::`"),
            };
        }
        let asynchronous = modifiers.require("a proxy", &[("async", true), ("alias", false)])?;
        if asynchronous && instruction.opcode == "fence" {
            modifiers.choose(&[("global", ()), ("shared::cta", ()), ("shared::cluster", ())]);
        }
        Ok(Op::Nop)
    }
}
