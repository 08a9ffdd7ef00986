//! What the lanes of a warp do together.

use super::function::FunctionBuilder;
use super::modifiers::Modifiers;
use crate::error::LoadError;
use crate::isa::{Class, Op, ReduxOp, SINK_PRED, ShflMode, Type, VoteMode, ZERO_SLOT};
use crate::syntax::ast::{Instruction, Operand};

const B32: Type = Type::B(32);

fn is_sink(operand: &Operand<'_>) -> bool {
    matches!(operand, Operand::Name("_"))
}

impl<'a> FunctionBuilder<'a, '_> {
    /// Every form here is `.sync`: since sm_70, those without leave open which lanes take part.
    fn require_sync(modifiers: &mut Modifiers<'_>) -> Result<(), LoadError> {
        if modifiers.flag("sync") {
            return Ok(());
        }
        modifiers.error("needs `.sync`")
    }

    /// `shfl.sync.mode.b32 d|p, a, b, c, membermask`.
    pub(super) fn shfl(
        &mut self,
        instruction: &'a Instruction<'a>,
        mut modifiers: Modifiers<'a>,
    ) -> Result<(), LoadError> {
        Self::require_sync(&mut modifiers)?;
        let mode = modifiers.require(
            "a mode",
            &[
                ("up", ShflMode::Up),
                ("down", ShflMode::Down),
                ("bfly", ShflMode::Bfly),
                ("idx", ShflMode::Idx),
            ],
        )?;
        modifiers.ty_of(&[B32])?;
        modifiers.finish()?;
        let [dst, a, b, c, mask] = self.operands(instruction)?;
        match dst {
            Operand::Pair(row, _) if is_sink(row) => {
                return modifiers.error("the result beside the predicate cannot be `_`");
            }
            dst => self.named(dst)?,
        }
        let src = [
            self.src(a, B32)?,
            self.src(b, B32)?,
            self.src(c, B32)?,
            self.src(mask, B32)?,
        ];
        let (row, dst) = self.row_and_pred(dst, B32)?;
        self.emit(Op::Shfl { mode, dst }, row, src, Class::Other);
        Ok(())
    }

    /// `vote.sync.{all,any,uni}.pred p, {!}a, membermask` and `vote.sync.ballot.b32 d, {!}a, membermask`.
    pub(super) fn vote(
        &mut self,
        instruction: &'a Instruction<'a>,
        mut modifiers: Modifiers<'a>,
    ) -> Result<(), LoadError> {
        Self::require_sync(&mut modifiers)?;
        let mode = modifiers.require(
            "a mode",
            &[
                ("all", VoteMode::All),
                ("any", VoteMode::Any),
                ("uni", VoteMode::Uni),
                ("ballot", VoteMode::Ballot),
            ],
        )?;
        let ballot = mode == VoteMode::Ballot;
        modifiers.ty_of(&[if ballot { B32 } else { Type::Pred }])?;
        modifiers.finish()?;
        let [dst, src, mask] = self.operands(instruction)?;
        self.named(dst)?;
        let src = self.pred(src)?;
        let mask = self.src(mask, B32)?;
        let (row, dst) = if ballot {
            (self.dst(dst, B32)?, SINK_PRED)
        } else {
            (ZERO_SLOT, self.pred_dst(dst)?)
        };
        let sources = [mask, ZERO_SLOT, ZERO_SLOT, ZERO_SLOT];
        self.emit(Op::Vote { mode, src, dst }, row, sources, Class::Other);
        Ok(())
    }

    /// `match.any.sync.type d, a, membermask` and `match.all.sync.type d|p, a, membermask`.
    pub(super) fn match_sync(
        &mut self,
        instruction: &'a Instruction<'a>,
        mut modifiers: Modifiers<'a>,
    ) -> Result<(), LoadError> {
        Self::require_sync(&mut modifiers)?;
        let all = modifiers.require("a mode", &[("any", false), ("all", true)])?;
        let ty = modifiers.ty_of(&[B32, Type::B(64)])?;
        modifiers.finish()?;
        let [dst, a, mask] = self.operands(instruction)?;
        let src = [self.src(a, ty)?, self.src(mask, B32)?, ZERO_SLOT, ZERO_SLOT];
        if !all && matches!(dst, Operand::Pair(..)) {
            return modifiers.error("a predicate is a result of `.all`");
        }
        let (row, dst) = self.row_and_pred(dst, B32)?;
        self.emit(Op::Match { all, dst }, row, src, Class::Other);
        Ok(())
    }

    /// `redux.sync.op.type d, a, membermask`.
    pub(super) fn redux(
        &mut self,
        instruction: &'a Instruction<'a>,
        mut modifiers: Modifiers<'a>,
    ) -> Result<(), LoadError> {
        Self::require_sync(&mut modifiers)?;
        #[derive(Clone, Copy)]
        enum Kind {
            Add,
            Min,
            Max,
            And,
            Or,
            Xor,
        }
        let kind = modifiers.require(
            "an operation",
            &[
                ("add", Kind::Add),
                ("min", Kind::Min),
                ("max", Kind::Max),
                ("and", Kind::And),
                ("or", Kind::Or),
                ("xor", Kind::Xor),
            ],
        )?;
        let ty = modifiers.ty_of(&[Type::U(32), Type::S(32), B32])?;
        modifiers.finish()?;
        let op = match (kind, ty) {
            (Kind::Add, Type::U(_) | Type::S(_)) => ReduxOp::Add,
            (Kind::Min, Type::U(_)) => ReduxOp::MinU,
            (Kind::Min, Type::S(_)) => ReduxOp::MinS,
            (Kind::Max, Type::U(_)) => ReduxOp::MaxU,
            (Kind::Max, Type::S(_)) => ReduxOp::MaxS,
            (Kind::And, Type::B(_)) => ReduxOp::And,
            (Kind::Or, Type::B(_)) => ReduxOp::Or,
            (Kind::Xor, Type::B(_)) => ReduxOp::Xor,
            _ => return modifiers.error(format!("{ty} is not a type of this operation")),
        };
        let [dst, a, mask] = self.operands(instruction)?;
        self.named(dst)?;
        let src = [self.src(a, ty)?, self.src(mask, B32)?, ZERO_SLOT, ZERO_SLOT];
        let dst = self.dst(dst, ty)?;
        self.emit(Op::Redux(op), dst, src, Class::Other);
        Ok(())
    }

    /// `elect.sync d|p, membermask`.
    pub(super) fn elect(
        &mut self,
        instruction: &'a Instruction<'a>,
        mut modifiers: Modifiers<'a>,
    ) -> Result<(), LoadError> {
        Self::require_sync(&mut modifiers)?;
        modifiers.finish()?;
        let [dst, mask] = self.operands(instruction)?;
        Self::check_pred_result(&modifiers, dst)?;
        let src = [self.src(mask, B32)?, ZERO_SLOT, ZERO_SLOT, ZERO_SLOT];
        let (row, dst) = self.row_and_pred(dst, B32)?;
        self.emit(Op::Elect { dst }, row, src, Class::Other);
        Ok(())
    }

    /// `activemask.b32 d`.
    pub(super) fn activemask(
        &mut self,
        instruction: &'a Instruction<'a>,
        mut modifiers: Modifiers<'a>,
    ) -> Result<(), LoadError> {
        modifiers.ty_of(&[B32])?;
        modifiers.finish()?;
        let [dst] = self.operands(instruction)?;
        self.named(dst)?;
        let dst = self.dst(dst, B32)?;
        self.emit(Op::ActiveMask, dst, [ZERO_SLOT; 4], Class::Other);
        Ok(())
    }
}
