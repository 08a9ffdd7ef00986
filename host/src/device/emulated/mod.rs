//! The PTX emulator as a [`Driver`]: everything runs within the call that submits it.

mod config;
mod launch;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use ptx_emulator::{Emulator, LoadedModule, MemoryError};

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
    profile::{Collector, LaunchReport},
    sync::Mutex,
};

pub use self::config::EmulatedConfig;
use self::{
    config::capabilities,
    launch::{Kernel, Launch},
};

/// The emulator and what is made on it.
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
    /// The stream of the last launch.
    last_stream: Mutex<Option<RawStream>>,
}

impl EmulatedDriver {
    pub(super) fn new(
        config: EmulatedConfig,
        like: Option<&Capabilities>,
    ) -> Result<(Self, String), DeviceError> {
        let capabilities = capabilities(&config, like)?;
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
            last_stream: Mutex::default(),
        };
        Ok((driver, name))
    }

    fn new_handle(&self) -> u64 {
        self.last_handle.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// A launch may start before the preceding one has finished only on the same stream.
    fn enter_stream(&self, stream: RawStream) {
        if lock(&self.last_stream).replace(stream) != Some(stream) {
            self.emulator.synchronize();
        }
    }
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
        self.emulator.synchronize();
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

    unsafe fn destroy_stream(&self, _stream: RawStream) -> Result<(), DriverError> {
        Ok(())
    }

    unsafe fn synchronize_stream(&self, _stream: RawStream) -> Result<(), DriverError> {
        self.emulator.synchronize();
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
        // SAFETY: the caller passes host memory valid for writes, which nothing else accesses meanwhile. It may never have been
        // written; the emulator is given initialized memory.
        let bytes = unsafe {
            bytes.cast::<u8>().write_bytes(0, bytes.len());
            &mut *bytes
        };
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
        self.emulator.synchronize();
        Ok(())
    }

    unsafe fn wait_event(&self, _stream: RawStream, _event: RawEvent) -> Result<(), DriverError> {
        self.emulator.synchronize();
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
            waits: false,
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
        // Launches do not overlap here.
        _early: bool,
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
        self.enter_stream(stream);
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
        // A graph comes after what is in front of it on the stream, and before what follows.
        self.emulator.synchronize();
        launches.iter().try_for_each(|launch| self.run(launch))?;
        self.emulator.synchronize();
        Ok(())
    }

    unsafe fn destroy_graph(&self, graph: RawGraph) -> Result<(), DriverError> {
        lock(&self.graphs).remove(&graph);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_graph_that_is_destroyed_leaves_nothing_behind() {
        let (driver, _) = EmulatedDriver::new(EmulatedConfig::default(), None).unwrap();
        let stream = driver.create_stream().unwrap();
        // SAFETY: the handles are this driver's, and used while they are alive.
        unsafe {
            driver.begin_capture(stream).unwrap();
            let graph = driver.end_capture(stream, None).unwrap();
            driver.launch_graph(stream, graph).unwrap();
            driver.destroy_graph(graph).unwrap();
            let error = driver.launch_graph(stream, graph).unwrap_err();
            assert!(
                matches!(error, DriverError::Code { call, .. } if call == "replaying a graph"),
                "{error:?}"
            );
        }
        assert!(lock(&driver.captures).is_empty() && lock(&driver.graphs).is_empty());
    }
}
