//! One function's statements to decoded instructions.

use std::collections::HashMap;

use super::names::ModuleBuilder;
use super::scope::{Name, Register, Scope};
use super::variables::{align_up, param_layout, size_and_align, variable_type};
use crate::error::LoadError;
use crate::isa::{
    Access, AsyncOp, Call, Class, Constant, Elements, Inst, MatrixMove, Mma, Op, ParamPlace, Pred,
    PredSlot, SINK_PRED, SINK_SLOT, Slot, Video, ZERO_SLOT,
};
use crate::syntax::ast::{self, Operand, Statement, VariableSpace};

/// A decoded function.
#[derive(Debug)]
pub(crate) struct Function {
    pub(crate) code: Vec<Inst>,
    /// PTX line of each instruction.
    pub(crate) lines: Vec<u32>,
    /// `.loc` file and line of each instruction; file 0 where there is none.
    pub(crate) locations: Vec<(u32, u32)>,
    pub(crate) classes: Vec<Class>,
    /// Whether an instruction has `.uni`: the lanes that come to it go on together.
    pub(crate) uniform: Vec<bool>,
    /// Where lanes that part at a branch meet again; [`NO_JOIN`] where they meet only at the end.
    pub(crate) joins: Vec<u32>,
    pub(crate) accesses: Vec<Access>,
    pub(crate) asyncs: Vec<AsyncOp>,
    pub(crate) mmas: Vec<Mma>,
    pub(crate) videos: Vec<Video>,
    pub(crate) matrix_moves: Vec<MatrixMove>,
    /// Operands of instructions that have more than fit.
    pub(crate) pool: Vec<Slot>,
    pub(crate) branch_tables: Vec<Vec<u32>>,
    pub(crate) calls: Vec<Call>,
    pub(crate) constants: Vec<(Slot, Constant)>,
    pub(crate) slots: usize,
    pub(crate) preds: usize,
    pub(crate) slot_names: HashMap<Slot, String>,
    pub(crate) pred_names: HashMap<PredSlot, String>,
    pub(crate) params: Vec<ParamPlace>,
    pub(crate) returns: Vec<ParamPlace>,
    /// Bytes a lane of the parameter area, which holds own parameters, results and those of calls.
    pub(crate) param_bytes: u32,
    /// Bytes a lane of local memory, and what they are aligned to.
    pub(crate) local_bytes: u32,
    pub(crate) local_align: u32,
    /// Parameters whose address is taken, and where in local memory a call puts them.
    pub(crate) stacked: Vec<(ParamPlace, u32)>,
    /// Whether the function can change what other blocks see, other than by plain stores.
    pub(crate) strong: bool,
    /// Whether it has `griddepcontrol.wait`.
    pub(crate) waits: bool,
    /// Functions called by name.
    pub(crate) callees: Vec<u32>,
}

impl Function {
    /// What a row is packed from, or goes to.
    pub(crate) fn elements(&self, elements: Elements) -> &[Slot] {
        &self.pool[elements.pool as usize..][..usize::from(elements.count)]
    }
}

/// No reconvergence point before the function ends.
pub(crate) const NO_JOIN: u32 = u32::MAX;

pub(super) struct FunctionBuilder<'a, 'm> {
    pub(super) module: &'m mut ModuleBuilder<'a>,
    pub(super) out: Function,
    pub(super) line: usize,
    pub(super) guard: Pred,
    pub(super) scopes: Vec<Scope<'a>>,
    constant_slots: HashMap<Constant, Slot>,
    /// Program counter of each label, once it is known.
    label_targets: Vec<u32>,
    /// Results that the function declares as registers, and where they go when it returns.
    pub(super) results: Vec<(ParamPlace, Slot)>,
    location: (u32, u32),
    /// It is a kernel.
    pub(super) entry: bool,
    /// The bytes of what the next instruction loads that matter.
    pub(super) used_bytes: u32,
}

impl<'a, 'm> FunctionBuilder<'a, 'm> {
    pub(super) fn build(
        module: &'m mut ModuleBuilder<'a>,
        function: &'a ast::Function<'a>,
        body: &'a [Statement<'a>],
    ) -> Result<Function, LoadError> {
        let mut builder = Self {
            module,
            out: Function {
                code: Vec::new(),
                lines: Vec::new(),
                locations: Vec::new(),
                classes: Vec::new(),
                uniform: Vec::new(),
                joins: Vec::new(),
                accesses: Vec::new(),
                asyncs: Vec::new(),
                mmas: Vec::new(),
                videos: Vec::new(),
                matrix_moves: Vec::new(),
                pool: Vec::new(),
                branch_tables: Vec::new(),
                calls: Vec::new(),
                constants: vec![(ZERO_SLOT, Constant::Value(0))],
                slots: SINK_SLOT as usize + 1,
                preds: SINK_PRED as usize + 1,
                slot_names: HashMap::new(),
                pred_names: HashMap::new(),
                params: Vec::new(),
                returns: Vec::new(),
                param_bytes: 0,
                local_bytes: 0,
                local_align: 1,
                stacked: Vec::new(),
                strong: false,
                waits: false,
                callees: Vec::new(),
            },
            line: function.line,
            guard: Pred::TRUE,
            scopes: vec![Scope::default()],
            constant_slots: HashMap::from([(Constant::Value(0), ZERO_SLOT)]),
            label_targets: Vec::new(),
            results: Vec::new(),
            location: (0, 0),
            entry: function.entry,
            used_bytes: u32::MAX,
        };
        builder.declare_params(function)?;
        builder.statements(body)?;
        // Falling off the end returns.
        builder.guard = Pred::TRUE;
        builder.emit_return(false);
        builder.resolve_labels()?;
        super::cas_loop::relax_first_reads(&mut builder.out);
        builder.out.joins = super::control_flow::reconvergence(&builder.out);
        Ok(builder.out)
    }

    fn declare_params(&mut self, function: &ast::Function<'a>) -> Result<(), LoadError> {
        if function.entry {
            if let Some(param) = function
                .params
                .iter()
                .find(|param| param.space == VariableSpace::Reg)
            {
                return Err(LoadError::new(
                    param.line,
                    format!("`{}`: parameters of kernels are `.param`", param.name),
                ));
            }
            let (places, _) = param_layout(&function.params)?;
            for (param, place) in function.params.iter().zip(places) {
                self.declare(
                    param.name,
                    Name::Param {
                        place,
                        kernel: true,
                    },
                )?;
            }
            return Ok(());
        }
        for (list, returns) in [(&function.params, false), (&function.returns, true)] {
            for param in list {
                let place = if param.space == VariableSpace::Reg {
                    self.register_param(param, returns)?
                } else {
                    self.frame_param(param)?
                };
                if returns {
                    self.out.returns.push(place);
                } else {
                    self.out.params.push(place);
                }
            }
        }
        Ok(())
    }

    /// Declares a `.param` variable of the frame.
    fn frame_param(&mut self, variable: &ast::Variable<'a>) -> Result<ParamPlace, LoadError> {
        let (size, align) = size_and_align(variable)?;
        let place = self.param_place(size, align, variable.line)?;
        self.declare(
            variable.name,
            Name::Param {
                place,
                kernel: false,
            },
        )?;
        Ok(place)
    }

    /// Room among the parameters of the frame.
    pub(super) fn param_place(
        &mut self,
        size: usize,
        align: usize,
        line: usize,
    ) -> Result<ParamPlace, LoadError> {
        let offset = align_up(self.out.param_bytes as usize, align.max(8));
        if offset + size > 1 << 16 {
            return Err(LoadError::new(line, "parameters take more than 64 KiB"));
        }
        self.out.param_bytes = (offset + size) as u32;
        Ok(ParamPlace {
            offset: offset as u32,
            size: size as u32,
        })
    }

    pub(super) fn error<T>(&self, message: impl Into<String>) -> Result<T, LoadError> {
        Err(LoadError::new(self.line, message))
    }

    fn statements(&mut self, body: &'a [Statement<'a>]) -> Result<(), LoadError> {
        // Labels may be used before they are defined.
        for statement in body {
            match statement {
                Statement::Label(name) => {
                    let id = self.label_targets.len() as u32;
                    self.label_targets.push(u32::MAX);
                    if self.scope().labels.insert(name, id).is_some() {
                        return self.error(format!("label `{name}` is defined twice"));
                    }
                }
                Statement::Targets { name, targets } => {
                    self.scope().targets.insert(name, targets);
                }
                Statement::Prototype { name, prototype } => {
                    self.scope().prototypes.insert(name, prototype);
                }
                _ => {}
            }
        }
        for statement in body {
            match statement {
                Statement::Label(name) => {
                    let id = self.scope().labels[name];
                    self.label_targets[id as usize] = self.out.code.len() as u32;
                }
                Statement::Instruction(instruction) => {
                    self.line = instruction.line;
                    self.guard = match instruction.guard {
                        None => Pred::TRUE,
                        Some((name, false)) => self.pred_or_special(&Operand::Name(name))?,
                        Some((name, true)) => self.pred_or_special(&Operand::Not(name))?,
                    };
                    self.instruction(instruction)?;
                    self.used_bytes = u32::MAX;
                }
                Statement::UsedBytes(mask) => self.used_bytes = *mask,
                Statement::Variable(variable) => self.variable(variable)?,
                Statement::Block(inner) => {
                    self.scopes.push(Scope::default());
                    self.statements(inner)?;
                    self.scopes.pop();
                }
                Statement::Location { file, line } => {
                    self.location = (
                        u32::try_from(*file).unwrap_or(0),
                        u32::try_from(*line).unwrap_or(0),
                    );
                }
                Statement::Targets { .. } | Statement::Prototype { .. } => {}
            }
        }
        Ok(())
    }

    /// Room in local memory.
    pub(super) fn local_place(&mut self, size: usize, align: usize) -> Result<u32, LoadError> {
        let offset = align_up(self.out.local_bytes as usize, align);
        if offset + size > 512 << 10 {
            return self.error("local memory of a thread is at most 512 KiB");
        }
        self.out.local_bytes = (offset + size) as u32;
        self.out.local_align = self.out.local_align.max(align as u32);
        Ok(offset as u32)
    }

    fn variable(&mut self, variable: &'a ast::Variable<'a>) -> Result<(), LoadError> {
        self.line = variable.line;
        match variable.space {
            VariableSpace::Reg => {
                let ty = variable_type(variable)?;
                if variable.vector != 1 || !variable.dims.is_empty() {
                    return self.error("vector registers are not supported");
                }
                match variable.count {
                    Some(count) => self.declare_range(variable.name, ty, count)?,
                    None => self.declare(variable.name, Name::Register { ty })?,
                }
            }
            VariableSpace::Param => {
                self.frame_param(variable)?;
            }
            VariableSpace::Local => {
                let (size, align) = size_and_align(variable)?;
                let offset = self.local_place(size, align)?;
                self.declare(variable.name, Name::Local { offset })?;
            }
            VariableSpace::Shared | VariableSpace::Global | VariableSpace::Const => {
                let index = self.module.variable(variable)?;
                self.declare(variable.name, Name::Variable(index))?;
            }
        }
        Ok(())
    }

    pub(super) fn new_slot(&mut self) -> Slot {
        let slot = self.out.slots as Slot;
        self.out.slots += 1;
        slot
    }

    pub(super) fn pred_slot(&mut self, name: &'a str) -> Result<PredSlot, LoadError> {
        match self.register(name) {
            Some(Register::Pred(slot)) if usize::from(slot) + 1 < usize::from(PredSlot::MAX) => {
                Ok(slot)
            }
            Some(Register::Pred(_)) => self.error("too many predicates"),
            _ => self.error(format!("`{name}` is not a predicate register")),
        }
    }

    pub(super) fn constant(&mut self, constant: Constant) -> Slot {
        if let Some(&slot) = self.constant_slots.get(&constant) {
            return slot;
        }
        let slot = self.new_slot();
        self.constant_slots.insert(constant, slot);
        self.out.constants.push((slot, constant));
        slot
    }

    pub(super) fn emit(&mut self, op: Op, dst: Slot, src: [Slot; 4], class: Class) {
        self.out.code.push(Inst {
            op,
            guard: self.guard,
            dst,
            src,
        });
        self.out.lines.push(self.line as u32);
        self.out.locations.push(self.location);
        self.out.classes.push(class);
        self.out.uniform.push(false);
    }

    /// Emits an instruction that may have `.uni`.
    pub(super) fn emit_uni(&mut self, op: Op, src: [Slot; 4], uniform: bool) {
        self.emit(op, ZERO_SLOT, src, Class::Branch);
        let last = self.out.uniform.last_mut();
        *last.expect("the instruction that was just emitted") = uniform;
    }

    /// Labels become program counters.
    fn resolve_labels(&mut self) -> Result<(), LoadError> {
        let resolve = |id: &mut u32| *id = self.label_targets[*id as usize];
        for inst in &mut self.out.code {
            if let Op::Branch { target } = &mut inst.op {
                resolve(target);
            }
        }
        self.out
            .branch_tables
            .iter_mut()
            .flatten()
            .for_each(resolve);
        Ok(())
    }
}
