//! Any kernel runs to its end, is stopped by a finding, or is refused; and does so again in the same way.
//!
//! An input is three bytes (grid, block, options) and the PTX. Parameters of 8 bytes are buffers, others small numbers.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use ptx_emulator::{Checks, Config, Emulator, LaunchConfig, LaunchError, Module, Report};

const BUFFER: usize = 4096;

fn run(
    module: &Arc<Module>,
    entry: &str,
    config: &Config,
    shape: &LaunchConfig,
) -> Option<(Result<Report, LaunchError>, Vec<u8>)> {
    let device = Emulator::new(config.clone());
    let loaded = device.load(module).ok()?;
    let mut buffers = Vec::new();
    let mut args = Vec::new();
    for param in &module.entry(entry)?.params {
        let mut bytes = vec![0; param.size];
        if param.size == 8 {
            let address = device.alloc(BUFFER).ok()?;
            device.fill(address, 1, BUFFER).ok()?;
            buffers.push(address);
            bytes.copy_from_slice(&address.to_le_bytes());
        } else if let Some(first) = bytes.first_mut() {
            *first = 33;
        }
        args.push(bytes);
    }
    let slices: Vec<_> = args.iter().map(Vec::as_slice).collect();
    let outcome = device.launch(&loaded, entry, shape, &slices);
    let mut memory = vec![0; BUFFER * buffers.len()];
    for (address, out) in buffers.iter().zip(memory.chunks_mut(BUFFER)) {
        device.read(*address, out).ok()?;
    }
    Some((outcome, memory))
}

fuzz_target!(|data: &[u8]| {
    let [grid, block, options, text @ ..] = data else {
        return;
    };
    let Ok(text) = std::str::from_utf8(text) else {
        return;
    };
    let Ok(module) = Module::parse(text) else {
        return;
    };
    let module = Arc::new(module);
    let bit = |at: u8| options >> at & 1 != 0;
    let config = Config {
        checks: Checks {
            memory: !bit(0),
            initialization: !bit(1),
            races: !bit(2),
            synchronization: !bit(3),
        },
        memory_limit: 16 << 20,
        instruction_limit: Some(20_000),
        seed: bit(4).then_some(7),
        ..Config::default()
    };
    let shape = LaunchConfig {
        grid: [1 + u32::from(grid % 4), 1, 1],
        block: [1 + u32::from(block % 96), 1, 1],
        dynamic_shared: if bit(5) { 2048 } else { 0 },
        cooperative: bit(6),
    };
    let entries: Vec<String> = module.entries().map(|entry| entry.name.clone()).collect();
    for entry in entries.iter().take(2) {
        let Some((outcome, memory)) = run(&module, entry, &config, &shape) else {
            continue;
        };
        if let Err(LaunchError::Fault(fault)) = &outcome {
            assert!(fault.ptx_line >= 1 && fault.ptx_line <= text.lines().count(), "{fault}");
        }
        let again = run(&module, entry, &config, &shape);
        assert!(again == Some((outcome, memory)), "`{entry}` is not deterministic");
    }
});
