//! What `ptxas --verbose` says of each kernel.

use anyhow::{Context, Result, bail};

/// What one kernel needs, callees included.
#[derive(Debug, Default, PartialEq)]
pub struct Resources {
    pub kernel: String,
    /// 32-bit registers per thread.
    pub registers: u32,
    /// Bytes a thread.
    pub spill_stores: u32,
    /// Bytes a thread.
    pub spill_loads: u32,
    /// Bytes of stack a thread: the largest frame among the kernel and what it calls, or all of them together where
    /// ptxas adds them up.
    pub stack: u32,
    /// Bytes of static shared memory a block.
    pub shared: u32,
}

/// The kernels in the report, sorted by name.
///
/// ```text
/// ptxas info    : Compiling entry function 'gemv' for 'sm_90'
/// ptxas info    : Function properties for gemv
///     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
/// ptxas info    : Used 30 registers, used 1 barriers, 128 bytes smem, 380 bytes cmem[0]
/// ```
pub fn parse(text: &str) -> Result<Vec<Resources>> {
    let mut kernels: Vec<Resources> = Vec::new();
    for line in text.lines() {
        let message = line
            .rsplit_once(" : ")
            .map_or(line, |(_, message)| message)
            .trim();
        if let Some(rest) = message.strip_prefix("Compiling entry function '") {
            let kernel = rest.split('\'').next().unwrap_or(rest).to_owned();
            kernels.push(Resources {
                kernel,
                ..Resources::default()
            });
            continue;
        }
        let relevant = message.starts_with("Used ") || message.contains(" bytes stack frame");
        if !relevant {
            continue;
        }
        let Some(kernel) = kernels.last_mut() else {
            bail!("`{message}` comes before any kernel");
        };
        if message.starts_with("Used ") && kernel.registers != 0 {
            bail!("`{}` has two lines with registers", kernel.kernel);
        }
        for part in message.split(',') {
            count(part.trim(), kernel).with_context(|| format!("cannot read `{message}`"))?;
        }
    }
    if let Some(kernel) = kernels.iter().find(|kernel| kernel.registers == 0) {
        bail!("no register count for `{}`", kernel.kernel);
    }
    kernels.sort_by(|a, b| a.kernel.cmp(&b.kernel));
    Ok(kernels)
}

/// Takes in one count, such as `8 bytes spill stores` or `Used 30 registers`.
fn count(part: &str, kernel: &mut Resources) -> Result<()> {
    let part = part.trim_start_matches("Used ").trim_start_matches("used ");
    let (number, unit) = part.split_once(' ').context("no unit")?;
    let number: u32 = number
        .parse()
        .with_context(|| format!("`{number}` is not a number"))?;
    match unit {
        "registers" => kernel.registers = number,
        "bytes smem" => kernel.shared = number,
        "bytes spill stores" => kernel.spill_stores += number,
        "bytes spill loads" => kernel.spill_loads += number,
        "bytes stack frame" | "bytes cumulative stack size" => {
            kernel.stack = kernel.stack.max(number)
        }
        // Barriers and constant banks: every kernel has some.
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    // As ptxas 13.5 prints it; the second kernel calls a function that is not inlined.
    const REPORT: &str = "\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'spilling' for 'sm_75'
ptxas info    : Function properties for spilling
    48 bytes stack frame, 44 bytes spill stores, 52 bytes spill loads
ptxas info    : Used 64 registers, used 1 barriers, 128 bytes smem, 380 bytes cmem[0]
ptxas info    : Compile time = 5.101 ms
ptxas info    : Compiling entry function 'calling' for 'sm_75'
ptxas info    : Function properties for calling
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 14 registers, used 0 barriers, 16 bytes cumulative stack size
ptxas info    : Compile time = 1.110 ms
ptxas info    : Function properties for _RNvNtCs000_4core6option13unwrap_failed
    16 bytes stack frame, 4 bytes spill stores, 8 bytes spill loads
";

    #[test]
    fn a_report_is_read() {
        let expected = [
            Resources {
                kernel: "calling".to_owned(),
                registers: 14,
                spill_stores: 4,
                spill_loads: 8,
                stack: 16,
                shared: 0,
            },
            Resources {
                kernel: "spilling".to_owned(),
                registers: 64,
                spill_stores: 44,
                spill_loads: 52,
                stack: 48,
                shared: 128,
            },
        ];
        assert_eq!(parse(REPORT).expect("well-formed"), expected);
    }

    #[test]
    fn a_report_that_is_cut_off_is_an_error() {
        let cut = REPORT.find("ptxas info    : Used 14").expect("there");
        let error = parse(&REPORT[..cut]).expect_err("no registers").to_string();
        assert!(error.contains("`calling`"), "{error}");
        let headless = REPORT.find("ptxas info    : Function").expect("there");
        parse(&REPORT[headless..]).expect_err("no kernel before the first count");
    }

    #[test]
    fn a_count_that_is_no_number_is_an_error() {
        let broken = REPORT.replace("Used 14 registers", "Used many registers");
        let error = format!("{:#}", parse(&broken).expect_err("no number"));
        assert!(error.contains("`many` is not a number"), "{error}");
    }
}
