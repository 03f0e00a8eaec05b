//! What a Service's annotations mean.
//!
//! Each cluster reads its own Service objects; a peer's annotations never travel. Keys, aliases and odd values follow
//! Cilium 1.20's `pkg/annotation`; a value that means nothing is a [`Warning`] and the default, never a guess.

use core::fmt;

use alloc::string::String;
use alloc::vec::Vec;

use crate::model::{Affinity, DEFAULT_WEIGHT, NoBackend, Policy, Reach};
use crate::object::{Labels, NamespaceObject, ServiceObject};

/// Makes a Service global: `true` in any case.
pub const GLOBAL: Key = Key { name: "service.cilium.io/global", alias: Some("io.cilium/global-service") };
/// Stops a global Service's export unless `true` in any case.
pub const SHARED: Key = Key { name: "service.cilium.io/shared", alias: Some("io.cilium/shared-service") };
/// `local`, `remote` or `none`, in any case.
pub const AFFINITY: Key = Key { name: "service.cilium.io/affinity", alias: Some("io.cilium/service-affinity") };
/// `refuse` or `pass`.
pub const NO_BACKEND: Key = Key { name: "tombolo.io/no-backend", alias: None };
/// On an EndpointSlice: 0–65535, 0 is maintenance.
pub const WEIGHT: Key = Key { name: "service.cilium.io/weight", alias: None };
/// On a Namespace: `true` in any case exports it; any other value does not.
pub const NAMESPACE_GLOBAL: Key = Key { name: "clustermesh.cilium.io/global", alias: None };

/// An annotation's key and its older name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// The name that counts when it is present, even with an odd or empty value.
    pub name: &'static str,
    /// The name that counts otherwise.
    pub alias: Option<&'static str>,
}

impl Key {
    /// The value, and the name it stood under.
    fn read(self, annotations: &Labels) -> Option<(&'static str, &str)> {
        [Some(self.name), self.alias]
            .into_iter()
            .flatten()
            .find_map(|name| annotations.get(name).map(|value| (name, value.as_str())))
    }
}

/// An annotation whose value means nothing; the default is used instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The annotation as it was written.
    pub annotation: &'static str,
    /// Its value.
    pub value: String,
    /// What would have been understood, for a person.
    pub expected: &'static str,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "annotation {}: {:?} is not {}", self.annotation, self.value, self.expected)
    }
}

/// A Service's policy, and what in its annotations could not be understood.
///
/// An ExternalName Service is never part of the mesh, whatever it says.
pub fn resolve(service: &ServiceObject) -> (Policy, Vec<Warning>) {
    let mut warnings = Vec::new();
    let reach = reach(service);
    let policy = Policy {
        reach,
        affinity: if reach.is_global() { affinity(&service.annotations, &mut warnings) } else { Affinity::None },
        internal_traffic_policy: service.internal_traffic_policy,
        no_backend: no_backend(&service.annotations, &mut warnings),
        publish_not_ready: service.publish_not_ready,
        client_ip_seconds: service.client_ip_seconds,
    };
    (policy, warnings)
}

/// Whether a Namespace's Services are exported. A namespace without an object or annotation follows `default`.
pub fn namespace_is_global(namespace: Option<&NamespaceObject>, default: bool) -> bool {
    namespace.and_then(|n| NAMESPACE_GLOBAL.read(&n.annotations)).map_or(default, |(_, value)| is_true(value))
}

/// The weight of every endpoint of an EndpointSlice, from its annotations; [`DEFAULT_WEIGHT`] when it names none.
pub fn slice_weight(annotations: &Labels) -> (u16, Option<Warning>) {
    let Some((annotation, value)) = WEIGHT.read(annotations) else { return (DEFAULT_WEIGHT, None) };
    match value.parse() {
        Ok(weight) => (weight, None),
        Err(_) => (DEFAULT_WEIGHT, Some(Warning { annotation, value: value.into(), expected: "0 to 65535" })),
    }
}

fn reach(service: &ServiceObject) -> Reach {
    use crate::object::ServiceKind;
    let flag = |key: Key, absent| key.read(&service.annotations).map_or(absent, |(_, value)| is_true(value));
    match (service.kind, flag(GLOBAL, false), flag(SHARED, true)) {
        (ServiceKind::ExternalName, _, _) | (_, false, _) => Reach::Cluster,
        (_, true, false) => Reach::Import,
        (_, true, true) => Reach::Mesh,
    }
}

fn affinity(annotations: &Labels, warnings: &mut Vec<Warning>) -> Affinity {
    let Some((annotation, value)) = AFFINITY.read(annotations) else { return Affinity::None };
    let named =
        [("", Affinity::None), ("none", Affinity::None), ("local", Affinity::Local), ("remote", Affinity::Remote)];
    choose(&named, annotation, value, "local, remote or none", warnings)
}

fn no_backend(annotations: &Labels, warnings: &mut Vec<Warning>) -> NoBackend {
    let Some((annotation, value)) = NO_BACKEND.read(annotations) else { return NoBackend::Refuse };
    let named = [("refuse", NoBackend::Refuse), ("pass", NoBackend::Pass)];
    choose(&named, annotation, value, "refuse or pass", warnings)
}

/// The value of that name in any case; else the default, with a warning.
fn choose<T: Copy + Default>(
    named: &[(&str, T)],
    annotation: &'static str,
    value: &str,
    expected: &'static str,
    warnings: &mut Vec<Warning>,
) -> T {
    let found = named.iter().find(|(name, _)| name.eq_ignore_ascii_case(value));
    found.map(|(_, meaning)| *meaning).unwrap_or_else(|| {
        warnings.push(Warning { annotation, value: value.into(), expected });
        T::default()
    })
}

fn is_true(value: &str) -> bool {
    value.eq_ignore_ascii_case("true")
}
