//! Where a store is, and the certificates to show there.

use std::collections::BTreeMap;
use std::net::IpAddr;

pub use tombolo_certs::TlsFiles;
use tombolo_wire::etcd_config::EtcdConfig;

/// A store as a client sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreConfig {
    /// `https://host:port`, tried in random order.
    pub endpoints: Vec<String>,
    /// Our certificates.
    pub tls: TlsFiles,
    /// Addresses of host names, asked before any name server (Cilium's `cilium-host-aliases`).
    pub host_aliases: BTreeMap<String, Vec<IpAddr>>,
}

impl From<EtcdConfig> for StoreConfig {
    fn from(file: EtcdConfig) -> Self {
        Self {
            endpoints: file.endpoints,
            tls: TlsFiles { ca: file.ca, cert: file.cert, key: file.key },
            host_aliases: file.host_aliases,
        }
    }
}
