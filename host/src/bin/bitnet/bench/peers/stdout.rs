//! Stdout is for the results, and a library that is measured may print.

use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};

/// As long as this lives, what the process writes to stdout goes to stderr.
pub struct Redirected {
    stdout: OwnedFd,
}

impl Redirected {
    pub fn to_stderr() -> io::Result<Self> {
        let mut stdout = io::stdout().lock();
        stdout.flush()?;
        let redirected = Self {
            stdout: stdout.as_fd().try_clone_to_owned()?,
        };
        rustix::stdio::dup2_stdout(io::stderr())?;
        Ok(redirected)
    }
}

impl Drop for Redirected {
    fn drop(&mut self) {
        if let Err(error) = rustix::stdio::dup2_stdout(&self.stdout) {
            tracing::warn!(%error, "stdout still goes to stderr");
        }
    }
}
