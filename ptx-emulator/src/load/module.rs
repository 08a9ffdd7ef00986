//! A module: its functions, variables and entries.

use std::collections::HashMap;

use super::function::{Function, FunctionBuilder};
use crate::error::LoadError;
use crate::isa::{CallTarget, Constant, ParamPlace, Type};
use crate::syntax::ast::{self, Init, Number, VariableSpace};

/// A parsed and decoded PTX module. It belongs to no device, and can be loaded on many.
#[derive(Debug)]
pub struct Module {
    version: (u32, u32),
    target: u32,
    entries: Vec<EntryInfo>,
    pub(crate) functions: Vec<Function>,
    pub(crate) variables: Vec<ModuleVariable>,
    /// The PTX text by line, for messages.
    source: Vec<String>,
    files: HashMap<u32, String>,
    /// Functions that an indirect call may reach.
    address_taken: Vec<u32>,
}

/// What a launch must know about an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryInfo {
    /// Its name.
    pub name: String,
    /// Its parameters, in order.
    pub params: Vec<ParamInfo>,
    /// `.maxntid` or `.reqntid`: most threads a block.
    pub max_threads: Option<[u32; 3]>,
    /// `.reqntid`: the exact shape of a block.
    pub required_threads: Option<[u32; 3]>,
    /// Bytes of static shared memory, of device functions that the entry calls as well.
    pub static_shared: usize,
    /// Line of the PTX text.
    pub line: usize,
    pub(crate) function: u32,
}

/// One kernel parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParamInfo {
    /// Its name in the PTX.
    pub name: String,
    /// Its size in bytes.
    pub size: usize,
    /// Its alignment in bytes.
    pub align: usize,
}

/// A variable of module scope, or a `.shared` one of a function.
#[derive(Debug)]
pub(crate) struct ModuleVariable {
    pub(crate) name: String,
    pub(crate) kind: VariableKind,
    pub(crate) size: usize,
    pub(crate) align: usize,
    /// Bytes at start, and addresses to be put there.
    pub(crate) bytes: Vec<u8>,
    pub(crate) addresses: Vec<Initial>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum VariableKind {
    Global,
    Const,
    Shared,
    /// `.extern .shared x[]`: starts where static shared memory ends.
    DynamicShared,
    /// Declared, but not defined.
    Undefined,
}

/// An address within an initialiser.
#[derive(Debug, Clone)]
pub(crate) struct Initial {
    pub(crate) at: usize,
    pub(crate) size: usize,
    pub(crate) symbol: Constant,
    pub(crate) mask: Option<u64>,
}

impl Module {
    /// Parses and checks PTX text.
    ///
    /// # Errors
    ///
    /// Text that is not PTX, or uses an instruction, modifier or directive that the emulator does not know. The
    /// error names it, and its line.
    pub fn parse(source: &str) -> Result<Self, LoadError> {
        let tree = crate::syntax::parse(source)?;
        let digits: String = tree
            .target
            .strip_prefix("sm_")
            .unwrap_or_default()
            .trim_end_matches(['a', 'f'])
            .to_owned();
        let Ok(target) = digits.parse() else {
            return Err(LoadError::new(
                0,
                format!("`.target {}` is not an `sm_NN`", tree.target),
            ));
        };
        let mut builder = ModuleBuilder::default();
        builder.declare(&tree)?;
        let mut functions = Vec::new();
        let mut entries = Vec::new();
        for function in &tree.functions {
            let Some(body) = &function.body else {
                continue;
            };
            let index = functions.len() as u32;
            functions.push(FunctionBuilder::build(&mut builder, function, body)?);
            if function.entry {
                entries.push(entry_info(function, index)?);
            }
        }
        let mut module = Self {
            version: tree.version,
            target,
            entries,
            functions,
            variables: builder.variables,
            source: source.lines().map(|line| line.trim().to_owned()).collect(),
            files: tree
                .files
                .iter()
                .map(|&(number, name)| (number as u32, name.to_owned()))
                .collect(),
            address_taken: Vec::new(),
        };
        module.address_taken = module.find_addresses();
        for index in 0..module.entries.len() {
            let function = module.entries[index].function;
            module.entries[index].static_shared = module.shared_layout(function).1;
        }
        Ok(module)
    }

    /// The architecture in `.target`: 90 for `sm_90`.
    pub fn target(&self) -> u32 {
        self.target
    }

    /// Major and minor number in `.version`.
    pub fn ptx_version(&self) -> (u32, u32) {
        self.version
    }

    /// The kernels, in the order of the text.
    pub fn entries(&self) -> impl Iterator<Item = &EntryInfo> {
        self.entries.iter()
    }

    /// The kernel of that name.
    pub fn entry(&self, name: &str) -> Option<&EntryInfo> {
        self.entries.iter().find(|entry| entry.name == name)
    }

    /// A line of the PTX text, without surrounding blanks.
    pub(crate) fn text(&self, line: usize) -> &str {
        line.checked_sub(1)
            .and_then(|index| self.source.get(index))
            .map_or("", String::as_str)
    }

    pub(crate) fn file(&self, number: u32) -> Option<&str> {
        self.files.get(&number).map(String::as_str)
    }

    /// Functions whose address is in a variable or a register.
    fn find_addresses(&self) -> Vec<u32> {
        let initials = self
            .variables
            .iter()
            .flat_map(|variable| &variable.addresses)
            .map(|initial| initial.symbol);
        let constants = self
            .functions
            .iter()
            .flat_map(|function| &function.constants)
            .map(|&(_, constant)| constant);
        let mut taken: Vec<u32> = initials
            .chain(constants)
            .filter_map(|constant| match constant {
                Constant::Function(index) => Some(index),
                _ => None,
            })
            .collect();
        taken.sort_unstable();
        taken.dedup();
        taken
    }

    /// The functions that a function may call, itself included.
    pub(crate) fn reachable(&self, function: u32) -> Vec<u32> {
        let mut reached = vec![function];
        let mut at = 0;
        while at < reached.len() {
            let current = &self.functions[reached[at] as usize];
            let anywhere = current.calls.iter().any(
                |call| matches!(&call.target, CallTarget::Indirect(known) if known.is_empty()),
            );
            let taken: &[u32] = if anywhere { &self.address_taken } else { &[] };
            for &callee in current.callees.iter().chain(taken) {
                if !reached.contains(&callee) {
                    reached.push(callee);
                }
            }
            at += 1;
        }
        reached
    }

    /// Shared address of each `.shared` variable that a kernel can reach, and the bytes that the static ones take.
    pub(crate) fn shared_layout(&self, entry: u32) -> (HashMap<u32, u64>, usize) {
        let mut used: Vec<u32> = self
            .reachable(entry)
            .iter()
            .flat_map(|&function| &self.functions[function as usize].constants)
            .filter_map(|(_, constant)| match constant {
                Constant::Variable { index, .. } => Some(*index),
                _ => None,
            })
            .collect();
        used.sort_unstable();
        used.dedup();
        let mut layout = HashMap::new();
        let mut end = 0;
        let mut dynamic_align = 1;
        for &index in &used {
            let variable = &self.variables[index as usize];
            match variable.kind {
                VariableKind::Shared => {
                    let start = align_up(end, variable.align);
                    layout.insert(index, start as u64);
                    end = start + variable.size;
                }
                VariableKind::DynamicShared => dynamic_align = dynamic_align.max(variable.align),
                _ => {}
            }
        }
        let dynamic = align_up(end, dynamic_align);
        let mut has_dynamic = false;
        for &index in &used {
            if self.variables[index as usize].kind == VariableKind::DynamicShared {
                layout.insert(index, dynamic as u64);
                has_dynamic = true;
            }
        }
        (layout, if has_dynamic { dynamic } else { end })
    }
}

fn entry_info(function: &ast::Function<'_>, index: u32) -> Result<EntryInfo, LoadError> {
    let (places, aligns) = param_layout(&function.params)?;
    Ok(EntryInfo {
        name: function.name.to_owned(),
        params: function
            .params
            .iter()
            .zip(places.iter().zip(aligns))
            .map(|(param, (place, align))| ParamInfo {
                name: param.name.to_owned(),
                size: place.size as usize,
                align,
            })
            .collect(),
        max_threads: function.reqntid.or(function.maxntid),
        required_threads: function.reqntid,
        static_shared: 0,
        line: function.line,
        function: index,
    })
}

/// Where each kernel parameter lies in the parameter space, and its alignment.
pub(super) fn param_layout(
    params: &[ast::Variable<'_>],
) -> Result<(Vec<ParamPlace>, Vec<usize>), LoadError> {
    let mut end = 0;
    let mut places = Vec::with_capacity(params.len());
    let mut aligns = Vec::with_capacity(params.len());
    for param in params {
        let (size, align) = size_and_align(param)?;
        let offset = align_up(end, align);
        end = offset + size;
        if end > 32764 {
            return Err(LoadError::new(
                param.line,
                "kernel parameters take more than 32764 bytes",
            ));
        }
        places.push(ParamPlace {
            offset: offset as u32,
            size: size as u32,
        });
        aligns.push(align);
    }
    Ok((places, aligns))
}

/// Rounds up to a multiple of a power of two.
pub(crate) fn align_up(value: usize, align: usize) -> usize {
    (value + align - 1) & !(align - 1)
}

pub(super) fn variable_type(variable: &ast::Variable<'_>) -> Result<Type, LoadError> {
    match Type::parse(variable.ty) {
        Some(ty) => Ok(ty),
        None => Err(LoadError::new(
            variable.line,
            format!(
                "`{}`: `.{}` is not a known type",
                variable.name, variable.ty
            ),
        )),
    }
}

/// Bytes and alignment of a variable that lives in memory.
pub(super) fn size_and_align(variable: &ast::Variable<'_>) -> Result<(usize, usize), LoadError> {
    let error = |message: &str| {
        Err(LoadError::new(
            variable.line,
            format!("`{}`: {message}", variable.name),
        ))
    };
    let ty = variable_type(variable)?;
    if ty == Type::Pred {
        return error("predicates cannot be in memory");
    }
    let element = usize::from(ty.bits() / 8) * variable.vector;
    let mut size = element;
    for (axis, dim) in variable.dims.iter().enumerate() {
        let count = match (dim, &variable.init) {
            (Some(count), _) => *count as usize,
            (None, Some(Init::List(list))) if axis == 0 => list.len(),
            (None, _) => 0,
        };
        size = match size.checked_mul(count) {
            Some(size) if size <= 1 << 32 => size,
            _ => return error("the array is too large"),
        };
    }
    Ok((size, variable.align.unwrap_or(element)))
}

/// Names of module scope while functions are decoded.
#[derive(Default)]
pub(super) struct ModuleBuilder<'a> {
    variables: Vec<ModuleVariable>,
    names: HashMap<&'a str, u32>,
    functions: HashMap<&'a str, FunctionSignature>,
}

/// What a call needs to know.
#[derive(Debug, Clone)]
pub(super) struct FunctionSignature {
    /// Index among the functions with a body.
    pub(super) index: Option<u32>,
    pub(super) params: Vec<usize>,
    pub(super) returns: Vec<usize>,
}

impl<'a> ModuleBuilder<'a> {
    fn declare(&mut self, tree: &'a ast::Source<'a>) -> Result<(), LoadError> {
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
                self.variables[index] = self.memory_variable(variable)?;
            } else if !variable.external {
                return Err(LoadError::new(
                    variable.line,
                    format!("`{}` is defined twice", variable.name),
                ));
            }
        }
        Ok(())
    }

    /// A variable declared inside a function.
    pub(super) fn variable(&mut self, variable: &ast::Variable<'a>) -> Result<u32, LoadError> {
        let made = self.memory_variable(variable)?;
        self.variables.push(made);
        Ok(self.variables.len() as u32 - 1)
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
