//! Counting the machine instructions that `nvdisasm -json` shows.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::loops::{Loop, loops};

/// How often each opcode, modifiers included (`LDG.E.128.CONSTANT`), stands in a function.
pub type Opcodes = BTreeMap<String, u32>;

#[derive(Deserialize)]
struct Function {
    #[serde(rename = "function-name")]
    name: String,
    #[serde(rename = "sass-instructions")]
    instructions: Vec<Instruction>,
}

/// One machine instruction.
#[derive(Deserialize)]
pub struct Instruction {
    pub opcode: String,
    #[serde(default)]
    pub operands: String,
}

/// What a function is made of.
pub struct Code {
    pub opcodes: Opcodes,
    pub loops: Vec<Loop>,
    /// Accesses to memory that stand before the wait for the grid in front, where there is one.
    pub before_wait: Vec<String>,
}

/// Waits for the grid in front: `griddepcontrol.wait`.
const WAIT: &str = "ACQBULK";

/// Loads, stores, atomics and copies of global or generic memory. Prefetches (`CCTL`, `UBLKPF`) are none.
const ACCESSES: [&str; 11] = [
    "LDG", "STG", "LD", "ST", "ATOMG", "ATOM", "REDG", "RED", "LDGSTS", "UBLKCP", "UBLKRED",
];

fn before_wait(instructions: &[Instruction]) -> Vec<String> {
    let wait = instructions.iter().position(|found| found.opcode == WAIT);
    instructions[..wait.unwrap_or(0)]
        .iter()
        .filter(|found| {
            let name = found.opcode.split('.').next().unwrap_or_default();
            ACCESSES.contains(&name)
        })
        .map(|found| found.opcode.clone())
        .collect()
}

/// The code of each function. `nvdisasm` prints a list of two: a description of the file, and the functions.
pub fn functions(json: &str) -> Result<BTreeMap<String, Code>> {
    let (_, functions): (serde_json::Value, Vec<Function>) =
        serde_json::from_str(json).context("not a list of a description and functions")?;
    Ok(functions
        .into_iter()
        .map(|function| {
            let loops = loops(&function.instructions);
            let before_wait = before_wait(&function.instructions);
            let mut opcodes = Opcodes::new();
            for instruction in function.instructions {
                *opcodes.entry(instruction.opcode).or_insert(0) += 1;
            }
            let code = Code {
                opcodes,
                loops,
                before_wait,
            };
            (function.name, code)
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    // Shortened from nvdisasm 13.5's output.
    const DISASSEMBLY: &str = r#"[{"ELF":{"layout-id":4},"SM":{"version":{"major":9,"minor":0}}},
        [{"function-name":"gemv","start":0,"length":64,"other-attributes":[],"sass-instructions":[
            {"opcode":"LDG.E.128.CONSTANT","operands":"R4,desc[UR4][R4.64]"},
            {"opcode":"IDP.4A.U8.S8","operands":"R0,R4,R8,R0"},
            {"predicate":"@!P0","opcode":"IDP.4A.U8.S8","operands":"R0,R5,R9,R0"},
            {"opcode":"EXIT","other-attributes":{"control-flow":"True"}}]},
         {"function-name":"norm","start":64,"length":16,"sass-instructions":[{"opcode":"EXIT"}]}]]"#;

    #[test]
    fn opcodes_are_counted_by_function() {
        let functions = functions(DISASSEMBLY).expect("well-formed");
        let count = |opcode: &str, n| (opcode.to_owned(), n);
        assert_eq!(
            functions["gemv"].opcodes,
            Opcodes::from([
                count("EXIT", 1),
                count("IDP.4A.U8.S8", 2),
                count("LDG.E.128.CONSTANT", 1)
            ])
        );
        assert_eq!(functions["norm"].opcodes, Opcodes::from([count("EXIT", 1)]));
        assert_eq!(functions.len(), 2);
    }

    #[test]
    fn accesses_before_the_wait_are_found() {
        let found = |opcodes: &[&str]| {
            let instruction = |opcode: &&str| Instruction {
                opcode: (*opcode).to_owned(),
                operands: String::new(),
            };
            before_wait(&opcodes.iter().map(instruction).collect::<Vec<_>>())
        };
        let prefetch = [
            "LDC",
            "UBLKPF.L2",
            "CCTL.E.PF2",
            "LDS",
            "ACQBULK",
            "PREEXIT",
            "LDG.E.128",
        ];
        assert!(found(&prefetch).is_empty());
        assert_eq!(
            found(&["LDG.E.NA.128.CONSTANT", "ACQBULK", "STG.E"]),
            ["LDG.E.NA.128.CONSTANT"]
        );
        assert!(found(&["LDG.E", "STG.E"]).is_empty());
    }

    #[test]
    fn another_shape_is_an_error() {
        for text in ["", "[]", "[{}]", r#"[{},[{"function-name":"gemv"}]]"#] {
            assert!(functions(text).is_err(), "{text}");
        }
    }
}
