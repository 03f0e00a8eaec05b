//! The demo's steps: what is changed, who should answer then, and how it is checked.

mod agent;
mod ask;
mod region;
mod turn;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::answers::{Answer, Shares, Tally, disagreement};
use crate::clock::Seen;
use crate::cluster::{Cluster, Frontend, SERVICE};
use crate::load::{self, Dial, Load, Way};
use crate::mesh::Mesh;
use crate::observe::{self, Table};

pub use self::agent::CONVERGED;
pub use self::region::{BEAT, PROPAGATION, STALE_AFTER};
pub use self::turn::{Endpoints, Turn};

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
    /// What happens.
    pub act: Act,
}

/// What a step does. Load comes from the first node of `ne`.
#[derive(Clone, Copy, Debug)]
pub enum Act {
    /// Annotations or endpoints of `ne` change. Each turn begins where the one before ended.
    Turn(Turn),
    /// Nothing changes; every cluster is asked in these ways.
    Ask(&'static [Question]),
    /// A cluster dies as a whole.
    Die,
    /// It comes back.
    Return,
    /// An agent is killed, endpoints change, and it comes back.
    RestartAgent,
    /// An agent is replaced by one with other tables.
    UpgradeAgent,
}

/// A way of asking, and what is dialled.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    /// What it is called.
    pub name: &'static str,
    /// What is dialled.
    pub frontend: Frontend,
    /// How.
    pub way: Way,
}

const LEGACY: &str = "io.cilium/service-affinity";
const AFFINITY: &str = "service.cilium.io/affinity";
const ALL: &[&str] = &["ne", "we", "fc"];
const OTHERS: &[&str] = &["we", "fc"];

/// The steps, in order.
pub const STEPS: [Step; 14] = [
    turn("alternate", "a global Service without affinity: every cluster answers", &[], ALL),
    turn("affinity-legacy-local", "io.cilium/service-affinity: local", &[(LEGACY, "local")], &["ne"]),
    turn("affinity-legacy-remote", "io.cilium/service-affinity: remote", &[(LEGACY, "remote")], OTHERS),
    turn("affinity-local", "service.cilium.io/affinity: local", &[(LEGACY, ""), (AFFINITY, "local")], &["ne"]),
    turn("affinity-remote", "service.cilium.io/affinity: remote", &[(AFFINITY, "remote")], OTHERS),
    turn("affinity-none", "service.cilium.io/affinity: none", &[(AFFINITY, "none")], ALL),
    Step {
        name: "failover",
        story: "with affinity local, ne's endpoints of rebel-base are deleted, its Service is kept",
        act: Act::Turn(Turn { annotations: &[(AFFINITY, "local")], endpoints: Endpoints::Delete, answer: OTHERS }),
    },
    Step {
        name: "failback",
        story: "ne's endpoints come back; nothing else is touched",
        act: Act::Turn(Turn { annotations: &[], endpoints: Endpoints::Restore, answer: &["ne"] }),
    },
    Step {
        name: "udp",
        story: "affinity none; DNS queries from unconnected sockets and datagrams from connected ones, each answer from \
                the address that was dialled",
        act: Act::Ask(&[
            Question { name: "DNS queries", frontend: Frontend::V4, way: Way::Dns },
            Question { name: "connected", frontend: Frontend::V4, way: Way::Datagram },
        ]),
    },
    Step {
        name: "ipv6",
        story: "the Service's IPv6 address by TCP and UDP, and its IPv4 address mapped into IPv6, as a JVM dials it",
        act: Act::Ask(&[
            Question { name: "TCP", frontend: Frontend::V6, way: Way::Http },
            Question { name: "UDP", frontend: Frontend::V6, way: Way::Dns },
            Question { name: "mapped TCP", frontend: Frontend::Mapped, way: Way::Http },
            Question { name: "mapped UDP", frontend: Frontend::Mapped, way: Way::Dns },
        ]),
    },
    Step {
        name: "kill-cluster",
        story: "fc's store, apiserver, agents and pods are killed at once and its links cut, as when a region goes",
        act: Act::Die,
    },
    Step { name: "cluster-returns", story: "fc's links and programs come back", act: Act::Return },
    Step {
        name: "restart-agent",
        story: "the agent of ne-1 is killed, an endpoint leaves while it is dead, and it comes back",
        act: Act::RestartAgent,
    },
    Step {
        name: "upgrade-agent",
        story: "the agent of ne-1 ends, and one with tables of another size takes over",
        act: Act::UpgradeAgent,
    },
];

const fn turn(
    name: &'static str,
    story: &'static str,
    annotations: &'static [(&'static str, &'static str)],
    answer: &'static [&'static str],
) -> Step {
    Step { name, story, act: Act::Turn(Turn { annotations, endpoints: Endpoints::Stay, answer }) }
}

/// What `--report` writes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// A result for each step.
    pub steps: Vec<Outcome>,
}

/// The result of one step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The step's name.
    pub name: String,
    /// Requests made from the moment of the change on; for steps that only change an annotation, from its effect on.
    pub requests: u64,
    /// Of these, those without an answer within a second.
    pub failed: u64,
    /// The others, by the cluster that answered.
    pub by_cluster: BTreeMap<String, u64>,
    /// Requests by how they were made, where a step makes them in several ways.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub by_way: BTreeMap<String, u64>,
    /// Milliseconds from the change to its effect: when the last request was made that only the state before explains,
    /// or the first that each newly answering cluster got. Absent where nothing changed, or the effect never came.
    pub switch_ms: Option<f64>,
    /// The most requests that may fail: those that a dead cluster gets before it counts as stale. Absent where none may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound: Option<u64>,
    /// Milliseconds from a cluster's death until no node of `ne` sends it anything new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale_ms: Option<f64>,
    /// Milliseconds from an agent's start until its node's tables are right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub converged_ms: Option<f64>,
    /// Whether everything was as it should be.
    pub ok: bool,
    /// What was not.
    #[serde(skip)]
    pub faults: Vec<String>,
}

impl Outcome {
    /// What answers say by themselves. They are as they should be until [`Outcome::expect`] says otherwise.
    fn of<'a>(step: &Step, answers: impl IntoIterator<Item = &'a Answer>) -> (Self, Tally) {
        let tally = Tally::of(answers);
        let Tally { requests, failed, by_cluster, .. } = tally.clone();
        let name = step.name.to_owned();
        (Self { name, requests, failed, by_cluster, ok: true, ..Self::default() }, tally)
    }

    /// Takes a fault down, if there is one.
    fn expect(&mut self, fault: Option<String>) {
        self.faults.extend(fault);
        self.ok = self.faults.is_empty();
    }

    /// No request may have failed.
    fn expect_none_failed(&mut self, tally: &Tally) {
        let why = tally.first_error.as_deref().unwrap_or("no reason given");
        let fault = || format!("{} of {} requests failed, the first: {why}", tally.failed, tally.requests);
        self.expect((tally.failed > 0).then(fault));
    }

    /// These clusters and no others must have answered, each its share.
    fn expect_shares(&mut self, by_cluster: &BTreeMap<String, u64>, shares: &Shares) {
        self.expect(disagreement(by_cluster, shares));
    }
}

/// Carries out steps in order and gives each outcome to `seen` as it comes. The mesh is at rest, or as the steps before
/// these left it.
///
/// # Errors
/// Load cannot be made or a manifest not be written. What clients saw is never an error but part of an outcome.
pub fn carry_out(mesh: &mut Mesh, steps: &[Step], mut seen: impl FnMut(&Step, &Outcome)) -> Result<Report> {
    let mut report = Report::default();
    let mut answering = shares(mesh, ALL);
    for step in steps {
        let outcome = match step.act {
            Act::Turn(turn) => turn::carry_out(mesh, step, turn, &mut answering)?,
            Act::Ask(questions) => ask::carry_out(mesh, step, questions)?,
            Act::Die => region::die(mesh, step)?,
            Act::Return => region::come_back(mesh, step)?,
            Act::RestartAgent => agent::restart(mesh, step)?,
            Act::UpgradeAgent => agent::upgrade(mesh, step)?,
        };
        seen(step, &outcome);
        report.steps.push(outcome);
    }
    Ok(report)
}

/// One share for each endpoint: without weights every backend gets one slot.
fn shares(mesh: &Mesh, answering: &[&str]) -> Shares {
    let clusters = mesh.clusters.iter().filter(|c| answering.contains(&c.site.name.as_str()));
    clusters.map(|c| (c.site.name.clone(), share(c))).collect()
}

fn share(cluster: &Cluster) -> u32 {
    u32::try_from(cluster.endpoints().len()).expect("a cluster has at most 254 pods")
}

/// The tables when these clusters serve.
fn table(mesh: &Mesh, serving: &[&str]) -> Table {
    let clusters = mesh.clusters.iter().filter(|c| serving.contains(&c.site.name.as_str()));
    clusters.flat_map(Cluster::targets).map(|target| (target, 1)).collect()
}

/// Lets every cluster answer in `ne`.
fn all_answer(mesh: &mut Mesh) -> Result<()> {
    let all = table(mesh, ALL);
    let ne = mesh.cluster("ne");
    ne.annotate(&[(AFFINITY, "none")])?;
    observe::wait_table(ne, SERVICE, &all, SWITCH)
}

/// Begins HTTP requests from the first node of `ne`.
fn begin(mesh: &mut Mesh, step: &Step) -> Result<Load> {
    let logs = mesh.run().logs();
    let ne = mesh.cluster("ne");
    let dial = Dial::http(ne.frontend(), RATE);
    load::begin(&format!("x-wing-{}", step.name), &ne.site.nodes[0].place, &dial, &logs)
}

/// Waits until the steady state's requests were made after this time. What keeps them away is a fault.
fn steady_after(load: &mut Load, effect_us: impl Fn(&[Answer]) -> Option<u64>) -> Option<String> {
    let settled = load.wait_for("enough requests in the new state", SWITCH, |answers| {
        let after = |effect| answers.iter().filter(|a| a.at_us > effect).count();
        let steady = effect_us(answers).map_or(0, after);
        if steady >= STEADY { Seen::Ready(()) } else { Seen::NotYet(format!("{steady}, not {STEADY}")) }
    });
    settled.err().map(|error| format!("{error:#}"))
}
