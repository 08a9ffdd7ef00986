//! The syntax tree. Everything borrows from the PTX text.

/// A whole PTX file.
#[derive(Debug, Default)]
pub(crate) struct Source<'a> {
    pub(crate) version: (u32, u32),
    pub(crate) target: &'a str,
    pub(crate) variables: Vec<Variable<'a>>,
    pub(crate) functions: Vec<Function<'a>>,
    /// `.file` numbers and names.
    pub(crate) files: Vec<(u64, &'a str)>,
}

/// State space of a declaration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum VariableSpace {
    Reg,
    Global,
    Const,
    Shared,
    Local,
    Param,
}

/// A variable, parameter or set of registers.
#[derive(Debug, Clone)]
pub(crate) struct Variable<'a> {
    pub(crate) line: usize,
    pub(crate) space: VariableSpace,
    pub(crate) external: bool,
    pub(crate) align: Option<usize>,
    /// Elements of a `.v2`, `.v4` or `.v8` vector, else 1.
    pub(crate) vector: usize,
    pub(crate) ty: &'a str,
    pub(crate) name: &'a str,
    /// `%r<10>` declares `%r0` to `%r9`.
    pub(crate) count: Option<u64>,
    /// Array dimensions; `None` for `[]`.
    pub(crate) dims: Vec<Option<u64>>,
    pub(crate) init: Option<Init<'a>>,
}

/// An initialiser.
#[derive(Debug, Clone)]
pub(crate) enum Init<'a> {
    List(Vec<Init<'a>>),
    Number(Number),
    /// Address of a symbol plus an offset; `mask` selects bits of the address, as in `0xFF00(symbol)`.
    Symbol {
        name: &'a str,
        offset: i64,
        generic: bool,
        mask: Option<u64>,
    },
}

/// A literal.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Number {
    /// Two's complement bits of an integer.
    Integer(u64),
    /// `0f…`: bits of an `f32`.
    F32(u32),
    /// `0d…` (bits of an `f64`) or a decimal.
    F64(f64),
}

/// An entry or device function.
#[derive(Debug)]
pub(crate) struct Function<'a> {
    pub(crate) line: usize,
    pub(crate) entry: bool,
    pub(crate) name: &'a str,
    pub(crate) returns: Vec<Variable<'a>>,
    pub(crate) params: Vec<Variable<'a>>,
    pub(crate) noreturn: bool,
    pub(crate) maxntid: Option<[u32; 3]>,
    pub(crate) reqntid: Option<[u32; 3]>,
    /// `None` for a declaration.
    pub(crate) body: Option<Vec<Statement<'a>>>,
}

/// One statement of a body.
#[derive(Debug)]
pub(crate) enum Statement<'a> {
    Label(&'a str),
    Instruction(Instruction<'a>),
    Variable(Variable<'a>),
    Block(Vec<Statement<'a>>),
    /// `.loc`: file number and line.
    Location {
        file: u64,
        line: u64,
    },
    /// `.pragma "used_bytes_mask …"`: the bytes of the next load that matter.
    UsedBytes(u32),
    /// `name: .branchtargets a, b;` and `name: .calltargets f, g;`.
    Targets {
        name: &'a str,
        targets: Vec<&'a str>,
    },
    /// `name: .callprototype (…) _ (…);`.
    Prototype {
        name: &'a str,
        prototype: Prototype<'a>,
    },
}

/// What an indirect call passes.
#[derive(Debug)]
pub(crate) struct Prototype<'a> {
    pub(crate) returns: Vec<Variable<'a>>,
    pub(crate) params: Vec<Variable<'a>>,
    pub(crate) noreturn: bool,
}

/// One instruction.
#[derive(Debug)]
pub(crate) struct Instruction<'a> {
    pub(crate) line: usize,
    /// `@p` (false) or `@!p` (true).
    pub(crate) guard: Option<(&'a str, bool)>,
    pub(crate) opcode: &'a str,
    pub(crate) modifiers: Vec<&'a str>,
    pub(crate) operands: Vec<Operand<'a>>,
}

/// One operand.
#[derive(Debug, Clone)]
pub(crate) enum Operand<'a> {
    Name(&'a str),
    /// `v.x`, `%tid.x`.
    Member(&'a str, &'a str),
    /// `symbol+4`.
    NameOffset(&'a str, i64),
    /// `!p`.
    Not(&'a str),
    /// `d|p`.
    Pair(Box<Operand<'a>>, Box<Operand<'a>>),
    Number(Number),
    Vector(Vec<Operand<'a>>),
    /// `[base+offset]`.
    Address(Address<'a>),
    /// `[image, {x, y}]`, of textures, surfaces and tensors. No instruction that is there takes it.
    Coordinates,
    /// Parenthesised list of a call.
    List(Vec<Operand<'a>>),
}

/// The inside of `[…]`.
#[derive(Debug, Clone)]
pub(crate) struct Address<'a> {
    pub(crate) base: AddressBase<'a>,
    pub(crate) offset: i64,
}

/// What an address starts from.
#[derive(Debug, Clone)]
pub(crate) enum AddressBase<'a> {
    Name(&'a str),
    Absolute(u64),
}
