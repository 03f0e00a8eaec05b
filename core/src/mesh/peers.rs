//! The peers' states, and what a peer's silence makes of its backends for one Service.

use alloc::collections::BTreeMap;

use crate::id::{ClusterName, Millis};
use crate::model::{OnStale, Policy};
use crate::own::PeerState;

/// What is known of the peers, by name.
#[derive(Clone, Debug, Default)]
pub(super) struct Peers(BTreeMap<ClusterName, Peer>);

#[derive(Clone, Debug)]
struct Peer {
    state: PeerState,
    /// When the mirror's present judgement of its silence was heard.
    since: Millis,
}

/// A peer that is stale for a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stale<'a> {
    /// The peer.
    pub cluster: &'a ClusterName,
    /// Milliseconds for which it has been silent at least; `None` when its heartbeat was deleted.
    pub silent_ms: Option<u64>,
    /// Milliseconds of silence that the Service bears.
    pub stale_after_ms: u64,
}

impl Peers {
    /// A peer's state is as given; says what it was.
    pub(super) fn set(&mut self, name: ClusterName, state: PeerState, now: Millis) -> Option<PeerState> {
        let before = self.0.get(&name);
        let since = before.filter(|peer| peer.state.silent_ms == state.silent_ms).map_or(now, |peer| peer.since);
        self.0.insert(name, Peer { state, since }).map(|peer| peer.state)
    }

    pub(super) fn remove(&mut self, name: &ClusterName) {
        self.0.remove(name);
    }

    pub(super) fn get(&self, name: &ClusterName) -> Option<&PeerState> {
        self.0.get(name).map(|peer| &peer.state)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&ClusterName, &PeerState)> {
        self.0.iter().map(|(name, peer)| (name, &peer.state))
    }

    /// What becomes of a peer's backends; `None` while it is fresh, or nothing is known of it.
    pub(super) fn on_stale(&self, name: &ClusterName, policy: &Policy) -> Option<OnStale> {
        self.get(name).and_then(|state| on_stale(state, policy))
    }

    /// How stale a peer is for a Service of this policy; `None` while it is fresh.
    pub(super) fn stale<'a>(&'a self, name: &'a ClusterName, policy: &Policy, now: Millis) -> Option<Stale<'a>> {
        let Peer { state, since } = self.0.get(name).filter(|peer| peer.state.is_stale_for(policy))?;
        let silent_ms = (state.silent_ms < u64::MAX).then(|| state.silent_ms.saturating_add(now.since(*since)));
        Some(Stale { cluster: name, silent_ms, stale_after_ms: state.stale_after(policy) })
    }
}

/// What becomes of the backends of a peer in this state.
pub(super) fn on_stale(state: &PeerState, policy: &Policy) -> Option<OnStale> {
    state.is_stale_for(policy).then_some(policy.on_stale)
}
