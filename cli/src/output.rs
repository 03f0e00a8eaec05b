//! The only place that prints.
#![expect(clippy::print_stderr, reason = "a command's result is what it prints")]

use std::io::{self, Write as _};

use serde::Serialize;

use crate::args::Format;

/// A command's result: a value for programs, and the same in words.
pub(crate) trait Report: Serialize {
    /// In words, ending in a newline.
    fn text(&self) -> String;

    /// Whether all is well; it decides the exit status.
    fn ok(&self) -> bool {
        true
    }
}

/// Prints a result to standard output.
pub(crate) fn print<R: Report>(report: &R, format: Format) {
    let text = match format {
        Format::Text => report.text(),
        Format::Json => {
            serde_json::to_string_pretty(report).expect("reports have string keys and no failing parts") + "\n"
        }
    };
    // A reader that has seen enough, such as `head`, closes the pipe; that is no failure of ours.
    let printed = io::stdout().write_all(text.as_bytes());
    if let Err(error) = printed.and_then(|()| io::stdout().flush())
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        eprintln!("error: cannot print: {error}");
    }
}

/// Prints why a command failed to standard error.
pub(crate) fn print_error(error: &anyhow::Error) {
    eprintln!("error: {error:#}");
}
