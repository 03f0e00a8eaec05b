//! What stands behind one service: its endpoints from all clusters, one candidate per address, port and protocol.
//!
//! Merging is a sort and one pass, so neither the order nor the number of arrivals can show in the result. What it
//! leaves out: whether a candidate may serve, which is [`crate::select`]'s.

use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cmp::Ordering;

use smol_str::SmolStr;

use crate::id::{Addr, ClusterId, ClusterName, Millis};
use crate::model::{BackendKey, BackendState, Endpoint, Port, Protocol, Slice};

/// Which side of the mesh a candidate is on, seen from this node. The lesser one has precedence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// This cluster.
    Local,
    /// A peer.
    Remote,
}

/// One address, port and protocol that a cluster says answers for the service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Where it is.
    pub key: BackendKey,
    /// Its cluster's name.
    pub cluster: ClusterName,
    /// This cluster or a peer.
    pub origin: Origin,
    /// The port's names, ascending, without the empty one; shared between the endpoints of a slice.
    pub names: Arc<[SmolStr]>,
    /// What it can do, as its record says.
    pub state: BackendState,
    /// Its weight; 0 is maintenance.
    pub weight: u16,
    /// The node it runs on.
    pub node: Option<SmolStr>,
    /// Its zone.
    pub zone: Option<SmolStr>,
    /// Kept only as a last resort.
    pub doubtful: bool,
    /// Its cluster is stale for this service, which then drops it.
    pub dropped: bool,
    /// The cluster that claims the same address, port and protocol with precedence.
    pub lost_to: Option<ClusterName>,
    /// The revision that brought it.
    pub revision: i64,
    /// When that was.
    pub since: Millis,
}

/// One slice of one cluster, as input of [`merge`].
#[derive(Clone, Copy, Debug)]
pub struct Piece<'a> {
    /// The cluster.
    pub cluster: &'a ClusterName,
    /// Its id.
    pub id: ClusterId,
    /// This cluster or a peer.
    pub origin: Origin,
    /// The endpoints.
    pub slice: &'a Slice,
    /// Whether they count as doubtful.
    pub trust: Trust,
    /// Their cluster is stale for this service, which then drops them.
    pub dropped: bool,
    /// The revision that brought them.
    pub revision: i64,
    /// When that was.
    pub since: Millis,
}

/// Whether a slice's endpoints are kept only as a last resort.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Each as its record says.
    AsSaid,
    /// All of them are.
    Doubtful,
    /// None is: their cluster is stale, and the service keeps what it had, whatever its silence made uncertain.
    Kept,
}

/// Merges one service's slices: ascending by address, port and protocol, the claimant with precedence first.
///
/// One cluster may list a backend in several slices: it is one candidate with the names of all, and the slice that says
/// the best of it gives the rest.
pub fn merge<'a>(pieces: impl Iterator<Item = Piece<'a>>) -> Vec<Candidate> {
    let mut candidates = Vec::new();
    for piece in pieces {
        flatten(&piece, &mut candidates);
    }
    candidates.sort_by(|a, b| by_claim(a, b).then_with(|| promise(a).cmp(&promise(b))));
    candidates.dedup_by(|later, kept| {
        let same = by_claim(later, kept).is_eq();
        if same {
            join_names(kept, later);
        }
        same
    });
    for claims in candidates.chunk_by_mut(|a, b| target(a) == target(b)) {
        if let [winner, losers @ ..] = claims {
            losers.iter_mut().for_each(|loser| loser.lost_to = Some(winner.cluster.clone()));
        }
    }
    candidates
}

/// One backend per number and protocol, with all names that stand on it.
fn flatten(piece: &Piece<'_>, out: &mut Vec<Candidate>) {
    let mut last: Option<(&Arc<[Port]>, Vec<Number>)> = None;
    for endpoint in &piece.slice.endpoints {
        let numbers = match &last {
            Some((ports, numbers)) if Arc::ptr_eq(ports, &endpoint.ports) => numbers,
            _ => &last.insert((&endpoint.ports, by_number(&endpoint.ports))).1,
        };
        out.extend(numbers.iter().map(|number| candidate(piece, endpoint, number)));
    }
}

fn candidate(piece: &Piece<'_>, endpoint: &Endpoint, number: &Number) -> Candidate {
    Candidate {
        key: BackendKey { addr: endpoint.addr, port: number.port, protocol: number.protocol, cluster: piece.id },
        cluster: piece.cluster.clone(),
        origin: piece.origin,
        names: Arc::clone(&number.names),
        state: endpoint.state,
        weight: endpoint.weight,
        node: endpoint.node.clone(),
        zone: endpoint.zone.clone(),
        doubtful: match piece.trust {
            Trust::AsSaid => endpoint.doubtful,
            Trust::Doubtful => true,
            Trust::Kept => false,
        },
        dropped: piece.dropped,
        lost_to: None,
        revision: piece.revision,
        since: piece.since,
    }
}

struct Number {
    port: u16,
    protocol: Protocol,
    names: Arc<[SmolStr]>,
}

fn by_number(ports: &[Port]) -> Vec<Number> {
    let mut sorted: Vec<&Port> = ports.iter().collect();
    sorted.sort_by_key(|p| (p.number, p.protocol, &p.name));
    sorted.dedup();
    sorted
        .chunk_by(|a, b| (a.number, a.protocol) == (b.number, b.protocol))
        .map(|same| Number {
            port: same[0].number,
            protocol: same[0].protocol,
            names: same.iter().filter(|p| !p.name.is_empty()).map(|p| p.name.clone()).collect(),
        })
        .collect()
}

fn target(c: &Candidate) -> (Addr, u16, Protocol) {
    (c.key.addr, c.key.port, c.key.protocol)
}

/// Claims of one address, port and protocol stand together: what is dropped last, for it takes nothing from anyone;
/// this cluster's first, then by cluster id.
fn by_claim(a: &Candidate, b: &Candidate) -> Ordering {
    target(a)
        .cmp(&target(b))
        .then(a.dropped.cmp(&b.dropped))
        .then(a.origin.cmp(&b.origin))
        .then(a.key.cluster.cmp(&b.key.cluster))
        .then_with(|| a.cluster.cmp(&b.cluster))
}

/// The lesser promises more.
fn promise(c: &Candidate) -> (bool, BackendState, bool) {
    let idle = c.weight == 0;
    (c.doubtful, if idle { BackendState::Maintenance } else { c.state }, idle)
}

fn join_names(kept: &mut Candidate, other: &Candidate) {
    if kept.names != other.names {
        let names: BTreeSet<&SmolStr> = kept.names.iter().chain(other.names.iter()).collect();
        kept.names = names.into_iter().cloned().collect();
    }
}
