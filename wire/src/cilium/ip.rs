//! `ip/v1/default`: whose an address is.
//!
//! Source: Cilium `pkg/identity/identity.go` (`IPIdentityPair`), `pkg/ipcache/kvstore.go`.

use bytes::Bytes;
use tombolo_core::id::Addr;
use tombolo_core::identity::RESERVED_NUMBERS;
use tombolo_core::record::{IpRecord, NamedPort};

use super::json::{self, List, go_struct};
use super::net_json::{Ip, Mask};
use super::{DecodeError, PeerIdentity};

go_struct!(
    /// `identity.IPIdentityPair`.
    IpJson {
        ip: Ip = "IP",
        mask: Mask = "Mask",
        host_ip: Ip = "HostIP",
        id: u32 = "ID",
        key: u8 = "Key",
        metadata: String = "Metadata",
        namespace: String = "K8sNamespace" omitempty,
        pod: String = "K8sPodName" omitempty,
        service_account: String = "K8sServiceAccount" omitempty,
        named_ports: List<PortJson> = "NamedPorts" omitempty,
    }
);

go_struct!(
    /// `identity.NamedPort`.
    PortJson {
        name: String = "Name",
        port: u16 = "Port",
        protocol: String = "Protocol",
    }
);

/// Decodes and validates; `key` is the address or prefix, in the one text that Go writes for it.
pub(super) fn decode(key: &str, value: &[u8], peer: &PeerIdentity) -> Result<IpRecord, DecodeError> {
    let json = read(value)?;
    let Some(ip) = json.ip.0 else { return Err(DecodeError::Unset("IP")) };
    // A mask that is no prefix is /0 to Go, whose address the key then has to name.
    let prefix_len = json.mask.0.is_some().then(|| json.mask.ones(ip).unwrap_or(0));
    let said = prefix_len.map_or_else(|| ip.to_string(), |len| format!("{ip}/{len}"));
    if said != key {
        return Err(DecodeError::Name { got: said, expected: key.to_owned() });
    }
    if json.id >= RESERVED_NUMBERS && !peer.max.identities(peer.id).contains(&json.id) {
        return Err(DecodeError::IdentityRange { number: json.id, cluster: peer.id });
    }
    let port = |p: PortJson| NamedPort { name: p.name.into(), port: p.port, protocol: p.protocol.into() };
    Ok(IpRecord {
        ip: ip.into(),
        prefix_len,
        host_ip: json.host_ip.0.map(Into::into),
        identity: json.id,
        encryption_key: json.key,
        metadata: json.metadata,
        namespace: json.namespace.into(),
        pod: json.pod.into(),
        service_account: json.service_account.into(),
        named_ports: json.named_ports.0.into_iter().flatten().map(port).collect(),
    })
}

/// `ip/v1/default` JSON, byte-equal to what Cilium writes for the same record. A prefix longer than its address is
/// written as the address alone.
pub fn encode_ip(record: &IpRecord) -> Bytes {
    let ip = record.ip.ip();
    let port = |p: &NamedPort| PortJson { name: p.name.to_string(), port: p.port, protocol: p.protocol.to_string() };
    let json = IpJson {
        ip: Ip(Some(ip)),
        mask: record.prefix_len.and_then(|len| Mask::new(ip, len)).unwrap_or_default(),
        host_ip: Ip(record.host_ip.map(Addr::ip)),
        id: record.identity,
        key: record.encryption_key,
        metadata: record.metadata.clone(),
        namespace: record.namespace.to_string(),
        pod: record.pod.to_string(),
        service_account: record.service_account.to_string(),
        named_ports: List(Some(record.named_ports.iter().map(port).collect())),
    };
    json::write(&json).into()
}

pub(super) fn read(value: &[u8]) -> Result<IpJson, DecodeError> {
    let mut json = IpJson::default();
    json::read(value, &mut json).map_err(|source| DecodeError::Json { kind: "ip", source })?;
    Ok(json)
}
