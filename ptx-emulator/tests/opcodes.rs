//! The loader's table of instructions against the tests: no instruction is known that no test runs.

use std::collections::BTreeSet;

/// The table of all instructions.
const TABLE: &str = include_str!("../src/load/control.rs");

/// Tests whose kernels run and whose results are compared; not those of texts that are refused.
const TESTS: [&str; 17] = [
    include_str!("asynchronous/bulk.rs"),
    include_str!("asynchronous/copies.rs"),
    include_str!("asynchronous/phases.rs"),
    include_str!("control.rs"),
    include_str!("convert.rs"),
    include_str!("counters.rs"),
    include_str!("faults/execution.rs"),
    include_str!("faults/planted.rs"),
    include_str!("float.rs"),
    include_str!("hints.rs"),
    include_str!("integer.rs"),
    include_str!("matrix/fragments.rs"),
    include_str!("matrix/main.rs"),
    include_str!("matrix/random.rs"),
    include_str!("memory.rs"),
    include_str!("print.rs"),
    include_str!("warp.rs"),
];

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

/// Whether a test has the instruction: its name, not as part of a longer word, before a modifier or an operand, or in quotes for a
/// form that is put together.
fn is_run(opcode: &str, test: &str) -> bool {
    test.match_indices(opcode).any(|(at, _)| {
        let before = test[..at].chars().next_back();
        let after = test[at + opcode.len()..].chars().next();
        let starts = before.is_none_or(|c| !c.is_alphanumeric() && !"_.%$".contains(c));
        starts && after.is_some_and(|c| ".; \"".contains(c))
    })
}

#[test]
fn every_instruction_is_run_by_a_test() {
    let known = known();
    assert!(known.len() > 80, "{known:?}");
    for opcode in ["add", "mbarrier", "mma", "cvt", "brkpt"] {
        assert!(known.contains(opcode), "{opcode}");
    }
    let untested: Vec<_> = known
        .iter()
        .filter(|opcode| !TESTS.iter().any(|test| is_run(opcode, test)))
        .collect();
    assert!(untested.is_empty(), "no test runs {untested:?}");
}
