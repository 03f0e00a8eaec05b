//! Runs cases in order and says what became of each. What cannot run here is a loud skip, or a failure where skips
//! are forbidden.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tombolo_e2e::clock::Seen;
use tombolo_e2e::cluster::{Cluster, Datapath};
use tombolo_e2e::mesh::{DEMO, Mesh, Plan};
use tombolo_e2e::{clock, needs, run, story};
use tombolo_ebpf::Census;

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
        let left = self.shared.take().map_or(Ok(()), end);
        if let Err(error) = &left {
            story::say(&format!("FAIL the mesh that ends: {error:#}"));
        }
        if failed == 0 && left.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
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

/// Ends a mesh that was used, and sees that nothing of it is left: in the kernel, of its namespaces, cgroups and files.
fn end(mesh: Mesh) -> Result<()> {
    let run = (mesh.run().dir().to_owned(), mesh.run().netns(""));
    let places = || mesh.clusters.iter().flat_map(|c| (0..c.site.nodes.len()).map(move |n| (c, n)));
    let census = |(c, n): (&Cluster, usize)| Census::of(&c.site.nodes[n].place.cgroup, &c.agent_bpffs(n));
    let there: Vec<Census> = places().map(census).collect::<Result<_, _>>()?;
    let cgroup = mesh.clusters[0].site.control.cgroup.parent().map(Path::to_owned).context("a run's cgroup")?;
    ensure!(there.iter().all(|census| !census.maps.is_empty()), "an agent has no maps: {there:?}");
    drop(mesh);
    clock::wait_until("the kernel to let go", Duration::from_secs(10), || {
        let left: Vec<_> = there.iter().map(Census::left).filter(|left| *left != Census::default()).collect();
        Ok(if left.is_empty() { Seen::Ready(()) } else { Seen::NotYet(format!("{left:?}")) })
    })?;
    let names = std::fs::read_dir("/run/netns").into_iter().flatten().flatten().map(|e| e.file_name());
    let names: Vec<_> = names.filter(|name| name.to_string_lossy().starts_with(&run.1)).collect();
    ensure!(names.is_empty() && !run.0.exists() && !cgroup.exists(), "left: {names:?}, {}", run.0.display());
    Ok(())
}

/// The demo's mesh, with the kernel's maps.
pub(crate) fn demo_plan() -> Plan<'static> {
    Plan { clusters: &DEMO, nodes: 2, pods: 2, datapath: Datapath::Ebpf, janitor: janitor() }
}

/// Says loudly that a case cannot run here.
///
/// # Errors
/// Skips are forbidden.
pub(crate) fn skip(why: &str) -> Result<()> {
    ensure!(!skips_forbidden(), "cannot run here: {why}");
    story::warn(&format!("SKIPPED: the next case cannot run here: {why}"));
    Ok(())
}

fn skips_forbidden() -> bool {
    std::env::var_os("TOMBOLO_FORBID_SKIPS").is_some_and(|v| v == "1")
}

/// What to do when this machine lacks something; `None` when it has all.
fn unable(cases: usize) -> Option<ExitCode> {
    let missing = needs::missing_here();
    if missing.is_empty() {
        return None;
    }
    let forbidden = skips_forbidden();
    let verdict = if forbidden { "FAILED" } else { "SKIPPED" };
    for what in &missing {
        story::warn(&format!("{verdict}: {cases} end-to-end tests cannot run here: {what}"));
    }
    Some(if forbidden { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
