//! One round of one frontend: a verdict for every candidate.

use alloc::vec::Vec;

use super::{Round, Rule, Verdict, View};
use crate::merge::{Candidate, Origin};
use crate::model::{Affinity, BackendState, InternalTrafficPolicy};

/// Judges every candidate in one round; one verdict each, in their order.
pub fn evaluate(view: View<'_>, candidates: &[Candidate], round: Round) -> Vec<Verdict> {
    let filtered: Vec<Option<Rule>> = candidates.iter().map(|c| filter(&view, c)).collect();
    let survivors = || candidates.iter().zip(&filtered).filter(|(_, dropped)| dropped.is_none()).map(|(c, _)| c);
    let table = AffinityTable::of(&view, round, survivors());
    let serving = [BackendState::Active, BackendState::Terminating].into_iter().find(|state| {
        survivors().any(|c| table.declines(c.origin).is_none() && healthy(&view, round, c) == Some(*state))
    });
    let judge = |(c, dropped): (&Candidate, &Option<Rule>)| {
        if let Some(rule) = *dropped {
            return Verdict { rule, chosen: false, slots: 0 };
        }
        let declined = table.declines(c.origin);
        let rule = match (declined, healthy(&view, round, c)) {
            (Some(Declined::By(rule)), _) => rule,
            (None, state) if state.is_some() && state == serving => Rule::Serves,
            (_, Some(_)) => Rule::ActivePreferredOverTerminating,
            (_, None) => unfit(&view, c),
        };
        Verdict { rule, chosen: declined.is_none(), slots: u32::from(rule == Rule::Serves) }
    };
    candidates.iter().zip(&filtered).map(judge).collect()
}

/// The rule that keeps a candidate from ever being chosen for this frontend.
fn filter(view: &View<'_>, c: &Candidate) -> Option<Rule> {
    let names_differ =
        !view.port_name.is_empty() && !c.names.is_empty() && !c.names.iter().any(|n| n == view.port_name);
    if c.key.protocol != view.frontend.protocol {
        Some(Rule::OtherProtocol)
    } else if c.key.addr.family() != view.frontend.addr.family() {
        Some(Rule::OtherFamily)
    } else if names_differ {
        Some(Rule::OtherPortName)
    } else if c.dropped {
        Some(Rule::StaleDropped)
    } else if c.lost_to.is_some() {
        Some(Rule::ConflictLost)
    } else if view.policy.internal_traffic_policy == InternalTrafficPolicy::Local && elsewhere(view, c) {
        Some(Rule::NotOnThisNode)
    } else {
        None
    }
}

/// A legacy record names no node, and passes, as in Cilium. Node names of two clusters may be equal.
fn elsewhere(view: &View<'_>, c: &Candidate) -> bool {
    c.node.as_ref().is_some_and(|node| c.origin == Origin::Remote || node != view.node)
}

/// Active or terminating, if this round counts the candidate as healthy.
fn healthy(view: &View<'_>, round: Round, c: &Candidate) -> Option<BackendState> {
    let counted = !c.doubtful || round >= Round::Doubtful;
    let state = c.state_under(view.policy);
    (counted && matches!(state, BackendState::Active | BackendState::Terminating)).then_some(state)
}

/// Why a candidate that is not healthy is not.
fn unfit(view: &View<'_>, c: &Candidate) -> Rule {
    match c.state_under(view.policy) {
        BackendState::Maintenance => Rule::Maintenance,
        BackendState::Gone => Rule::Gone,
        BackendState::Active | BackendState::Terminating => Rule::Doubtful,
    }
}

/// Which sides the affinity chooses, and why not the other.
struct AffinityTable {
    local: Option<Declined>,
    remote: Option<Declined>,
}

#[derive(Clone, Copy)]
enum Declined {
    /// A rule prefers the other side.
    By(Rule),
    /// The side has nothing healthy to offer.
    NothingHealthy,
}

impl AffinityTable {
    fn of<'a>(view: &View<'_>, round: Round, survivors: impl Iterator<Item = &'a Candidate>) -> Self {
        let (mut local_healthy, mut local_active, mut remote_healthy) = (false, false, false);
        for c in survivors {
            let state = healthy(view, round, c);
            match c.origin {
                Origin::Local => {
                    local_healthy |= state.is_some();
                    local_active |= state == Some(BackendState::Active);
                }
                Origin::Remote => remote_healthy |= state.is_some(),
            }
        }
        let both = Self { local: None, remote: None };
        match view.policy.affinity {
            _ if !view.policy.reach.is_global() => Self { remote: Some(Declined::By(Rule::NotGlobal)), ..both },
            Affinity::None => both,
            Affinity::Local if local_active => Self { remote: Some(Declined::By(Rule::AffinityLocalHasLocal)), ..both },
            Affinity::Local if !remote_healthy => Self { remote: Some(Declined::NothingHealthy), ..both },
            Affinity::Remote if remote_healthy => {
                Self { local: Some(Declined::By(Rule::AffinityRemoteHasRemote)), ..both }
            }
            Affinity::Remote if !local_healthy => Self { local: Some(Declined::NothingHealthy), ..both },
            Affinity::Local | Affinity::Remote => both,
        }
    }

    fn declines(&self, origin: Origin) -> Option<Declined> {
        match origin {
            Origin::Local => self.local,
            Origin::Remote => self.remote,
        }
    }
}
