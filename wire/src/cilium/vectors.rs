//! Every record that Cilium's own code judged (tests/data/vectors.json), through ours.
//!
//! The exact bytes of the real encoder are compared at the level of the JSON and protobuf structs; core's records forget
//! what has no meaning to the rules (null or empty, fields nobody reads), and the tests list where that shows.

use std::collections::BTreeMap;

use expect_test::{Expect, expect};
use serde_json::{Value, json};
use tombolo_core::id::{ClusterId, ClusterName, Family, MaxClusters};
use tombolo_core::identity::LabelSet;
use tombolo_core::record::{
    IdentityLabel, IdentityRecord, IpRecord, NamedPort, NodeRecord, PortMap, RawCidr, Record, ServiceRecord,
    SliceEndpoint, SlicePort, SliceRecord,
};

use super::key::Kind;
use super::tests::east;
use super::{config, decode, decode_config, encode_config, identity, ip, json, node, service, slice, validate_config};

fn vectors() -> Vec<Value> {
    serde_json::from_str(include_str!("../../tests/data/vectors.json")).unwrap()
}

fn derived(max: u16) -> Value {
    let text = match max {
        255 => include_str!("../../tests/data/derived-255.json"),
        _ => include_str!("../../tests/data/derived-511.json"),
    };
    serde_json::from_str(text).unwrap()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn value(vector: &Value) -> Vec<u8> {
    match (vector["value"].as_str(), vector["value_hex"].as_str()) {
        (Some(text), _) => text.into(),
        (None, Some(digits)) => unhex(digits),
        (None, None) => Vec::new(),
    }
}

fn accepted(vector: &Value) -> bool {
    vector["verdict"] == "accept" && vector["agent_panic"].is_null()
}

/// Runs all vectors of a kind; `core` lists the accepted ones whose core record renders or encodes differently.
fn check(
    name: &str,
    kind: Kind,
    exact: impl Fn(&[u8]) -> String,
    core: impl Fn(&Record) -> (Value, String),
    differs: &Expect,
) {
    let mut different = String::new();
    let mut count = 0;
    for v in vectors().iter().filter(|v| v["kind"] == name) {
        count += 1;
        let (label, bytes) = (&v["name"], value(v));
        let result = decode(kind, v["key"].as_str().unwrap(), &bytes, &east());
        assert_eq!(result.is_ok(), accepted(v), "{label}: {result:?}, Cilium: {}", v["error"]);
        let reencoded = v["decoded"]["protobuf_hex"].as_str().or(v["reencoded"].as_str());
        if let Some(reencoded) = reencoded {
            assert_eq!(exact(&bytes), reencoded, "{label}");
        }
        if let Ok(record) = result {
            let (rendered, encoded) = core(&record);
            let expected = v["decoded"].get("record").unwrap_or(&v["decoded"]);
            if rendered != normal(expected.clone()) {
                different += &format!("{label}: decoded\n");
            }
            if Some(encoded.as_str()) != reencoded {
                different += &format!("{label}: encoded\n");
            }
        }
    }
    assert!(count >= 30, "{count} {name} vectors");
    differs.assert_eq(&different);
}

/// Null and empty are one to core's records: removes both, but for a node's nullable labels and empty texts.
fn normal(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let keep = |key: &str, v: &Value| {
                matches!(key, "Labels" | "Annotations") || !(v.is_null() || *v == json!({}) || *v == json!([]))
            };
            map.into_iter().map(|(k, v)| (k, normal(v))).filter(|(k, v)| keep(k, v)).collect()
        }
        Value::Array(list) => list.into_iter().map(normal).collect(),
        other => other,
    }
}

#[test]
fn services() {
    let render = |s: &ServiceRecord| {
        let ports = |map: &PortMap| -> Value {
            map.iter().map(|(name, p)| (name.clone(), json!({"Protocol": p.protocol, "Port": p.port}))).collect()
        };
        let addresses = |all: &BTreeMap<String, PortMap>| -> Value {
            all.iter().map(|(address, map)| (address.clone(), ports(map))).collect()
        };
        let names = |zones: &Vec<String>| zones.iter().map(|name| json!({"name": name})).collect::<Value>();
        let zones = s.zones.iter().map(|(address, z)| {
            (address.clone(), json!({"zone": z.zone, "forZones": z.for_zones.as_ref().map(names)}))
        });
        json!({
            "cluster": s.cluster, "namespace": s.key.namespace, "name": s.key.name, "clusterID": s.cluster_id,
            "frontends": addresses(&s.frontends), "backends": addresses(&s.backends), "hostnames": s.hostnames,
            "zones": zones.collect::<Value>(), "labels": s.labels, "selector": s.selector,
            "includeExternal": s.include_external, "shared": s.shared,
        })
    };
    check(
        "services",
        Kind::Services,
        |bytes| String::from_utf8(json::write(&service::read(bytes).unwrap())).unwrap(),
        |record| {
            let Record::Service(record) = record else { panic!("not a service") };
            (normal(render(record)), String::from_utf8(super::encode_service(record).to_vec()).unwrap())
        },
        &expect![[r#"
            "raw-null-maps": encoded
            "raw-null-portmap": encoded
        "#]],
    );
}

#[test]
fn nodes() {
    let mask = |cidr: &RawCidr| {
        let long = cidr.ip.contains(':');
        let bits = u128::MAX.checked_shl(128 - u32::from(cidr.prefix_len)).unwrap_or(0).to_be_bytes();
        base64::Engine::encode(&base64::prelude::BASE64_STANDARD, &bits[..if long { 16 } else { 4 }])
    };
    let cidr = move |cidr: &RawCidr| json!({"IP": cidr.ip, "Mask": mask(cidr)});
    let render = |n: &NodeRecord| {
        let addresses = n.addresses.iter().map(|(kind, ip)| json!({"Type": kind, "IP": ip}));
        json!({
            "Name": n.name, "Cluster": n.cluster, "ClusterID": n.cluster_id,
            "IPAddresses": addresses.collect::<Value>(),
            "IPv4AllocCIDR": n.ipv4_cidr.as_ref().map(cidr), "IPv6AllocCIDR": n.ipv6_cidr.as_ref().map(cidr),
            "IPv4SecondaryAllocCIDRs": n.ipv4_secondary_cidrs.iter().map(cidr).collect::<Value>(),
            "IPv6SecondaryAllocCIDRs": n.ipv6_secondary_cidrs.iter().map(cidr).collect::<Value>(),
            "IPv4HealthIP": n.extra_ips[0], "IPv6HealthIP": n.extra_ips[1],
            "IPv4IngressIP": n.extra_ips[2], "IPv6IngressIP": n.extra_ips[3],
            "Source": n.source, "EncryptionKey": n.encryption_key, "Labels": n.labels, "Annotations": n.annotations,
            "WireguardPubKey": n.wireguard_key, "BootID": n.boot_id,
        })
    };
    check(
        "nodes",
        Kind::Nodes,
        |bytes| String::from_utf8(json::write(&node::read(bytes).unwrap())).unwrap(),
        |record| {
            let Record::Node(record) = record else { panic!("not a node") };
            (normal(render(record)), String::from_utf8(super::encode_node(record).to_vec()).unwrap())
        },
        &expect![[r#"
            "secondary-cidrs-empty": encoded
            "raw-cidr-empty-object": encoded
            "raw-cidr-16-byte-ipv4-mask": decoded
            "raw-cidr-16-byte-ipv4-mask": encoded
        "#]],
    );
}

#[test]
fn endpoint_slices() {
    let endpoint = |e: &SliceEndpoint| {
        let zones = e.for_zones.iter().map(|name| json!({"name": name}));
        json!({
            "addresses": e.addresses, "hostname": e.hostname, "nodeName": e.node_name, "zone": e.zone,
            "hints": {"forZones": zones.collect::<Value>()},
            "conditions": {
                "ready": e.conditions.ready, "serving": e.conditions.serving, "terminating": e.conditions.terminating,
            },
        })
    };
    let port =
        |p: &SlicePort| json!({"name": p.name, "protocol": p.protocol, "port": p.port, "appProtocol": p.app_protocol});
    let render = |s: &SliceRecord| {
        let family = if s.family == Family::V4 { "IPv4" } else { "IPv6" };
        json!({
            "cluster": s.cluster, "clusterID": s.cluster_id, "namespace": s.namespace, "name": s.name,
            "labels": s.labels, "annotations": s.annotations, "addressType": family,
            "endpoints": s.endpoints.iter().map(endpoint).collect::<Value>(),
            "ports": s.ports.iter().map(port).collect::<Value>(),
        })
    };
    check(
        "endpointslices",
        Kind::EndpointSlices,
        |bytes| hex(&prost::Message::encode_to_vec(&slice::read(&slice::decompress(bytes).unwrap()).unwrap())),
        |record| {
            let Record::Slice(record) = record else { panic!("not a slice") };
            let frame = super::encode_slice(record);
            assert_eq!(frame[..4], [0x28, 0xb5, 0x2f, 0xfd], "zstd's magic number");
            (normal(render(record)), hex(&slice::decompress(&frame).unwrap()))
        },
        &expect![[r#"
            "deprecated-topology": decoded
            "deprecated-topology": encoded
        "#]],
    );
}

#[test]
fn cluster_configs() {
    for v in vectors().iter().filter(|v| v["kind"] == "cluster-config") {
        let (label, bytes) = (&v["name"], value(v));
        let result = decode_config(&bytes).and_then(|c| validate_config(&c, MaxClusters::C255).map(|id| (id, c)));
        assert_eq!(result.is_ok(), accepted(v), "{label}: {result:?}, Cilium: {}", v["error"]);
        let Ok((id, config)) = result else { continue };
        assert_eq!(u64::from(id.get()), v["decoded"]["id"].as_u64().unwrap(), "{label}");
        let exact = String::from_utf8(json::write(&config::read(&bytes).unwrap())).unwrap();
        assert_eq!(exact, v["reencoded"].as_str().unwrap(), "{label}");
        assert_eq!(encode_config(&config), exact, "{label}");
        let rendered: Value = serde_json::from_slice(&encode_config(&config)).unwrap();
        assert_eq!(rendered, v["decoded"], "{label}");
    }
}

#[test]
fn identities() {
    let render = |i: &IdentityRecord| {
        let label = |l: &IdentityLabel| json!({"source": l.source, "key": l.key, "value": l.value});
        json!({"id": i.number, "labels": i.labels.iter().map(label).collect::<Value>()})
    };
    let encode =
        |labels| String::from_utf8(super::encode_identity(&IdentityRecord { number: 0, labels }).into()).unwrap();
    check(
        "identities",
        Kind::Identities,
        |bytes| encode(identity::decode_labels(bytes).unwrap()),
        |record| {
            let Record::Identity(record) = record else { panic!("not an identity") };
            (normal(render(record)), encode(record.labels.clone()))
        },
        &expect![],
    );
}

#[test]
fn addresses() {
    let render = |i: &IpRecord| {
        let number = |protocol: &str| match protocol {
            "TCP" => "6",
            "UDP" => "17",
            other => panic!("{other}"),
        };
        let known = i.named_ports.iter().filter(|p| p.protocol != "FOO");
        let port = |p: &NamedPort| json!(format!("{}={}/{}", p.name, p.port, number(&p.protocol)));
        let ip = i.prefix_len.map_or_else(|| i.ip.to_string(), |len| format!("{}/{len}", i.ip));
        let mut map = json!({
            "IP": ip, "ID": i.identity, "Key": i.encryption_key,
            "HostIP": i.host_ip.map(|host| host.to_string()).unwrap_or_default(),
            "NamedPorts": known.map(port).collect::<Value>(),
        });
        for (field, text) in [("Namespace", &i.namespace), ("Pod", &i.pod)] {
            if !text.is_empty() {
                map[field] = json!(text);
            }
        }
        map
    };
    check(
        "ip",
        Kind::Ip,
        |bytes| String::from_utf8(json::write(&ip::read(bytes).unwrap())).unwrap(),
        |record| {
            let Record::Ip(record) = record else { panic!("not an address") };
            (normal(render(record)), String::from_utf8(super::encode_ip(record).into()).unwrap())
        },
        &expect![[r#"
            "reserved-host-1": decoded
        "#]],
    );
}

#[test]
fn kinds_that_are_not_read_yet() {
    let exports: Vec<Value> = vectors().into_iter().filter(|v| v["kind"] == "serviceexports").collect();
    for v in &exports {
        let result = decode(Kind::ServiceExports, v["key"].as_str().unwrap(), &value(v), &east());
        assert!(result.is_err(), "{}: {result:?}", v["name"]);
    }
    println!("skipped vectors: {} serviceexports", exports.len());
    assert_eq!(exports.len(), 34);
}

#[test]
fn derived_tables() {
    for max in [MaxClusters::C255, MaxClusters::C511] {
        let tables = derived(max.largest());
        let ok = |row: &Value| row["error"] == "";
        for row in tables["remote_config"].as_array().unwrap() {
            let text = json!({"id": row["remote_id"], "capabilities": {
                "maxConnectedClusters": row["remote_max"], "endpointSlicesExportMode": row["export_mode"]}});
            let result = decode_config(text.to_string().as_bytes()).and_then(|c| validate_config(&c, max));
            assert_eq!(result.is_ok(), ok(row), "{row}: {result:?}");
        }
        for row in tables["validate_cluster_id"].as_array().unwrap() {
            let id = u32::try_from(row["cluster_id"].as_u64().unwrap()).unwrap();
            assert_eq!(ClusterId::new(id, max).is_ok(), ok(row), "{row}");
        }
        for row in tables["identity_ranges"].as_array().unwrap() {
            let number = |field: &str| u32::try_from(row[field].as_u64().unwrap()).unwrap();
            // The cluster without an id is none of a mesh.
            let Ok(id) = ClusterId::new(number("cluster_id"), max) else { continue };
            assert_eq!(max.identities(id), number("min")..=number("max"), "{row}");
        }
        for row in tables["validate_cluster_name"].as_array().unwrap() {
            assert_eq!(ClusterName::new(row["name"].as_str().unwrap()).is_ok(), ok(row), "{row}");
        }
        for row in tables["max_connected_clusters_flag"].as_array().unwrap() {
            let n = u32::try_from(row["max_connected_clusters"].as_u64().unwrap()).unwrap();
            assert_eq!(MaxClusters::new(n).is_ok(), ok(row), "{row}");
        }
    }
}

#[test]
fn label_texts() {
    for row in derived(255)["identity_label_strings"].as_array().unwrap() {
        let text = row["value"].as_str().unwrap();
        let labels = identity::decode_labels(text.as_bytes()).unwrap();
        // A value with the separator in it is two labels when it is read again, to Cilium too.
        if text.contains("e;f") {
            assert_eq!(labels.len(), 2, "{row}");
            continue;
        }
        let encoded = super::encode_identity(&IdentityRecord { number: 0, labels: labels.clone() });
        assert_eq!(encoded, text, "{row}");
        assert_eq!(labels.len(), row["labels"].as_object().unwrap().len(), "{row}");
        assert_eq!(LabelSet::new(labels.clone()).labels(), labels, "{row}: sorted as Cilium sorts");
    }
}
