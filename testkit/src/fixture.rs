//! Small values in few words.

use std::sync::Arc;

use tombolo_core::hold::{Doubt, Standing};
use tombolo_core::id::{Addr, ClusterId, ClusterName, MaxClusters, Millis, ServiceKey};
use tombolo_core::mesh::{Change, Mesh};
use tombolo_core::model::{BackendState, DEFAULT_WEIGHT, Endpoint, Policy, Port, Protocol, Reach, ServiceSpec, Slice};
use tombolo_core::own::MeshSlice;

/// A standing that is not sure.
pub const DOUBTFUL: Standing = Standing::Doubtful(Doubt::Heartbeat);

/// A cluster's name.
pub fn cluster(name: &str) -> ClusterName {
    ClusterName::new(name).expect("a fixture names clusters rightly")
}

/// A cluster's id.
pub fn id(id: u32) -> ClusterId {
    ClusterId::new(id, MaxClusters::C511).expect("a fixture numbers clusters rightly")
}

/// An address.
pub fn addr(text: &str) -> Addr {
    text.parse().expect("a fixture's addresses are addresses")
}

/// A service's key, `default/` unless it names its namespace.
pub fn key(text: &str) -> ServiceKey {
    ServiceKey::parse(text).expect("a fixture's service keys are namespace/name or name")
}

/// A port of `number`, `name:number` or `name:number/PROTOCOL`.
pub fn port(text: &str) -> Port {
    let (text, protocol) = text.split_once('/').unwrap_or((text, "TCP"));
    let (name, number) = text.split_once(':').unwrap_or(("", text));
    Port {
        name: name.into(),
        protocol: Protocol::parse(protocol).expect("a fixture's protocols exist"),
        number: number.parse().expect("a fixture's port numbers are numbers"),
    }
}

/// Ports by [`port`], separated by spaces.
pub fn ports(text: &str) -> Arc<[Port]> {
    text.split_whitespace().map(port).collect()
}

/// An active endpoint of the default weight on no node.
pub fn endpoint(address: &str, on: &str) -> Endpoint {
    Endpoint {
        addr: addr(address),
        ports: ports(on),
        state: BackendState::Active,
        was_ready: true,
        weight: DEFAULT_WEIGHT,
        node: None,
        zone: None,
        hints: Box::default(),
        doubtful: false,
    }
}

/// A global, shared Service.
pub fn service(name: &str, cluster_ips: &[&str], on: &str) -> ServiceSpec {
    ServiceSpec {
        key: key(name),
        cluster_ips: cluster_ips.iter().map(|ip| addr(ip)).collect(),
        ports: ports(on).to_vec(),
        policy: Policy { reach: Reach::Mesh, ..Policy::default() },
    }
}

/// A mesh seen from node `n1` of cluster `we`, id 2.
pub fn mesh() -> Mesh {
    Mesh::new("n1".into(), cluster("we"), id(2))
}

/// A mesh after these changes, all at time 0.
pub fn mesh_after(changes: impl IntoIterator<Item = Change>) -> Mesh {
    let mut mesh = mesh();
    for change in changes {
        mesh.apply(change, Millis(0));
    }
    mesh
}

/// The Service is so.
pub fn put_service(spec: ServiceSpec) -> Change {
    Change::Service(spec.key.clone(), Some(spec))
}

/// The local slice `s` of a service holds these endpoints.
pub fn put_local(name: &str, endpoints: Vec<Endpoint>) -> Change {
    Change::Local { service: key(name), slice: "s".into(), value: Some(Slice { endpoints }), revision: 1 }
}

/// The slice `s` of a peer holds these endpoints.
pub fn put_remote(name: &str, (peer, peer_id): (&str, u32), endpoints: Vec<Endpoint>) -> Change {
    Change::Remote {
        service: key(name),
        cluster: cluster(peer),
        slice: "s".into(),
        value: Some(MeshSlice { cluster_id: id(peer_id), revision: 1, slice: Slice { endpoints } }),
        standing: Standing::Sure,
    }
}

/// The slice `s` of a peer is gone.
pub fn delete_remote(name: &str, peer: &str) -> Change {
    Change::Remote {
        service: key(name),
        cluster: cluster(peer),
        slice: "s".into(),
        value: None,
        standing: Standing::Sure,
    }
}
