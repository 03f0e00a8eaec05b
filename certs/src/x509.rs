//! What a certificate says about itself.

use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The subject's common name: the etcd user that a client certificate stands for. `None` when there is none, or the
/// certificate cannot be parsed.
pub fn common_name(cert: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = X509Certificate::from_der(cert).ok()?;
    parsed.subject().iter_common_name().next()?.as_str().ok().map(String::from)
}
