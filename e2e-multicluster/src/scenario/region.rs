//! A whole cluster dies, and comes back.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::{ALL, BEFORE, Outcome, RATE, SWITCH, Step, all_answer, begin, shares, steady_after, table};
use crate::answers::{Answer, Shares, Tally, switch_us, to_f64};
use crate::clock::{Seen, let_pass, monotonic_us, wait_until, watch_for};
use crate::cluster::SERVICE;
use crate::mesh::Mesh;
use crate::observe::{self, AgentWindow};

/// `tombolo.io/stale-after` on the Service during these steps, so that a demo need not wait for the default's 30 s.
pub const STALE_AFTER: Duration = Duration::from_secs(15);

/// How often an apiserver says that it lives.
pub const BEAT: Duration = Duration::from_secs(5);

/// What the bound allows for carrying a judgement of staleness to every node.
pub const PROPAGATION: Duration = Duration::from_secs(1);

/// How long it may take to hear two beats.
const KNOWN: Duration = Duration::from_secs(30);

/// How long a cluster may take to serve again after its programs were started: etcd, a relist, and a heartbeat.
const RETURNED: Duration = Duration::from_secs(60);

const ANNOTATION: &str = "tombolo.io/stale-after";
const DEAD: &str = "fc";
const SURVIVORS: &[&str] = &["ne", "we"];

pub(super) fn die(mesh: &mut Mesh, step: &Step) -> Result<Outcome> {
    let stale_after = format!("{}s", STALE_AFTER.as_secs());
    mesh.cluster("ne").annotate(&[(ANNOTATION, &stale_after)])?;
    all_answer(mesh)?;
    wait_known(mesh)?;
    let (before, after, without) = (shares(mesh, ALL), shares(mesh, SURVIVORS), table(mesh, SURVIVORS));
    let mut windows = Vec::new();
    for node in 0..mesh.cluster("ne").site.nodes.len() {
        windows.push(AgentWindow::open(mesh.cluster("ne"), node)?);
    }

    let mut load = begin(mesh, step)?;
    let_pass(BEFORE)?;
    let since = monotonic_us();
    mesh.cluster(DEAD).die()?;
    let limit = STALE_AFTER + BEAT + PROPAGATION;
    let stale = watch_for("fc to leave every table in ne", Duration::from_millis(20), limit, || {
        for window in &mut windows {
            if window.table(SERVICE)?.as_ref() != Some(&without) {
                return Ok(None);
            }
        }
        Ok(Some(monotonic_us() - since))
    });
    let effect = since + stale.as_ref().map_or(0, |us| *us);
    let settled = steady_after(&mut load, |_| Some(effect));
    let answers = load.end()?;

    let (mut outcome, _) = Outcome::of(step, answers.iter().filter(|a| a.at_us >= since));
    let bound = bound(&before, DEAD, limit);
    outcome.bound = Some(bound);
    outcome.expect((outcome.failed > bound).then(|| format!("{} failed, and {bound} may", outcome.failed)));
    outcome.expect((outcome.failed == 0).then(|| "not one request met the dead cluster".to_owned()));
    let steady = Tally::of(answers.iter().filter(|a| a.at_us > effect));
    outcome.expect_none_failed(&steady);
    outcome.expect_shares(&steady.by_cluster, &after);
    match stale {
        Ok(us) => outcome.stale_ms = Some(to_f64(us) / 1000.0),
        Err(error) => outcome.expect(Some(format!("{error:#}"))),
    }
    outcome.expect(settled);
    Ok(outcome)
}

/// Waits until `ne` knows how often the cluster beats: before it has heard two beats it takes it for a slow one, and no
/// `stale-after` counts that is shorter than a slow one's beats.
fn wait_known(mesh: &mut Mesh) -> Result<()> {
    let ne = mesh.cluster("ne");
    wait_until("the beats of fc to be known in ne", KNOWN, || {
        let peers = observe::apiserver_status(ne)?.peers;
        let least = peers.iter().find(|p| p.name.as_str() == DEAD).map(|p| p.state.least_stale_ms);
        let known = least.is_some_and(|ms| u128::from(ms) <= STALE_AFTER.as_millis());
        Ok(if known { Seen::Ready(()) } else { Seen::NotYet(format!("at least {least:?} ms of silence")) })
    })
}

/// The most requests that a dead cluster may get: its share of all that are made in this time.
fn bound(shares: &Shares, dead: &str, time: Duration) -> u64 {
    let all: u32 = shares.values().sum();
    let share = u64::from(shares.get(dead).copied().unwrap_or(0));
    (u64::from(RATE) * time.as_secs() * share).div_ceil(u64::from(all.max(1)))
}

pub(super) fn come_back(mesh: &mut Mesh, step: &Step) -> Result<Outcome> {
    let pods = mesh.pods;
    let (before, after) = (shares(mesh, SURVIVORS), shares(mesh, ALL));
    let mut load = begin(mesh, step)?;
    let_pass(BEFORE)?;
    let (since, begun) = (monotonic_us(), Instant::now());
    mesh.cluster(DEAD).come_back(pods)?;
    let returned = mesh.wait_all_backends(RETURNED);
    let waited = u64::try_from(begun.elapsed().as_micros())?;
    let settled = steady_after(&mut load, |_| Some(since + waited));
    let answers = load.end()?;

    let (mut outcome, tally) = Outcome::of(step, answers.iter().filter(|a: &&Answer| a.at_us >= since));
    outcome.expect_none_failed(&tally);
    let steady = Tally::of(answers.iter().filter(|a| a.at_us > since + waited));
    outcome.expect_shares(&steady.by_cluster, &after);
    outcome.switch_ms = switch_us(&answers, since, &before, &after).map(|us| to_f64(us) / 1000.0);
    outcome.expect(returned.err().map(|error| format!("{error:#}")));
    outcome.expect(settled);
    let ne = mesh.cluster("ne");
    ne.annotate(&[(ANNOTATION, "")])?;
    observe::wait_ready(ne, SWITCH)?;
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_is_the_dead_clusters_share_of_the_time() {
        let shares: Shares = ["ne", "we", "fc"].into_iter().map(|c| (c.to_owned(), 4)).collect();
        assert_eq!(bound(&shares, "fc", Duration::from_secs(21)), 250 * 21 / 3);
        assert_eq!(bound(&shares, "xx", Duration::from_secs(21)), 0);
    }
}
