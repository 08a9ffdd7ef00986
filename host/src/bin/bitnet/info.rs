//! `bitnet info`.

use crate::output::{Outcome, Output, table};
use anyhow::Result;
use bitnet_cuda::device::{Device, DeviceKind};
use bitnet_cuda::launch::ptx_for;
use kernel_benches::launched;
use serde::Serialize;

#[derive(Serialize)]
struct Report {
    devices: Vec<Row>,
    /// Of each GPU that cannot be opened, why.
    unusable: Vec<String>,
    /// Why there is no GPU, where there is none.
    no_gpu: Option<String>,
    /// What `--device auto` gives.
    auto: String,
}

#[derive(Serialize)]
struct Row {
    name: String,
    kind: &'static str,
    compute_capability: String,
    multiprocessors: u32,
    memory_bytes: usize,
    l2_bytes: usize,
    shared_bytes_per_block: u32,
    driver_version: Option<String>,
    /// The architecture of the PTX that it gets; none where it is too old.
    ptx: Option<String>,
    /// Whether kernels start before the preceding one has finished.
    programmatic_launch: bool,
}

fn row(device: &Device) -> Row {
    let capabilities = device.capabilities();
    let (major, minor) = capabilities.compute_capability;
    Row {
        name: device.name().to_owned(),
        kind: match device.kind() {
            DeviceKind::Cuda => "cuda",
            DeviceKind::Emulated => "emulated",
        },
        compute_capability: format!("{major}.{minor}"),
        multiprocessors: capabilities.multiprocessors,
        memory_bytes: capabilities.memory_bytes,
        l2_bytes: capabilities.l2_bytes,
        shared_bytes_per_block: capabilities.shared_bytes_per_block_optin,
        driver_version: capabilities
            .driver_version
            .map(|version| format!("{}.{}", version / 1000, version % 1000 / 10)),
        ptx: ptx_for(capabilities.compute_capability).map(|(arch, _)| format!("sm_{arch}")),
        programmatic_launch: device.programmatic_launch(),
    }
}

pub fn run(name: &str, output: Output) -> Result<Outcome> {
    let mut report = Report {
        devices: Vec::new(),
        unusable: Vec::new(),
        no_gpu: None,
        auto: String::new(),
    };
    if name == "auto" {
        match Device::cuda_count() {
            Ok(0) => report.no_gpu = Some("the NVIDIA driver lists no GPU".to_owned()),
            Ok(count) => {
                for ordinal in 0..count {
                    match Device::cuda(ordinal) {
                        Ok(device) => report.devices.push(row(&device)),
                        Err(error) => report.unusable.push(error.to_string()),
                    }
                }
            }
            Err(error) => report.no_gpu = Some(error.to_string()),
        }
        report.devices.push(row(&Device::emulated()?));
    } else {
        report.devices.push(row(&Device::from_name(name)?));
    }
    report.auto = Device::auto()?.name().to_owned();
    output.print(&report, text)?;
    Ok(Outcome::Right)
}

fn text(report: &Report) -> String {
    let rows: Vec<_> = report
        .devices
        .iter()
        .map(|row| {
            vec![
                row.name.clone(),
                row.compute_capability.clone(),
                row.multiprocessors.to_string(),
                format!("{:.1} GiB", row.memory_bytes as f64 / f64::from(1 << 30)),
                format!("{} MiB", row.l2_bytes >> 20),
                format!("{} KiB", row.shared_bytes_per_block >> 10),
                row.driver_version.clone().unwrap_or_else(|| "-".to_owned()),
                row.ptx.clone().unwrap_or_else(|| "too old".to_owned()),
                launched(row.programmatic_launch).to_owned(),
            ]
        })
        .collect();
    let head = [
        "device",
        "capability",
        "SMs",
        "memory",
        "L2",
        "shared/block",
        "driver",
        "PTX",
        "launches",
    ];
    let mut text = table(&head, &rows);
    for reason in &report.unusable {
        text += &format!("\nNot usable: {reason}\n");
    }
    if let Some(reason) = &report.no_gpu {
        text += &format!("\nNo GPU: {reason}\n");
    }
    text + &format!("\n--device auto is {}\n", report.auto)
}
