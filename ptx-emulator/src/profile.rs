//! The hottest lines of a launch as tables.

use std::cmp::Reverse;
use std::fmt;

use crate::report::Report;

/// The lines of the PTX text, and of its source files, whose instructions were issued most often. Made by [`Report::profile`]; its
/// `Display` is a table for each, with the share of all instructions that warps issued.
#[derive(Debug, Clone, Copy)]
pub struct Profile<'a> {
    report: &'a Report,
    most: usize,
}

impl Report {
    /// Tables of the hottest lines: at most `most` of the PTX text, and as many of its source files where it names them.
    pub fn profile(&self, most: usize) -> Profile<'_> {
        Profile { report: self, most }
    }
}

/// A line of a table.
struct Row {
    warps: u64,
    lanes: u64,
    sectors: u64,
    conflicts: u64,
    /// Where it is, and what it says.
    place: String,
    text: String,
}

impl fmt::Display for Profile<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ptx = self.report.lines.iter().map(|line| Row {
            warps: line.warp_instructions,
            lanes: line.lane_instructions,
            sectors: line.sectors,
            conflicts: line.bank_conflicts,
            place: line.line.to_string(),
            text: line.instruction.clone(),
        });
        self.table(f, "PTX line", ptx.collect())?;
        let sources = self.report.sources().into_iter().map(|line| Row {
            warps: line.warp_instructions,
            lanes: line.lane_instructions,
            sectors: line.sectors,
            conflicts: line.bank_conflicts,
            place: format!("{}:{}", line.file, line.line),
            text: String::new(),
        });
        let sources: Vec<_> = sources.collect();
        if sources.is_empty() {
            return Ok(());
        }
        writeln!(f)?;
        self.table(f, "source line", sources)
    }
}

impl Profile<'_> {
    fn table(&self, f: &mut fmt::Formatter<'_>, head: &str, mut rows: Vec<Row>) -> fmt::Result {
        let all = self.report.counters.warp.total.max(1) as f64;
        // A stable sort: lines that are equally hot stay in the order of the text.
        rows.sort_by_key(|row| Reverse(row.warps));
        rows.truncate(self.most);
        let width = rows.iter().map(|row| row.place.len()).max().unwrap_or(0);
        let width = width.max(head.len());
        writeln!(
            f,
            "{head:>width$} {:>11} {:>6} {:>13} {:>11} {:>11}",
            "warps", "%", "lanes", "sectors", "conflicts"
        )?;
        for row in rows {
            let line = format!(
                "{:>width$} {:>11} {:>6.2} {:>13} {:>11} {:>11}  {}",
                row.place,
                row.warps,
                100.0 * row.warps as f64 / all,
                row.lanes,
                row.sectors,
                row.conflicts,
                row.text.replace('\t', " "),
            );
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}
