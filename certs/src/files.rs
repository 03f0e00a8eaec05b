//! The files of a cluster's `tls/` directory: where they are, how they are read and how they are written.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::error::CertError;

/// The name of the trust bundle in a `tls/` directory.
pub const CA_FILE: &str = "ca.crt";

/// The mode of a private key's file.
pub const PRIVATE_MODE: u32 = 0o600;

/// A trust bundle, a certificate (chain) and its key, all PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Trusted authorities, one or several.
    pub ca: PathBuf,
    /// The certificate, leaf first.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// The content of [`TlsFiles`] where they are no files: in a Secret, or not yet written. All PEM.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct TlsText {
    /// Trusted authorities, one or several.
    pub ca: Vec<u8>,
    /// The certificate, leaf first.
    pub cert: Vec<u8>,
    /// Its private key.
    pub key: Vec<u8>,
}

/// Which of a cluster's leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The store's listener.
    Server,
    /// The apiserver towards its own store, and the operator.
    Admin,
    /// The agents towards the own store.
    Local,
    /// The mirror towards the peers' stores.
    Remote,
}

impl Role {
    /// All leaves of a cluster.
    pub const ALL: [Self; 4] = [Self::Server, Self::Admin, Self::Local, Self::Remote];

    /// The stem of its files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Admin => "admin",
            Self::Local => "local",
            Self::Remote => "remote",
        }
    }
}

impl TlsFiles {
    /// The files of one leaf in a cluster's `tls/` directory: `ca.crt`, `<role>.crt`, `<role>.key`.
    pub fn of(dir: &Path, role: Role) -> Self {
        let stem = role.as_str();
        Self { ca: dir.join(CA_FILE), cert: dir.join(format!("{stem}.crt")), key: dir.join(format!("{stem}.key")) }
    }
}

/// Without the key.
impl std::fmt::Debug for TlsText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = |pem: &[u8]| String::from_utf8_lossy(pem).into_owned();
        f.debug_struct("TlsText").field("ca", &text(&self.ca)).field("cert", &text(&self.cert)).finish_non_exhaustive()
    }
}

/// What [`TlsFiles`] held when they were read.
#[derive(Debug)]
pub struct Material {
    /// The trusted authorities.
    pub ca: Vec<CertificateDer<'static>>,
    /// The chain, leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The key.
    pub key: PrivateKeyDer<'static>,
}

/// Reads all three files now.
pub fn load(files: &TlsFiles) -> Result<Material, CertError> {
    Ok(Material { ca: read_bundle(&files.ca)?, chain: read_bundle(&files.cert)?, key: read_key(&files.key)? })
}

/// Reads every certificate of a PEM file; at least one.
pub fn read_bundle(path: &Path) -> Result<Vec<CertificateDer<'static>>, CertError> {
    let text = fs::read(path).map_err(|e| CertError::read(path, &e))?;
    certificates(path, &text)
}

/// Every certificate of a PEM text, at least one; `path` is for the error.
pub fn certificates(path: &Path, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, CertError> {
    let found: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(text).collect();
    let found = found.map_err(|e| CertError::broken(path, e))?;
    if found.is_empty() { Err(CertError::NoCertificate { path: path.into() }) } else { Ok(found) }
}

/// Reads the private key of a PEM file: PKCS#8, PKCS#1 or SEC1.
pub fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, CertError> {
    let text = fs::read(path).map_err(|e| CertError::read(path, &e))?;
    private_key(path, &text)
}

/// The private key of a PEM text; `path` is for the error.
pub(crate) fn private_key(path: &Path, text: &[u8]) -> Result<PrivateKeyDer<'static>, CertError> {
    PrivateKeyDer::from_pem_slice(text).map_err(|e| match e {
        pem::Error::NoItemsFound => CertError::NoKey { path: path.into() },
        other => CertError::broken(path, other),
    })
}

/// Writes a file that only its owner may read, whole or not at all.
pub fn write_private(path: &Path, content: &[u8]) -> Result<(), CertError> {
    write_with_mode(path, content, PRIVATE_MODE)
}

/// Writes a file that everybody may read, whole or not at all.
pub fn write_public(path: &Path, content: &[u8]) -> Result<(), CertError> {
    write_with_mode(path, content, 0o644)
}

/// A temporary file beside the target, made with its final mode, synced and renamed: no reader sees a half-written key, and
/// at no time can anyone but the owner open it.
fn write_with_mode(path: &Path, content: &[u8], mode: u32) -> Result<(), CertError> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let temporary = path.with_file_name(format!(".{name}.{}.{n}", std::process::id()));
    let written = write_new(&temporary, content, mode).and_then(|()| fs::rename(&temporary, path));
    written.map_err(|e| {
        // What failed is the write; a leftover that cannot be removed either is the same trouble once more.
        let _ = fs::remove_file(&temporary);
        CertError::write(path, &e)
    })
}

fn write_new(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}
