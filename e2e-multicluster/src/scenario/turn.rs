//! Annotations and endpoints of one cluster change.

use anyhow::Result;

use super::{BEFORE, Outcome, SWITCH, Step, begin, share, shares, steady_after};
use crate::answers::{Answer, Shares, Tally, switch_us, to_f64};
use crate::clock::{let_pass, monotonic_us};
use crate::cluster::{Cluster, SERVICE};
use crate::mesh::Mesh;
use crate::observe::{self, Table};

/// What changes in `ne`, and who answers then.
#[derive(Clone, Copy, Debug)]
pub struct Turn {
    /// Annotations of `rebel-base` in `ne`: affinity by either family of keys. Empty removes one.
    pub annotations: &'static [(&'static str, &'static str)],
    /// What happens to the endpoints in `ne`.
    pub endpoints: Endpoints,
    /// The clusters that should answer a client in `ne` afterwards.
    pub answer: &'static [&'static str],
}

/// What a turn does to `rebel-base`'s endpoints in `ne`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoints {
    /// They stay as they are.
    Stay,
    /// All leave their EndpointSlices, as when a Deployment goes; the pods keep running, and the Service is kept.
    Delete,
    /// They come back.
    Restore,
}

/// Carries out one turn. `answering` are the shares that clients see now, and afterwards those they should see then.
pub(super) fn carry_out(mesh: &mut Mesh, step: &Step, turn: Turn, answering: &mut Shares) -> Result<Outcome> {
    let pods = mesh.pods;
    if turn.endpoints == Endpoints::Delete {
        *answering = keep_to_itself(mesh.cluster("ne"), turn)?;
    }
    let mut load = begin(mesh, step)?;
    let_pass(BEFORE)?;
    let since = monotonic_us();
    let ne = mesh.cluster("ne");
    match turn.endpoints {
        Endpoints::Stay => ne.annotate(turn.annotations)?,
        Endpoints::Delete => ne.claim(0)?,
        Endpoints::Restore => ne.scale(pods)?,
    }
    let before = std::mem::replace(answering, shares(mesh, turn.answer));
    let settled = steady_after(&mut load, |answers| Some(since + switch_us(answers, since, &before, answering)?));
    let mut outcome = judge(step, turn.endpoints, &load.end()?, since, &before, answering);
    outcome.expect(settled);
    Ok(outcome)
}

/// Sets `ne` to affinity `local` before its endpoints go, and waits until its tables say so.
fn keep_to_itself(ne: &mut Cluster, turn: Turn) -> Result<Shares> {
    ne.annotate(turn.annotations)?;
    let own: Table = ne.targets().map(|target| (target, 1)).collect();
    observe::wait_table(ne, SERVICE, &own, SWITCH)?;
    Ok([("ne".to_owned(), share(ne))].into())
}

/// What the answers say about a turn.
fn judge(
    step: &Step,
    endpoints: Endpoints,
    answers: &[Answer],
    since: u64,
    before: &Shares,
    after: &Shares,
) -> Outcome {
    let switch = switch_us(answers, since, before, after);
    let effect = since + switch.unwrap_or(0);
    // The deletion and the return of endpoints are judged as a whole, the switch included. A change of affinity is
    // judged by what comes after its effect; failures count in any case.
    let whole = endpoints != Endpoints::Stay;
    let counted = |a: &&Answer| a.at_us >= since && (whole || a.at_us > effect || a.cluster.is_none());
    let (mut outcome, tally) = Outcome::of(step, answers.iter().filter(counted));
    outcome.expect_none_failed(&tally);
    let steady = Tally::of(answers.iter().filter(|a| a.at_us > effect));
    outcome.expect_shares(&steady.by_cluster, after);
    outcome.switch_ms = switch.filter(|_| before != after).map(|us| to_f64(us) / 1000.0);
    outcome
}

#[cfg(test)]
mod tests {
    use super::super::{Act, STEPS};
    use super::*;

    fn answer(at_us: u64, cluster: Option<&str>) -> Answer {
        let error = cluster.is_none().then(|| "connection refused".to_owned());
        Answer { n: at_us, at_us, cluster: cluster.map(str::to_owned), error, ..Answer::default() }
    }

    fn check(step: usize, answers: &[(u64, Option<&str>)]) -> Outcome {
        let Act::Turn(turn) = STEPS[step].act else { panic!("step {step} is no turn") };
        let answers: Vec<_> = answers.iter().map(|(at, cluster)| answer(*at, *cluster)).collect();
        let shares = |of: &[&str]| of.iter().map(|c| ((*c).to_owned(), 1)).collect();
        judge(&STEPS[step], turn.endpoints, &answers, 100, &shares(&["ne"]), &shares(turn.answer))
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
