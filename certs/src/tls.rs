//! TLS configurations from files. Callers make one per handshake: that is how a rotated certificate takes effect.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{ClientConfig, InconsistentKeys, RootCertStore, ServerConfig};
use rustls_pki_types::CertificateDer;

use crate::error::CertError;
use crate::files::{TlsFiles, load};

/// gRPC speaks HTTP/2 only.
const ALPN_H2: &[u8] = b"h2";

/// The one provider of cryptography.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// A client that shows `cert` and trusts `ca`, read from the files now.
///
/// Sessions are not resumed: a resumed one would show the certificate of the first handshake.
pub fn client_config(files: &TlsFiles) -> Result<ClientConfig, CertError> {
    let material = load(files)?;
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(CertError::Tls)?
        .with_root_certificates(roots(files, material.ca)?)
        .with_client_auth_cert(material.chain, material.key)
        .map_err(|e| pair_error(files, e))?;
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// A server that shows `cert` and demands a client certificate of `ca`, read from the files now.
pub fn server_config(files: &TlsFiles) -> Result<ServerConfig, CertError> {
    let material = load(files)?;
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(files, material.ca)?), provider())
        .build()
        .map_err(|e| CertError::broken(&files.ca, e))?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(CertError::Tls)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(material.chain, material.key)
        .map_err(|e| pair_error(files, e))?;
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

fn roots(files: &TlsFiles, ca: Vec<CertificateDer<'static>>) -> Result<RootCertStore, CertError> {
    let mut store = RootCertStore::empty();
    for cert in ca {
        store.add(cert).map_err(|e| CertError::broken(&files.ca, e))?;
    }
    Ok(store)
}

fn pair_error(files: &TlsFiles, error: rustls::Error) -> CertError {
    match error {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            CertError::KeyMismatch { cert: files.cert.clone(), key: files.key.clone() }
        }
        rustls::Error::General(detail) => CertError::UnusableKey { path: files.key.clone(), detail },
        other => CertError::Tls(other),
    }
}
