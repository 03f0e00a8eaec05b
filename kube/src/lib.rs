//! The Kubernetes client side: what the apiserver watches there, and what it and the CLI write.
//!
//! The only crate that knows the `kube` library. It decides nothing: objects are reduced to `tombolo_core::object`'s
//! values as they arrive, and what is written is computed by others.

pub mod apply;
pub mod client;
pub mod events;
pub mod install;
pub mod lease;
pub mod mirroring;
pub mod objects;
pub mod resources;
pub mod source;
pub mod status;
pub mod watched;

pub use k8s_openapi::ByteString;
pub use k8s_openapi::api::core::v1::Secret;
pub use kube::Client;
