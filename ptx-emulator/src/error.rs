//! Every way in which loading, using or running can fail.

use std::fmt;

use thiserror::Error;

/// PTX text that cannot be loaded.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("PTX line {line}: {message}")]
pub struct LoadError {
    /// Line of the PTX text, counted from 1. 0 where the text as a whole is at fault.
    pub line: usize,
    /// What is wrong, naming the instruction or directive.
    pub message: String,
}

impl LoadError {
    pub(crate) fn new(line: usize, message: impl Into<String>) -> Self {
        Self {
            line,
            message: message.into(),
        }
    }
}

/// A host-side operation on device memory that was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MemoryError {
    /// An allocation of zero bytes was asked for.
    #[error("an allocation needs at least one byte")]
    ZeroSize,
    /// The device's memory limit would be exceeded.
    #[error(
        "out of device memory: {requested} bytes asked for, {available} of {limit} bytes are free"
    )]
    OutOfMemory {
        /// Bytes asked for.
        requested: u64,
        /// Bytes not yet allocated.
        available: u64,
        /// The limit in [`Config::memory_limit`](crate::Config::memory_limit).
        limit: u64,
    },
    /// `free` was given an address that is not the start of a live allocation.
    #[error("{address:#x} is not the start of a live allocation")]
    NotAnAllocation {
        /// The address given.
        address: u64,
    },
    /// A host access that does not lie within one live allocation.
    #[error("host access to {address:#x}, {length} bytes, is outside every live allocation{}", nearest_suffix(.nearest))]
    OutOfBounds {
        /// First byte of the access.
        address: u64,
        /// Its length in bytes.
        length: u64,
        /// The allocation nearest to it.
        nearest: Option<NearestAllocation>,
    },
}

fn nearest_suffix(nearest: &Option<NearestAllocation>) -> String {
    nearest
        .as_ref()
        .map(|nearest| format!(" ({nearest})"))
        .unwrap_or_default()
}

/// The allocation nearest to a faulting address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NearestAllocation {
    /// First address of the allocation.
    pub base: u64,
    /// Length in bytes.
    pub len: u64,
    /// Where the access starts, relative to `base`.
    pub offset: i128,
    /// Name of the module variable, where the allocation is one.
    pub name: Option<String>,
    /// Whether the allocation has been freed.
    pub freed: bool,
}

impl fmt::Display for NearestAllocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            base, len, offset, ..
        } = self;
        if *offset < 0 {
            write!(f, "{} bytes before", -offset)?;
        } else if *offset >= i128::from(*len) {
            write!(f, "{} bytes past the end of", offset - i128::from(*len))?;
        } else {
            write!(f, "at byte {offset} of")?;
        }
        if self.freed {
            write!(f, " the freed")?;
        }
        match &self.name {
            Some(name) => write!(f, " variable `{name}` of {len} bytes at {base:#x}"),
            None => write!(f, " allocation of {len} bytes at {base:#x}"),
        }
    }
}

/// A launch that was refused, or stopped by a fault.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum LaunchError {
    /// The module has no entry of that name.
    #[error("no entry named `{name}`; the module has: {known}")]
    NoSuchEntry {
        /// The name asked for.
        name: String,
        /// The names there are, separated by commas.
        known: String,
    },
    /// The module was loaded on another emulator.
    #[error("the module was loaded on another emulator; load it on this one")]
    ForeignModule,
    /// Wrong number of arguments.
    #[error("`{entry}` takes {expected} arguments, {given} were given")]
    ArgumentCount {
        /// The entry.
        entry: String,
        /// How many it takes.
        expected: usize,
        /// How many were given.
        given: usize,
    },
    /// An argument of the wrong size.
    #[error("argument {index} of `{entry}` (`{name}`) is {expected} bytes, {given} were given")]
    ArgumentSize {
        /// The entry.
        entry: String,
        /// Position of the argument, from 0.
        index: usize,
        /// Name of the parameter in the PTX.
        name: String,
        /// Its size in bytes.
        expected: usize,
        /// Bytes given.
        given: usize,
    },
    /// A grid or block shape that no device accepts.
    #[error("{what} is {value}, must be from 1 to {limit}")]
    Shape {
        /// Which dimension.
        what: &'static str,
        /// Its value.
        value: u64,
        /// The largest allowed.
        limit: u64,
    },
    /// The block has more threads than the entry's `.maxntid` allows, or not the shape that `.reqntid` requires.
    #[error(
        "block of {block:?} does not fit `{entry}`, which is compiled for {directive} {limit:?}"
    )]
    BlockDirective {
        /// The entry.
        entry: String,
        /// The block asked for.
        block: [u32; 3],
        /// `.maxntid` or `.reqntid`.
        directive: &'static str,
        /// Its values.
        limit: [u32; 3],
    },
    /// More shared memory than a block can have.
    #[error(
        "`{entry}` needs {asked} bytes of shared memory (static and dynamic), a block has at most {limit}"
    )]
    SharedMemory {
        /// The entry.
        entry: String,
        /// Static and dynamic bytes.
        asked: u64,
        /// Most bytes a block can have.
        limit: u64,
    },
    /// A cooperative launch with more blocks than are resident at once.
    #[error("a cooperative launch of {blocks} blocks; at most {limit} are resident at once")]
    CooperativeTooLarge {
        /// Blocks asked for.
        blocks: u64,
        /// Most resident blocks.
        limit: u64,
    },
    /// A symbol that the entry uses is declared `.extern`, but defined nowhere.
    #[error("`{entry}` uses `{symbol}`, which the module declares but does not define")]
    Unresolved {
        /// The entry.
        entry: String,
        /// The symbol.
        symbol: String,
    },
    /// The kernel did something undefined, trapped, or passed a limit.
    #[error(transparent)]
    Fault(Box<Fault>),
}

/// State space of a faulting access.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Space {
    Global,
    Shared,
    Local,
    Const,
    Param,
}

impl fmt::Display for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Global => "global",
            Self::Shared => "shared",
            Self::Local => "local",
            Self::Const => "const",
            Self::Param => "param",
        })
    }
}

/// Another access that takes part in a fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// PTX line.
    pub line: usize,
    /// The instruction there.
    pub instruction: String,
    /// Source file and line, where the PTX has `.loc` directives.
    pub source: Option<(String, usize)>,
    /// Block index within the grid.
    pub block: [u32; 3],
    /// Thread within the block.
    pub thread: [u32; 3],
    /// Whether it wrote.
    pub write: bool,
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let access = if self.write { "write" } else { "read" };
        write!(
            f,
            "the {access} at line {} (`{}`",
            self.line, self.instruction
        )?;
        if let Some((file, line)) = &self.source {
            write!(f, ", {file}:{line}")?;
        }
        write!(f, ") by thread {:?}", self.thread)
    }
}

/// What a kernel did wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FaultKind {
    /// An access outside every allocation of its space.
    OutOfBounds {
        /// Bytes accessed.
        size: u32,
    },
    /// An address that is not a multiple of the access size.
    Misaligned {
        /// Required alignment in bytes.
        required: u32,
    },
    /// An access to memory that was freed.
    UseAfterFree {
        /// Bytes accessed.
        size: u32,
    },
    /// A store to constant memory or to a kernel parameter.
    ReadOnly,
    /// A read of memory that was never written.
    UninitializedMemory {
        /// Bytes accessed.
        size: u32,
    },
    /// A read of a register that was never written.
    UninitializedRegister {
        /// Its name in the PTX.
        register: String,
    },
    /// Two accesses to shared memory, one of them a write, with nothing that orders them.
    SharedRace {
        /// The earlier access.
        other: Site,
    },
    /// Two accesses to global memory, one of them a write, with nothing that orders them.
    GlobalRace {
        /// The access that came first, or that of the lower block.
        other: Site,
    },
    /// An access to shared memory that an asynchronous copy may still be using, because nothing has waited for it.
    UnfinishedCopy {
        /// The copy writes the bytes; otherwise it reads them, and the access is a write.
        writes: bool,
    },
    /// A barrier that only some lanes of a warp reached.
    DivergentBarrier {
        /// The lanes that are there.
        active: u32,
        /// The lanes that should be.
        expected: u32,
    },
    /// A barrier that can never complete, because threads exited or wait elsewhere.
    BarrierNotReached {
        /// Barrier number.
        barrier: u32,
        /// Threads that wait there.
        arrived: u32,
        /// Threads it waits for.
        expected: u32,
    },
    /// A barrier with an impossible number or thread count.
    InvalidBarrier {
        /// What is wrong.
        reason: String,
    },
    /// A `.sync` instruction whose member mask names lanes that do not take part, or leaves out one that does.
    InactiveLane {
        /// The lane that is missing, or that is read.
        lane: u32,
    },
    /// Threads wait for each other without end.
    Deadlock,
    /// Integer division or remainder by zero, whose result PTX leaves unspecified.
    DivisionByZero,
    /// `trap`, or the end of a function that must not return.
    Trap,
    /// `brkpt` without a debugger.
    Breakpoint,
    /// The block ran more warp instructions than [`Config::instruction_limit`](crate::Config::instruction_limit).
    InstructionLimit {
        /// The limit.
        limit: u64,
    },
    /// Calls nested deeper than a thread's stack allows.
    StackOverflow,
    /// An indirect branch or call whose target is not in its list.
    InvalidTarget,
    /// Operands for which the ISA gives the instruction no meaning.
    InvalidOperand {
        /// What is wrong.
        reason: String,
    },
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfBounds { size } => write!(f, "out-of-bounds access of {size} bytes"),
            Self::Misaligned { required } => {
                write!(f, "misaligned access, which needs a multiple of {required}")
            }
            Self::UseAfterFree { size } => {
                write!(f, "access of {size} bytes to memory that was freed")
            }
            Self::ReadOnly => write!(f, "store to read-only memory"),
            Self::UninitializedMemory { size } => {
                write!(f, "read of {size} bytes, some of which were never written")
            }
            Self::UninitializedRegister { register } => {
                write!(f, "read of register {register}, which was never written")
            }
            Self::SharedRace { other } => write!(f, "shared-memory race with {other}"),
            Self::GlobalRace { other } => {
                write!(
                    f,
                    "global-memory race with {other} of block {:?}",
                    other.block
                )
            }
            Self::UnfinishedCopy { writes } => write!(
                f,
                "access to bytes that an asynchronous copy may still {}: nothing has waited for it",
                if *writes { "write" } else { "read" }
            ),
            Self::DivergentBarrier { active, expected } => write!(
                f,
                "barrier reached by lanes {active:#010x} only, of {expected:#010x}"
            ),
            Self::BarrierNotReached {
                barrier,
                arrived,
                expected,
            } => write!(
                f,
                "barrier {barrier} can never complete: {arrived} of {expected} threads wait there"
            ),
            Self::InvalidBarrier { reason } => write!(f, "invalid barrier: {reason}"),
            Self::InactiveLane { lane } => write!(
                f,
                "lane {lane} is named or read, but does not take part in this instruction"
            ),
            Self::Deadlock => write!(f, "threads wait for each other without end"),
            Self::DivisionByZero => write!(f, "integer division by zero"),
            Self::Trap => write!(f, "trap"),
            Self::Breakpoint => write!(f, "brkpt without a debugger"),
            Self::InstructionLimit { limit } => {
                write!(f, "the block ran more than {limit} warp instructions")
            }
            Self::StackOverflow => write!(f, "the thread's stack is used up"),
            Self::InvalidTarget => write!(f, "the target is not in the list of possible targets"),
            Self::InvalidOperand { reason } => write!(f, "{reason}"),
        }
    }
}

/// Something undefined that a kernel did, and where.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    /// What happened.
    pub kind: FaultKind,
    /// Name of the entry that was launched.
    pub kernel: String,
    /// Line of the PTX text, counted from 1.
    pub ptx_line: usize,
    /// The instruction, as it is written there.
    pub instruction: String,
    /// Source file and line, where the PTX has `.loc` directives.
    pub source: Option<(String, usize)>,
    /// Block index within the grid.
    pub block: [u32; 3],
    /// Thread index within the block.
    pub thread: [u32; 3],
    /// Address of the access, relative to its state space.
    pub address: Option<u64>,
    /// State space of the access.
    pub space: Option<Space>,
    /// The allocation nearest to a global address.
    pub nearest: Option<NearestAllocation>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind)?;
        if let (Some(space), Some(address)) = (self.space, self.address) {
            write!(f, " at {space} address {address:#x}")?;
        }
        if let Some(nearest) = &self.nearest {
            write!(f, ", {nearest}")?;
        }
        write!(
            f,
            "; kernel `{}`, PTX line {}: `{}`",
            self.kernel, self.ptx_line, self.instruction
        )?;
        if let Some((file, line)) = &self.source {
            write!(f, " ({file}:{line})")?;
        }
        write!(f, ", block {:?}, thread {:?}", self.block, self.thread)
    }
}

impl std::error::Error for Fault {}
