//! Which keys of the own store this program owns, and which of them are complete together.
//!
//! A scope's surplus, left by an earlier life of this program, is deleted once the scope's first complete set is
//! known; until then it stays, because agents still live on it.

use std::collections::BTreeSet;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tombolo_core::id::ClusterName;
use tombolo_core::own::OwnKey;
use tombolo_store::writer::ScopeOf;
use tombolo_wire::cilium::key::{self, Kind};
use tombolo_wire::own;

/// What comes from the own source alone, for the own agents.
pub const OWN: &str = "own";

/// The configured peers, as the writer's task sees them.
pub type SharedPeers = Arc<ArcSwap<BTreeSet<ClusterName>>>;

/// One kind of Cilium's records.
pub fn state(kind: Kind) -> String {
    format!("state/{}", kind.as_str())
}

/// What one peer brings.
pub fn mesh(peer: &ClusterName) -> String {
    format!("mesh/{peer}")
}

/// All prefixes and keys this program owns.
pub fn prefixes(cluster: &ClusterName) -> Vec<String> {
    let state = Kind::ALL.into_iter().map(|kind| kind.state_prefix(cluster));
    let rest = [format!("cilium/synced/{cluster}/"), key::cluster_config(cluster), own::AGENTS.to_owned()];
    let control = ["nodes/", "refused/"].map(|part| format!("{}{part}", own::CONTROL));
    state.chain(rest).chain(control).collect()
}

/// The scope of a key found in the store. What a peer that is no longer configured left behind goes with [`OWN`].
pub fn scope_of(cluster: ClusterName, peers: SharedPeers) -> ScopeOf {
    Arc::new(move |key| {
        if let Some(kind) = Kind::ALL.into_iter().find(|kind| key.starts_with(&kind.state_prefix(&cluster))) {
            return Some(state(kind));
        }
        let of_peer = |peer: &ClusterName| match peers.load().contains(peer) {
            true => mesh(peer),
            false => OWN.to_owned(),
        };
        match own::parse_key(key)? {
            OwnKey::Heartbeat | OwnKey::Cluster => None,
            OwnKey::Service(_) | OwnKey::Local { .. } | OwnKey::Node(_) | OwnKey::Peer(_) => Some(OWN.to_owned()),
            OwnKey::Mesh { cluster: peer, .. } | OwnKey::Refused(peer) => Some(of_peer(&peer)),
            OwnKey::Synced(owner) if owner == cluster => None,
            OwnKey::Synced(peer) => Some(of_peer(&peer)),
        }
    })
}
