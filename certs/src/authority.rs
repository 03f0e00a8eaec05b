//! The mesh's certificate authority: made, imported, saved, and asked for leaves.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, DnValue, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PublicKeyData, SanType,
};
use rustls_pki_types::pem::{PemObject, SliceIter};
use rustls_pki_types::{CertificateDer, ServerName};

use crate::error::CertError;
use crate::files::{CA_FILE, certificates, private_key, write_private, write_public};
use crate::leaf::{LeafRequest, Usage, Validity};
use crate::pkcs8::signing_key;
use crate::x509::{CertInfo, inspect, issuer_repeats, rfc3339};

/// The name of the authority's key in its directory.
pub const CA_KEY_FILE: &str = "ca.key";

/// The subject of Cilium's own authority, and ours by default.
pub const DEFAULT_CA_NAME: &str = "Cilium CA";

/// An authority with its key. It lives outside any cluster's directory.
pub struct Authority {
    certificate: CertificateDer<'static>,
    certificate_pem: String,
    key: KeyPair,
    info: CertInfo,
}

/// A leaf with its key, both PEM; the key is PKCS#8.
#[derive(Clone, PartialEq, Eq)]
pub struct IssuedLeaf {
    /// The certificate.
    pub cert_pem: String,
    /// Its key.
    pub key_pem: String,
}

impl Authority {
    /// A new authority, ECDSA P-256.
    pub fn create(name: &str, validity: Validity) -> Result<Self, CertError> {
        let key = KeyPair::generate().map_err(CertError::make)?;
        let mut params = params(name, validity);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        let made = params.self_signed(&key).map_err(CertError::make)?;
        let info = inspect(Path::new(CA_FILE), made.der())?;
        Ok(Self { certificate: made.der().clone(), certificate_pem: made.pem(), key, info })
    }

    /// An authority saved by [`Authority::save`]: `ca.crt` and `ca.key` in a directory. `tls.crt` and `tls.key`, as
    /// cert-manager names them, are read too.
    pub fn load(dir: &Path) -> Result<Self, CertError> {
        let cert_manager = dir.join("tls.key");
        if !dir.join(CA_KEY_FILE).exists() && cert_manager.exists() {
            return Self::load_files(&dir.join("tls.crt"), &cert_manager);
        }
        Self::load_files(&dir.join(CA_FILE), &dir.join(CA_KEY_FILE))
    }

    /// An authority from a certificate's file and a key's. Of several certificates in the file the one of the key counts.
    pub fn load_files(cert: &Path, key: &Path) -> Result<Self, CertError> {
        let read = |path: &Path| fs::read(path).map_err(|e| CertError::read(path, &e));
        Self::from_pem((cert, &read(cert)?), (key, &read(key)?))
    }

    /// An authority from the `data` of a Kubernetes Secret as Cilium (`ca.crt`, `ca.key`) or cert-manager (`tls.crt`,
    /// `tls.key`) writes it; the values are base64.
    pub fn from_secret(path: &Path, data: &BTreeMap<String, String>) -> Result<Self, CertError> {
        let bad = |detail: String| CertError::BadSecret { path: path.into(), detail };
        let names = if data.contains_key(CA_KEY_FILE) { [CA_FILE, CA_KEY_FILE] } else { ["tls.crt", "tls.key"] };
        let [cert, key] = names.map(|name| {
            let value = data.get(name).ok_or_else(|| bad(format!("data.{name} is missing")))?;
            base64(value).ok_or_else(|| bad(format!("data.{name} is not base64")))
        });
        Self::from_pem((path, &cert?), (path, &key?))
    }

    /// An authority from a certificate and a key, each behind the name that errors call it by.
    pub fn from_pem((cert_path, cert): (&Path, &[u8]), (key_path, key): (&Path, &[u8])) -> Result<Self, CertError> {
        let key = signing_key(&private_key(key_path, key)?)
            .map_err(|e| CertError::UnusableKey { path: key_path.into(), detail: e.to_string() })?;
        let public = key.subject_public_key_info();
        let blocks = pem_blocks(&String::from_utf8_lossy(cert));
        for (certificate, block) in certificates(cert_path, cert)?.into_iter().zip(blocks) {
            let info = inspect(cert_path, &certificate)?;
            if info.public_key != public {
                continue;
            }
            if !info.is_ca {
                return Err(CertError::NotAuthority { subject: info.subject });
            }
            return Ok(Self { certificate, certificate_pem: block, key, info });
        }
        Err(CertError::KeyMismatch { cert: cert_path.into(), key: key_path.into() })
    }

    /// Writes `ca.crt`, and `ca.key` as PKCS#8 with mode 0600. Existing files are replaced.
    pub fn save(&self, dir: &Path) -> Result<(), CertError> {
        fs::create_dir_all(dir).map_err(|e| CertError::write(dir, &e))?;
        write_private(&dir.join(CA_KEY_FILE), self.key.serialize_pem().as_bytes())?;
        write_public(&dir.join(CA_FILE), self.certificate_pem.as_bytes())
    }

    /// The certificate, PEM.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The key, PKCS#8 in PEM: whoever has it can sign for any cluster.
    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// What the certificate says.
    pub fn info(&self) -> &CertInfo {
        &self.info
    }

    /// Makes a leaf with a new ECDSA P-256 key.
    pub fn issue(&self, request: &LeafRequest) -> Result<IssuedLeaf, CertError> {
        let expired =
            || CertError::AuthorityExpired { subject: self.info.subject.clone(), until: rfc3339(self.info.not_after) };
        let end = u64::try_from(self.info.not_after).map_err(|_| expired())?;
        if end <= request.validity.not_before {
            return Err(expired());
        }
        let validity = Validity { not_after: request.validity.not_after.min(end), ..request.validity };
        let key = KeyPair::generate().map_err(CertError::make)?;
        let params = self.leaf_params(request, validity)?;
        let issuer = Issuer::from_ca_cert_der(&self.certificate, &self.key).map_err(CertError::make)?;
        let leaf = params.signed_by(&key, &issuer).map_err(CertError::make)?;
        if !issuer_repeats(leaf.der(), &self.certificate) {
            return Err(CertError::IssuerName { subject: self.info.subject.clone() });
        }
        Ok(IssuedLeaf { cert_pem: leaf.pem(), key_pem: key.serialize_pem() })
    }

    fn leaf_params(&self, request: &LeafRequest, validity: Validity) -> Result<CertificateParams, CertError> {
        let names = request.leaf.alternative_names(&request.cluster);
        let mut params = params(&request.leaf.common_name(&request.cluster), validity);
        for name in names {
            params.subject_alt_names.extend(alternative_name(name)?);
        }
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = request
            .leaf
            .usages()
            .iter()
            .map(|usage| match usage {
                Usage::Server => ExtendedKeyUsagePurpose::ServerAuth,
                Usage::Client => ExtendedKeyUsagePurpose::ClientAuth,
            })
            .collect();
        Ok(params)
    }
}

fn params(common_name: &str, validity: Validity) -> CertificateParams {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, DnValue::Utf8String(common_name.into()));
    let mut params = CertificateParams::default();
    params.not_before = epoch + Duration::from_secs(validity.not_before);
    params.not_after = epoch + Duration::from_secs(validity.not_after);
    params.distinguished_name = name;
    params
}

fn alternative_name(name: String) -> Result<Vec<SanType>, CertError> {
    if ServerName::try_from(name.strip_prefix("*.").unwrap_or(&name)).is_err() {
        return Err(CertError::BadName { name });
    }
    let one = CertificateParams::new([name.clone()]).map_err(|_| CertError::BadName { name })?;
    Ok(one.subject_alt_names)
}

/// A trust bundle: `first`, then what else is in `others`, each certificate once.
pub fn bundle(first: &str, others: &str) -> String {
    let mut blocks: Vec<String> = Vec::new();
    for block in pem_blocks(first).into_iter().chain(pem_blocks(others)) {
        if !blocks.contains(&block) {
            blocks.push(block);
        }
    }
    blocks.concat()
}

/// The certificate blocks of a PEM text, each with its armour, in order.
fn pem_blocks(text: &str) -> Vec<String> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    let mut blocks = Vec::new();
    for part in text.split(BEGIN).skip(1) {
        if let Some((body, _)) = part.split_once(END) {
            blocks.push(format!("{BEGIN}{body}{END}\n"));
        }
    }
    blocks
}

/// Decodes base64 by the one decoder in the graph that is ours to use: that of PEM, which takes any content.
fn base64(text: &str) -> Option<Vec<u8>> {
    let armoured = format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", text.trim());
    let mut found: SliceIter<'_, CertificateDer<'static>> = CertificateDer::pem_slice_iter(armoured.as_bytes());
    found.next()?.ok().map(|content| content.to_vec())
}
