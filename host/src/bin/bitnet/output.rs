//! What goes to stdout: a table, or one JSON object.

use anyhow::{Context, Result};
use bitnet_cuda::whole_file;
use ptx_emulator::command_line;
use serde::Serialize;
use std::path::Path;

/// Whether the results were right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Right,
    Wrong,
}

impl Outcome {
    pub fn of(mismatches: usize) -> Self {
        if mismatches == 0 {
            Self::Right
        } else {
            Self::Wrong
        }
    }
}

/// Where results go.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    pub json: bool,
}

impl Output {
    /// Prints `report` as JSON, or as `text` says.
    pub fn print<R: Serialize>(self, report: &R, text: impl FnOnce(&R) -> String) -> Result<()> {
        let text = if self.json {
            serde_json::to_string(report)? + "\n"
        } else {
            text(report)
        };
        // Whether the results were right does not depend on a reader that stops early.
        command_line::put(&text).context("cannot write to stdout")
    }
}

/// Refuses before the work, not after it, a file that an option names and that cannot be written.
pub fn require_writable(option: &str, path: &Path) -> Result<()> {
    whole_file::require_writable(path)
        .map(drop)
        .with_context(|| format!("{option} {}", path.display()))
}

/// Columns aligned by their widest cell: the first to the left, the others to the right.
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut lines = vec![head.iter().map(ToString::to_string).collect()];
    lines.extend_from_slice(rows);
    let widths: Vec<usize> = (0..head.len())
        .map(|column| {
            lines
                .iter()
                .map(|line: &Vec<String>| line[column].chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for line in &lines {
        for (column, (cell, &width)) in line.iter().zip(&widths).enumerate() {
            if column == 0 {
                text += &format!("{cell:<width$}");
            } else {
                text += &format!("  {cell:>width$}");
            }
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::table;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [
            vec!["quantize".to_owned(), "1".to_owned()],
            vec!["mul".to_owned(), "200".to_owned()],
        ];
        assert_eq!(
            table(&["op", "n"], &rows),
            "op          n\nquantize    1\nmul       200\n"
        );
    }
}
