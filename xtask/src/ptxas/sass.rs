//! Counting the machine instructions that `nvdisasm -json` shows.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::Deserialize;

/// How often each opcode, modifiers included (`LDG.E.128.CONSTANT`), stands in a function.
pub type Opcodes = BTreeMap<String, u32>;

#[derive(Deserialize)]
struct Function {
    #[serde(rename = "function-name")]
    name: String,
    #[serde(rename = "sass-instructions")]
    instructions: Vec<Instruction>,
}

#[derive(Deserialize)]
struct Instruction {
    opcode: String,
}

/// The opcodes of each function. `nvdisasm` prints a list of two: a description of the file, and the functions.
pub fn opcodes(json: &str) -> Result<BTreeMap<String, Opcodes>> {
    let (_, functions): (serde_json::Value, Vec<Function>) =
        serde_json::from_str(json).context("not a list of a description and functions")?;
    Ok(functions
        .into_iter()
        .map(|function| {
            let mut counts = Opcodes::new();
            for instruction in function.instructions {
                *counts.entry(instruction.opcode).or_insert(0) += 1;
            }
            (function.name, counts)
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
        let functions = opcodes(DISASSEMBLY).expect("well-formed");
        let count = |opcode: &str, n| (opcode.to_owned(), n);
        assert_eq!(
            functions["gemv"],
            Opcodes::from([
                count("EXIT", 1),
                count("IDP.4A.U8.S8", 2),
                count("LDG.E.128.CONSTANT", 1)
            ])
        );
        assert_eq!(functions["norm"], Opcodes::from([count("EXIT", 1)]));
        assert_eq!(functions.len(), 2);
    }

    #[test]
    fn another_shape_is_an_error() {
        for text in ["", "[]", "[{}]", r#"[{},[{"function-name":"gemv"}]]"#] {
            opcodes(text).expect_err(text);
        }
    }
}
