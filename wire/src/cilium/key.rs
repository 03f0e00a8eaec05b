//! The keys of Cilium's schema.
//!
//! Source: Cilium `pkg/kvstore/store`, `pkg/clustermesh`. Two kinds have no cluster in their keys: identities (the
//! number says whose it is) and addresses; and a canary names the registered prefix, without what follows it.

use tombolo_core::id::{Addr, ClusterName, ServiceKey};

/// Written every minute by the owner, leased; only its arrival counts.
pub const HEARTBEAT: &str = "cilium/.heartbeat";
/// Where all state of the owning cluster lives.
pub const STATE: &str = "cilium/state/";

/// The key of a cluster's configuration.
pub fn cluster_config(cluster: &ClusterName) -> String {
    format!("cilium/cluster-config/{cluster}")
}

/// A kind of records, one prefix each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `nodes/v1`
    Nodes,
    /// `services/v1`
    Services,
    /// `endpointslices/v1`, since 1.20.
    EndpointSlices,
    /// `identities/v1`
    Identities,
    /// `ip/v1`
    Ip,
    /// `serviceexports/v1`
    ServiceExports,
}

impl Kind {
    /// All kinds, in the order Cilium registers them.
    pub const ALL: [Self; 6] =
        [Self::Nodes, Self::Services, Self::EndpointSlices, Self::Identities, Self::Ip, Self::ServiceExports];

    /// The kind's own part of a prefix: `services/v1`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nodes => "nodes/v1",
            Self::Services => "services/v1",
            Self::EndpointSlices => "endpointslices/v1",
            Self::Identities => "identities/v1",
            Self::Ip => "ip/v1",
            Self::ServiceExports => "serviceexports/v1",
        }
    }

    /// The prefix of the kind's records in the owner's store, with its final slash.
    pub fn state_prefix(self, owner: &ClusterName) -> String {
        match self {
            Self::Identities => format!("{STATE}{}/id/", self.as_str()),
            Self::Ip => format!("{STATE}{}/default/", self.as_str()),
            _ => format!("{STATE}{}/{owner}/", self.as_str()),
        }
    }

    /// The prefix of a cluster's records in a store that caches them (`capabilities.cached`), with its final slash.
    pub fn cache_prefix(self, owner: &ClusterName) -> String {
        match self {
            Self::Identities => format!("cilium/cache/{}/{owner}/id/", self.as_str()),
            _ => format!("cilium/cache/{}/{owner}/", self.as_str()),
        }
    }

    /// The key that says the owner's first complete set of this kind is written.
    pub fn canary(self, owner: &ClusterName) -> String {
        format!("cilium/synced/{owner}/{STATE}{}", self.as_str())
    }

    /// The same in a store that caches the owner's records.
    pub fn cache_canary(self, owner: &ClusterName) -> String {
        format!("cilium/synced/{owner}/cilium/cache/{}", self.as_str())
    }
}

/// The key of a legacy service record.
pub fn service(cluster: &ClusterName, service: &ServiceKey) -> String {
    format!("{}{service}", Kind::Services.state_prefix(cluster))
}

/// The key of an endpoint slice.
pub fn slice(cluster: &ClusterName, namespace: &str, name: &str) -> String {
    format!("{}{namespace}/{name}", Kind::EndpointSlices.state_prefix(cluster))
}

/// The key of a node.
pub fn node(cluster: &ClusterName, name: &str) -> String {
    format!("{}{name}", Kind::Nodes.state_prefix(cluster))
}

/// The key of an identity. It names no cluster: the number says whose it is.
pub fn identity(number: u32) -> String {
    format!("{STATE}{}/id/{number}", Kind::Identities.as_str())
}

/// The key of an address. It names no cluster either.
pub fn ip(addr: Addr) -> String {
    format!("{STATE}{}/default/{addr}", Kind::Ip.as_str())
}
