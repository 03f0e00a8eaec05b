use proptest::prelude::*;
use tombolo_core::id::{ClusterName, ServiceKey};
use tombolo_core::model::{BackendState, Endpoint, Slice};
use tombolo_core::own::{ENDPOINTS_PER_KEY, MeshSlice, OwnKey, OwnRecord};

use super::{decode, encode, key_to_string, parse_key, split};
use crate::proto::arbitrary::{
    cluster_id, cluster_info, cluster_name, name, node_info, peer_state, refused_report, service_key, service_spec,
    slice,
};

fn key() -> impl Strategy<Value = OwnKey> {
    prop_oneof![
        Just(OwnKey::Heartbeat),
        Just(OwnKey::Cluster),
        service_key().prop_map(OwnKey::Service),
        (service_key(), name()).prop_map(|(service, slice)| OwnKey::Local { service, slice }),
        (service_key(), cluster_name(), name()).prop_map(|(service, cluster, slice)| OwnKey::Mesh {
            service,
            cluster,
            slice
        }),
        cluster_name().prop_map(OwnKey::Peer),
        cluster_name().prop_map(OwnKey::Synced),
        name().prop_map(OwnKey::Node),
        cluster_name().prop_map(OwnKey::Refused),
    ]
}

fn record(key: &OwnKey) -> BoxedStrategy<OwnRecord> {
    match key {
        OwnKey::Heartbeat => any::<u64>().prop_map(OwnRecord::Heartbeat).boxed(),
        OwnKey::Synced(_) => any::<u64>().prop_map(OwnRecord::Synced).boxed(),
        OwnKey::Cluster => cluster_info().prop_map(OwnRecord::Cluster).boxed(),
        OwnKey::Service(service) => service_spec(service.clone()).prop_map(OwnRecord::Service).boxed(),
        OwnKey::Local { .. } => slice(20).prop_map(OwnRecord::Local).boxed(),
        OwnKey::Mesh { .. } => (cluster_id(), any::<i64>(), slice(20))
            .prop_map(|(cluster_id, revision, slice)| OwnRecord::Mesh(MeshSlice { cluster_id, revision, slice }))
            .boxed(),
        OwnKey::Peer(_) => peer_state().prop_map(OwnRecord::Peer).boxed(),
        OwnKey::Node(_) => node_info().prop_map(OwnRecord::Node).boxed(),
        OwnKey::Refused(_) => refused_report().prop_map(OwnRecord::Refused).boxed(),
    }
}

proptest! {
    #[test]
    fn what_is_encoded_decodes_equal((key, record) in key().prop_flat_map(|key| {
        let records = record(&key);
        (Just(key), records)
    })) {
        let bytes = encode(&record);
        prop_assert_eq!(decode(&key, &bytes).unwrap(), record.clone());
        prop_assert_eq!(encode(&record), bytes);
    }

    #[test]
    fn keys_parse_back(key in key()) {
        prop_assert_eq!(parse_key(&key_to_string(&key)), Some(key));
    }

    #[test]
    fn any_bytes_are_a_record_or_an_error_naming_the_key(
        key in key(),
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        if let Err(error) = decode(&key, &bytes) {
            prop_assert_eq!(error.key, key_to_string(&key));
        }
    }

    #[test]
    fn a_damaged_record_is_a_record_or_an_error(
        (key, record) in key().prop_flat_map(|key| { let records = record(&key); (Just(key), records) }),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut bytes = encode(&record).to_vec();
        if !bytes.is_empty() {
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _either = decode(&key, &bytes);
            let _shorter = decode(&key, &bytes[..at]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn splitting_loses_nothing_and_keeps_to_the_limit(slice in slice(350)) {
        let parts = split(slice.clone(), "echo-x");
        prop_assert!(parts.iter().all(|(_, part)| part.endpoints.len() <= ENDPOINTS_PER_KEY));
        let names: Vec<&str> = parts.iter().map(|(name, _)| name.as_str()).collect();
        let expected = match slice.endpoints.len() {
            0..=100 => vec!["echo-x"],
            101..=200 => vec!["echo-x.0", "echo-x.1"],
            201..=300 => vec!["echo-x.0", "echo-x.1", "echo-x.2"],
            _ => vec!["echo-x.0", "echo-x.1", "echo-x.2", "echo-x.3"],
        };
        prop_assert_eq!(names, expected);
        let endpoints = parts.into_iter().flat_map(|(_, part)| part.endpoints).collect();
        prop_assert_eq!(Slice { endpoints }, slice);
    }
}

#[test]
fn no_two_slices_meet_in_one_key() {
    let endpoint = Endpoint {
        addr: [7; 16].into(),
        ports: [].into(),
        state: BackendState::Active,
        was_ready: true,
        weight: 100,
        node: None,
        zone: None,
        hints: [].into(),
        doubtful: false,
    };
    let of = |endpoints: usize| Slice { endpoints: vec![endpoint.clone(); endpoints] };
    let named = |n: usize, base: &str| split(of(n), base).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    assert_eq!(named(101, "a"), ["a.0", "a.1"]);
    assert_eq!(named(1, "a.0"), ["a.0.0"]);
    assert_eq!(named(101, "a.0"), ["a.0.0", "a.0.1"]);
    assert_eq!(named(1, "a.0.0"), ["a.0.0.0"]);
    assert_eq!(named(1, "a.b"), ["a.b"]);
    assert_eq!(named(1, "a."), ["a."]);
}

#[test]
fn keys_as_text() {
    let service = ServiceKey::new("default", "rebel-base");
    let cluster = ClusterName::new("ne").unwrap();
    let keys = [
        OwnKey::Heartbeat,
        OwnKey::Cluster,
        OwnKey::Service(service.clone()),
        OwnKey::Local { service: service.clone(), slice: "rebel-base-x7k2p.1".into() },
        OwnKey::Mesh { service, cluster: cluster.clone(), slice: "_legacy".into() },
        OwnKey::Peer(cluster.clone()),
        OwnKey::Synced(cluster.clone()),
        OwnKey::Node("we-1".into()),
        OwnKey::Refused(cluster),
    ];
    let text: Vec<String> = keys.iter().map(key_to_string).collect();
    expect_test::expect![[r#"
        tombolo/v1/agents/heartbeat
        tombolo/v1/agents/cluster
        tombolo/v1/agents/services/default/rebel-base
        tombolo/v1/agents/local/default/rebel-base/rebel-base-x7k2p.1
        tombolo/v1/agents/mesh/default/rebel-base/ne/_legacy
        tombolo/v1/agents/peers/ne
        tombolo/v1/agents/synced/ne
        tombolo/v1/control/nodes/we-1
        tombolo/v1/control/refused/ne"#]]
    .assert_eq(&text.join("\n"));
}

#[test]
fn what_is_no_key() {
    for text in [
        "",
        "tombolo/v1/",
        "tombolo/v2/agents/cluster",
        "tombolo/v1/agents/cluster/",
        "tombolo/v1/agents/services/default",
        "tombolo/v1/agents/services/default/a/b",
        "tombolo/v1/agents/services//a",
        "tombolo/v1/agents/peers/NE",
        "tombolo/v1/agents/mesh/a/b/ne/c/d",
        "tombolo/v1/agents/tides/a",
    ] {
        assert_eq!(parse_key(text), None, "{text}");
    }
}

#[test]
fn shared_ports_are_written_once() {
    let one = |n: u8| {
        let ports: std::sync::Arc<[_]> = [tombolo_core::model::Port {
            name: "a-name-of-some-length".into(),
            protocol: tombolo_core::model::Protocol::Tcp,
            number: 8080,
        }]
        .into();
        Endpoint {
            addr: std::net::Ipv4Addr::new(10, 0, 0, n).into(),
            ports,
            state: BackendState::Active,
            was_ready: true,
            weight: 100,
            node: None,
            zone: None,
            hints: Box::default(),
            doubtful: false,
        }
    };
    let slice = Slice { endpoints: (0..100).map(one).collect() };
    let bytes = encode(&OwnRecord::Local(slice));
    assert!(bytes.len() < 1300, "{} bytes: eleven an endpoint, and one port set", bytes.len());
    let key = OwnKey::Local { service: ServiceKey::new("a", "b"), slice: "c".into() };
    let OwnRecord::Local(decoded) = decode(&key, &bytes).unwrap() else { panic!("a local slice") };
    assert!(std::sync::Arc::ptr_eq(&decoded.endpoints[0].ports, &decoded.endpoints[99].ports));
}

#[test]
fn meanings_that_are_not_known_are_errors() {
    // PeerState.session = 9, Slice's endpoint without its port set, ClusterInfo without a name.
    let cluster = ClusterName::new("ne").unwrap();
    let local = OwnKey::Local { service: ServiceKey::new("a", "b"), slice: "c".into() };
    let cases: [(OwnKey, &[u8]); 3] =
        [(OwnKey::Peer(cluster), &[0x10, 9]), (local, &[0x12, 2, 0x0a, 0]), (OwnKey::Cluster, &[])];
    let errors: Vec<String> = cases.iter().map(|(key, bytes)| decode(key, bytes).unwrap_err().to_string()).collect();
    expect_test::expect![[r#"
        tombolo/v1/agents/peers/ne: session is missing or not understood
        tombolo/v1/agents/local/a/b/c: port set is missing or not understood
        tombolo/v1/agents/cluster: cluster is missing or not understood"#]]
    .assert_eq(&errors.join("\n"));
}
