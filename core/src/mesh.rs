//! The agent's one mutable value.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use smol_str::SmolStr;

use crate::id::{ClusterId, ClusterName, Millis, ServiceKey};
use crate::model::{Frontend, ServiceSpec, Slice};
use crate::own::{ClusterInfo, MeshSlice, NodeInfo, PeerState};
use crate::select::Selection;
use crate::tables::Desired;

/// How sure a peer's record is, once silence and restarts were considered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// It counts.
    #[default]
    Sure,
    /// It is kept only as a last resort.
    Doubtful,
}

/// One change of the held view. A value of `None` is a removal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// This cluster and its peers.
    Cluster(ClusterInfo),
    /// A local global Service.
    Service(ServiceKey, Option<ServiceSpec>),
    /// One slice of a local Service's endpoints.
    Local {
        /// The service.
        service: ServiceKey,
        /// The slice's name.
        slice: SmolStr,
        /// Its endpoints.
        value: Option<Slice>,
        /// The revision of the own store that brought it.
        revision: i64,
    },
    /// One slice of a peer's endpoints.
    Remote {
        /// The service.
        service: ServiceKey,
        /// The peer.
        cluster: ClusterName,
        /// The slice's name.
        slice: SmolStr,
        /// Its endpoints.
        value: Option<MeshSlice>,
        /// How sure it is.
        standing: Standing,
    },
    /// A peer's state; its removal takes away everything that only it brought.
    Peer(ClusterName, Option<PeerState>),
    /// This node's place.
    Node(Option<NodeInfo>),
}

/// Everything the agent knows of the mesh, by service.
#[derive(Clone, Debug)]
pub struct Mesh {}

impl Mesh {
    /// An empty mesh, seen from one node of one cluster.
    pub fn new(node: SmolStr, cluster: ClusterName, id: ClusterId) -> Self {
        unimplemented!()
    }
    /// Takes one change in and says whose tables may differ now. Costs as much as that service, never the mesh.
    pub fn apply(&mut self, change: Change, now: Millis) -> BTreeSet<ServiceKey> {
        unimplemented!()
    }
    /// Selects the backends of one service; `None` when there is no local Service, and so no frontend.
    pub fn select(&self, service: &ServiceKey) -> Option<Selection> {
        unimplemented!()
    }
    /// What the tables should hold for one service: nothing when there is no local Service.
    pub fn desired(&self, service: &ServiceKey) -> Desired {
        unimplemented!()
    }
    /// The local Services, ascending.
    pub fn services(&self) -> impl Iterator<Item = &ServiceSpec> {
        core::iter::empty()
    }
    /// Services that peers bring and no local Service imports, with those peers.
    pub fn unused_imports(&self) -> impl Iterator<Item = (&ServiceKey, Vec<&ClusterName>)> {
        core::iter::empty()
    }
    /// The peers' states, ascending.
    pub fn peers(&self) -> impl Iterator<Item = (&ClusterName, &PeerState)> {
        core::iter::empty()
    }
    /// This cluster and its peers, once known.
    pub fn cluster_info(&self) -> Option<&ClusterInfo> {
        unimplemented!()
    }
    /// The node it is seen from.
    pub fn node(&self) -> &SmolStr {
        unimplemented!()
    }
    /// Its cluster.
    pub fn cluster(&self) -> &ClusterName {
        unimplemented!()
    }
    /// Its cluster's id.
    pub fn cluster_id(&self) -> ClusterId {
        unimplemented!()
    }
    /// The node's place, empty until known.
    pub fn node_info(&self) -> &NodeInfo {
        unimplemented!()
    }
}
