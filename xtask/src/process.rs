//! Running other programs, with what they said in the error and a limit on their time.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Seek};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// What a program that succeeded wrote.
pub struct Captured {
    pub stdout: String,
    pub stderr: String,
}

/// Runs the command and keeps what it writes. Fails with its stderr where it fails, or is stopped after `limit`.
pub fn capture(command: &mut Command, limit: Duration) -> Result<Captured> {
    let shown = show(command);
    // Into files rather than pipes: a pipe that fills up would stop the program, and the wait for it.
    let stdout = tempfile::tempfile()?;
    let stderr = tempfile::tempfile()?;
    command
        .stdin(Stdio::null())
        .stdout(stdout.try_clone()?)
        .stderr(stderr.try_clone()?);
    let status = wait(command, &shown, limit)?;
    let captured = Captured {
        stdout: read(stdout)?,
        stderr: read(stderr)?,
    };
    if !status.success() {
        bail!("`{shown}` failed ({status}): {}", captured.stderr.trim());
    }
    Ok(captured)
}

fn wait(command: &mut Command, shown: &str, limit: Duration) -> Result<ExitStatus> {
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot start `{shown}`"))?;
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if started.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            bail!("`{shown}` took longer than {} s", limit.as_secs());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Runs the command with this one's own stdout and stderr; whether it succeeded.
pub fn attached(command: &mut Command) -> Result<bool> {
    let shown = show(command);
    let status = command
        .status()
        .with_context(|| format!("cannot start `{shown}`"))?;
    Ok(status.success())
}

fn read(mut file: File) -> Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn show(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(OsStr::to_string_lossy)
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    #[test]
    fn a_failure_shows_the_command_and_what_it_said() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo out; echo no such thing >&2; exit 3"]);
        let error = format!("{:#}", capture(&mut command, LIMIT).err().expect("exit 3"));
        assert!(
            error.contains("no such thing") && error.contains("exit 3"),
            "{error}"
        );
    }

    #[test]
    fn both_outputs_are_kept_apart() {
        let captured = capture(
            Command::new("sh").args(["-c", "echo out; echo err >&2"]),
            LIMIT,
        );
        let captured = captured.expect("exit 0");
        assert_eq!(
            (captured.stdout.as_str(), captured.stderr.as_str()),
            ("out\n", "err\n")
        );
    }

    #[test]
    fn a_program_that_hangs_is_stopped() {
        let mut command = Command::new("sleep");
        command.arg("1000");
        let error = capture(&mut command, Duration::from_millis(50))
            .err()
            .expect("stopped");
        assert!(error.to_string().contains("took longer"), "{error}");
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let error = capture(&mut Command::new("no-such-program"), LIMIT)
            .err()
            .expect("absent");
        assert!(error.to_string().contains("no-such-program"), "{error}");
    }
}
