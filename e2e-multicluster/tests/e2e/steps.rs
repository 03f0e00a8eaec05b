//! What the demo shows, and what it takes for granted.

use std::ops::Range;

use anyhow::{Result, ensure};
use tombolo_e2e::answers::Tally;
use tombolo_e2e::load::{self, Dial};
use tombolo_e2e::mesh::Mesh;
use tombolo_e2e::process::Membership;
use tombolo_e2e::scenario::{self, Outcome};
use tombolo_e2e::story;

use crate::harness::{Body, Case};

pub(crate) const CASES: &[Case] = &[
    Case { name: "steps: annotations and endpoints", body: Body::Shared(|mesh| steps(mesh, 0..8)) },
    Case { name: "steps: UDP and IPv6", body: Body::Shared(|mesh| steps(mesh, 8..10)) },
    Case { name: "steps: a cluster dies and returns", body: Body::Shared(|mesh| steps(mesh, 10..12)) },
    Case { name: "steps: an agent is restarted and upgraded", body: Body::Shared(|mesh| steps(mesh, 12..14)) },
    Case { name: "steps: a client in the cgroup is translated, the same outside is not", body: Body::Shared(cgroup) },
];

/// These steps of the demo.
fn steps(mesh: &mut Mesh, which: Range<usize>) -> Result<()> {
    let report = scenario::carry_out(mesh, &scenario::STEPS[which], |step, outcome| {
        let Outcome { requests, failed, switch_ms, stale_ms, converged_ms, .. } = outcome;
        let sign = if outcome.ok { "ok  " } else { "FAIL" };
        let times = [("effect", switch_ms), ("stale", stale_ms), ("converged", converged_ms)];
        let times = times.into_iter().filter_map(|(what, ms)| Some(format!(", {what} {:.0} ms", (*ms)?)));
        let times: String = times.collect();
        story::say(&format!("     {sign} {}: {requests} requests, {failed} failed{times}", step.name));
    })?;
    let wrong: Vec<_> = report.steps.iter().filter(|s| !s.ok).map(|s| format!("{}: {:?}", s.name, s.faults)).collect();
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
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
