//! A module: its functions, variables and entries.

use std::collections::HashMap;

use super::function::{Function, FunctionBuilder};
use super::names::ModuleBuilder;
use super::variables::{ModuleVariable, VariableKind, align_up, param_layout};
use crate::error::LoadError;
use crate::isa::{CallTarget, Constant};
use crate::syntax::ast;

/// Bytes of static shared memory that a kernel can have on any device.
const MOST_STATIC_SHARED: usize = 48 << 10;

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
    /// `.maxntid` or `.reqntid`: the most threads per block.
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
            variables: builder.into_variables(),
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
            let (_, bytes) = module.shared_layout(module.entries[index].function);
            let entry = &mut module.entries[index];
            entry.static_shared = bytes;
            if bytes > MOST_STATIC_SHARED {
                let name = &entry.name;
                return Err(LoadError::new(
                    entry.line,
                    format!(
                        "kernel `{name}` has {bytes} bytes of static shared memory, and can have {MOST_STATIC_SHARED}: \
                         declare `.extern .shared`, and give its size at the launch"
                    ),
                ));
            }
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
