use expect_test::{Expect, expect};
use tombolo_core::id::{ClusterId, ClusterName, Family, MaxClusters, ServiceKey};
use tombolo_core::object::Labels;
use tombolo_core::record::{Record, SliceRecord};

use super::key::{self, Kind};
use super::{DecodeError, PeerIdentity, decode, encode_service, encode_slice};

pub(super) fn east() -> PeerIdentity {
    let max = MaxClusters::C255;
    PeerIdentity { name: ClusterName::new("east").unwrap(), id: ClusterId::new(3, max).unwrap(), max }
}

#[test]
fn keys() {
    let we = ClusterName::new("we").unwrap();
    let mut text = format!("{}\n{}\n", key::HEARTBEAT, key::cluster_config(&we));
    for kind in Kind::ALL {
        text += &format!("{} | {}\n", kind.state_prefix(&we), kind.canary(&we));
        text += &format!("{} | {}\n", kind.cache_prefix(&we), kind.cache_canary(&we));
    }
    text += &key::service(&we, &ServiceKey::new("test", "echo"));
    text += "\n";
    text += &key::slice(&we, "test", "echo-x7k2p");
    text += "\n";
    text += &key::node(&we, "node-1");
    expect![[r#"
        cilium/.heartbeat
        cilium/cluster-config/we
        cilium/state/nodes/v1/we/ | cilium/synced/we/cilium/state/nodes/v1
        cilium/cache/nodes/v1/we/ | cilium/synced/we/cilium/cache/nodes/v1
        cilium/state/services/v1/we/ | cilium/synced/we/cilium/state/services/v1
        cilium/cache/services/v1/we/ | cilium/synced/we/cilium/cache/services/v1
        cilium/state/endpointslices/v1/we/ | cilium/synced/we/cilium/state/endpointslices/v1
        cilium/cache/endpointslices/v1/we/ | cilium/synced/we/cilium/cache/endpointslices/v1
        cilium/state/identities/v1/id/ | cilium/synced/we/cilium/state/identities/v1
        cilium/cache/identities/v1/we/id/ | cilium/synced/we/cilium/cache/identities/v1
        cilium/state/ip/v1/default/ | cilium/synced/we/cilium/state/ip/v1
        cilium/cache/ip/v1/we/ | cilium/synced/we/cilium/cache/ip/v1
        cilium/state/serviceexports/v1/we/ | cilium/synced/we/cilium/state/serviceexports/v1
        cilium/cache/serviceexports/v1/we/ | cilium/synced/we/cilium/cache/serviceexports/v1
        cilium/state/services/v1/we/test/echo
        cilium/state/endpointslices/v1/we/test/echo-x7k2p
        cilium/state/nodes/v1/we/node-1"#]]
    .assert_eq(&text);
}

/// What becomes of `{"cluster":"east","namespace":"test","name":"echo","clusterID":3 … }`.
fn check(more: &str, expected: &Expect) {
    let text = format!(r#"{{"cluster":"east","namespace":"test","name":"echo","clusterID":3{more}}}"#);
    let told = match decode(Kind::Services, "cilium/state/services/v1/east/test/echo", text.as_bytes(), &east()) {
        Ok(Record::Service(service)) => String::from_utf8(encode_service(&service).to_vec()).unwrap(),
        other => other.unwrap_err().to_string(),
    };
    expected.assert_eq(told.strip_prefix(r#"{"cluster":"east","namespace":"test","name":"echo","#).unwrap_or(&told));
}

#[test]
fn strings_as_go_reads_them() {
    check(
        r#","labels":{"a":"\ud83d\ude80 \ud83dx \ude80 \u00e9\/\b\f"}"#,
        &expect![[
            r#""frontends":{},"backends":{},"labels":{"a":"🚀 �x � é/\b\f"},"selector":{},"includeExternal":false,"shared":false,"clusterID":3}"#
        ]],
    );
    check(
        r#","labels":{"\u0061":"1","a":"2"}"#,
        &expect![[
            r#""frontends":{},"backends":{},"labels":{"a":"2"},"selector":{},"includeExternal":false,"shared":false,"clusterID":3}"#
        ]],
    );
    check(
        ",\"labels\":{\"a\":\"\u{1}\"}",
        &expect!["not a service record: labels.a: expected the rest of a string at byte 80"],
    );
    check(r#","labels":{"a":"\x41"}"#, &expect!["not a service record: labels.a: expected an escape at byte 81"]);
    check(
        r#","labels":{"a":"\u12g4"}"#,
        &expect!["not a service record: labels.a: expected four hexadecimal digits at byte 81"],
    );
    check(
        r#","labels":{"a":null}"#,
        &expect![[
            r#""frontends":{},"backends":{},"labels":{"a":""},"selector":{},"includeExternal":false,"shared":false,"clusterID":3}"#
        ]],
    );
}

#[test]
fn repetition_as_go_reads_it() {
    check(
        r#","backends":{"10.0.0.1":{"a":{"Port":1}}},"backends":{"10.0.0.1":{"b":{"Port":2}}}"#,
        &expect![[
            r#""frontends":{},"backends":{"10.0.0.1":{"b":{"Protocol":"","Port":2}}},"labels":{},"selector":{},"includeExternal":false,"shared":false,"clusterID":3}"#
        ]],
    );
    check(
        r#","backends":{"10.0.0.1":{"a":{"Port":1,"port":2,"pROTOCOL":"TCP"}}},"backends":null,"ſhared":true"#,
        &expect![[
            r#""frontends":{},"backends":{},"labels":{},"selector":{},"includeExternal":false,"shared":true,"clusterID":3}"#
        ]],
    );
    check(
        r#","zones":{"x":{"zone":"a","forZones":[{"name":"b"},{"name":"c"}],"forzones":[{},null]}}"#,
        &expect![[
            r#""frontends":{},"backends":{},"zones":{"x":{"zone":"a","forZones":[{"name":"b"},{"name":"c"}]}},"labels":{},"selector":{},"includeExternal":false,"shared":false,"clusterID":3}"#
        ]],
    );
}

#[test]
fn mistakes_have_a_place() {
    check(
        r#","backends":{"10.0.0.1":{"http":{"Port":"80"}}}"#,
        &expect!["not a service record: backends.10.0.0.1.http.Port: expected a number from 0 to 65535 at byte 104"],
    );
    check(
        r#","backends":{"10.0.0.1":{"http":null}}"#,
        &expect![[r#"backends: address 10.0.0.1: port "http" is null"#]],
    );
    check(r#","frontends":{"10.0.0.256":{}}"#, &expect![[r#"frontends: "10.0.0.256" is no IP address"#]]);
    check(
        r#","zones":{"a":{"forZones":[{"name":1}]}}"#,
        &expect!["not a service record: zones.a.forZones.0.name: expected a string at byte 99"],
    );
    check(r#","future":[1,2,{"a":tru}]"#, &expect!["not a service record: expected true at byte 84"]);
    check(r#","future":01"#, &expect!["not a service record: expected a comma or the end of what is open at byte 75"]);
    check(r#","future":-"#, &expect!["not a service record: expected a digit at byte 75"]);
    check(r#","cluster":"west""#, &expect![[r#"cluster is "west", expected east"#]]);
}

#[test]
fn nesting_has_an_end_and_takes_no_stack() {
    let nest = |depth: usize| format!(r#","future":{}1{}"#, r#"{"a":["#.repeat(depth / 2), "]}".repeat(depth / 2));
    check(
        &nest(9_998),
        &expect![[
            r#""frontends":{},"backends":{},"labels":{},"selector":{},"includeExternal":false,"shared":false,"clusterID":3}"#
        ]],
    );
    check(&nest(20_000), &expect!["not a service record: expected less nesting at byte 30074"]);
    check(
        &format!(r#","future":{}"#, "[".repeat(1_000_000)),
        &expect!["not a service record: expected less nesting at byte 10074"],
    );
}

#[test]
fn bytes_that_are_no_text() {
    let text = b"{\"cluster\":\"east\",\"namespace\":\"test\",\"name\":\"echo\",\"clusterID\":3,\"labels\":{\"a\":\"\xe2\x82-\xff\"}}";
    let record = decode(Kind::Services, "cilium/cache/services/v1/east/test/echo", text, &east()).unwrap();
    let Record::Service(record) = record else { panic!("a service") };
    assert_eq!(record.labels["a"], "\u{fffd}\u{fffd}-\u{fffd}");
}

#[test]
fn a_slice_of_millions_of_empty_endpoints_is_too_large() {
    let head = encode_slice(&SliceRecord {
        cluster: "east".into(),
        cluster_id: 3,
        namespace: "test".into(),
        name: "echo".into(),
        labels: Labels::new(),
        annotations: Labels::new(),
        family: Family::V4,
        endpoints: Vec::new(),
        ports: Vec::new(),
    });
    let mut content = super::slice::decompress(&head).unwrap();
    content.extend([(8 << 3) | 2, 0].repeat(1_000_000));
    assert_eq!(super::slice::read(&content).unwrap_err(), DecodeError::TooLarge);
}

#[test]
fn frames() {
    let record = SliceRecord {
        cluster: "east".into(),
        cluster_id: 3,
        namespace: "test".into(),
        name: "echo".into(),
        labels: Labels::new(),
        annotations: Labels::new(),
        family: Family::V4,
        endpoints: Vec::new(),
        ports: Vec::new(),
    };
    let with = |annotation: usize| {
        let annotations = [("a".into(), "x".repeat(annotation))].into();
        encode_slice(&SliceRecord { annotations, ..record.clone() })
    };
    let told = |bytes: &[u8]| match decode(
        Kind::EndpointSlices,
        "cilium/state/endpointslices/v1/east/test/echo",
        bytes,
        &east(),
    ) {
        Ok(_) => "accepted".to_owned(),
        Err(error) => error.to_string(),
    };
    let bomb = with(17 << 20);
    assert!(bomb.len() < 20_000, "{} bytes", bomb.len());
    let mut damaged = with(1000).to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 1, 2], &with(10)[..]].concat();
    let cases = [
        with(15 << 20).to_vec(),
        bomb.to_vec(),
        damaged,
        with(1000)[..20].to_vec(),
        skippable,
        [&with(10)[..], b"x"].concat(),
    ];
    expect![[r#"
        accepted
        the endpoint slice is larger than 16777216 bytes when decompressed
        not a zstd frame: Restored data doesn't match checksum
        not a zstd frame: incomplete frame
        accepted
        not a zstd frame: Unknown frame descriptor"#]]
    .assert_eq(&cases.iter().map(|bytes| told(bytes)).collect::<Vec<_>>().join("\n"));
}

#[test]
fn keys_of_others_are_refused() {
    for (kind, key) in [
        (Kind::Services, "cilium/state/services/v1/eastern/test/echo"),
        (Kind::Services, "cilium/state/nodes/v1/east/test/echo"),
        (Kind::Nodes, "cilium/state/nodes/v1/east"),
    ] {
        let error = decode(kind, key, b"{}", &east()).unwrap_err().to_string();
        assert!(error.starts_with("the key is not one of east's"), "{key}: {error}");
    }
}
