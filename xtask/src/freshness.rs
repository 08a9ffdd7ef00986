//! Whether a committed file is what it would be made anew.

use anyhow::{Result, bail};

/// What a check came to, where it did not fail.
pub enum Freshness {
    /// The file is fresh, and how that is known.
    Proven(String),
    /// Nothing speaks against it, but this machine could not prove it, and why.
    Unproven(String),
}

impl Freshness {
    /// What `--check` of a command does: it succeeds only where it has proven something.
    pub fn require(self, file: &str) -> Result<()> {
        match self {
            Self::Proven(how) => println!("{file} is fresh: {how}"),
            Self::Unproven(why) => bail!("{file} could not be proven to be fresh: {why}"),
        }
        Ok(())
    }
}
