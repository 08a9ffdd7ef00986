//! `membar` and `fence`.

use super::function::FunctionBuilder;
use super::modifiers::Modifiers;
use crate::error::LoadError;
use crate::isa::{Class, Fence, Op, Scope, ZERO_SLOT};
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
            Op::Fence(Fence::both(modifiers.require(
                "a level",
                &[
                    ("cta", Scope::Block),
                    ("gl", Scope::Device),
                    ("sys", Scope::Device),
                ],
            )?))
        } else if modifiers.flag("mbarrier_init") {
            if !modifiers.flag("release") || !modifiers.flag("cluster") {
                return modifiers.error("needs `.release.cluster`");
            }
            Op::Fence(Fence {
                scope: Scope::Block,
                acquire: false,
                release: true,
            })
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
        if let Some(fence) = Self::sync_restrict(modifiers)? {
            return Ok(Op::Fence(fence));
        }
        let (acquire, release) = modifiers
            .choose(&[
                ("sc", (true, true)),
                ("acq_rel", (true, true)),
                ("acquire", (true, false)),
                ("release", (false, true)),
            ])
            .unwrap_or((true, true));
        match Self::memory_scope(modifiers) {
            Some(scope) => Ok(Op::Fence(Fence {
                scope,
                acquire,
                release,
            })),
            None => modifiers.error("needs a scope, one of .cta .cluster .gpu .sys"),
        }
    }

    /// Takes `.acquire.sync_restrict::shared::cluster.cluster` or `.release.sync_restrict::shared::cta.cluster`.
    fn sync_restrict(modifiers: &mut Modifiers<'_>) -> Result<Option<Fence>, LoadError> {
        let (order, acquire) = match () {
            () if modifiers.flag("sync_restrict::shared::cluster") => ("acquire", true),
            () if modifiers.flag("sync_restrict::shared::cta") => ("release", false),
            () => return Ok(None),
        };
        if !modifiers.flag(order) || !modifiers.flag("cluster") {
            return modifiers.error(format!("needs `.{order}` and `.cluster`"));
        }
        Ok(Some(Fence {
            scope: Scope::Block,
            acquire,
            release: !acquire,
        }))
    }

    /// All proxies see the same memory here, in one order.
    fn proxy_fence(
        instruction: &Instruction<'_>,
        modifiers: &mut Modifiers<'_>,
    ) -> Result<Op, LoadError> {
        if modifiers.flag("async::generic") {
            return match Self::sync_restrict(modifiers)? {
                Some(fence) => Ok(Op::Fence(fence)),
                None => modifiers.error("needs `.sync_restrict::`"),
            };
        }
        let asynchronous = modifiers.require("a proxy", &[("async", true), ("alias", false)])?;
        if asynchronous && instruction.opcode == "fence" {
            modifiers.choose(&[("global", ()), ("shared::cta", ()), ("shared::cluster", ())]);
        }
        Ok(Op::Nop)
    }
}
