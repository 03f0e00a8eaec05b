//! Cilium's etcd client YAML: one file per peer, and a cluster's own `store.yaml`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

/// How to reach one store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EtcdConfig {
    /// URLs, at least one.
    pub endpoints: Vec<String>,
    /// The bundle that the server's certificate is verified with.
    pub ca: PathBuf,
    /// The client certificate.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Addresses of host names that no DNS server knows (Cilium ≥ 1.20).
    pub host_aliases: BTreeMap<String, Vec<IpAddr>>,
}

/// Why an etcd client file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EtcdConfigError {
    /// A place in the file is wrong.
    #[error("line {line}, column {column}: {field}: {problem}")]
    At {
        /// Line, from 1.
        line: u64,
        /// Column, from 1.
        column: u64,
        /// The field, as a path.
        field: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// Parses a file. `None` when the text does not contain `endpoints:`, Cilium's test of what is a peer's file at all.
pub fn parse(_text: &str) -> Result<Option<EtcdConfig>, EtcdConfigError> {
    unimplemented!()
}

/// Renders a file that [`parse`] and Cilium read back equal.
pub fn render(_config: &EtcdConfig) -> String {
    unimplemented!()
}
