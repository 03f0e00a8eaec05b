//! Cilium ClusterMesh's keys and values, as 1.20 writes and reads them.
//!
//! Decoding applies Cilium's own validators and nothing more; admission comes later. Encoding is byte-equal to Cilium's
//! (for endpoint slices: the protobuf is, zstd frames are not canonical), so that an unchanged record is never rewritten.
//! Service exports have keys and canaries here, and no values yet.

use tombolo_core::id::{ClusterId, ClusterName, IdError, MaxClusters};
use tombolo_core::identity::{CLUSTER_LABEL, SOURCE};
use tombolo_core::record::Record;

pub mod key;

mod config;
mod identity;
mod ip;
mod json;
mod json_values;
#[cfg(test)]
mod laws;
mod net_json;
mod node;
mod service;
mod slice;
#[cfg(test)]
mod tests;
mod timestamp;
#[cfg(test)]
mod vectors;

pub use config::{ConfigError, decode_config, encode_config, validate_config};
pub use identity::{decode_labels, encode_identity};
pub use ip::encode_ip;
pub use json::JsonError;
pub use node::encode_node;
pub use service::encode_service;
pub use slice::{MAX_SLICE_BYTES, encode_slice};
pub use timestamp::timestamp;

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

/// Why a record cannot be used. The text is meant for people, beside the record's key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The value is not the JSON that Cilium reads.
    #[error("not a {kind} record: {source}")]
    Json {
        /// The kind that was expected.
        kind: &'static str,
        /// The place and what was expected there.
        source: JsonError,
    },
    /// The value is no zstd frame, or a damaged one.
    #[error("not a zstd frame: {0}")]
    Zstd(String),
    /// The frame's content is not the protobuf message.
    #[error("not an endpoint slice: {0}")]
    Protobuf(String),
    /// The frame's content exceeds Cilium's limit.
    #[error("the endpoint slice is larger than {MAX_SLICE_BYTES} bytes when decompressed")]
    TooLarge,
    /// A field that must be set is empty.
    #[error("{0} is unset")]
    Unset(&'static str),
    /// The record's cluster id is none of this mesh.
    #[error(transparent)]
    ClusterId(#[from] IdError),
    /// The record speaks for another cluster.
    #[error("cluster is {got:?}, expected {expected}")]
    ClusterName {
        /// What the record says.
        got: String,
        /// Whose store it is in.
        expected: ClusterName,
    },
    /// The record's cluster id is not its peer's.
    #[error("cluster id is {got}, expected {expected}")]
    OtherClusterId {
        /// What the record says.
        got: u32,
        /// What the peer's cluster-config says.
        expected: ClusterId,
    },
    /// The record's own name is not the key's.
    #[error("the record names {got:?}, its key {expected:?}")]
    Name {
        /// What the record says.
        got: String,
        /// What the key says.
        expected: String,
    },
    /// An address is none, or not of the family it should be.
    #[error("{field}: {text:?} is no {what}")]
    Address {
        /// The field.
        field: &'static str,
        /// The text.
        text: String,
        /// What it should have been.
        what: &'static str,
    },
    /// A slice's address type is neither `IPv4` nor `IPv6`.
    #[error("address type {0:?} is neither IPv4 nor IPv6")]
    AddressType(String),
    /// A port is null: Cilium's agents crash on it, so it goes no further.
    #[error("{field}: address {address}: port {port:?} is null")]
    NullPort {
        /// The field.
        field: &'static str,
        /// The address it belongs to.
        address: String,
        /// The port's name.
        port: String,
    },
    /// An identity's value is not its labels.
    #[error("the labels are {0}")]
    Labels(&'static str),
    /// An identity's labels do not say that it is the peer's.
    #[error("the label {CLUSTER_LABEL} is {got}, expected {SOURCE}:{expected}")]
    ClusterLabel {
        /// What the labels say, with the source.
        got: String,
        /// Whose store it is in.
        expected: ClusterName,
    },
    /// An identity's number is neither in the peer's range nor, for an address, reserved.
    #[error("identity {number} is not in the range of cluster id {cluster}")]
    IdentityRange {
        /// The number.
        number: u32,
        /// The peer's id.
        cluster: ClusterId,
    },
    /// The key is not under the peer's prefix for the kind, or not formed as the kind's keys are.
    #[error("the key is not one of {cluster}'s {kind}")]
    Key {
        /// The kind.
        kind: &'static str,
        /// The peer.
        cluster: ClusterName,
    },
    /// No values of this kind are read.
    #[error("{0} records are not read")]
    Unread(&'static str),
}

/// Decodes one record of a peer and applies Cilium's validators.
///
/// `key` is the record's full key, under `cilium/state/` or, in a store that caches, `cilium/cache/`.
pub fn decode(kind: Kind, key: &str, value: &[u8], peer: &PeerIdentity) -> Result<Record, DecodeError> {
    let name = key
        .strip_prefix(&kind.state_prefix(&peer.name))
        .or_else(|| key.strip_prefix(&kind.cache_prefix(&peer.name)))
        .ok_or_else(|| DecodeError::Key { kind: kind.as_str(), cluster: peer.name.clone() })?;
    match kind {
        Kind::Services => service::decode(name, value, peer).map(Record::Service),
        Kind::EndpointSlices => slice::decode(name, value, peer).map(Record::Slice),
        Kind::Nodes => node::decode(name, value, peer).map(Record::Node),
        Kind::Identities => identity::decode(name, value, peer).map(Record::Identity),
        Kind::Ip => ip::decode(name, value, peer).map(Record::Ip),
        Kind::ServiceExports => Err(DecodeError::Unread(kind.as_str())),
    }
}

/// What every record says of itself, checked as Cilium does: set, of this mesh, the peer's, and the key's.
struct Claim<'a> {
    cluster: &'a str,
    cluster_id: u32,
    namespace: Option<&'a str>,
    name: &'a str,
}

impl Claim<'_> {
    fn check(&self, key: &str, peer: &PeerIdentity) -> Result<(), DecodeError> {
        for (what, text) in [("cluster", Some(self.cluster)), ("namespace", self.namespace), ("name", Some(self.name))]
        {
            if text.is_some_and(str::is_empty) {
                return Err(DecodeError::Unset(what));
            }
        }
        let id = ClusterId::new(self.cluster_id, peer.max)?;
        if self.cluster != peer.name.as_str() {
            return Err(DecodeError::ClusterName { got: self.cluster.to_owned(), expected: peer.name.clone() });
        }
        let got = match self.namespace {
            Some(namespace) => format!("{namespace}/{}", self.name),
            None => self.name.to_owned(),
        };
        if got != key {
            return Err(DecodeError::Name { got, expected: key.to_owned() });
        }
        if id != peer.id {
            return Err(DecodeError::OtherClusterId { got: self.cluster_id, expected: peer.id });
        }
        Ok(())
    }
}
