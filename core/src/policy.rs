//! What a Service's annotations mean.
//!
//! Each cluster reads its own Service objects; a peer's annotations never travel. Keys, aliases and odd values follow
//! Cilium 1.20's `pkg/annotation`; a value that means nothing is a [`Warning`] and the default, never a guess.

mod duration;

use core::fmt;

use alloc::string::String;
use alloc::vec::Vec;

use crate::model::{Affinity, DEFAULT_WEIGHT, NoBackend, OnStale, Policy, Reach};
use crate::object::{Labels, NamespaceObject, ServiceKind, ServiceObject};

/// Makes a Service global: `true` in any case.
pub const GLOBAL: Key = Key { name: "service.cilium.io/global", alias: Some("io.cilium/global-service") };
/// Stops a global Service's export unless `true` in any case.
pub const SHARED: Key = Key { name: "service.cilium.io/shared", alias: Some("io.cilium/shared-service") };
/// `local`, `remote` or `none`, in any case.
pub const AFFINITY: Key = Key { name: "service.cilium.io/affinity", alias: Some("io.cilium/service-affinity") };
/// `refuse` or `pass`.
pub const NO_BACKEND: Key = Key { name: "tombolo.io/no-backend", alias: None };
/// `keep`, `last-resort` or `drop`.
pub const ON_STALE: Key = Key { name: "tombolo.io/on-stale", alias: None };
/// A duration above zero: how long a peer may be silent.
pub const STALE_AFTER: Key = Key { name: "tombolo.io/stale-after", alias: None };
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

/// An annotation whose value means nothing; something else applies instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The annotation as it was written.
    pub annotation: &'static str,
    /// Its value.
    pub value: String,
    /// What would have been understood, for a person.
    pub expected: &'static str,
    /// What applies instead, for a person.
    pub applies: &'static str,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { annotation, value, expected, applies } = self;
        write!(f, "annotation {annotation}: {value:?} is not {expected}; {applies} applies")
    }
}

/// A Service's policy, and what in its annotations could not be understood.
///
/// An ExternalName Service is never part of the mesh, whatever it says.
pub fn resolve(service: &ServiceObject) -> (Policy, Vec<Warning>) {
    let mut warnings = Vec::new();
    let reach = reach(service, &mut warnings);
    // What concerns peers says nothing, wrongly or rightly, on a Service that has none.
    let of_peers = if reach.is_global() { &service.annotations } else { &Labels::new() };
    let policy = Policy {
        reach,
        affinity: affinity(of_peers, &mut warnings),
        on_stale: on_stale(of_peers, &mut warnings),
        stale_after_ms: stale_after(of_peers, &mut warnings),
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
        Err(_) => {
            let (expected, applies) = ("0 to 65535", "100");
            (DEFAULT_WEIGHT, Some(Warning { annotation, value: value.into(), expected, applies }))
        }
    }
}

fn reach(service: &ServiceObject, warnings: &mut Vec<Warning>) -> Reach {
    if service.kind == ServiceKind::ExternalName || !flag(GLOBAL, false, &service.annotations, warnings) {
        Reach::Cluster
    } else if flag(SHARED, true, &service.annotations, warnings) {
        Reach::Mesh
    } else {
        Reach::Import
    }
}

/// True, in any case, or false, as Cilium reads it; what is neither warns.
fn flag(key: Key, absent: bool, annotations: &Labels, warnings: &mut Vec<Warning>) -> bool {
    let Some((annotation, value)) = key.read(annotations) else { return absent };
    if !is_true(value) && !value.eq_ignore_ascii_case("false") {
        warnings.push(Warning { annotation, value: value.into(), expected: "true or false", applies: "false" });
    }
    is_true(value)
}

fn affinity(annotations: &Labels, warnings: &mut Vec<Warning>) -> Affinity {
    let Some((annotation, value)) = AFFINITY.read(annotations) else { return Affinity::None };
    let named =
        [("", Affinity::None), ("none", Affinity::None), ("local", Affinity::Local), ("remote", Affinity::Remote)];
    choose(&named, annotation, value, "local, remote or none", "none", warnings)
}

fn no_backend(annotations: &Labels, warnings: &mut Vec<Warning>) -> NoBackend {
    let Some((annotation, value)) = NO_BACKEND.read(annotations) else { return NoBackend::Refuse };
    let named = [("refuse", NoBackend::Refuse), ("pass", NoBackend::Pass)];
    choose(&named, annotation, value, "refuse or pass", "refuse", warnings)
}

fn on_stale(annotations: &Labels, warnings: &mut Vec<Warning>) -> OnStale {
    let Some((annotation, value)) = ON_STALE.read(annotations) else { return OnStale::LastResort };
    let named = [("keep", OnStale::Keep), ("last-resort", OnStale::LastResort), ("drop", OnStale::Drop)];
    choose(&named, annotation, value, "keep, last-resort or drop", "last-resort", warnings)
}

/// Milliseconds.
fn stale_after(annotations: &Labels, warnings: &mut Vec<Warning>) -> Option<u64> {
    let (annotation, value) = STALE_AFTER.read(annotations)?;
    let ms = duration::millis(value);
    if ms.is_none() {
        let (expected, applies) = ("a duration above zero, like 30s or 1m30s", "the default");
        warnings.push(Warning { annotation, value: value.into(), expected, applies });
    }
    ms
}

/// The value of that name in any case; else the default, with a warning.
fn choose<T: Copy + Default>(
    named: &[(&str, T)],
    annotation: &'static str,
    value: &str,
    expected: &'static str,
    applies: &'static str,
    warnings: &mut Vec<Warning>,
) -> T {
    let found = named.iter().find(|(name, _)| name.eq_ignore_ascii_case(value));
    found.map(|(_, meaning)| *meaning).unwrap_or_else(|| {
        warnings.push(Warning { annotation, value: value.into(), expected, applies });
        T::default()
    })
}

fn is_true(value: &str) -> bool {
    value.eq_ignore_ascii_case("true")
}
