//! What a kernel did wrong, and where.

use std::fmt;

use crate::error::NearestAllocation;

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

/// Another access involved in a fault.
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
    /// An access that does not lie within one allocation of its space.
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
    /// A use of a register that was never written, or copied from what was never written.
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
    /// A read by `ld.global.nc` of bytes that the same launch writes, in whatever order.
    NonCoherentRead {
        /// The access that came first, or that of the lower block: the read or the write.
        other: Site,
    },
    /// An access to global memory that a launch before this one may still be using, because nothing orders it after
    /// `griddepcontrol.wait`.
    BeforeGridDependency {
        /// The kernel of the launch that came before.
        other: String,
        /// That one writes the allocation; otherwise it reads it, and the access is a write.
        wrote: bool,
    },
    /// An access to shared memory that an asynchronous copy may still be using, because nothing has waited for it.
    UnfinishedCopy {
        /// Whether the copy writes the bytes; otherwise it reads them, and the access is a write.
        writes: bool,
    },
    /// A barrier that only some lanes of a warp reached.
    DivergentBarrier {
        /// The lanes that are there.
        active: u32,
        /// The lanes that should be.
        expected: u32,
    },
    /// A branch, call or return with `.uni` at which the lanes of a warp diverge.
    DivergentUniform {
        /// The lanes that go one way.
        active: u32,
        /// The lanes that came to it.
        executing: u32,
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
    /// Threads wait without end, some of them in a loop that nothing they read will end. [`Fault::waiting`] says who
    /// waits where.
    Deadlock,
    /// An instruction uses a register that has no value because it comes from a division of an integer by zero: PTX
    /// leaves quotient and remainder unspecified.
    DivisionByZero {
        /// The register.
        register: String,
        /// The PTX line of the division.
        line: usize,
    },
    /// `trap`, or the end of a function that must not return.
    Trap,
    /// A failed `assert`.
    AssertionFailed {
        /// The condition, as it is written.
        message: String,
        /// Source file.
        file: String,
        /// Line in it.
        line: u32,
        /// The function, as the compiler names it.
        function: String,
    },
    /// `brkpt` without a debugger.
    Breakpoint,
    /// The block ran more warp instructions than [`Config::instruction_limit`](crate::Config::instruction_limit).
    InstructionLimit {
        /// The limit.
        limit: u64,
        /// Lines of the PTX text that the block ran from there on, in ascending order.
        lines: Vec<usize>,
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
                write!(
                    f,
                    "read of register {register}, whose value was never written"
                )
            }
            Self::SharedRace { other } => write!(f, "shared-memory race with {other}"),
            Self::GlobalRace { other } => {
                write!(
                    f,
                    "global-memory race with {other} of block {:?}",
                    other.block
                )
            }
            Self::NonCoherentRead { other } => write!(
                f,
                "{} (`.nc`), which must not change during the launch: {other} of block {:?}",
                if other.write {
                    "non-coherent read of what the launch writes"
                } else {
                    "write of what the launch reads without coherence"
                },
                other.block
            ),
            Self::BeforeGridDependency { other, wrote } => write!(
                f,
                "access before `griddepcontrol.wait`: kernel `{other}`, launched earlier, may still be {}",
                if *wrote { "writing" } else { "reading" }
            ),
            Self::UnfinishedCopy { writes } => write!(
                f,
                "access to bytes that an asynchronous copy may still {}: nothing has waited for it",
                if *writes { "write" } else { "read" }
            ),
            Self::DivergentBarrier { active, expected } => write!(
                f,
                "barrier reached by lanes {active:#010x} only, of {expected:#010x}"
            ),
            Self::DivergentUniform { active, executing } => write!(
                f,
                "lanes diverge at `.uni`: {active:#010x} of {executing:#010x} go one way"
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
            Self::Deadlock => write!(f, "deadlock: threads wait without end"),
            Self::DivisionByZero { register, line } => write!(
                f,
                "read of register {register}, which has no value after the integer division by zero in line {line}"
            ),
            Self::Trap => write!(f, "trap"),
            Self::AssertionFailed {
                message,
                file,
                line,
                function,
            } => write!(
                f,
                "assertion `{message}` failed in {file}:{line}, `{function}`"
            ),
            Self::Breakpoint => write!(f, "brkpt without a debugger"),
            Self::InstructionLimit { limit, lines } => {
                write!(f, "the block ran more than {limit} warp instructions")?;
                let mut separator = "; from there on it ran lines";
                for run in lines.chunk_by(|line, next| line + 1 == *next) {
                    write!(f, "{separator} {}", run[0])?;
                    if run.len() > 1 {
                        write!(f, " to {}", run[run.len() - 1])?;
                    }
                    separator = ",";
                }
                Ok(())
            }
            Self::StackOverflow => write!(f, "the thread's stack overflows"),
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
    /// For a deadlock: which threads wait where.
    pub waiting: Vec<Waiter>,
    /// What the kernel had printed, up to the faulting block.
    pub printed: String,
}

/// What threads wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitReason {
    /// A barrier of the block, by number.
    Barrier(u32),
    /// Lanes of their warp, by mask.
    Lanes(u32),
    /// They loop, and go on only if another thread changes memory.
    Memory,
}

/// Threads of a warp that wait at one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiter {
    /// Block index within the grid.
    pub block: [u32; 3],
    /// The first of the threads.
    pub thread: [u32; 3],
    /// How many they are.
    pub threads: u32,
    /// PTX line.
    pub line: usize,
    /// The instruction there.
    pub instruction: String,
    /// Source file and line, where the PTX has `.loc` directives.
    pub source: Option<(String, usize)>,
    /// What for.
    pub reason: WaitReason,
}

impl fmt::Display for Waiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { block, thread, .. } = self;
        write!(f, "block {block:?}, thread {thread:?}")?;
        if self.threads > 1 {
            write!(f, " and {} more of its warp", self.threads - 1)?;
        }
        match self.reason {
            WaitReason::Barrier(number) => write!(f, " at barrier {number}")?,
            WaitReason::Lanes(lanes) => write!(f, " for lanes {lanes:#010x}")?,
            WaitReason::Memory => write!(f, " in a loop")?,
        }
        write!(f, ", line {}: `{}`", self.line, self.instruction)
    }
}

/// Waiters that a fault's text names.
const NAMED_WAITERS: usize = 4;

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
        write!(f, ", block {:?}, thread {:?}", self.block, self.thread)?;
        for (index, waiter) in self.waiting.iter().take(NAMED_WAITERS).enumerate() {
            write!(
                f,
                "{} {waiter}",
                if index == 0 { "; waiting:" } else { ";" }
            )?;
        }
        match self.waiting.len().saturating_sub(NAMED_WAITERS) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

impl std::error::Error for Fault {}
