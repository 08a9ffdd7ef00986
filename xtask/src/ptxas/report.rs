//! The report: a record a kernel and architecture, and a table of them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use super::loops::Loop;
use super::sass::{Code, Opcodes};
use super::verbose::Resources;

/// One kernel on one architecture, as `--json` prints it.
#[derive(Debug, Serialize)]
pub struct KernelReport {
    pub arch: String,
    pub kernel: String,
    pub registers: u32,
    pub spill_stores: u32,
    pub spill_loads: u32,
    pub stack: u32,
    pub shared: u32,
    pub sass: Opcodes,
    pub loops: Vec<Loop>,
    pub before_wait: Vec<String>,
}

impl KernelReport {
    pub fn new(arch: &str, resources: Resources, code: Code) -> Self {
        Self {
            arch: arch.to_owned(),
            kernel: resources.kernel,
            registers: resources.registers,
            spill_stores: resources.spill_stores,
            spill_loads: resources.spill_loads,
            stack: resources.stack,
            shared: resources.shared,
            sass: code.opcodes,
            loops: code.loops,
            before_wait: code.before_wait,
        }
    }

    pub fn uses_local_memory(&self) -> bool {
        self.spill_stores + self.spill_loads + self.stack > 0
    }
}

/// Registers of each kernel (rows) on each architecture (columns), `!` where it uses local memory, and the largest
/// static shared memory.
pub fn table(reports: &[KernelReport]) -> String {
    let mut archs: Vec<&str> = Vec::new();
    let mut kernels: BTreeMap<&str, BTreeMap<&str, &KernelReport>> = BTreeMap::new();
    for report in reports {
        if !archs.contains(&report.arch.as_str()) {
            archs.push(&report.arch);
        }
        kernels
            .entry(&report.kernel)
            .or_default()
            .insert(&report.arch, report);
    }
    let width = kernels
        .keys()
        .map(|name| name.len())
        .max()
        .unwrap_or(0)
        .max(9);
    let mut text = format!("{:width$}", "registers");
    for arch in &archs {
        let _ = write!(text, " {arch:>7}");
    }
    text.push_str("  shared bytes\n");
    let mut local = 0;
    for (kernel, by_arch) in &kernels {
        let _ = write!(text, "{kernel:width$}");
        for arch in &archs {
            let cell = by_arch.get(arch).map_or(String::new(), |report| {
                let mark = if report.uses_local_memory() { "!" } else { "" };
                format!("{}{mark}", report.registers)
            });
            let _ = write!(text, " {cell:>7}");
        }
        let shared = by_arch
            .values()
            .map(|report| report.shared)
            .max()
            .unwrap_or(0);
        let _ = writeln!(text, "  {shared:>12}");
        local += by_arch
            .values()
            .filter(|report| report.uses_local_memory())
            .count();
    }
    let _ = writeln!(
        text,
        "{} kernels on {} architectures; {local} use local memory (spills or a stack frame)",
        kernels.len(),
        archs.len()
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_row_a_kernel_and_marks_spills() {
        let report = |arch, kernel: &str, registers, spill_loads| {
            let resources = Resources {
                kernel: kernel.to_owned(),
                registers,
                spill_loads,
                shared: 64,
                ..Resources::default()
            };
            KernelReport::new(
                arch,
                resources,
                Code {
                    opcodes: Opcodes::new(),
                    loops: Vec::new(),
                    before_wait: Vec::new(),
                },
            )
        };
        let text = table(&[
            report("sm_75", "gemv", 40, 0),
            report("sm_75", "norm", 20, 0),
            report("sm_90", "gemv", 255, 8),
            report("sm_90", "norm", 21, 0),
        ]);
        let rows: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(rows[0], ["registers", "sm_75", "sm_90", "shared", "bytes"]);
        assert_eq!(rows[1], ["gemv", "40", "255!", "64"]);
        assert_eq!(rows[2], ["norm", "20", "21", "64"]);
        assert!(
            text.contains("2 kernels on 2 architectures; 1 use local memory"),
            "{text}"
        );
    }

    #[test]
    fn the_json_fields_are_the_documented_ones() {
        let resources = Resources {
            kernel: "gemv".to_owned(),
            registers: 40,
            ..Resources::default()
        };
        let sass = Opcodes::from([("EXIT".to_owned(), 1)]);
        let json = serde_json::to_value(KernelReport::new(
            "sm_90",
            resources,
            Code {
                opcodes: sass,
                loops: Vec::new(),
                before_wait: Vec::new(),
            },
        ))
        .expect("plain data");
        let expected = serde_json::json!({
            "arch": "sm_90", "kernel": "gemv", "registers": 40, "spill_stores": 0, "spill_loads": 0, "stack": 0,
            "shared": 0, "sass": {"EXIT": 1}, "loops": [], "before_wait": []
        });
        assert_eq!(json, expected);
    }
}
