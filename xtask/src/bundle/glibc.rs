//! The newest version of glibc that a program asks for.

use std::path::Path;

use anyhow::{Context, Result};

/// Version of a glibc, major and minor.
pub type Version = (u32, u32);

/// The newest `GLIBC_<major>.<minor>` that stands in the file; none in a program that needs no glibc. The names of symbol versions
/// stand in an ELF file's string table as they are.
pub fn newest(path: &Path) -> Result<Option<Version>> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(newest_in(&bytes))
}

fn newest_in(bytes: &[u8]) -> Option<Version> {
    const PREFIX: &[u8] = b"GLIBC_";
    let starts = bytes
        .windows(PREFIX.len())
        .enumerate()
        .filter(|(_, window)| *window == PREFIX)
        .map(|(at, _)| at + PREFIX.len());
    starts.filter_map(|at| version(&bytes[at..])).max()
}

fn version(bytes: &[u8]) -> Option<Version> {
    let len = bytes
        .iter()
        .position(|byte| !byte.is_ascii_digit() && *byte != b'.')?;
    let text = std::str::from_utf8(&bytes[..len]).ok()?;
    let mut parts = text.split('.').map(str::parse);
    match (parts.next(), parts.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Some((major, minor)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        let strings = b"\0GLIBC_2.2.5\0libc.so.6\0GLIBC_2.34\0GLIBC_2.9\0GLIBC_PRIVATE\0";
        assert_eq!(newest_in(strings), Some((2, 34)));
        assert_eq!(newest_in(b"\0static\0"), None);
    }

    #[test]
    fn this_program_needs_a_glibc() {
        let this = std::env::current_exe().expect("a test program has a path");
        let newest = newest(&this).expect("readable").expect("linked with glibc");
        assert!(newest >= (2, 2), "{newest:?}");
    }
}
