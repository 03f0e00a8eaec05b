//! Kubernetes manifests and directories of them, as `tombolo-core`'s source events.
//!
//! [`manifest`] turns one file's text into objects or into one fault with its place; [`directory`] turns a directory
//! of such files into [`SourceEvent`](tombolo_core::object::SourceEvent)s and keeps saying what changed. There is no
//! Kubernetes client here: what a cluster's API says comes from another crate, in the same words.

pub mod directory;
pub mod manifest;
