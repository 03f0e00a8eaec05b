//! Annotations, against the tables that Cilium 1.20.2's own code produced.

#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]

use std::collections::BTreeMap;

use expect_test::{Expect, expect};
use serde::Deserialize;
use tombolo_core::id::ServiceKey;
use tombolo_core::model::{Affinity, InternalTrafficPolicy, NoBackend, OnStale, Reach};
use tombolo_core::object::{Labels, NamespaceObject, ServiceKind, ServiceObject};
use tombolo_core::policy::{namespace_is_global, resolve, slice_weight};

#[derive(Deserialize)]
struct Tables {
    service_annotations: Vec<ServiceRow>,
    namespace_annotation: Vec<NamespaceRow>,
    namespace_annotation_key: String,
}

#[derive(Deserialize)]
struct ServiceRow {
    annotations: BTreeMap<String, String>,
    global: bool,
    shared: bool,
    affinity: String,
    affinity_error: String,
}

#[derive(Deserialize)]
struct NamespaceRow {
    value: String,
    default: bool,
    global: bool,
}

fn tables() -> Tables {
    serde_json::from_str(include_str!("../../testkit/data/derived-255.json")).unwrap()
}

fn labels<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Labels {
    pairs.into_iter().map(|(key, value)| (key.into(), value.into())).collect()
}

fn service(annotations: Labels) -> ServiceObject {
    ServiceObject {
        key: ServiceKey::new("default", "rebel-base"),
        annotations,
        labels: Labels::new(),
        selector: Labels::new(),
        kind: ServiceKind::ClusterIp,
        cluster_ips: Vec::new(),
        ports: Vec::new(),
        internal_traffic_policy: InternalTrafficPolicy::Local,
        publish_not_ready: true,
        client_ip_seconds: Some(42),
    }
}

const AFFINITY_LOCAL: (&str, &str) = ("service.cilium.io/affinity", "local");

fn global<const N: usize>(pairs: [(&str, &str); N]) -> ServiceObject {
    service(labels([("service.cilium.io/global", "true")].into_iter().chain(pairs)))
}

#[test]
fn services_as_cilium_reads_them() {
    let rows = tables().service_annotations;
    assert_eq!(rows.len(), 53);
    for row in rows {
        let annotations = labels(row.annotations.iter().map(|(key, value)| (key.as_str(), value.as_str())));
        let (policy, warnings) = resolve(&service(annotations));
        let reach = match (row.global, row.shared) {
            (false, _) => Reach::Cluster,
            (true, false) => Reach::Import,
            (true, true) => Reach::Mesh,
        };
        let affinity = match row.affinity.as_str() {
            "local" => Affinity::Local,
            "remote" => Affinity::Remote,
            _ => Affinity::None,
        };
        let warned = !row.affinity_error.is_empty();
        let warns = warnings.iter().any(|w| w.annotation.contains("affinity"));
        assert_eq!((policy.reach, policy.affinity, warns), (reach, affinity, warned), "{row:?}");
    }
}

#[test]
fn namespaces_as_cilium_reads_them() {
    let Tables { namespace_annotation, namespace_annotation_key, .. } = tables();
    for row in namespace_annotation {
        let value = (row.value != "<absent>").then_some((namespace_annotation_key.as_str(), row.value.as_str()));
        let namespace = NamespaceObject { name: "test".into(), labels: labels([]), annotations: labels(value) };
        assert_eq!(namespace_is_global(Some(&namespace), row.default), row.global, "{row:?}");
    }
    assert!(namespace_is_global(None, true));
    assert!(!namespace_is_global(None, false));
}

#[test]
fn fields_of_the_service_are_kept() {
    let (policy, _) = resolve(&service(Labels::new()));
    assert_eq!(policy.internal_traffic_policy, InternalTrafficPolicy::Local);
    assert_eq!((policy.publish_not_ready, policy.client_ip_seconds), (true, Some(42)));
}

#[test]
fn an_external_name_is_never_global() {
    let mut external = service(labels([("service.cilium.io/global", "true")]));
    external.kind = ServiceKind::ExternalName;
    assert_eq!(resolve(&external).0.reach, Reach::Cluster);
}

#[test]
fn no_backend() {
    let check = |value, expected| {
        let (policy, warnings) = resolve(&service(labels([("tombolo.io/no-backend", value)])));
        assert_eq!((policy.no_backend, warnings.len()), expected, "{value:?}");
    };
    check("refuse", (NoBackend::Refuse, 0));
    check("Pass", (NoBackend::Pass, 0));
    check("", (NoBackend::Refuse, 1));
    check("drop", (NoBackend::Refuse, 1));
}

#[test]
fn warnings_say_what_would_be_understood() {
    let check = |annotations: Labels, expected: Expect| {
        let text: Vec<String> = resolve(&service(annotations)).1.iter().map(ToString::to_string).collect();
        expected.assert_eq(&text.join("\n"));
    };
    check(
        labels([
            ("io.cilium/global-service", "true"),
            ("io.cilium/service-affinity", "near"),
            ("service.cilium.io/shared", "no"),
            ("tombolo.io/no-backend", "x"),
            ("tombolo.io/on-stale", "remove"),
            ("tombolo.io/stale-after", "30"),
        ]),
        expect![[r#"
            annotation service.cilium.io/shared: "no" is not true or false; false applies
            annotation io.cilium/service-affinity: "near" is not local, remote or none; none applies
            annotation tombolo.io/on-stale: "remove" is not keep, last-resort or drop; last-resort applies
            annotation tombolo.io/stale-after: "30" is not a duration above zero, like 30s or 1m30s; the default applies
            annotation tombolo.io/no-backend: "x" is not refuse or pass; refuse applies"#]],
    );
    check(
        labels([("service.cilium.io/global", "yes"), ("service.cilium.io/shared", "no"), ("tombolo.io/on-stale", "x")]),
        expect![[r#"annotation service.cilium.io/global: "yes" is not true or false; false applies"#]],
    );
    check(labels([("service.cilium.io/global", "False")]), expect![[r#""#]]);
}

#[test]
fn on_stale() {
    let check = |value, expected| {
        let (policy, warnings) = resolve(&global([("tombolo.io/on-stale", value)]));
        assert_eq!((policy.on_stale, warnings.len()), expected, "{value:?}");
    };
    check("keep", (OnStale::Keep, 0));
    check("last-resort", (OnStale::LastResort, 0));
    check("DROP", (OnStale::Drop, 0));
    check("", (OnStale::LastResort, 1));
    check("drop ", (OnStale::LastResort, 1));
    assert_eq!(resolve(&global([])).0.on_stale, OnStale::LastResort);
}

#[test]
fn stale_after() {
    let check = |value, expected: Option<u64>| {
        let (policy, warnings) = resolve(&global([("tombolo.io/stale-after", value)]));
        assert_eq!((policy.stale_after_ms, warnings.is_empty()), (expected, expected.is_some()), "{value:?}");
    };
    check("30s", Some(30_000));
    check("1m30s", Some(90_000));
    check("500ms", Some(500));
    check("+2h45m", Some(9_900_000));
    check("1.5h", Some(5_400_000));
    check(".5s", Some(500));
    check("1.s", Some(1_000));
    check("0.0019999s", Some(1));
    check("1h0.123456789123456789s", Some(3_600_123));
    check("1500us", Some(1));
    check("1500\u{b5}s500\u{3bc}s", Some(2));
    check("1000001ns", Some(1));
    check("5124095h", Some(18_446_742_000_000));
    for malformed in
        ["", "0", "0s", "999us", "30", "-30s", "+", "s", ".s", "1d", "30S", "30 s", " 30s", "1s2", "1..5s", "1s-1s"]
    {
        check(malformed, None);
    }
    check("5124096h", None);
    check("18446744073709551616ns", None);
    check("5124095h9999999999s", None);
    assert_eq!(resolve(&global([])).0.stale_after_ms, None);
}

#[test]
fn what_concerns_peers_says_nothing_without_them() {
    let annotations = [("tombolo.io/on-stale", "keep"), ("tombolo.io/stale-after", "x"), AFFINITY_LOCAL];
    assert_eq!(resolve(&service(labels(annotations))), resolve(&service(Labels::new())));
}

#[test]
fn weights_of_slices() {
    let check = |value, expected| {
        let (weight, warning) = slice_weight(&labels([("service.cilium.io/weight", value)]));
        assert_eq!((weight, warning.is_some()), expected, "{value:?}");
    };
    check("0", (0, false));
    check("50", (50, false));
    check("65535", (65535, false));
    check("65536", (100, true));
    check("-1", (100, true));
    check(" 5", (100, true));
    check("", (100, true));
    assert_eq!(slice_weight(&Labels::new()), (100, None));
}

impl std::fmt::Debug for ServiceRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.annotations.fmt(f)
    }
}

impl std::fmt::Debug for NamespaceRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}, default {}", self.value, self.default)
    }
}
