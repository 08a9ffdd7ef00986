//! Every way in which loading, using or launching can fail.

use std::fmt;
use std::panic::Location;

use thiserror::Error;

use crate::fault::Fault;

/// PTX text that cannot be loaded.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{}{message}", place(*line))]
pub struct LoadError {
    /// Line of the PTX text, counted from 1. 0 where the text as a whole is at fault.
    pub line: usize,
    /// What is wrong, naming the instruction or directive.
    pub message: String,
}

/// Nothing where the text as a whole is at fault.
fn place(line: usize) -> String {
    match line {
        0 => String::new(),
        line => format!("PTX line {line}: "),
    }
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
    #[error("host access to {address:#x}, {length} bytes, does not lie within one live allocation{}", nearest_suffix(.nearest))]
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

/// An allocation that is still alive when its device ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leak {
    /// First address.
    pub address: u64,
    /// Length in bytes.
    pub bytes: u64,
    /// Where the host allocated it.
    pub allocated_at: &'static Location<'static>,
}

impl fmt::Display for Leak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            address,
            bytes,
            allocated_at,
        } = self;
        write!(
            f,
            "{bytes} bytes at {address:#x}, allocated at {allocated_at}"
        )
    }
}

/// Allocations that nobody freed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{} allocations were never freed: {}", .leaks.len(), list(.leaks))]
pub struct LeakError {
    /// All of them, by ascending address.
    pub leaks: Vec<Leak>,
}

fn list(leaks: &[Leak]) -> String {
    let texts: Vec<_> = leaks.iter().map(Leak::to_string).collect();
    texts.join("; ")
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
    /// No room for the workspace of a cooperative launch.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The kernel did something undefined, trapped, or passed a limit.
    #[error(transparent)]
    Fault(Box<Fault>),
}
