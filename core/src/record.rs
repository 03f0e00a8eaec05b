//! A peer's records as decoded values: what the record says, not yet admitted.
//!
//! Shapes follow Cilium ClusterMesh 1.20; the bytes are `tombolo-wire`'s. Address texts stay text where the writer's
//! spelling must survive a round trip, and are parsed by admission.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use smol_str::SmolStr;

use crate::id::{Addr, Family, ServiceKey};
use crate::model::Conditions;
use crate::object::Labels;

/// A port of a record as written: its protocol text is not checked, its number may be 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawPort {
    /// `TCP`, `UDP`, `SCTP`, or whatever the writer wrote.
    pub protocol: String,
    /// The number.
    pub port: u16,
}

/// Ports by name.
pub type PortMap = BTreeMap<String, RawPort>;

/// Zone and hints of one backend of a legacy record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ZoneHints {
    /// The backend's zone.
    pub zone: String,
    /// The zones it is meant for; `None` is JSON's null.
    pub for_zones: Option<Vec<String>>,
}

/// `cilium/state/services/v1/<cluster>/<ns>/<name>`: a whole service in one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceRecord {
    /// The cluster that wrote it.
    pub cluster: String,
    /// That cluster's id.
    pub cluster_id: u32,
    /// Namespace and name.
    pub key: ServiceKey,
    /// Cluster IPs with their ports, by address text. Never used by a reader of ours.
    pub frontends: BTreeMap<String, PortMap>,
    /// Endpoints with their ports, by address text.
    pub backends: BTreeMap<String, PortMap>,
    /// Host names of endpoints (headless services), by address text.
    pub hostnames: BTreeMap<String, String>,
    /// Zones and hints, by address text.
    pub zones: BTreeMap<String, ZoneHints>,
    /// The Service's labels.
    pub labels: Labels,
    /// The Service's selector.
    pub selector: Labels,
    /// Always true in practice.
    pub include_external: bool,
    /// False means deleted.
    pub shared: bool,
}

/// `cilium/state/endpointslices/v1/<cluster>/<ns>/<slice>`: one EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceRecord {
    /// The cluster that wrote it.
    pub cluster: String,
    /// That cluster's id.
    pub cluster_id: u32,
    /// The namespace.
    pub namespace: SmolStr,
    /// The slice's own name.
    pub name: SmolStr,
    /// Labels; `kubernetes.io/service-name` names the Service.
    pub labels: Labels,
    /// Annotations; `service.cilium.io/weight` is the one that counts.
    pub annotations: Labels,
    /// The family of its addresses.
    pub family: Family,
    /// All endpoints, also those not ready.
    pub endpoints: Vec<SliceEndpoint>,
    /// Ports with names, in the writer's order.
    pub ports: Vec<SlicePort>,
}

/// One endpoint of a slice record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SliceEndpoint {
    /// Address texts, valid and of the slice's family.
    pub addresses: Vec<String>,
    /// Conditions as written.
    pub conditions: Conditions,
    /// Host name.
    pub hostname: Option<String>,
    /// The node it runs on.
    pub node_name: Option<String>,
    /// Its zone.
    pub zone: Option<String>,
    /// `hints.forZones`.
    pub for_zones: Vec<String>,
}

/// One port of a slice record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlicePort {
    /// Its name, `""` when unnamed.
    pub name: String,
    /// Its protocol text; absent means TCP to Kubernetes.
    pub protocol: Option<String>,
    /// Its number; absent means all ports, which no mesh can carry.
    pub port: Option<i32>,
    /// `appProtocol`.
    pub app_protocol: Option<String>,
}

/// An address range of a node record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawCidr {
    /// The network's address text.
    pub ip: String,
    /// The prefix length.
    pub prefix_len: u8,
}

/// `cilium/state/nodes/v1/<cluster>/<node>`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeRecord {
    /// The node's name.
    pub name: String,
    /// The cluster that wrote it.
    pub cluster: String,
    /// That cluster's id.
    pub cluster_id: u32,
    /// Type (`InternalIP`, …) and address text.
    pub addresses: Vec<(String, String)>,
    /// The primary pod range.
    pub ipv4_cidr: Option<RawCidr>,
    /// The primary pod range, IPv6.
    pub ipv6_cidr: Option<RawCidr>,
    /// Further pod ranges.
    pub ipv4_secondary_cidrs: Vec<RawCidr>,
    /// Further pod ranges, IPv6.
    pub ipv6_secondary_cidrs: Vec<RawCidr>,
    /// Health and ingress addresses, `""` when unset: IPv4 health, IPv6 health, IPv4 ingress, IPv6 ingress.
    pub extra_ips: [String; 4],
    /// Who wrote it, `custom-resource` from an apiserver.
    pub source: String,
    /// IPsec key index, 0 = none.
    pub encryption_key: u8,
    /// Labels; `None` is JSON's null.
    pub labels: Option<Labels>,
    /// Annotations; `None` is JSON's null.
    pub annotations: Option<Labels>,
    /// WireGuard key, base64, or `""`.
    pub wireguard_key: String,
    /// The kernel's boot id.
    pub boot_id: String,
}

/// One label of an identity.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdentityLabel {
    /// Who set it: `k8s` for all that comes from Kubernetes; `unspec` when the writer did not say.
    pub source: SmolStr,
    /// The key.
    pub key: SmolStr,
    /// The value.
    pub value: SmolStr,
}

/// `cilium/state/identities/v1/id/<number>`: the labels behind a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityRecord {
    /// The number, which the key says alone.
    pub number: u32,
    /// The labels in the writer's order.
    pub labels: Vec<IdentityLabel>,
}

/// `cilium/state/ip/v1/default/<ip>` or `…/<ip>/<length>`: whose an address is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpRecord {
    /// The address.
    pub ip: Addr,
    /// The length of the prefix it stands for; `None` for an address alone, whose key has no length.
    pub prefix_len: Option<u8>,
    /// The address of the node that carries it.
    pub host_ip: Option<Addr>,
    /// The identity's number.
    pub identity: u32,
    /// IPsec key index of the node, 0 = none.
    pub encryption_key: u8,
    /// Normally empty.
    pub metadata: String,
    /// The Pod's namespace, `""` when it is no Pod's.
    pub namespace: SmolStr,
    /// The Pod's name.
    pub pod: SmolStr,
    /// The Pod's service account.
    pub service_account: SmolStr,
    /// The Pod's named ports, in the writer's order.
    pub named_ports: Vec<NamedPort>,
}

/// A named port of an ip record; its protocol text is not checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedPort {
    /// The name.
    pub name: SmolStr,
    /// The number.
    pub port: u16,
    /// The protocol.
    pub protocol: SmolStr,
}

/// Which service records a cluster writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExportMode {
    /// `""`: services only (Cilium before 1.20).
    #[default]
    ServicesOnly,
    /// `services-and-endpointslices`.
    Both,
    /// `endpointslices-only`.
    SlicesOnly,
}

/// `cilium/cluster-config/<cluster>`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterConfig {
    /// The cluster's id; 0 when absent, which is invalid.
    pub id: u32,
    /// Canaries are written.
    pub synced_canaries: bool,
    /// The data is under `cilium/cache/`.
    pub cached: bool,
    /// 255 or 511; 0 when absent.
    pub max_connected_clusters: u32,
    /// `None`: the cluster knows nothing of MCS.
    pub service_exports_enabled: Option<bool>,
    /// Which service records it writes.
    pub export_mode: ExportMode,
}

/// A decoded record of any kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A legacy service.
    Service(ServiceRecord),
    /// An endpoint slice.
    Slice(SliceRecord),
    /// A node.
    Node(NodeRecord),
    /// An identity.
    Identity(IdentityRecord),
    /// An address.
    Ip(IpRecord),
}
