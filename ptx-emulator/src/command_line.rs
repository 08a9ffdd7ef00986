//! What the commands `ptx-emu` and `bitnet` share: their way of writing to stdout and stderr, and of answering a wrong usage.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use clap::error::ErrorKind as UsageError;

/// Writes `text` to stdout. A reader that stops early, such as `head`, is not an error.
///
/// # Errors
/// If stdout cannot be written to.
pub fn put(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// Writes `message` as one line of `program` to stderr. Where that cannot be written to, the exit status has to say enough: nothing else is left.
pub fn complain(program: &str, message: impl Display) {
    // Whole, not in the pieces that a formatted write makes of it.
    let line = format!("{program}: {message}\n");
    let _ = io::stderr().write_all(line.as_bytes());
}

/// Prints clap's answer to the command line of `program`: help and version in full, an error in one line on stderr. Returns the exit status: 2 for
/// an error, and where the help page takes the place of missing arguments; else 0.
pub fn explain(program: &str, error: &clap::Error) -> ExitCode {
    if !error.use_stderr() || error.kind() == UsageError::DisplayHelpOnMissingArgumentOrSubcommand {
        // If it cannot be printed, nothing is left to do.
        let _ = error.print();
        return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
    }
    let text = error.to_string();
    // The paragraphs before the general ones; a list of what is missing has lines of its own.
    let paragraphs = text
        .split("\n\n")
        .take_while(|paragraph| {
            !["Usage:", "For more"]
                .iter()
                .any(|start| paragraph.starts_with(start))
        })
        .map(|paragraph| paragraph.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect::<Vec<_>>();
    let message = paragraphs.join("; ");
    let message = message.strip_prefix("error: ").unwrap_or(&message);
    complain(program, format_args!("{message}; see `--help`"));
    ExitCode::from(2)
}
