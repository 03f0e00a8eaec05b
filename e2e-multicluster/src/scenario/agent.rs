//! An agent dies, and one with other tables takes over.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::{ALL, BEFORE, Outcome, RATE, SWITCH, Step, all_answer, begin, shares, steady_after, table};
use crate::answers::{Answer, Tally};
use crate::clock::{let_pass, monotonic_us, watch_for};
use crate::cluster::{Cluster, SERVICE};
use crate::load::{self, Dial, Load, Way};
use crate::mesh::Mesh;
use crate::observe::{self, AgentWindow, Returned, Table};

/// How long an agent may take from its start until its tables are right, what others on the machine took of it aside.
pub const CONVERGED: Duration = Duration::from_secs(1);

/// The node whose agent it is, where the load comes from.
const NODE: usize = 0;

pub(super) fn restart(mesh: &mut Mesh, step: &Step) -> Result<Outcome> {
    let pods = mesh.pods;
    all_answer(mesh)?;
    let mut load = begin(mesh, step)?;
    let_pass(BEFORE)?;
    let killed = monotonic_us();
    mesh.cluster("ne").kill_agent(NODE)?;
    let leaving = mesh.cluster("we").pod_names(pods).split_off(1);
    mesh.cluster("we").claim(1)?;
    let expected = table(mesh, ALL);
    // The other node's agent lives: what it has carried out, the dead one has missed.
    wait_other(mesh.cluster("ne"), &expected)?;
    let_pass(BEFORE)?;
    let since = monotonic_us();
    let converged = observe::start_agent(mesh.cluster("ne"), NODE, SERVICE, &expected, SWITCH);
    let effect = monotonic_us();
    let settled = steady_after(&mut load, |_| Some(effect));
    let answers = load.end()?;

    let (mut outcome, tally) = Outcome::of(step, answers.iter().filter(|a| a.at_us >= killed));
    outcome.expect_none_failed(&tally);
    let went = |a: &&Answer| a.pod.as_ref().is_some_and(|pod| leaving.contains(pod));
    let late = answers.iter().filter(|a| a.at_us > effect).filter(went).count();
    outcome.expect((late > 0).then(|| format!("{late} answers from pods that had left")));
    let dead = answers.iter().filter(|a| a.at_us > killed && a.at_us < since).count();
    outcome.expect((dead == 0).then(|| "nothing was asked while the agent was dead".to_owned()));
    let steady = Tally::of(answers.iter().filter(|a| a.at_us > effect));
    outcome.expect_shares(&steady.by_cluster, &shares(mesh, ALL));
    take_converged(&mut outcome, converged);
    outcome.expect(settled);
    mesh.cluster("we").claim(pods)?;
    mesh.wait_all_backends(SWITCH)?;
    Ok(outcome)
}

pub(super) fn upgrade(mesh: &mut Mesh, step: &Step) -> Result<Outcome> {
    all_answer(mesh)?;
    let expected = table(mesh, ALL);
    let mut load = begin(mesh, step)?;
    let kept = begin_kept(mesh, step)?;
    let_pass(BEFORE)?;
    let ne = mesh.cluster("ne");
    let old = tables(&ne.agent_bpffs(NODE))?;
    let since = monotonic_us();
    ne.stop_agent(NODE)?;
    ne.set_agent_flags(NODE, ["--max-backends", "4096"]);
    let converged = observe::start_agent(ne, NODE, SERVICE, &expected, SWITCH);
    let effect = monotonic_us();
    let settled = steady_after(&mut load, |_| Some(effect));
    let answers = load.end()?;

    let (mut outcome, tally) = Outcome::of(step, answers.iter().filter(|a| a.at_us >= since));
    outcome.expect_none_failed(&tally);
    outcome.expect_shares(&tally.by_cluster, &shares(mesh, ALL));
    for load in kept {
        let answers = load.end()?;
        outcome.expect_none_failed(&Tally::of(&answers));
        let broken = answers.iter().map(|a| a.socket).max().unwrap_or(0);
        outcome.expect((broken > 0).then(|| format!("{broken} open sockets broke")));
    }
    let new = tables(&mesh.cluster("ne").agent_bpffs(NODE))?;
    let same = new.intersection(&old).next().is_some() || new.is_empty() || old.is_empty();
    outcome.expect(same.then(|| format!("the tables should be others: {old:?}, then {new:?}")));
    take_converged(&mut outcome, converged);
    outcome.expect(settled);
    Ok(outcome)
}

/// Open sockets of both protocols, which must not notice. Each answer is checked to come from what was dialled.
fn begin_kept(mesh: &mut Mesh, step: &Step) -> Result<Vec<Load>> {
    let logs = mesh.run().logs();
    let ne = mesh.cluster("ne");
    let one = |way| {
        let dial = Dial::new(ne.frontend(), way, RATE / 5).kept();
        load::begin(&format!("x-wing-{}-kept-{way:?}", step.name), &ne.site.nodes[NODE].place, &dial, &logs)
    };
    [Way::Http, Way::Datagram].into_iter().map(one).collect()
}

/// The names of the folders with pinned tables: each has the hash of its layout and sizes.
fn tables(bpffs: &Path) -> Result<BTreeSet<String>> {
    let pins = bpffs.join("tombolo");
    let entries = std::fs::read_dir(&pins).with_context(|| format!("read {}", pins.display()))?;
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    names.filter(|name: &Result<String>| name.as_ref().map_or(true, |name| name.starts_with("tables-"))).collect()
}

/// Waits until every agent of a cluster but that of the one node has a table.
fn wait_other(cluster: &mut Cluster, expected: &Table) -> Result<()> {
    let mut other = AgentWindow::open(cluster, NODE + 1)?;
    let every = Duration::from_millis(5);
    let there = || Ok((other.table(SERVICE)?.as_ref() == Some(expected)).then_some(()));
    watch_for("the change on the other node", every, SWITCH, there)
}

fn take_converged(outcome: &mut Outcome, converged: Result<Returned>) {
    match converged {
        Ok(returned) => {
            let (took, starved) = (returned.took.as_millis(), returned.starved.as_millis());
            let late = || format!("its tables were right only after {took} ms, {starved} ms of them without a CPU");
            outcome.expect((returned.own() > CONVERGED).then(late));
            outcome.converged_ms = Some(returned.took.as_secs_f64() * 1000.0);
        }
        Err(error) => outcome.expect(Some(format!("{error:#}"))),
    }
}
