//! From rustc's assembly file to the PTX that is loaded.

use std::collections::HashMap;
use std::fmt::Write as _;

use crate::CudaBuilderError;

/// What `#[kernel(launch_bounds(..))]` leaves in the module's assembly: this, the kernel's name, the most threads in a
/// block, and the least blocks on a multiprocessor (0: none asked for).
const LAUNCH_BOUNDS: &str = "//cuda_builder.launch_bounds ";

struct LaunchBounds {
    max_threads: u32,
    min_blocks: u32,
    line: usize,
}

/// Turns launch-bound comments into directives of the entries they name, and drops the comments that only tell which
/// lines were inline assembly.
pub fn finish(asm: &str) -> Result<String, CudaBuilderError> {
    let mut bounds = launch_bounds(asm)?;
    let mut text = String::with_capacity(asm.len());
    let mut entry: Option<&str> = None;
    for line in asm.lines() {
        let trimmed = line.trim();
        if trimmed.starts_with(LAUNCH_BOUNDS)
            || matches!(trimmed, "// begin inline asm" | "// end inline asm")
        {
            continue;
        }
        if let Some(name) = entry_name(trimmed) {
            entry = Some(name);
        }
        if trimmed == "{"
            && let Some(name) = entry.take()
            && let Some(found) = bounds.remove(name)
        {
            let _ = writeln!(text, ".maxntid {}, 1, 1", found.max_threads);
            if found.min_blocks > 0 {
                let _ = writeln!(text, ".minnctapersm {}", found.min_blocks);
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    if let Some((name, left)) = bounds.into_iter().min_by_key(|(_, bounds)| bounds.line) {
        return Err(CudaBuilderError::Ptx {
            line: left.line,
            what: format!("launch bounds for `{name}`, which is no entry of the module"),
        });
    }
    Ok(text)
}

/// Names of the entries, in order.
pub fn entries(ptx: &str) -> Vec<String> {
    ptx.lines()
        .filter_map(|line| entry_name(line.trim()))
        .map(str::to_owned)
        .collect()
}

fn entry_name(line: &str) -> Option<&str> {
    let rest = line.strip_prefix(".visible ").unwrap_or(line);
    let rest = rest.strip_prefix(".entry ")?;
    Some(rest.split(['(', ' ']).next().unwrap_or(rest))
}

fn launch_bounds(asm: &str) -> Result<HashMap<&str, LaunchBounds>, CudaBuilderError> {
    let mut all = HashMap::new();
    for (index, line) in asm.lines().enumerate() {
        let Some(rest) = line.trim().strip_prefix(LAUNCH_BOUNDS) else {
            continue;
        };
        let line = index + 1;
        let error = |what: String| CudaBuilderError::Ptx { line, what };
        let mut fields = rest.split_whitespace();
        let (Some(name), Some(threads), Some(blocks), None) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            return Err(error(format!(
                "launch bounds `{rest}` are not `name threads blocks`"
            )));
        };
        let number = |text: &str| {
            text.parse::<u32>()
                .map_err(|_| error(format!("launch bound `{text}` of `{name}` is no number")))
        };
        let max_threads = number(threads)?;
        if !(1..=1024).contains(&max_threads) {
            return Err(error(format!(
                "launch_bounds({max_threads}, ..) of `{name}`: a block has 1 to 1024 threads"
            )));
        }
        let found = LaunchBounds {
            max_threads,
            min_blocks: number(blocks)?,
            line,
        };
        if all.insert(name, found).is_some() {
            return Err(error(format!("`{name}` has launch bounds twice")));
        }
    }
    Ok(all)
}
