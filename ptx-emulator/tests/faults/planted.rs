//! A planted bug for each kind of finding: it is found, alone and at its line, with every check on and with only its own; and the
//! repaired kernel is silent.

mod kernels;

use std::collections::BTreeSet;

use ptx_emulator::{Checks, Config, Fault, LaunchConfig, LaunchError};

use super::{kernel, marked_line, outcome};
use kernels::{PLANTED, Planted, Switch};

fn only(switch: Switch) -> Checks {
    let mut checks = Checks::NONE;
    match switch {
        Switch::Memory => checks.memory = true,
        Switch::Initialization => checks.initialization = true,
        Switch::Races => checks.races = true,
        Switch::Synchronization => checks.synchronization = true,
        Switch::Always => {}
    }
    checks
}

fn all_but(switch: Switch) -> Checks {
    let (off, all) = (only(switch), Checks::ALL);
    Checks {
        memory: all.memory && !off.memory,
        initialization: all.initialization && !off.initialization,
        races: all.races && !off.races,
        synchronization: all.synchronization && !off.synchronization,
    }
}

fn text(body: &str) -> String {
    let text = kernel(body).replace(
        ".visible .entry k",
        ".const .align 4 .u32 fixed = 5;
.func endless()
{
/*~*/ call endless;
ret;
}
.visible .entry before(.param .u64 buffer)
{
.reg .b32 %r<2>;
.reg .b64 %rd<4>;
ld.param.u64 %rd1, [buffer];
mov.u32 %r1, %tid.x;
mul.wide.u32 %rd2, %r1, 4;
add.s64 %rd3, %rd1, %rd2;
st.global.u32 [%rd3], %r1;
ret;
}
.visible .entry k",
    );
    if body.contains("call endless") {
        text.replace("/*~*/", "/*!*/")
    } else {
        text
    }
}

fn run(body: &str, shape: LaunchConfig, checks: Checks) -> Result<(), LaunchError> {
    let config = Config {
        checks,
        instruction_limit: Some(200_000),
        ..Config::default()
    };
    if body.contains("// freed") {
        return launch_with_freed_buffer(&text(body), shape, config);
    }
    if body.contains("// follows") {
        return launch_after_another(&text(body), shape, config);
    }
    outcome(&text(body), shape, config).map(drop)
}

fn launch_with_freed_buffer(
    ptx: &str,
    shape: LaunchConfig,
    config: Config,
) -> Result<(), LaunchError> {
    let device = ptx_emulator::Emulator::new(config);
    let module = std::sync::Arc::new(ptx_emulator::Module::parse(ptx).unwrap());
    let loaded = device.load(&module).unwrap();
    let buffer = device.alloc(1024).unwrap();
    device.free(buffer).unwrap();
    device
        .launch(&loaded, "k", &shape, &[&buffer.to_le_bytes()])
        .map(drop)
}

fn launch_after_another(ptx: &str, shape: LaunchConfig, config: Config) -> Result<(), LaunchError> {
    let device = ptx_emulator::Emulator::new(config);
    let module = std::sync::Arc::new(ptx_emulator::Module::parse(ptx).unwrap());
    let loaded = device.load(&module).unwrap();
    let buffer = device.alloc(1024).unwrap().to_le_bytes();
    device.launch(&loaded, "before", &shape, &[&buffer])?;
    device.launch(&loaded, "k", &shape, &[&buffer]).map(drop)
}

/// The name of a variant, as it is written.
fn variant(fault: &Fault) -> String {
    let text = format!("{:?}", fault.kind);
    text.split([' ', '{', '(']).next().unwrap().to_owned()
}

fn find(planted: &Planted, checks: Checks) -> Fault {
    match run(planted.broken, (planted.shape)(), checks) {
        Err(LaunchError::Fault(fault)) => *fault,
        other => panic!("{}: {other:?}", planted.kind),
    }
}

#[test]
fn each_is_found_where_it_is() {
    for planted in PLANTED {
        for checks in [Checks::ALL, only(planted.switch)] {
            let fault = find(planted, checks);
            assert_eq!(variant(&fault), planted.kind, "{fault}");
            let ptx = text(planted.broken);
            assert_eq!(fault.ptx_line, marked_line(&ptx), "{fault}");
            assert_eq!(fault.kernel, "k");
            let marked = ptx.lines().nth(fault.ptx_line - 1).unwrap();
            assert!(marked.contains(fault.instruction.as_str()), "{fault}");
        }
    }
}

#[test]
fn each_repaired_kernel_is_silent() {
    // Whatever is checked: `all_but(Always)` is everything.
    let switches = [
        Switch::Always,
        Switch::Memory,
        Switch::Initialization,
        Switch::Races,
        Switch::Synchronization,
    ];
    for planted in PLANTED {
        for checks in switches.map(all_but) {
            if let Err(error) = run(planted.repaired, (planted.shape)(), checks) {
                panic!("{}, {checks:?}: {error}", planted.kind);
            }
        }
    }
}

/// Each is found by its own check, and by no other one.
#[test]
fn each_has_its_switch() {
    for planted in PLANTED {
        let outcome = run(planted.broken, (planted.shape)(), all_but(planted.switch));
        match (planted.switch, outcome) {
            (Switch::Always, Err(LaunchError::Fault(_))) => {}
            // What would never end is ended by the limit.
            (Switch::Synchronization, Err(LaunchError::Fault(fault)))
                if planted.kind == "Deadlock" =>
            {
                assert_eq!(variant(&fault), "InstructionLimit");
            }
            (Switch::Always, other) => panic!("{}: {other:?}", planted.kind),
            (_, other) => other.unwrap_or_else(|error| panic!("{}: {error}", planted.kind)),
        }
    }
}

/// The table has every kind there is, as the source declares them.
#[test]
fn every_kind_is_planted() {
    let source = include_str!("../../src/fault.rs");
    let (_, body) = source.split_once("pub enum FaultKind {").unwrap();
    let (body, _) = body.split_once("\n}").unwrap();
    let declared: BTreeSet<_> = body
        .lines()
        .filter_map(|line| line.strip_prefix("    "))
        .filter(|line| line.starts_with(|first: char| first.is_ascii_uppercase()))
        .map(|line| line.split([' ', ',', '(']).next().unwrap())
        .collect();
    let planted: BTreeSet<_> = PLANTED.iter().map(|planted| planted.kind).collect();
    assert!(declared.len() > 15, "{declared:?}");
    assert_eq!(declared, planted);
}

/// Memory that is never freed is found at the end of the device, with its size and the line that allocated it.
#[test]
fn leaks() {
    let device = ptx_emulator::Emulator::new(Config::default());
    let kept = device.alloc(100).unwrap();
    let freed = device.alloc(200).unwrap();
    let (line, forgotten) = (line!(), device.alloc(300).unwrap());
    let module = std::sync::Arc::new(ptx_emulator::Module::parse(&text("")).unwrap());
    let loaded = device.load(&module).unwrap();
    device.free(freed).unwrap();
    let error = device.clone().close().unwrap_err();
    let sizes: Vec<_> = error.leaks.iter().map(|leak| leak.bytes).collect();
    assert_eq!(sizes, [100, 300]);
    let last = error.leaks[1];
    assert_eq!((last.address, last.allocated_at.line()), (forgotten, line));
    assert_eq!(last.allocated_at.file(), file!());
    assert!(error.to_string().contains("300 bytes"), "{error}");
    device.free(kept).unwrap();
    device.free(forgotten).unwrap();
    // Variables of a module that is loaded are its own.
    assert_eq!(device.close(), Ok(()));
    drop(loaded);
    // Not looked for with the check off.
    let unchecked = ptx_emulator::Emulator::new(Config {
        checks: all_but(Switch::Memory),
        ..Config::default()
    });
    unchecked.alloc(8).unwrap();
    assert_eq!(unchecked.leaks().len(), 1);
    assert_eq!(unchecked.close(), Ok(()));
}
