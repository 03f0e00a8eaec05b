//! Arbitrary values of core's types, for the laws of every encoding.

use std::sync::Arc;

use ipnet::IpNet;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use smol_str::SmolStr;
use tombolo_core::id::{Addr, ClusterId, ClusterName, MaxClusters, ServiceKey};
use tombolo_core::model::{
    Affinity, BackendState, Endpoint, InternalTrafficPolicy, NoBackend, OnStale, Policy, Port, Protocol, Reach,
    ServiceSpec, Slice,
};
use tombolo_core::own::{ClusterInfo, NodeInfo, PeerCounts, PeerSession, PeerState, RefusedExample, RefusedReport};

/// Any text at all, in a name's type.
pub(crate) fn text() -> impl Strategy<Value = SmolStr> {
    ".{0,30}".prop_map(SmolStr::from)
}

/// A part of a key: neither empty nor with a slash.
pub(crate) fn name() -> impl Strategy<Value = SmolStr> {
    "[^/]{1,30}".prop_map(SmolStr::from)
}

pub(crate) fn service_key() -> impl Strategy<Value = ServiceKey> {
    (name(), name()).prop_map(|(namespace, name)| ServiceKey::new(namespace, name))
}

pub(crate) fn cluster_name() -> impl Strategy<Value = ClusterName> {
    "[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?".prop_map(|name| ClusterName::new(&name).unwrap())
}

pub(crate) fn cluster_id() -> impl Strategy<Value = ClusterId> {
    (1..512_u32).prop_map(|id| ClusterId::new(id, MaxClusters::C511).unwrap())
}

pub(crate) fn addr() -> impl Strategy<Value = Addr> {
    prop_oneof![
        any::<[u8; 4]>().prop_map(|v4| Addr::from(std::net::Ipv4Addr::from(v4))),
        any::<[u8; 16]>().prop_map(Addr::from)
    ]
}

pub(crate) fn protocol() -> impl Strategy<Value = Protocol> {
    prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp), Just(Protocol::Sctp)]
}

pub(crate) fn backend_state() -> impl Strategy<Value = BackendState> {
    use BackendState::{Active, Gone, Maintenance, Terminating};
    prop_oneof![Just(Active), Just(Terminating), Just(Gone), Just(Maintenance)]
}

fn port() -> impl Strategy<Value = Port> {
    (text(), protocol(), any::<u16>()).prop_map(|(name, protocol, number)| Port { name, protocol, number })
}

fn endpoint(sets: Vec<Arc<[Port]>>) -> impl Strategy<Value = Endpoint> {
    let place = (option::of(text()), option::of(text()), vec(text(), 0..3));
    let weight = prop_oneof![Just(100), any::<u16>()];
    (addr(), proptest::sample::select(sets), backend_state(), weight, place, any::<[bool; 2]>()).prop_map(
        |(addr, ports, state, weight, (node, zone, hints), [was_ready, doubtful])| Endpoint {
            addr,
            ports,
            state,
            was_ready,
            weight,
            node,
            zone,
            hints: hints.into(),
            doubtful,
        },
    )
}

/// A slice of up to `most` endpoints, which share a few port sets.
pub(crate) fn slice(most: usize) -> impl Strategy<Value = Slice> {
    let set = vec(port(), 0..4).prop_map(Arc::from);
    vec(set, 1..4).prop_flat_map(move |sets| vec(endpoint(sets), 0..=most)).prop_map(|endpoints| Slice { endpoints })
}

pub(crate) fn policy() -> impl Strategy<Value = Policy> {
    let reach = prop_oneof![Just(Reach::Cluster), Just(Reach::Import), Just(Reach::Mesh)];
    let affinity = prop_oneof![Just(Affinity::None), Just(Affinity::Local), Just(Affinity::Remote)];
    let on_stale = prop_oneof![Just(OnStale::Keep), Just(OnStale::LastResort), Just(OnStale::Drop)];
    let staleness = (on_stale, option::of(any::<u64>()));
    (reach, affinity, any::<[bool; 3]>(), option::of(any::<u32>()), staleness).prop_map(
        |(reach, affinity, [local, pass, publish_not_ready], client_ip_seconds, (on_stale, stale_after_ms))| Policy {
            reach,
            affinity,
            internal_traffic_policy: if local { InternalTrafficPolicy::Local } else { InternalTrafficPolicy::Cluster },
            no_backend: if pass { NoBackend::Pass } else { NoBackend::Refuse },
            on_stale,
            stale_after_ms,
            publish_not_ready,
            client_ip_seconds,
        },
    )
}

pub(crate) fn service_spec(key: ServiceKey) -> impl Strategy<Value = ServiceSpec> {
    (vec(addr(), 0..3), vec(port(), 0..4), policy()).prop_map(move |(cluster_ips, ports, policy)| ServiceSpec {
        key: key.clone(),
        cluster_ips,
        ports,
        policy,
    })
}

pub(crate) fn cluster_info() -> impl Strategy<Value = ClusterInfo> {
    let cidr = (addr(), any::<u8>()).prop_map(|(addr, len)| {
        let ip = addr.ip();
        IpNet::new(ip, len % if ip.is_ipv4() { 33 } else { 129 }).unwrap()
    });
    (cluster_name(), cluster_id(), vec(cluster_name(), 0..4), vec(cidr, 0..4))
        .prop_map(|(name, id, peers, pod_cidrs)| ClusterInfo { name, id, peers, pod_cidrs })
}

pub(crate) fn peer_state() -> impl Strategy<Value = PeerState> {
    use PeerSession::{Connecting, Lost, Ready, Refused};
    let session = prop_oneof![Just(Connecting), Just(Ready), Just(Lost), Just(Refused)];
    (option::of(cluster_id()), session, any::<[u64; 3]>(), ".{0,30}", any::<[u32; 6]>()).prop_map(
        |(id, session, [silent_ms, stale_after_ms, least_stale_ms], detail, counts)| {
            let [services, endpoints, nodes, identities, addresses, refused] = counts;
            PeerState {
                id,
                session,
                silent_ms,
                stale_after_ms,
                least_stale_ms,
                detail,
                counts: PeerCounts { services, endpoints, nodes, identities, addresses, refused },
            }
        },
    )
}

pub(crate) fn node_info() -> impl Strategy<Value = NodeInfo> {
    (option::of(text()), vec(addr(), 0..4)).prop_map(|(zone, addresses)| NodeInfo { zone, addresses })
}

pub(crate) fn refused_report() -> impl Strategy<Value = RefusedReport> {
    let example = (".{0,30}", text(), ".{0,30}").prop_map(|(key, rule, detail)| RefusedExample { key, rule, detail });
    (vec((text(), any::<u64>()), 0..4), vec(example, 0..4))
        .prop_map(|(counts, examples)| RefusedReport { counts, examples })
}
