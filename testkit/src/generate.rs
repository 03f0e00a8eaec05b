//! Random meshes, small enough that everything collides: three services that may want the same frontend, two peers, few
//! addresses, few ports.

use std::sync::Arc;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::sample::select;
use tombolo_core::hold::Standing;
use tombolo_core::id::{Addr, ClusterName, ServiceKey};
use tombolo_core::mesh::Change;
use tombolo_core::model::{
    Affinity, BackendState, Endpoint, InternalTrafficPolicy, NoBackend, OnStale, Policy, Port, Protocol, Reach,
    ServiceSpec, Slice,
};
use tombolo_core::own::{MeshSlice, PeerCounts, PeerSession, PeerState};

use crate::fixture::{DOUBTFUL, addr, cluster, id, key};

/// The peers with their ids; the own cluster is `we`, id 2, so one is below and one above it.
pub const PEERS: [(&str, u32); 2] = [("fc", 3), ("ne", 1)];

/// Milliseconds of silence that some Services bear.
pub const STALE_AFTER: [u64; 2] = [10_000, 60_000];

/// A history of changes, peers' removals included.
pub fn history() -> impl Strategy<Value = Vec<Change>> {
    vec(change(), 0..40)
}

/// Any change that a mesh can meet.
pub fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        3 => (service_key(), option::weighted(0.8, spec())).prop_map(|(key, spec)| {
            let spec = spec.map(|spec| ServiceSpec { key: key.clone(), ..spec });
            Change::Service(key, spec)
        }),
        4 => local(),
        6 => remote(),
        1 => peer().prop_map(|(name, _)| Change::Peer(name, None)),
        3 => (peer(), peer_state()).prop_map(|((name, _), state)| Change::Peer(name, Some(state))),
    ]
}

/// Fresh, silent for about as long as some Services bear, or without a heartbeat.
fn peer_state() -> impl Strategy<Value = PeerState> {
    let silent_ms = select(vec![0, 9_999, 10_000, 30_000, 59_999, 60_000, u64::MAX]);
    (silent_ms, select(vec![0, 12_500, 60_000])).prop_map(|(silent_ms, least_stale_ms)| PeerState {
        id: None,
        session: PeerSession::Ready,
        silent_ms,
        stale_after_ms: 30_000,
        least_stale_ms,
        detail: String::new(),
        counts: PeerCounts::default(),
    })
}

fn local() -> impl Strategy<Value = Change> {
    (service_key(), slice_name(), option::weighted(0.8, slice())).prop_map(|(service, name, value)| Change::Local {
        service,
        slice: name.into(),
        value,
        revision: 1,
    })
}

fn remote() -> impl Strategy<Value = Change> {
    (service_key(), peer(), slice_name(), option::weighted(0.8, slice()), standing()).prop_map(
        |(service, (cluster, id), name, slice, standing)| Change::Remote {
            service,
            cluster,
            slice: name.into(),
            value: slice.map(|slice| MeshSlice { cluster_id: crate::fixture::id(id), revision: 1, slice }),
            standing,
        },
    )
}

/// One of three services, mostly `a`, so that much comes together.
pub fn service_key() -> impl Strategy<Value = ServiceKey> {
    prop_oneof![4 => Just(key("a")), 1 => Just(key("b")), 1 => Just(key("c"))]
}

fn peer() -> impl Strategy<Value = (ClusterName, u32)> {
    select(PEERS.map(|(name, id)| (cluster(name), id)).to_vec())
}

fn slice_name() -> impl Strategy<Value = &'static str> {
    select(vec!["s1", "s2"])
}

fn standing() -> impl Strategy<Value = Standing> {
    prop_oneof![3 => Just(Standing::Sure), 1 => Just(DOUBTFUL)]
}

/// A Service's frontends and policy; its key is to be replaced.
pub fn spec() -> impl Strategy<Value = ServiceSpec> {
    let ips = prop_oneof![
        5 => Just(vec!["172.16.0.1"]),
        2 => Just(vec!["172.16.0.1", "fd01::1"]),
        2 => Just(vec!["172.16.0.2"]),
        1 => Just(vec![]),
    ];
    (ips, vec(port(), 1..3), policy()).prop_map(|(ips, ports, policy)| ServiceSpec {
        key: key("a"),
        cluster_ips: ips.into_iter().map(addr).collect(),
        ports,
        policy,
    })
}

fn policy() -> impl Strategy<Value = Policy> {
    let reach = select(vec![Reach::Cluster, Reach::Import, Reach::Mesh, Reach::Mesh]);
    let affinity = select(vec![Affinity::None, Affinity::Local, Affinity::Remote]);
    let internal = prop_oneof![5 => Just(InternalTrafficPolicy::Cluster), 1 => Just(InternalTrafficPolicy::Local)];
    let publish_not_ready = prop_oneof![9 => Just(false), 1 => Just(true)];
    let no_backend = select(vec![NoBackend::Refuse, NoBackend::Pass]);
    let on_stale = select(vec![OnStale::Keep, OnStale::LastResort, OnStale::Drop]);
    let staleness = (on_stale, option::weighted(0.3, select(STALE_AFTER.to_vec())));
    (reach, affinity, internal, publish_not_ready, no_backend, option::weighted(0.2, 1..3u32), staleness).prop_map(
        |(
            reach,
            affinity,
            internal_traffic_policy,
            publish_not_ready,
            no_backend,
            client_ip_seconds,
            (on_stale, stale_after_ms),
        )| Policy {
            reach,
            affinity,
            internal_traffic_policy,
            no_backend,
            on_stale,
            stale_after_ms,
            publish_not_ready,
            client_ip_seconds,
        },
    )
}

fn port() -> impl Strategy<Value = Port> {
    let protocol = prop_oneof![16 => Just(Protocol::Tcp), 2 => Just(Protocol::Udp), 1 => Just(Protocol::Sctp)];
    let name = prop_oneof![3 => Just(""), 3 => Just("http"), 1 => Just("alt")];
    (name, protocol, 80..82u16).prop_map(|(name, protocol, number)| Port { name: name.into(), protocol, number })
}

/// Up to three endpoints.
pub fn slice() -> impl Strategy<Value = Slice> {
    vec(endpoint(), 0..4).prop_map(|endpoints| Slice { endpoints })
}

fn endpoint() -> impl Strategy<Value = Endpoint> {
    let state = prop_oneof![
        3 => Just(BackendState::Active),
        3 => Just(BackendState::Terminating),
        1 => Just(BackendState::Gone),
        1 => Just(BackendState::Maintenance),
    ];
    let node = select(vec![None, Some("n1"), Some("n2")]);
    let weight = prop_oneof![7 => Just(100u16), 1 => Just(0u16)];
    (address(), vec(port(), 1..3), state, any::<bool>(), node, weight, proptest::bool::weighted(0.1)).prop_map(
        |(addr, ports, state, was_ready, node, weight, doubtful)| Endpoint {
            addr,
            ports: Arc::from(ports),
            state,
            was_ready,
            weight,
            node: node.map(Into::into),
            zone: None,
            hints: Box::default(),
            doubtful,
        },
    )
}

fn address() -> impl Strategy<Value = Addr> {
    select(["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "fd00::1", "fd00::2"].map(addr).to_vec())
}

/// The own cluster's id, as in [`crate::fixture::mesh`].
pub fn own_id() -> tombolo_core::id::ClusterId {
    id(2)
}
