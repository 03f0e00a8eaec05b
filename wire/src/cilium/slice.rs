//! `endpointslices/v1`: one EndpointSlice, protobuf in a zstd frame, the form of Cilium from 1.20 on.
//!
//! The message is Cilium's slim `discovery/v1`, a proto2 schema whose generator writes every non-nullable field, empty
//! or not: `required` here. Maps are written in the order of their keys. A text that is no UTF-8 is refused, which Go's
//! reader would let pass; the Kubernetes API does not.
//! Source: Cilium `pkg/k8s/slim/k8s/api/discovery/v1/generated.proto`, `pkg/clustermesh/types/endpointslice`.

use std::io::{Read, Write};
use std::net::IpAddr;

use bytes::Bytes;
use prost::Message;
use prost::encoding::{DecodeContext, decode_key, skip_field};
use smol_str::SmolStr;
use tombolo_core::id::Family;
use tombolo_core::model::Conditions;
use tombolo_core::object::Labels;
use tombolo_core::record::{SliceEndpoint, SlicePort, SliceRecord};

use super::{Claim, DecodeError, PeerIdentity};

/// A decompressed slice larger than this is refused, as by Cilium; nor may a frame ask for a larger window.
pub const MAX_SLICE_BYTES: usize = 16 << 20;

/// Endpoints, ports, labels and annotations of one slice together: Kubernetes' largest has 1,000 and 20,000 of the first
/// two.
const MAX_FIELDS: usize = 100_000;

/// The fastest level: a slice is small, and its text compresses well at any.
const LEVEL: i32 = 1;

#[derive(Clone, PartialEq, Message)]
pub(super) struct SliceProto {
    #[prost(string, required, tag = "1")]
    cluster: String,
    #[prost(uint32, required, tag = "2")]
    cluster_id: u32,
    #[prost(string, required, tag = "3")]
    namespace: String,
    #[prost(string, required, tag = "4")]
    name: String,
    #[prost(message, repeated, tag = "5")]
    labels: Vec<EntryProto>,
    #[prost(message, repeated, tag = "6")]
    annotations: Vec<EntryProto>,
    #[prost(string, required, tag = "7")]
    address_type: String,
    #[prost(message, repeated, tag = "8")]
    endpoints: Vec<EndpointProto>,
    #[prost(message, repeated, tag = "9")]
    ports: Vec<PortProto>,
}

/// An entry of a map; prost's own maps leave out empty values, Cilium's do not.
#[derive(Clone, PartialEq, Message)]
struct EntryProto {
    #[prost(string, required, tag = "1")]
    key: String,
    #[prost(string, required, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct EndpointProto {
    #[prost(string, repeated, tag = "1")]
    addresses: Vec<String>,
    #[prost(message, required, tag = "2")]
    conditions: ConditionsProto,
    #[prost(string, optional, tag = "3")]
    hostname: Option<String>,
    #[prost(message, repeated, tag = "5")]
    deprecated_topology: Vec<EntryProto>,
    #[prost(string, optional, tag = "6")]
    node_name: Option<String>,
    #[prost(string, optional, tag = "7")]
    zone: Option<String>,
    #[prost(message, optional, tag = "8")]
    hints: Option<HintsProto>,
}

#[derive(Clone, PartialEq, Message)]
struct ConditionsProto {
    #[prost(bool, optional, tag = "1")]
    ready: Option<bool>,
    #[prost(bool, optional, tag = "2")]
    serving: Option<bool>,
    #[prost(bool, optional, tag = "3")]
    terminating: Option<bool>,
}

#[derive(Clone, PartialEq, Message)]
struct HintsProto {
    #[prost(message, repeated, tag = "1")]
    for_zones: Vec<ZoneProto>,
}

#[derive(Clone, PartialEq, Message)]
struct ZoneProto {
    #[prost(string, required, tag = "1")]
    name: String,
}

#[derive(Clone, PartialEq, Message)]
struct PortProto {
    #[prost(string, optional, tag = "1")]
    name: Option<String>,
    #[prost(string, optional, tag = "2")]
    protocol: Option<String>,
    #[prost(int32, optional, tag = "3")]
    port: Option<i32>,
    #[prost(string, optional, tag = "4")]
    app_protocol: Option<String>,
}

/// Decodes and validates; `key` is `<namespace>/<slice>`.
pub(super) fn decode(key: &str, value: &[u8], peer: &PeerIdentity) -> Result<SliceRecord, DecodeError> {
    let message = read(&decompress(value)?)?;
    Claim {
        cluster: &message.cluster,
        cluster_id: message.cluster_id,
        namespace: Some(&message.namespace),
        name: &message.name,
    }
    .check(key, peer)?;
    let family = match message.address_type.as_str() {
        "IPv4" => Family::V4,
        "IPv6" => Family::V6,
        _ => return Err(DecodeError::AddressType(message.address_type)),
    };
    if let Some(bad) = message.endpoints.iter().flat_map(|e| &e.addresses).find(|text| !is_of(family, text)) {
        let what = if family == Family::V4 { "IPv4 address" } else { "IPv6 address" };
        return Err(DecodeError::Address { field: "endpoints", text: bad.clone(), what });
    }
    Ok(record(message, family))
}

/// `endpointslices/v1`: a zstd frame, with a checksum as Cilium's have, around the protobuf that Cilium writes.
pub fn encode_slice(record: &SliceRecord) -> Bytes {
    let compress = |content: &[u8]| {
        let mut encoder = zstd::Encoder::new(Vec::new(), LEVEL)?;
        encoder.include_checksum(true)?;
        encoder.write_all(content)?;
        encoder.finish()
    };
    compress(&message(record).encode_to_vec()).expect("compressing into memory fails only for want of it").into()
}

/// The frame's content, which may be several frames after one another.
pub(super) fn decompress(frame: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let read = |content: &mut Vec<u8>| {
        let mut decoder = zstd::Decoder::new(frame)?;
        decoder.window_log_max(MAX_SLICE_BYTES.ilog2())?;
        decoder.take(MAX_SLICE_BYTES as u64 + 1).read_to_end(content)
    };
    let mut content = Vec::new();
    read(&mut content).map_err(|e| DecodeError::Zstd(e.to_string()))?;
    if content.len() > MAX_SLICE_BYTES { Err(DecodeError::TooLarge) } else { Ok(content) }
}

pub(super) fn read(protobuf: &[u8]) -> Result<SliceProto, DecodeError> {
    // An empty endpoint takes two bytes here and a hundred times as many in memory.
    if protobuf.len() > MAX_FIELDS && fields(protobuf) > MAX_FIELDS {
        return Err(DecodeError::TooLarge);
    }
    SliceProto::decode(protobuf).map_err(|e| DecodeError::Protobuf(e.to_string()))
}

/// How many fields a message has, nested ones not counted, as far as it can be read.
fn fields(mut protobuf: &[u8]) -> usize {
    let next = || {
        let (tag, wire_type) = decode_key(&mut protobuf).ok()?;
        skip_field(wire_type, tag, &mut protobuf, DecodeContext::default()).ok()
    };
    std::iter::from_fn(next).count()
}

/// Whether the text is an address as Go's `netip` sees it: a mapped IPv4 address is IPv6, a zone is none.
fn is_of(family: Family, text: &str) -> bool {
    text.parse().is_ok_and(|ip: IpAddr| ip.is_ipv4() == (family == Family::V4))
}

fn record(message: SliceProto, family: Family) -> SliceRecord {
    let labels = |map: Vec<EntryProto>| -> Labels { map.into_iter().map(|e| (e.key.into(), e.value)).collect() };
    let endpoint = |e: EndpointProto| SliceEndpoint {
        addresses: e.addresses,
        conditions: Conditions {
            ready: e.conditions.ready,
            serving: e.conditions.serving,
            terminating: e.conditions.terminating,
        },
        hostname: e.hostname,
        node_name: e.node_name,
        zone: e.zone,
        for_zones: e.hints.into_iter().flat_map(|h| h.for_zones).map(|zone| zone.name).collect(),
    };
    let port = |p: PortProto| SlicePort {
        name: p.name.unwrap_or_default(),
        protocol: p.protocol,
        port: p.port,
        app_protocol: p.app_protocol,
    };
    SliceRecord {
        cluster: message.cluster,
        cluster_id: message.cluster_id,
        namespace: message.namespace.into(),
        name: message.name.into(),
        labels: labels(message.labels),
        annotations: labels(message.annotations),
        family,
        endpoints: message.endpoints.into_iter().map(endpoint).collect(),
        ports: message.ports.into_iter().map(port).collect(),
    }
}

fn message(record: &SliceRecord) -> SliceProto {
    let entry = |(key, value): (&SmolStr, &String)| EntryProto { key: key.to_string(), value: value.clone() };
    let map = |labels: &Labels| labels.iter().map(entry).collect();
    let zone = |name: &String| ZoneProto { name: name.clone() };
    let endpoint = |e: &SliceEndpoint| EndpointProto {
        addresses: e.addresses.clone(),
        conditions: ConditionsProto {
            ready: e.conditions.ready,
            serving: e.conditions.serving,
            terminating: e.conditions.terminating,
        },
        hostname: e.hostname.clone(),
        deprecated_topology: Vec::new(),
        node_name: e.node_name.clone(),
        zone: e.zone.clone(),
        hints: (!e.for_zones.is_empty()).then(|| HintsProto { for_zones: e.for_zones.iter().map(zone).collect() }),
    };
    let port = |p: &SlicePort| PortProto {
        name: Some(p.name.clone()),
        protocol: p.protocol.clone(),
        port: p.port,
        app_protocol: p.app_protocol.clone(),
    };
    let address_type = match record.family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    };
    SliceProto {
        cluster: record.cluster.clone(),
        cluster_id: record.cluster_id,
        namespace: record.namespace.to_string(),
        name: record.name.to_string(),
        labels: map(&record.labels),
        annotations: map(&record.annotations),
        address_type: address_type.to_owned(),
        endpoints: record.endpoints.iter().map(endpoint).collect(),
        ports: record.ports.iter().map(port).collect(),
    }
}
