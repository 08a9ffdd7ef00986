//! A primary context: what is alive in it, and the work that is pending.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    ffi::{c_int, c_void},
    sync::Arc,
    thread::{self, ThreadId},
};

use ptx_emulator::{Config, Emulator, FaultKind, LaunchConfig, LaunchError, LoadedModule};

use crate::{
    driver::MEMORY_BYTES,
    pools::Pool,
    status::{
        ILLEGAL_ADDRESS, INVALID_HANDLE, LAUNCH_FAILED, MISALIGNED_ADDRESS,
        STREAM_CAPTURE_IMPLICIT, STREAM_CAPTURE_INVALIDATED, STREAM_CAPTURE_UNSUPPORTED,
    },
};

/// The null stream. Unlike CUDA's, it waits for no other: what relies on that goes wrong here. It refuses what CUDA's cannot wait for.
pub(crate) const LEGACY_STREAM: Handle = 0;

/// A handle, as the caller holds it: the GPU's ordinal is above its lowest bits.
pub(crate) type Handle = usize;

const HANDLE_BITS: u32 = 32;

/// The GPU that a handle belongs to.
pub(crate) fn owner(handle: Handle) -> usize {
    handle >> HANDLE_BITS
}

pub(crate) struct Context {
    /// Shared with copies to other GPUs.
    pub(crate) emulator: Arc<Emulator>,
    /// The code that every call returns since the context failed.
    pub(crate) lost: Option<c_int>,
    pub(crate) allocations: HashMap<u64, usize>,
    /// Those of `cuMemAllocAsync` which their stream has not come to, or has come past: nothing may access them.
    pub(crate) absent: HashSet<u64>,
    /// Those that were made during a capture.
    pub(crate) of_graphs: HashSet<u64>,
    /// By handle; the device's own is there once it has been used.
    pub(crate) pools: HashMap<Handle, Pool>,
    /// The pool of each allocation that is of one.
    pub(crate) pooled: HashMap<u64, Handle>,
    /// Page-locked ranges of the host, by address.
    pub(crate) registered: HashMap<usize, usize>,
    /// The GPUs whose memory this context may access.
    pub(crate) peers: HashSet<usize>,
    pub(crate) streams: HashMap<Handle, Stream>,
    /// Destroyed streams whose work is still pending.
    pub(crate) departed: Vec<Handle>,
    pub(crate) events: HashMap<Handle, Option<Mark>>,
    pub(crate) modules: HashMap<Handle, Module>,
    pub(crate) functions: HashMap<Handle, Function>,
    pub(crate) graphs: HashMap<Handle, Vec<Work>>,
    pub(crate) executables: HashMap<Handle, Arc<[Work]>>,
    last_handle: Handle,
    /// Works done so far: the double's clock.
    clock: u64,
}

#[derive(Default)]
pub(crate) struct Stream {
    pub(crate) pending: VecDeque<Work>,
    pub(crate) submitted: u64,
    /// When each event's work was done, by its number.
    pub(crate) recorded: HashMap<u64, u64>,
    pub(crate) capture: Option<Capture>,
    /// Made with `CU_STREAM_NON_BLOCKING`: the legacy stream does not wait for it.
    pub(crate) non_blocking: bool,
}

pub(crate) struct Capture {
    pub(crate) works: Vec<Work>,
    pub(crate) invalid: bool,
    pub(crate) mode: CaptureMode,
    /// The thread that began it.
    pub(crate) thread: ThreadId,
}

/// `CUstreamCaptureMode`: which calls of which threads a capture forbids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CaptureMode {
    Global,
    ThreadLocal,
    Relaxed,
}

/// The place of an event among the work of a stream.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mark {
    pub(crate) stream: Handle,
    pub(crate) number: u64,
}

pub(crate) struct Module {
    pub(crate) parsed: Arc<ptx_emulator::Module>,
    pub(crate) loaded: Arc<LoadedModule>,
}

pub(crate) struct Function {
    pub(crate) module: Handle,
    pub(crate) name: String,
    pub(crate) max_dynamic_shared: u32,
}

/// A copy of rows within the device.
#[derive(Clone, Copy)]
pub(crate) struct CopyRows {
    pub(crate) to: u64,
    pub(crate) to_pitch: usize,
    pub(crate) from: u64,
    pub(crate) from_pitch: usize,
    pub(crate) width: usize,
    pub(crate) rows: usize,
}

#[derive(Clone)]
pub(crate) enum Work {
    Launch {
        function: Handle,
        config: LaunchConfig,
        /// Whether it may start before what is in front of it has ended. The double runs it in order all the same.
        programmatic: bool,
        arguments: Vec<Vec<u8>>,
    },
    ToDevice {
        address: u64,
        host: usize,
        len: usize,
    },
    ToHost {
        host: usize,
        address: u64,
        len: usize,
    },
    Fill {
        address: u64,
        value: u8,
        len: usize,
    },
    CopyRows(CopyRows),
    FromPeer {
        address: u64,
        peer: Arc<Emulator>,
        peer_address: u64,
        len: usize,
    },
    /// From here on, memory of `cuMemAllocAsync` can be accessed.
    Allocate(u64),
    Free(u64),
    /// Until the graph's next replay, memory of its own cannot be accessed.
    FreeOfGraph(u64),
    Record,
    Wait(Mark),
    /// What an executable graph had when it was submitted.
    Graph(Handle, Arc<[Work]>),
}

impl Context {
    pub(crate) fn new(ordinal: usize) -> Self {
        Self {
            emulator: Arc::new(Emulator::new(Config {
                compute_capability: 90,
                memory_limit: MEMORY_BYTES,
                ..Config::default()
            })),
            lost: None,
            allocations: HashMap::new(),
            absent: HashSet::new(),
            of_graphs: HashSet::new(),
            pools: HashMap::new(),
            pooled: HashMap::new(),
            registered: HashMap::new(),
            peers: HashSet::new(),
            streams: HashMap::from([(LEGACY_STREAM, Stream::default())]),
            departed: Vec::new(),
            events: HashMap::new(),
            modules: HashMap::new(),
            functions: HashMap::new(),
            graphs: HashMap::new(),
            executables: HashMap::new(),
            last_handle: ordinal << HANDLE_BITS | 0x1000,
            clock: 0,
        }
    }

    pub(crate) fn new_handle(&mut self) -> Handle {
        self.last_handle += 0x10;
        self.last_handle
    }

    pub(crate) fn alive(&self) -> u64 {
        let streams = self.streams.len() - self.departed.len() - 1;
        let count = self.allocations.len()
            + self.registered.len()
            + self.pools.keys().filter(|&&pool| pool != 0).count()
            + streams
            + self.events.len()
            + self.modules.len()
            + self.graphs.len()
            + self.executables.len();
        count as u64
    }

    pub(crate) fn stream(&mut self, handle: *mut c_void) -> Result<&mut Stream, c_int> {
        let handle = handle.addr();
        if self.departed.contains(&handle) {
            return Err(INVALID_HANDLE);
        }
        self.streams.get_mut(&handle).ok_or(INVALID_HANDLE)
    }

    /// Adds work to a stream, or to the graph that is captured from it.
    pub(crate) fn submit(&mut self, stream: *mut c_void, work: Work) -> Result<u64, c_int> {
        if stream.addr() == LEGACY_STREAM {
            // It would have to wait for a capture that is not over.
            let mut blocking = self
                .streams
                .values_mut()
                .filter(|stream| !stream.non_blocking);
            if let Some(capture) = blocking.find_map(|stream| stream.capture.as_mut()) {
                capture.invalid = true;
                return Err(STREAM_CAPTURE_IMPLICIT);
            }
        }
        let stream = self.stream(stream)?;
        match &mut stream.capture {
            Some(capture) if capture.invalid => return Err(STREAM_CAPTURE_INVALIDATED),
            Some(capture) => capture.works.push(work),
            None => {
                stream.pending.push_back(work);
                stream.submitted += 1;
            }
        }
        Ok(stream.submitted)
    }

    /// Fails for an address in memory that is not there at this point of the streams.
    fn present(&self, address: u64) -> Result<(), c_int> {
        let holds = |base: &&u64| {
            let len = self.allocations.get(*base).map_or(0, |&len| len as u64);
            (**base..**base + len).contains(&address)
        };
        match self.absent.iter().find(holds) {
            Some(_) => Err(ILLEGAL_ADDRESS),
            None => Ok(()),
        }
    }

    /// Fails for what the reference of `cuThreadExchangeStreamCaptureMode` calls a potentially unsafe call, where a capture that is not
    /// relaxed goes on, and spoils that capture.
    pub(crate) fn refuse_unsafe_call(&mut self) -> Result<(), c_int> {
        let here = thread::current().id();
        let mut refused = Ok(());
        for capture in self
            .streams
            .values_mut()
            .filter_map(|stream| stream.capture.as_mut())
        {
            let forbids = match capture.mode {
                CaptureMode::Global => true,
                CaptureMode::ThreadLocal => capture.thread == here,
                CaptureMode::Relaxed => false,
            };
            if forbids {
                capture.invalid = true;
                refused = Err(STREAM_CAPTURE_UNSUPPORTED);
            }
        }
        refused
    }

    pub(crate) fn synchronize(&mut self) -> Result<(), c_int> {
        for stream in self.streams.values_mut() {
            refuse_capture(stream)?;
        }
        let streams: Vec<Handle> = self.streams.keys().copied().collect();
        for stream in streams {
            self.run_until(stream, u64::MAX)?;
        }
        for stream in std::mem::take(&mut self.departed) {
            self.streams.remove(&stream);
        }
        self.release_unused();
        Ok(())
    }

    /// Runs a stream's work up to its n-th. What has run before is complete: the host or a stream waits for it.
    pub(crate) fn run_until(&mut self, handle: Handle, number: u64) -> Result<(), c_int> {
        self.emulator.synchronize();
        loop {
            let Some(stream) = self.streams.get_mut(&handle) else {
                return Ok(());
            };
            let next = stream.submitted - stream.pending.len() as u64 + 1;
            if next > number {
                return Ok(());
            }
            let Some(work) = stream.pending.pop_front() else {
                return Ok(());
            };
            if let Work::Record = work {
                stream.recorded.insert(next, self.clock);
            }
            if let Err(code) = self.run(&work) {
                self.lost = Some(code);
                return Err(code);
            }
            self.clock += 1;
        }
    }

    fn run(&mut self, work: &Work) -> Result<(), c_int> {
        let memory = |_| ILLEGAL_ADDRESS;
        match work {
            Work::Launch {
                function,
                config,
                arguments,
                ..
            } => {
                // Whatever has the size of a pointer: no other value comes near the addresses.
                for bytes in arguments {
                    if let Ok(bytes) = bytes.as_slice().try_into() {
                        self.present(u64::from_ne_bytes(bytes))?;
                    }
                }
                let function = self.functions.get(function).ok_or(LAUNCH_FAILED)?;
                let module = self.modules.get(&function.module).ok_or(LAUNCH_FAILED)?;
                let arguments: Vec<&[u8]> = arguments.iter().map(Vec::as_slice).collect();
                self.emulator
                    .launch(&module.loaded, &function.name, config, &arguments)
                    .map(drop)
                    .map_err(|error| fault_code(&error))
            }
            &Work::ToDevice { address, host, len } => {
                self.present(address)?;
                let host = std::ptr::with_exposed_provenance::<u8>(host);
                // SAFETY: the caller of the copy keeps the host memory until the stream is synchronized.
                let bytes = unsafe { std::slice::from_raw_parts(host, len) };
                self.emulator.write(address, bytes).map_err(memory)
            }
            &Work::ToHost { host, address, len } => {
                self.present(address)?;
                let host = std::ptr::with_exposed_provenance_mut::<u8>(host);
                // SAFETY: as above, and nothing else accesses the memory meanwhile.
                let bytes = unsafe { std::slice::from_raw_parts_mut(host, len) };
                self.emulator.read(address, bytes).map_err(memory)
            }
            &Work::Fill {
                address,
                value,
                len,
            } => {
                self.present(address)?;
                self.emulator.fill(address, value, len).map_err(memory)
            }
            Work::CopyRows(copy) => {
                self.present(copy.to)?;
                self.present(copy.from)?;
                (0..copy.rows).try_for_each(|row| {
                    let (to, from) = ((row * copy.to_pitch) as u64, (row * copy.from_pitch) as u64);
                    self.emulator
                        .copy(copy.to + to, copy.from + from, copy.width)
                        .map_err(memory)
                })
            }
            Work::FromPeer {
                address,
                peer,
                peer_address,
                len,
            } => {
                self.present(*address)?;
                let mut bytes = vec![0; *len];
                peer.read(*peer_address, &mut bytes).map_err(memory)?;
                self.emulator.write(*address, &bytes).map_err(memory)
            }
            Work::Allocate(address) => {
                self.absent.remove(address);
                Ok(())
            }
            Work::FreeOfGraph(address) => {
                self.absent.insert(*address);
                Ok(())
            }
            Work::Free(address) => {
                self.present(*address)?;
                self.forget(*address).ok_or(ILLEGAL_ADDRESS)?;
                self.emulator.free(*address).map_err(memory)
            }
            Work::Record => Ok(()),
            Work::Wait(mark) => {
                self.run_until(mark.stream, mark.number)?;
                self.emulator.synchronize();
                Ok(())
            }
            Work::Graph(graph, works) => {
                if !self.executables.contains_key(graph) {
                    return Err(LAUNCH_FAILED);
                }
                // A graph comes after what is in front of it on the stream, and before what follows.
                self.emulator.synchronize();
                works.iter().try_for_each(|work| self.run(work))?;
                self.emulator.synchronize();
                Ok(())
            }
        }
    }
}

/// Waiting for a stream that is being captured is an error, and spoils the capture.
pub(crate) fn refuse_capture(stream: &mut Stream) -> Result<(), c_int> {
    match &mut stream.capture {
        Some(capture) => {
            capture.invalid = true;
            Err(STREAM_CAPTURE_UNSUPPORTED)
        }
        None => Ok(()),
    }
}

fn fault_code(error: &LaunchError) -> c_int {
    match error {
        LaunchError::Fault(fault) => match fault.kind {
            FaultKind::OutOfBounds { .. }
            | FaultKind::UseAfterFree { .. }
            | FaultKind::ReadOnly => ILLEGAL_ADDRESS,
            FaultKind::Misaligned { .. } => MISALIGNED_ADDRESS,
            _ => LAUNCH_FAILED,
        },
        _ => LAUNCH_FAILED,
    }
}
