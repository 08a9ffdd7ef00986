//! The emulated device as the host sees it.

mod in_flight;
mod launch;
mod limits;
mod memory;
mod printed;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(crate) use in_flight::EarlyAccess;
pub use launch::LaunchConfig;
pub(crate) use launch::{Image, Launch, RESERVED_SHARED, function_at};
use memory::ALIGN;
pub(crate) use memory::{Allocation, Memory};

use crate::error::{LaunchError, Leak, LeakError, LoadError, MemoryError};
use crate::isa::Constant;
use crate::load::{Module, VariableKind};
use crate::report::Report;

/// Which checks a launch makes. Undefined behaviour that a disabled check would find has some harmless result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checks {
    /// Accesses that are out of bounds, misaligned, to freed memory, or stores to constants; with the check off, such a lane
    /// loads zero and stores nothing. Also allocations that are never freed ([`Emulator::close`]).
    pub memory: bool,
    /// Reads of registers, and of bytes in global, shared and local memory, that were never written.
    pub initialization: bool,
    /// Conflicting accesses to shared or global memory that nothing orders, by threads of one block or of two, or, before
    /// `griddepcontrol.wait`, by a launch and those before it.
    pub races: bool,
    /// Barriers that some threads never reach, shuffles that read lanes which do not participate, lanes that diverge at `.uni`,
    /// and deadlocks.
    pub synchronization: bool,
}

impl Checks {
    /// Every check.
    pub const ALL: Self = Self {
        memory: true,
        initialization: true,
        races: true,
        synchronization: true,
    };
    /// No check.
    pub const NONE: Self = Self {
        memory: false,
        initialization: false,
        races: false,
        synchronization: false,
    };
}

impl Default for Checks {
    fn default() -> Self {
        Self::ALL
    }
}

/// Properties of an emulated device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Which checks launches make.
    pub checks: Checks,
    /// Compute capability, major times 10 plus minor: 90 for sm_90.
    pub compute_capability: u32,
    /// Size limit of global memory in bytes.
    pub memory_limit: u64,
    /// The most warp instructions that one block may execute.
    pub instruction_limit: Option<u64>,
    /// CPU cores that run blocks; 0 means all. The number affects neither results nor counts.
    pub threads: usize,
    /// Shuffles the order in which warps and blocks run. `None` is ascending order.
    pub seed: Option<u64>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            checks: Checks::ALL,
            compute_capability: 90,
            memory_limit: 16 << 30,
            instruction_limit: None,
            threads: 1,
            seed: None,
        }
    }
}

/// Bytes that CUDA's cooperative groups expect behind `%envreg1` and `%envreg2`: a size, and the grid barrier's counter.
const GRID_WORKSPACE: u64 = 8;

/// One emulated device.
///
/// Operations are serialized: a launch locks the device's memory until it has finished.
#[derive(Debug, Clone)]
pub struct Emulator {
    config: Config,
    memory: Arc<Mutex<Memory>>,
}

/// A module on a device, with addresses for its variables.
///
/// Dropping it frees the variables.
#[derive(Debug)]
pub struct LoadedModule {
    pub(crate) module: Arc<Module>,
    /// Address of each variable in global memory; 0 for shared and undefined ones.
    pub(crate) addresses: Vec<u64>,
    memory: Arc<Mutex<Memory>>,
}

fn lock(memory: &Mutex<Memory>) -> MutexGuard<'_, Memory> {
    // Memory is consistent between any two operations, so a panic elsewhere leaves nothing half done.
    memory.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Emulator {
    /// A device with empty memory.
    pub fn new(config: Config) -> Self {
        let memory = Arc::new(Mutex::new(Memory::new(config.memory_limit)));
        Self { config, memory }
    }

    /// The configuration of the device.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Allocates global memory, aligned to 256 bytes. The caller's source line is kept, for [`leaks`](Self::leaks).
    ///
    /// # Errors
    ///
    /// Zero bytes, or more than the memory limit leaves.
    #[track_caller]
    pub fn alloc(&self, bytes: usize) -> Result<u64, MemoryError> {
        lock(&self.memory).alloc(bytes as u64, ALIGN, None, false)
    }

    /// Frees an allocation. Later accesses to it are use after free.
    ///
    /// # Errors
    ///
    /// An address that is not the start of a live allocation.
    pub fn free(&self, ptr: u64) -> Result<(), MemoryError> {
        lock(&self.memory).free(ptr)
    }

    /// Copies bytes from the host.
    ///
    /// # Errors
    ///
    /// A range that is not within one live allocation.
    pub fn write(&self, ptr: u64, data: &[u8]) -> Result<(), MemoryError> {
        self.in_order(|memory| memory.write(ptr, data))
    }

    /// Copies bytes to the host. Bytes that were never written read as `0xa5`.
    ///
    /// # Errors
    ///
    /// A range that is not within one live allocation.
    pub fn read(&self, ptr: u64, out: &mut [u8]) -> Result<(), MemoryError> {
        self.in_order(|memory| memory.read(ptr, out))
    }

    /// Copies bytes within the device. The ranges may overlap.
    ///
    /// # Errors
    ///
    /// A range that is not within one live allocation.
    pub fn copy(&self, dst: u64, src: u64, len: usize) -> Result<(), MemoryError> {
        self.in_order(|memory| memory.copy(dst, src, len))
    }

    /// Sets bytes.
    ///
    /// # Errors
    ///
    /// A range that is not within one live allocation.
    pub fn fill(&self, ptr: u64, byte: u8, len: usize) -> Result<(), MemoryError> {
        self.in_order(|memory| memory.fill(ptr, byte, len))
    }

    /// Declares that all launches so far are complete before what follows, because the host, or what follows (an event, another
    /// stream), has waited for them. A launch whose kernel has `griddepcontrol.wait` may otherwise overlap them.
    pub fn synchronize(&self) {
        lock(&self.memory).in_flight.clear();
    }

    /// A copy or fill comes after the launches before it, and before those that follow.
    fn in_order(
        &self,
        operation: impl FnOnce(&Memory) -> Result<(), MemoryError>,
    ) -> Result<(), MemoryError> {
        let mut memory = lock(&self.memory);
        operation(&memory)?;
        memory.in_flight.clear();
        Ok(())
    }

    /// Bytes allocated and not freed, including variables of loaded modules.
    pub fn memory_in_use(&self) -> u64 {
        lock(&self.memory).used()
    }

    /// Live allocations, by ascending address, without the variables of loaded modules.
    pub fn leaks(&self) -> Vec<Leak> {
        lock(&self.memory).leaks()
    }

    /// Ends the use of the device. Clones of it remain usable.
    ///
    /// ```
    /// use ptx_emulator::{Config, Emulator};
    ///
    /// let device = Emulator::new(Config::default());
    /// let forgotten = device.alloc(64)?;
    /// let error = device.close().unwrap_err();
    /// assert_eq!((error.leaks[0].address, error.leaks[0].bytes), (forgotten, 64));
    /// assert_eq!(error.leaks[0].allocated_at.file(), file!());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// With [`Checks::memory`]: allocations that were never freed.
    pub fn close(self) -> Result<(), LeakError> {
        let leaks = self.leaks();
        if leaks.is_empty() || !self.config.checks.memory {
            return Ok(());
        }
        Err(LeakError { leaks })
    }

    /// Loads a module: allocates and initializes its variables.
    ///
    /// # Errors
    ///
    /// PTX for a newer architecture than the device, or variables that do not fit into memory.
    pub fn load(&self, module: &Arc<Module>) -> Result<LoadedModule, LoadError> {
        if module.target() > self.config.compute_capability {
            return Err(LoadError {
                line: 0,
                message: format!(
                    "the PTX is for sm_{}, the device is sm_{}: compile for that or an older architecture",
                    module.target(),
                    self.config.compute_capability
                ),
            });
        }
        let mut memory = lock(&self.memory);
        let mut loaded = LoadedModule {
            module: Arc::clone(module),
            addresses: Vec::with_capacity(module.variables.len()),
            memory: Arc::clone(&self.memory),
        };
        for variable in &module.variables {
            let constant = variable.kind == VariableKind::Const;
            let in_memory = constant || variable.kind == VariableKind::Global;
            let address = if in_memory && variable.size > 0 {
                let name = Some(variable.name.clone());
                let align = ALIGN.max(variable.align as u64);
                match memory.alloc(variable.size as u64, align, name, constant) {
                    Ok(address) => address,
                    Err(error) => {
                        drop(memory);
                        return Err(LoadError {
                            line: 0,
                            message: format!("variable `{}`: {error}", variable.name),
                        });
                    }
                }
            } else {
                0
            };
            loaded.addresses.push(address);
        }
        for (variable, &address) in module.variables.iter().zip(&loaded.addresses) {
            if address == 0 {
                continue;
            }
            let mut bytes = variable.bytes.clone();
            // Variables without an initialiser start as zero.
            bytes.resize(variable.size, 0);
            for initial in &variable.addresses {
                let value = match initial.symbol {
                    Constant::Variable { index, offset, .. } => {
                        loaded.addresses[index as usize].wrapping_add_signed(offset)
                    }
                    Constant::Function(index) => launch::function_address(index),
                    _ => 0,
                };
                let value = match initial.mask {
                    Some(mask) => (value & mask) >> mask.trailing_zeros().min(63),
                    None => value,
                };
                bytes[initial.at..initial.at + initial.size]
                    .copy_from_slice(&value.to_le_bytes()[..initial.size]);
            }
            if let Err(error) = memory.write(address, &bytes) {
                drop(memory);
                return Err(LoadError {
                    line: 0,
                    message: error.to_string(),
                });
            }
        }
        drop(memory);
        Ok(loaded)
    }

    /// Runs a kernel to completion. `args` holds the bytes of each parameter, little-endian.
    ///
    /// # Errors
    ///
    /// A launch that no device would accept, or a [`Fault`](crate::Fault). After a fault, memory holds what was written up to
    /// then.
    pub fn launch(
        &self,
        module: &LoadedModule,
        entry: &str,
        config: &LaunchConfig,
        args: &[&[u8]],
    ) -> Result<Report, LaunchError> {
        if !Arc::ptr_eq(&module.memory, &self.memory) {
            return Err(LaunchError::ForeignModule);
        }
        let mut memory = lock(&self.memory);
        if !config.cooperative {
            return self.run(&mut memory, module, entry, config, args, 0);
        }
        let name = Some("workspace of the cooperative launch".to_owned());
        let workspace = memory.alloc(GRID_WORKSPACE, ALIGN, name, false)?;
        let outcome = memory
            .write(workspace, &[0; GRID_WORKSPACE as usize])
            .map_err(LaunchError::from)
            .and_then(|()| self.run(&mut memory, module, entry, config, args, workspace));
        memory.free(workspace)?;
        outcome
    }

    fn run(
        &self,
        memory: &mut Memory,
        module: &LoadedModule,
        entry: &str,
        config: &LaunchConfig,
        args: &[&[u8]],
        workspace: u64,
    ) -> Result<Report, LaunchError> {
        let config_of_device = &self.config;
        let launch = Launch::prepare(
            config_of_device,
            memory,
            module,
            entry,
            config,
            args,
            workspace,
        )?;
        let outcome = crate::exec::run(&launch);
        let complete = launch.overlap.completes_earlier();
        match &outcome {
            Ok(report) if self.config.checks.races => {
                memory.in_flight.add(entry, &report.allocations, complete);
            }
            // The host has seen the fault.
            _ => memory.in_flight.clear(),
        }
        outcome
    }
}

impl LoadedModule {
    /// The module that was loaded.
    pub fn module(&self) -> &Arc<Module> {
        &self.module
    }

    /// Address and size of a `.global` or `.const` variable.
    pub fn variable(&self, name: &str) -> Option<(u64, usize)> {
        let index = self
            .module
            .variables
            .iter()
            .position(|variable| variable.name == name)?;
        let address = self.addresses[index];
        (address != 0).then(|| (address, self.module.variables[index].size))
    }
}

impl Drop for LoadedModule {
    fn drop(&mut self) {
        let mut memory = lock(&self.memory);
        for &address in self.addresses.iter().filter(|&&address| address != 0) {
            // Freed by the host already: nothing is left to do.
            let _ = memory.free(address);
        }
    }
}
