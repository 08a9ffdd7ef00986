//! Decoded instructions.

use super::types::{
    ByteFloat, Combine, Compare, CompareType, FloatMode, HalfType, IntType, Rounding, Type,
};

/// Index of a register row within a function's frame. Immediates, symbol addresses and special registers that
/// do not change while a warp runs have rows of their own, filled when the frame is made: an operand is always a row.
pub(crate) type Slot = u32;

/// The row that is always zero. It stands for unused operands, so that every operand can be checked alike.
pub(crate) const ZERO_SLOT: Slot = 0;

/// Destination of results that nobody wants (`_`).
pub(crate) const SINK_SLOT: Slot = 1;

/// Index of a predicate. Slot 0 is always true.
pub(crate) type PredSlot = u16;

/// Destination of predicates that nobody wants.
pub(crate) const SINK_PRED: PredSlot = 1;

/// A predicate operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pred {
    pub(crate) slot: PredSlot,
    pub(crate) negated: bool,
}

impl Pred {
    pub(crate) const TRUE: Self = Self {
        slot: 0,
        negated: false,
    };
}

/// One decoded instruction.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Inst {
    pub(crate) op: Op,
    pub(crate) guard: Pred,
    pub(crate) dst: Slot,
    pub(crate) src: [Slot; 4],
}

/// What an instruction does. Operands are in [`Inst::dst`] and [`Inst::src`], unless said otherwise.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Op {
    Nop,
    Mov,
    MovPred {
        dst: PredSlot,
        src: Pred,
    },
    /// `and.pred` and its like.
    PredLogic {
        op: PredOp,
        dst: PredSlot,
        a: Pred,
        b: Pred,
    },
    /// `mov.b64 d, {a, b}`: sources are pool entries.
    Pack(Elements),
    /// `mov.b64 {d, e}, a`: destinations are pool entries.
    Unpack(Elements),
    Int(IntOp, IntType),
    /// On both 16-bit halves of 32 bits.
    IntPair(IntOp, IntType),
    IntUnary(IntUnaryOp, IntType),
    /// Three operands.
    Mad(MadOp, IntType),
    /// Arithmetic on the condition-code register.
    Carry {
        op: CarryOp,
        ty: IntType,
        carry_in: bool,
        carry_out: bool,
    },
    Lop3(u8),
    /// `lop3.op.b32 d|p`: the result is non-zero, combined with a predicate.
    Lop3Pred {
        lut: u8,
        or: bool,
        dst: PredSlot,
        src: Pred,
    },
    Shf {
        left: bool,
        clamp: bool,
    },
    Bfe(IntType),
    Bfi {
        wide: bool,
    },
    Bfind {
        ty: IntType,
        shift_amount: bool,
    },
    Bmsk {
        clamp: bool,
    },
    Szext {
        clamp: bool,
        signed: bool,
    },
    Prmt(PrmtMode),
    Fns,
    Dp4a {
        a_signed: bool,
        b_signed: bool,
    },
    Dp2a {
        a_signed: bool,
        b_signed: bool,
        high: bool,
    },
    SetP {
        compare: Compare,
        ty: CompareType,
        combine: Combine,
        with: Pred,
        dst: PredSlot,
        dst_not: PredSlot,
    },
    /// `setp.f16x2`: a predicate for each half.
    SetPHalf2 {
        compare: Compare,
        ty: HalfType,
        ftz: bool,
        combine: Combine,
        with: Pred,
        dst: PredSlot,
        dst_high: PredSlot,
    },
    Set {
        compare: Compare,
        ty: CompareType,
        combine: Combine,
        with: Pred,
        /// The result where it holds.
        yes: u32,
    },
    /// `set` on pairs: a result for each half.
    SetHalf2 {
        compare: Compare,
        ty: HalfType,
        ftz: bool,
        combine: Combine,
        with: Pred,
        yes: u16,
    },
    Selp(Pred),
    Slct {
        float: bool,
        ftz: bool,
    },
    F32(FloatOp, FloatMode),
    F64(FloatOp, FloatMode),
    Half {
        op: FloatOp,
        ty: HalfType,
        pair: bool,
        mode: FloatMode,
    },
    TestP {
        test: FloatTest,
        double: bool,
        dst: PredSlot,
    },
    Cvt(Conversion),
    /// `cvt.…x2.f32 d, a, b`: `a` to the upper half.
    CvtPair {
        to: HalfType,
        mode: FloatMode,
        satfinite: bool,
    },
    /// `cvt` from a pair to `.e4m3x2` or `.e5m2x2`. Of `.f32`, there are two operands, the first to the upper half.
    CvtToBytes {
        to: ByteFloat,
        from_f32: bool,
        relu: bool,
    },
    /// `cvt.rn.f16x2` from `.e4m3x2` or `.e5m2x2`.
    CvtFromBytes {
        from: ByteFloat,
        relu: bool,
    },
    /// `cvt.pack.sat.….s32{.b32} d, a, b{, c}`: two results of some bits.
    CvtPack {
        bits: u8,
        signed: bool,
    },
    /// Index into the function's accesses.
    Load(u32),
    Store(u32),
    Atomic(u32),
    /// Address of a space to a generic address.
    CvtaFrom(Window),
    /// Generic address to an address of a space.
    CvtaTo(Window),
    IsSpace {
        space: Window,
        dst: PredSlot,
    },
    Branch {
        target: u32,
    },
    /// `brx.idx`: index into the function's branch tables.
    BranchIndexed(u32),
    /// Index into the function's calls.
    Call(u32),
    Ret,
    Exit,
    Trap,
    Breakpoint,
    Barrier(BarrierOp),
    WarpSync,
    Shfl {
        mode: ShflMode,
        dst: PredSlot,
    },
    Vote {
        mode: VoteMode,
        src: Pred,
        dst: PredSlot,
    },
    Match {
        all: bool,
        dst: PredSlot,
    },
    Redux(ReduxOp),
    Elect {
        dst: PredSlot,
    },
    ActiveMask,
    /// Index into the function's asynchronous operations.
    Async(u32),
    /// `mbarrier.pending_count`.
    PendingCount,
    /// Index into the function's `mma` instructions.
    Mma(u32),
    /// `movmatrix`.
    TransposeMatrix,
    /// Index into the function's `ldmatrix` and `stmatrix` instructions.
    MoveMatrix(u32),
    Fence(Fence),
    /// `griddepcontrol`.
    GridDependency(GridDependency),
    /// A special register whose value changes while the warp runs.
    Clock(ClockKind),
}

/// `count` pool entries of `bits` each.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Elements {
    pub(crate) pool: u32,
    pub(crate) count: u8,
    pub(crate) bits: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PredOp {
    And,
    Or,
    Xor,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IntOp {
    Add,
    AddSat,
    Sub,
    SubSat,
    MulLo,
    MulHi,
    /// Result of twice the width.
    MulWide,
    Mul24Lo,
    Mul24Hi,
    Div,
    Rem,
    Min,
    Max,
    MinRelu,
    MaxRelu,
    And,
    Or,
    Xor,
    Shl,
    Shr,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IntUnaryOp {
    Neg,
    Abs,
    Not,
    Cnot,
    Clz,
    Popc,
    Brev,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MadOp {
    Lo,
    Hi,
    HiSat,
    Wide,
    Lo24,
    Hi24,
    Hi24Sat,
    Sad,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CarryOp {
    Add,
    Sub,
    MadLo,
    MadHi,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PrmtMode {
    Index,
    F4e,
    B4e,
    Rc8,
    Ecl,
    Ecr,
    Rc16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FloatOp {
    Add,
    Sub,
    Mul,
    Fma,
    Div,
    /// `div.approx`.
    DivApprox,
    Min,
    Max,
    Sqrt,
    Rcp,
    Neg,
    Abs,
    Copysign,
    Rsqrt,
    Sin,
    Cos,
    Lg2,
    Ex2,
    Tanh,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FloatTest {
    Finite,
    Infinite,
    Number,
    NotANumber,
    Normal,
    Subnormal,
}

/// `cvt`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Conversion {
    pub(crate) to: Type,
    pub(crate) from: Type,
    pub(crate) rounding: Rounding,
    /// `.rni` and its like: the result is integral.
    pub(crate) integral: bool,
    pub(crate) ftz: bool,
    pub(crate) sat: bool,
    pub(crate) relu: bool,
    /// `.satfinite`: what would be infinite becomes the largest number.
    pub(crate) satfinite: bool,
    /// Width of the destination register, to which integers are extended.
    pub(crate) register_bits: u8,
}

/// Spaces that generic addressing reaches through a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Window {
    Global,
    Shared,
    Local,
    Const,
    Param,
}

/// Space named by a load or store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum AccessSpace {
    Generic,
    Global,
    Const,
    Shared,
    Local,
    /// Parameters of the kernel.
    KernelParam,
    /// Parameters of device functions, which live in the frame.
    FrameParam,
}

/// Operands of a load, store or atomic. The address is `src[0]` plus `offset`.
#[derive(Debug, Clone)]
pub(crate) struct Access {
    pub(crate) space: AccessSpace,
    pub(crate) offset: i64,
    /// Bytes of an element.
    pub(crate) bytes: u8,
    /// Sign-extend an element to its register.
    pub(crate) signed: bool,
    /// Rows of the elements: destinations of a load, sources of a store or of an atomic on a vector.
    pub(crate) elements: Vec<Slot>,
    /// Rows that an atomic on a vector gives its old elements to.
    pub(crate) results: Vec<Slot>,
    /// Widths of the destination registers.
    pub(crate) register_bits: u8,
    pub(crate) ordering: Ordering,
    pub(crate) scope: Scope,
    pub(crate) atomic: Option<AtomicOp>,
}

/// Memory-model strength of an access.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ordering {
    Weak,
    /// `.volatile`, `.relaxed`.
    Relaxed,
    Acquire,
    Release,
    AcqRel,
}

/// `fence`, which orders strong reads before it with what follows, or what comes before it with strong writes after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fence {
    pub(crate) scope: Scope,
    pub(crate) acquire: bool,
    pub(crate) release: bool,
}

impl Fence {
    /// In both ways.
    pub(crate) fn both(scope: Scope) -> Self {
        Self {
            scope,
            acquire: true,
            release: true,
        }
    }
}

/// What a grid says of the launches before and after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GridDependency {
    /// Wait until those before it are complete.
    Wait,
    /// Let the next one start.
    LaunchDependents,
}

/// Threads that a strong access or a fence is ordered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Those of the block. A cluster is one block here.
    Block,
    /// All of the launch.
    Device,
}

/// What an atomic computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AtomicOp {
    pub(crate) kind: AtomicKind,
    pub(crate) ty: Type,
    /// `red`: no result.
    pub(crate) reduction: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AtomicKind {
    Add,
    Min,
    Max,
    And,
    Or,
    Xor,
    Exch,
    Cas,
    Inc,
    Dec,
}

/// A call. Argument and result bytes are copied between the frames of caller and callee.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) target: CallTarget,
    /// For each argument, its place in the caller's parameter bytes.
    pub(crate) arguments: Vec<ParamPlace>,
    /// For each result, likewise.
    pub(crate) results: Vec<ParamPlace>,
    /// The function is declared `.noreturn`.
    pub(crate) noreturn: bool,
}

#[derive(Debug, Clone)]
pub(crate) enum CallTarget {
    Function(u32),
    /// Address in `src[0]`; the functions it may be, or empty where the PTX does not say.
    Indirect(Vec<u32>),
    /// A function of the CUDA device runtime.
    Builtin(Builtin),
    /// Declared, but not defined.
    Undefined,
}

/// Device functions that CUDA's driver provides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Builtin {
    /// `__assertfail`, which ends the kernel.
    AssertFail,
    /// `vprintf`, to which `printf` comes down.
    Vprintf,
}

/// Bytes within a frame's parameter area.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ParamPlace {
    pub(crate) offset: u32,
    pub(crate) size: u32,
}

/// `bar` and `barrier`: barrier number in `src[0]`, thread count in `src[1]` where there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BarrierOp {
    pub(crate) kind: BarrierKind,
    pub(crate) has_count: bool,
    pub(crate) aligned: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BarrierKind {
    Sync,
    Arrive,
    RedPopc { src: Pred },
    RedAnd { dst: PredSlot, src: Pred },
    RedOr { dst: PredSlot, src: Pred },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ShflMode {
    Up,
    Down,
    Bfly,
    Idx,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum VoteMode {
    All,
    Any,
    Uni,
    Ballot,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReduxOp {
    Add,
    MinU,
    MaxU,
    MinS,
    MaxS,
    And,
    Or,
    Xor,
}

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
