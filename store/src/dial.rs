//! Connections to stores and admin servers.

use tonic::transport::Channel;

use crate::config::TlsFiles;

/// Why there is no connection, and whose fault it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{endpoint}: {cause}")]
pub struct DialError {
    /// What was dialled.
    pub endpoint: String,
    /// What failed.
    pub cause: DialCause,
}

/// What failed in a dial.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DialCause {
    /// The endpoint's text is not `https://host[:port]` or `unix:/path`.
    #[error("no endpoint: it must be https://host:port or unix:/path")]
    BadEndpoint,
    /// The name has no address.
    #[error("no address for {host}: {detail}")]
    Unresolved {
        /// The host name.
        host: String,
        /// What the resolver said.
        detail: String,
    },
    /// No connection in time.
    #[error("no connection in time")]
    TimedOut,
    /// The network or the kernel refused.
    #[error("{0}")]
    Io(std::io::ErrorKind),
    /// Our own certificate files cannot be used.
    #[error("our TLS files: {0}")]
    OurFiles(String),
    /// We do not accept their certificate.
    #[error("their certificate {0}")]
    TheirCertificate(CertificateFault),
    /// They do not accept ours.
    #[error("they refused our certificate: it {0}")]
    OurCertificate(CertificateFault),
    /// They closed the connection right after the handshake.
    #[error("closed right after the TLS handshake: often a refused client certificate")]
    Closed,
    /// Any other failure of TLS.
    #[error("TLS: {0}")]
    Tls(String),
}

/// What is wrong with a certificate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateFault {
    /// Signed by an authority the verifier does not trust.
    #[error("is of another CA")]
    OtherCa,
    /// It does not contain the name that was dialled.
    #[error("is not for {expected}")]
    OtherName {
        /// The name that was dialled.
        expected: String,
    },
    /// Its time is over.
    #[error("has expired")]
    Expired,
    /// Its time has not begun.
    #[error("is not valid yet")]
    NotYetValid,
    /// None was shown.
    #[error("was not shown")]
    Missing,
    /// Another fault, or one the verifier does not tell.
    #[error("was refused: {0}")]
    Other(String),
}

/// A channel to an admin server. `url` is `https://host:port` or `unix:/path`; with `tls` both are mTLS.
///
/// `server_name` is the name the server's certificate must have; None: the URL's host, `localhost` for a socket.
pub async fn admin_channel(
    url: &str,
    tls: Option<&TlsFiles>,
    server_name: Option<&str>,
) -> Result<Channel, DialError> {
    let _ = (tls, server_name);
    Err(DialError { endpoint: url.into(), cause: DialCause::BadEndpoint })
}
