//! What the machine code of the kernels keeps to, so that a change which does not is noticed where no GPU can measure it.

use anyhow::{Result, bail};

use super::KernelReport;

/// Registers of a thread, on every architecture: twice as many warps fit a processor as with 128.
const MAX_REGISTERS: u32 = 64;

/// Other instructions for each `IDP` in the main loop of a product of one token: beyond that, not the memory but the
/// processor's issue rate would bound it on sm_90.
const MAX_FOR_EACH_IDP: u32 = 2;

/// Fails on kernels with more than [`MAX_REGISTERS`].
pub fn reject_many_registers(reports: &[KernelReport]) -> Result<()> {
    let rejected: String = reports
        .iter()
        .filter(|report| report.registers > MAX_REGISTERS)
        .map(|report| {
            format!(
                "\n  {} on {}: {}",
                report.kernel, report.arch, report.registers
            )
        })
        .collect();
    if !rejected.is_empty() {
        bail!("kernels with more than {MAX_REGISTERS} registers per thread:{rejected}");
    }
    Ok(())
}

/// Fails on products of one token whose main loop on sm_90 has more than [`MAX_FOR_EACH_IDP`], or loads by less than 16 bytes.
pub fn reject_slow_loops(reports: &[KernelReport]) -> Result<()> {
    let rejected: String = reports
        .iter()
        .filter(|report| report.arch == "sm_90" && multiplies_one_token(&report.kernel))
        .filter_map(|report| Some(format!("\n  {}: {}", report.kernel, fault(report)?)))
        .collect();
    if !rejected.is_empty() {
        bail!("products whose main loop is slow on sm_90:{rejected}");
    }
    Ok(())
}

fn multiplies_one_token(kernel: &str) -> bool {
    ["gemv_m1_", "gemv_ladder_m1_", "int8xint2_w"]
        .iter()
        .any(|family| kernel.starts_with(family))
}

/// What is wrong with a kernel's main loop, which is the one with the most products.
fn fault(report: &KernelReport) -> Option<String> {
    let count = |sass: &super::sass::Opcodes, fits: fn(&str) -> bool| -> u32 {
        sass.iter()
            .filter(|(opcode, _)| fits(opcode))
            .map(|(_, count)| count)
            .sum()
    };
    let main = report.loops.iter().map(|found| &found.sass);
    let products = |sass| count(sass, |opcode| opcode.starts_with("IDP"));
    let Some(main) = main
        .filter(|sass| products(sass) > 0)
        .max_by_key(|sass| products(sass))
    else {
        return Some("no loop has an IDP".to_owned());
    };
    let products = products(main);
    let others = count(main, |_| true) - products;
    if others > MAX_FOR_EACH_IDP * products {
        return Some(format!("{others} other instructions for {products} IDP"));
    }
    let loads = count(main, |opcode| opcode.starts_with("LDG"));
    let wide = count(main, |opcode| {
        opcode.starts_with("LDG") && opcode.contains(".128")
    });
    (wide == 0 || wide < loads).then(|| format!("{wide} of {loads} loads are of 16 bytes"))
}

#[cfg(test)]
mod tests {
    use super::super::{Loop, sass, verbose};
    use super::*;
    use std::collections::BTreeMap;

    fn report(kernel: &str, registers: u32, main: &[(&str, u32)]) -> KernelReport {
        let resources = verbose::Resources {
            kernel: kernel.to_owned(),
            registers,
            ..Default::default()
        };
        let found = Loop {
            start: 0,
            instructions: 0,
            sass: main
                .iter()
                .map(|&(opcode, count)| (opcode.to_owned(), count))
                .collect(),
        };
        let code = sass::Code {
            opcodes: BTreeMap::new(),
            loops: vec![found],
            before_wait: Vec::new(),
        };
        KernelReport::new("sm_90", resources, code)
    }

    #[test]
    fn a_register_too_many_is_told() {
        reject_many_registers(&[report("gemv", 64, &[])]).expect("nothing to reject");
        let error = reject_many_registers(&[report("gemv", 64, &[]), report("norm", 65, &[])])
            .expect_err("one to reject");
        assert!(error.to_string().ends_with(":\n  norm on sm_90: 65"));
    }

    #[test]
    fn a_slow_main_loop_is_told() {
        let loads = ("LDG.E.NA.128.CONSTANT", 4);
        let told = |main: &[(&str, u32)]| {
            let reports = [report("gemv_m1_t1_w4", 64, main)];
            reject_slow_loops(&reports).map_err(|error| error.to_string())
        };
        told(&[("IDP.4A.U8.S8", 16), loads, ("LOP3.LUT", 28)]).expect("32 for 16");
        let error = told(&[("IDP.4A.U8.S8", 16), loads, ("LOP3.LUT", 29)]).expect_err("33 for 16");
        assert!(
            error.contains("33 other instructions for 16 IDP"),
            "{error}"
        );
        let error = told(&[("IDP.4A.U8.S8", 16), loads, ("LDG.E", 1)]).expect_err("a narrow load");
        assert!(error.contains("4 of 5 loads"), "{error}");
        let error = told(&[("IDP.4A.U8.S8", 16)]).expect_err("no load");
        assert!(error.contains("0 of 0 loads"), "{error}");
        let error = told(&[loads]).expect_err("no product");
        assert!(error.contains("no loop has an IDP"), "{error}");
        // Of several tokens, through the tensor cores.
        reject_slow_loops(&[report("gemv_m8_t2_w4", 64, &[loads])]).expect("not of one token");
    }
}
