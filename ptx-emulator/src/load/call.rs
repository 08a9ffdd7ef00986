//! Calls: what is called, and how arguments and results get there. They go through parameters of the frame; those that are
//! registers are moved there and back.

use super::function::FunctionBuilder;
use super::modifiers::Modifiers;
use super::scope::{Name, Register};
use super::variables::{size_and_align, variable_type};
use crate::error::LoadError;
use crate::isa::{
    Access, AccessSpace, Builtin, Call, CallTarget, Op, Ordering, ParamPlace, Scope, Slot, Type,
    ZERO_SLOT,
};
use crate::syntax::ast::{Instruction, Number, Operand, Variable};

/// What a call calls, and the bytes of what it passes.
struct Callee {
    target: CallTarget,
    /// Where the address is, of an indirect call.
    address: Slot,
    params: Vec<usize>,
    returns: Vec<usize>,
    noreturn: bool,
}

fn sizes(list: &[Variable<'_>]) -> Result<Vec<usize>, LoadError> {
    list.iter()
        .map(|param| size_and_align(param).map(|(size, _)| size))
        .collect()
}

/// A list in parentheses, where there is one, and what comes after it.
fn leading_list<'o, 'a>(operands: &'o [Operand<'a>]) -> (&'o [Operand<'a>], &'o [Operand<'a>]) {
    match operands {
        [Operand::List(list), rest @ ..] => (list, rest),
        all => (&[], all),
    }
}

impl<'a> FunctionBuilder<'a, '_> {
    /// `call{.uni} {(ret),} target{, (args)}{, list}`.
    pub(super) fn call(
        &mut self,
        instruction: &'a Instruction<'a>,
        mut modifiers: Modifiers<'a>,
    ) -> Result<(), LoadError> {
        let uniform = modifiers.flag("uni");
        modifiers.finish()?;
        let (results, rest) = leading_list(&instruction.operands);
        let [Operand::Name(target), rest @ ..] = rest else {
            return modifiers.error("expected the function to call");
        };
        let (arguments, rest) = leading_list(rest);
        let callee = self.callee(&modifiers, target, rest)?;
        if (arguments.len(), results.len()) != (callee.params.len(), callee.returns.len()) {
            return modifiers.error(format!(
                "`{target}` takes {} arguments and gives {} results, {} and {} were given",
                callee.params.len(),
                callee.returns.len(),
                arguments.len(),
                results.len()
            ));
        }
        let arguments = arguments
            .iter()
            .zip(&callee.params)
            .map(|(operand, &size)| self.argument(&modifiers, operand, size))
            .collect::<Result<Vec<_>, _>>()?;
        let mut registers = Vec::new();
        let results = results
            .iter()
            .zip(&callee.returns)
            .map(|(operand, &size)| {
                let (place, register) = self.call_result(&modifiers, operand, size)?;
                registers.extend(register.map(|slot| (place, slot)));
                Ok(place)
            })
            .collect::<Result<Vec<_>, LoadError>>()?;
        let index = self.out.calls.len() as u32;
        self.out.calls.push(Call {
            target: callee.target,
            arguments,
            results,
            noreturn: callee.noreturn,
        });
        let src = [callee.address, ZERO_SLOT, ZERO_SLOT, ZERO_SLOT];
        self.emit_uni(Op::Call(index), src, uniform);
        for (place, slot) in registers {
            self.load_param(place, slot);
        }
        Ok(())
    }

    /// A function by its name, or by its address and the list or prototype that comes last.
    fn callee(
        &mut self,
        modifiers: &Modifiers<'_>,
        target: &'a str,
        rest: &[Operand<'a>],
    ) -> Result<Callee, LoadError> {
        if let Some(signature) = self.module.function(target).cloned() {
            let shape = (&signature.params[..], &signature.returns[..]);
            let target = match signature.index {
                Some(index) => {
                    self.out.callees.push(index);
                    CallTarget::Function(index)
                }
                None if target == "__assertfail" && shape == (&[8, 8, 4, 8, 8], &[]) => {
                    CallTarget::Builtin(Builtin::AssertFail)
                }
                None if target == "vprintf" && shape == (&[8, 8], &[4]) => {
                    CallTarget::Builtin(Builtin::Vprintf)
                }
                None => CallTarget::Undefined,
            };
            return Ok(Callee {
                target,
                address: ZERO_SLOT,
                params: signature.params,
                returns: signature.returns,
                noreturn: signature.noreturn,
            });
        }
        let address = self.src(&Operand::Name(target), Type::U(64))?;
        let [Operand::Name(list)] = rest else {
            return modifiers.error("an indirect call needs a list or prototype");
        };
        if let Some(prototype) = self.prototype(list) {
            // It says nothing about which functions there are: sizes are compared when one is called.
            return Ok(Callee {
                target: CallTarget::Indirect(Vec::new()),
                address,
                params: sizes(&prototype.params)?,
                returns: sizes(&prototype.returns)?,
                noreturn: prototype.noreturn,
            });
        }
        let mut indices = Vec::new();
        let mut shape = None;
        for name in self.targets(list)? {
            let Some((index, signature)) = self
                .module
                .function(name)
                .and_then(|known| Some((known.index?, known)))
            else {
                return modifiers.error(format!("no function `{name}`"));
            };
            let own = (signature.params.clone(), signature.returns.clone());
            if *shape.get_or_insert_with(|| own.clone()) != own {
                return modifiers.error(format!(
                    "the functions of `{list}` differ in what they take"
                ));
            }
            indices.push(index);
        }
        self.out.callees.extend(&indices);
        let (params, returns) = shape.unwrap_or_default();
        Ok(Callee {
            target: CallTarget::Indirect(indices),
            address,
            params,
            returns,
            noreturn: false,
        })
    }

    /// The `.param` variable of the frame that an operand names.
    fn param_operand(
        &self,
        modifiers: &Modifiers<'_>,
        operand: &Operand<'a>,
        size: usize,
    ) -> Result<Option<ParamPlace>, LoadError> {
        let Operand::Name(name) = operand else {
            return Ok(None);
        };
        match self.lookup(name) {
            Some(Name::Param { kernel: true, .. }) => modifiers.error(format!(
                "`{name}` is a parameter of the kernel: load it first"
            )),
            Some(Name::Param { place, .. }) if place.size as usize != size => {
                modifiers.error(format!(
                    "`{name}` has {} bytes, the function's parameter {size}",
                    place.size
                ))
            }
            Some(Name::Param { place, .. }) => Ok(Some(place)),
            _ => Ok(None),
        }
    }

    /// The `.bN` type that holds a parameter of `size` bytes, if a register can.
    fn register_type(modifiers: &Modifiers<'_>, size: usize) -> Result<Type, LoadError> {
        match size {
            1 | 2 | 4 | 8 => Ok(Type::B(8 * size as u8)),
            _ => modifiers.error(format!("no register holds a parameter of {size} bytes")),
        }
    }

    fn argument(
        &mut self,
        modifiers: &Modifiers<'_>,
        operand: &Operand<'a>,
        size: usize,
    ) -> Result<ParamPlace, LoadError> {
        if let Some(place) = self.param_operand(modifiers, operand, size)? {
            return Ok(place);
        }
        let ty = match operand {
            Operand::Number(Number::F32(_) | Number::F64(_)) if size == 4 => Type::F32,
            Operand::Number(Number::F32(_) | Number::F64(_)) if size == 8 => Type::F64,
            Operand::Number(Number::Integer(_)) => Self::register_type(modifiers, size)?,
            Operand::Name(name) if self.register(name).is_some() => {
                Self::register_type(modifiers, size)?
            }
            _ => {
                return modifiers.error(format!(
                    "an argument of {size} bytes is a `.param` variable, a register or a number"
                ));
            }
        };
        let slot = self.src(operand, ty)?;
        let place = self.param_place(size, size, self.line)?;
        self.store_param(place, slot);
        Ok(place)
    }

    /// Where a result goes, and the register that it is moved to from there.
    fn call_result(
        &mut self,
        modifiers: &Modifiers<'_>,
        operand: &Operand<'a>,
        size: usize,
    ) -> Result<(ParamPlace, Option<Slot>), LoadError> {
        if let Some(place) = self.param_operand(modifiers, operand, size)? {
            return Ok((place, None));
        }
        if let Operand::Name("_") = operand {
            return Ok((self.param_place(size, 1, self.line)?, None));
        }
        let slot = self.dst(operand, Self::register_type(modifiers, size)?)?;
        Ok((self.param_place(size, size, self.line)?, Some(slot)))
    }

    /// A parameter that the function declares as a register, or a result.
    pub(super) fn register_param(
        &mut self,
        variable: &Variable<'a>,
        result: bool,
    ) -> Result<ParamPlace, LoadError> {
        if variable.vector != 1 || !variable.dims.is_empty() || variable.count.is_some() {
            return Err(LoadError::new(
                variable.line,
                format!("`{}`: a parameter is one register", variable.name),
            ));
        }
        let (size, _) = size_and_align(variable)?;
        let place = self.param_place(size, size, variable.line)?;
        let ty = variable_type(variable)?;
        self.declare(variable.name, Name::Register { ty })?;
        if let Some(Register::Row(slot, _)) = self.register(variable.name) {
            if result {
                self.results.push((place, slot));
            } else {
                self.load_param(place, slot);
            }
        }
        Ok(place)
    }

    /// `ret`, after results that are registers were moved to where the caller looks for them.
    pub(super) fn emit_return(&mut self, uniform: bool) {
        for (place, slot) in self.results.clone() {
            self.store_param(place, slot);
        }
        self.emit_uni(Op::Ret, [ZERO_SLOT; 4], uniform);
    }

    fn load_param(&mut self, place: ParamPlace, slot: Slot) {
        self.move_param(place, slot, 8 * place.size as u8);
    }

    fn store_param(&mut self, place: ParamPlace, slot: Slot) {
        self.move_param(place, slot, 0);
    }

    /// `ld.param` to a register of so many bits, or `st.param` where they are 0.
    fn move_param(&mut self, place: ParamPlace, slot: Slot, register_bits: u8) {
        let access = Access {
            space: AccessSpace::FrameParam,
            offset: place.offset.into(),
            bytes: place.size as u8,
            signed: false,
            elements: vec![slot],
            results: Vec::new(),
            register_bits,
            used_bytes: u32::MAX,
            ordering: Ordering::Weak,
            scope: Scope::Device,
            non_coherent: false,
            atomic: None,
        };
        self.emit_access(access, ZERO_SLOT, ZERO_SLOT, [ZERO_SLOT; 3]);
    }
}
