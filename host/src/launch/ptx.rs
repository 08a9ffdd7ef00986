//! The compiled kernels, and the choice among them for a device.

use super::LaunchError;
use crate::device::{Device, Module};

/// The architectures that PTX is compiled for, ascending: `sm_75` is 75.
pub const PTX_ARCHITECTURES: [u32; 3] = [75, 80, 90];

const PTX: [&str; PTX_ARCHITECTURES.len()] = [
    include_str!("../../ptx/sm_75/bitnet.ptx"),
    include_str!("../../ptx/sm_80/bitnet.ptx"),
    include_str!("../../ptx/sm_90/bitnet.ptx"),
];

/// The PTX for a compute capability, and its architecture: the newest one that is not newer than the device. `None` before 7.5.
pub fn ptx_for((major, minor): (u32, u32)) -> Option<(u32, &'static str)> {
    let newest = PTX_ARCHITECTURES
        .iter()
        .rposition(|&arch| arch <= major * 10 + minor)?;
    Some((PTX_ARCHITECTURES[newest], PTX[newest]))
}

/// This library's kernels on a device; loaded at the first call.
///
/// # Errors
/// [`LaunchError::NoPtx`] on devices older than sm_75, and the driver's error if it cannot load the PTX.
pub fn kernels(device: &Device) -> Result<Module, LaunchError> {
    let capability = device.compute_capability();
    let (_, ptx) = ptx_for(capability).ok_or_else(|| LaunchError::NoPtx {
        device: device.name().to_owned(),
        capability,
    })?;
    Ok(device.load_static_module(ptx)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_gets_the_newest_ptx_that_it_can_run() {
        let chosen = |capability| ptx_for(capability).map(|(arch, _)| arch);
        assert_eq!(chosen((7, 0)), None);
        assert_eq!(chosen((7, 5)), Some(75));
        assert_eq!(chosen((8, 6)), Some(80));
        assert_eq!(chosen((8, 9)), Some(80));
        assert_eq!(chosen((9, 0)), Some(90));
        assert_eq!(chosen((12, 0)), Some(90));
    }

    #[test]
    fn no_kernel_can_panic() {
        for (arch, ptx) in PTX_ARCHITECTURES.iter().zip(PTX) {
            let found = ptx.lines().find(|line| line.contains("panic"));
            assert_eq!(found, None, "sm_{arch}");
        }
    }

    #[test]
    fn each_ptx_is_for_the_architecture_of_its_folder() {
        for (arch, ptx) in PTX_ARCHITECTURES.iter().zip(PTX) {
            assert!(
                ptx.lines()
                    .any(|line| line.trim_end() == format!(".target sm_{arch}")),
                "sm_{arch}"
            );
        }
    }
}
