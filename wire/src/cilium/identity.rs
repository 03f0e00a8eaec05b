//! `identities/v1/id`: the labels behind a number.
//!
//! The value is text, not JSON: each label as `source:key=value;`, sorted by key when Cilium writes it. Source: Cilium
//! `pkg/labels` (`ParseLabel`, `SortedList`), `pkg/identity/key`.

use bytes::Bytes;
use tombolo_core::identity::{CLUSTER_LABEL, SOURCE};
use tombolo_core::record::{IdentityLabel, IdentityRecord};

use super::key::Kind;
use super::{DecodeError, PeerIdentity};

/// The source of labels that Cilium itself gives.
const RESERVED: &str = "reserved";
/// What Cilium calls a label of which nobody said where it comes from.
const UNSPECIFIED: &str = "unspec";

/// Decodes and validates; `key` is the number.
pub(super) fn decode(key: &str, value: &[u8], peer: &PeerIdentity) -> Result<IdentityRecord, DecodeError> {
    let digits = key.bytes().all(|b| b.is_ascii_digit());
    let number = key.parse().ok().filter(|_| digits);
    let no_key = || DecodeError::Key { kind: Kind::Identities.as_str(), cluster: peer.name.clone() };
    let record = IdentityRecord { number: number.ok_or_else(no_key)?, labels: decode_labels(value)? };
    if !peer.max.identities(peer.id).contains(&record.number) {
        return Err(DecodeError::IdentityRange { number: record.number, cluster: peer.id });
    }
    is_of(&record.labels, peer)?;
    Ok(record)
}

/// `identities/v1/id` text, byte-equal to what Cilium writes for the same labels in the same order.
pub fn encode_identity(record: &IdentityRecord) -> Bytes {
    let text: String = record.labels.iter().map(|l| format!("{}:{}={};", l.source, l.key, l.value)).collect();
    text.into()
}

/// The labels in an identity's value, not validated.
pub fn decode_labels(value: &[u8]) -> Result<Vec<IdentityLabel>, DecodeError> {
    if value.is_empty() {
        return Err(DecodeError::Labels("empty"));
    }
    let text = str::from_utf8(value).map_err(|_| DecodeError::Labels("not UTF-8"))?;
    Ok(text.split(';').filter(|label| !label.is_empty()).map(label).collect())
}

/// `source:key=value`, of which the key alone must be there; `$key` and `reserved.key` are of the reserved source.
fn label(text: &str) -> IdentityLabel {
    let (source, rest) = if let Some(rest) = text.strip_prefix('$') {
        (RESERVED, rest)
    } else if let Some((source, rest)) = text.split_once(':') {
        (if source.is_empty() { UNSPECIFIED } else { source }, rest)
    } else if let Some(rest) = text.strip_prefix("reserved.") {
        (RESERVED, rest)
    } else {
        (UNSPECIFIED, text)
    };
    let (key, value) = match rest.split_once('=') {
        Some(("", key)) if source == RESERVED => (key, ""),
        Some((key, value)) => (key, value),
        None => (rest, ""),
    };
    IdentityLabel { source: source.into(), key: key.into(), value: value.into() }
}

/// Every cluster label must name the peer and come from Kubernetes, and there must be one.
fn is_of(labels: &[IdentityLabel], peer: &PeerIdentity) -> Result<(), DecodeError> {
    let mut said = labels.iter().filter(|label| label.key == CLUSTER_LABEL).peekable();
    let wrong = |got: String| DecodeError::ClusterLabel { got, expected: peer.name.clone() };
    if said.peek().is_none() {
        return Err(wrong("absent".to_owned()));
    }
    match said.find(|label| label.source != SOURCE || label.value != peer.name.as_str()) {
        Some(other) => Err(wrong(format!("{}:{}", other.source, other.value))),
        None => Ok(()),
    }
}
