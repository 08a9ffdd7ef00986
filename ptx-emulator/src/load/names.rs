//! Names of module scope while functions are decoded, and the bytes of initialised variables.

use std::collections::HashMap;

use super::variables::{
    Initial, ModuleVariable, VariableKind, align_up, size_and_align, variable_type,
};
use crate::error::LoadError;
use crate::isa::{Constant, Type};
use crate::syntax::ast::{self, Init, Number, VariableSpace};

/// Names of module scope while functions are decoded.
#[derive(Default)]
pub(super) struct ModuleBuilder<'a> {
    variables: Vec<ModuleVariable>,
    names: HashMap<&'a str, u32>,
    functions: HashMap<&'a str, FunctionSignature>,
    /// Bytes of constants so far.
    constant_bytes: usize,
}

/// Bytes of constants that a module can have.
const MOST_CONSTANT: usize = 64 << 10;

/// What a call needs to know.
#[derive(Debug, Clone)]
pub(super) struct FunctionSignature {
    /// Index among the functions with a body.
    pub(super) index: Option<u32>,
    pub(super) params: Vec<usize>,
    pub(super) returns: Vec<usize>,
    pub(super) noreturn: bool,
}

impl<'a> ModuleBuilder<'a> {
    pub(super) fn declare(&mut self, tree: &'a ast::Source<'a>) -> Result<(), LoadError> {
        let mut defined = 0;
        for function in &tree.functions {
            let sizes = |list: &[ast::Variable<'_>]| {
                list.iter()
                    .map(|param| size_and_align(param).map(|(size, _)| size))
                    .collect::<Result<Vec<_>, _>>()
            };
            let index = function.body.is_some().then(|| {
                defined += 1;
                defined - 1
            });
            let signature = FunctionSignature {
                index,
                params: sizes(&function.params)?,
                returns: sizes(&function.returns)?,
                noreturn: function.noreturn,
            };
            match self.functions.get(function.name) {
                Some(known) if known.index.is_some() && index.is_some() => {
                    return Err(LoadError::new(
                        function.line,
                        format!("function `{}` is defined twice", function.name),
                    ));
                }
                Some(known) if known.index.is_some() => {}
                _ => {
                    self.functions.insert(function.name, signature);
                }
            }
        }
        // Names first: an initialiser may refer to any variable, its own included.
        for variable in &tree.variables {
            if self.names.contains_key(variable.name) {
                continue;
            }
            self.names
                .insert(variable.name, self.variables.len() as u32);
            self.variables.push(ModuleVariable {
                name: variable.name.to_owned(),
                kind: VariableKind::Undefined,
                size: 0,
                align: 1,
                bytes: Vec::new(),
                addresses: Vec::new(),
            });
        }
        for variable in &tree.variables {
            let index = self.names[variable.name] as usize;
            let known = self.variables[index].kind;
            if known == VariableKind::Undefined || known == VariableKind::DynamicShared {
                let made = self.memory_variable(variable)?;
                self.count_constant(&made, variable.line)?;
                self.variables[index] = made;
            } else if !variable.external {
                return Err(LoadError::new(
                    variable.line,
                    format!("`{}` is defined twice", variable.name),
                ));
            }
        }
        for variable in &tree.variables {
            let index = self.names[variable.name] as usize;
            self.check_addresses(&self.variables[index], variable.line)?;
        }
        Ok(())
    }

    /// Refuses an initialiser with the address of something that has none while a module is loaded.
    fn check_addresses(&self, made: &ModuleVariable, line: usize) -> Result<(), LoadError> {
        for initial in &made.addresses {
            let Constant::Variable { index, .. } = initial.symbol else {
                continue;
            };
            let symbol = &self.variables[index as usize];
            let reason = match symbol.kind {
                VariableKind::Global | VariableKind::Const => continue,
                VariableKind::Undefined => "which the module declares but does not define",
                VariableKind::Shared | VariableKind::DynamicShared => {
                    "which is in shared memory: that has addresses in a kernel only"
                }
            };
            return Err(LoadError::new(
                line,
                format!(
                    "`{}`: the initialiser has the address of `{}`, {reason}",
                    made.name, symbol.name
                ),
            ));
        }
        Ok(())
    }

    pub(super) fn into_variables(self) -> Vec<ModuleVariable> {
        self.variables
    }

    /// A variable declared inside a function.
    pub(super) fn variable(&mut self, variable: &ast::Variable<'a>) -> Result<u32, LoadError> {
        let made = self.memory_variable(variable)?;
        self.check_addresses(&made, variable.line)?;
        self.count_constant(&made, variable.line)?;
        self.variables.push(made);
        Ok(self.variables.len() as u32 - 1)
    }

    /// Adds a variable to the constants, if it is one, and refuses it if they become too many.
    fn count_constant(&mut self, made: &ModuleVariable, line: usize) -> Result<(), LoadError> {
        if made.kind != VariableKind::Const {
            return Ok(());
        }
        self.constant_bytes = align_up(self.constant_bytes, made.align) + made.size;
        if self.constant_bytes <= MOST_CONSTANT {
            return Ok(());
        }
        Err(LoadError::new(
            line,
            format!(
                "`{}`: the module's constants are {} bytes up to here, and can be {MOST_CONSTANT}: put some in `.global`",
                made.name, self.constant_bytes
            ),
        ))
    }

    pub(super) fn variable_named(&self, name: &str) -> Option<u32> {
        self.names.get(name).copied()
    }

    pub(super) fn kind(&self, index: u32) -> VariableKind {
        self.variables[index as usize].kind
    }

    pub(super) fn function(&self, name: &str) -> Option<&FunctionSignature> {
        self.functions.get(name)
    }

    fn memory_variable(&self, variable: &ast::Variable<'_>) -> Result<ModuleVariable, LoadError> {
        let (size, align) = size_and_align(variable)?;
        let open = variable.dims.first() == Some(&None) && variable.init.is_none();
        let kind = match (variable.space, variable.external || open) {
            (VariableSpace::Shared, true) if open => VariableKind::DynamicShared,
            (VariableSpace::Shared, _) => VariableKind::Shared,
            (_, true) => VariableKind::Undefined,
            (VariableSpace::Const, false) => VariableKind::Const,
            _ => VariableKind::Global,
        };
        let mut made = ModuleVariable {
            name: variable.name.to_owned(),
            kind,
            size,
            align,
            bytes: Vec::new(),
            addresses: Vec::new(),
        };
        if let Some(init) = &variable.init {
            if !matches!(kind, VariableKind::Global | VariableKind::Const) {
                return Err(LoadError::new(
                    variable.line,
                    format!("`{}` cannot have an initialiser", variable.name),
                ));
            }
            let ty = variable_type(variable)?;
            let stride: Vec<usize> = (0..variable.dims.len())
                .map(|axis| {
                    variable.dims[axis + 1..]
                        .iter()
                        .map(|dim| dim.unwrap_or(0) as usize)
                        .product::<usize>()
                        * usize::from(ty.bits() / 8)
                        * variable.vector
                })
                .collect();
            made.bytes = vec![0; size];
            self.initialize(variable, ty, &stride, init, 0, &mut made)?;
        }
        Ok(made)
    }

    /// Puts an initialiser at byte `at`; `stride` holds the bytes from one element to the next, outermost first.
    fn initialize(
        &self,
        variable: &ast::Variable<'_>,
        ty: Type,
        stride: &[usize],
        init: &Init<'_>,
        at: usize,
        made: &mut ModuleVariable,
    ) -> Result<(), LoadError> {
        let error = |message: String| {
            Err(LoadError::new(
                variable.line,
                format!("`{}`: {message}", variable.name),
            ))
        };
        let width = usize::from(ty.bits() / 8);
        match init {
            Init::List(list) => {
                let (step, inner) = match stride.split_first() {
                    Some((&step, inner)) => (step, inner),
                    None => (width, stride),
                };
                for (index, item) in list.iter().enumerate() {
                    self.initialize(variable, ty, inner, item, at + index * step, made)?;
                }
                Ok(())
            }
            _ if at + width > made.bytes.len() => {
                error("the initialiser is longer than the variable".into())
            }
            Init::Number(number) => {
                let bits = match (*number, ty) {
                    (Number::Integer(value), Type::F32 | Type::F64) => {
                        return error(format!("{value} is not a float"));
                    }
                    (number, ty) => super::operand::literal_bits(number, ty),
                };
                made.bytes[at..at + width].copy_from_slice(&bits.to_le_bytes()[..width]);
                Ok(())
            }
            Init::Symbol {
                name,
                offset,
                generic,
                mask,
            } => {
                let symbol = if let Some(index) = self.variable_named(name) {
                    Constant::Variable {
                        index,
                        offset: *offset,
                        generic: *generic,
                    }
                } else if let Some(index) = self.function(name).and_then(|known| known.index) {
                    Constant::Function(index)
                } else {
                    return error(format!("no symbol `{name}`"));
                };
                made.addresses.push(Initial {
                    at,
                    size: width,
                    symbol,
                    mask: *mask,
                });
                Ok(())
            }
        }
    }
}
