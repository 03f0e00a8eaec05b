//! What is watched: one line each.

use smol_str::SmolStr;
use tombolo_core::id::ServiceKey;
use tombolo_core::object::ObjectKey;
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
    /// What the mesh calls one of them.
    pub(super) key: fn(&Name) -> ObjectKey,
}

/// The resources that every API server has.
pub(super) const BUILT_IN: &[Resource] = &[
    Resource { name: "namespaces", path: "/api/v1/namespaces", kind: Kind::Namespace, key: namespace },
    Resource { name: "nodes", path: "/api/v1/nodes", kind: Kind::Node, key: node },
    Resource { name: "services", path: "/api/v1/services", kind: Kind::Service, key: service },
    Resource {
        name: "endpointslices",
        path: "/apis/discovery.k8s.io/v1/endpointslices",
        kind: Kind::Slice,
        key: slice,
    },
];

fn namespace(name: &Name) -> ObjectKey {
    ObjectKey::Namespace(name.name.clone())
}

fn node(name: &Name) -> ObjectKey {
    ObjectKey::Node(name.name.clone())
}

fn service(name: &Name) -> ObjectKey {
    ObjectKey::Service(ServiceKey::new(in_namespace(name), name.name.clone()))
}

fn slice(name: &Name) -> ObjectKey {
    ObjectKey::Slice { namespace: in_namespace(name), name: name.name.clone() }
}

/// As the shapes read it.
fn in_namespace(name: &Name) -> SmolStr {
    name.namespace.clone().unwrap_or_else(|| SmolStr::new_static("default"))
}
