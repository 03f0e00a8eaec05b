//! Kubernetes objects, reduced to what the mesh uses. A source yields them; export and admission read them.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use ipnet::IpNet;
use smol_str::SmolStr;

use crate::id::{Addr, Family, ServiceKey};
use crate::model::{Conditions, InternalTrafficPolicy, Port};
use crate::record::IdentityLabel;

/// Labels or annotations.
pub type Labels = BTreeMap<SmolStr, String>;

/// One object of a source.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Object {
    /// `v1` Service.
    Service(ServiceObject),
    /// `discovery.k8s.io/v1` EndpointSlice.
    Slice(SliceObject),
    /// `v1` Namespace.
    Namespace(NamespaceObject),
    /// `v1` Node.
    Node(NodeObject),
    /// `v1` Pod.
    Pod(PodObject),
    /// `cilium.io/v2` CiliumNode.
    CiliumNode(CiliumNodeObject),
    /// `cilium.io/v2` CiliumIdentity.
    CiliumIdentity(CiliumIdentityObject),
    /// `cilium.io/v2` CiliumEndpoint.
    CiliumEndpoint(CiliumEndpointObject),
    /// `cilium.io/v2alpha1` CiliumEndpointSlice.
    CiliumEndpointSlice(CiliumEndpointSliceObject),
}

/// The name of one object of a source.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectKey {
    /// A Service.
    Service(ServiceKey),
    /// An EndpointSlice: its namespace and its own name.
    Slice {
        /// The namespace.
        namespace: SmolStr,
        /// The slice's name.
        name: SmolStr,
    },
    /// A Namespace.
    Namespace(SmolStr),
    /// A Node.
    Node(SmolStr),
    /// A Pod.
    Pod(PodKey),
    /// A CiliumNode.
    CiliumNode(SmolStr),
    /// A CiliumIdentity, whose name is its number.
    CiliumIdentity(u32),
    /// A CiliumEndpoint, which has its Pod's name.
    CiliumEndpoint(PodKey),
    /// A CiliumEndpointSlice; it has no namespace of its own.
    CiliumEndpointSlice(SmolStr),
}

/// The namespace and name of a Pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodKey {
    /// The namespace.
    pub namespace: SmolStr,
    /// The Pod's name.
    pub name: SmolStr,
}

impl fmt::Display for PodKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl Object {
    /// The object's name.
    pub fn key(&self) -> ObjectKey {
        match self {
            Self::Service(s) => ObjectKey::Service(s.key.clone()),
            Self::Slice(s) => ObjectKey::Slice { namespace: s.namespace.clone(), name: s.name.clone() },
            Self::Namespace(n) => ObjectKey::Namespace(n.name.clone()),
            Self::Node(n) => ObjectKey::Node(n.name.clone()),
            Self::Pod(p) => ObjectKey::Pod(p.key.clone()),
            Self::CiliumNode(n) => ObjectKey::CiliumNode(n.name.clone()),
            Self::CiliumIdentity(i) => ObjectKey::CiliumIdentity(i.number),
            Self::CiliumEndpoint(e) => ObjectKey::CiliumEndpoint(e.key()),
            Self::CiliumEndpointSlice(s) => ObjectKey::CiliumEndpointSlice(s.name.clone()),
        }
    }
}

/// What kind of address a Service has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ServiceKind {
    /// One or two cluster IPs (types ClusterIP, NodePort, LoadBalancer).
    ClusterIp,
    /// `clusterIP: None`, or the label `service.kubernetes.io/headless`.
    Headless,
    /// A DNS name: never part of the mesh.
    ExternalName,
}

/// A Service.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServiceObject {
    /// Namespace and name.
    pub key: ServiceKey,
    /// All annotations.
    pub annotations: Labels,
    /// All labels.
    pub labels: Labels,
    /// The selector, empty when there is none.
    pub selector: Labels,
    /// What kind of address it has.
    pub kind: ServiceKind,
    /// Its cluster IPs; none when headless.
    pub cluster_ips: Vec<Addr>,
    /// Its ports with the numbers clients dial.
    pub ports: Vec<Port>,
    /// `internalTrafficPolicy`.
    pub internal_traffic_policy: InternalTrafficPolicy,
    /// `publishNotReadyAddresses`.
    pub publish_not_ready: bool,
    /// `sessionAffinity: ClientIP`, its timeout in seconds (10,800 when not given).
    pub client_ip_seconds: Option<u32>,
}

/// An EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SliceObject {
    /// The namespace.
    pub namespace: SmolStr,
    /// The slice's own name.
    pub name: SmolStr,
    /// All labels; `kubernetes.io/service-name` names its Service.
    pub labels: Labels,
    /// All annotations.
    pub annotations: Labels,
    /// The family of its addresses.
    pub family: Family,
    /// Its endpoints.
    pub endpoints: Vec<EndpointObject>,
    /// Its ports.
    pub ports: Vec<Port>,
}

/// One endpoint of an EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EndpointObject {
    /// Its addresses; the first is the one used.
    pub addresses: Vec<Addr>,
    /// Its conditions.
    pub conditions: Conditions,
    /// `hostname`, for headless services.
    pub hostname: Option<SmolStr>,
    /// The node it runs on.
    pub node: Option<SmolStr>,
    /// Its zone.
    pub zone: Option<SmolStr>,
    /// `hints.forZones`.
    pub hints: Vec<SmolStr>,
}

/// A Namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NamespaceObject {
    /// Its name.
    pub name: SmolStr,
    /// All labels: they are part of the identity of its Pods.
    pub labels: Labels,
    /// All annotations; `clustermesh.cilium.io/global` is the one that counts.
    pub annotations: Labels,
}

/// A Node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NodeObject {
    /// Its name.
    pub name: SmolStr,
    /// All labels; `topology.kubernetes.io/zone` is its zone.
    pub labels: Labels,
    /// All annotations.
    pub annotations: Labels,
    /// `status.addresses`, those that are IPs: type and address.
    pub addresses: Vec<(SmolStr, Addr)>,
    /// `spec.podCIDRs`.
    pub pod_cidrs: Vec<IpNet>,
    /// `status.nodeInfo.bootID`.
    pub boot_id: String,
}

/// A Pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PodObject {
    /// Namespace and name.
    pub key: PodKey,
    /// All labels.
    pub labels: Labels,
    /// `spec.serviceAccountName`, `default` when not given.
    pub service_account: SmolStr,
    /// `spec.hostNetwork`: its addresses are its Node's.
    pub host_network: bool,
    /// `status.phase`.
    pub phase: PodPhase,
    /// `status.podIPs`.
    pub ips: Vec<Addr>,
    /// `status.hostIP`: its Node's address.
    pub host_ip: Option<Addr>,
    /// The named ports of its containers.
    pub named_ports: Vec<Port>,
}

/// How far a Pod is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PodPhase {
    /// Accepted, not all of its containers were started.
    #[default]
    Pending,
    /// At least one container runs or is restarted.
    Running,
    /// All containers ended well: its addresses are free.
    Succeeded,
    /// All containers ended, not all well: its addresses are free.
    Failed,
    /// Its Node does not answer.
    Unknown,
}

impl PodPhase {
    /// Whether it has ended, and has given its addresses back.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

/// A Node as Cilium's agent on it describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct CiliumNodeObject {
    /// Its name, the Node's.
    pub name: SmolStr,
    /// All labels.
    pub labels: Labels,
    /// All annotations.
    pub annotations: Labels,
    /// `spec.addresses`, those that are IPs: type and address.
    pub addresses: Vec<(SmolStr, Addr)>,
    /// `spec.ipam.podCIDRs`, then the ranges of `spec.ipam.pools.allocated`.
    pub pod_cidrs: Vec<IpNet>,
    /// `spec.bootid`.
    pub boot_id: String,
    /// `spec.encryption.key`: IPsec key index, 0 = none.
    pub encryption_key: u8,
    /// `spec.health.ipv4`, `spec.health.ipv6`, `spec.ingress.ipv4`, `spec.ingress.ipv6`.
    pub extra_ips: [Option<Addr>; 4],
}

/// A set of labels and its number.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CiliumIdentityObject {
    /// The object's name.
    pub number: u32,
    /// `security-labels`.
    pub labels: Vec<IdentityLabel>,
}

/// A Pod's addresses and identity.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CiliumEndpointObject {
    /// The namespace.
    pub namespace: SmolStr,
    /// What it says.
    pub endpoint: CiliumEndpointSpec,
}

impl CiliumEndpointObject {
    /// Its Pod's name.
    pub fn key(&self) -> PodKey {
        PodKey { namespace: self.namespace.clone(), name: self.endpoint.pod.clone() }
    }
}

/// Several Pods of one namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CiliumEndpointSliceObject {
    /// The object's name.
    pub name: SmolStr,
    /// The namespace of its Pods.
    pub namespace: SmolStr,
    /// Its Pods.
    pub endpoints: Vec<CiliumEndpointSpec>,
}

/// What a CiliumEndpoint, or an entry of a CiliumEndpointSlice, says of a Pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct CiliumEndpointSpec {
    /// The Pod's name.
    pub pod: SmolStr,
    /// Its identity's number; 0 when it has none yet.
    pub identity: u32,
    /// Its addresses.
    pub ips: Vec<Addr>,
    /// Its Node's address.
    pub host_ip: Option<Addr>,
    /// IPsec key index of its Node, 0 = none.
    pub encryption_key: u8,
    /// Its service account; empty when not given.
    pub service_account: SmolStr,
    /// Its named ports, in the object's order.
    pub named_ports: Vec<Port>,
}

/// What a source says, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceEvent {
    /// The object is as given.
    Upsert(Object),
    /// The object was removed.
    Delete(ObjectKey),
    /// The first complete set has been said: what was not said does not exist. Once per source.
    Complete,
    /// Something cannot be read; what it last said stays. Replaces the last fault of the same place.
    Fault(Fault),
    /// The fault of that place is mended.
    Mended {
        /// The place of the fault, as it was given.
        place: String,
    },
}

/// Bad input with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What identifies it: a file with its document number, or the watched resource.
    pub place: String,
    /// Line, key and field, and what is wrong there, for a person.
    pub message: String,
}
