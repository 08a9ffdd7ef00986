//! Runs NVIDIA PTX on the CPU, checks it and counts what it does.
//!
//! A [`Module`] is parsed PTX. An [`Emulator`] is a device with memory: it loads modules and launches their kernels, one warp of
//! 32 lanes at a time. A launch that does something undefined by the PTX ISA ends with a [`Fault`] that says where and why;
//! otherwise it returns a [`Report`] with exact counts.
//!
//! ```
//! use std::sync::Arc;
//! use ptx_emulator::{Config, Emulator, LaunchConfig, Module};
//!
//! let ptx = "
//!     .version 7.0
//!     .target sm_75
//!     .address_size 64
//!     .visible .entry twice(.param .u64 data)
//!     {
//!         .reg .b32 %r<4>;
//!         .reg .b64 %rd<5>;
//!         ld.param.u64 %rd1, [data];
//!         cvta.to.global.u64 %rd2, %rd1;
//!         mov.u32 %r1, %tid.x;
//!         mul.wide.u32 %rd3, %r1, 4;
//!         add.s64 %rd4, %rd2, %rd3;
//!         ld.global.u32 %r2, [%rd4];
//!         add.u32 %r3, %r2, %r2;
//!         st.global.u32 [%rd4], %r3;
//!         ret;
//!     }";
//! let module = Arc::new(Module::parse(ptx)?);
//! let device = Emulator::new(Config::default());
//! let loaded = device.load(&module)?;
//! let data = device.alloc(8)?;
//! device.write(data, &[1, 0, 0, 0, 21, 0, 0, 0])?;
//! let shape = LaunchConfig { grid: [1, 1, 1], block: [2, 1, 1], dynamic_shared: 0, cooperative: false };
//! let report = device.launch(&loaded, "twice", &shape, &[&data.to_le_bytes()])?;
//! let mut out = [0; 8];
//! device.read(data, &mut out)?;
//! assert_eq!(out, [2, 0, 0, 0, 42, 0, 0, 0]);
//! assert_eq!(report.counters.global.load_sectors, 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod arith;
#[cfg(feature = "cli")]
pub mod command_line;
mod device;
mod error;
mod exec;
mod fault;
mod isa;
mod load;
mod profile;
mod report;
mod syntax;

pub use device::{Checks, Config, Emulator, LaunchConfig, LoadedModule};
pub use error::{LaunchError, Leak, LeakError, LoadError, MemoryError, NearestAllocation};
pub use fault::{Fault, FaultKind, Site, Space, WaitReason, Waiter};
pub use load::{EntryInfo, Module, ParamInfo};
pub use profile::Profile;
pub use report::{
    AllocationTraffic, Counters, GlobalCounters, Instructions, LineCounts, Report, SharedCounters,
    SourceCounts,
};
