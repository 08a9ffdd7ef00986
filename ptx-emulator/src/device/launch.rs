//! From a launch's arguments to something that blocks can run.

use std::collections::HashMap;

use super::in_flight::Overlap;
use super::limits::{BLOCK_THREADS, Limits};
use super::printed::Printed;
use super::{Config, LoadedModule, Memory};
use crate::error::LaunchError;
use crate::exec::{Row, WINDOW_LOCAL, WINDOW_PARAM, WINDOW_SHARED};
use crate::isa::{Constant, Slot, Special};
use crate::load::{EntryInfo, Function, Module, VariableKind, align_up};

/// Shape of a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaunchConfig {
    /// Blocks in each direction.
    pub grid: [u32; 3],
    /// Threads of a block in each direction.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory a block.
    pub dynamic_shared: u32,
    /// Whether blocks may wait for each other: all are then resident at once.
    pub cooperative: bool,
}

/// A function with its constants at their final values.
#[derive(Debug)]
pub(crate) struct Image<'a> {
    pub(crate) function: &'a Function,
    /// Rows of a new frame; warp-dependent rows and registers are zero.
    pub(crate) rows: Vec<Row>,
    pub(crate) initialized: Vec<u32>,
    /// Rows that hold so many low bits of a special register.
    pub(crate) specials: Vec<(Slot, Special, u8)>,
    /// Rows that hold an address within the frame's local memory.
    pub(crate) locals: Vec<(Slot, u64)>,
    /// Where the function's instructions start among those of all functions.
    pub(crate) first_site: usize,
}

/// A checked launch.
#[derive(Debug)]
pub(crate) struct Launch<'a> {
    pub(crate) config: &'a Config,
    pub(crate) memory: &'a Memory,
    pub(crate) module: &'a Module,
    pub(crate) entry: &'a EntryInfo,
    pub(crate) images: Vec<Image<'a>>,
    pub(crate) sites: usize,
    pub(crate) grid: [u32; 3],
    pub(crate) block: [u32; 3],
    pub(crate) dynamic_shared: u32,
    pub(crate) shared_bytes: usize,
    pub(crate) cooperative: bool,
    pub(crate) params: Vec<u8>,
    /// Address of what a cooperative launch's grid barriers use; else 0.
    pub(crate) workspace: u64,
    pub(crate) printed: Printed,
    pub(crate) overlap: Overlap,
    /// Whether nothing can order what blocks do: no atomic, volatile or ordered access to global memory.
    pub(crate) independent: bool,
    /// Whether blocks may run on several cores.
    pub(crate) parallel: bool,
}

/// Addresses of functions for indirect calls.
pub(crate) fn function_address(index: u32) -> u64 {
    0x4_0000_0000 + u64::from(index) * 16
}

/// The function at an address.
pub(crate) fn function_at(address: u64) -> Option<u32> {
    let offset = address.checked_sub(function_address(0))?;
    u32::try_from(offset / 16).ok().filter(|_| offset % 16 == 0)
}

/// Bytes of shared memory that the system takes of each block, from sm_80 on. They have no addresses here.
pub(crate) const RESERVED_SHARED: u32 = 1 << 10;

impl<'a> Launch<'a> {
    pub(crate) fn prepare(
        config: &'a Config,
        memory: &'a Memory,
        loaded: &'a LoadedModule,
        name: &str,
        shape: &LaunchConfig,
        args: &[&[u8]],
        workspace: u64,
    ) -> Result<Self, LaunchError> {
        let module = loaded.module.as_ref();
        let Some(entry) = module.entry(name) else {
            let known: Vec<_> = module.entries().map(|entry| entry.name.as_str()).collect();
            return Err(LaunchError::NoSuchEntry {
                name: name.to_owned(),
                known: known.join(", "),
            });
        };
        check_shape(entry, shape)?;
        let params = pack_arguments(entry, args)?;
        let (layout, static_shared) = module.shared_layout(entry.function);
        let limits = Limits::of(config.compute_capability);
        let limit = limits.block_shared;
        let asked = static_shared as u64 + u64::from(shape.dynamic_shared);
        if asked > limit {
            return Err(LaunchError::SharedMemory {
                entry: entry.name.clone(),
                asked,
                limit,
            });
        }
        let shared_bytes = static_shared + shape.dynamic_shared as usize;
        let capability = config.compute_capability;
        let mut taken = shared_taken(shared_bytes, capability);
        if capability >= 80 {
            taken += RESERVED_SHARED;
        }
        let blocks: u64 = shape.grid.iter().map(|&dim| u64::from(dim)).product();
        let threads: u64 = shape.block.iter().map(|&dim| u64::from(dim)).product();
        let limit = limits.resident(threads, taken.into());
        if shape.cooperative && blocks > limit {
            return Err(LaunchError::CooperativeTooLarge { blocks, limit });
        }
        let reachable = module.reachable(entry.function);
        let mut sites = 0;
        let mut images = Vec::with_capacity(module.functions.len());
        for function in &module.functions {
            let first_site = sites;
            sites += function.code.len();
            images.push(Image {
                function,
                rows: Vec::new(),
                initialized: Vec::new(),
                specials: Vec::new(),
                locals: Vec::new(),
                first_site,
            });
        }
        for &index in &reachable {
            fill_image(&mut images[index as usize], loaded, &layout, entry)?;
        }
        let strong = reachable
            .iter()
            .any(|&index| module.functions[index as usize].strong);
        let waits = reachable
            .iter()
            .any(|&index| module.functions[index as usize].waits);
        Ok(Self {
            config,
            memory,
            module,
            entry,
            images,
            sites,
            grid: shape.grid,
            block: shape.block,
            dynamic_shared: shape.dynamic_shared,
            shared_bytes,
            cooperative: shape.cooperative,
            params,
            workspace,
            printed: Printed::default(),
            overlap: Overlap::new(waits && config.checks.races && !memory.in_flight.is_empty()),
            independent: !strong && !shape.cooperative,
            parallel: !strong && !shape.cooperative && config.seed.is_none(),
        })
    }

    pub(crate) fn blocks(&self) -> u64 {
        self.grid.iter().map(|&dim| u64::from(dim)).product()
    }

    pub(crate) fn threads(&self) -> u32 {
        self.block.iter().product()
    }

    pub(crate) fn block_index(&self, linear: u64) -> [u32; 3] {
        let [x, y, _] = self.grid.map(u64::from);
        [
            (linear % x) as u32,
            (linear / x % y) as u32,
            (linear / x / y) as u32,
        ]
    }

    /// Bytes of shared memory that a block takes, without those reserved.
    pub(crate) fn shared_taken(&self) -> u32 {
        shared_taken(self.shared_bytes, self.config.compute_capability)
    }

    pub(crate) fn thread_index(&self, linear: u32) -> [u32; 3] {
        let [x, y, _] = self.block;
        [linear % x, linear / x % y, linear / x / y]
    }
}

/// Bytes of shared memory in the units in which a multiprocessor gives it away.
fn shared_taken(bytes: usize, compute_capability: u32) -> u32 {
    let unit = if compute_capability < 80 { 256 } else { 128 };
    (bytes as u32).next_multiple_of(unit)
}

fn check_shape(entry: &EntryInfo, shape: &LaunchConfig) -> Result<(), LaunchError> {
    let limits = [
        ("grid x", shape.grid[0], 0x7fff_ffff),
        ("grid y", shape.grid[1], 65535),
        ("grid z", shape.grid[2], 65535),
        ("block x", shape.block[0], BLOCK_THREADS),
        ("block y", shape.block[1], BLOCK_THREADS),
        ("block z", shape.block[2], 64),
    ];
    for (what, value, limit) in limits {
        if value == 0 || value > limit {
            return Err(LaunchError::Shape {
                what,
                value: value.into(),
                limit: limit.into(),
            });
        }
    }
    let threads: u64 = shape.block.iter().map(|&dim| u64::from(dim)).product();
    if threads > BLOCK_THREADS.into() {
        return Err(LaunchError::Shape {
            what: "the number of threads of a block",
            value: threads,
            limit: BLOCK_THREADS.into(),
        });
    }
    let directive = |directive, limit| LaunchError::BlockDirective {
        entry: entry.name.clone(),
        block: shape.block,
        directive,
        limit,
    };
    if let Some(required) = entry.required_threads {
        if required != shape.block {
            return Err(directive(".reqntid", required));
        }
    } else if let Some(limit) = entry.max_threads {
        // Only the product of `.maxntid` counts.
        let most: u64 = limit.iter().map(|&dim| u64::from(dim)).product();
        if threads > most {
            return Err(directive(".maxntid", limit));
        }
    }
    Ok(())
}

fn pack_arguments(entry: &EntryInfo, args: &[&[u8]]) -> Result<Vec<u8>, LaunchError> {
    if args.len() != entry.params.len() {
        return Err(LaunchError::ArgumentCount {
            entry: entry.name.clone(),
            expected: entry.params.len(),
            given: args.len(),
        });
    }
    let mut packed = Vec::new();
    for (index, (param, arg)) in entry.params.iter().zip(args).enumerate() {
        if arg.len() != param.size {
            return Err(LaunchError::ArgumentSize {
                entry: entry.name.clone(),
                index,
                name: param.name.clone(),
                expected: param.size,
                given: arg.len(),
            });
        }
        packed.resize(align_up(packed.len(), param.align), 0);
        packed.extend_from_slice(arg);
    }
    Ok(packed)
}

fn fill_image(
    image: &mut Image<'_>,
    loaded: &LoadedModule,
    shared: &HashMap<u32, u64>,
    entry: &EntryInfo,
) -> Result<(), LaunchError> {
    let function = image.function;
    image.rows = vec![[0; 32]; function.slots];
    image.initialized = vec![0; function.slots];
    for &(slot, constant) in &function.constants {
        let value = match constant {
            Constant::Value(value) => value,
            Constant::Variable {
                index,
                offset,
                generic,
            } => {
                let variable = &loaded.module.variables[index as usize];
                let base = match variable.kind {
                    VariableKind::Shared | VariableKind::DynamicShared => {
                        let window = if generic { WINDOW_SHARED } else { 0 };
                        shared.get(&index).copied().unwrap_or(0) + window
                    }
                    VariableKind::Undefined => {
                        return Err(LaunchError::Unresolved {
                            entry: entry.name.clone(),
                            symbol: variable.name.clone(),
                        });
                    }
                    VariableKind::Global | VariableKind::Const => loaded.addresses[index as usize],
                };
                base.wrapping_add_signed(offset)
            }
            Constant::Local {
                offset,
                add,
                generic,
            } => {
                let window = if generic { WINDOW_LOCAL } else { 0 };
                let value = (window + u64::from(offset)).wrapping_add_signed(add);
                image.locals.push((slot, value));
                value
            }
            Constant::KernelParam { offset, generic } => {
                u64::from(offset) + if generic { WINDOW_PARAM } else { 0 }
            }
            Constant::Function(index) => function_address(index),
            Constant::Special { special, bits } => {
                image.specials.push((slot, special, bits));
                0
            }
        };
        image.rows[slot as usize] = [value; 32];
        image.initialized[slot as usize] = u32::MAX;
    }
    Ok(())
}
