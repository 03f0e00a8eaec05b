//! The vocabulary that own records and the admin protocol share.

use std::net::Ipv4Addr;

use tombolo_core::id::{Addr, ClusterId, ClusterName, MaxClusters};
use tombolo_core::model::{
    Affinity, BackendState, InternalTrafficPolicy, NoBackend, OnStale, Policy, Port, Protocol, Reach,
};
use tombolo_core::own::{ClusterInfo, NodeInfo, PeerCounts, PeerSession, PeerState, RefusedExample, RefusedReport};
#[cfg(feature = "admin")]
use tombolo_core::report::FlowVerdict;

use super::{self as proto, Bad, Wire, all, messages};

/// A cluster's name from its text.
pub(crate) fn cluster_name(text: &str) -> Result<ClusterName, Bad> {
    ClusterName::new(text).map_err(|_| Bad("cluster"))
}

/// A cluster's id from its number, of the largest mesh there is: the writer knows its own size.
pub(crate) fn cluster_id(id: u32) -> Result<ClusterId, Bad> {
    ClusterId::new(id, MaxClusters::C511).map_err(|_| Bad("cluster id"))
}

/// A port's number.
pub(crate) fn port_number(n: u32) -> Result<u16, Bad> {
    u16::try_from(n).map_err(|_| Bad("port"))
}

/// A value that the schema has as an enum, whose fields are numbers.
pub(crate) trait EnumField: Copy {
    /// The number of a field.
    fn number(self) -> i32;
    /// The value of a field's number.
    fn of(number: i32) -> Result<Self, Bad>;
}

macro_rules! enums {
    ($($name:ident $field:literal { $($variant:ident),* })*) => {$(
        impl EnumField for $name {
            fn number(self) -> i32 {
                i32::from(match self { $(Self::$variant => proto::$name::$variant),* })
            }

            fn of(number: i32) -> Result<Self, Bad> {
                match proto::$name::try_from(number) {
                    $(Ok(proto::$name::$variant) => Ok(Self::$variant),)*
                    Err(_) => Err(Bad($field)),
                }
            }
        }
    )*};
}

enums! {
    Protocol "protocol" { Tcp, Udp, Sctp }
    BackendState "state" { Active, Terminating, Gone, Maintenance }
    Reach "reach" { Cluster, Import, Mesh }
    Affinity "affinity" { None, Local, Remote }
    InternalTrafficPolicy "internal traffic policy" { Cluster, Local }
    NoBackend "no-backend" { Refuse, Pass }
    OnStale "on-stale" { LastResort, Keep, Drop }
    PeerSession "session" { Connecting, Ready, Lost, Refused }
}

#[cfg(feature = "admin")]
enums! {
    FlowVerdict "verdict" { Connected, FirstDatagram, Refused, Broken, Passed }
}

impl Wire for Addr {
    type Message = proto::Addr;

    fn message(&self) -> proto::Addr {
        match self.ip() {
            std::net::IpAddr::V4(v4) => proto::Addr { v4: v4.to_bits(), v6: Vec::new() },
            std::net::IpAddr::V6(v6) => proto::Addr { v4: 0, v6: v6.octets().to_vec() },
        }
    }

    fn value(addr: proto::Addr) -> Result<Self, Bad> {
        if addr.v6.is_empty() {
            return Ok(Ipv4Addr::from_bits(addr.v4).into());
        }
        <[u8; 16]>::try_from(addr.v6).map(Self::from).map_err(|_| Bad("address"))
    }
}

impl Wire for Port {
    type Message = proto::Port;

    fn message(&self) -> proto::Port {
        proto::Port { name: self.name.to_string(), protocol: self.protocol.number(), number: self.number.into() }
    }

    fn value(port: proto::Port) -> Result<Self, Bad> {
        Ok(Self { name: port.name.into(), protocol: Protocol::of(port.protocol)?, number: port_number(port.number)? })
    }
}

impl Wire for Policy {
    type Message = proto::Policy;

    fn message(&self) -> proto::Policy {
        proto::Policy {
            reach: self.reach.number(),
            affinity: self.affinity.number(),
            internal_traffic_policy: self.internal_traffic_policy.number(),
            no_backend: self.no_backend.number(),
            publish_not_ready: self.publish_not_ready,
            client_ip_seconds: self.client_ip_seconds,
            on_stale: self.on_stale.number(),
            stale_after_ms: self.stale_after_ms,
        }
    }

    fn value(policy: proto::Policy) -> Result<Self, Bad> {
        Ok(Self {
            reach: Reach::of(policy.reach)?,
            affinity: Affinity::of(policy.affinity)?,
            internal_traffic_policy: InternalTrafficPolicy::of(policy.internal_traffic_policy)?,
            no_backend: NoBackend::of(policy.no_backend)?,
            on_stale: OnStale::of(policy.on_stale)?,
            stale_after_ms: policy.stale_after_ms,
            publish_not_ready: policy.publish_not_ready,
            client_ip_seconds: policy.client_ip_seconds,
        })
    }
}

impl Wire for PeerState {
    type Message = proto::PeerState;

    fn message(&self) -> proto::PeerState {
        let PeerCounts { services, endpoints, nodes, identities, addresses, refused } = self.counts;
        proto::PeerState {
            id: self.id.map(|id| id.get().into()),
            session: self.session.number(),
            silent_ms: self.silent_ms,
            stale_after_ms: self.stale_after_ms,
            least_stale_ms: self.least_stale_ms,
            detail: self.detail.clone(),
            counts: Some(proto::PeerCounts { services, endpoints, nodes, refused, identities, addresses }),
        }
    }

    fn value(state: proto::PeerState) -> Result<Self, Bad> {
        let proto::PeerCounts { services, endpoints, nodes, refused, identities, addresses } =
            state.counts.unwrap_or_default();
        Ok(Self {
            id: state.id.map(cluster_id).transpose()?,
            session: PeerSession::of(state.session)?,
            silent_ms: state.silent_ms,
            stale_after_ms: state.stale_after_ms,
            least_stale_ms: state.least_stale_ms,
            detail: state.detail,
            counts: PeerCounts { services, endpoints, nodes, identities, addresses, refused },
        })
    }
}

impl Wire for RefusedReport {
    type Message = proto::RefusedReport;

    fn message(&self) -> proto::RefusedReport {
        let example = |e: &RefusedExample| proto::RefusedExample {
            key: e.key.clone(),
            rule: e.rule.to_string(),
            detail: e.detail.clone(),
        };
        let counts = self.counts.iter();
        proto::RefusedReport {
            counts: counts.map(|(rule, count)| proto::RuleCount { rule: rule.to_string(), count: *count }).collect(),
            examples: self.examples.iter().map(example).collect(),
        }
    }

    fn value(report: proto::RefusedReport) -> Result<Self, Bad> {
        let example = |e: proto::RefusedExample| RefusedExample { key: e.key, rule: e.rule.into(), detail: e.detail };
        Ok(Self {
            counts: report.counts.into_iter().map(|c| (c.rule.into(), c.count)).collect(),
            examples: report.examples.into_iter().map(example).collect(),
        })
    }
}

impl Wire for NodeInfo {
    type Message = proto::NodeInfo;

    fn message(&self) -> proto::NodeInfo {
        proto::NodeInfo { zone: self.zone.as_ref().map(ToString::to_string), addresses: messages(&self.addresses) }
    }

    fn value(node: proto::NodeInfo) -> Result<Self, Bad> {
        Ok(Self { zone: node.zone.map(Into::into), addresses: all(node.addresses)? })
    }
}

impl Wire for ClusterInfo {
    type Message = proto::ClusterInfo;

    fn message(&self) -> proto::ClusterInfo {
        proto::ClusterInfo {
            name: self.name.to_string(),
            id: self.id.get().into(),
            peers: self.peers.iter().map(ToString::to_string).collect(),
            pod_cidrs: self.pod_cidrs.iter().map(ToString::to_string).collect(),
        }
    }

    fn value(info: proto::ClusterInfo) -> Result<Self, Bad> {
        let cidr = |text: &String| text.parse().map_err(|_| Bad("pod CIDR"));
        Ok(Self {
            name: cluster_name(&info.name)?,
            id: cluster_id(info.id)?,
            peers: info.peers.iter().map(|name| cluster_name(name)).collect::<Result<_, _>>()?,
            pod_cidrs: info.pod_cidrs.iter().map(cidr).collect::<Result<_, _>>()?,
        })
    }
}

/// The policy of a message; one that is absent has all defaults.
pub(crate) fn policy(policy: Option<proto::Policy>) -> Result<Policy, Bad> {
    Policy::value(policy.unwrap_or_default())
}
