//! The Kubernetes client side: what the apiserver watches there, and what it and the CLI write.
//!
//! The only crate that knows the `kube` library. It decides nothing: objects are reduced to `tombolo_core::object`'s
//! values as they arrive, and what is written is computed by others.

pub mod apply;
pub mod client;
pub mod objects;
pub mod resources;
pub mod source;

pub use kube::Client;
