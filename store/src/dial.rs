//! Connections to stores and admin servers: own resolver, own TLS, errors that say whose fault it is.
//!
//! Certificates are read again for every handshake, so a rotated file takes effect at the next one. TLS is ours and not
//! tonic's because only here a refused certificate keeps its type on the way up.

mod connect;
mod error;
mod resolve;
mod stream;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tonic::transport::{Channel, Endpoint};

pub use self::connect::Connector;
pub use self::error::{CertificateFault, DialCause, DialError};
pub(crate) use self::stream::Duplex;
pub use self::stream::Stream;
use crate::config::{StoreConfig, TlsFiles};

/// One TCP connect or TLS handshake may take this long.
const STEP_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a server may take to send its first bytes after the handshake; a gRPC server sends them unasked.
const FIRST_BYTES_TIMEOUT: Duration = Duration::from_secs(2);
/// HTTP/2 and TCP ask for a sign of life this often (Cilium's `etcd.keepaliveHeartbeat`).
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// A connection without an answer for this long is dead (Cilium's `etcd.keepaliveTimeout`).
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(25);

/// Dials any of several endpoints, in random order.
#[derive(Clone, Debug)]
pub struct Dialer {
    targets: Vec<Target>,
    tls: Option<TlsFiles>,
    host_aliases: BTreeMap<String, Vec<IpAddr>>,
}

/// An endpoint, parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    /// As it was written, for errors.
    text: String,
    /// The name the server's certificate must have.
    server_name: String,
    place: Place,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Tcp { host: String, port: u16 },
    Unix(PathBuf),
}

impl Dialer {
    /// A dialer of a store's endpoints.
    pub fn new(store: &StoreConfig) -> Result<Self, DialError> {
        let targets = store.endpoints.iter().map(|e| Target::parse(e, None)).collect::<Result<Vec<_>, _>>()?;
        if targets.is_empty() {
            return Err(DialError { endpoint: "store".into(), cause: DialCause::BadEndpoint });
        }
        Ok(Self { targets, tls: Some(store.tls.clone()), host_aliases: store.host_aliases.clone() })
    }

    /// Connects a gRPC channel now. With [`Reconnect::Never`] the channel dies with its connection.
    pub async fn channel(self, reconnect: Reconnect) -> Result<Channel, DialError> {
        let name = self.targets.first().map_or_else(String::new, |t| t.text.clone());
        let stream = self.dial().await?;
        let connector = Connector::new(Arc::new(self), stream, reconnect);
        endpoint()
            .connect_with_connector(connector)
            .await
            .map_err(|e| DialError::find(&e).unwrap_or_else(|| DialError::protocol(&name, &e)))
    }
}

/// What a channel does when its connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reconnect {
    /// It fails, and the caller decides.
    Never,
    /// It dials again at the next request.
    Always,
}

/// A channel to an admin server. `url` is `https://host:port` or `unix:/path`; with `tls` both are mTLS.
///
/// `server_name` is the name the server's certificate must have; None: the URL's host, `localhost` for a socket.
/// A socket without `tls` is plain.
pub async fn admin_channel(url: &str, tls: Option<&TlsFiles>, server_name: Option<&str>) -> Result<Channel, DialError> {
    let target = Target::parse(url, server_name)?;
    if tls.is_none() && matches!(target.place, Place::Tcp { .. }) {
        return Err(DialError { endpoint: target.text, cause: DialCause::NoTls });
    }
    let dialer = Dialer { targets: vec![target], tls: tls.cloned(), host_aliases: BTreeMap::new() };
    dialer.channel(Reconnect::Always).await
}

/// The URI is only the `:authority` of requests; the connector knows where to go. `http` keeps tonic from adding TLS.
fn endpoint() -> Endpoint {
    Endpoint::from_static("http://store")
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
}

impl Target {
    fn parse(text: &str, server_name: Option<&str>) -> Result<Self, DialError> {
        let place =
            Place::parse(text).ok_or_else(|| DialError { endpoint: text.into(), cause: DialCause::BadEndpoint })?;
        let own_name = match &place {
            Place::Tcp { host, .. } => host.as_str(),
            Place::Unix(_) => "localhost",
        };
        Ok(Self { text: text.into(), server_name: server_name.unwrap_or(own_name).into(), place })
    }
}

impl Place {
    fn parse(text: &str) -> Option<Self> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return path.starts_with('/').then(|| Self::Unix(path.into()));
        }
        let uri: http::Uri = text.parse().ok()?;
        if uri.scheme_str() != Some("https") || !matches!(uri.path(), "" | "/") {
            return None;
        }
        let host = uri.host()?.trim_start_matches('[').trim_end_matches(']');
        (!host.is_empty()).then(|| Self::Tcp { host: host.into(), port: uri.port_u16().unwrap_or(443) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: impl Into<Option<Place>>) {
        assert_eq!(Place::parse(text), expected.into(), "{text}");
    }

    #[test]
    fn endpoints_are_https_or_a_socket() {
        let tcp = |host: &str, port| Some(Place::Tcp { host: host.into(), port });
        check("https://ne.mesh.cilium.io:2379", tcp("ne.mesh.cilium.io", 2379));
        check("https://127.0.0.1:2379/", tcp("127.0.0.1", 2379));
        check("https://[fd00::1]:2379", tcp("fd00::1", 2379));
        check("https://store", tcp("store", 443));
        check("unix:/run/tombolo.sock", Some(Place::Unix("/run/tombolo.sock".into())));
        check("unix:///run/tombolo.sock", Some(Place::Unix("/run/tombolo.sock".into())));
        check("http://127.0.0.1:2379", None);
        check("https://store:2379/path", None);
        check("unix:relative", None);
        check("store:2379", None);
        check("", None);
    }
}
