//! The loader's table of instructions against the families: none is missing.

use std::collections::BTreeSet;

/// The table of all instructions.
const TABLE: &str = include_str!("../../src/load/control.rs");

/// The words in quotes before each `=>` of the table.
fn known() -> BTreeSet<&'static str> {
    let (_, table) = TABLE
        .split_once("match instruction.opcode {")
        .expect("the table of instructions");
    let (table, _) = table.split_once("_ => modifiers.error").expect("its end");
    let mut known = BTreeSet::new();
    for arm in table.split("=>") {
        // The pattern is what follows the last arm's value.
        let pattern = arm.rsplit([',', '}']).next().unwrap_or(arm);
        known.extend(pattern.split('"').skip(1).step_by(2));
    }
    known
}

#[test]
fn every_instruction_has_a_family() {
    let known = known();
    assert!(known.len() > 80, "{known:?}");
    for opcode in ["add", "mbarrier", "mma", "cvt", "brkpt"] {
        assert!(known.contains(opcode), "{opcode}");
    }
    let families: BTreeSet<_> = super::families()
        .iter()
        .map(|family| family.forms()[0].opcode())
        .collect();
    let missing: Vec<_> = known.difference(&families).collect();
    assert!(missing.is_empty(), "no family for {missing:?}");
    let unknown: Vec<_> = families.difference(&known).collect();
    assert!(unknown.is_empty(), "families the table lacks: {unknown:?}");
}
