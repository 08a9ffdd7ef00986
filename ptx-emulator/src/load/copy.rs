//! `cp.async`, alone and in bulk.

use super::function::FunctionBuilder;
use super::modifiers::Modifiers;
use crate::error::LoadError;
use crate::isa::{AccessSpace, AsyncOp, Class, MAX_BULK_BYTES, Op, Place, Slot, Type, ZERO_SLOT};
use crate::syntax::ast::{Instruction, Number, Operand};

/// The spaces of a copy's two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Global,
    /// `.shared`, which a bulk copy does not have.
    Shared,
    Block,
    /// A cluster is one block here.
    Cluster,
}

const SIDES: [(&str, Side); 4] = [
    ("global", Side::Global),
    ("shared", Side::Shared),
    ("shared::cta", Side::Block),
    ("shared::cluster", Side::Cluster),
];

impl<'a> FunctionBuilder<'a, '_> {
    pub(super) fn emit_async(&mut self, op: AsyncOp, dst: Slot, src: [Slot; 4], class: Class) {
        let index = self.out.asyncs.len() as u32;
        self.out.asyncs.push(op);
        self.emit(Op::Async(index), dst, src, class);
    }

    /// `cp.async…`.
    pub(super) fn cp(
        &mut self,
        instruction: &'a Instruction<'a>,
        mut modifiers: Modifiers<'a>,
    ) -> Result<(), LoadError> {
        if !modifiers.flag("async") {
            return modifiers.error("unknown instruction");
        }
        if modifiers.flag("bulk") {
            return self.cp_bulk(instruction, modifiers);
        }
        if modifiers.flag("mbarrier") {
            return self.arrive_after_copies(instruction, modifiers);
        }
        let none = [ZERO_SLOT; 4];
        if modifiers.flag("commit_group") {
            modifiers.finish()?;
            let [] = self.operands(instruction)?;
            self.emit_async(AsyncOp::Commit, ZERO_SLOT, none, Class::Other);
            return Ok(());
        }
        let wait_all = modifiers.flag("wait_all");
        if wait_all || modifiers.flag("wait_group") {
            modifiers.finish()?;
            let keep = if wait_all {
                let [] = self.operands(instruction)?;
                None
            } else {
                Some(self.groups_to_keep(instruction, &modifiers)?)
            };
            self.emit_async(AsyncOp::Wait { keep }, ZERO_SLOT, none, Class::Other);
            return Ok(());
        }
        self.cp_async(instruction, modifiers)
    }

    /// The one operand of a `wait_group`.
    fn groups_to_keep(
        &self,
        instruction: &'a Instruction<'a>,
        modifiers: &Modifiers<'a>,
    ) -> Result<u32, LoadError> {
        let [Operand::Number(Number::Integer(count))] = self.operands(instruction)? else {
            return modifiers.error("the number of groups must be an integer literal");
        };
        match u32::try_from(*count) {
            Ok(count) => Ok(count),
            Err(_) => modifiers.error(format!("{count} groups are too many")),
        }
    }

    /// Takes the words of the block's shared memory; without any, addresses are generic.
    pub(super) fn shared_space(modifiers: &mut Modifiers<'_>) -> AccessSpace {
        modifiers
            .choose(&[
                ("shared", AccessSpace::Shared),
                ("shared::cta", AccessSpace::Shared),
            ])
            .unwrap_or(AccessSpace::Generic)
    }

    /// An address in shared memory: its row, and the rest.
    pub(super) fn place(
        &mut self,
        operand: &Operand<'a>,
        space: AccessSpace,
    ) -> Result<(Slot, Place), LoadError> {
        let (slot, offset, space) = self.address(operand, space)?;
        Ok((slot, Place { space, offset }))
    }

    /// `cp.async.{ca,cg}.shared.global [dst], [src], bytes{, src-size | ignore-src}{, policy}`.
    fn cp_async(
        &mut self,
        instruction: &'a Instruction<'a>,
        mut modifiers: Modifiers<'a>,
    ) -> Result<(), LoadError> {
        let all_levels = modifiers.require("a cache operator", &[("ca", true), ("cg", false)])?;
        let to = modifiers.require("a destination space", &SIDES)?;
        let from = modifiers.require("a source space", &SIDES)?;
        if !matches!((to, from), (Side::Shared | Side::Block, Side::Global)) {
            return modifiers.error("copies go from `.global` to `.shared`");
        }
        let has_policy = modifiers.flag("L2::cache_hint");
        Self::prefetch_size(&mut modifiers);
        modifiers.finish()?;
        let (operands, policy) = self.policy(instruction, &modifiers, has_policy)?;
        let (dst, src, bytes, size) = match operands {
            [dst, src, bytes] => (dst, src, bytes, None),
            [dst, src, bytes, size] => (dst, src, bytes, Some(size)),
            _ => return modifiers.error("wrong number of operands"),
        };
        let bytes = match bytes {
            Operand::Number(Number::Integer(bytes @ (4 | 8 | 16))) => *bytes as u8,
            _ => return modifiers.error("the number of bytes must be 4, 8 or 16"),
        };
        if !all_levels && bytes != 16 {
            return modifiers.error("`.cg` copies 16 bytes");
        }
        let (to_slot, to) = self.place(dst, AccessSpace::Shared)?;
        let (from_slot, from, _) = self.address(src, AccessSpace::Global)?;
        let (mut size_slot, mut has_size, mut ignore) = (ZERO_SLOT, false, None);
        match size {
            None => {}
            Some(size) if self.is_predicate(size) => ignore = Some(self.pred(size)?),
            Some(size) => {
                size_slot = self.src_within(&modifiers, size, 0..=bytes.into(), 1)?;
                has_size = true;
            }
        }
        let op = AsyncOp::Copy {
            bytes,
            to,
            from,
            has_size,
            ignore,
        };
        let src = [to_slot, from_slot, size_slot, policy];
        self.emit_async(op, ZERO_SLOT, src, Class::LoadGlobal);
        Ok(())
    }

    fn is_predicate(&mut self, operand: &Operand<'a>) -> bool {
        match operand {
            Operand::Name(name) => {
                matches!(self.register(name), Some(super::scope::Register::Pred(_)))
            }
            Operand::Not(_) => true,
            _ => false,
        }
    }

    /// `cp.async.mbarrier.arrive{.noinc}{.shared}.b64 [mbarrier]`.
    fn arrive_after_copies(
        &mut self,
        instruction: &'a Instruction<'a>,
        mut modifiers: Modifiers<'a>,
    ) -> Result<(), LoadError> {
        if !modifiers.flag("arrive") {
            return modifiers.error("needs `.arrive`");
        }
        let counted = modifiers.flag("noinc");
        let space = Self::shared_space(&mut modifiers);
        modifiers.ty_of(&[Type::B(64)])?;
        modifiers.finish()?;
        let [address] = self.operands(instruction)?;
        let (slot, at) = self.place(address, space)?;
        let op = AsyncOp::ArriveAfterCopies { at, counted };
        let src = [slot, ZERO_SLOT, ZERO_SLOT, ZERO_SLOT];
        self.emit_async(op, ZERO_SLOT, src, Class::Shared);
        Ok(())
    }

    /// `cp.async.bulk…`.
    fn cp_bulk(
        &mut self,
        instruction: &'a Instruction<'a>,
        mut modifiers: Modifiers<'a>,
    ) -> Result<(), LoadError> {
        let none = [ZERO_SLOT; 4];
        if modifiers.flag("commit_group") {
            modifiers.finish()?;
            let [] = self.operands(instruction)?;
            self.emit_async(AsyncOp::BulkCommit, ZERO_SLOT, none, Class::Other);
            return Ok(());
        }
        if modifiers.flag("wait_group") {
            // What is written is seen at once here, so that waiting for reads is all there is.
            modifiers.flag("read");
            modifiers.finish()?;
            let keep = self.groups_to_keep(instruction, &modifiers)?;
            self.emit_async(AsyncOp::BulkWait { keep }, ZERO_SLOT, none, Class::Other);
            return Ok(());
        }
        if modifiers.flag("prefetch") {
            return self.bulk_prefetch(instruction, modifiers);
        }
        for word in ["tensor", "multicast::cluster", "cp_mask"] {
            if modifiers.has(word) {
                return modifiers.error(format!("`.{word}` is not supported"));
            }
        }
        let to = modifiers.require("a destination space", &SIDES)?;
        let from = modifiers.require("a source space", &SIDES)?;
        let by_mbarrier = modifiers.require(
            "a way to wait",
            &[
                ("mbarrier::complete_tx::bytes", true),
                ("bulk_group", false),
            ],
        )?;
        let has_policy = modifiers.flag("L2::cache_hint");
        modifiers.finish()?;
        let (operands, _) = self.policy(instruction, &modifiers, has_policy)?;
        match (to, from, by_mbarrier, operands) {
            (Side::Block | Side::Cluster, Side::Global, true, [dst, src, size, mbarrier]) => {
                let (to_slot, to) = self.place(dst, AccessSpace::Shared)?;
                let (from_slot, from, _) = self.address(src, AccessSpace::Global)?;
                let size = self.bulk_size(&modifiers, size)?;
                let (at_slot, at) = self.place(mbarrier, AccessSpace::Shared)?;
                let op = AsyncOp::BulkLoad { to, from, at };
                let src = [to_slot, from_slot, size, at_slot];
                self.emit_async(op, ZERO_SLOT, src, Class::LoadGlobal);
            }
            (Side::Global, Side::Block, false, [dst, src, size]) => {
                let (to_slot, to, _) = self.address(dst, AccessSpace::Global)?;
                let (from_slot, from) = self.place(src, AccessSpace::Shared)?;
                let size = self.bulk_size(&modifiers, size)?;
                let op = AsyncOp::BulkStore { to, from };
                let src = [to_slot, from_slot, size, ZERO_SLOT];
                self.emit_async(op, ZERO_SLOT, src, Class::StoreGlobal);
            }
            (Side::Block | Side::Cluster, Side::Global, true, _)
            | (Side::Global, Side::Block, false, _) => {
                return modifiers.error("wrong number of operands");
            }
            _ => return modifiers.error("this way to copy is not supported"),
        }
        Ok(())
    }

    fn bulk_size(
        &mut self,
        modifiers: &Modifiers<'_>,
        size: &Operand<'a>,
    ) -> Result<Slot, LoadError> {
        self.src_within(modifiers, size, 0..=MAX_BULK_BYTES, 16)
    }

    /// `cp.async.bulk.prefetch.L2.global{.L2::cache_hint} [src], size{, policy}`.
    fn bulk_prefetch(
        &mut self,
        instruction: &'a Instruction<'a>,
        mut modifiers: Modifiers<'a>,
    ) -> Result<(), LoadError> {
        if !modifiers.flag("L2") || !modifiers.flag("global") {
            return modifiers.error("needs `.L2.global`");
        }
        let has_policy = modifiers.flag("L2::cache_hint");
        modifiers.finish()?;
        let (operands, policy) = self.policy(instruction, &modifiers, has_policy)?;
        let [address, size] = operands else {
            return modifiers.error("wrong number of operands");
        };
        let (base, from, _) = self.address(address, AccessSpace::Global)?;
        let size = self.bulk_size(&modifiers, size)?;
        let src = [base, size, policy, ZERO_SLOT];
        let op = AsyncOp::BulkPrefetch { from };
        self.emit_async(op, ZERO_SLOT, src, Class::Other);
        Ok(())
    }
}
