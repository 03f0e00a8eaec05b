//! The parts of Kubernetes' objects that the mesh reads, as they stand in YAML.
//!
//! Everything that can be wrong is found while reading, so that the reader can say where; the conversions below
//! cannot fail. Unknown fields are ignored: Kubernetes has many.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer};
use smol_str::SmolStr;
use tombolo_core::id::{Addr, Family, ServiceKey};
use tombolo_core::model::{Conditions, InternalTrafficPolicy, Port, Protocol};
use tombolo_core::object::{
    EndpointObject, Labels, NamespaceObject, NodeObject, ServiceKind, ServiceObject, SliceObject,
};

/// Kubernetes' default of `sessionAffinityConfig.clientIP.timeoutSeconds`.
const CLIENT_IP_SECONDS: u32 = 10_800;
/// A Service with this label is headless whatever its cluster IP says.
const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";

#[derive(Deserialize)]
pub(super) struct Metadata {
    pub(super) name: Name,
    #[serde(default, deserialize_with = "or_default")]
    namespace: Option<Name>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) labels: BTreeMap<SmolStr, String>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) annotations: BTreeMap<SmolStr, String>,
}

impl Metadata {
    pub(super) fn namespace(&self) -> SmolStr {
        self.namespace.as_ref().map_or_else(|| SmolStr::new_static("default"), |n| n.0.clone())
    }
}

/// A name that may stand in a key of a store: not empty, no slash, at most Kubernetes' 253 bytes.
#[derive(Clone, Deserialize)]
#[serde(try_from = "SmolStr")]
pub(super) struct Name(pub(super) SmolStr);

impl TryFrom<SmolStr> for Name {
    type Error = String;

    fn try_from(text: SmolStr) -> Result<Self, String> {
        let ok = (1..=253).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.' | b':'));
        if ok { Ok(Self(text)) } else { Err(format!("{text:?} is no Kubernetes name: 1 to 253 of a-z, 0-9, '-', '.'")) }
    }
}

/// An address with its text's errors in words.
#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "SmolStr")]
pub(super) struct Address(pub(super) IpAddr);

impl TryFrom<SmolStr> for Address {
    type Error = String;

    fn try_from(text: SmolStr) -> Result<Self, String> {
        text.parse().map(Self).map_err(|_| format!("{text:?} is no IP address"))
    }
}

#[derive(Deserialize)]
#[serde(try_from = "SmolStr")]
pub(super) struct ProtocolName(Protocol);

impl TryFrom<SmolStr> for ProtocolName {
    type Error = String;

    fn try_from(text: SmolStr) -> Result<Self, String> {
        Protocol::parse(&text).map(Self).ok_or_else(|| format!("{text:?} is no protocol: TCP, UDP or SCTP"))
    }
}

/// A cluster IP, or `None` for a headless Service; the empty text counts as absent.
#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "SmolStr")]
enum ClusterIp {
    Absent,
    None,
    Addr(Addr),
}

impl TryFrom<SmolStr> for ClusterIp {
    type Error = String;

    fn try_from(text: SmolStr) -> Result<Self, String> {
        match text.as_str() {
            "" => Ok(Self::Absent),
            "None" => Ok(Self::None),
            _ => Address::try_from(text).map(|a| Self::Addr(a.0.into())),
        }
    }
}

/// An explicit `null` means what an absent field means.
pub(super) fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(de: D) -> Result<T, D::Error> {
    Option::<T>::deserialize(de).map(Option::unwrap_or_default)
}

#[derive(Deserialize)]
pub(super) struct Service {
    metadata: Metadata,
    #[serde(default, deserialize_with = "or_default")]
    spec: ServiceSpec,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ServiceSpec {
    #[serde(default, rename = "type")]
    type_: Option<ServiceType>,
    #[serde(default, rename = "clusterIP")]
    cluster_ip: Option<ClusterIp>,
    #[serde(default, rename = "clusterIPs", deserialize_with = "or_default")]
    cluster_ips: Vec<ClusterIp>,
    #[serde(default, deserialize_with = "or_default")]
    selector: BTreeMap<SmolStr, String>,
    #[serde(default, deserialize_with = "or_default")]
    ports: Vec<ServicePort>,
    #[serde(default)]
    internal_traffic_policy: Option<TrafficPolicy>,
    #[serde(default, deserialize_with = "or_default")]
    publish_not_ready_addresses: bool,
    #[serde(default)]
    session_affinity: Option<SessionAffinity>,
    #[serde(default)]
    session_affinity_config: Option<SessionAffinityConfig>,
}

#[derive(Deserialize, PartialEq)]
enum ServiceType {
    ClusterIP,
    NodePort,
    LoadBalancer,
    ExternalName,
}

#[derive(Deserialize)]
enum TrafficPolicy {
    Cluster,
    Local,
}

#[derive(Deserialize, PartialEq)]
enum SessionAffinity {
    None,
    ClientIP,
}

#[derive(Deserialize)]
struct SessionAffinityConfig {
    #[serde(default, rename = "clientIP")]
    client_ip: Option<ClientIpConfig>,
}

#[derive(Deserialize)]
struct ClientIpConfig {
    #[serde(default, rename = "timeoutSeconds")]
    timeout_seconds: Option<u32>,
}

#[derive(Deserialize)]
struct ServicePort {
    #[serde(default, deserialize_with = "or_default")]
    name: SmolStr,
    #[serde(default)]
    protocol: Option<ProtocolName>,
    port: u16,
}

impl From<Service> for ServiceObject {
    fn from(service: Service) -> Self {
        let Service { metadata, spec } = service;
        let ips: Vec<ClusterIp> = match spec.cluster_ips.is_empty() {
            true => spec.cluster_ip.into_iter().collect(),
            false => spec.cluster_ips,
        };
        let headless =
            metadata.labels.contains_key(HEADLESS_LABEL) || ips.iter().any(|ip| matches!(ip, ClusterIp::None));
        let kind = match (spec.type_, headless) {
            (Some(ServiceType::ExternalName), _) => ServiceKind::ExternalName,
            (_, true) => ServiceKind::Headless,
            (_, false) => ServiceKind::ClusterIp,
        };
        let address = |ip: ClusterIp| if let ClusterIp::Addr(addr) = ip { Some(addr) } else { None };
        let timeout = spec.session_affinity_config.and_then(|c| c.client_ip).and_then(|c| c.timeout_seconds);
        Self {
            key: ServiceKey::new(metadata.namespace(), metadata.name.0),
            annotations: metadata.annotations,
            labels: metadata.labels,
            selector: spec.selector,
            kind,
            cluster_ips: match kind {
                ServiceKind::ClusterIp => ips.into_iter().filter_map(address).collect(),
                ServiceKind::Headless | ServiceKind::ExternalName => Vec::new(),
            },
            ports: spec.ports.into_iter().map(|p| port(Some(p.name), p.protocol, p.port)).collect(),
            internal_traffic_policy: match spec.internal_traffic_policy {
                Some(TrafficPolicy::Local) => InternalTrafficPolicy::Local,
                Some(TrafficPolicy::Cluster) | None => InternalTrafficPolicy::Cluster,
            },
            publish_not_ready: spec.publish_not_ready_addresses,
            client_ip_seconds: (spec.session_affinity == Some(SessionAffinity::ClientIP))
                .then(|| timeout.unwrap_or(CLIENT_IP_SECONDS)),
        }
    }
}

pub(super) fn port(name: Option<SmolStr>, protocol: Option<ProtocolName>, number: u16) -> Port {
    Port { name: name.unwrap_or_default(), protocol: protocol.map_or(Protocol::Tcp, |p| p.0), number }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EndpointSlice {
    metadata: Metadata,
    address_type: AddressType,
    #[serde(default, deserialize_with = "or_default")]
    endpoints: Vec<SliceEndpoint>,
    #[serde(default, deserialize_with = "or_default")]
    ports: Vec<SlicePort>,
}

#[derive(Clone, Copy, Deserialize)]
enum AddressType {
    IPv4,
    IPv6,
    #[serde(rename = "FQDN")]
    Fqdn,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SliceEndpoint {
    #[serde(default, deserialize_with = "or_default")]
    addresses: Vec<EndpointAddress>,
    #[serde(default, deserialize_with = "or_default")]
    conditions: ConditionsShape,
    #[serde(default)]
    hostname: Option<SmolStr>,
    #[serde(default)]
    node_name: Option<SmolStr>,
    #[serde(default)]
    zone: Option<SmolStr>,
    #[serde(default, deserialize_with = "or_default")]
    hints: Hints,
}

/// An endpoint's address: an IP, or a name in an FQDN slice, which the mesh does not carry.
#[derive(Deserialize)]
#[serde(try_from = "SmolStr")]
enum EndpointAddress {
    Ip(Addr),
    Name,
}

impl TryFrom<SmolStr> for EndpointAddress {
    type Error = String;

    fn try_from(text: SmolStr) -> Result<Self, String> {
        // A name needs a letter beyond `f` or none at all of an address's punctuation; digits and dots alone are a typo.
        let looks_like_ip = text.contains(':') || text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        match text.parse::<IpAddr>() {
            Ok(ip) => Ok(Self::Ip(ip.into())),
            Err(_) if !looks_like_ip && text.contains('.') => Ok(Self::Name),
            Err(_) => Err(format!("{text:?} is no IP address")),
        }
    }
}

#[derive(Default, Deserialize)]
struct ConditionsShape {
    #[serde(default)]
    ready: Option<bool>,
    #[serde(default)]
    serving: Option<bool>,
    #[serde(default)]
    terminating: Option<bool>,
}

#[derive(Default, Deserialize)]
struct Hints {
    #[serde(default, rename = "forZones", deserialize_with = "or_default")]
    for_zones: Vec<ZoneName>,
}

#[derive(Deserialize)]
struct ZoneName {
    name: SmolStr,
}

#[derive(Deserialize)]
struct SlicePort {
    #[serde(default)]
    name: Option<SmolStr>,
    #[serde(default)]
    protocol: Option<ProtocolName>,
    #[serde(default)]
    port: Option<u16>,
}

impl EndpointSlice {
    /// The slice, or nothing when its addresses are names. A port without a number means every port to Kubernetes;
    /// no record can say so, and it is left out. So are addresses of another family than the slice's.
    pub(super) fn into_object(self) -> Option<SliceObject> {
        let family = match self.address_type {
            AddressType::IPv4 => Family::V4,
            AddressType::IPv6 => Family::V6,
            AddressType::Fqdn => return None,
        };
        let ports = self.ports.into_iter().filter_map(|p| Some(port(p.name, p.protocol, p.port?))).collect();
        Some(SliceObject {
            namespace: self.metadata.namespace(),
            name: self.metadata.name.0,
            labels: self.metadata.labels,
            annotations: self.metadata.annotations,
            family,
            endpoints: self.endpoints.into_iter().map(|e| e.into_object(family)).collect(),
            ports,
        })
    }
}

impl SliceEndpoint {
    fn into_object(self, family: Family) -> EndpointObject {
        let of_family = |a: EndpointAddress| match a {
            EndpointAddress::Ip(addr) if addr.family() == family => Some(addr),
            _ => None,
        };
        let ConditionsShape { ready, serving, terminating } = self.conditions;
        EndpointObject {
            addresses: self.addresses.into_iter().filter_map(of_family).collect(),
            conditions: Conditions { ready, serving, terminating },
            hostname: self.hostname,
            node: self.node_name,
            zone: self.zone,
            hints: self.hints.for_zones.into_iter().map(|z| z.name).collect(),
        }
    }
}

#[derive(Deserialize)]
pub(super) struct Namespace {
    metadata: Metadata,
}

impl From<Namespace> for NamespaceObject {
    fn from(namespace: Namespace) -> Self {
        let Metadata { name, labels, annotations, .. } = namespace.metadata;
        Self { name: name.0, labels, annotations }
    }
}

#[derive(Deserialize)]
pub(super) struct Node {
    metadata: Metadata,
    #[serde(default, deserialize_with = "or_default")]
    spec: NodeSpec,
    #[serde(default, deserialize_with = "or_default")]
    status: NodeStatus,
}

#[derive(Default, Deserialize)]
struct NodeSpec {
    #[serde(default, rename = "podCIDR")]
    pod_cidr: Option<Cidr>,
    #[serde(default, rename = "podCIDRs", deserialize_with = "or_default")]
    pod_cidrs: Vec<Cidr>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "SmolStr")]
pub(super) struct Cidr(pub(super) IpNet);

impl TryFrom<SmolStr> for Cidr {
    type Error = String;

    fn try_from(text: SmolStr) -> Result<Self, String> {
        text.parse().map(Self).map_err(|_| format!("{text:?} is no CIDR"))
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct NodeStatus {
    #[serde(default, deserialize_with = "or_default")]
    addresses: Vec<NodeAddress>,
    #[serde(default, deserialize_with = "or_default")]
    node_info: NodeInfo,
}

#[derive(Deserialize)]
struct NodeAddress {
    #[serde(rename = "type")]
    type_: SmolStr,
    address: SmolStr,
}

#[derive(Default, Deserialize)]
struct NodeInfo {
    #[serde(default, rename = "bootID", deserialize_with = "or_default")]
    boot_id: String,
}

impl From<Node> for NodeObject {
    fn from(node: Node) -> Self {
        let Node { metadata, spec, status } = node;
        let cidrs = match spec.pod_cidrs.is_empty() {
            true => spec.pod_cidr.into_iter().collect(),
            false => spec.pod_cidrs,
        };
        // Host names stand in the same list; the mesh uses addresses alone.
        let address = |a: NodeAddress| Some((a.type_, a.address.parse().ok()?));
        let labels: Labels = metadata.labels;
        Self {
            name: metadata.name.0,
            labels,
            annotations: metadata.annotations,
            addresses: status.addresses.into_iter().filter_map(address).collect(),
            pod_cidrs: cidrs.into_iter().map(|c| c.0).collect(),
            boot_id: status.node_info.boot_id,
        }
    }
}
