//! What programs of end-to-end cases have in common: which cases were asked for, whether they can run here, and what
//! became of each.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;

use crate::needs::Missing;
use crate::{clock, run, story};

/// Which cases to run, from the command line; flags of the usual harness are accepted and ignored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    parts: Vec<String>,
    /// Only to name them.
    pub list: bool,
}

impl Choice {
    /// What the arguments of this process say.
    pub fn from_arguments() -> Self {
        let all: Vec<String> = std::env::args().skip(1).collect();
        let list = all.iter().any(|a| a == "--list");
        Self { parts: all.into_iter().filter(|a| !a.starts_with("--")).collect(), list }
    }

    /// Whether a case was asked for: its name has one of the parts, or there are none.
    pub fn has(&self, name: &str) -> bool {
        self.parts.is_empty() || self.parts.iter().any(|part| name.contains(part))
    }
}

/// Makes ready for so many cases, where all that they need is here; else gives the verdict, said loudly.
///
/// # Errors
/// Signals cannot be heeded, or what another run left cannot be swept.
pub fn prepare(cases: usize, missing: &[Missing]) -> Result<Option<ExitCode>> {
    if missing.is_empty() {
        clock::heed_signals()?;
        return run::sweep_all(run::AlsoKept::No).map(|_| None);
    }
    let forbidden = skips_forbidden();
    let verdict = if forbidden { "FAILED" } else { "SKIPPED" };
    for what in missing {
        story::warn(&format!("{verdict}: {cases} end-to-end tests cannot run here: {what}"));
    }
    Ok(Some(if forbidden { ExitCode::FAILURE } else { ExitCode::SUCCESS }))
}

/// Runs one case and says what became of it. A panic (an assertion) is a failure of this case only.
pub fn passes(name: &str, body: impl FnOnce() -> Result<()>) -> bool {
    if clock::interrupted() {
        return false;
    }
    let begun = Instant::now();
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
    let ms = begun.elapsed().as_millis();
    match &result {
        Ok(Ok(())) => story::say(&format!("ok   {name} ({ms} ms)")),
        Ok(Err(error)) => story::say(&format!("FAIL {name} ({ms} ms)\n{error:#}")),
        Err(_) => story::say(&format!("FAIL {name} ({ms} ms): panicked, see above")),
    }
    matches!(result, Ok(Ok(())))
}

/// Whether a case that cannot run here is a failure.
pub fn skips_forbidden() -> bool {
    std::env::var_os("TOMBOLO_FORBID_SKIPS").is_some_and(|v| v == "1")
}
