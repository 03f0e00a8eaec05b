//! The demo's words.

use anyhow::Result;
use tombolo_e2e::answers::DEVIATIONS;
use tombolo_e2e::mesh::Mesh;
use tombolo_e2e::needs::Missing;
use tombolo_e2e::scenario::{BEAT, CONVERGED, Outcome, PROPAGATION, RATE, Report, STALE_AFTER, Step};
use tombolo_e2e::story::{chapter, say};
use tombolo_e2e::{operator, programs};

pub(crate) fn missing(all: &[Missing]) {
    chapter("The demo needs something that is not here");
    for Missing { what, how } in all {
        say(&format!(" - {what}\n   {how}"));
    }
}

/// What is up now, in the CLI's own words.
pub(crate) fn mesh(mesh: &mut Mesh) -> Result<()> {
    chapter("What `tombolo status` says in ne");
    let ne = mesh.cluster("ne");
    let said = operator::try_tombolo(&["status".as_ref(), "--cluster".as_ref(), ne.dir.as_os_str()])?;
    said.out.lines().chain(said.err.lines()).for_each(|line| say(&format!("   {line}")));
    Ok(())
}

pub(crate) fn rules() {
    say(&format!(
        "   {RATE} requests a second, open loop, a new connection each, no retry; later than 1 s is failed.\n   \
         Pods keep running while their endpoints leave, so not one request may fail, but those to a cluster that\n   \
         is killed, until its silence tells.\n   \
         Shares: each backend has one slot, a connection picks one at random; counts must be within {DEVIATIONS}\n   \
         standard deviations of that (a right share fails this once in 1.7 million checks)."
    ));
}

pub(crate) fn step(step: &Step, outcome: &Outcome) {
    let sign = if outcome.ok { "ok  " } else { "FAIL" };
    let answers: Vec<_> = outcome.by_cluster.iter().map(|(cluster, n)| format!("{cluster} {n}")).collect();
    let switch = outcome.switch_ms.map_or(String::new(), |ms| format!(", effect after {ms:.0} ms"));
    say(&format!("\n{sign} {}: {}", step.name, step.story));
    say(&format!(
        "     {} requests, {} failed{switch}; answered by {}",
        outcome.requests,
        outcome.failed,
        answers.join(", ")
    ));
    more(outcome).iter().for_each(|line| say(&format!("     {line}")));
    outcome.faults.iter().for_each(|fault| say(&format!("     {fault}")));
}

/// What only some steps have to tell.
fn more(outcome: &Outcome) -> Vec<String> {
    let mut lines = Vec::new();
    if !outcome.by_way.is_empty() {
        let ways: Vec<_> = outcome.by_way.iter().map(|(way, n)| format!("{way} {n}")).collect();
        lines.push(format!("asked by {}", ways.join(", ")));
    }
    if let Some(ms) = outcome.stale_ms {
        lines.push(format!("no node of ne sent it anything new after {:.1} s", ms / 1000.0));
    }
    if let Some(bound) = outcome.bound {
        lines.push(format!(
            "at most {bound} may fail: {RATE}/s x 1/3 x ({} s stale-after + {} s beat + {} s propagation)",
            STALE_AFTER.as_secs(),
            BEAT.as_secs(),
            PROPAGATION.as_secs(),
        ));
        lines.push(format!(
            "tombolo.io/stale-after: {}s is on ne's Service for the demo; the default is 30 s",
            STALE_AFTER.as_secs()
        ));
    }
    if let Some(ms) = outcome.converged_ms {
        lines.push(format!("its tables were right {ms:.0} ms after its start (at most {} ms)", CONVERGED.as_millis()));
    }
    lines
}

pub(crate) fn end(report: &Report) {
    let wrong: Vec<_> = report.steps.iter().filter(|s| !s.ok).map(|s| s.name.as_str()).collect();
    if !wrong.is_empty() {
        chapter(&format!("NOT as expected: {}", wrong.join(", ")));
        return;
    }
    let requests: u64 = report.steps.iter().map(|s| s.requests).sum();
    let lost: u64 = report.steps.iter().map(|s| s.failed).sum();
    chapter(&format!(
        "All {} steps as expected: {requests} requests; {lost} failed, all of them at fc between its death and its silence",
        report.steps.len()
    ));
}

/// Lines to try while the mesh stays up.
pub(crate) fn kept(mesh: &Mesh) -> Result<()> {
    let tombolo = programs::program("tombolo")?;
    let (tombolo, ne) = (tombolo.display(), &mesh.clusters[0]);
    let (dir, node) = (ne.dir.display(), &ne.site.nodes[0]);
    let (cgroup, netns) = (node.place.cgroup.display(), &node.place.netns);
    let frontend = ne.frontend();
    chapter("It stays up. Lines to try, as root");
    say(&format!(
        "   # ask six times as a client on node {node}; affinity is none now, so every cluster answers:\n   \
         sh -c 'echo $$ >{cgroup}/cgroup.procs; exec nsenter --net=/run/netns/{netns} \
         sh -c \"for i in 1 2 3 4 5 6; do curl -s http://{frontend}/; echo; done\"'\n\n   \
         # why the answer is what it is:\n   \
         {tombolo} explain rebel-base --cluster {dir} --node {node}\n   \
         {tombolo} services --cluster {dir}\n   \
         {tombolo} status --cluster {dir}\n\n   \
         # change something, for example the affinity; the file is watched:\n   \
         vi {dir}/source/rebel-base.yaml\n\n   \
         # logs: {logs}\n   \
         # when done:\n   \
         cargo xtask demo down",
        node = node.name,
        logs = mesh.run().logs().display(),
    ));
    Ok(())
}
