//! One kernel for each thing that can go wrong: the fault is of the right kind, at the right line, and nothing else is.

#[path = "../harness/mod.rs"]
mod harness;

mod between_blocks;
mod dependent_launches;
mod execution;
mod initialization;
mod launches;
mod matrix;
mod memory;
mod ordered_blocks;
mod planted;
mod races;
mod synchronization;

use harness::{Arg, Bench, HEADER, line};
use ptx_emulator::{Config, Fault, LaunchConfig, LaunchError};

/// A kernel with a buffer. The faulty line is marked by `/*!*/`.
fn kernel(body: &str) -> String {
    format!(
        "{HEADER}
.extern .func __assertfail (.param .b64 p0, .param .b64 p1, .param .b32 p2, .param .b64 p3, .param .b64 p4);
.extern .shared .align 16 .b8 dynamic[];
.visible .entry k(.param .u64 buffer)
{{
.reg .pred %p<8>;
.reg .b16 %h<4>;
.reg .b32 %r<16>;
.reg .b64 %rd<8>;
.shared .align 16 .b8 cells[1024];
ld.param.u64 %rd1, [buffer];
mov.u32 %r1, %tid.x;
mov.u32 %r2, %ctaid.x;
shl.b32 %r3, %r1, 2;
mov.u32 %r4, cells;
add.u32 %r5, %r4, %r3;
mul.wide.u32 %rd2, %r1, 4;
add.s64 %rd3, %rd1, %rd2;
{body}
ret;
}}
"
    )
}

fn marked_line(ptx: &str) -> usize {
    let marked: Vec<_> = ptx
        .lines()
        .enumerate()
        .filter(|(_, line)| line.contains("/*!*/"))
        .map(|(index, _)| index + 1)
        .collect();
    assert_eq!(marked.len(), 1, "one line is marked");
    marked[0]
}

fn outcome(ptx: &str, shape: LaunchConfig, config: Config) -> Result<Vec<u32>, LaunchError> {
    let mut buffer = vec![0; 256];
    Bench::with(ptx, config).run("k", shape, &mut [Arg::Words(&mut buffer)])?;
    Ok(buffer)
}

/// Runs a kernel that must fault at its marked line.
fn fault_with(body: &str, shape: LaunchConfig, config: Config) -> Fault {
    let ptx = kernel(body);
    match outcome(&ptx, shape, config) {
        Err(LaunchError::Fault(fault)) => {
            assert_eq!(fault.ptx_line, marked_line(&ptx), "{fault}");
            assert_eq!(fault.kernel, "k");
            assert!(!fault.instruction.is_empty());
            *fault
        }
        other => panic!("{other:?}\n{body}"),
    }
}

fn fault(body: &str, threads: u32) -> Fault {
    fault_with(body, line(threads), Config::default())
}

fn silent(body: &str, threads: u32) {
    if let Err(error) = outcome(&kernel(body), line(threads), Config::default()) {
        panic!("{error}\n{body}");
    }
}
