//! Scalar types, register classes and the modifiers that several families share.

/// A PTX fundamental type, as written in an instruction or declaration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Type {
    U(u8),
    S(u8),
    B(u8),
    F16,
    F16x2,
    BF16,
    BF16x2,
    TF32,
    F32,
    F64,
    Pred,
}

impl Type {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "u8" => Self::U(8),
            "u16" => Self::U(16),
            "u32" => Self::U(32),
            "u64" => Self::U(64),
            "s8" => Self::S(8),
            "s16" => Self::S(16),
            "s32" => Self::S(32),
            "s64" => Self::S(64),
            "b8" => Self::B(8),
            "b16" => Self::B(16),
            "b32" => Self::B(32),
            "b64" => Self::B(64),
            "f16" => Self::F16,
            "f16x2" => Self::F16x2,
            "bf16" => Self::BF16,
            "bf16x2" => Self::BF16x2,
            "tf32" => Self::TF32,
            "f32" => Self::F32,
            "f64" => Self::F64,
            "pred" => Self::Pred,
            _ => return None,
        })
    }

    pub(crate) fn bits(self) -> u8 {
        match self {
            Self::U(bits) | Self::S(bits) | Self::B(bits) => bits,
            Self::F16 | Self::BF16 => 16,
            Self::F16x2 | Self::BF16x2 | Self::TF32 | Self::F32 => 32,
            Self::F64 => 64,
            Self::Pred => 1,
        }
    }

    pub(crate) fn is_float(self) -> bool {
        matches!(
            self,
            Self::F16
                | Self::F16x2
                | Self::BF16
                | Self::BF16x2
                | Self::TF32
                | Self::F32
                | Self::F64
        )
    }

    /// The integer type that computes on this type's bits; `.bN` counts as unsigned.
    pub(crate) fn as_int(self) -> Option<IntType> {
        Some(match self {
            Self::U(16) | Self::B(16) => IntType::U16,
            Self::U(32) | Self::B(32) => IntType::U32,
            Self::U(64) | Self::B(64) => IntType::U64,
            Self::S(16) => IntType::S16,
            Self::S(32) => IntType::S32,
            Self::S(64) => IntType::S64,
            _ => return None,
        })
    }

    /// Whether a register declared with `register` may be used where an instruction says `self`, sizes aside:
    /// untyped bits agree with everything but predicates, integers with integers (and registers of `.f16x2`), and floats with
    /// themselves.
    pub(crate) fn agrees_with(self, register: Type) -> bool {
        let untyped = |ty: Type| matches!(ty, Type::B(_));
        let integer = |ty: Type| matches!(ty, Type::U(_) | Type::S(_));
        if self == Self::Pred || register == Self::Pred {
            return self == register;
        }
        untyped(self)
            || untyped(register)
            || self == register
            || (integer(self) && (integer(register) || register == Self::F16x2))
    }

    /// Whether registers and variables can have the type; the others are those of instructions only.
    pub(crate) fn is_fundamental(self) -> bool {
        !matches!(self, Self::BF16 | Self::BF16x2 | Self::TF32)
    }
}

impl std::fmt::Display for Type {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::U(bits) => write!(f, ".u{bits}"),
            Self::S(bits) => write!(f, ".s{bits}"),
            Self::B(bits) => write!(f, ".b{bits}"),
            other => write!(f, ".{}", format!("{other:?}").to_ascii_lowercase()),
        }
    }
}

/// Integer types that registers can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IntType {
    U16,
    U32,
    U64,
    S16,
    S32,
    S64,
}

/// IEEE 754 rounding directions, as PTX names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Rounding {
    /// `.rn`: to nearest, ties to even.
    #[default]
    Nearest,
    /// `.rna`: to nearest, ties away from zero.
    NearestAway,
    /// `.rz`.
    Zero,
    /// `.rm`.
    Down,
    /// `.rp`.
    Up,
}

/// Modifiers of floating-point arithmetic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct FloatMode {
    pub(crate) rounding: Rounding,
    /// `.ftz`: subnormal operands and results become zero of the same sign.
    pub(crate) ftz: bool,
    /// `.sat`: the result is clamped to [0, 1], NaN to 0.
    pub(crate) sat: bool,
    /// `.relu`: a negative result becomes 0, NaN stays the canonical NaN.
    pub(crate) relu: bool,
    /// `.NaN` of min and max.
    pub(crate) nan: bool,
    /// `.xorsign.abs` of min and max.
    pub(crate) xorsign_abs: bool,
}

/// 16-bit floating-point types, alone or in pairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HalfType {
    F16,
    BF16,
}

/// 8-bit floating-point types, which come in pairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ByteFloat {
    /// 4 bits of exponent, no infinities, one NaN for each sign.
    E4M3,
    /// 5 bits of exponent: the upper byte of an `f16`.
    E5M2,
}

/// Comparison operators of `setp` and `set`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compare {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    EqU,
    NeU,
    LtU,
    LeU,
    GtU,
    GeU,
    Num,
    Nan,
}

/// How `setp` combines the comparison with a predicate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Combine {
    None,
    And,
    Or,
    Xor,
}

/// What a comparison compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CompareType {
    Int(IntType),
    F32 { ftz: bool },
    F64,
    Half { ty: HalfType, ftz: bool },
}

/// Classes of instructions that are counted separately.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    Integer,
    Float,
    Dp4a,
    LoadGlobal,
    StoreGlobal,
    Shared,
    Branch,
    Other,
}
