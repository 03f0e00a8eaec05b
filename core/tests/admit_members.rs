//! What of a peer's identities and addresses is let in.

#![cfg(test)]

use proptest::prelude::*;
use tombolo_core::admit::{Admission, Ranges, Rule};
use tombolo_core::id::{Addr, ClusterId, ClusterName, MaxClusters};
use tombolo_core::record::{IdentityLabel, IdentityRecord, IpRecord};

/// Peer east, id 3; here pods are in 10.1.0.0/16, a node is 192.0.2.1, and 203.0.113.0/24 is denied.
fn admission() -> Admission {
    let id = ClusterId::new(3, MaxClusters::C255).unwrap();
    let node: Addr = "192.0.2.1".parse().unwrap();
    let ranges = Ranges::new(["10.1.0.0/16".parse().unwrap()], [node], ["203.0.113.0/24".parse().unwrap()]);
    Admission::new(ClusterName::new("east").unwrap(), id, MaxClusters::C255, ranges.into())
}

fn label(text: &str) -> IdentityLabel {
    let (source, rest) = text.split_once(':').unwrap();
    let (key, value) = rest.split_once('=').unwrap();
    IdentityLabel { source: source.into(), key: key.into(), value: value.into() }
}

fn identity(number: u32, labels: &[&str]) -> Result<usize, Rule> {
    let record = IdentityRecord { number, labels: labels.iter().map(|text| label(text)).collect() };
    let judged = admission().identity(&number.to_string(), &record);
    judged.map(|admitted| admitted.labels.labels().len()).map_err(|refusal| refusal.rule)
}

const OF_EAST: &str = "k8s:io.cilium.k8s.policy.cluster=east";

#[test]
fn identities() {
    let namespace = "k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name=test";
    assert_eq!(identity(196_608, &[OF_EAST, "k8s:app=echo", namespace, "any:x=odd value;"]), Ok(4));
    assert_eq!(identity(262_143, &[OF_EAST]), Ok(1));
    for number in [0, 6, 196_607, 262_144, 16_777_217, u32::MAX] {
        assert_eq!(identity(number, &[OF_EAST]), Err(Rule::IdentityRange), "{number}");
    }
    for labels in [
        &["k8s:app=echo"][..],
        &["k8s:io.cilium.k8s.policy.cluster=west"],
        &["any:io.cilium.k8s.policy.cluster=east"],
        &[OF_EAST, "any:io.cilium.k8s.policy.cluster=east"],
        &[OF_EAST, "k8s:io.cilium.k8s.policy.cluster=west"],
        &[],
    ] {
        assert_eq!(identity(200_000, labels), Err(Rule::ClusterName), "{labels:?}");
    }
    let long = format!("k8s:app={}", "x".repeat(64));
    let longer = format!("any:app={}", "x".repeat(1024));
    for text in ["k8s:=x", "k8s:a b=x", "k8s:app=café", "k8s:io.cilium.k8s.namespace.labels.=x", &long, &longer] {
        assert_eq!(identity(200_000, &[OF_EAST, text]), Err(Rule::TextLimit), "{text}");
    }
    let many: Vec<String> = (0..256).map(|n| format!("k8s:l{n}=x")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).chain([OF_EAST]).collect();
    assert_eq!(identity(200_000, &many), Err(Rule::TextLimit));
    let record = IdentityRecord { number: 200_000, labels: vec![label(OF_EAST)] };
    assert_eq!(admission().identity("200001", &record).unwrap_err().rule, Rule::KeyMismatch);
}

fn record(ip: &str, len: Option<u8>, identity: u32) -> IpRecord {
    IpRecord {
        ip: ip.parse().unwrap(),
        prefix_len: len,
        host_ip: None,
        identity,
        encryption_key: 0,
        metadata: String::new(),
        namespace: "test".into(),
        pod: "echo-0".into(),
        service_account: "default".into(),
        named_ports: Vec::new(),
    }
}

/// Where it lies, or why not at all.
fn address(suffix: &str, record: &IpRecord) -> Result<Option<Rule>, Rule> {
    let judged = admission().address(suffix, record);
    judged.map(|admitted| admitted.misplaced.map(|refusal| refusal.rule)).map_err(|refusal| refusal.rule)
}

#[test]
fn addresses() {
    let plain = |ip: &str| address(ip, &record(ip, None, 200_000));
    assert_eq!(plain("10.3.0.1"), Ok(None));
    assert_eq!(plain("fd00:3::1"), Ok(None));
    assert_eq!(plain("127.0.0.1"), Ok(Some(Rule::SpecialAddress)));
    assert_eq!(plain("169.254.169.254"), Ok(Some(Rule::SpecialAddress)));
    assert_eq!(plain("10.1.0.1"), Ok(Some(Rule::OwnRange)));
    assert_eq!(plain("192.0.2.1"), Ok(Some(Rule::OwnNode)));
    assert_eq!(plain("203.0.113.9"), Ok(Some(Rule::DeniedCidr)));
    let range = |net: &str| {
        let (ip, len) = net.split_once('/').unwrap();
        address(net, &record(ip, len.parse().ok(), 200_000))
    };
    assert_eq!(range("10.3.0.0/24"), Ok(None));
    assert_eq!(range("0.0.0.0/0"), Ok(Some(Rule::SpecialAddress)));
    assert_eq!(range("10.0.0.0/8"), Ok(Some(Rule::OwnRange)), "it contains a range of ours");
    assert_eq!(range("192.0.0.0/16"), Ok(Some(Rule::OwnNode)), "it contains a node of ours");
    assert_eq!(range("10.3.0.1/24"), Err(Rule::AddressText), "bits beyond its length");
    assert_eq!(address("10.3.0.2", &record("10.3.0.1", None, 200_000)), Err(Rule::KeyMismatch));
    assert_eq!(address("10.3.0.1", &record("10.3.0.1", Some(32), 200_000)), Err(Rule::KeyMismatch));
    for (number, expected) in
        [(0, Ok(None)), (255, Ok(None)), (256, Err(Rule::IdentityRange)), (1 << 24, Err(Rule::IdentityRange))]
    {
        assert_eq!(address("10.3.0.1", &record("10.3.0.1", None, number)), expected, "{number}");
    }
    let odd = IpRecord { pod: "Not A Pod".into(), ..record("10.3.0.1", None, 200_000) };
    assert_eq!(address("10.3.0.1", &odd), Err(Rule::TextLimit));
}

#[test]
fn a_peers_own_host_is_another_here() {
    let host = IpRecord { host_ip: Some("192.0.2.1".parse().unwrap()), ..record("10.3.0.1", None, 1) };
    let admitted = admission().address("10.3.0.1", &host).unwrap();
    assert_eq!(admitted.identity, 6);
    assert_eq!(admitted.host, None, "a node of ours carries nothing of a peer's");
    assert_eq!(admitted.refusals[0].rule, Rule::OwnNode);
}

proptest! {
    #[test]
    fn whatever_a_peer_says_is_judged(
        number in any::<u32>(),
        suffix in ".{0,20}",
        labels in prop::collection::vec((".{0,9}", ".{0,40}", ".{0,9}"), 0..4),
        ip in any::<std::net::IpAddr>(),
        len in prop::option::of(any::<u8>()),
        host in prop::option::of(any::<std::net::IpAddr>()),
        texts in [".{0,9}", ".{0,9}", ".{0,9}"],
    ) {
        let label = |(source, key, value): (String, String, String)| {
            IdentityLabel { source: source.into(), key: key.into(), value: value.into() }
        };
        let labels: Vec<IdentityLabel> = labels.into_iter().map(label).collect();
        if let Ok(admitted) = admission().identity(&suffix, &IdentityRecord { number, labels }) {
            prop_assert!((196_608..=262_143).contains(&admitted.number));
        }
        let [namespace, pod, account] = texts;
        let record = IpRecord {
            prefix_len: len,
            host_ip: host.map(Into::into),
            namespace: namespace.into(),
            pod: pod.into(),
            service_account: account.into(),
            ..record(&ip.to_string(), None, number)
        };
        let suffix = len.map_or_else(|| record.ip.to_string(), |len| format!("{}/{len}", record.ip));
        if let Ok(admitted) = admission().address(&suffix, &record) {
            prop_assert!(admitted.identity < 256 || (196_608..=262_143).contains(&admitted.identity));
            prop_assert!(admitted.host.is_none_or(|host| host.to_string() != "192.0.2.1"));
        }
    }
}
