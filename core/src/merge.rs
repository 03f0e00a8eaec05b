//! What stands behind one service: its endpoints from all clusters, one candidate per address, port and protocol.

use alloc::vec::Vec;

use smol_str::SmolStr;

use crate::id::{ClusterId, ClusterName, Millis};
use crate::model::{BackendKey, BackendState};

/// Which side of the mesh a candidate is on, seen from this node.
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
    /// The port's names, ascending, without the empty one.
    pub names: Vec<SmolStr>,
    /// What it can do, as its record says.
    pub state: BackendState,
    /// Whether it was ever ready.
    pub was_ready: bool,
    /// Its weight.
    pub weight: u16,
    /// The node it runs on.
    pub node: Option<SmolStr>,
    /// Its zone.
    pub zone: Option<SmolStr>,
    /// Kept only as a last resort.
    pub doubtful: bool,
    /// The cluster that claims the same address, port and protocol with precedence.
    pub lost_to: Option<ClusterId>,
    /// The revision that brought it.
    pub revision: i64,
    /// When that was.
    pub since: Millis,
}
