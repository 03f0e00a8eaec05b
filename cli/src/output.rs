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

/// Whether anybody reads what is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reader {
    /// Somebody may.
    There,
    /// Nobody does any more.
    Gone,
}

/// Prints one line of a result that has no end of its own.
pub(crate) fn print_line(line: &str) -> Reader {
    let mut out = io::stdout().lock();
    let printed = writeln!(out, "{line}").and_then(|()| out.flush());
    if printed.is_ok() { Reader::There } else { Reader::Gone }
}

/// Puts a text in place of the last lines of a terminal. Lines are cut at its edge, so that they stay lines.
pub(crate) fn redraw(lines: usize, text: &str) {
    let up = if lines > 0 { format!("\x1b[{lines}F\x1b[J") } else { String::new() };
    let mut out = io::stdout().lock();
    let drawn = write!(out, "{up}\x1b[?7l{text}\x1b[?7h").and_then(|()| out.flush());
    // A picture that cannot be drawn is missed by nobody: the result says all.
    drop(drawn);
}

/// Prints what went wrong beside a result.
pub(crate) fn print_problem(problem: &str) {
    eprintln!("{problem}");
}

/// A kind of failure as people know it.
pub(crate) fn in_words(kind: io::ErrorKind) -> String {
    match kind {
        io::ErrorKind::NotFound => "no such file".into(),
        kind => kind.to_string(),
    }
}

/// Prints why a command failed to standard error.
pub(crate) fn print_error(error: &anyhow::Error) {
    eprintln!("error: {error:#}");
}
