//! SIMD video instructions.

use super::function::FunctionBuilder;
use super::modifiers::Modifiers;
use crate::error::LoadError;
use crate::isa::{Class, Compare, Op, Type, Video, VideoEnd, VideoOp, VideoOperand, ZERO_SLOT};
use crate::syntax::ast::{Instruction, Operand};

const U32: Type = Type::U(32);
const S32: Type = Type::S(32);

impl<'a> FunctionBuilder<'a, '_> {
    /// `vadd2`, `vadd4` and their like.
    pub(super) fn video(
        &mut self,
        instruction: &'a Instruction<'a>,
        mut modifiers: Modifiers<'a>,
    ) -> Result<(), LoadError> {
        let (name, count) = instruction
            .opcode
            .split_at(instruction.opcode.len() - "4".len());
        let count = if count == "4" { 4 } else { 2 };
        let op = match name {
            "vadd" => VideoOp::Add,
            "vsub" => VideoOp::Sub,
            "vavrg" => VideoOp::Average,
            "vabsdiff" => VideoOp::AbsDiff,
            "vmin" => VideoOp::Min,
            "vmax" => VideoOp::Max,
            _ => VideoOp::Set(modifiers.require(
                "a comparison",
                &[
                    ("eq", Compare::Eq),
                    ("ne", Compare::Ne),
                    ("lt", Compare::Lt),
                    ("le", Compare::Le),
                    ("gt", Compare::Gt),
                    ("ge", Compare::Ge),
                ],
            )?),
        };
        let sets = matches!(op, VideoOp::Set(_));
        let mut signed = || Ok(modifiers.ty_of(&[U32, S32])? == S32);
        let result_signed = if sets { false } else { signed()? };
        let (a_signed, b_signed) = (signed()?, signed()?);
        let clamped = VideoEnd::MergeClamped {
            signed: result_signed,
        };
        let ends = [("add", VideoEnd::Accumulate), ("sat", clamped)];
        let ends = if sets { &ends[..1] } else { &ends };
        let end = modifiers.choose(ends).unwrap_or(VideoEnd::Merge);
        modifiers.finish()?;

        let [dst, a, b, c] = self.operands(instruction)?;
        let (dst, mask) = self.selected(&modifiers, dst, count)?;
        let dst = self.dst(&dst, U32)?;
        let mask = match mask {
            None => (1 << count) - 1,
            Some(elements) => {
                if !elements.is_sorted_by(|high, low| high > low)
                    || elements.iter().any(|&element| element >= count)
                {
                    return modifiers.error("elements of the result must be in descending order");
                }
                elements.iter().fold(0, |mask, element| mask | 1 << element)
            }
        };
        let mut operand = |operand, first: u8, signed| {
            let (register, elements) = self.selected(&modifiers, operand, count)?;
            let elements = match elements {
                None => std::array::from_fn(|index| first + index as u8),
                Some(elements) if elements.len() == usize::from(count) => {
                    let mut lowest_first = [0; 4];
                    for (place, element) in lowest_first.iter_mut().zip(elements.iter().rev()) {
                        *place = *element;
                    }
                    lowest_first
                }
                Some(_) => {
                    return modifiers.error(format!("an operand is made of {count} elements"));
                }
            };
            let slot = self.src(&register, U32)?;
            Ok((slot, VideoOperand { elements, signed }))
        };
        let (a_slot, a) = operand(a, 0, a_signed)?;
        let (b_slot, b) = operand(b, count, b_signed)?;
        let Operand::Name(_) = c else {
            return modifiers.error("`c` must be a register");
        };
        let c = self.src(c, U32)?;
        let uses_c = end == VideoEnd::Accumulate || mask != (1 << count) - 1;
        let video = Video {
            op,
            bits: 32 / u32::from(count),
            a,
            b,
            end,
            mask,
        };
        let op = Op::Video(self.out.videos.len() as u32);
        self.out.videos.push(video);
        let c = if uses_c { c } else { ZERO_SLOT };
        self.emit(op, dst, [a_slot, b_slot, c, ZERO_SLOT], Class::Integer);
        Ok(())
    }

    /// A register, and the elements that are chosen from it, as they are written: from the highest one.
    fn selected(
        &self,
        modifiers: &Modifiers<'_>,
        operand: &Operand<'a>,
        count: u8,
    ) -> Result<(Operand<'a>, Option<Vec<u8>>), LoadError> {
        let (letter, choices) = if count == 4 { ('b', 8) } else { ('h', 4) };
        match *operand {
            Operand::Name(name) => Ok((Operand::Name(name), None)),
            Operand::Member(name, selector) => {
                let elements = selector.strip_prefix(letter).and_then(|digits| {
                    let digits = digits.chars().map(|digit| digit.to_digit(choices));
                    let elements = digits
                        .map(|digit| Some(digit? as u8))
                        .collect::<Option<Vec<_>>>()?;
                    (1..=usize::from(count))
                        .contains(&elements.len())
                        .then_some(elements)
                });
                match elements {
                    Some(elements) => Ok((Operand::Name(name), Some(elements))),
                    None => modifiers.error(format!(
                        "`.{selector}` does not choose elements: write `.{letter}` and up to {count} digits below {choices}"
                    )),
                }
            }
            _ => modifiers.error("operands must be registers"),
        }
    }
}
