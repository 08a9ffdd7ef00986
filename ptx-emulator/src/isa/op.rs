//! Decoded instructions.

use super::arithmetic::{
    CarryOp, Conversion, FloatOp, FloatTest, IntOp, IntUnaryOp, MadOp, PredOp, PrmtMode,
};
use super::constant::ClockKind;
use super::control::{BarrierOp, GridDependency, ReduxOp, ShflMode, VoteMode};
use super::memory::{Fence, Window};
use super::types::{ByteFloat, Combine, Compare, CompareType, FloatMode, HalfType, IntType};

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
    /// Index into the function's SIMD video instructions.
    Video(u32),
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
