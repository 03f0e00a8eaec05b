//! What a certificate says about itself.

use std::net::IpAddr;
use std::path::Path;

use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls_pki_types::CertificateDer;
use serde::Serialize;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
use x509_parser::public_key::PublicKey;
use x509_parser::time::ASN1Time;

use crate::error::CertError;
use crate::leaf::Usage;

/// A certificate in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CertInfo {
    /// The subject, RFC 4514.
    pub subject: String,
    /// The issuer, RFC 4514.
    pub issuer: String,
    /// The subject's common name.
    pub common_name: Option<String>,
    /// Host names in the alternative names.
    pub dns: Vec<String>,
    /// Addresses in the alternative names.
    pub ips: Vec<IpAddr>,
    /// First second, unix.
    pub not_before: i64,
    /// Last second, unix.
    pub not_after: i64,
    /// Serial number, hexadecimal.
    pub serial: String,
    /// SHA-256 of the certificate, hexadecimal, as `openssl x509 -fingerprint -sha256` prints it.
    pub fingerprint: String,
    /// The key's kind, such as `ECDSA P-256` or `RSA 2048`.
    pub key: String,
    /// What it may be used for in TLS.
    pub usages: Vec<Usage>,
    /// It may sign certificates.
    pub is_ca: bool,
    /// Its public key, SubjectPublicKeyInfo in DER.
    #[serde(skip)]
    pub public_key: Vec<u8>,
}

impl CertInfo {
    /// Subject and the beginning of the fingerprint: enough to tell two authorities of one name apart.
    pub fn short(&self) -> String {
        let shown = self.fingerprint.get(..11).unwrap_or_default();
        format!("{} [{shown}]", self.subject)
    }
}

/// The subject's common name: the etcd user that a client certificate stands for. `None` when there is none, or the
/// certificate cannot be parsed.
pub fn common_name(cert: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = X509Certificate::from_der(cert).ok()?;
    first_common_name(&parsed)
}

/// Reads a certificate; `path` is for the error.
pub fn inspect(path: &Path, cert: &CertificateDer<'_>) -> Result<CertInfo, CertError> {
    let (_, parsed) = X509Certificate::from_der(cert).map_err(|e| CertError::broken(path, e))?;
    let (dns, ips) = alternative_names(&parsed);
    Ok(CertInfo {
        subject: parsed.subject().to_string(),
        issuer: parsed.issuer().to_string(),
        common_name: first_common_name(&parsed),
        dns,
        ips,
        not_before: parsed.validity().not_before.timestamp(),
        not_after: parsed.validity().not_after.timestamp(),
        serial: parsed.raw_serial_as_string(),
        fingerprint: hex(TLS13_AES_128_GCM_SHA256
            .tls13()
            .expect("the suite is one of TLS 1.3")
            .common
            .hash_provider
            .hash(cert)
            .as_ref()),
        key: key_kind(&parsed),
        usages: usages(&parsed),
        is_ca: is_authority(&parsed),
        public_key: parsed.public_key().raw.to_vec(),
    })
}

/// Whether a leaf's issuer is its authority's subject, byte for byte.
pub(crate) fn issuer_repeats(leaf: &CertificateDer<'_>, authority: &CertificateDer<'_>) -> bool {
    let (Ok((_, leaf)), Ok((_, authority))) = (X509Certificate::from_der(leaf), X509Certificate::from_der(authority))
    else {
        return false;
    };
    leaf.issuer().as_raw() == authority.subject().as_raw()
}

/// Unix seconds as RFC 3339 in UTC.
pub fn rfc3339(seconds: i64) -> String {
    let Ok(time) = ASN1Time::from_timestamp(seconds) else { return format!("@{seconds}") };
    let t = time.to_datetime();
    let (year, month, day) = (t.year(), u8::from(t.month()), t.day());
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", t.hour(), t.minute(), t.second())
}

fn first_common_name(cert: &X509Certificate<'_>) -> Option<String> {
    cert.subject().iter_common_name().next()?.as_str().ok().map(String::from)
}

fn alternative_names(cert: &X509Certificate<'_>) -> (Vec<String>, Vec<IpAddr>) {
    let (mut dns, mut ips) = (Vec::new(), Vec::new());
    let names = cert.subject_alternative_name().ok().flatten();
    for name in names.iter().flat_map(|n| &n.value.general_names) {
        match name {
            GeneralName::DNSName(name) => dns.push((*name).to_owned()),
            GeneralName::IPAddress(octets) => ips.extend(address(octets)),
            _ => {}
        }
    }
    (dns, ips)
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(octets).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from)).ok()
}

/// A certificate without the extension may be used for anything (RFC 5280, 4.2.1.12).
fn usages(cert: &X509Certificate<'_>) -> Vec<Usage> {
    let all = [Usage::Server, Usage::Client];
    let Ok(Some(extension)) = cert.extended_key_usage() else { return all.into() };
    let eku = extension.value;
    let has = |usage: &Usage| match usage {
        Usage::Server => eku.any || eku.server_auth,
        Usage::Client => eku.any || eku.client_auth,
    };
    all.into_iter().filter(has).collect()
}

fn is_authority(cert: &X509Certificate<'_>) -> bool {
    let may_sign = cert.key_usage().ok().flatten().is_none_or(|usage| usage.value.key_cert_sign());
    cert.is_ca() && may_sign
}

fn key_kind(cert: &X509Certificate<'_>) -> String {
    match cert.public_key().parsed() {
        Ok(PublicKey::RSA(key)) => format!("RSA {}", key.key_size()),
        Ok(PublicKey::EC(point)) => format!("ECDSA P-{}", point.key_size().min(521)),
        _ if cert.public_key().algorithm.algorithm.to_id_string() == "1.3.101.112" => "Ed25519".into(),
        _ => cert.public_key().algorithm.algorithm.to_id_string(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02X}")).collect::<Vec<_>>().join(":")
}
