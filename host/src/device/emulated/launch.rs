//! One launch on the emulator, and what it did to the buffers passed to it.

use std::sync::Arc;

use ptx_emulator::{LaunchError, LoadedModule};

use super::{
    super::{
        driver::{DriverError, Parameter},
        launch::LaunchConfig,
        profile::{ArgumentTraffic, LaunchReport},
    },
    EmulatedDriver,
};

#[derive(Debug)]
pub(super) struct Kernel {
    pub(super) module: Arc<LoadedModule>,
    pub(super) name: String,
}

#[derive(Debug)]
pub(super) struct Launch {
    pub(super) kernel: Arc<Kernel>,
    pub(super) config: LaunchConfig,
    pub(super) parameters: Vec<Parameter>,
}

impl EmulatedDriver {
    pub(super) fn run(&self, launch: &Launch) -> Result<(), DriverError> {
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
