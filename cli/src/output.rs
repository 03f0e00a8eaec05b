//! The only place that prints.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command's result is what it prints")]

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
    match format {
        Format::Text => print!("{}", report.text()),
        Format::Json => {
            let json = serde_json::to_string_pretty(report).expect("reports have string keys and no failing parts");
            println!("{json}");
        }
    }
}

/// Prints why a command failed to standard error.
pub(crate) fn print_error(error: &anyhow::Error) {
    eprintln!("error: {error:#}");
}
