//! What a person reads while it happens.

use std::io::{self, Write as _};

/// A heading.
pub fn chapter(text: &str) {
    say(&format!("\n== {text}"));
}

/// One line of the story.
pub fn say(text: &str) {
    let mut out = io::stdout().lock();
    // Nobody reading is no reason to fail.
    let _ = writeln!(out, "{text}");
    let _ = out.flush();
}

/// Why it ends here.
pub fn fail(error: &anyhow::Error) {
    let _ = writeln!(io::stderr().lock(), "error: {error:#}");
}

/// Something that is wrong and does not stop the story.
pub fn warn(text: &str) {
    let _ = writeln!(io::stderr().lock(), "WARNING: {text}");
}
