//! `mma`, `ldmatrix` and `stmatrix`.

use super::function::FunctionBuilder;
use super::modifiers::Modifiers;
use crate::error::LoadError;
use crate::isa::{
    AccessSpace, Class, MatrixMove, Mma, MmaInput, MmaKind, Op, Slot, Type, ZERO_SLOT,
};
use crate::syntax::ast::{Instruction, Operand};

const S32: Type = Type::S(32);

/// Element types of the operands of `mma`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Element {
    Int { bits: u8, signed: bool },
    S32,
    F16,
    BF16,
    TF32,
    F32,
    F64,
}

const ELEMENTS: [(&str, Element); 10] = [
    (
        "s8",
        Element::Int {
            bits: 8,
            signed: true,
        },
    ),
    (
        "u8",
        Element::Int {
            bits: 8,
            signed: false,
        },
    ),
    (
        "s4",
        Element::Int {
            bits: 4,
            signed: true,
        },
    ),
    (
        "u4",
        Element::Int {
            bits: 4,
            signed: false,
        },
    ),
    ("s32", Element::S32),
    ("f16", Element::F16),
    ("bf16", Element::BF16),
    ("tf32", Element::TF32),
    ("f32", Element::F32),
    ("f64", Element::F64),
];

/// Shapes: name, `m` and `k`; `n` is always 8.
const SHAPES: [(&str, (u8, u8)); 8] = [
    ("m8n8k4", (8, 4)),
    ("m8n8k16", (8, 16)),
    ("m8n8k32", (8, 32)),
    ("m16n8k4", (16, 4)),
    ("m16n8k8", (16, 8)),
    ("m16n8k16", (16, 16)),
    ("m16n8k32", (16, 32)),
    ("m16n8k64", (16, 64)),
];

/// How a factor is spread over the lanes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    Row,
    Col,
}

const LAYOUTS: [(&str, Layout); 2] = [("row", Layout::Row), ("col", Layout::Col)];

/// Whether there is an `mma` of that shape for elements of that kind.
fn shape_exists(kind: MmaKind, m: u8, k: u8) -> bool {
    let shapes: &[(u8, u8)] = match kind {
        MmaKind::Int { bits: 8, .. } => &[(8, 16), (16, 16), (16, 32)],
        MmaKind::Int { .. } => &[(8, 32), (16, 32), (16, 64)],
        MmaKind::Float {
            input: MmaInput::TF32,
            ..
        } => &[(16, 4), (16, 8)],
        MmaKind::Float { .. } => &[(16, 8), (16, 16)],
        MmaKind::Double(_) => &[(8, 4), (16, 4), (16, 8), (16, 16)],
        MmaKind::QuadPairs { .. } => &[(8, 4)],
    };
    shapes.contains(&(m, k))
}

impl<'a> FunctionBuilder<'a, '_> {
    fn require_aligned_sync(modifiers: &mut Modifiers<'_>) -> Result<(), LoadError> {
        if modifiers.flag("sync") && modifiers.flag("aligned") {
            return Ok(());
        }
        modifiers.error("needs `.sync.aligned`")
    }

    /// `mma.sync.aligned.shape.alayout.blayout.dtype.atype.btype.ctype d, a, b, c`.
    pub(super) fn mma(
        &mut self,
        instruction: &'a Instruction<'a>,
        mut modifiers: Modifiers<'a>,
    ) -> Result<(), LoadError> {
        Self::require_aligned_sync(&mut modifiers)?;
        let (m, k) = modifiers.require("a shape", &SHAPES)?;
        let layouts = [
            modifiers.require("two layouts", &LAYOUTS)?,
            modifiers.require("two layouts", &LAYOUTS)?,
        ];
        let saturate = modifiers.flag("satfinite");
        let rounding = modifiers.rounding();
        let [d, a, b, c] = [
            modifiers.require("four types", &ELEMENTS)?,
            modifiers.require("four types", &ELEMENTS)?,
            modifiers.require("four types", &ELEMENTS)?,
            modifiers.require("four types", &ELEMENTS)?,
        ];
        modifiers.finish()?;
        let float = |input| MmaKind::Float {
            input,
            half_sum: d == Element::F16,
        };
        let kind = match (d, a, b) {
            (
                Element::S32,
                Element::Int {
                    bits,
                    signed: a_signed,
                },
                Element::Int {
                    bits: b_bits,
                    signed: b_signed,
                },
            ) if bits == b_bits => MmaKind::Int {
                bits,
                a_signed,
                b_signed,
                saturate,
            },
            (Element::F32 | Element::F16, Element::F16, Element::F16) if (m, k) == (8, 4) => {
                MmaKind::QuadPairs {
                    a_column: layouts[0] == Layout::Col,
                    b_row: layouts[1] == Layout::Row,
                    half_addend: c == Element::F16,
                    half_sum: d == Element::F16,
                }
            }
            (Element::F32 | Element::F16, Element::F16, Element::F16) => float(MmaInput::F16),
            (Element::F32, Element::BF16, Element::BF16) => float(MmaInput::BF16),
            (Element::F32, Element::TF32, Element::TF32) => float(MmaInput::TF32),
            (Element::F64, Element::F64, Element::F64) => {
                MmaKind::Double(rounding.unwrap_or_default())
            }
            _ => return modifiers.error("no such combination of types is supported"),
        };
        let quad_pairs = matches!(kind, MmaKind::QuadPairs { .. });
        if layouts != [Layout::Row, Layout::Col] && !quad_pairs {
            return modifiers.error("only `.row.col` is supported for this shape and these types");
        }
        if c != d && !(quad_pairs && (d, c) == (Element::F32, Element::F16)) {
            return modifiers.error("the types of `c` and `d` must be the same");
        }
        if !shape_exists(kind, m, k) {
            return modifiers.error(format!("m{m}n8k{k} is not supported for these types"));
        }
        if saturate && !matches!(kind, MmaKind::Int { .. }) {
            return modifiers.error("`.satfinite` is for integers");
        }
        if rounding.is_some() && !matches!(kind, MmaKind::Double(_)) {
            return modifiers.error("a rounding is for `.f64`");
        }
        // Registers of one lane.
        let tall = usize::from(m / 8);
        let bits = usize::from(kind.input_bits());
        let in_register = (32 / bits).max(1);
        let (b_count, sums) = if quad_pairs {
            (2, 8)
        } else {
            (usize::from(k) / (4 * in_register), 2 * tall)
        };
        let sum_registers = |element| match element {
            Element::F64 => (sums, Type::F64),
            Element::S32 => (sums, S32),
            Element::F16 => (sums / 2, Type::U(32)),
            _ => (sums, Type::F32),
        };
        let input = if d == Element::F64 {
            Type::F64
        } else {
            Type::U(32)
        };
        let (d_count, d_type) = sum_registers(d);
        let (c_count, c_type) = sum_registers(c);
        let [d, a, b, c] = self.operands(instruction)?;
        let d = self.fragment(&modifiers, d, d_count)?;
        let d = d
            .iter()
            .map(|part| self.dst(part, d_type))
            .collect::<Result<Vec<_>, _>>()?;
        let a = self.source_fragment(&modifiers, a, tall * b_count, input, false)?;
        let b = self.source_fragment(&modifiers, b, b_count, input, false)?;
        let c = self.source_fragment(&modifiers, c, c_count, c_type, true)?;
        let index = self.out.mmas.len() as u32;
        self.out.mmas.push(Mma {
            m,
            k,
            kind,
            a,
            b,
            c,
            d,
        });
        self.emit(Op::Mma(index), ZERO_SLOT, [ZERO_SLOT; 4], Class::Other);
        Ok(())
    }

    /// The parts of a `{…}` that holds a lane's part of a matrix.
    fn fragment<'o>(
        &self,
        modifiers: &Modifiers<'_>,
        operand: &'o Operand<'a>,
        count: usize,
    ) -> Result<&'o [Operand<'a>], LoadError> {
        match operand {
            Operand::Vector(parts) if parts.len() == count => Ok(parts),
            Operand::Vector(parts) => modifiers.error(format!(
                "a matrix takes {count} registers here, {} were given",
                parts.len()
            )),
            _ => modifiers.error(format!("expected {{…}} with {count} registers")),
        }
    }

    fn source_fragment(
        &mut self,
        modifiers: &Modifiers<'_>,
        operand: &'a Operand<'a>,
        count: usize,
        ty: Type,
        literals: bool,
    ) -> Result<Vec<Slot>, LoadError> {
        self.fragment(modifiers, operand, count)?
            .iter()
            .map(|part| match part {
                Operand::Number(_) if !literals => modifiers.error("factors must be in registers"),
                part => self.src(part, ty),
            })
            .collect()
    }

    /// `movmatrix.sync.aligned.m8n8.trans.b16 d, a`.
    pub(super) fn transpose_matrix(
        &mut self,
        instruction: &'a Instruction<'a>,
        mut modifiers: Modifiers<'a>,
    ) -> Result<(), LoadError> {
        Self::require_aligned_sync(&mut modifiers)?;
        if !(modifiers.flag("m8n8") && modifiers.flag("trans")) {
            return modifiers.error("needs `.m8n8.trans`");
        }
        modifiers.ty_of(&[Type::B(16)])?;
        modifiers.finish()?;
        let [dst, src] = self.operands(instruction)?;
        if matches!(src, Operand::Number(_)) {
            return modifiers.error("the matrix must be in a register");
        }
        let src = [self.src(src, Type::U(32))?, ZERO_SLOT, ZERO_SLOT, ZERO_SLOT];
        let dst = self.dst(dst, Type::U(32))?;
        self.emit(Op::TransposeMatrix, dst, src, Class::Other);
        Ok(())
    }

    /// `ldmatrix.sync.aligned.m8n8.num{.trans}{.shared}.b16 r, [p]` and
    /// `stmatrix.sync.aligned.m8n8.num{.trans}{.shared}.b16 [p], r`.
    pub(super) fn move_matrix(
        &mut self,
        instruction: &'a Instruction<'a>,
        mut modifiers: Modifiers<'a>,
    ) -> Result<(), LoadError> {
        Self::require_aligned_sync(&mut modifiers)?;
        let store = instruction.opcode == "stmatrix";
        if !modifiers.flag("m8n8") {
            return modifiers.error("only `.m8n8` is supported");
        }
        let count =
            modifiers.require("a number of matrices", &[("x1", 1), ("x2", 2), ("x4", 4)])?;
        let transpose = modifiers.flag("trans");
        let space = Self::access_space(&mut modifiers);
        modifiers.ty_of(&[Type::B(16)])?;
        modifiers.finish()?;
        if !matches!(space, AccessSpace::Shared | AccessSpace::Generic) {
            return modifiers.error("matrices are in `.shared` memory");
        }
        let [first, second] = self.operands(instruction)?;
        let (registers, address) = if store {
            (second, first)
        } else {
            (first, second)
        };
        let (address, offset, space) = self.address(address, space)?;
        let mut elements = Vec::with_capacity(count);
        for part in self.fragment(&modifiers, registers, count)? {
            elements.push(match (store, part) {
                (false, part) => self.dst(part, Type::U(32))?,
                (true, Operand::Name(_)) => self.src(part, Type::U(32))?,
                (true, _) => return modifiers.error("matrices must be in registers"),
            });
        }
        let index = self.out.matrix_moves.len() as u32;
        self.out.matrix_moves.push(MatrixMove {
            store,
            transpose,
            space,
            address,
            offset,
            elements,
        });
        let op = Op::MoveMatrix(index);
        self.emit(op, ZERO_SLOT, [ZERO_SLOT; 4], Class::Shared);
        Ok(())
    }
}
