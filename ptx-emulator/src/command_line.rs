//! What the commands `ptx-emu` and `bitnet` share: their way of writing to stdout, and of answering a wrong usage.

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
    eprintln!("{program}: {message}; see `--help`");
    ExitCode::from(2)
}
