//! Runs cases in order and says what became of each. What cannot run here is a loud skip, or a failure where skips
//! are forbidden.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tombolo_e2e::cases::Choice;
use tombolo_e2e::clock::Seen;
use tombolo_e2e::cluster::{Cluster, Datapath};
use tombolo_e2e::mesh::{DEMO, Mesh, Plan};
use tombolo_e2e::{cases, clock, needs, story};
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

/// The cases of this program, and the mesh that some of them share.
pub(crate) struct Harness {
    choice: Choice,
    shared: Option<Mesh>,
}

impl Harness {
    pub(crate) fn from_arguments() -> Self {
        Self { choice: Choice::from_arguments(), shared: None }
    }

    pub(crate) fn run(mut self, cases: &[Case]) -> ExitCode {
        let chosen: Vec<_> = cases.iter().filter(|case| self.choice.has(case.name)).collect();
        if self.choice.list {
            chosen.iter().for_each(|case| story::say(&format!("{}: test", case.name)));
            return ExitCode::SUCCESS;
        }
        match cases::prepare(chosen.len(), &needs::missing_here()) {
            Ok(None) => {}
            Ok(Some(verdict)) => return verdict,
            Err(error) => {
                story::fail(&error);
                return ExitCode::FAILURE;
            }
        }
        // A case that panics drops its mesh, which so is cleaned up.
        let failed = chosen.iter().filter(|case| !cases::passes(case.name, || self.carry_out(case))).count();
        story::say(&format!("\n{} passed, {failed} failed", chosen.len() - failed));
        let left = self.shared.take().map_or(Ok(()), end);
        if let Err(error) = &left {
            story::say(&format!("FAIL the mesh that ends: {error:#}"));
        }
        if failed == 0 && left.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
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
    ensure!(!cases::skips_forbidden(), "cannot run here: {why}");
    story::warn(&format!("SKIPPED: the next case cannot run here: {why}"));
    Ok(())
}
