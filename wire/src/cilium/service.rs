//! `services/v1`: a whole service in one JSON record, the form of Cilium before 1.21.
//!
//! Source: Cilium `pkg/clustermesh/store/store.go`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use bytes::Bytes;
use smol_str::SmolStr;
use tombolo_core::id::ServiceKey;
use tombolo_core::record::{PortMap, RawPort, ServiceRecord, ZoneHints};

use super::json::{self, List, Map, Ptr, go_struct};
use super::{Claim, DecodeError, PeerIdentity};

type PortsJson = Map<Ptr<PortJson>>;

go_struct!(
    /// `ClusterService`.
    ServiceJson {
        cluster: String = "cluster",
        namespace: String = "namespace",
        name: String = "name",
        frontends: Map<PortsJson> = "frontends",
        backends: Map<PortsJson> = "backends",
        hostnames: Map<String> = "hostnames" omitempty,
        zones: Map<ZoneJson> = "zones" omitempty,
        labels: Map<String, SmolStr> = "labels",
        selector: Map<String, SmolStr> = "selector",
        include_external: bool = "includeExternal",
        shared: bool = "shared",
        cluster_id: u32 = "clusterID",
    }
);

go_struct!(
    /// `loadbalancer.L4Addr`, which has no JSON tags.
    PortJson {
        protocol: String = "Protocol",
        port: u16 = "Port",
    }
);

go_struct!(
    /// `BackendZone`.
    ZoneJson {
        zone: String = "zone",
        for_zones: List<ZoneNameJson> = "forZones",
    }
);

go_struct!(
    /// A slim `ForZone`.
    ZoneNameJson {
        name: String = "name",
    }
);

/// Decodes and validates; `key` is `<namespace>/<name>`.
pub(super) fn decode(key: &str, value: &[u8], peer: &PeerIdentity) -> Result<ServiceRecord, DecodeError> {
    let json = read(value)?;
    for (field, ports) in [("frontends", &json.frontends), ("backends", &json.backends)] {
        let addresses = ports.0.iter().flat_map(BTreeMap::keys);
        if let Some(bad) = addresses.into_iter().find(|text| text.parse::<IpAddr>().is_err()) {
            return Err(DecodeError::Address { field, text: bad.clone(), what: "IP address" });
        }
    }
    Claim { cluster: &json.cluster, cluster_id: json.cluster_id, namespace: Some(&json.namespace), name: &json.name }
        .check(key, peer)?;
    record(json)
}

/// `services/v1` JSON, byte-equal to what Cilium writes for the same record.
pub fn encode_service(record: &ServiceRecord) -> Bytes {
    let ports = |ports: &PortMap| {
        let json = |p: &RawPort| Ptr(Some(PortJson { protocol: p.protocol.clone(), port: p.port }));
        Map(Some(ports.iter().map(|(name, port)| (name.clone(), json(port))).collect()))
    };
    let by_address = |all: &BTreeMap<String, PortMap>| {
        Map(Some(all.iter().map(|(address, map)| (address.clone(), ports(map))).collect()))
    };
    let name = |name: &String| ZoneNameJson { name: name.clone() };
    let zone = |hints: &ZoneHints| ZoneJson {
        zone: hints.zone.clone(),
        for_zones: List(hints.for_zones.as_ref().map(|zones| zones.iter().map(name).collect())),
    };
    let json = ServiceJson {
        cluster: record.cluster.clone(),
        namespace: record.key.namespace.to_string(),
        name: record.key.name.to_string(),
        frontends: by_address(&record.frontends),
        backends: by_address(&record.backends),
        hostnames: Map(Some(record.hostnames.clone())),
        zones: Map(Some(record.zones.iter().map(|(address, z)| (address.clone(), zone(z))).collect())),
        labels: Map(Some(record.labels.clone())),
        selector: Map(Some(record.selector.clone())),
        include_external: record.include_external,
        shared: record.shared,
        cluster_id: record.cluster_id,
    };
    json::write(&json).into()
}

/// Reads the JSON over a record as Cilium's constructor makes it.
pub(super) fn read(value: &[u8]) -> Result<ServiceJson, DecodeError> {
    let mut json = ServiceJson {
        frontends: Map::empty(),
        backends: Map::empty(),
        labels: Map::empty(),
        selector: Map::empty(),
        ..ServiceJson::default()
    };
    json::read(value, &mut json).map_err(|source| DecodeError::Json { kind: "service", source })?;
    Ok(json)
}

fn record(json: ServiceJson) -> Result<ServiceRecord, DecodeError> {
    let zone = |z: ZoneJson| ZoneHints {
        zone: z.zone,
        for_zones: z.for_zones.0.map(|zones| zones.into_iter().map(|zone| zone.name).collect()),
    };
    Ok(ServiceRecord {
        cluster: json.cluster,
        cluster_id: json.cluster_id,
        key: ServiceKey::new(json.namespace, json.name),
        frontends: ports_by_address("frontends", json.frontends)?,
        backends: ports_by_address("backends", json.backends)?,
        hostnames: json.hostnames.0.unwrap_or_default(),
        zones: json.zones.0.unwrap_or_default().into_iter().map(|(address, z)| (address, zone(z))).collect(),
        labels: json.labels.0.unwrap_or_default(),
        selector: json.selector.0.unwrap_or_default(),
        include_external: json.include_external,
        shared: json.shared,
    })
}

fn ports_by_address(field: &'static str, json: Map<PortsJson>) -> Result<BTreeMap<String, PortMap>, DecodeError> {
    let by_address = json.0.unwrap_or_default().into_iter();
    by_address.map(|(address, map)| ports(field, &address, map).map(|ports| (address, ports))).collect()
}

fn ports(field: &'static str, address: &str, json: PortsJson) -> Result<PortMap, DecodeError> {
    let port = |(name, port): (String, Ptr<PortJson>)| match port.0 {
        Some(port) => Ok((name, RawPort { protocol: port.protocol, port: port.port })),
        None => Err(DecodeError::NullPort { field, address: address.to_owned(), port: name }),
    };
    json.0.unwrap_or_default().into_iter().map(port).collect()
}
