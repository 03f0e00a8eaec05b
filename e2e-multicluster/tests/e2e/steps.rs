//! What the demo shows, and what it takes for granted.

use anyhow::{Result, ensure};
use tombolo_e2e::answers::Tally;
use tombolo_e2e::load::{self, Dial};
use tombolo_e2e::mesh::Mesh;
use tombolo_e2e::process::Membership;
use tombolo_e2e::{scenario, story};

use crate::harness::{Body, Case};

pub(crate) const CASES: &[Case] = &[
    Case { name: "steps: every step of the demo is as it should be", body: Body::Shared(every_step) },
    Case { name: "steps: a client in the cgroup is translated, the same outside is not", body: Body::Shared(cgroup) },
];

fn every_step(mesh: &mut Mesh) -> Result<()> {
    let report = scenario::carry_out_all(mesh, |step, outcome| {
        let (requests, failed) = (outcome.requests, outcome.failed);
        let sign = if outcome.ok { "ok  " } else { "FAIL" };
        story::say(&format!("     {sign} {}: {requests} requests, {failed} failed", step.name));
    })?;
    let wrong: Vec<_> = report.steps.iter().filter(|s| !s.ok).map(|s| format!("{}: {:?}", s.name, s.faults)).collect();
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    ensure!(report.steps.len() == scenario::STEPS.len());
    Ok(())
}

fn cgroup(mesh: &mut Mesh) -> Result<()> {
    let elsewhere = mesh.run().make_cgroup("outside")?;
    let ne = mesh.cluster("ne");
    let (place, frontend) = (ne.site.nodes[0].place.clone(), ne.frontend());
    let ask =
        |membership| Ok::<_, anyhow::Error>(Tally::of(&load::ask(&place, &Dial::http(frontend, 100), 20, membership)?));
    let inside = ask(Membership::Inside)?;
    ensure!((inside.requests, inside.failed) == (20, 0), "inside: {inside:?}");
    let outside = ask(Membership::Outside(elsewhere))?;
    ensure!((outside.requests, outside.failed) == (20, 20), "outside: {outside:?}");
    Ok(())
}
