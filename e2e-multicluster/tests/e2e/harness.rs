//! Runs cases in order and says what became of each. What cannot run here is a loud skip, or a failure where skips
//! are forbidden.

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result};
use tombolo_e2e::cluster::Datapath;
use tombolo_e2e::mesh::{DEMO, Mesh, Plan};
use tombolo_e2e::{clock, needs, run, story};

/// One end-to-end test.
#[derive(Clone, Copy)]
pub(crate) struct Case {
    /// Its name, as a sentence.
    pub(crate) name: &'static str,
    /// What it does.
    pub(crate) body: Body,
}

/// What a case works on.
#[derive(Clone, Copy)]
pub(crate) enum Body {
    /// What it makes itself.
    Alone(fn() -> Result<()>),
    /// The demo's mesh, complete and at rest. A case that fails takes it down, so the next gets a new one.
    Shared(fn(&mut Mesh) -> Result<()>),
}

/// The janitor of every run of these tests.
pub(crate) fn janitor() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_demo"))
}

/// Which cases to run, from the command line; flags of the usual harness are accepted and ignored.
pub(crate) struct Harness {
    parts: Vec<String>,
    list: bool,
    shared: Option<Mesh>,
}

impl Harness {
    pub(crate) fn from_arguments() -> Self {
        let all: Vec<String> = std::env::args().skip(1).collect();
        let list = all.iter().any(|a| a == "--list");
        Self { parts: all.into_iter().filter(|a| !a.starts_with("--")).collect(), list, shared: None }
    }

    pub(crate) fn run(mut self, cases: &[Case]) -> ExitCode {
        let chosen = |case: &&Case| self.parts.is_empty() || self.parts.iter().any(|part| case.name.contains(part));
        let chosen: Vec<_> = cases.iter().filter(chosen).collect();
        if self.list {
            chosen.iter().for_each(|case| story::say(&format!("{}: test", case.name)));
            return ExitCode::SUCCESS;
        }
        if let Some(verdict) = unable(chosen.len()) {
            return verdict;
        }
        let ready = clock::heed_signals().and_then(|()| run::sweep_all(run::AlsoKept::No));
        if let Err(error) = ready {
            story::fail(&error);
            return ExitCode::FAILURE;
        }
        let failed = chosen.iter().filter(|case| !self.passes(case)).count();
        story::say(&format!("\n{} passed, {failed} failed", chosen.len() - failed));
        if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    fn passes(&mut self, case: &Case) -> bool {
        if clock::interrupted() {
            return false;
        }
        let begun = Instant::now();
        // A panic (an assertion) is a failure of this case only; its mesh is dropped and so cleaned up.
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.carry_out(case)));
        let ms = begun.elapsed().as_millis();
        match &result {
            Ok(Ok(())) => story::say(&format!("ok   {} ({ms} ms)", case.name)),
            Ok(Err(error)) => story::say(&format!("FAIL {} ({ms} ms)\n{error:#}", case.name)),
            Err(_) => story::say(&format!("FAIL {} ({ms} ms): panicked, see above", case.name)),
        }
        matches!(result, Ok(Ok(())))
    }

    fn carry_out(&mut self, case: &Case) -> Result<()> {
        let body = match case.body {
            Body::Alone(body) => return body(),
            Body::Shared(body) => body,
        };
        // Taken out, so that a failure drops it.
        let mut mesh = match self.shared.take() {
            Some(mesh) => mesh,
            None => Mesh::up(&demo_plan()).context("the shared mesh")?,
        };
        body(&mut mesh)?;
        mesh.rest().context("the mesh after the case")?;
        self.shared = Some(mesh);
        Ok(())
    }
}

/// The demo's mesh, with the kernel's maps.
pub(crate) fn demo_plan() -> Plan<'static> {
    Plan { clusters: &DEMO, nodes: 2, pods: 2, datapath: Datapath::Ebpf, janitor: janitor() }
}

/// What to do when this machine lacks something; `None` when it has all.
fn unable(cases: usize) -> Option<ExitCode> {
    let missing = needs::missing_here();
    if missing.is_empty() {
        return None;
    }
    let forbidden = std::env::var_os("TOMBOLO_FORBID_SKIPS").is_some_and(|v| v == "1");
    let verdict = if forbidden { "FAILED" } else { "SKIPPED" };
    for what in &missing {
        story::warn(&format!("{verdict}: {cases} end-to-end tests cannot run here: {what}"));
    }
    Some(if forbidden { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
