//! Bytes to core's values and back: Cilium's keys and records, Tombolo's own, etcd's client files, the admin protocol.
//!
//! Every reader here is total: whatever a peer or a disk holds comes back as a value or as an error that says which
//! key, line or field is wrong, never as a panic. What a record is *allowed* to say is decided later, by
//! `tombolo_core`. Left out on purpose: sockets, async, clocks. A type of a wire format never leaves this crate.

#[cfg(feature = "admin")]
pub mod admin;
pub mod cilium;
pub mod etcd_config;
pub mod own;

mod proto;
