//! `mbarrier`.

use super::function::FunctionBuilder;
use super::modifiers::Modifiers;
use crate::error::LoadError;
use crate::isa::{
    AccessSpace, AsyncOp, Class, MBARRIER_MOST, MbarrierOp, Op, Slot, Type, ZERO_SLOT,
};
use crate::syntax::ast::{Instruction, Operand};

const U32: Type = Type::U(32);
const U64: Type = Type::U(64);

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Init,
    Invalidate,
    ExpectTx,
    CompleteTx,
    Arrive { drop: bool },
    Wait,
    PendingCount,
}

impl<'a> FunctionBuilder<'a, '_> {
    /// `mbarrier…`.
    pub(super) fn mbarrier(
        &mut self,
        instruction: &'a Instruction<'a>,
        mut modifiers: Modifiers<'a>,
    ) -> Result<(), LoadError> {
        let kind = match instruction.modifiers.first() {
            // After `arrive`, `expect_tx` is an addition.
            Some(&"expect_tx") => Some(Kind::ExpectTx),
            Some(&"complete_tx") => Some(Kind::CompleteTx),
            _ => None,
        };
        let kind = match kind {
            Some(kind) => {
                modifiers.choose(&[("expect_tx", ()), ("complete_tx", ())]);
                kind
            }
            None => modifiers.require(
                "an action",
                &[
                    ("init", Kind::Init),
                    ("inval", Kind::Invalidate),
                    ("arrive", Kind::Arrive { drop: false }),
                    ("arrive_drop", Kind::Arrive { drop: true }),
                    ("test_wait", Kind::Wait),
                    ("try_wait", Kind::Wait),
                    ("pending_count", Kind::PendingCount),
                ],
            )?,
        };
        let operands = instruction.operands.as_slice();
        let try_wait = instruction.modifiers.first() == Some(&"try_wait");
        let is_arrive = matches!(kind, Kind::Arrive { .. });
        let expect_tx = is_arrive && modifiers.flag("expect_tx");
        let no_complete = is_arrive && modifiers.flag("noComplete");
        let parity = kind == Kind::Wait && modifiers.flag("parity");
        let orders: &[(&str, bool)] = match kind {
            Kind::Arrive { .. } if no_complete => &[("release", false)],
            Kind::Arrive { .. } => &[("release", false), ("relaxed", true)],
            Kind::Wait => &[("acquire", false), ("relaxed", true)],
            Kind::ExpectTx | Kind::CompleteTx => &[("relaxed", true)],
            Kind::Init | Kind::Invalidate | Kind::PendingCount => &[],
        };
        let relaxed = modifiers.choose(orders);
        if relaxed.is_some() {
            let scopes: &[(&str, ())] = &[("cta", ()), ("cluster", ())];
            let scopes = if no_complete { &scopes[..1] } else { scopes };
            modifiers.require("a scope", scopes)?;
        }
        // Those of the cluster have no state to give.
        let transaction = matches!(kind, Kind::ExpectTx | Kind::CompleteTx);
        let stateless =
            is_arrive && !no_complete && matches!(operands.first(), Some(Operand::Name("_")));
        let space = if (transaction || stateless) && modifiers.flag("shared::cluster") {
            AccessSpace::Shared
        } else if kind == Kind::PendingCount {
            AccessSpace::Generic
        } else {
            Self::shared_space(&mut modifiers)
        };
        modifiers.ty_of(&[Type::B(64)])?;
        modifiers.finish()?;
        if expect_tx && no_complete {
            return modifiers.error("`.expect_tx` and `.noComplete` exclude each other");
        }
        let relaxed = relaxed.unwrap_or(false);
        match (kind, operands) {
            (Kind::PendingCount, [dst, state]) => {
                self.named(dst)?;
                let state = self.src(state, U64)?;
                let dst = self.dst(dst, U32)?;
                let src = [state, ZERO_SLOT, ZERO_SLOT, ZERO_SLOT];
                self.emit(Op::PendingCount, dst, src, Class::Integer);
                Ok(())
            }
            (Kind::Invalidate, [address]) => {
                self.emit_mbarrier(MbarrierOp::Invalidate, None, address, space, ZERO_SLOT)
            }
            (Kind::Init, [address, count]) => {
                let count = self.src_within(&modifiers, count, 1..=MBARRIER_MOST.into(), 1)?;
                self.emit_mbarrier(MbarrierOp::Init, None, address, space, count)
            }
            (Kind::ExpectTx, [address, count]) => {
                let count = self.src(count, U32)?;
                self.emit_mbarrier(MbarrierOp::ExpectTx, None, address, space, count)
            }
            (Kind::CompleteTx, [address, count]) => {
                let count = self.src(count, U32)?;
                self.emit_mbarrier(MbarrierOp::CompleteTx, None, address, space, count)
            }
            (Kind::Arrive { drop }, [state, address, count @ ..]) if count.len() < 2 => {
                if count.is_empty() && (expect_tx || no_complete) {
                    return modifiers.error("needs a count");
                }
                let op = MbarrierOp::Arrive {
                    has_count: !count.is_empty(),
                    expect_tx,
                    drop,
                    no_complete,
                    release: !relaxed,
                };
                let count = match count.first() {
                    Some(bytes) if expect_tx => self.src(bytes, U32)?,
                    Some(count) => {
                        self.src_within(&modifiers, count, 1..=MBARRIER_MOST.into(), 1)?
                    }
                    None => ZERO_SLOT,
                };
                self.emit_mbarrier(op, Some(state), address, space, count)
            }
            (Kind::Wait, [done, address, state, hint @ ..])
                if hint.len() <= usize::from(try_wait) =>
            {
                self.named(done)?;
                // How long a wait may suspend the thread changes nothing here.
                for hint in hint {
                    self.src(hint, U32)?;
                }
                let op = MbarrierOp::Wait {
                    parity,
                    acquire: !relaxed,
                    dst: self.pred_dst(done)?,
                };
                let state = if parity {
                    self.src_within(&modifiers, state, 0..=1, 1)?
                } else {
                    self.src(state, U64)?
                };
                self.emit_mbarrier(op, None, address, space, state)
            }
            _ => modifiers.error("wrong number of operands"),
        }
    }

    fn emit_mbarrier(
        &mut self,
        op: MbarrierOp,
        state: Option<&'a Operand<'a>>,
        address: &'a Operand<'a>,
        space: AccessSpace,
        count: Slot,
    ) -> Result<(), LoadError> {
        let (slot, at) = self.place(address, space)?;
        let dst = match state {
            Some(state) => self.dst(state, U64)?,
            None => ZERO_SLOT,
        };
        let src = [slot, count, ZERO_SLOT, ZERO_SLOT];
        self.emit_async(AsyncOp::Mbarrier { op, at }, dst, src, Class::Shared);
        Ok(())
    }
}
