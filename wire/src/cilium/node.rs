//! `nodes/v1`: a node's addresses and pod ranges.
//!
//! A CIDR is an object with a base64 mask; a string in its place makes Cilium 1.20 refuse the whole node, so it is
//! never written, and refused here too. Source: Cilium `pkg/node/types/node.go`, an untagged Go struct: every field is
//! capitalised and always there.

use std::net::IpAddr;

use bytes::Bytes;
use smol_str::SmolStr;
use tombolo_core::record::{NodeRecord, RawCidr};

use super::json::{self, Go, JsonError, List, Map, Ptr, Reader, folds, go_struct};
use super::net_json::{Ip, Mask};
use super::{Claim, DecodeError, PeerIdentity};

go_struct!(
    /// `types.Node`.
    NodeJson {
        name: String = "Name",
        cluster: String = "Cluster",
        ip_addresses: List<AddressJson> = "IPAddresses",
        ipv4_cidr: Ptr<CidrJson> = "IPv4AllocCIDR",
        ipv4_secondary_cidrs: List<Ptr<CidrJson>> = "IPv4SecondaryAllocCIDRs",
        ipv6_cidr: Ptr<CidrJson> = "IPv6AllocCIDR",
        ipv6_secondary_cidrs: List<Ptr<CidrJson>> = "IPv6SecondaryAllocCIDRs",
        ipv4_health_ip: Ip = "IPv4HealthIP",
        ipv6_health_ip: Ip = "IPv6HealthIP",
        ipv4_ingress_ip: Ip = "IPv4IngressIP",
        ipv6_ingress_ip: Ip = "IPv6IngressIP",
        cluster_id: u32 = "ClusterID",
        source: String = "Source",
        encryption_key: u8 = "EncryptionKey",
        labels: Map<String, SmolStr> = "Labels",
        annotations: Map<String, SmolStr> = "Annotations",
        wireguard_key: String = "WireguardPubKey",
        boot_id: String = "BootID",
    }
);

go_struct!(
    /// `types.Address`.
    AddressJson {
        kind: String = "Type",
        ip: Ip = "IP",
    }
);

go_struct!(
    /// `net.IPNet`.
    NetJson {
        ip: Ip = "IP",
        mask: Mask = "Mask",
    }
);

/// `cidr.CIDR`: a struct around a pointer, so `{}` is one without a network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct CidrJson(Option<NetJson>);

impl Go for CidrJson {
    fn read(&mut self, reader: &mut Reader<'_>) -> Result<(), JsonError> {
        if reader.null()? {
            return Ok(());
        }
        reader.object(|reader, key| {
            if folds(key, "IP") {
                self.0.get_or_insert_default().ip.read(reader).map_err(|e| e.within("IP"))
            } else if folds(key, "Mask") {
                self.0.get_or_insert_default().mask.read(reader).map_err(|e| e.within("Mask"))
            } else {
                reader.skip()
            }
        })
    }

    fn write(&self, out: &mut Vec<u8>) {
        match &self.0 {
            Some(net) => net.write(out),
            None => out.extend(b"{}"),
        }
    }

    fn is_empty(&self) -> bool {
        false
    }
}

impl CidrJson {
    fn new(cidr: &RawCidr) -> Option<Self> {
        let ip = cidr.ip.parse::<IpAddr>().ok()?;
        Some(Self(Some(NetJson { ip: Ip(Some(ip)), mask: Mask::new(ip, cidr.prefix_len)? })))
    }

    /// The range it stands for; none when the mask is no prefix or does not fit the address.
    fn range(&self) -> Option<RawCidr> {
        let NetJson { ip: Ip(Some(ip)), mask } = self.0.as_ref()? else { return None };
        mask.ones(*ip).map(|prefix_len| RawCidr { ip: ip.to_string(), prefix_len })
    }
}

/// Decodes and validates; `key` is the node's name. A range without a usable mask is left out.
pub(super) fn decode(key: &str, value: &[u8], peer: &PeerIdentity) -> Result<NodeRecord, DecodeError> {
    let json = read(value)?;
    Claim { cluster: &json.cluster, cluster_id: json.cluster_id, namespace: None, name: &json.name }
        .check(key, peer)?;
    let one = |cidr: &Ptr<CidrJson>| cidr.0.as_ref().and_then(CidrJson::range);
    let many = |cidrs: &List<Ptr<CidrJson>>| cidrs.0.iter().flatten().filter_map(one).collect();
    let addresses = json.ip_addresses.0.iter().flatten();
    Ok(NodeRecord {
        addresses: addresses.map(|a| (a.kind.clone(), a.ip.text())).collect(),
        ipv4_cidr: one(&json.ipv4_cidr),
        ipv6_cidr: one(&json.ipv6_cidr),
        ipv4_secondary_cidrs: many(&json.ipv4_secondary_cidrs),
        ipv6_secondary_cidrs: many(&json.ipv6_secondary_cidrs),
        extra_ips: [json.ipv4_health_ip, json.ipv6_health_ip, json.ipv4_ingress_ip, json.ipv6_ingress_ip].map(Ip::text),
        name: json.name,
        cluster: json.cluster,
        cluster_id: json.cluster_id,
        source: json.source,
        encryption_key: json.encryption_key,
        labels: json.labels.0,
        annotations: json.annotations.0,
        wireguard_key: json.wireguard_key,
        boot_id: json.boot_id,
    })
}

/// `nodes/v1` JSON, byte-equal to what Cilium writes for the same record.
///
/// An address text that is none is written as the empty one, a range that is none as null: readers would refuse the
/// whole node otherwise.
pub fn encode_node(record: &NodeRecord) -> Bytes {
    let some = |cidr: &RawCidr| CidrJson::new(cidr).map(|cidr| Ptr(Some(cidr)));
    let one = |cidr: &Option<RawCidr>| cidr.as_ref().and_then(some).unwrap_or_default();
    let many = |cidrs: &[RawCidr]| List((!cidrs.is_empty()).then(|| cidrs.iter().filter_map(some).collect()));
    let address = |(kind, ip): &(String, String)| AddressJson { kind: kind.clone(), ip: Ip::new(ip) };
    let addresses = || record.addresses.iter().map(address).collect();
    let [ipv4_health_ip, ipv6_health_ip, ipv4_ingress_ip, ipv6_ingress_ip] =
        record.extra_ips.each_ref().map(|ip| Ip::new(ip));
    let json = NodeJson {
        name: record.name.clone(),
        cluster: record.cluster.clone(),
        ip_addresses: List((!record.addresses.is_empty()).then(addresses)),
        ipv4_cidr: one(&record.ipv4_cidr),
        ipv4_secondary_cidrs: many(&record.ipv4_secondary_cidrs),
        ipv6_cidr: one(&record.ipv6_cidr),
        ipv6_secondary_cidrs: many(&record.ipv6_secondary_cidrs),
        ipv4_health_ip,
        ipv6_health_ip,
        ipv4_ingress_ip,
        ipv6_ingress_ip,
        cluster_id: record.cluster_id,
        source: record.source.clone(),
        encryption_key: record.encryption_key,
        labels: Map(record.labels.clone()),
        annotations: Map(record.annotations.clone()),
        wireguard_key: record.wireguard_key.clone(),
        boot_id: record.boot_id.clone(),
    };
    json::write(&json).into()
}

pub(super) fn read(value: &[u8]) -> Result<NodeJson, DecodeError> {
    let mut json = NodeJson::default();
    json::read(value, &mut json).map_err(|source| DecodeError::Json { kind: "node", source })?;
    Ok(json)
}
