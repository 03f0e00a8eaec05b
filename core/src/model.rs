//! Services, endpoints and policy as every stage sees them.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::id::{Addr, ClusterId, ServiceKey};

/// A transport protocol of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP: carried, never translated.
    Sctp,
}

impl Protocol {
    /// Parses the name of a protocol in any case.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Tcp, Self::Udp, Self::Sctp].into_iter().find(|p| p.as_str().eq_ignore_ascii_case(text))
    }

    /// The name, upper case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A named port of a Service or of an endpoint. An unnamed port has the empty name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Port {
    /// The port's name, `""` when it has none.
    pub name: SmolStr,
    /// Its protocol.
    pub protocol: Protocol,
    /// Its number; 0 never passes admission.
    pub number: u16,
}

/// An endpoint's conditions as Kubernetes writes them; each may be absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Conditions {
    /// Ready to take traffic.
    pub ready: Option<bool>,
    /// Able to take traffic, terminating or not.
    pub serving: Option<bool>,
    /// On its way out.
    pub terminating: Option<bool>,
}

impl Conditions {
    /// The state these conditions mean: absent ready is true, absent serving is ready, absent terminating is false.
    pub fn state(self) -> BackendState {
        let ready = self.ready.unwrap_or(true);
        let serving = self.serving.unwrap_or(ready);
        match (ready, self.terminating.unwrap_or(false), serving) {
            (true, _, _) => BackendState::Active,
            (false, true, true) => BackendState::Terminating,
            (false, true, false) => BackendState::Gone,
            (false, false, _) => BackendState::Maintenance,
        }
    }

    /// Whether a legacy JSON record carries the endpoint: ready or serving, an absent condition counting as true.
    pub fn in_legacy_record(self) -> bool {
        self.ready.unwrap_or(true) || self.serving.unwrap_or(true)
    }
}

/// What a backend can do. Gone and maintenance never serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendState {
    /// Ready.
    Active,
    /// Terminating and still serving: used when no active one is left.
    Terminating,
    /// Terminating and no longer serving.
    Gone,
    /// Not ready, or of weight 0.
    Maintenance,
}

impl BackendState {
    /// Whether what is in this state has been ready: what still serves while it ends must have been.
    pub fn was_ready(self) -> bool {
        matches!(self, Self::Active | Self::Terminating)
    }

    /// The state under a weight: 0 is maintenance. What is gone stays gone.
    pub fn with_weight(self, weight: u16) -> Self {
        if weight == 0 && self != Self::Gone { Self::Maintenance } else { self }
    }
}

/// The weight of a backend whose slice names none.
pub const DEFAULT_WEIGHT: u16 = 100;

/// One address that answers for a service, with all ports it answers on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Its address.
    pub addr: Addr,
    /// Its ports; several names may stand on one number. Shared between the endpoints of one slice.
    pub ports: Arc<[Port]>,
    /// What it can do.
    pub state: BackendState,
    /// Whether it was ever ready, set once per cluster by its apiserver.
    pub was_ready: bool,
    /// Its weight; 0 is maintenance.
    pub weight: u16,
    /// The node it runs on; a legacy record names none.
    pub node: Option<SmolStr>,
    /// Its zone.
    pub zone: Option<SmolStr>,
    /// The zones it is meant for.
    pub hints: Box<[SmolStr]>,
    /// Kept only as a last resort.
    pub doubtful: bool,
}

/// The endpoints that one key carries: at most one EndpointSlice's worth of one service in one cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slice {
    /// Its endpoints, in the writer's order.
    pub endpoints: Vec<Endpoint>,
}

/// Which side a service prefers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Affinity {
    /// All clusters alike.
    #[default]
    None,
    /// This cluster first.
    Local,
    /// The others first.
    Remote,
}

/// Which of a service's endpoints a node may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum InternalTrafficPolicy {
    /// All of them.
    #[default]
    Cluster,
    /// Those on the same node.
    Local,
}

/// What a connect meets when nothing can be chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NoBackend {
    /// Connection refused.
    #[default]
    Refuse,
    /// Left untranslated, for kube-proxy or whoever else answers.
    Pass,
}

/// What becomes of a peer's backends while it is stale for the service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnStale {
    /// They stay as they are.
    Keep,
    /// They become doubtful.
    #[default]
    LastResort,
    /// They leave.
    Drop,
}

/// Whether the service takes part in the mesh.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reach {
    /// Not global: this cluster's endpoints only, exported to nobody.
    #[default]
    Cluster,
    /// Global, not shared: imports, does not export.
    Import,
    /// Global and shared: imports and exports.
    Mesh,
}

impl Reach {
    /// Whether peers' backends count.
    pub fn is_global(self) -> bool {
        self != Self::Cluster
    }
}

/// A Service's policy, resolved from its own annotations and fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Global and shared.
    pub reach: Reach,
    /// Preference between this cluster and the others.
    pub affinity: Affinity,
    /// Kubernetes' `internalTrafficPolicy`.
    pub internal_traffic_policy: InternalTrafficPolicy,
    /// `tombolo.io/no-backend`.
    pub no_backend: NoBackend,
    /// `tombolo.io/on-stale`.
    pub on_stale: OnStale,
    /// `tombolo.io/stale-after`: milliseconds of a peer's silence; absent, the peer's own measure.
    pub stale_after_ms: Option<u64>,
    /// Kubernetes' `publishNotReadyAddresses`: not ready counts as active.
    pub publish_not_ready: bool,
    /// `sessionAffinity: ClientIP`, its timeout in seconds.
    pub client_ip_seconds: Option<u32>,
}

/// A local global Service as agents see it: the frontends, the ports and the policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSpec {
    /// Its key.
    pub key: ServiceKey,
    /// Its cluster IPs, none when headless.
    pub cluster_ips: Vec<Addr>,
    /// Its ports: name, protocol and the number clients dial.
    pub ports: Vec<Port>,
    /// Its policy.
    pub policy: Policy,
}

/// What a client dials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Frontend {
    /// The cluster IP.
    pub addr: Addr,
    /// The port.
    pub port: u16,
    /// The protocol.
    pub protocol: Protocol,
}

impl fmt::Display for Frontend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", core::net::SocketAddr::new(self.addr.ip(), self.port), self.protocol)
    }
}

/// Where a translated connection goes. It is also a backend's identity within one service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BackendKey {
    /// The endpoint's address.
    pub addr: Addr,
    /// The port there.
    pub port: u16,
    /// The protocol.
    pub protocol: Protocol,
    /// The cluster it runs in.
    pub cluster: ClusterId,
}

impl fmt::Display for BackendKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", core::net::SocketAddr::new(self.addr.ip(), self.port), self.protocol)
    }
}
