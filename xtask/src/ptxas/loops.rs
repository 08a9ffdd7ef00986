//! The loops of a kernel's machine code: where an instruction more costs most.

use serde::{Deserialize, Serialize};

use super::sass::{Instruction, Opcodes};

/// Bytes of an instruction, on every architecture since sm_70.
const INSTRUCTION_BYTES: usize = 16;

/// A run of instructions that ends in a branch back to its start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loop {
    /// Number of the first instruction in the kernel, from 0.
    pub start: usize,
    pub instructions: usize,
    pub sass: Opcodes,
}

/// The loops of a function, by their start; of nested ones each. The branch to itself that ends a function is none.
pub fn loops(instructions: &[Instruction]) -> Vec<Loop> {
    let mut loops: Vec<Loop> = instructions
        .iter()
        .enumerate()
        .filter_map(|(end, branch)| {
            let start = target(branch)? / INSTRUCTION_BYTES;
            (start < end).then(|| {
                let body = &instructions[start..=end];
                let mut sass = Opcodes::new();
                for instruction in body {
                    *sass.entry(instruction.opcode.clone()).or_insert(0) += 1;
                }
                Loop {
                    start,
                    instructions: body.len(),
                    sass,
                }
            })
        })
        .collect();
    loops.sort_by_key(|found| (found.start, found.instructions));
    loops
}

/// Address that a branch goes to: the last of its operands.
fn target(instruction: &Instruction) -> Option<usize> {
    if instruction.opcode.split('.').next() != Some("BRA") {
        return None;
    }
    let address = instruction.operands.rsplit(',').next()?.trim();
    usize::from_str_radix(address.strip_prefix("0x")?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(lines: &[(&str, &str)]) -> Vec<Instruction> {
        let instruction = |&(opcode, operands): &(&str, &str)| Instruction {
            opcode: opcode.to_owned(),
            operands: operands.to_owned(),
        };
        lines.iter().map(instruction).collect()
    }

    #[test]
    fn a_branch_back_is_a_loop_and_one_forward_or_to_itself_is_not() {
        let code = code(&[
            ("MOV", "R0,R1"),
            ("IDP.4A.U8.S8", "R0,R4,R8,R0"),
            ("LDG.E.128.CONSTANT", "R4,[R2]"),
            ("BRA", "0x10"),
            ("BRA", "0x60"),
            ("BRA.U", "!P3,0x0"),
            ("EXIT", ""),
            ("BRA", "0x70"),
        ]);
        let found = loops(&code);
        let shapes: Vec<_> = found
            .iter()
            .map(|found| (found.start, found.instructions))
            .collect();
        assert_eq!(shapes, [(0, 6), (1, 3)]);
        assert_eq!(
            (found[1].sass["IDP.4A.U8.S8"], found[1].sass["BRA"]),
            (1, 1)
        );
    }
}
