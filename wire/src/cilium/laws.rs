//! Laws of Cilium's records: decoding undoes encoding, and no bytes are too odd.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use tombolo_core::id::{Family, ServiceKey};
use tombolo_core::model::Conditions;
use tombolo_core::object::Labels;
use tombolo_core::record::{
    ClusterConfig, ExportMode, IdentityLabel, IdentityRecord, IpRecord, NamedPort, NodeRecord, PortMap, RawCidr,
    RawPort, Record, ServiceRecord, SliceEndpoint, SlicePort, SliceRecord, ZoneHints,
};

use super::key::{self, Kind};
use super::tests::east;
use super::{
    decode, decode_config, encode_config, encode_identity, encode_ip, encode_node, encode_service, encode_slice,
};
use crate::proto::arbitrary::{name, text};

fn labels() -> impl Strategy<Value = Labels> {
    btree_map(text(), ".{0,20}", 0..3)
}

fn address() -> impl Strategy<Value = String> {
    any::<IpAddr>().prop_map(|ip| ip.to_canonical().to_string())
}

fn ports_by_address() -> impl Strategy<Value = BTreeMap<String, PortMap>> {
    let port = (".{0,5}", any::<u16>()).prop_map(|(protocol, port)| RawPort { protocol, port });
    btree_map(address(), btree_map(".{0,10}", port, 0..3), 0..3)
}

fn service() -> impl Strategy<Value = ServiceRecord> {
    let hints = (".{0,10}", option::of(vec(".{0,10}", 0..3)));
    let zones = btree_map(".{0,10}", hints.prop_map(|(zone, for_zones)| ZoneHints { zone, for_zones }), 0..3);
    let addresses = (ports_by_address(), ports_by_address());
    let maps = (addresses, btree_map(".{0,10}", ".{0,10}", 0..3), zones, labels(), labels());
    (name(), name(), maps, any::<[bool; 2]>()).prop_map(
        |(namespace, name, ((frontends, backends), hostnames, zones, labels, selector), [include_external, shared])| {
            ServiceRecord {
                cluster: "east".into(),
                cluster_id: 3,
                key: ServiceKey::new(namespace, name),
                frontends,
                backends,
                hostnames,
                zones,
                labels,
                selector,
                include_external,
                shared,
            }
        },
    )
}

fn node() -> impl Strategy<Value = NodeRecord> {
    let cidr = |long: bool| {
        let ip = match long {
            true => any::<Ipv6Addr>().prop_map(IpAddr::from).boxed(),
            false => any::<Ipv4Addr>().prop_map(IpAddr::from).boxed(),
        };
        (ip, any::<u8>()).prop_map(|(ip, len)| {
            let ip = ip.to_canonical();
            RawCidr { ip: ip.to_string(), prefix_len: len % if ip.is_ipv4() { 33 } else { 129 } }
        })
    };
    let ip = || prop_oneof![Just(String::new()), address()];
    let cidrs = (option::of(cidr(false)), option::of(cidr(true)), vec(cidr(false), 0..2), vec(cidr(true), 0..2));
    let texts = (".{0,10}", ".{0,10}", ".{0,10}");
    let maps = (option::of(labels()), option::of(labels()));
    (name(), vec((".{0,10}", ip()), 0..3), cidrs, [ip(), ip(), ip(), ip()], texts, maps, any::<u8>()).prop_map(
        |(name, addresses, (ipv4_cidr, ipv6_cidr, v4, v6), extra_ips, (source, wireguard_key, boot_id), maps, key)| {
            NodeRecord {
                name: name.to_string(),
                cluster: "east".into(),
                cluster_id: 3,
                addresses,
                ipv4_cidr,
                ipv6_cidr,
                ipv4_secondary_cidrs: v4,
                ipv6_secondary_cidrs: v6,
                extra_ips,
                source,
                encryption_key: key,
                labels: maps.0,
                annotations: maps.1,
                wireguard_key,
                boot_id,
            }
        },
    )
}

fn identity() -> impl Strategy<Value = IdentityRecord> {
    let word = "[a-z$][a-z0-9./-]{0,8}";
    let label = ("[a-z][a-z0-9]{0,5}", word, "[^;]{0,8}").prop_map(|(source, key, value)| IdentityLabel {
        source: source.into(),
        key: key.into(),
        value: value.into(),
    });
    let cluster =
        IdentityLabel { source: "k8s".into(), key: "io.cilium.k8s.policy.cluster".into(), value: "east".into() };
    (196_608..=262_143_u32, vec(label, 0..4)).prop_map(move |(number, mut labels)| {
        labels.push(cluster.clone());
        IdentityRecord { number, labels }
    })
}

fn ip() -> impl Strategy<Value = IpRecord> {
    let number = prop_oneof![0..256_u32, 196_608..=262_143_u32];
    let port = (".{0,8}", any::<u16>(), ".{0,4}").prop_map(|(name, port, protocol)| NamedPort {
        name: name.into(),
        port,
        protocol: protocol.into(),
    });
    let addrs = (any::<IpAddr>(), option::of(any::<u8>()), option::of(any::<IpAddr>()));
    let texts = [".{0,6}", ".{0,6}", ".{0,6}", ".{0,6}"];
    (addrs, number, any::<u8>(), texts, vec(port, 0..3)).prop_map(
        |((ip, len, host), identity, encryption_key, [metadata, namespace, pod, service_account], named_ports)| {
            let ip = ip.to_canonical();
            IpRecord {
                ip: ip.into(),
                prefix_len: len.map(|len| len % if ip.is_ipv4() { 33 } else { 129 }),
                host_ip: host.map(Into::into),
                identity,
                encryption_key,
                metadata,
                namespace: namespace.into(),
                pod: pod.into(),
                service_account: service_account.into(),
                named_ports,
            }
        },
    )
}

fn slice() -> impl Strategy<Value = SliceRecord> {
    let text = || option::of(".{0,10}");
    let endpoint = |long: bool| {
        let ip = any::<u128>().prop_map(move |bits| match long {
            true => Ipv6Addr::from_bits(bits).to_string(),
            false => Ipv4Addr::from_bits(bits as u32).to_string(),
        });
        let conditions = any::<[Option<bool>; 3]>().prop_map(|[ready, serving, terminating]| Conditions {
            ready,
            serving,
            terminating,
        });
        (vec(ip, 0..3), conditions, [text(), text(), text()], vec(".{0,10}", 0..3)).prop_map(
            |(addresses, conditions, [hostname, node_name, zone], for_zones)| SliceEndpoint {
                addresses,
                conditions,
                hostname,
                node_name,
                zone,
                for_zones,
            },
        )
    };
    let port = (".{0,10}", text(), option::of(any::<i32>()), text())
        .prop_map(|(name, protocol, port, app_protocol)| SlicePort { name, protocol, port, app_protocol });
    let family = prop_oneof![
        (Just(Family::V4), vec(endpoint(false), 0..4).boxed()),
        (Just(Family::V6), vec(endpoint(true), 0..4).boxed()),
    ];
    (name(), name(), labels(), labels(), family, vec(port, 0..3)).prop_map(
        |(namespace, name, labels, annotations, (family, endpoints), ports)| SliceRecord {
            cluster: "east".into(),
            cluster_id: 3,
            namespace,
            name,
            labels,
            annotations,
            family,
            endpoints,
            ports,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn services_decode_as_encoded(service in service()) {
        let key = key::service(&east().name, &service.key);
        let bytes = encode_service(&service);
        prop_assert!(serde_json::from_slice::<serde_json::Value>(&bytes).is_ok());
        prop_assert_eq!(decode(Kind::Services, &key, &bytes, &east()), Ok(Record::Service(service)));
    }

    #[test]
    fn nodes_decode_as_encoded(node in node()) {
        let key = key::node(&east().name, &node.name);
        prop_assert_eq!(decode(Kind::Nodes, &key, &encode_node(&node), &east()), Ok(Record::Node(node)));
    }

    #[test]
    fn identities_decode_as_encoded(identity in identity()) {
        let bytes = encode_identity(&identity);
        let key = key::identity(identity.number);
        prop_assert_eq!(decode(Kind::Identities, &key, &bytes, &east()), Ok(Record::Identity(identity)));
    }

    #[test]
    fn addresses_decode_as_encoded(ip in ip()) {
        let key = format!("{}{}", key::ip(ip.ip), ip.prefix_len.map(|len| format!("/{len}")).unwrap_or_default());
        let bytes = encode_ip(&ip);
        prop_assert!(serde_json::from_slice::<serde_json::Value>(&bytes).is_ok());
        prop_assert_eq!(decode(Kind::Ip, &key, &bytes, &east()), Ok(Record::Ip(ip)));
    }

    #[test]
    fn any_text_is_an_identity_or_an_error(text in "[a-z$.:=;]{0,40}", number in any::<u32>()) {
        let text = format!("{text};k8s:io.cilium.k8s.policy.cluster=east");
        let decoded = decode(Kind::Identities, &key::identity(number), text.as_bytes(), &east());
        if let Ok(Record::Identity(record)) = decoded {
            let again = decode(Kind::Identities, &key::identity(number), &encode_identity(&record), &east());
            prop_assert_eq!(again, Ok(Record::Identity(record)), "{}", text);
        }
    }

    #[test]
    fn slices_decode_as_encoded(slice in slice()) {
        let key = key::slice(&east().name, &slice.namespace, &slice.name);
        let bytes = encode_slice(&slice);
        prop_assert_eq!(&bytes, &encode_slice(&slice));
        prop_assert_eq!(decode(Kind::EndpointSlices, &key, &bytes, &east()), Ok(Record::Slice(slice)));
    }

    #[test]
    fn configs_decode_as_encoded(
        id in any::<u32>(),
        max_connected_clusters in any::<u32>(),
        [synced_canaries, cached] in any::<[bool; 2]>(),
        service_exports_enabled in any::<Option<bool>>(),
        mode in 0..3_usize,
    ) {
        let export_mode = [ExportMode::ServicesOnly, ExportMode::Both, ExportMode::SlicesOnly][mode];
        let config = ClusterConfig {
            id,
            synced_canaries,
            cached,
            max_connected_clusters,
            service_exports_enabled,
            export_mode,
        };
        prop_assert_eq!(decode_config(&encode_config(&config)), Ok(config));
    }

    #[test]
    fn any_bytes_are_a_record_or_an_error(bytes in vec(any::<u8>(), 0..200), kind in 0..6_usize) {
        let kind = Kind::ALL[kind];
        let name = if kind == Kind::Identities { "200000" } else { "a/b" };
        let key = format!("{}{name}", kind.state_prefix(&east().name));
        let _either = decode(kind, &key, &bytes, &east());
        let _either = decode_config(&bytes);
    }

    #[test]
    fn a_damaged_record_is_a_record_or_an_error(
        service in service(),
        slice in slice(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let service_key = key::service(&east().name, &service.key);
        let slice_key = key::slice(&east().name, &slice.namespace, &slice.name);
        let cases = [
            (Kind::Services, service_key, encode_service(&service)),
            (Kind::EndpointSlices, slice_key, encode_slice(&slice)),
        ];
        for (kind, key, bytes) in cases {
            let mut bytes = bytes.to_vec();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _either = decode(kind, &key, &bytes, &east());
            prop_assert!(decode(kind, &key, &bytes[..at], &east()).is_err());
        }
    }

    #[test]
    fn go_json_agrees_with_a_library_on_what_is_json(text in "[\\[\\]{}:,\" \\\\a0-9.eE+-]{0,12}|-?[0-9.eE+-]{0,6}") {
        let document = format!(
            r#"{{"cluster":"east","namespace":"a","name":"b","clusterID":3,"future":{text}}}"#
        );
        let ours = decode(Kind::Services, "cilium/state/services/v1/east/a/b", document.as_bytes(), &east());
        let library = serde_json::from_str::<serde::de::IgnoredAny>(&document);
        prop_assert_eq!(ours.is_ok(), library.is_ok(), "{}: {:?}", document, ours);
    }
}
