//! What the commands print.

use anyhow::Context;
use ptx_emulator::{Fault, FaultKind, Report, Site, WaitReason, Waiter, command_line};
use serde_json::json;

pub fn fault_json(fault: &Fault) -> serde_json::Value {
    let other = match &fault.kind {
        FaultKind::SharedRace { other } | FaultKind::GlobalRace { other } => Some(site_json(other)),
        _ => None,
    };
    let waiting: Vec<_> = fault.waiting.iter().map(waiter_json).collect();
    json!({
        "message": fault.to_string(),
        "kind": fault.kind.to_string(),
        "kernel": fault.kernel,
        "ptx_line": fault.ptx_line,
        "instruction": fault.instruction,
        "source": fault.source,
        "block": fault.block,
        "thread": fault.thread,
        "space": fault.space.map(|space| space.to_string()),
        "address": fault.address,
        "nearest": fault.nearest.as_ref().map(ToString::to_string),
        "other": other,
        "waiting": waiting,
    })
}

fn site_json(site: &Site) -> serde_json::Value {
    json!({
        "ptx_line": site.line,
        "instruction": site.instruction,
        "source": site.source,
        "block": site.block,
        "thread": site.thread,
        "write": site.write,
    })
}

fn waiter_json(waiter: &Waiter) -> serde_json::Value {
    let (reason, which) = match waiter.reason {
        WaitReason::Barrier(number) => ("barrier", Some(number)),
        WaitReason::Lanes(lanes) => ("lanes", Some(lanes)),
        WaitReason::Memory => ("memory", None),
    };
    json!({
        "ptx_line": waiter.line,
        "instruction": waiter.instruction,
        "source": waiter.source,
        "block": waiter.block,
        "thread": waiter.thread,
        "threads": waiter.threads,
        "for": reason,
        "which": which,
    })
}

/// Writes to stdout.
pub fn put(text: &str) -> anyhow::Result<()> {
    command_line::put(text).context("cannot write to stdout")
}

/// The counters of a launch, a line each.
pub fn counters(report: &Report) -> String {
    let counters = &report.counters;
    let mut text = "instructions          lanes        warps\n".to_owned();
    let (lane, warp) = (&counters.lane, &counters.warp);
    for (name, lanes, warps) in [
        ("total", lane.total, warp.total),
        ("integer", lane.integer, warp.integer),
        ("float", lane.float, warp.float),
        ("dp4a", lane.dp4a, warp.dp4a),
        ("load global", lane.load_global, warp.load_global),
        ("store global", lane.store_global, warp.store_global),
        ("shared", lane.shared, warp.shared),
        ("branch", lane.branch, warp.branch),
        ("other", lane.other, warp.other),
    ] {
        text += &format!("  {name:<12} {lanes:>12} {warps:>12}\n");
    }
    let global = &counters.global;
    text += &format!(
        "global loads          {} requests, {} sectors, {} bytes, {:.1} % of the sectors' bytes\n",
        global.load_requests,
        global.load_sectors,
        global.bytes_read,
        100.0 * global.load_efficiency()
    );
    text += &format!(
        "global stores         {} requests, {} sectors, {} bytes, {:.1} % of the sectors' bytes\n",
        global.store_requests,
        global.store_sectors,
        global.bytes_written,
        100.0 * global.store_efficiency()
    );
    let shared = &counters.shared;
    text += &format!(
        "shared memory         {} requests, {} wavefronts, {} of them bank conflicts\n",
        shared.requests, shared.wavefronts, shared.bank_conflicts
    );
    text += &format!("divergent branches    {}\n", counters.divergent_branches);
    text += &format!("barrier arrivals      {}\n", counters.barriers);
    text
}
