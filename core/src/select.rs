//! Which of a service's candidates serve, and by which rule each was kept or dropped.
//!
//! Per frontend: the filter, then the affinity table, then active before terminating; repeated in wider rounds while
//! nothing serves. The rules are SEMANTICS'

mod verdict;

use alloc::vec::Vec;
use core::fmt;

use crate::id::ServiceKey;
use crate::merge::Candidate;
use crate::model::{BackendState, Frontend, Policy, ServiceSpec};
use crate::tables::FrontendTable;

pub use verdict::evaluate;

/// The rule that kept or dropped one backend. Printed in kebab-case, explained in docs/explain.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// It serves: new connections go there.
    Serves,
    /// It speaks another protocol than the frontend.
    OtherProtocol,
    /// Its address is of the other family.
    OtherFamily,
    /// Its port has names, and the frontend's is not among them.
    OtherPortName,
    /// `internalTrafficPolicy: Local`, and it runs elsewhere.
    NotOnThisNode,
    /// Its cluster is stale for this Service, whose `on-stale` is `drop`.
    StaleDropped,
    /// A cluster with precedence claims the same address, port and protocol.
    ConflictLost,
    /// It is a peer's, and the service is not global here.
    NotGlobal,
    /// Affinity is local, and this cluster has an active backend.
    AffinityLocalHasLocal,
    /// Affinity is remote, and a peer has a healthy backend.
    AffinityRemoteHasRemote,
    /// It is not ready, or its weight is 0.
    Maintenance,
    /// It terminates and no longer serves.
    Gone,
    /// It is kept only as a last resort, and others serve.
    Doubtful,
    /// It terminates, and active ones serve.
    ActivePreferredOverTerminating,
}

/// Which of the never-empty rounds gave the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Round {
    /// Only backends that are sure.
    Sure,
    /// Doubtful ones too, since none that is sure serves.
    Doubtful,
}

/// What became of one candidate of a frontend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The rule that kept or dropped it.
    pub rule: Rule,
    /// It passed the filter and the affinity table: it would serve if its state and its rivals' let it.
    pub chosen: bool,
    /// Its slots in the table; 0 unless it serves.
    pub slots: u32,
}

/// One frontend's result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrontendSelection {
    /// What clients dial.
    pub frontend: Frontend,
    /// The round that gave the result: the first that serves, else the last.
    pub round: Round,
    /// One per candidate of the service, in their order.
    pub verdicts: Vec<Verdict>,
}

/// One service's result: what the tables are made from, and what `explain` prints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// The local Service.
    pub spec: ServiceSpec,
    /// Every known candidate, ascending by backend.
    pub candidates: Vec<Candidate>,
    /// One per frontend, ascending.
    pub frontends: Vec<FrontendSelection>,
    /// Frontends that another Service of a lower name holds; they get no table from this one.
    pub taken: Vec<(Frontend, ServiceKey)>,
}

/// What one frontend's evaluation looks at besides the candidates.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// What clients dial.
    pub frontend: Frontend,
    /// The frontend's port name, `""` when it has none.
    pub port_name: &'a str,
    /// The Service's policy.
    pub policy: &'a Policy,
    /// The node it is seen from.
    pub node: &'a str,
}

/// Selects for one frontend: the first round that serves, else the last one.
pub fn select(view: View<'_>, candidates: &[Candidate]) -> FrontendSelection {
    let serves = |verdicts: &[Verdict]| verdicts.iter().any(|v| v.rule == Rule::Serves);
    let mut result = FrontendSelection { frontend: view.frontend, round: Round::Sure, verdicts: Vec::new() };
    for round in Round::ALL {
        result = FrontendSelection { round, verdicts: evaluate(view, candidates, round), ..result };
        if serves(&result.verdicts) {
            break;
        }
    }
    result
}

impl Selection {
    /// The tables of its frontends.
    pub fn tables(&self) -> Vec<(Frontend, FrontendTable)> {
        self.frontends.iter().map(|f| (f.frontend, self.table(f))).collect()
    }

    /// The table of one of its frontends.
    pub fn table(&self, frontend: &FrontendSelection) -> FrontendTable {
        let policy = &self.spec.policy;
        let served = self.candidates.iter().zip(&frontend.verdicts).filter(|(_, v)| v.slots > 0);
        FrontendTable {
            backends: served.map(|(c, v)| (c.key, v.slots)).collect(),
            no_backend: policy.no_backend,
            affinity_seconds: policy.client_ip_seconds.unwrap_or(0),
        }
    }
}

impl Selection {
    /// How far the selection had to go for the worst of its frontends: the position in [`Round::ALL`], and one beyond
    /// where nothing serves.
    pub fn round(&self) -> u32 {
        let none = Round::ALL.len() as u32;
        let round = |f: &FrontendSelection| if f.slots() == 0 { none } else { f.round as u32 };
        self.frontends.iter().map(round).max().unwrap_or(0)
    }
}

impl FrontendSelection {
    /// Slots of its whole table.
    pub fn slots(&self) -> u64 {
        self.verdicts.iter().map(|v| u64::from(v.slots)).sum()
    }
}

impl Candidate {
    /// What it can do under a policy: weight 0 is maintenance; with `publishNotReadyAddresses` readiness is disregarded,
    /// as Kubernetes' own EndpointSlice controller then writes every endpoint as ready.
    pub fn state_under(&self, policy: &Policy) -> BackendState {
        match self.state {
            _ if self.weight == 0 => BackendState::Maintenance,
            _ if policy.publish_not_ready => BackendState::Active,
            state => state,
        }
    }
}

impl Round {
    /// From the strictest to the most lenient.
    pub const ALL: [Self; 2] = [Self::Sure, Self::Doubtful];

    /// What the round means, for a person.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sure => "sure backends only",
            Self::Doubtful => "doubtful backends too, since no sure one serves",
        }
    }
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Rule {
    /// All rules.
    pub const ALL: [Self; 14] = [
        Self::Serves,
        Self::OtherProtocol,
        Self::OtherFamily,
        Self::OtherPortName,
        Self::NotOnThisNode,
        Self::StaleDropped,
        Self::ConflictLost,
        Self::NotGlobal,
        Self::AffinityLocalHasLocal,
        Self::AffinityRemoteHasRemote,
        Self::Maintenance,
        Self::Gone,
        Self::Doubtful,
        Self::ActivePreferredOverTerminating,
    ];

    /// The rule's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Serves => "serves",
            Self::OtherProtocol => "other-protocol",
            Self::OtherFamily => "other-family",
            Self::OtherPortName => "other-port-name",
            Self::NotOnThisNode => "not-on-this-node",
            Self::StaleDropped => "stale-dropped",
            Self::ConflictLost => "conflict-lost",
            Self::NotGlobal => "not-global",
            Self::AffinityLocalHasLocal => "affinity-local-has-local",
            Self::AffinityRemoteHasRemote => "affinity-remote-has-remote",
            Self::Maintenance => "maintenance",
            Self::Gone => "gone",
            Self::Doubtful => "doubtful",
            Self::ActivePreferredOverTerminating => "active-preferred-over-terminating",
        }
    }
}
