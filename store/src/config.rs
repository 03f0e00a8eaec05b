//! Where a store is, and the certificates to show there.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

/// The PEM files of one side of mTLS; they are read again at every handshake, so replacing them is a rotation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The trusted authorities.
    pub ca: PathBuf,
    /// The own certificate, with its chain.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

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
