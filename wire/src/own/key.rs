//! Keys as text. No part of a key is empty or holds a slash: Kubernetes' names do not, and admission sees to a peer's.

use smol_str::SmolStr;
use tombolo_core::id::{ClusterName, ServiceKey};
use tombolo_core::own::OwnKey;

/// The root of all own records; no peer may read it.
pub const ROOT: &str = "tombolo/v1/";
/// What every agent watches as a whole.
pub const AGENTS: &str = "tombolo/v1/agents/";
/// What no agent watches as a whole.
pub const CONTROL: &str = "tombolo/v1/control/";

/// The text of a key.
pub fn key_to_string(key: &OwnKey) -> String {
    match key {
        OwnKey::Heartbeat => format!("{AGENTS}heartbeat"),
        OwnKey::Cluster => format!("{AGENTS}cluster"),
        OwnKey::Service(service) => format!("{AGENTS}services/{service}"),
        OwnKey::Local { service, slice } => format!("{AGENTS}local/{service}/{slice}"),
        OwnKey::Mesh { service, cluster, slice } => format!("{AGENTS}mesh/{service}/{cluster}/{slice}"),
        OwnKey::Peer(cluster) => format!("{AGENTS}peers/{cluster}"),
        OwnKey::Synced(cluster) => format!("{AGENTS}synced/{cluster}"),
        OwnKey::Node(node) => format!("{CONTROL}nodes/{node}"),
        OwnKey::Refused(cluster) => format!("{CONTROL}refused/{cluster}"),
    }
}

/// Parses a key; `None` for what is no key of this release (a newer one may have more kinds).
pub fn parse_key(text: &str) -> Option<OwnKey> {
    let mut parts = [""; 6];
    let mut count = 0;
    for part in text.strip_prefix(ROOT)?.split('/') {
        if part.is_empty() {
            return None;
        }
        *parts.get_mut(count)? = part;
        count += 1;
    }
    let cluster = |name: &str| ClusterName::new(name).ok();
    Some(match parts[..count] {
        ["agents", "heartbeat"] => OwnKey::Heartbeat,
        ["agents", "cluster"] => OwnKey::Cluster,
        ["agents", "services", namespace, name] => OwnKey::Service(ServiceKey::new(namespace, name)),
        ["agents", "local", namespace, name, slice] => {
            OwnKey::Local { service: ServiceKey::new(namespace, name), slice: SmolStr::new(slice) }
        }
        ["agents", "mesh", namespace, name, peer, slice] => OwnKey::Mesh {
            service: ServiceKey::new(namespace, name),
            cluster: cluster(peer)?,
            slice: SmolStr::new(slice),
        },
        ["agents", "peers", peer] => OwnKey::Peer(cluster(peer)?),
        ["agents", "synced", name] => OwnKey::Synced(cluster(name)?),
        ["control", "nodes", node] => OwnKey::Node(SmolStr::new(node)),
        ["control", "refused", peer] => OwnKey::Refused(cluster(peer)?),
        _ => return None,
    })
}
