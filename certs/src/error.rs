//! What fails when certificates are read, written or made.

use std::io;
use std::path::{Path, PathBuf};

/// Why certificate material could not be read, written, made or used.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CertError {
    /// A file cannot be read.
    #[error("cannot read {}: {kind}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        kind: io::ErrorKind,
    },
    /// A file cannot be written.
    #[error("cannot write {}: {kind}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        kind: io::ErrorKind,
    },
    /// A file holds no PEM certificate.
    #[error("{} holds no certificate: it must have a PEM block CERTIFICATE", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// A file holds no PEM private key.
    #[error("{} holds no private key: PKCS#8, PKCS#1 and SEC1 in PEM are read, encrypted keys are not", path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// A certificate or its PEM armour is broken.
    #[error("{} is broken: {detail}", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        detail: String,
    },
    /// A private key is not one that this program can use.
    #[error("the key in {} cannot be used: {detail}; RSA, ECDSA P-256, P-384, P-521 and Ed25519 can", path.display())]
    UnusableKey {
        /// The file.
        path: PathBuf,
        /// What the library says.
        detail: String,
    },
    /// The private key belongs to another certificate.
    #[error("{} is not the key of {}: issue the pair again", key.display(), cert.display())]
    KeyMismatch {
        /// The certificate.
        cert: PathBuf,
        /// The key.
        key: PathBuf,
    },
    /// A certificate that should be an authority's is not one.
    #[error("{subject:?} is no certificate authority: it lacks CA:TRUE or may not sign certificates")]
    NotAuthority {
        /// The certificate's subject.
        subject: String,
    },
    /// An authority's name cannot be repeated byte for byte in what it would issue.
    #[error("the subject of authority {subject:?} has a form that cannot be repeated in a leaf: make a new authority")]
    IssuerName {
        /// The authority's subject.
        subject: String,
    },
    /// The authority has expired, or will before a leaf would begin.
    #[error("the authority {subject:?} is valid until {until} only: make a new one")]
    AuthorityExpired {
        /// The authority's subject.
        subject: String,
        /// The end, RFC 3339.
        until: String,
    },
    /// A name asked for cannot stand in a certificate.
    #[error("{name:?} cannot stand in a certificate: it must be a host name or an IP address")]
    BadName {
        /// The name.
        name: String,
    },
    /// A Secret is not one that holds an authority.
    #[error("{} is no Secret with an authority: {detail}", path.display())]
    BadSecret {
        /// The file.
        path: PathBuf,
        /// What is missing.
        detail: String,
    },
    /// The library that makes certificates refused.
    #[error("cannot make a certificate: {0}")]
    Make(String),
    /// The TLS library refused.
    #[error("cannot set up TLS")]
    Tls(#[source] rustls::Error),
}

impl CertError {
    pub(crate) fn read(path: &Path, error: &io::Error) -> Self {
        Self::Read { path: path.into(), kind: error.kind() }
    }

    pub(crate) fn write(path: &Path, error: &io::Error) -> Self {
        Self::Write { path: path.into(), kind: error.kind() }
    }

    #[expect(clippy::needless_pass_by_value, reason = "used as a function of an error's value in map_err")]
    pub(crate) fn broken(path: &Path, detail: impl ToString) -> Self {
        Self::Broken { path: path.into(), detail: detail.to_string() }
    }

    #[expect(clippy::needless_pass_by_value, reason = "used as a function of an error's value in map_err")]
    pub(crate) fn make(detail: impl ToString) -> Self {
        Self::Make(detail.to_string())
    }
}
