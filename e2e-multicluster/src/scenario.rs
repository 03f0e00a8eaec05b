//! The demo's steps: what is changed, who should answer then, and how it is checked.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::answers::{Answer, Shares, Tally, disagreement, switch_us, to_f64};
use crate::clock::{Seen, let_pass, monotonic_us};
use crate::cluster::{Cluster, SERVICE};
use crate::load::{self, Dial};
use crate::mesh::Mesh;
use crate::observe::{self, Table};

/// Requests per second of each step's load.
pub const RATE: u32 = 250;

/// Requests of each step's steady state.
const STEADY: usize = 500;

/// How long a change may take to be carried out everywhere.
const SWITCH: Duration = Duration::from_secs(10);

/// Load before a change, so that the state before is seen.
const BEFORE: Duration = Duration::from_millis(400);

/// One step.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// Its name, stable for readers of reports.
    pub name: &'static str,
    /// What happens, for a person.
    pub story: &'static str,
    /// Annotations of `rebel-base` in `ne`: affinity by either family of keys. Empty removes one.
    pub annotations: &'static [(&'static str, &'static str)],
    /// What happens to the endpoints in `ne`.
    pub endpoints: Endpoints,
    /// The clusters that should answer a client in `ne` afterwards.
    pub answer: &'static [&'static str],
}

/// What a step does to `rebel-base`'s endpoints in `ne`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoints {
    /// They stay as they are.
    Stay,
    /// All leave their EndpointSlice, as when a Deployment goes; the pods keep running, and the Service is kept.
    Delete,
    /// They come back.
    Restore,
}

const LEGACY: &str = "io.cilium/service-affinity";
const AFFINITY: &str = "service.cilium.io/affinity";
const ALL: &[&str] = &["ne", "we", "fc"];
const OTHERS: &[&str] = &["we", "fc"];

/// The steps, in order. Each begins where the one before ended.
pub const STEPS: [Step; 8] = [
    step("alternate", "a global Service without affinity: every cluster answers", &[], ALL),
    step("affinity-legacy-local", "io.cilium/service-affinity: local", &[(LEGACY, "local")], &["ne"]),
    step("affinity-legacy-remote", "io.cilium/service-affinity: remote", &[(LEGACY, "remote")], OTHERS),
    step("affinity-local", "service.cilium.io/affinity: local", &[(LEGACY, ""), (AFFINITY, "local")], &["ne"]),
    step("affinity-remote", "service.cilium.io/affinity: remote", &[(AFFINITY, "remote")], OTHERS),
    step("affinity-none", "service.cilium.io/affinity: none", &[(AFFINITY, "none")], ALL),
    Step {
        name: "failover",
        story: "with affinity local, ne's endpoints of rebel-base are deleted, its Service is kept",
        annotations: &[(AFFINITY, "local")],
        endpoints: Endpoints::Delete,
        answer: OTHERS,
    },
    Step {
        name: "failback",
        story: "ne's endpoints come back; nothing else is touched",
        annotations: &[],
        endpoints: Endpoints::Restore,
        answer: &["ne"],
    },
];

const fn step(
    name: &'static str,
    story: &'static str,
    annotations: &'static [(&'static str, &'static str)],
    answer: &'static [&'static str],
) -> Step {
    Step { name, story, annotations, endpoints: Endpoints::Stay, answer }
}

/// What `--report` writes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// A result for each step.
    pub steps: Vec<Outcome>,
}

/// The result of one step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The step's name.
    pub name: String,
    /// Requests made from the moment of the change on; for steps that only change an annotation, from its effect on.
    pub requests: u64,
    /// Of these, those without an answer within a second.
    pub failed: u64,
    /// The others, by the cluster that answered.
    pub by_cluster: BTreeMap<String, u64>,
    /// Milliseconds from the change to its effect: when the last request was made that only the state before explains,
    /// or the first that each newly answering cluster got. Absent where nothing changed, or the effect never came.
    pub switch_ms: Option<f64>,
    /// Whether everything was as it should be.
    pub ok: bool,
    /// What was not.
    #[serde(skip)]
    pub faults: Vec<String>,
}

/// Carries out all steps in order and gives each outcome to `seen` as it comes.
///
/// # Errors
/// Load cannot be made or a manifest not be written. What clients saw is never an error but part of an outcome.
pub fn carry_out_all(mesh: &mut Mesh, mut seen: impl FnMut(&Step, &Outcome)) -> Result<Report> {
    let mut report = Report::default();
    let mut answering = shares(mesh, ALL);
    for step in &STEPS {
        let (outcome, after) = carry_out(mesh, step, answering)?;
        seen(step, &outcome);
        report.steps.push(outcome);
        answering = after;
    }
    Ok(report)
}

/// Carries out one step with load from the first node of `ne`. `before` are the shares that clients see now; gives
/// those they should see afterwards.
fn carry_out(mesh: &mut Mesh, step: &Step, before: Shares) -> Result<(Outcome, Shares)> {
    let logs = mesh.run().logs();
    let pods = mesh.pods;
    let ne = mesh.cluster("ne");
    let (place, frontend) = (ne.site.nodes[0].place.clone(), ne.frontend());
    let before = if step.endpoints == Endpoints::Delete { keep_to_itself(ne, step)? } else { before };

    let mut load = load::begin(&format!("x-wing-{}", step.name), &place, &Dial::http(frontend, RATE), &logs)?;
    let_pass(BEFORE)?;
    let since = monotonic_us();
    match step.endpoints {
        Endpoints::Stay => ne.annotate(step.annotations)?,
        Endpoints::Delete => ne.claim(0)?,
        Endpoints::Restore => ne.scale(pods)?,
    }
    let after = shares(mesh, step.answer);
    let settled = load.wait_for("enough requests in the new state", SWITCH, |answers| {
        let effect = switch_us(answers, since, &before, &after).map(|switch| since + switch);
        let steady = effect.map_or(0, |effect| answers.iter().filter(|a| a.at_us > effect).count());
        if steady >= STEADY { Seen::Ready(()) } else { Seen::NotYet(format!("{steady}, not {STEADY}")) }
    });
    let mut outcome = judge(step, &load.end()?, since, &before, &after);
    outcome.faults.extend(settled.err().map(|error| format!("{error:#}")));
    outcome.ok = outcome.faults.is_empty();
    Ok((outcome, after))
}

/// Sets `ne` to affinity `local` before its endpoints go, and waits until its tables say so.
fn keep_to_itself(ne: &mut Cluster, step: &Step) -> Result<Shares> {
    ne.annotate(step.annotations)?;
    let own: Table = ne.targets().map(|target| (target, 1)).collect();
    let share = u32::try_from(ne.endpoints().len()).context("a demo has few pods")?;
    observe::wait_table(ne, SERVICE, &own, SWITCH)?;
    Ok([("ne".to_owned(), share)].into())
}

/// One share for each endpoint: without weights every backend gets one slot.
fn shares(mesh: &Mesh, answering: &[&str]) -> Shares {
    let clusters = mesh.clusters.iter().filter(|c| answering.contains(&c.site.name.as_str()));
    let share = |c: &Cluster| u32::try_from(c.endpoints().len()).expect("a cluster has at most 254 pods");
    clusters.map(|c| (c.site.name.clone(), share(c))).collect()
}

/// What the answers say about a step.
fn judge(step: &Step, answers: &[Answer], since: u64, before: &Shares, after: &Shares) -> Outcome {
    let switch = switch_us(answers, since, before, after);
    let effect = since + switch.unwrap_or(0);
    // The deletion and the return of endpoints are judged as a whole, the switch included. A change of affinity is
    // judged by what comes after its effect; failures count in any case.
    let whole = step.endpoints != Endpoints::Stay;
    let counted = |a: &&Answer| a.at_us >= since && (whole || a.at_us > effect || a.cluster.is_none());
    let tally = Tally::of(answers.iter().filter(counted));
    let steady = Tally::of(answers.iter().filter(|a| a.at_us > effect));

    let mut faults = Vec::new();
    if tally.failed > 0 {
        let why = tally.first_error.as_deref().unwrap_or("no reason given");
        faults.push(format!("{} of {} requests failed, the first: {why}", tally.failed, tally.requests));
    }
    faults.extend(disagreement(&steady.by_cluster, after));
    let switched = switch.filter(|_| before != after);
    let switch_ms = switched.map(|us| to_f64(us) / 1000.0);
    let Tally { requests, failed, by_cluster, .. } = tally;
    Outcome { name: step.name.to_owned(), requests, failed, by_cluster, switch_ms, ok: faults.is_empty(), faults }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(at_us: u64, cluster: Option<&str>) -> Answer {
        let error = cluster.is_none().then(|| "connection refused".to_owned());
        Answer { n: at_us, at_us, cluster: cluster.map(str::to_owned), error, ..Answer::default() }
    }

    fn check(step: usize, answers: &[(u64, Option<&str>)]) -> Outcome {
        let answers: Vec<_> = answers.iter().map(|(at, cluster)| answer(*at, *cluster)).collect();
        let shares = |of: &[&str]| of.iter().map(|c| ((*c).to_owned(), 1)).collect();
        judge(&STEPS[step], &answers, 100, &shares(&["ne"]), &shares(STEPS[step].answer))
    }

    #[test]
    fn a_failover_counts_everything_since_the_deletion() {
        let seen = [(90, Some("ne")), (110, Some("ne")), (2100, Some("we")), (2200, None), (3100, Some("fc"))];
        let outcome = check(6, &seen);
        assert_eq!((outcome.requests, outcome.failed, outcome.switch_ms), (4, 1, Some(3.0)));
        assert_eq!(outcome.faults[0], "1 of 4 requests failed, the first: connection refused");
    }

    #[test]
    fn an_affinity_counts_from_its_effect_on() {
        let seen = [(110, Some("ne")), (2100, Some("we")), (3100, Some("fc")), (3200, Some("we")), (3300, Some("fc"))];
        let outcome = check(2, &seen);
        assert_eq!((outcome.requests, outcome.ok, outcome.by_cluster.contains_key("ne")), (2, true, false));
    }
}
