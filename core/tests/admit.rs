//! What of a peer's records is let in, and by which rule the rest is not.

#![expect(
    clippy::unwrap_used,
    clippy::needless_pass_by_value,
    reason = "a test fails where it stands, and an `expect![]` is written where it is checked"
)]

use expect_test::{Expect, expect};
use tombolo_core::admit::{Admission, Admitted, Outcome, Ranges, Refusal, Rule};
use tombolo_core::id::{Addr, ClusterId, ClusterName, Family, MaxClusters, ServiceKey};
use tombolo_core::model::Conditions;
use tombolo_core::object::Labels;
use tombolo_core::record::{
    NodeRecord, PortMap, RawPort, ServiceRecord, SliceEndpoint, SlicePort, SliceRecord, ZoneHints,
};

/// Peer east, id 3; here pods are in 10.1.0.0/16, a node is 192.0.2.1, and 203.0.113.0/24 is denied.
fn admission() -> Admission {
    let id = ClusterId::new(3, MaxClusters::C255).unwrap();
    let node: Addr = "192.0.2.1".parse().unwrap();
    let deny = ["203.0.113.0/24", "::ffff:198.51.100.0/120"].map(|net| net.parse().unwrap());
    let ranges = Ranges::new(["10.1.0.0/16".parse().unwrap()], [node], deny);
    Admission::new(ClusterName::new("east").unwrap(), id, MaxClusters::C255, ranges.into())
}

fn ports(names: &[(&str, &str, u16)]) -> PortMap {
    let raw = |protocol: &str, port| RawPort { protocol: protocol.into(), port };
    names.iter().map(|(name, protocol, port)| ((*name).into(), raw(protocol, *port))).collect()
}

fn service(backends: &[(&str, PortMap)]) -> ServiceRecord {
    ServiceRecord {
        cluster: "east".into(),
        cluster_id: 3,
        key: ServiceKey::new("test", "echo"),
        frontends: [("127.0.0.1".into(), ports(&[("http", "TCP", 0)]))].into(),
        backends: backends.iter().map(|(addr, ports)| ((*addr).into(), ports.clone())).collect(),
        hostnames: [].into(),
        zones: [].into(),
        labels: Labels::new(),
        selector: Labels::new(),
        include_external: true,
        shared: true,
    }
}

fn http() -> PortMap {
    ports(&[("http", "TCP", 80)])
}

fn slice(addresses: &[&str]) -> SliceRecord {
    let endpoint = |addr: &&str| SliceEndpoint { addresses: vec![(*addr).into()], ..SliceEndpoint::default() };
    SliceRecord {
        cluster: "east".into(),
        cluster_id: 3,
        namespace: "test".into(),
        name: "echo-1".into(),
        labels: [("kubernetes.io/service-name".into(), "echo".into())].into(),
        annotations: Labels::new(),
        family: Family::V4,
        endpoints: addresses.iter().map(endpoint).collect(),
        ports: vec![port("http", Some("TCP"), Some(80))],
    }
}

fn port(name: &str, protocol: Option<&str>, port: Option<i32>) -> SlicePort {
    SlicePort { name: name.into(), protocol: protocol.map(Into::into), port, app_protocol: None }
}

fn refused(refusal: &Refusal) -> String {
    format!("refused by {}: {}", refusal.rule.name(), refusal.detail)
}

fn admitted(admitted: &Admitted) -> String {
    let mut lines = vec![format!("{} {}", admitted.service, admitted.name)];
    for e in &admitted.slice.endpoints {
        let ports: Vec<String> = e.ports.iter().map(|p| format!("{}/{}/{}", p.name, p.protocol, p.number)).collect();
        let place = [e.node.as_deref(), e.zone.as_deref()].map(|name| name.unwrap_or("-")).join(" ");
        let was = if e.was_ready { "was ready" } else { "never ready" };
        lines.push(format!("{} {} {:?} {was} {} {place} {:?}", e.addr, ports.join(","), e.state, e.weight, e.hints));
    }
    lines.extend(admitted.refusals.iter().map(refused));
    lines.join("\n")
}

fn check_service(record: &ServiceRecord, expected: Expect) {
    let text = match admission().service("test/echo", record) {
        Ok(Outcome::Admitted(some)) => admitted(&some),
        Ok(Outcome::Deleted(key)) => format!("{key} deleted"),
        Err(refusal) => refused(&refusal),
    };
    expected.assert_eq(&text);
}

fn check_slice(record: &SliceRecord, expected: Expect) {
    let verdict = admission().slice("test/echo-1", record);
    expected.assert_eq(&verdict.map_or_else(|refusal| refused(&refusal), |some| admitted(&some)));
}

/// The rule by which a legacy record is refused after the change.
fn refuses(rule: Rule, change: impl FnOnce(&mut ServiceRecord)) {
    let mut record = service(&[("10.9.0.1", http())]);
    record.zones.insert("10.9.0.1".into(), ZoneHints::default());
    change(&mut record);
    let refusal = admission().service("test/echo", &record).unwrap_err();
    assert_eq!(refusal.rule, rule, "{}", refusal.detail);
}

#[test]
fn a_legacy_record_has_active_backends_without_nodes() {
    let mut record = service(&[("10.9.0.1", http()), ("fd00::1", http())]);
    let for_zones = Some(vec!["z1".into(), "z2".into()]);
    record.zones.insert("10.9.0.1".into(), ZoneHints { zone: "z1".into(), for_zones });
    check_service(
        &record,
        expect![[r#"
        test/echo _legacy
        10.9.0.1 http/TCP/80 Active was ready 100 - z1 ["z1", "z2"]
        fd00::1 http/TCP/80 Active was ready 100 - - []"#]],
    );
}

#[test]
fn several_names_on_one_number() {
    let names = ports(&[("http-alt", "TCP", 80), ("http-direct", "tcp", 80), ("https", "TCP", 443)]);
    check_service(
        &service(&[("20.0.0.2", names)]),
        expect![[r#"
        test/echo _legacy
        20.0.0.2 http-alt/TCP/80,http-direct/TCP/80,https/TCP/443 Active was ready 100 - - []"#]],
    );
}

#[test]
fn two_spellings_of_one_address_are_one_endpoint() {
    let mapped = ports(&[("alt", "TCP", 80), ("http", "TCP", 80)]);
    check_service(
        &service(&[("10.9.0.1", http()), ("::ffff:10.9.0.1", mapped)]),
        expect![[r#"
        test/echo _legacy
        10.9.0.1 alt/TCP/80,http/TCP/80 Active was ready 100 - - []"#]],
    );
    check_slice(
        &slice(&["10.9.0.1", "10.9.0.1"]),
        expect![[r#"
        test/echo echo-1
        10.9.0.1 http/TCP/80 Active was ready 100 - - []"#]],
    );
}

#[test]
fn not_shared_is_deleted() {
    let mut record = service(&[("10.9.0.1", http())]);
    record.shared = false;
    check_service(&record, expect!["test/echo deleted"]);
}

#[test]
fn a_slice_says_more() {
    let mut record = slice(&["10.9.0.1", "10.9.0.2", "10.9.0.3"]);
    record.annotations.insert("service.cilium.io/weight".into(), "50".into());
    record.ports = vec![port("http", None, Some(80)), port("", Some("udp"), Some(53))];
    record.endpoints[0].node_name = Some("n1".into());
    record.endpoints[0].zone = Some("z1".into());
    record.endpoints[0].for_zones = vec!["z1".into()];
    record.endpoints[1].conditions = Conditions { ready: Some(false), serving: Some(true), terminating: Some(true) };
    record.endpoints[2].conditions = Conditions { ready: Some(false), ..Conditions::default() };
    check_slice(
        &record,
        expect![[r#"
        test/echo echo-1
        10.9.0.1 /UDP/53,http/TCP/80 Active was ready 50 n1 z1 ["z1"]
        10.9.0.2 /UDP/53,http/TCP/80 Terminating was ready 50 - - []
        10.9.0.3 /UDP/53,http/TCP/80 Maintenance never ready 50 - - []"#]],
    );
    record.annotations.insert("service.cilium.io/weight".into(), "0".into());
    check_slice(
        &record,
        expect![[r#"
        test/echo echo-1
        10.9.0.1 /UDP/53,http/TCP/80 Maintenance was ready 0 n1 z1 ["z1"]
        10.9.0.2 /UDP/53,http/TCP/80 Maintenance was ready 0 - - []
        10.9.0.3 /UDP/53,http/TCP/80 Maintenance never ready 0 - - []"#]],
    );
}

#[test]
fn bad_ports_cost_only_themselves() {
    let mixed = ports(&[("a", "TCP", 0), ("b", "ICMP", 7), ("c", "sctp", 9), ("d", "", 9)]);
    check_service(
        &service(&[("10.9.0.1", mixed), ("10.9.0.2", ports(&[("a", "TCP", 0)]))]),
        expect![[r#"
        test/echo _legacy
        10.9.0.1 c/SCTP/9 Active was ready 100 - - []
        refused by port-number: 10.9.0.1: port "a" has number 0
        refused by protocol: 10.9.0.1: port "b" has protocol "ICMP"
        refused by protocol: 10.9.0.1: port "d" has protocol ""
        refused by port-number: 10.9.0.2: port "a" has number 0"#]],
    );
    let mut record = slice(&["10.9.0.1"]);
    record.ports = vec![port("all", None, None), port("big", None, Some(65_536)), port("neg", None, Some(-1))];
    check_slice(
        &record,
        expect![[r#"
        test/echo echo-1
        refused by port-number: echo-1: port "all" has no number
        refused by port-number: echo-1: port "big" has number 65536
        refused by port-number: echo-1: port "neg" has number -1"#]],
    );
}

#[test]
fn special_addresses() {
    let refused = "0.0.0.1 0.255.255.255 127.0.0.1 127.255.0.1 169.254.169.254 224.0.0.1 239.255.255.255 240.0.0.1 \
        255.255.255.255 168.63.129.16 :: ::1 ::7f00:1 fe80::1 febf::1 ff02::1 64:ff9b::a00:1 2002::1 fd00:ec2::254 \
        ::ffff:127.0.0.1 ::ffff:169.254.169.254";
    for text in refused.split_whitespace() {
        let admitted = admission().slice("test/echo-1", &slice(&[text, "10.9.0.1"])).unwrap();
        assert_eq!(admitted.refusals.iter().map(|r| r.rule).collect::<Vec<_>>(), [Rule::SpecialAddress], "{text}");
        assert_eq!(admitted.slice.endpoints.len(), 1, "{text}");
    }
    let fine = "1.0.0.1 126.0.0.1 128.0.0.1 169.253.0.1 169.255.0.1 223.255.255.255 168.63.129.17 fec0::1 \
        ::1:0:0:1 64:ff9c::1 2003::1 fd00:ec3::1 fd00::1";
    for text in fine.split_whitespace() {
        let admitted = admission().slice("test/echo-1", &slice(&[text])).unwrap();
        assert_eq!((admitted.refusals.len(), admitted.slice.endpoints.len()), (0, 1), "{text}");
    }
}

#[test]
fn addresses_of_this_cluster_and_denied_ones() {
    let texts = ["10.1.2.3", "::ffff:10.1.2.4", "192.0.2.1", "203.0.113.9", "198.51.100.1", "fe80::1%eth0", "10.2.0.1"];
    check_slice(
        &slice(&texts),
        expect![[r#"
        test/echo echo-1
        10.2.0.1 http/TCP/80 Active was ready 100 - - []
        refused by own-range: 10.1.2.3 is in 10.1.0.0/16, a range of this cluster
        refused by own-range: 10.1.2.4 is in 10.1.0.0/16, a range of this cluster
        refused by own-node: 192.0.2.1 is a node of this cluster
        refused by denied-cidr: 203.0.113.9 is in 203.0.113.0/24, denied by --deny-cidr
        refused by denied-cidr: 198.51.100.1 is in 198.51.100.0/24, denied by --deny-cidr
        refused by address-text: "fe80::1%eth0" is no IP address"#]],
    );
}

#[test]
fn another_cluster() {
    refuses(Rule::ClusterName, |r| r.cluster = "west".into());
    refuses(Rule::ClusterId, |r| r.cluster_id = 4);
    refuses(Rule::KeyMismatch, |r| r.key.name = "other".into());
    let at_other_key = admission().slice("test/echo-2", &slice(&[])).unwrap_err();
    assert_eq!(at_other_key.rule, Rule::KeyMismatch);
}

#[test]
fn text_beyond_kubernetes_limits() {
    let long = "x".repeat(64);
    refuses(Rule::TextLimit, |r| drop(r.backends.insert("10.9.0.1".into(), ports(&[(&long, "TCP", 80)]))));
    refuses(Rule::TextLimit, |r| drop(r.hostnames.insert("10.9.0.1".into(), "not a name".into())));
    refuses(Rule::TextLimit, |r| r.zones.get_mut("10.9.0.1").unwrap().zone = long.clone());
    refuses(Rule::TextLimit, |r| r.zones.get_mut("10.9.0.1").unwrap().for_zones = Some(vec!["z".into(); 9]));
    refuses(Rule::TextLimit, |r| drop(r.labels.insert("a/b/c".into(), String::new())));
    refuses(Rule::TextLimit, |r| drop(r.labels.insert("a".into(), long.clone())));
    refuses(Rule::TextLimit, |r| drop(r.selector.insert("".into(), "a".into())));
    let names = ["", "Upper", "-a", "a-", "a.b", "a/b", &"x".repeat(64)];
    for name in names {
        let mut record = service(&[]);
        record.key.name = name.into();
        let refusal = admission().service(&format!("test/{name}"), &record).unwrap_err();
        assert_eq!(refusal.rule, Rule::TextLimit, "{name:?}");
    }
}

#[test]
fn texts_of_slices() {
    let check = |rule, change: fn(&mut SliceRecord)| {
        let mut record = slice(&["10.9.0.1"]);
        change(&mut record);
        let suffix = format!("{}/{}", record.namespace, record.name);
        let refusal = admission().slice(&suffix, &record).unwrap_err();
        assert_eq!(refusal.rule, rule, "{}", refusal.detail);
    };
    check(Rule::NoService, |r| r.labels.clear());
    check(Rule::TextLimit, |r| drop(r.labels.insert("kubernetes.io/service-name".into(), "a.b".into())));
    check(Rule::TextLimit, |r| r.name = "a..b".into());
    check(Rule::TextLimit, |r| r.name = "a".repeat(254).into());
    check(Rule::TextLimit, |r| drop(r.annotations.insert("a".into(), "x".repeat(256 * 1024))));
    check(Rule::TextLimit, |r| r.endpoints[0].node_name = Some("a b".into()));
    check(Rule::TextLimit, |r| r.endpoints[0].hostname = Some("a.b".into()));
    check(Rule::TextLimit, |r| r.endpoints[0].zone = Some("a\n".into()));
    check(Rule::TextLimit, |r| r.endpoints[0].for_zones = vec!["é".into()]);
}

#[test]
fn a_refusal_repeats_only_the_beginning_of_a_long_text() {
    let mut record = slice(&[]);
    record.labels.insert("a".into(), "x".repeat(1_000_000));
    let refusal = admission().slice("test/echo-1", &record).unwrap_err();
    assert_eq!(refusal.detail.len(), 200);
}

#[test]
fn rules_have_names_of_their_own() {
    let names: std::collections::BTreeSet<&str> = Rule::ALL.iter().map(|rule| rule.name()).collect();
    assert_eq!(names.len(), Rule::ALL.len());
    assert!(names.iter().all(|name| name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')));
}

#[test]
fn nodes() {
    let pair = |kind: &str, ip: &str| (kind.into(), ip.into());
    let mut record = NodeRecord {
        name: "n1".into(),
        cluster: "east".into(),
        cluster_id: 3,
        addresses: vec![
            pair("InternalIP", "172.18.0.2"),
            pair("ExternalIP", "127.0.0.1"),
            pair("InternalIP", "10.1.0.1"),
            pair("InternalIP", "192.0.2.1"),
        ],
        ..NodeRecord::default()
    };
    let node = admission().node("n1", &record).unwrap();
    assert_eq!(node.addresses, ["172.18.0.2".parse::<Addr>().unwrap()]);
    let rules: Vec<Rule> = node.refusals.iter().map(|r| r.rule).collect();
    assert_eq!(rules, [Rule::SpecialAddress, Rule::OwnRange, Rule::OwnNode]);
    assert_eq!(admission().node("n2", &record).unwrap_err().rule, Rule::KeyMismatch);
    record.cluster_id = 4;
    assert_eq!(admission().node("n1", &record).unwrap_err().rule, Rule::ClusterId);
}

#[test]
fn a_record_of_too_many_backends_is_refused() {
    let mut record = slice(&vec!["10.9.0.1"; 1_001]);
    record.ports = vec![record.ports[0].clone(); 100];
    check_slice(&record, expect!["refused by too-large: 100100 backends in one record: at most 100000"]);
}
