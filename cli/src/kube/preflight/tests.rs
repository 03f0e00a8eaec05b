use std::collections::{BTreeMap, BTreeSet};

use expect_test::{Expect, expect};
use tombolo_certs::{Authority, Validity};
use tombolo_kube::install::{ClusterMap, Found, Node, StoreService, TlsSecret};

use super::*;
use crate::kube::endpoint::End;
use crate::kube::leaves::{Wanted, leaves};

const NOW: u64 = 1_800_000_000;

fn authority() -> Authority {
    Authority::create("Cilium CA", Validity::days(NOW, 3650)).unwrap()
}

/// Two good clusters of one authority, behind ports of their nodes.
fn pair() -> [Facts; 2] {
    let ca = authority();
    [(1, "ne"), (2, "we")].map(|(id, name)| facts(&ca, id, name))
}

fn facts(ca: &Authority, id: u8, name: &str) -> Facts {
    let text = |key: &str, value: String| (key.to_owned(), value);
    let data = [text("name", name.into()), text("id", id.to_string()), text("serviceCIDRs", "10.96.0.0/16".into())];
    let cluster = ClusterName::new(name).unwrap();
    let wanted = Wanted { cluster: &cluster, dns: &[], ips: &[], auth_mode: None, days: 365 };
    let made = leaves(ca, &wanted, &BTreeMap::new(), NOW).unwrap();
    let node = Node {
        name: format!("{name}-1"),
        internal: vec![IpAddr::from([192, 0, 2, id])],
        pod_cidrs: vec![format!("10.{id}.0.0/24").parse().unwrap()],
        ready: true,
        provider: String::new(),
    };
    let found = Found {
        uid: format!("uid of {name}"),
        config: Some(ClusterMap { data: data.into(), ..ClusterMap::default() }),
        store: Some(StoreService { kind: "NodePort".into(), port: 2379, node_port: Some(32379), ingress: vec![] }),
        nodes: vec![node],
        secrets: made.iter().map(|(done, d)| (done.secret.clone(), TlsSecret::read(&d.object).unwrap())).collect(),
        ..Found::default()
    };
    Facts::of(&format!("kind-{name}"), &found, (&[], End::Destination)).unwrap()
}

fn check(change: impl FnOnce(&mut Facts, &mut Facts), expected: &Expect) {
    let [mut left, mut right] = pair();
    change(&mut left, &mut right);
    let told = preflight(&left, &right, NOW).into_iter().map(|finding| {
        let severity = if finding.severity() == Severity::Error { "error" } else { "warning" };
        format!("{severity}: {finding}\n")
    });
    let mut told: String = told.collect();
    // Fingerprints differ from run to run.
    while let Some(at) = told.find(" [").filter(|at| told[at + 4..].starts_with(':')) {
        told.replace_range(at..at + 14, "");
    }
    expected.assert_eq(&told);
}

fn net(text: &str) -> BTreeSet<IpNet> {
    text.split(' ').map(|text| text.parse().unwrap()).collect()
}

#[test]
fn two_good_clusters() {
    check(|_, _| {}, &expect![""]);
}

#[test]
fn who_they_are() {
    check(
        |left, right| right.uid.clone_from(&left.uid),
        &expect![[r"
        error: contexts kind-ne and kind-we are one cluster: name another context
    "]],
    );
    check(
        |left, right| {
            right.id = left.id;
            right.max = 511;
        },
        &expect![[r"
            error: ne and we both have id 1: ids must differ; enable one with another --cluster-id
            error: ne is made for 255 clusters and we for 511: enable both with the same --max-connected-clusters
        "]],
    );
    let ca = authority();
    let [left, right] = [facts(&ca, 1, "ne"), Facts { uid: "another".into(), ..facts(&ca, 2, "ne") }];
    let found: Vec<String> = preflight(&left, &right, NOW).iter().map(ToString::to_string).collect();
    expect![[r"contexts kind-ne and kind-ne are both named ne: names must differ; disable one, and enable it with another --cluster-name"]]
        .assert_eq(&found.join("\n"));
}

#[test]
fn a_third_cluster_s_id_is_taken() {
    check(
        |left, right| {
            left.peers.insert(ClusterName::new("fc").unwrap(), Some(2));
            left.peers.insert(right.cluster.clone(), Some(2));
            right.peers.insert(ClusterName::new("fc").unwrap(), None);
        },
        &expect![[r"
            error: ne has a peer fc with id 2, which is we's too: ids must differ in the whole mesh
        "]],
    );
}

#[test]
fn ranges_that_overlap() {
    check(
        |left, right| {
            left.pods = net("10.1.0.0/16 fd00:1::/64");
            right.pods = net("10.1.5.0/24 fd00:2::/64");
        },
        &expect![[r"
            error: pods of ne have addresses in 10.1.0.0/16, which overlaps with we's 10.1.5.0/24 (pods): we would refuse them as backends; one cluster needs other ranges
        "]],
    );
    check(
        |left, right| {
            left.services = net("10.2.0.0/16");
            right.services = net("10.2.0.0/16");
        },
        &expect![[r"
            error: pods of we have addresses in 10.2.0.0/24, which overlaps with ne's 10.2.0.0/16 (Services): ne would refuse them as backends; one cluster needs other ranges
        "]],
    );
    check(
        |left, right| {
            left.pods.clear();
            right.nodes.clone_from(&left.nodes);
        },
        &expect![[r"
            warning: the ranges of ne's pods are unknown (its nodes name none): overlaps with we are not checked; enable it with --pod-cidr
            warning: nodes of ne and of we both have 192.0.2.1: are their networks routed to each other?
        "]],
    );
}

#[test]
fn stores_out_of_reach() {
    check(
        |_, right| right.endpoint = Err(NoEndpoint::NoAddress),
        &expect![[r"
        error: ne cannot reach we's store: its load balancer has no address yet: wait, or enable it with --service-type NodePort
    "]],
    );
}

#[test]
fn certificates_that_will_not_do() {
    let other = facts(&authority(), 2, "we");
    check(
        |_, right| {
            right.server.clone_from(&other.server);
            right.remote.clone_from(&other.remote);
        },
        &expect![[r#"
            error: ne: ne's Secret tombolo-remote tls.crt: issued by "CN=Cilium CA", which we's Secret tombolo-server ca.crt does not trust (it has CN=Cilium CA); share one authority: tombolo enable --context kind-ne --ca-from kind-we, or the other way round
            error: we: we's Secret tombolo-remote tls.crt: issued by "CN=Cilium CA", which ne's Secret tombolo-server ca.crt does not trust (it has CN=Cilium CA); share one authority: tombolo enable --context kind-we --ca-from kind-ne, or the other way round
        "#]],
    );
    check(
        |left, _| {
            left.remote = None;
            let mut at = left.endpoint.clone().unwrap();
            at.urls = vec!["https://lb.example:2379".into()];
            left.endpoint = Ok(at);
        },
        &expect![[r"
            error: ne: ne's Secret tombolo-server tls.crt: does not cover the name lb.example; tombolo enable --context kind-ne --dns lb.example
            error: ne has no Secret tombolo-remote: tombolo enable --context kind-ne
        "]],
    );
    let [left, right] = pair();
    let late = preflight(&left, &right, NOW + 350 * 86_400);
    assert!(late.len() == 4 && late.iter().all(|finding| finding.severity() == Severity::Warning), "{late:?}");
}

/// Two authorities are as good as one when each side trusts both.
#[test]
fn both_may_trust_both() {
    let [ca, other] = [authority(), authority()];
    let [mut left, mut right] = [facts(&ca, 1, "ne"), facts(&other, 2, "we")];
    let both = tombolo_certs::bundle(ca.certificate_pem(), other.certificate_pem()).into_bytes();
    for side in [&mut left, &mut right] {
        side.server.as_mut().unwrap().ca.clone_from(&both);
    }
    assert_eq!(preflight(&left, &right, NOW), vec![]);
}
