//! Operands that are no registers of the PTX: what their rows hold.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClockKind {
    Low,
    High,
    Full,
}

/// Special registers whose value a warp keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Special {
    Tid(u8),
    Ntid(u8),
    Ctaid(u8),
    Nctaid(u8),
    LaneId,
    WarpId,
    NWarpId,
    SmId,
    NSmId,
    /// `%envreg<n>`, which the driver fills.
    EnvReg(u8),
    GridId,
    LaneMaskEq,
    LaneMaskLe,
    LaneMaskLt,
    LaneMaskGe,
    LaneMaskGt,
    DynamicSmemSize,
    TotalSmemSize,
    AggrSmemSize,
    /// Registers that are the same number for every thread.
    Fixed(u32),
}

/// Value that a constant row gets when a frame is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Constant {
    Value(u64),
    /// Address of a module variable within its state space, or generic.
    Variable {
        index: u32,
        offset: i64,
        generic: bool,
    },
    /// Address within the frame's local memory.
    Local {
        offset: u32,
        add: i64,
        generic: bool,
    },
    /// Address of a kernel parameter.
    KernelParam {
        offset: u32,
        generic: bool,
    },
    Function(u32),
    /// The low bits of a special register.
    Special {
        special: Special,
        bits: u8,
    },
}
