//! The architectures that PTX is made for.

use std::fmt;
use std::str::FromStr;

/// A virtual architecture: the oldest GPU that can load the PTX.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum NvvmArch {
    /// sm_75, Turing.
    #[default]
    Compute75,
    /// sm_80, Ampere.
    Compute80,
    /// sm_90, Hopper.
    Compute90,
}

impl NvvmArch {
    /// All of them, oldest first.
    pub const ALL: [Self; 3] = [Self::Compute75, Self::Compute80, Self::Compute90];

    /// LLVM's and ptxas's name: `sm_75`.
    pub const fn target_cpu(self) -> &'static str {
        match self {
            Self::Compute75 => "sm_75",
            Self::Compute80 => "sm_80",
            Self::Compute90 => "sm_90",
        }
    }

    /// The number in the name: 75 for compute capability 7.5.
    pub const fn capability(self) -> u32 {
        match self {
            Self::Compute75 => 75,
            Self::Compute80 => 80,
            Self::Compute90 => 90,
        }
    }

    /// LLVM's feature for the PTX ISA version that is written. A newer `.version` needs a newer driver, so this is the
    /// oldest that has everything `cuda_std` offers: 7.4 for `L1::no_allocate` and `L2::128B` (driver 470 and up), 8.0
    /// for `cp.async.bulk.prefetch` on sm_90 (driver 525 and up).
    pub const fn ptx_feature(self) -> &'static str {
        match self {
            Self::Compute75 | Self::Compute80 => "ptx74",
            Self::Compute90 => "ptx80",
        }
    }
}

impl fmt::Display for NvvmArch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.target_cpu())
    }
}

/// A name that is not in [`NvvmArch::ALL`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a supported architecture: use sm_75, sm_80 or sm_90")]
pub struct UnknownArch(String);

impl FromStr for NvvmArch {
    type Err = UnknownArch;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|arch| arch.target_cpu() == name)
            .ok_or_else(|| UnknownArch(name.to_owned()))
    }
}
