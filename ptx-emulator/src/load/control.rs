//! Branches, barriers, and the table of all instructions.

use super::function::FunctionBuilder;
use super::modifiers::Modifiers;
use crate::error::LoadError;
use crate::isa::{BarrierKind, BarrierOp, Class, GridDependency, Op, Slot, Type, ZERO_SLOT};
use crate::syntax::ast::{Instruction, Number, Operand};

const NONE: [u32; 4] = [ZERO_SLOT; 4];

impl<'a> FunctionBuilder<'a, '_> {
    /// Decodes one instruction.
    pub(super) fn instruction(
        &mut self,
        instruction: &'a Instruction<'a>,
    ) -> Result<(), LoadError> {
        let modifiers = Modifiers::new(instruction);
        let float = instruction
            .modifiers
            .iter()
            .any(|word| Type::parse(word).is_some_and(Type::is_float));
        match instruction.opcode {
            "mov" => self.mov(instruction, modifiers),
            "add" | "sub" | "mul" | "fma" | "mad" if float => {
                self.float_arithmetic(instruction, modifiers)
            }
            "add" => self.int_add_sub(instruction, modifiers, false),
            "sub" => self.int_add_sub(instruction, modifiers, true),
            "addc" | "subc" | "madc" => self.carry(instruction, modifiers),
            "mul" | "mul24" => self.int_mul(instruction, modifiers),
            "mad" | "mad24" => self.int_mad(instruction, modifiers),
            "div" if float => self.float_div(instruction, modifiers),
            "min" | "max" if float => self.float_min_max(instruction, modifiers),
            "abs" | "neg" if float => self.float_sign(instruction, modifiers),
            "div" | "rem" | "min" | "max" | "abs" | "neg" | "sad" => {
                self.int_simple(instruction, modifiers)
            }
            "and" | "or" | "xor" | "not" | "cnot" => self.logic(instruction, modifiers),
            "shl" | "shr" => self.shift(instruction, modifiers),
            "lop3" => self.lop3(instruction, modifiers),
            "clz" | "popc" | "brev" | "bfe" | "bfi" | "bfind" | "bmsk" | "szext" | "shf"
            | "prmt" | "fns" | "dp4a" | "dp2a" => self.bits(instruction, modifiers),
            "vadd2" | "vadd4" | "vsub2" | "vsub4" | "vavrg2" | "vavrg4" | "vabsdiff2"
            | "vabsdiff4" | "vmin2" | "vmin4" | "vmax2" | "vmax4" | "vset2" | "vset4" => {
                self.video(instruction, modifiers)
            }
            "selp" | "slct" => self.select(instruction, modifiers),
            "sqrt" | "rcp" => self.root_or_reciprocal(instruction, modifiers),
            "rsqrt" | "sin" | "cos" | "lg2" | "ex2" | "tanh" => {
                self.approximate(instruction, modifiers)
            }
            "copysign" => self.copysign(instruction, modifiers),
            "testp" => self.testp(instruction, modifiers),
            "setp" => self.setp(instruction, modifiers),
            "set" => self.set(instruction, modifiers),
            "isspacep" => self.isspacep(instruction, modifiers),
            "cvt" => self.cvt(instruction, modifiers),
            "cvta" => self.cvta(instruction, modifiers),
            "ld" | "ldu" => self.load(instruction, modifiers),
            "st" => self.store(instruction, modifiers),
            "atom" | "red" => self.atomic(instruction, modifiers),
            "prefetch" | "prefetchu" => self.prefetch(instruction, modifiers),
            "applypriority" => self.apply_priority(instruction, modifiers),
            "createpolicy" => self.create_policy(instruction, modifiers),
            "shfl" => self.shfl(instruction, modifiers),
            "vote" => self.vote(instruction, modifiers),
            "match" => self.match_sync(instruction, modifiers),
            "redux" => self.redux(instruction, modifiers),
            "cp" => self.cp(instruction, modifiers),
            "mbarrier" => self.mbarrier(instruction, modifiers),
            "mma" => self.mma(instruction, modifiers),
            "movmatrix" => self.transpose_matrix(instruction, modifiers),
            "ldmatrix" | "stmatrix" => self.move_matrix(instruction, modifiers),
            "elect" => self.elect(instruction, modifiers),
            "activemask" => self.activemask(instruction, modifiers),
            "bar" | "barrier" => self.barrier(instruction, modifiers),
            "membar" | "fence" => self.fence(instruction, modifiers),
            "nanosleep" => self.nanosleep(instruction, modifiers),
            "griddepcontrol" => self.grid_dependency(modifiers),
            "bra" => self.branch(instruction, modifiers),
            "brx" => self.branch_indexed(instruction, modifiers),
            "call" => self.call(instruction, modifiers),
            "ret" => self.plain(instruction, modifiers, Op::Ret),
            "exit" => self.plain(instruction, modifiers, Op::Exit),
            "trap" => self.plain(instruction, modifiers, Op::Trap),
            "brkpt" => self.plain(instruction, modifiers, Op::Breakpoint),
            _ => modifiers.error("unknown instruction"),
        }
    }

    fn plain(
        &mut self,
        instruction: &'a Instruction<'a>,
        mut modifiers: Modifiers<'a>,
        op: Op,
    ) -> Result<(), LoadError> {
        let uniform = matches!(op, Op::Ret) && modifiers.flag("uni");
        modifiers.finish()?;
        let [] = self.operands(instruction)?;
        match op {
            Op::Ret => self.emit_return(uniform),
            op => self.emit(op, ZERO_SLOT, NONE, Class::Branch),
        }
        Ok(())
    }

    fn branch(
        &mut self,
        instruction: &'a Instruction<'a>,
        mut modifiers: Modifiers<'a>,
    ) -> Result<(), LoadError> {
        let uniform = modifiers.flag("uni");
        modifiers.finish()?;
        let [Operand::Name(label)] = self.operands(instruction)? else {
            return modifiers.error("the target must be a label");
        };
        let op = Op::Branch {
            target: self.label(label)?,
        };
        self.emit_uni(op, NONE, uniform);
        Ok(())
    }

    fn branch_indexed(
        &mut self,
        instruction: &'a Instruction<'a>,
        mut modifiers: Modifiers<'a>,
    ) -> Result<(), LoadError> {
        if !modifiers.flag("idx") {
            return modifiers.error("needs `.idx`");
        }
        let uniform = modifiers.flag("uni");
        modifiers.finish()?;
        let [index, Operand::Name(list)] = self.operands(instruction)? else {
            return modifiers.error("expected an index and a target list");
        };
        let index = self.src(index, Type::U(32))?;
        let targets = self
            .targets(list)?
            .iter()
            .map(|label| self.label(label))
            .collect::<Result<Vec<_>, _>>()?;
        let table = self.out.branch_tables.len() as u32;
        self.out.branch_tables.push(targets);
        let src = [index, ZERO_SLOT, ZERO_SLOT, ZERO_SLOT];
        self.emit_uni(Op::BranchIndexed(table), src, uniform);
        Ok(())
    }

    /// `bar.warp.sync membermask`, or a barrier of the block: `bar` is `barrier` with `.aligned`.
    fn barrier(
        &mut self,
        instruction: &'a Instruction<'a>,
        mut modifiers: Modifiers<'a>,
    ) -> Result<(), LoadError> {
        let bar = instruction.opcode == "bar";
        if bar && modifiers.flag("warp") {
            if !modifiers.flag("sync") {
                return modifiers.error("needs `.sync`");
            }
            modifiers.finish()?;
            let [mask] = self.operands(instruction)?;
            let mask = self.src(mask, Type::B(32))?;
            let src = [mask, ZERO_SLOT, ZERO_SLOT, ZERO_SLOT];
            self.emit(Op::WarpSync, ZERO_SLOT, src, Class::Other);
            return Ok(());
        }
        modifiers.flag("cta");
        let aligned = bar || modifiers.flag("aligned");
        let operands = instruction.operands.as_slice();
        let mut dst = ZERO_SLOT;
        let (kind, numbers) = if modifiers.flag("red") {
            let [result, numbers @ .., src] = operands else {
                return modifiers.error("wrong number of operands");
            };
            let kind;
            (kind, dst) = self.barrier_reduction(&mut modifiers, result, src)?;
            (kind, numbers)
        } else if modifiers.flag("arrive") {
            (BarrierKind::Arrive, operands)
        } else if modifiers.flag("sync") {
            (BarrierKind::Sync, operands)
        } else {
            return modifiers.error("needs one of .sync .arrive .red");
        };
        modifiers.finish()?;
        let (number, count) = match numbers {
            [number] if kind != BarrierKind::Arrive => (number, None),
            [_, Operand::Number(Number::Integer(0))] if kind == BarrierKind::Arrive => {
                return modifiers.error("arrives for 0 threads");
            }
            // All threads of the block, as without a count.
            [number, Operand::Number(Number::Integer(0))] => (number, None),
            [number, count] => (number, Some(count)),
            _ => return modifiers.error("wrong number of operands"),
        };
        if let Some(Operand::Number(Number::Integer(count))) = count
            && !count.is_multiple_of(32)
        {
            return modifiers.error(format!("{count} threads is not a multiple of 32"));
        }
        let u32 = Type::U(32);
        let number = self.src_within(&modifiers, number, 0..=15, 1)?;
        let has_count = count.is_some();
        let count = match count {
            Some(count) => self.src(count, u32)?,
            None => ZERO_SLOT,
        };
        let op = Op::Barrier(BarrierOp {
            kind,
            has_count,
            aligned,
        });
        self.emit(op, dst, [number, count, ZERO_SLOT, ZERO_SLOT], Class::Other);
        Ok(())
    }

    /// `.red.popc.u32`, `.red.and.pred` and `.red.or.pred`: what it computes, and the row of the result where it is a number.
    fn barrier_reduction(
        &mut self,
        modifiers: &mut Modifiers<'a>,
        result: &'a Operand<'a>,
        src: &'a Operand<'a>,
    ) -> Result<(BarrierKind, Slot), LoadError> {
        let operations = [("popc", None), ("and", Some(true)), ("or", Some(false))];
        let and = modifiers.require("an operation", &operations)?;
        modifiers.ty_of(&[if and.is_some() {
            Type::Pred
        } else {
            Type::U(32)
        }])?;
        self.named(result)?;
        let src = self.pred(src)?;
        let Some(and) = and else {
            let dst = self.dst(result, Type::U(32))?;
            return Ok((BarrierKind::RedPopc { src }, dst));
        };
        let dst = self.pred_dst(result)?;
        let kind = if and {
            BarrierKind::RedAnd { dst, src }
        } else {
            BarrierKind::RedOr { dst, src }
        };
        Ok((kind, ZERO_SLOT))
    }

    /// Sleeping takes no time here.
    fn nanosleep(
        &mut self,
        instruction: &'a Instruction<'a>,
        mut modifiers: Modifiers<'a>,
    ) -> Result<(), LoadError> {
        modifiers.ty_of(&[Type::U(32)])?;
        modifiers.finish()?;
        let [time] = self.operands(instruction)?;
        let time = self.src(time, Type::U(32))?;
        let src = [time, ZERO_SLOT, ZERO_SLOT, ZERO_SLOT];
        self.emit(Op::Nop, ZERO_SLOT, src, Class::Other);
        Ok(())
    }

    /// `griddepcontrol`.
    fn grid_dependency(&mut self, mut modifiers: Modifiers<'a>) -> Result<(), LoadError> {
        let actions = [
            ("launch_dependents", GridDependency::LaunchDependents),
            ("wait", GridDependency::Wait),
        ];
        let action = modifiers.require("an action", &actions)?;
        modifiers.finish()?;
        self.out.waits |= action == GridDependency::Wait;
        self.emit(Op::GridDependency(action), ZERO_SLOT, NONE, Class::Other);
        Ok(())
    }
}
