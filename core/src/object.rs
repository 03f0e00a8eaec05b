//! Kubernetes objects, reduced to what the mesh uses. A source yields them; export and admission read them.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use ipnet::IpNet;
use smol_str::SmolStr;

use crate::id::{Addr, Family, ServiceKey};
use crate::model::{Conditions, InternalTrafficPolicy, Port};

/// Labels or annotations.
pub type Labels = BTreeMap<SmolStr, String>;

/// One object of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// `v1` Service.
    Service(ServiceObject),
    /// `discovery.k8s.io/v1` EndpointSlice.
    Slice(SliceObject),
    /// `v1` Namespace.
    Namespace(NamespaceObject),
    /// `v1` Node.
    Node(NodeObject),
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
}

impl Object {
    /// The object's name.
    pub fn key(&self) -> ObjectKey {
        match self {
            Self::Service(s) => ObjectKey::Service(s.key.clone()),
            Self::Slice(s) => ObjectKey::Slice { namespace: s.namespace.clone(), name: s.name.clone() },
            Self::Namespace(n) => ObjectKey::Namespace(n.name.clone()),
            Self::Node(n) => ObjectKey::Node(n.name.clone()),
        }
    }
}

/// What kind of address a Service has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceKind {
    /// One or two cluster IPs (types ClusterIP, NodePort, LoadBalancer).
    ClusterIp,
    /// `clusterIP: None`, or the label `service.kubernetes.io/headless`.
    Headless,
    /// A DNS name: never part of the mesh.
    ExternalName,
}

/// A Service.
#[derive(Clone, Debug, PartialEq, Eq)]
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
#[derive(Clone, Debug, PartialEq, Eq)]
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
#[derive(Clone, Debug, PartialEq, Eq)]
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceObject {
    /// Its name.
    pub name: SmolStr,
    /// All annotations; `clustermesh.cilium.io/global` is the one that counts.
    pub annotations: Labels,
}

/// A Node.
#[derive(Clone, Debug, PartialEq, Eq)]
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
