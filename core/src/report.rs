//! What people are told: the values behind status, services and explain.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::flows::Sampling;
use crate::id::{ClusterId, ClusterName, ServiceKey};
use crate::model::{BackendKey, BackendState, Frontend, Policy};
use crate::own::{PeerState, RefusedReport};
use crate::tables::SwitchEntry;

/// Status of a cluster's apiserver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiserverStatus {
    /// The cluster.
    pub cluster: ClusterName,
    /// Its id.
    pub id: ClusterId,
    /// Program version.
    pub version: String,
    /// Seconds since start.
    pub uptime_s: u64,
    /// What keeps it from being ready; empty when it is.
    pub blockers: Vec<String>,
    /// Its peers, by name.
    pub peers: Vec<PeerStatus>,
    /// What the source cannot read.
    pub faults: Vec<FaultReport>,
    /// Services exported.
    pub exported_services: u32,
    /// Endpoints exported.
    pub exported_endpoints: u32,
    /// Identities exported.
    pub exported_identities: u32,
    /// Addresses of Pods exported.
    pub exported_addresses: u32,
    /// The own store is reachable and written.
    pub store_connected: bool,
}

/// Bad input of a source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultReport {
    /// File and document, or resource.
    pub place: String,
    /// What is wrong.
    pub message: String,
}

/// One peer as its mirror sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Its name.
    pub name: ClusterName,
    /// Its state.
    pub state: PeerState,
    /// What was refused.
    pub refused: RefusedReport,
    /// Names of services it exports that no local Service imports.
    pub unused_imports: Vec<ServiceKey>,
}

/// Status of a node's agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentStatus {
    /// The node.
    pub node: SmolStr,
    /// Its cluster.
    pub cluster: ClusterName,
    /// Program version.
    pub version: String,
    /// Seconds since start.
    pub uptime_s: u64,
    /// `ebpf` or `none`.
    pub datapath: SmolStr,
    /// The session with the own store is up.
    pub store_connected: bool,
    /// Milliseconds since the own apiserver's last heartbeat; absent before the first.
    pub heartbeat_age_ms: Option<u64>,
    /// The first complete plan was carried out.
    pub synced: bool,
    /// What keeps it from being ready; empty when it is.
    pub blockers: Vec<String>,
    /// What a person should know although it keeps nothing from working: other programs, what the kernel lacks.
    pub remarks: Vec<String>,
    /// Peers as the own apiserver reports them.
    pub peers: Vec<(ClusterName, PeerState)>,
    /// Frontends in the maps.
    pub frontends: u32,
    /// Backends in the maps.
    pub backends: u32,
    /// Plans carried out since start.
    pub plans: u64,
}

/// One global service with its kernel tables.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceView {
    /// The service.
    pub service: ServiceKey,
    /// Its policy.
    pub policy: Policy,
    /// A table per frontend.
    pub frontends: Vec<FrontendView>,
}

/// A frontend's table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrontendView {
    /// What clients dial.
    pub frontend: Frontend,
    /// What the switch holds.
    pub switch: SwitchEntry,
    /// The chosen backends with their slot counts.
    pub backends: Vec<SlotView>,
    /// Connections and first datagrams that were given a backend; absent without a kernel datapath.
    pub connects: Option<u64>,
    /// Those that found none and were refused; absent without a kernel datapath.
    pub refused: Option<u64>,
}

/// One backend of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotView {
    /// Where it is.
    pub backend: BackendKey,
    /// Its cluster's name.
    pub cluster: ClusterName,
    /// How many slots it has.
    pub slots: u32,
    /// Connections translated to it since its index was given to it; absent without a kernel datapath.
    pub connects: Option<u64>,
}

/// Why a service's tables on one node are what they are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// The service.
    pub service: ServiceKey,
    /// The node.
    pub node: SmolStr,
    /// The node's cluster.
    pub cluster: ClusterName,
    /// Its policy.
    pub policy: Policy,
    /// One per frontend.
    pub frontends: Vec<FrontendExplanation>,
    /// Addresses claimed twice, and other remarks.
    pub notes: Vec<String>,
}

/// Why one frontend's table is what it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FrontendExplanation {
    /// What clients dial.
    pub frontend: Frontend,
    /// Which of the never-empty rounds gave the result, for a person.
    pub round: String,
    /// Every backend that is known, kept or dropped.
    pub backends: Vec<BackendExplanation>,
    /// The kernel's table equals the intended one.
    pub installed: bool,
}

/// One backend and what became of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackendExplanation {
    /// Where it is.
    pub backend: BackendKey,
    /// Its cluster's name.
    pub cluster: ClusterName,
    /// What it can do.
    pub state: BackendState,
    /// Its node, when the record named one.
    pub node: Option<SmolStr>,
    /// Its zone.
    pub zone: Option<SmolStr>,
    /// Kept only as a last resort.
    pub doubtful: bool,
    /// The rule that kept or dropped it, in the words of docs/explain.md.
    pub rule: String,
    /// Its share of new connections, 0–1; 0 when dropped.
    pub share: f64,
    /// The revision that brought it.
    pub revision: i64,
    /// Milliseconds since then.
    pub age_ms: u64,
}

/// Which flows a reader wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlowsRequest {
    /// After those that are kept, those to come.
    pub follow: bool,
    /// Only this service's.
    pub service: Option<ServiceKey>,
    /// At most so many of those that are kept, the youngest; all of them when absent.
    pub limit: Option<u32>,
}

/// One decision of the datapath, as a process met it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    /// When it was taken, in milliseconds of unix time.
    pub unix_ms: u64,
    /// What was decided.
    pub verdict: FlowVerdict,
    /// The service; absent when the node has no table for the frontend any more.
    pub service: Option<ServiceKey>,
    /// What the process dialled.
    pub frontend: Frontend,
    /// Where it was sent; absent when nowhere.
    pub backend: Option<FlowBackend>,
    /// Who dialled.
    pub process: FlowProcess,
    /// How many of the decisions were told when this one was.
    pub sampling: Sampling,
    /// Flows left out right before this one, because their reader was too slow.
    pub missed: u64,
}

/// What the datapath decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FlowVerdict {
    /// A connect was sent to a backend.
    Connected,
    /// The first datagram of an unconnected socket was sent to a backend.
    FirstDatagram,
    /// No backend serves: refused.
    Refused,
    /// The table is broken: refused, and counted as a fault.
    Broken,
    /// No backend serves, and the service wants that left alone.
    Passed,
}

/// Where a flow was sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowBackend {
    /// Its address.
    pub backend: BackendKey,
    /// Its cluster's name, while one of that id is known.
    pub cluster: Option<ClusterName>,
    /// The node it runs on, when a record names one.
    pub node: Option<SmolStr>,
}

/// The process behind a flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowProcess {
    /// Its id, in the host's numbers.
    pub pid: u32,
    /// Its command's name, at most 15 bytes of it.
    pub command: SmolStr,
    /// Its cgroup's id.
    pub cgroup_id: u64,
    /// That cgroup's path below the root of cgroup v2; absent when it is gone.
    pub cgroup: Option<String>,
}

impl FlowVerdict {
    /// All verdicts.
    pub const ALL: [Self; 5] = [Self::Connected, Self::FirstDatagram, Self::Refused, Self::Broken, Self::Passed];

    /// Its name, in kebab-case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::FirstDatagram => "first-datagram",
            Self::Refused => "refused",
            Self::Broken => "broken",
            Self::Passed => "passed",
        }
    }
}
