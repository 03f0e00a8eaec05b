//! The parts of Cilium's own objects that the mesh reads.
//!
//! Where a cluster runs Cilium, they say its nodes, identities and addresses. Source: Cilium `pkg/k8s/apis/cilium.io`.

use std::collections::BTreeMap;

use serde::Deserialize;
use smol_str::SmolStr;
use tombolo_core::id::Addr;
use tombolo_core::object::{
    CiliumEndpointObject, CiliumEndpointSliceObject, CiliumEndpointSpec, CiliumIdentityObject, CiliumNodeObject,
};
use tombolo_core::record::IdentityLabel;

use super::pod::MaybeAddress;
use super::shape::{Cidr, Metadata, Name, ProtocolName, or_default, port};

/// What Cilium calls a label of which nobody said where it comes from.
const UNSPECIFIED: &str = "unspec";

#[derive(Deserialize)]
pub(super) struct Node {
    metadata: Metadata,
    #[serde(default, deserialize_with = "or_default")]
    spec: NodeSpec,
}

#[derive(Default, Deserialize)]
struct NodeSpec {
    #[serde(default, deserialize_with = "or_default")]
    addresses: Vec<NodeAddress>,
    #[serde(default, rename = "bootid", deserialize_with = "or_default")]
    boot_id: String,
    #[serde(default, deserialize_with = "or_default")]
    encryption: Encryption,
    #[serde(default, deserialize_with = "or_default")]
    health: Pair,
    #[serde(default, deserialize_with = "or_default")]
    ingress: Pair,
    #[serde(default, deserialize_with = "or_default")]
    ipam: Ipam,
}

#[derive(Deserialize)]
struct NodeAddress {
    #[serde(rename = "type")]
    type_: SmolStr,
    ip: SmolStr,
}

#[derive(Clone, Copy, Default, Deserialize)]
struct Encryption {
    #[serde(default, deserialize_with = "or_default")]
    key: u8,
}

/// An address of each family.
#[derive(Clone, Copy, Default, Deserialize)]
struct Pair {
    #[serde(default, deserialize_with = "or_default")]
    ipv4: MaybeAddress,
    #[serde(default, deserialize_with = "or_default")]
    ipv6: MaybeAddress,
}

impl Pair {
    fn both(self) -> [Option<Addr>; 2] {
        [self.ipv4, self.ipv6].map(|address| address.0.map(|address| address.0.into()))
    }
}

#[derive(Default, Deserialize)]
struct Ipam {
    #[serde(default, rename = "podCIDRs", deserialize_with = "or_default")]
    pod_cidrs: Vec<Cidr>,
    #[serde(default, deserialize_with = "or_default")]
    pools: Pools,
}

#[derive(Default, Deserialize)]
struct Pools {
    #[serde(default, deserialize_with = "or_default")]
    allocated: Vec<Pool>,
}

#[derive(Deserialize)]
struct Pool {
    #[serde(default, deserialize_with = "or_default")]
    cidrs: Vec<Cidr>,
}

impl From<Node> for CiliumNodeObject {
    fn from(node: Node) -> Self {
        let Node { metadata, spec } = node;
        let pools = spec.ipam.pools.allocated.into_iter().flat_map(|pool| pool.cidrs);
        let [ipv4_health, ipv6_health] = spec.health.both();
        let [ipv4_ingress, ipv6_ingress] = spec.ingress.both();
        // Host names stand in the same list; the mesh uses addresses alone.
        let address = |a: NodeAddress| Some((a.type_, a.ip.parse().ok()?));
        Self {
            name: metadata.name.0,
            labels: metadata.labels,
            annotations: metadata.annotations,
            addresses: spec.addresses.into_iter().filter_map(address).collect(),
            pod_cidrs: spec.ipam.pod_cidrs.into_iter().chain(pools).map(|cidr| cidr.0).collect(),
            boot_id: spec.boot_id,
            encryption_key: spec.encryption.key,
            extra_ips: [ipv4_health, ipv6_health, ipv4_ingress, ipv6_ingress],
        }
    }
}

#[derive(Deserialize)]
pub(super) struct Identity {
    metadata: IdentityMetadata,
    #[serde(default, rename = "security-labels", deserialize_with = "or_default")]
    labels: BTreeMap<SmolStr, SmolStr>,
}

#[derive(Deserialize)]
struct IdentityMetadata {
    name: Number,
}

/// A name that is a number.
#[derive(Deserialize)]
#[serde(try_from = "SmolStr")]
struct Number(u32);

impl TryFrom<SmolStr> for Number {
    type Error = String;

    fn try_from(text: SmolStr) -> Result<Self, String> {
        let digits = text.bytes().all(|b| b.is_ascii_digit());
        let number = text.parse().ok().filter(|_| digits);
        number.map(Self).ok_or_else(|| format!("{text:?} is no identity's number"))
    }
}

impl From<Identity> for CiliumIdentityObject {
    fn from(identity: Identity) -> Self {
        let label = |(text, value): (SmolStr, SmolStr)| {
            let (source, key) = text.split_once(':').unwrap_or((UNSPECIFIED, text.as_str()));
            IdentityLabel { source: source.into(), key: key.into(), value }
        };
        let mut labels: Vec<IdentityLabel> = identity.labels.into_iter().map(label).collect();
        labels.sort_by(|a, b| (&a.key, &a.source).cmp(&(&b.key, &b.source)));
        Self { number: identity.metadata.name.0, labels }
    }
}

#[derive(Deserialize)]
pub(super) struct Endpoint {
    metadata: Metadata,
    #[serde(default, deserialize_with = "or_default")]
    status: EndpointStatus,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct EndpointStatus {
    #[serde(default, deserialize_with = "or_default")]
    identity: IdentityNumber,
    #[serde(default, deserialize_with = "or_default")]
    networking: Networking,
    #[serde(default, deserialize_with = "or_default")]
    service_account: SmolStr,
    #[serde(default, deserialize_with = "or_default")]
    encryption: Encryption,
    #[serde(default, deserialize_with = "or_default")]
    named_ports: Vec<NamedPort>,
}

#[derive(Clone, Copy, Default, Deserialize)]
struct IdentityNumber {
    #[serde(default, deserialize_with = "or_default")]
    id: u32,
}

#[derive(Default, Deserialize)]
struct Networking {
    #[serde(default, deserialize_with = "or_default")]
    addressing: Vec<Pair>,
    #[serde(default, deserialize_with = "or_default")]
    node: MaybeAddress,
}

#[derive(Deserialize)]
struct NamedPort {
    #[serde(default, deserialize_with = "or_default")]
    name: SmolStr,
    port: u16,
    #[serde(default)]
    protocol: Option<ProtocolName>,
}

impl From<Endpoint> for CiliumEndpointObject {
    fn from(endpoint: Endpoint) -> Self {
        let Endpoint { metadata, status } = endpoint;
        let namespace = metadata.namespace();
        let endpoint = CiliumEndpointSpec {
            pod: metadata.name.0,
            identity: status.identity.id,
            service_account: status.service_account,
            encryption_key: status.encryption.key,
            named_ports: named_ports(status.named_ports),
            ..status.networking.into()
        };
        Self { namespace, endpoint }
    }
}

/// Its namespace stands beside its metadata: the object itself belongs to none.
#[derive(Deserialize)]
pub(super) struct EndpointSlice {
    metadata: Metadata,
    namespace: Name,
    #[serde(default, deserialize_with = "or_default")]
    endpoints: Vec<SliceEndpoint>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct SliceEndpoint {
    name: Name,
    #[serde(default, deserialize_with = "or_default")]
    id: u32,
    #[serde(default, deserialize_with = "or_default")]
    networking: Networking,
    #[serde(default, deserialize_with = "or_default")]
    service_account: SmolStr,
    #[serde(default, deserialize_with = "or_default")]
    encryption: Encryption,
    #[serde(default, deserialize_with = "or_default")]
    named_ports: Vec<NamedPort>,
}

impl From<EndpointSlice> for CiliumEndpointSliceObject {
    fn from(slice: EndpointSlice) -> Self {
        let endpoint = |endpoint: SliceEndpoint| CiliumEndpointSpec {
            pod: endpoint.name.0,
            identity: endpoint.id,
            service_account: endpoint.service_account,
            encryption_key: endpoint.encryption.key,
            named_ports: named_ports(endpoint.named_ports),
            ..endpoint.networking.into()
        };
        Self {
            name: slice.metadata.name.0,
            namespace: slice.namespace.0,
            endpoints: slice.endpoints.into_iter().map(endpoint).collect(),
        }
    }
}

impl From<Networking> for CiliumEndpointSpec {
    fn from(networking: Networking) -> Self {
        Self {
            ips: networking.addressing.into_iter().flat_map(Pair::both).flatten().collect(),
            host_ip: networking.node.0.map(|address| address.0.into()),
            ..Self::default()
        }
    }
}

fn named_ports(ports: Vec<NamedPort>) -> Vec<tombolo_core::model::Port> {
    ports.into_iter().map(|p| port(Some(p.name), p.protocol, p.port)).collect()
}
