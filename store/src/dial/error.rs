//! Why there is no connection, and whose fault it is.

use std::error::Error;
use std::io;

use rustls::{AlertDescription, CertificateError};

/// Why there is no connection.
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
    /// A TCP endpoint without certificates.
    #[error("needs certificates: only a Unix socket may be dialled without TLS")]
    NoTls,
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
    #[error("{}", in_words(*.0))]
    Io(io::ErrorKind),
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
    #[error("closed right after the TLS handshake, which is often a refused client certificate")]
    Closed,
    /// Any other failure of TLS.
    #[error("TLS: {0}")]
    Tls(String),
    /// The connection stands, HTTP/2 does not.
    #[error("HTTP/2: {0}")]
    Protocol(String),
    /// The connection of a channel that does not reconnect is over.
    #[error("the connection is over")]
    Over,
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

impl DialError {
    /// The dial error within an error of tonic or etcd-client, if one is its cause.
    pub fn find(error: &(dyn Error + 'static)) -> Option<Self> {
        walk(error, &|e| e.downcast_ref::<Self>().cloned())
    }

    pub(super) fn protocol(endpoint: &str, error: &dyn Error) -> Self {
        Self { endpoint: endpoint.into(), cause: DialCause::Protocol(deepest(error)) }
    }
}

impl DialCause {
    /// From what a socket or a handshake reports; `server_name` is the name that was to be found in their certificate.
    pub(super) fn of_io(error: &io::Error, server_name: &str) -> Self {
        match walk(error, &|e| e.downcast_ref::<rustls::Error>().cloned()) {
            Some(rustls::Error::InvalidCertificate(fault)) => Self::TheirCertificate(theirs(&fault, server_name)),
            Some(rustls::Error::AlertReceived(alert)) => ours(alert),
            Some(other) => Self::Tls(other.to_string()),
            None if error.kind() == io::ErrorKind::UnexpectedEof => Self::Closed,
            None => Self::Io(error.kind()),
        }
    }

    /// Tells more about what is set up wrongly than a silent endpoint does.
    pub(super) fn is_telling(&self) -> bool {
        !matches!(self, Self::TimedOut | Self::Io(_) | Self::Unresolved { .. })
    }
}

/// The standard library calls a socket that is not there an entity.
fn in_words(kind: io::ErrorKind) -> String {
    if kind == io::ErrorKind::NotFound { "no such file".into() } else { kind.to_string() }
}

fn theirs(fault: &CertificateError, server_name: &str) -> CertificateFault {
    match fault {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => CertificateFault::OtherCa,
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            CertificateFault::OtherName { expected: server_name.into() }
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => CertificateFault::Expired,
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => CertificateFault::NotYetValid,
        other => CertificateFault::Other(other.to_string()),
    }
}

fn ours(alert: AlertDescription) -> DialCause {
    let fault = match alert {
        // A rustls server's word for a CA of the right name with another key.
        AlertDescription::UnknownCA | AlertDescription::DecryptError => CertificateFault::OtherCa,
        AlertDescription::CertificateExpired => CertificateFault::Expired,
        AlertDescription::CertificateRequired => CertificateFault::Missing,
        AlertDescription::BadCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::CertificateRevoked
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::AccessDenied => CertificateFault::Other(format!("{alert:?}")),
        other => return DialCause::Tls(format!("alert {other:?}")),
    };
    DialCause::OurCertificate(fault)
}

/// The first hit in a chain of causes. `io::Error::source()` skips its own payload, and an etcd-client error hides the
/// status it wraps, so both are opened by hand.
fn walk<T>(error: &(dyn Error + 'static), hit: &dyn Fn(&(dyn Error + 'static)) -> Option<T>) -> Option<T> {
    let mut current = Some(error);
    while let Some(error) = current {
        if let Some(found) = hit(error) {
            return Some(found);
        }
        let hidden: Option<&(dyn Error + 'static)> = match error.downcast_ref::<etcd_client::Error>() {
            Some(etcd_client::Error::GRpcStatus(status)) => status.source(),
            Some(etcd_client::Error::TransportError(transport)) => Some(transport),
            _ => error.downcast_ref::<io::Error>().and_then(|io| io.get_ref()).map(|e| e as _),
        };
        if let Some(found) = hidden.and_then(|e| walk(e, hit)) {
            return Some(found);
        }
        current = error.source();
    }
    None
}

fn deepest(error: &dyn Error) -> String {
    let mut last = error;
    while let Some(next) = last.source() {
        last = next;
    }
    last.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(error: rustls::Error, expected: &str) {
        let wrapped = io::Error::new(io::ErrorKind::InvalidData, io::Error::new(io::ErrorKind::InvalidData, error));
        assert_eq!(DialCause::of_io(&wrapped, "ne.mesh.cilium.io").to_string(), expected);
    }

    #[test]
    fn the_failing_side_is_named() {
        check(CertificateError::UnknownIssuer.into(), "their certificate is of another CA");
        check(CertificateError::NotValidForName.into(), "their certificate is not for ne.mesh.cilium.io");
        check(CertificateError::Expired.into(), "their certificate has expired");
        let alert = rustls::Error::AlertReceived;
        check(alert(AlertDescription::UnknownCA), "they refused our certificate: it is of another CA");
        check(alert(AlertDescription::BadCertificate), "they refused our certificate: it was refused: BadCertificate");
        check(alert(AlertDescription::CertificateExpired), "they refused our certificate: it has expired");
        check(alert(AlertDescription::ProtocolVersion), "TLS: alert ProtocolVersion");
    }

    #[test]
    fn a_dial_error_is_found_under_a_status() {
        let dial = DialError { endpoint: "https://ne:1".into(), cause: DialCause::Over };
        let status = tonic::Status::from_error(Box::new(dial.clone()));
        assert_eq!(DialError::find(&etcd_client::Error::GRpcStatus(status)), Some(dial));
    }
}
