//! The device and the state it is in, for the record.

use anyhow::{Context, Result};
use bitnet_cuda::device::{Device, DeviceKind};
use bitnet_cuda::launch::ptx_for;
use cust_lazy::ffi;
use kernel_benches::{self as record, Clocks};
use std::ffi::{CStr, c_int};
use std::process::Command;

pub fn device(device: &Device) -> Result<record::Device> {
    let capabilities = device.capabilities();
    let (arch, _) = ptx_for(capabilities.compute_capability)
        .with_context(|| format!("{} is older than any PTX in this program", device.name()))?;
    Ok(record::Device {
        kind: match device.kind() {
            DeviceKind::Cuda => "cuda",
            DeviceKind::Emulated => "emulated",
        }
        .to_owned(),
        name: device.name().to_owned(),
        compute_capability: capabilities.compute_capability,
        multiprocessors: capabilities.multiprocessors,
        memory_bytes: capabilities.memory_bytes,
        l2_bytes: capabilities.l2_bytes,
        driver: capabilities
            .driver_version
            .map(|version| format!("{}.{}", version / 1000, version % 1000 / 10)),
        ptx: format!("sm_{arch}"),
        clocks: None,
    })
}

/// What nvidia-smi says of a GPU; none where there is no nvidia-smi, or no GPU.
pub fn clocks(device: &Device) -> Option<Clocks> {
    const QUERY: &str =
        "--query-gpu=clocks.sm,clocks.mem,clocks.max.sm,temperature.gpu,driver_version";
    let id = pci_bus_id(device)?;
    let output = Command::new("nvidia-smi")
        .args([QUERY, "--format=csv,noheader,nounits", "--id", &id])
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    parse(&String::from_utf8_lossy(&output.stdout))
}

/// What names a GPU to nvidia-smi, which numbers GPUs by their bus, and does not know `CUDA_VISIBLE_DEVICES`. CUDA numbers the fastest first.
fn pci_bus_id(device: &Device) -> Option<String> {
    let ordinal = device.name().strip_prefix("cuda:")?.split(' ').next()?;
    let gpu = cust::device::Device::get_device(ordinal.parse().ok()?).ok()?;
    let mut id = [0_u8; 32];
    // SAFETY: the device handle is valid, and `id` for writes of its length.
    let code = unsafe {
        ffi::cuDeviceGetPCIBusId(id.as_mut_ptr().cast(), id.len() as c_int, gpu.as_raw())
    };
    let id = CStr::from_bytes_until_nul(&id).ok()?;
    (code == 0).then(|| id.to_string_lossy().into_owned())
}

fn parse(line: &str) -> Option<Clocks> {
    let fields: Vec<&str> = line.trim().split(',').map(str::trim).collect();
    // A field that the GPU does not have says so in words.
    let number = |index: usize| fields.get(index)?.parse().ok();
    let clocks = Clocks {
        sm_mhz: number(0),
        memory_mhz: number(1),
        max_sm_mhz: number(2),
        temperature_c: number(3),
        driver_package: fields.get(4).map(ToString::to_string),
    };
    (fields.len() == 5).then_some(clocks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_nvidia_smi_is_read() {
        let clocks = parse("1980, 3201, 1980, 34, 550.54.15\n").expect("five fields");
        assert_eq!(
            (clocks.sm_mhz, clocks.memory_mhz, clocks.temperature_c),
            (Some(1980), Some(3201), Some(34))
        );
        assert_eq!(clocks.driver_package.as_deref(), Some("550.54.15"));
        let partly = parse("[N/A], 3201, 1980, [N/A], 550.54.15").expect("five fields");
        assert_eq!((partly.sm_mhz, partly.max_sm_mhz), (None, Some(1980)));
        assert_eq!(parse("No devices were found"), None);
    }
}
