//! The mesh's certificates: one authority, the leaves of each cluster, and what may be wrong with them.
//!
//! Names and alternative names are Cilium ClusterMesh's (chart `clustermesh-apiserver/tls-*`), so that its agents accept
//! our certificates and we accept theirs. Keys are ECDSA P-256, written as PKCS#8 with mode 0600, and read as PKCS#8,
//! PKCS#1 or SEC1. Time is a parameter everywhere but inside a TLS handshake.
//!
//! Left out on purpose: async, sockets and clocks. The only provider of cryptography is aws-lc-rs, named explicitly.

mod authority;
mod error;
mod files;
mod leaf;
mod pkcs8;
mod tls;
mod verify;
mod x509;

pub use authority::{Authority, CA_KEY_FILE, DEFAULT_CA_NAME, IssuedLeaf, bundle};
pub use error::CertError;
pub use files::{
    CA_FILE, Material, PRIVATE_MODE, Role, TlsFiles, TlsText, certificates, load, read_bundle, read_key, write_private,
    write_public,
};
pub use leaf::{AuthMode, DEFAULT_NAMESPACE, Leaf, LeafRequest, MESH_DOMAIN, Usage, Validity};
pub use rustls_pki_types::{CertificateDer, PrivateKeyDer};
pub use tls::{client_config, provider, server_config};
pub use verify::{
    Expected, Finding, Problem, Severity, accepted_by, text_accepted_by, verify, verify_cluster, verify_text,
};
pub use x509::{CertInfo, common_name, inspect, rfc3339};
