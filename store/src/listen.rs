//! Listeners for gRPC servers: TCP or Unix socket, mTLS or plain.

use std::net::SocketAddr;
use std::path::PathBuf;

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddr {
    /// `IP:PORT`.
    Tcp(SocketAddr),
    /// `unix:/path`.
    Unix(PathBuf),
}

/// Who is on the other end; in a handler: `request.extensions().get::<Peer>()`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The CN of the verified client certificate; None without TLS.
    pub common_name: Option<String>,
    /// The remote address; None on a Unix socket.
    pub remote: Option<SocketAddr>,
}
