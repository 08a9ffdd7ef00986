//! The PTX emulator as a [`Driver`]: everything runs within the call that submits it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use ptx_emulator::{Emulator, LaunchError, LoadedModule, MemoryError};

use super::{
    capabilities::{Capabilities, DeviceKind},
    core::lock,
    driver::{
        Driver, DriverError, FunctionInfo, MemoryRange, Parameter, Pitched, RawEvent, RawFunction,
        RawGraph, RawModule, RawStream,
    },
    error::DeviceError,
    launch::LaunchConfig,
    pages::Pages,
    profile::{ArgumentTraffic, Collector, LaunchReport},
    sync::Mutex,
};

/// What GPU an emulated device stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmulatedConfig {
    /// Compute capability, major and minor. Default 9.0.
    ///
    /// The limits of a launch are those of this compute capability. Processor count and L2 size, which only
    /// launch heuristics look at, are those of one GPU of each: T4 (7.5), A100 (8.0), RTX 3090 (8.6), L40S (8.9),
    /// H100 (9.0), B200 (10.0), RTX 5090 (12.0).
    pub compute_capability: (u32, u32),
    /// Device memory in bytes. Default 8 GiB; the host's memory is taken only as buffers are made.
    pub memory_bytes: usize,
    /// Which kinds of undefined behaviour are faults. Default all.
    pub checks: ptx_emulator::Checks,
    /// Host threads that run blocks; 0 takes one a core. Changes no result and no count. Default 0.
    pub threads: usize,
    /// Shuffles the order in which warps and blocks run, which then run on one host thread. A correct kernel gives the same result.
    /// Default none: ascending order.
    pub seed: Option<u64>,
}

impl Default for EmulatedConfig {
    fn default() -> Self {
        Self {
            compute_capability: (9, 0),
            memory_bytes: 8 << 30,
            checks: ptx_emulator::Checks::default(),
            threads: 0,
            seed: None,
        }
    }
}

/// The emulator and what is made on it.
#[derive(Debug)]
pub(super) struct EmulatedDriver {
    emulator: Emulator,
    capabilities: Capabilities,
    profiler: Collector<LaunchReport>,
    last_handle: AtomicU64,
    /// Lengths by address.
    allocations: Mutex<BTreeMap<u64, usize>>,
    /// By address.
    host_memory: Mutex<HashMap<u64, Pages>>,
    modules: Mutex<HashMap<RawModule, Arc<LoadedModule>>>,
    kernels: Mutex<HashMap<RawFunction, Arc<Kernel>>>,
    /// The streams that are being captured.
    captures: Mutex<HashMap<RawStream, Vec<Launch>>>,
    graphs: Mutex<HashMap<RawGraph, Arc<[Launch]>>>,
}

#[derive(Debug)]
struct Kernel {
    module: Arc<LoadedModule>,
    name: String,
}

#[derive(Debug)]
struct Launch {
    kernel: Arc<Kernel>,
    config: LaunchConfig,
    parameters: Vec<Parameter>,
}

impl EmulatedDriver {
    pub(super) fn new(config: EmulatedConfig) -> Result<(Self, String), DeviceError> {
        let capabilities = capabilities(&config)?;
        let (major, minor) = config.compute_capability;
        let name = capabilities.model.clone();
        let emulator = Emulator::new(ptx_emulator::Config {
            checks: config.checks,
            compute_capability: major * 10 + minor,
            memory_limit: config.memory_bytes as u64,
            threads: config.threads,
            seed: config.seed,
            ..ptx_emulator::Config::default()
        });
        let driver = Self {
            emulator,
            capabilities,
            profiler: Collector::default(),
            last_handle: AtomicU64::new(0),
            allocations: Mutex::default(),
            host_memory: Mutex::default(),
            modules: Mutex::default(),
            kernels: Mutex::default(),
            captures: Mutex::default(),
            graphs: Mutex::default(),
        };
        Ok((driver, name))
    }

    fn new_handle(&self) -> u64 {
        self.last_handle.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn run(&self, launch: &Launch) -> Result<(), DriverError> {
        let Launch {
            kernel,
            config,
            parameters,
        } = launch;
        let arguments: Vec<&[u8]> = parameters
            .iter()
            .map(|parameter| &parameter.bytes[..parameter.len])
            .collect();
        let shape = ptx_emulator::LaunchConfig {
            grid: config.grid,
            block: config.block,
            dynamic_shared: config.dynamic_shared,
            cooperative: config.cooperative,
        };
        let report = self
            .emulator
            .launch(&kernel.module, &kernel.name, &shape, &arguments)
            .map_err(|error| match error {
                LaunchError::Fault(fault) => DriverError::Fault {
                    cause: fault.to_string(),
                },
                refused => DriverError::LaunchRefused {
                    kernel: kernel.name.clone(),
                    reason: refused.to_string(),
                },
            })?;
        let arguments = traffic(parameters, &report);
        let written = written_read_only(parameters, &arguments);
        self.profiler.add(|| LaunchReport {
            kernel: kernel.name.clone(),
            config: *config,
            arguments: arguments.clone(),
            counters: report.counters,
            lines: report.lines.clone(),
        });
        match written {
            None => Ok(()),
            Some(argument) => Err(DriverError::ReadOnlyArgument {
                kernel: kernel.name.clone(),
                index: argument.index,
                bytes: argument.bytes_written,
            }),
        }
    }
}

/// The part of a launch's traffic that went to the buffers passed to it.
fn traffic(parameters: &[Parameter], report: &ptx_emulator::Report) -> Vec<ArgumentTraffic> {
    parameters
        .iter()
        .enumerate()
        .filter_map(|(index, parameter)| {
            let target = parameter.target?;
            let traffic = report
                .allocations
                .iter()
                .find(|traffic| traffic.base == target.base);
            Some(ArgumentTraffic {
                index,
                address: u64::from_ne_bytes(parameter.bytes),
                len: target.len,
                bytes_read: traffic.map_or(0, |traffic| traffic.bytes_read),
                bytes_written: traffic.map_or(0, |traffic| traffic.bytes_written),
                sectors_read: traffic.map_or(0, |traffic| traffic.sectors_read),
                sectors_written: traffic.map_or(0, |traffic| traffic.sectors_written),
            })
        })
        .collect()
}

/// The first argument whose buffer was written although no argument lets the kernel write it.
fn written_read_only<'a>(
    parameters: &[Parameter],
    arguments: &'a [ArgumentTraffic],
) -> Option<&'a ArgumentTraffic> {
    arguments.iter().find(|argument| {
        let target = parameters[argument.index].target;
        let may_write = parameters
            .iter()
            .filter_map(|parameter| parameter.target)
            .any(|other| other.write && target.is_some_and(|target| target.base == other.base));
        argument.bytes_written > 0 && !may_write
    })
}

/// A handle that this driver has not made, or that has been destroyed: the layer above never passes one.
fn invalid_handle(call: &'static str) -> DriverError {
    DriverError::Code {
        call,
        name: "an invalid handle".to_owned(),
        code: 400,
    }
}

fn memory_error(call: &'static str) -> impl Fn(MemoryError) -> DriverError {
    move |error| match error {
        MemoryError::OutOfMemory { requested, .. } => DriverError::OutOfMemory {
            requested: requested as usize,
        },
        error => DriverError::Code {
            call,
            name: error.to_string(),
            code: 1,
        },
    }
}

// Of the contract of the unsafe functions, only copies rely on the host memory: handles are looked up, and the emulator
// checks addresses itself.
impl Driver for EmulatedDriver {
    fn kind(&self) -> DeviceKind {
        DeviceKind::Emulated
    }

    fn synchronous(&self) -> bool {
        true
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn memory_info(&self) -> Result<(usize, usize), DriverError> {
        let total = self.capabilities.memory_bytes;
        Ok((
            total.saturating_sub(self.emulator.memory_in_use() as usize),
            total,
        ))
    }

    fn synchronize(&self) -> Result<(), DriverError> {
        Ok(())
    }

    fn profiler(&self) -> Option<&Collector<LaunchReport>> {
        Some(&self.profiler)
    }

    fn make_current(&self) -> Result<(), DriverError> {
        Ok(())
    }

    /// Another emulated device shares nothing with this one.
    fn retire(&self) {}

    fn context_destroyed(&self) {}

    fn allocate(&self, bytes: usize) -> Result<u64, DriverError> {
        let address = self
            .emulator
            .alloc(bytes)
            .map_err(memory_error("an allocation"))?;
        lock(&self.allocations).insert(address, bytes);
        Ok(address)
    }

    unsafe fn free(&self, address: u64) -> Result<(), DriverError> {
        self.emulator
            .free(address)
            .map_err(memory_error("freeing memory"))?;
        lock(&self.allocations).remove(&address);
        Ok(())
    }

    fn allocate_host(&self, bytes: usize) -> Result<u64, DriverError> {
        let pages = Pages::zeroed(bytes)?;
        let address = pages.address();
        lock(&self.host_memory).insert(address, pages);
        Ok(address)
    }

    unsafe fn free_host(&self, address: u64) -> Result<(), DriverError> {
        match lock(&self.host_memory).remove(&address) {
            Some(_) => Ok(()),
            None => Err(invalid_handle("freeing pinned memory")),
        }
    }

    unsafe fn allocate_on(
        &self,
        _stream: RawStream,
        bytes: usize,
    ) -> Result<Option<u64>, DriverError> {
        self.allocate(bytes).map(Some)
    }

    unsafe fn free_on(&self, _stream: RawStream, address: u64) -> Result<(), DriverError> {
        // SAFETY: the stream's work was done when it was submitted.
        unsafe { self.free(address) }
    }

    fn range_of(&self, address: u64) -> Result<Option<MemoryRange>, DriverError> {
        let allocations = lock(&self.allocations);
        let below = allocations.range(..=address).next_back();
        Ok(below
            .map(|(&base, &len)| MemoryRange { base, len })
            .filter(|range| address - range.base < range.len as u64))
    }

    fn create_stream(&self) -> Result<RawStream, DriverError> {
        Ok(RawStream(self.new_handle()))
    }

    unsafe fn destroy_stream(&self, stream: RawStream) -> Result<(), DriverError> {
        lock(&self.captures).remove(&stream);
        Ok(())
    }

    unsafe fn synchronize_stream(&self, _stream: RawStream) -> Result<(), DriverError> {
        Ok(())
    }

    unsafe fn copy_to_device(
        &self,
        _stream: RawStream,
        address: u64,
        bytes: *const [u8],
    ) -> Result<(), DriverError> {
        // SAFETY: the caller passes valid host memory, which nothing writes meanwhile.
        let bytes = unsafe { &*bytes };
        self.emulator
            .write(address, bytes)
            .map_err(memory_error("a copy to the device"))
    }

    unsafe fn copy_to_host(
        &self,
        _stream: RawStream,
        bytes: *mut [u8],
        address: u64,
    ) -> Result<(), DriverError> {
        // SAFETY: the caller passes valid host memory, which nothing else accesses meanwhile.
        let bytes = unsafe { &mut *bytes };
        self.emulator
            .read(address, bytes)
            .map_err(memory_error("a copy to the host"))
    }

    unsafe fn fill(
        &self,
        _stream: RawStream,
        address: u64,
        value: u8,
        len: usize,
    ) -> Result<(), DriverError> {
        self.emulator
            .fill(address, value, len)
            .map_err(memory_error("a fill"))
    }

    unsafe fn copy_rows(
        &self,
        _stream: RawStream,
        to: Pitched,
        from: Pitched,
        width: usize,
        rows: usize,
    ) -> Result<(), DriverError> {
        (0..rows).try_for_each(|row| {
            let place = |rows: Pitched| rows.address + (row * rows.pitch) as u64;
            self.emulator
                .copy(place(to), place(from), width)
                .map_err(memory_error("a copy on the device"))
        })
    }

    /// Only buffers of one emulator share its addresses.
    fn reaches(&self, _peer: &dyn Driver) -> Result<bool, DriverError> {
        Ok(false)
    }

    unsafe fn copy_from_peer(
        &self,
        _stream: RawStream,
        _address: u64,
        _peer: &dyn Driver,
        _peer_address: u64,
        _len: usize,
    ) -> Result<(), DriverError> {
        Err(invalid_handle("a copy from another device"))
    }

    unsafe fn record_event(&self, _stream: RawStream) -> Result<RawEvent, DriverError> {
        Ok(RawEvent(self.new_handle()))
    }

    unsafe fn destroy_event(&self, _event: RawEvent) -> Result<(), DriverError> {
        Ok(())
    }

    unsafe fn synchronize_event(&self, _event: RawEvent) -> Result<(), DriverError> {
        Ok(())
    }

    unsafe fn wait_event(&self, _stream: RawStream, _event: RawEvent) -> Result<(), DriverError> {
        Ok(())
    }

    unsafe fn wait_peer_event(
        &self,
        _stream: RawStream,
        _peer: &dyn Driver,
        _event: RawEvent,
    ) -> Result<(), DriverError> {
        Ok(())
    }

    unsafe fn elapsed_ms(
        &self,
        _start: RawEvent,
        _end: RawEvent,
    ) -> Result<Option<f32>, DriverError> {
        Ok(None)
    }

    fn load_module(&self, ptx: &str) -> Result<RawModule, DriverError> {
        let invalid = |error: ptx_emulator::LoadError| DriverError::InvalidPtx {
            log: error.to_string(),
        };
        let module = ptx_emulator::Module::parse(ptx).map_err(invalid)?;
        let loaded = self.emulator.load(&Arc::new(module)).map_err(invalid)?;
        let handle = RawModule(self.new_handle());
        lock(&self.modules).insert(handle, Arc::new(loaded));
        Ok(handle)
    }

    unsafe fn unload_module(&self, module: RawModule) -> Result<(), DriverError> {
        lock(&self.modules).remove(&module);
        Ok(())
    }

    unsafe fn function(
        &self,
        module: RawModule,
        kernel: &str,
        _ptx: &str,
    ) -> Result<FunctionInfo, DriverError> {
        let module = lock(&self.modules).get(&module).cloned();
        let module = module.ok_or_else(|| invalid_handle("looking up a kernel"))?;
        let entry = module.module().entry(kernel);
        let entry = entry.ok_or_else(|| DriverError::NoSuchKernel {
            kernel: kernel.to_owned(),
        })?;
        let raw = RawFunction(self.new_handle());
        let info = FunctionInfo {
            raw,
            parameter_sizes: entry
                .params
                .iter()
                .map(|parameter| parameter.size)
                .collect(),
            max_threads: entry
                .max_threads
                .map_or(self.capabilities.max_threads_per_block, |[x, y, z]| {
                    x * y * z
                }),
            static_shared: entry.static_shared as u32,
        };
        let kernel = Kernel {
            module: Arc::clone(&module),
            name: kernel.to_owned(),
        };
        lock(&self.kernels).insert(raw, Arc::new(kernel));
        Ok(info)
    }

    unsafe fn launch(
        &self,
        stream: RawStream,
        _kernel: &str,
        function: &FunctionInfo,
        config: &LaunchConfig,
        parameters: &[Parameter],
    ) -> Result<(), DriverError> {
        let kernel = lock(&self.kernels).get(&function.raw).cloned();
        let kernel = kernel.ok_or_else(|| invalid_handle("a launch"))?;
        let launch = Launch {
            kernel,
            config: *config,
            parameters: parameters.to_vec(),
        };
        if let Some(capture) = lock(&self.captures).get_mut(&stream) {
            capture.push(launch);
            return Ok(());
        }
        self.run(&launch)
    }

    unsafe fn begin_capture(&self, stream: RawStream) -> Result<(), DriverError> {
        lock(&self.captures).insert(stream, Vec::new());
        Ok(())
    }

    unsafe fn end_capture(
        &self,
        stream: RawStream,
        into: Option<RawGraph>,
    ) -> Result<RawGraph, DriverError> {
        let launches = lock(&self.captures).remove(&stream);
        let launches = launches.ok_or_else(|| invalid_handle("ending a capture"))?;
        let graph = into.unwrap_or_else(|| RawGraph(self.new_handle()));
        lock(&self.graphs).insert(graph, launches.into());
        Ok(graph)
    }

    unsafe fn launch_graph(&self, _stream: RawStream, graph: RawGraph) -> Result<(), DriverError> {
        let launches = lock(&self.graphs).get(&graph).cloned();
        let launches = launches.ok_or_else(|| invalid_handle("replaying a graph"))?;
        launches.iter().try_for_each(|launch| self.run(launch))
    }

    unsafe fn destroy_graph(&self, graph: RawGraph) -> Result<(), DriverError> {
        lock(&self.graphs).remove(&graph);
        Ok(())
    }
}

/// The limits of a compute capability, from the table of technical specifications in NVIDIA's CUDA C++
/// Programming Guide.
fn capabilities(config: &EmulatedConfig) -> Result<Capabilities, DeviceError> {
    // Multiprocessors, MiB of L2, threads and KiB of shared memory of a multiprocessor, KiB of a block.
    let (multiprocessors, l2_mib, threads, shared_kib, block_kib) = match config.compute_capability
    {
        (7, 5) => (40, 4, 1024, 64, 64),
        (8, 0) => (108, 40, 2048, 164, 163),
        (8, 6) => (82, 6, 1536, 100, 99),
        (8, 9) => (142, 96, 1536, 100, 99),
        (9, 0) => (132, 50, 2048, 228, 227),
        (10, 0) => (148, 126, 2048, 228, 227),
        (12, 0) => (170, 96, 1536, 100, 99),
        (major, minor) => {
            return Err(DeviceError::InvalidConfig {
                option: "compute_capability",
                value: format!("{major}.{minor}"),
                expected: "7.5, 8.0, 8.6, 8.9, 9.0, 10.0 or 12.0",
            });
        }
    };
    if config.memory_bytes == 0 {
        return Err(DeviceError::InvalidConfig {
            option: "memory_bytes",
            value: "0".to_owned(),
            expected: "at least 1",
        });
    }
    let (major, minor) = config.compute_capability;
    Ok(Capabilities {
        model: format!("emulated (sm_{major}{minor})"),
        compute_capability: config.compute_capability,
        multiprocessors,
        warp_size: 32,
        memory_bytes: config.memory_bytes,
        l2_bytes: l2_mib << 20,
        max_threads_per_multiprocessor: threads,
        max_threads_per_block: 1024,
        max_block: [1024, 1024, 64],
        max_grid: [i32::MAX.unsigned_abs(), 65_535, 65_535],
        shared_bytes_per_multiprocessor: shared_kib << 10,
        shared_bytes_per_block: 48 << 10,
        shared_bytes_per_block_optin: block_kib << 10,
        registers_per_multiprocessor: 64 << 10,
        cooperative_launch: true,
        clock_khz: None,
        memory_clock_khz: None,
        memory_bus_bits: None,
        driver_version: None,
    })
}
