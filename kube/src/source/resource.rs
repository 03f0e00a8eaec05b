//! What is watched: one line each.

use smol_str::SmolStr;
use tombolo_core::id::ServiceKey;
use tombolo_core::object::{ObjectKey, PodKey};
use tombolo_source::manifest::Kind;

use super::decode::Name;

/// One resource of the API, in all namespaces.
#[derive(Debug)]
pub(super) struct Resource {
    /// Its plural name, as faults and RBAC call it.
    pub(super) name: &'static str,
    /// The path of its collection.
    pub(super) path: &'static str,
    /// How its objects are read.
    pub(super) kind: Kind,
    /// What the mesh calls one of them; nothing for a name that none of them can have.
    pub(super) key: fn(&Name) -> Option<ObjectKey>,
    pub(super) presence: Presence,
}

/// When a resource is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    /// In every API server.
    Always,
    /// While there is a CustomResourceDefinition of this name.
    Defined(&'static str),
}

/// The definitions of custom resources; of them only the names are read.
pub(super) const DEFINITIONS: Resource =
    always("customresourcedefinitions", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", Kind::Other, |_| {
        None
    });

/// Everything that is watched.
pub(super) const RESOURCES: &[Resource] = &[
    DEFINITIONS,
    always("namespaces", "/api/v1/namespaces", Kind::Namespace, namespace),
    always("nodes", "/api/v1/nodes", Kind::Node, node),
    always("services", "/api/v1/services", Kind::Service, service),
    always("endpointslices", "/apis/discovery.k8s.io/v1/endpointslices", Kind::Slice, slice),
    always("pods", "/api/v1/pods", Kind::Pod, pod),
    cilium("ciliumnodes", "ciliumnodes.cilium.io", "/apis/cilium.io/v2/ciliumnodes", Kind::CiliumNode, cilium_node),
    cilium(
        "ciliumidentities",
        "ciliumidentities.cilium.io",
        "/apis/cilium.io/v2/ciliumidentities",
        Kind::CiliumIdentity,
        cilium_identity,
    ),
    cilium(
        "ciliumendpoints",
        "ciliumendpoints.cilium.io",
        "/apis/cilium.io/v2/ciliumendpoints",
        Kind::CiliumEndpoint,
        cilium_endpoint,
    ),
    cilium(
        "ciliumendpointslices",
        "ciliumendpointslices.cilium.io",
        "/apis/cilium.io/v2alpha1/ciliumendpointslices",
        Kind::CiliumEndpointSlice,
        cilium_endpoint_slice,
    ),
];

type Key = fn(&Name) -> Option<ObjectKey>;

const fn always(name: &'static str, path: &'static str, kind: Kind, key: Key) -> Resource {
    Resource { name, path, kind, key, presence: Presence::Always }
}

const fn cilium(name: &'static str, definition: &'static str, path: &'static str, kind: Kind, key: Key) -> Resource {
    Resource { name, path, kind, key, presence: Presence::Defined(definition) }
}

fn namespace(name: &Name) -> Option<ObjectKey> {
    Some(ObjectKey::Namespace(name.name.clone()))
}

fn node(name: &Name) -> Option<ObjectKey> {
    Some(ObjectKey::Node(name.name.clone()))
}

fn service(name: &Name) -> Option<ObjectKey> {
    Some(ObjectKey::Service(ServiceKey::new(in_namespace(name), name.name.clone())))
}

fn slice(name: &Name) -> Option<ObjectKey> {
    Some(ObjectKey::Slice { namespace: in_namespace(name), name: name.name.clone() })
}

fn pod(name: &Name) -> Option<ObjectKey> {
    Some(ObjectKey::Pod(PodKey { namespace: in_namespace(name), name: name.name.clone() }))
}

fn cilium_node(name: &Name) -> Option<ObjectKey> {
    Some(ObjectKey::CiliumNode(name.name.clone()))
}

/// A CiliumIdentity's name is its number.
fn cilium_identity(name: &Name) -> Option<ObjectKey> {
    name.name.parse().ok().map(ObjectKey::CiliumIdentity)
}

fn cilium_endpoint(name: &Name) -> Option<ObjectKey> {
    Some(ObjectKey::CiliumEndpoint(PodKey { namespace: in_namespace(name), name: name.name.clone() }))
}

fn cilium_endpoint_slice(name: &Name) -> Option<ObjectKey> {
    Some(ObjectKey::CiliumEndpointSlice(name.name.clone()))
}

/// As the shapes read it.
fn in_namespace(name: &Name) -> SmolStr {
    name.namespace.clone().unwrap_or_else(|| SmolStr::new_static("default"))
}
