//! Tombolo's own records under `tombolo/v1/`: keys as text, values as protobuf.

use bytes::Bytes;
use smol_str::SmolStr;
use tombolo_core::model::Slice;
use tombolo_core::own::{OwnKey, OwnRecord};

/// The root of all own records; no peer may read it.
pub const ROOT: &str = "tombolo/v1/";
/// What every agent watches as a whole.
pub const AGENTS: &str = "tombolo/v1/agents/";
/// What no agent watches as a whole.
pub const CONTROL: &str = "tombolo/v1/control/";

/// Why an own record cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct DecodeError {
    /// The record's key.
    pub key: String,
    /// What is wrong with its value.
    pub problem: String,
}

/// The text of a key.
pub fn key_to_string(_key: &OwnKey) -> String {
    unimplemented!()
}

/// Parses a key; `None` for what is no key of Tombolo's (a newer release may have more kinds).
pub fn parse_key(_text: &str) -> Option<OwnKey> {
    unimplemented!()
}

/// Encodes a record.
pub fn encode(_record: &OwnRecord) -> Bytes {
    unimplemented!()
}

/// Decodes the record of a key; its kind is the key's.
pub fn decode(_key: &OwnKey, _value: &[u8]) -> Result<OwnRecord, DecodeError> {
    unimplemented!()
}

/// Cuts a slice into keys of at most `ENDPOINTS_PER_KEY` endpoints: `base`, or `base.0`, `base.1`, … when there are more.
pub fn split(_slice: Slice, _base: &str) -> Vec<(SmolStr, Slice)> {
    unimplemented!()
}
