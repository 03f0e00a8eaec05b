//! What an earlier life of this program left in the own store, read once before anything is written.
//!
//! It is what agents live on. What is not known yet when the program starts, because a peer is not reached or its file is
//! broken, stays as it was left; and an endpoint that was ready once stays known as such.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tombolo_core::id::{Addr, ClusterName, ServiceKey};
use tombolo_core::identity::LabelSet;
use tombolo_core::own::{MeshSlice, OwnKey, OwnRecord, PeerState};
use tombolo_core::record::Record;
use tombolo_store::{SessionEvent, SessionSpec, StoreConfig, Watch, session};
use tombolo_wire::cilium::key::Kind;
use tombolo_wire::cilium::{self, PeerIdentity};
use tombolo_wire::own;

/// What was left.
#[derive(Clone, Debug, Default)]
pub struct Earlier {
    /// The peers there were.
    pub peers: BTreeMap<ClusterName, EarlierPeer>,
    /// Own endpoints that were ready.
    pub ready: BTreeMap<ServiceKey, BTreeSet<Addr>>,
    /// The numbers that this cluster's identities had.
    pub identities: BTreeMap<u32, LabelSet>,
    /// The same from where they are kept beside the store, which counts first.
    pub kept: BTreeMap<u32, LabelSet>,
}

/// What was left of one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EarlierPeer {
    /// What agents were told of it.
    pub state: PeerState,
    /// Its endpoints as agents have them, by key.
    pub mesh: BTreeMap<ServiceKey, BTreeMap<String, MeshSlice>>,
}

/// Reads it, for as long as that takes; nothing when `cancel` is cancelled first.
pub async fn read(
    store: &StoreConfig,
    own_identity: &PeerIdentity,
    tasks: &TaskTracker,
    cancel: &CancellationToken,
) -> Earlier {
    let prefixes = [own::AGENTS.to_owned(), Kind::Identities.state_prefix(&own_identity.name)];
    let watches = prefixes.iter().map(|prefix| Watch { prefix: prefix.clone(), canary: None }).collect();
    let done = cancel.child_token();
    let _guard = done.clone().drop_guard();
    let spec = SessionSpec { store: store.clone(), heartbeat: None, first: None, watches };
    let mut events = session(spec, tasks, done);
    let (mut found, mut listed) = (BTreeMap::new(), [false; 2]);
    while let Some(event) = events.recv().await {
        match event {
            SessionEvent::Relisting { watch, .. } => {
                listed[watch] = false;
                found.retain(|key: &String, _| !key.starts_with(&prefixes[watch]));
            }
            SessionEvent::Delta { upserts, deletes, .. } => {
                found.extend(upserts);
                for key in deletes {
                    found.remove(&key);
                }
            }
            SessionEvent::Listed { watch, .. } => {
                listed[watch] = true;
                if listed == [true; 2] {
                    return understand(found, own_identity);
                }
            }
            SessionEvent::Lost { reason } => tracing::warn!(%reason, "what an earlier life left cannot be read yet"),
            _ => {}
        }
    }
    Earlier::default()
}

/// What cannot be understood was left by a program that knew better; it is written anew.
fn understand(found: BTreeMap<String, Bytes>, own_identity: &PeerIdentity) -> Earlier {
    let mut earlier = Earlier::default();
    let mut mesh: BTreeMap<ClusterName, BTreeMap<ServiceKey, BTreeMap<String, MeshSlice>>> = BTreeMap::new();
    for (text, value) in found {
        let Some(key) = own::parse_key(&text) else {
            match cilium::decode(Kind::Identities, &text, &value, own_identity) {
                Ok(Record::Identity(record)) => {
                    earlier.identities.insert(record.number, LabelSet::new(record.labels));
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(key = %text, %error, "an earlier life left what cannot be read"),
            }
            continue;
        };
        match (own::decode(&key, &value), key) {
            (Ok(OwnRecord::Peer(state)), OwnKey::Peer(peer)) => {
                earlier.peers.insert(peer, EarlierPeer { state, mesh: BTreeMap::new() });
            }
            (Ok(OwnRecord::Mesh(slice)), OwnKey::Mesh { service, cluster, .. }) => {
                mesh.entry(cluster).or_default().entry(service).or_default().insert(text, slice);
            }
            (Ok(OwnRecord::Local(slice)), OwnKey::Local { service, .. }) => {
                let ready = slice.endpoints.iter().filter(|endpoint| endpoint.was_ready).map(|endpoint| endpoint.addr);
                earlier.ready.entry(service).or_default().extend(ready);
            }
            (Ok(_), _) => {}
            (Err(error), _) => tracing::warn!(key = %text, %error, "an earlier life left what cannot be read"),
        }
    }
    for (peer, services) in mesh {
        if let Some(earlier) = earlier.peers.get_mut(&peer) {
            earlier.mesh = services;
        }
    }
    earlier
}
