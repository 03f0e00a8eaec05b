//! Cilium ClusterMesh's keys and values, as 1.20 writes and reads them.
//!
//! Decoding applies Cilium's own validators and nothing more; admission comes later. Encoding is byte-equal to Cilium's
//! (for endpoint slices: the protobuf is, zstd frames are not canonical), so that an unchanged record is never rewritten.

use bytes::Bytes;
use tombolo_core::id::{ClusterId, ClusterName, MaxClusters};
use tombolo_core::record::{ClusterConfig, NodeRecord, Record, ServiceRecord, SliceRecord};

pub mod key;

use key::Kind;

/// Whose records are being read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerIdentity {
    /// The peer's name, from the name of its configuration file.
    pub name: ClusterName,
    /// The id its cluster-config gives.
    pub id: ClusterId,
    /// The reader's mesh size.
    pub max: MaxClusters,
}

/// Why a record cannot be used; its text is meant for `refused/<cluster>`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes are not of the kind's format.
    #[error("{0}")]
    Format(String),
}

/// Why a cluster-config is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The bytes are not a cluster-config.
    #[error("{0}")]
    Format(String),
}

/// Decodes one record of a peer and applies Cilium's validators.
///
/// `key` is the record's full key (`cilium/state/…` or `cilium/cache/…`).
pub fn decode(_kind: Kind, _key: &str, _value: &[u8], _peer: &PeerIdentity) -> Result<Record, DecodeError> {
    unimplemented!()
}

/// `services/v1` JSON, byte-equal to Go's.
pub fn encode_service(_record: &ServiceRecord) -> Bytes {
    unimplemented!()
}

/// `endpointslices/v1`: a zstd frame around protobuf.
pub fn encode_slice(_record: &SliceRecord) -> Bytes {
    unimplemented!()
}

/// `nodes/v1` JSON, byte-equal to Go's.
pub fn encode_node(_record: &NodeRecord) -> Bytes {
    unimplemented!()
}

/// The cluster-config's JSON, byte-equal to Go's.
pub fn encode_config(_config: &ClusterConfig) -> Bytes {
    unimplemented!()
}

/// Decodes a cluster-config; an unknown export mode is refused.
pub fn decode_config(_value: &[u8]) -> Result<ClusterConfig, ConfigError> {
    unimplemented!()
}

/// Cilium's `ValidateRemoteConfig`: the id the peer may use, in a mesh of the reader's size.
pub fn validate_config(_config: &ClusterConfig, _max: MaxClusters) -> Result<ClusterId, ConfigError> {
    unimplemented!()
}

/// RFC 3339 in UTC, whole seconds: what heartbeats and canaries hold.
pub fn timestamp(_unix_ms: u64) -> String {
    unimplemented!()
}
