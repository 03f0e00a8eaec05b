//! Tombolo's own records under `tombolo/v1/`: keys as text, values as protobuf (`proto/own.proto`).
//!
//! An apiserver writes them and agents read them, possibly of another release: unknown keys are no keys, unknown fields
//! are ignored, and a value that cannot be understood is an error naming its key.

use bytes::Bytes;
use prost::Message;
use tombolo_core::model::ServiceSpec;
use tombolo_core::own::{OwnKey, OwnRecord};

use crate::proto::{self, Bad, Wire, all, messages, policy};

mod key;
mod slice;

pub use key::{AGENTS, CONTROL, ROOT, key_to_string, parse_key};
pub use slice::split;

/// Why an own record cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct DecodeError {
    /// The record's key.
    pub key: String,
    /// What is wrong with its value.
    pub problem: String,
}

/// Encodes a record. Equal records have equal bytes.
pub fn encode(record: &OwnRecord) -> Bytes {
    match record {
        OwnRecord::Heartbeat(unix_ms) | OwnRecord::Synced(unix_ms) => bytes(&proto::Instant { unix_ms: *unix_ms }),
        OwnRecord::Cluster(info) => bytes(&info.message()),
        OwnRecord::Service(spec) => bytes(&service(spec)),
        OwnRecord::Local(slice) => bytes(&slice.message()),
        OwnRecord::Mesh(slice) => bytes(&slice.message()),
        OwnRecord::Peer(state) => bytes(&state.message()),
        OwnRecord::Node(node) => bytes(&node.message()),
        OwnRecord::Refused(report) => bytes(&report.message()),
    }
}

/// Decodes the record of a key; its kind is the key's.
pub fn decode(key: &OwnKey, value: &[u8]) -> Result<OwnRecord, DecodeError> {
    record(key, value).map_err(|problem| DecodeError { key: key_to_string(key), problem: problem.to_string() })
}

fn bytes(message: &impl Message) -> Bytes {
    message.encode_to_vec().into()
}

/// The key says what service it is.
fn service(spec: &ServiceSpec) -> proto::ServiceSpec {
    proto::ServiceSpec {
        cluster_ips: messages(&spec.cluster_ips),
        ports: messages(&spec.ports),
        policy: Some(spec.policy.message()),
    }
}

/// Bytes that are no message, or a message without meaning.
#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error(transparent)]
    Protobuf(#[from] prost::DecodeError),
    #[error(transparent)]
    Bad(#[from] Bad),
}

fn record(key: &OwnKey, value: &[u8]) -> Result<OwnRecord, Problem> {
    Ok(match key {
        OwnKey::Heartbeat => OwnRecord::Heartbeat(proto::Instant::decode(value)?.unix_ms),
        OwnKey::Synced(_) => OwnRecord::Synced(proto::Instant::decode(value)?.unix_ms),
        OwnKey::Cluster => OwnRecord::Cluster(Wire::value(proto::ClusterInfo::decode(value)?)?),
        OwnKey::Service(service) => {
            let message = proto::ServiceSpec::decode(value)?;
            OwnRecord::Service(ServiceSpec {
                key: service.clone(),
                cluster_ips: all(message.cluster_ips)?,
                ports: all(message.ports)?,
                policy: policy(message.policy)?,
            })
        }
        OwnKey::Local { .. } => OwnRecord::Local(Wire::value(proto::Slice::decode(value)?)?),
        OwnKey::Mesh { .. } => OwnRecord::Mesh(Wire::value(proto::MeshSlice::decode(value)?)?),
        OwnKey::Peer(_) => OwnRecord::Peer(Wire::value(proto::PeerState::decode(value)?)?),
        OwnKey::Node(_) => OwnRecord::Node(Wire::value(proto::NodeInfo::decode(value)?)?),
        OwnKey::Refused(_) => OwnRecord::Refused(Wire::value(proto::RefusedReport::decode(value)?)?),
    })
}

#[cfg(test)]
mod tests;
