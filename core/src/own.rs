//! Tombolo's own records: what an apiserver publishes for the agents of its cluster, as values.
//!
//! Keys live under `tombolo/v1/`; their bytes are `tombolo-wire`'s. Agents watch `agents/` as a whole; `control/` is
//! read a key at a time, so that one agent's news never reaches all the others.

use alloc::string::String;
use alloc::vec::Vec;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::id::{Addr, ClusterId, ClusterName, ServiceKey};
use crate::model::{Policy, ServiceSpec, Slice};

/// A key of Tombolo's own records.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OwnKey {
    /// `agents/heartbeat`
    Heartbeat,
    /// `agents/cluster`
    Cluster,
    /// `agents/services/<ns>/<name>`
    Service(ServiceKey),
    /// `agents/local/<ns>/<svc>/<slice>`
    Local {
        /// The service.
        service: ServiceKey,
        /// The slice's name; beyond 100 endpoints `<slice>.<n>`.
        slice: SmolStr,
    },
    /// `agents/mesh/<ns>/<svc>/<cluster>/<slice>`
    Mesh {
        /// The service.
        service: ServiceKey,
        /// The peer that brought it.
        cluster: ClusterName,
        /// The slice's name; a legacy record's is `_legacy`.
        slice: SmolStr,
    },
    /// `agents/peers/<cluster>`
    Peer(ClusterName),
    /// `agents/synced/<cluster>`: the canary of the own cluster, or of one peer.
    Synced(ClusterName),
    /// `control/nodes/<node>`
    Node(SmolStr),
    /// `control/refused/<cluster>`
    Refused(ClusterName),
}

/// The slice name of what came from a legacy service record.
pub const LEGACY_SLICE: &str = "_legacy";
/// More endpoints than this in one key are split into `<slice>.<n>`.
pub const ENDPOINTS_PER_KEY: usize = 100;

/// A value of Tombolo's own records; its kind is its key's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnRecord {
    /// Unix milliseconds of the writer; only its arrival counts.
    Heartbeat(u64),
    /// This cluster and its peers.
    Cluster(ClusterInfo),
    /// A local global Service.
    Service(ServiceSpec),
    /// Endpoints of a local Service.
    Local(Slice),
    /// Admitted and held endpoints of a peer.
    Mesh(MeshSlice),
    /// A peer's state.
    Peer(PeerState),
    /// A complete set has been written; unix milliseconds.
    Synced(u64),
    /// A node's place.
    Node(NodeInfo),
    /// What was refused of one peer.
    Refused(RefusedReport),
}

/// `agents/cluster`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterInfo {
    /// This cluster's name.
    pub name: ClusterName,
    /// Its id.
    pub id: ClusterId,
    /// All configured peers, connected or not: one that is absent here is removed.
    pub peers: Vec<ClusterName>,
    /// This cluster's pod ranges.
    pub pod_cidrs: Vec<IpNet>,
}

/// `agents/mesh/…`: endpoints with the id of their cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeshSlice {
    /// The peer's id.
    pub cluster_id: ClusterId,
    /// The revision of the peer's store that brought it.
    pub revision: i64,
    /// The endpoints.
    pub slice: Slice,
}

/// Where a peer's session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PeerSession {
    /// Dialling, or waiting for its configuration or canaries.
    Connecting,
    /// Listed and watched.
    Ready,
    /// The connection is lost; what it said last is held.
    Lost,
    /// Configured wrongly or clashing with another: see the detail.
    Refused,
}

/// `agents/peers/<cluster>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerState {
    /// The peer's id, once known.
    pub id: Option<ClusterId>,
    /// Where its session stands.
    pub session: PeerSession,
    /// Milliseconds since its last heartbeat, as the mirror judged when this last crossed a threshold that a Service
    /// uses: 0 while it is fresh, [`u64::MAX`] once its heartbeat was deleted. For people, its true age.
    pub silent_ms: u64,
    /// Milliseconds of silence after which it is stale for a Service that names no others.
    pub stale_after_ms: u64,
    /// The least that counts for any Service: two and a half of the intervals at which it beats.
    pub least_stale_ms: u64,
    /// Why it is not ready, for a person; empty when it is.
    pub detail: String,
    /// What it brings.
    pub counts: PeerCounts,
}

impl PeerState {
    /// Milliseconds of silence after which it is stale for a Service of this policy.
    pub fn stale_after(&self, policy: &Policy) -> u64 {
        policy.stale_after_ms.unwrap_or(self.stale_after_ms).max(self.least_stale_ms)
    }

    /// Whether the mirror has judged it silent for longer than a Service of this policy bears.
    pub fn is_stale_for(&self, policy: &Policy) -> bool {
        self.silent_ms > 0 && self.silent_ms >= self.stale_after(policy)
    }
}

/// How much a peer brings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerCounts {
    /// Services.
    pub services: u32,
    /// Endpoints in those.
    pub endpoints: u32,
    /// Nodes.
    pub nodes: u32,
    /// Identities.
    pub identities: u32,
    /// Addresses of Pods.
    pub addresses: u32,
    /// Records and backends refused, now.
    pub refused: u32,
}

/// `control/nodes/<node>`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// The node's zone.
    pub zone: Option<SmolStr>,
    /// Its addresses.
    pub addresses: Vec<Addr>,
}

/// `control/refused/<cluster>`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedReport {
    /// How often, by rule.
    pub counts: Vec<(SmolStr, u64)>,
    /// The first examples.
    pub examples: Vec<RefusedExample>,
}

/// One refused record or backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedExample {
    /// The record's key in the peer's store.
    pub key: String,
    /// The rule that refused it.
    pub rule: SmolStr,
    /// What exactly was wrong.
    pub detail: String,
}
