//! Whether certificates will do, and if not, what is wrong and what to do about it.
//!
//! Problems are values: all of them are found, not the first, and each names its file.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, InconsistentKeys, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use serde::Serialize;

use crate::error::CertError;
use crate::files::{Role, TlsFiles, TlsText, certificates, private_key, read_bundle, read_key};
use crate::leaf::{MESH_DOMAIN, Usage};
use crate::tls::provider;
use crate::x509::{CertInfo, inspect, rfc3339};

/// A certificate that ends within this time is worth a warning.
const SOON_SECONDS: i64 = 30 * 86_400;

/// One thing wrong with certificate material.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(tag = "problem", rename_all = "kebab-case")]
pub enum Problem {
    /// A file is missing, unreadable or broken.
    #[error("{detail}")]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// The validity is over.
    #[error("{}: expired at {until}", path.display())]
    Expired {
        /// The certificate.
        path: PathBuf,
        /// Its end, RFC 3339.
        until: String,
    },
    /// The validity ends soon.
    #[error("{}: expires at {until}", path.display())]
    ExpiresSoon {
        /// The certificate.
        path: PathBuf,
        /// Its end, RFC 3339.
        until: String,
    },
    /// The validity has not begun.
    #[error("{}: not valid before {from}", path.display())]
    NotYetValid {
        /// The certificate.
        path: PathBuf,
        /// Its beginning, RFC 3339.
        from: String,
    },
    /// The authority itself has expired: Go programs, etcd among them, then refuse all its leaves.
    #[error("{}: the authority {subject:?} expired at {until}", path.display())]
    AuthorityExpired {
        /// The trust bundle.
        path: PathBuf,
        /// The authority.
        subject: String,
        /// Its end, RFC 3339.
        until: String,
    },
    /// No authority of the trust bundle signed the certificate.
    #[error("{}: issued by {issuer:?}, which {} does not trust (it has {})", path.display(), bundle.display(), trusted.join(", "))]
    OtherAuthority {
        /// The certificate.
        path: PathBuf,
        /// Its issuer's name; equal names may hide different keys.
        issuer: String,
        /// The trust bundle.
        bundle: PathBuf,
        /// Subject and beginning of the fingerprint of each authority in the bundle.
        trusted: Vec<String>,
    },
    /// The common name is another.
    #[error("{}: the common name is {found:?}, expected {}", path.display(), expected.join(" or "))]
    WrongName {
        /// The certificate.
        path: PathBuf,
        /// What it is.
        found: String,
        /// What it may be.
        expected: Vec<String>,
    },
    /// The extended key usage lacks one.
    #[error("{}: may not be used as a {} certificate", path.display(), usage.as_str())]
    WrongUsage {
        /// The certificate.
        path: PathBuf,
        /// What is missing.
        usage: Usage,
    },
    /// The key belongs to another certificate.
    #[error("{}: is not the key of {}", path.display(), cert.display())]
    KeyMismatch {
        /// The key.
        path: PathBuf,
        /// The certificate.
        cert: PathBuf,
    },
    /// A name by which the server is dialled is not in the certificate.
    #[error("{}: does not cover the name {name}", path.display())]
    MissingName {
        /// The certificate.
        path: PathBuf,
        /// The host name or address.
        name: String,
    },
    /// Others than the owner may read the key.
    #[error("{}: mode {mode:04o}, others than its owner can read the key", path.display())]
    KeyExposed {
        /// The key.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Connections work.
    Warning,
    /// Connections fail, or a secret is out.
    Error,
}

impl Problem {
    /// How bad it is.
    pub fn severity(&self) -> Severity {
        match self {
            Self::ExpiresSoon { .. } => Severity::Warning,
            // A key that a group may read is how Kubernetes hands Secrets to a pod with an fsGroup.
            Self::KeyExposed { mode, .. } if mode & 0o007 == 0 => Severity::Warning,
            _ => Severity::Error,
        }
    }

    /// What to do about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Unusable { .. } => "put the file in place, or issue the leaves again: tombolo certs issue",
            Self::Expired { .. } | Self::ExpiresSoon { .. } => "issue the leaves again: tombolo certs issue --force",
            Self::NotYetValid { .. } => "set the clock of this machine, or of the one that issued the certificate",
            Self::AuthorityExpired { .. } => "make a new authority: docs/certs.md, Replacing the authority",
            Self::OtherAuthority { .. } => {
                "issue the leaves from the authority that the other side trusts, or add the issuer to its ca.crt"
            }
            Self::WrongName { .. } => "issue the leaves again with this cluster's name, or use the right directory",
            Self::WrongUsage { .. } => {
                "issue the leaf again; a server certificate must allow serverAuth and clientAuth"
            }
            Self::KeyMismatch { .. } => "copy certificate and key as a pair, or issue the leaf again",
            Self::MissingName { .. } => "issue the server leaf again with --dns or --ip for that name",
            Self::KeyExposed { .. } => "chmod 600 the key; if others could read it, issue the leaf again",
        }
    }
}

impl Usage {
    /// The word in messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Client => "client",
        }
    }
}

/// What a certificate should be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// One of these common names; any when empty.
    pub common_names: Vec<String>,
    /// All of these uses.
    pub usages: Vec<Usage>,
    /// All of these host names and addresses.
    pub names: Vec<String>,
}

impl Expected {
    /// What a leaf of a cluster should be: names as Cilium's, the server reachable as `<cluster>.mesh.cilium.io`.
    pub fn of(role: Role, cluster: &str) -> Self {
        let names = if role == Role::Server { vec![format!("{cluster}.{MESH_DOMAIN}")] } else { Vec::new() };
        Self { common_names: role.common_names(cluster), usages: role.usages().into(), names }
    }
}

/// A problem of one leaf of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The cluster.
    pub cluster: String,
    /// Whose leaf.
    pub role: Role,
    /// What is wrong.
    #[serde(flatten)]
    pub problem: Problem,
    /// How bad it is.
    pub severity: Severity,
}

/// Checks all leaves in a cluster's `tls/` directory. `now` is in unix seconds.
pub fn verify_cluster(dir: &Path, cluster: &str, now: u64) -> Vec<Finding> {
    let mut findings = Vec::new();
    for role in Role::ALL {
        for problem in verify(&TlsFiles::of(dir, role), &Expected::of(role, cluster), now) {
            let severity = problem.severity();
            findings.push(Finding { cluster: cluster.into(), role, problem, severity });
        }
    }
    findings
}

/// Checks one leaf against its key, its own trust bundle and what it should be. `now` is in unix seconds.
pub fn verify(files: &TlsFiles, expected: &Expected, now: u64) -> Vec<Problem> {
    let read = Read { ca: read_bundle(&files.ca), chain: read_bundle(&files.cert), key: read_key(&files.key) };
    judge(files, read, exposed(&files.key), expected, now)
}

/// As [`verify`], for what is no file but, say, a Secret. Problems call its parts by `names`.
pub fn verify_text(names: &TlsFiles, text: &TlsText, expected: &Expected, now: u64) -> Vec<Problem> {
    let read = Read {
        ca: certificates(&names.ca, &text.ca),
        chain: certificates(&names.cert, &text.cert),
        key: private_key(&names.key, &text.key),
    };
    judge(names, read, None, expected, now)
}

/// Whether a reader with this trust bundle accepts this certificate, uses and names apart. `now` is in unix seconds.
pub fn accepted_by(cert: &Path, bundle: &Path, now: u64) -> Vec<Problem> {
    accepted((cert, read_bundle(cert)), (bundle, read_bundle(bundle)), now)
}

/// As [`accepted_by`], for what is no file; each text stands behind its name.
pub fn text_accepted_by((cert, text): (&Path, &[u8]), (bundle, authorities): (&Path, &[u8]), now: u64) -> Vec<Problem> {
    accepted((cert, certificates(cert, text)), (bundle, certificates(bundle, authorities)), now)
}

/// What was read of one leaf.
struct Read {
    ca: Chain,
    chain: Chain,
    key: Result<PrivateKeyDer<'static>, CertError>,
}

type Chain = Result<Vec<CertificateDer<'static>>, CertError>;

fn judge(names: &TlsFiles, read: Read, exposed: Option<Problem>, expected: &Expected, now: u64) -> Vec<Problem> {
    let mut problems = Vec::new();
    let chain = keep(read.chain, &names.cert, &mut problems);
    let key = keep(read.key, &names.key, &mut problems);
    problems.extend(exposed);
    let Some(chain) = chain else { return problems };
    let Some(info) = keep(inspect(&names.cert, &chain[0]), &names.cert, &mut problems) else { return problems };
    problems.extend(key.and_then(|key| mismatch(names, chain.clone(), key)));
    problems.extend(dates(&names.cert, &info, now));
    problems.extend(against(&names.cert, &info, expected));
    problems.extend(accepted((&names.cert, Ok(chain)), (&names.ca, read.ca), now));
    problems
}

fn accepted((cert, chain): (&Path, Chain), (bundle, authorities): (&Path, Chain), now: u64) -> Vec<Problem> {
    let mut problems = Vec::new();
    // A broken certificate has been reported by `verify`, which looks at it first; here only the bundle is news.
    let Ok(chain) = chain else { return problems };
    let Ok(leaf) = inspect(cert, &chain[0]) else { return problems };
    let Some(authorities) = keep(authorities, bundle, &mut problems) else { return problems };
    let signers: Vec<&CertificateDer<'static>> = authorities.iter().filter(|a| signed(&chain, a, &leaf)).collect();
    if signers.is_empty() {
        let trusted = authorities.iter().filter_map(|a| inspect(bundle, a).ok()).map(|a| a.short()).collect();
        problems.push(Problem::OtherAuthority {
            path: cert.into(),
            issuer: leaf.issuer,
            bundle: bundle.into(),
            trusted,
        });
        return problems;
    }
    let expired: Vec<Problem> = signers.iter().filter_map(|a| authority_expired(bundle, a, now)).collect();
    if expired.len() == signers.len() {
        problems.extend(expired);
    }
    problems
}

/// Whether this authority alone would vouch for the chain. Dates are left out (the leaf's own last second is taken as the
/// time), and uses too: both are problems of their own.
fn signed(chain: &[CertificateDer<'static>], authority: &CertificateDer<'static>, leaf: &CertInfo) -> bool {
    let mut roots = RootCertStore::empty();
    if roots.add(authority.clone()).is_err() {
        return false;
    }
    let at = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(leaf.not_after).unwrap_or_default()));
    let result =
        if leaf.usages.contains(&Usage::Client) { as_client(chain, roots, at) } else { as_server(chain, &roots, at) };
    let purpose_only = |e: &rustls::Error| {
        matches!(
            e,
            rustls::Error::InvalidCertificate(
                CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. }
            )
        )
    };
    result.is_ok() || result.is_err_and(|e| purpose_only(&e))
}

fn as_client(chain: &[CertificateDer<'_>], roots: RootCertStore, at: UnixTime) -> Result<(), rustls::Error> {
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
    let verifier = verifier.build().map_err(|e| rustls::Error::General(e.to_string()))?;
    verifier.verify_client_cert(&chain[0], &chain[1..], at).map(drop)
}

fn as_server(chain: &[CertificateDer<'_>], roots: &RootCertStore, at: UnixTime) -> Result<(), rustls::Error> {
    let leaf = ParsedCertificate::try_from(&chain[0])?;
    let algorithms = provider().signature_verification_algorithms.all;
    verify_server_cert_signed_by_trust_anchor(&leaf, roots, &chain[1..], at, algorithms)
}

fn authority_expired(bundle: &Path, authority: &CertificateDer<'_>, now: u64) -> Option<Problem> {
    let info = inspect(bundle, authority).ok()?;
    (info.not_after < seconds(now)).then(|| Problem::AuthorityExpired {
        path: bundle.into(),
        until: rfc3339(info.not_after),
        subject: info.subject,
    })
}

fn mismatch(files: &TlsFiles, chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Option<Problem> {
    let path = files.key.clone();
    match CertifiedKey::from_der(chain, key, &provider()) {
        Ok(_) => None,
        Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
            Some(Problem::KeyMismatch { path, cert: files.cert.clone() })
        }
        Err(e) => Some(Problem::Unusable { detail: format!("{}: {e}", path.display()), path }),
    }
}

fn dates(path: &Path, info: &CertInfo, now: u64) -> Option<Problem> {
    let now = seconds(now);
    let until = rfc3339(info.not_after);
    if now > info.not_after {
        Some(Problem::Expired { path: path.into(), until })
    } else if now < info.not_before {
        Some(Problem::NotYetValid { path: path.into(), from: rfc3339(info.not_before) })
    } else if info.not_after - now < SOON_SECONDS {
        Some(Problem::ExpiresSoon { path: path.into(), until })
    } else {
        None
    }
}

fn against(path: &Path, info: &CertInfo, expected: &Expected) -> Vec<Problem> {
    let mut problems = Vec::new();
    let found = info.common_name.clone().unwrap_or_default();
    if !expected.common_names.is_empty() && !expected.common_names.contains(&found) {
        let expected = expected.common_names.clone();
        problems.push(Problem::WrongName { path: path.into(), found, expected });
    }
    let missing = expected.usages.iter().filter(|u| !info.usages.contains(u));
    problems.extend(missing.map(|u| Problem::WrongUsage { path: path.into(), usage: *u }));
    let uncovered = expected.names.iter().filter(|n| !covers(info, n));
    problems.extend(uncovered.map(|n| Problem::MissingName { path: path.into(), name: n.clone() }));
    problems
}

/// Whether the alternative names cover a host name, by a wildcard of one label too, or an address.
fn covers(info: &CertInfo, name: &str) -> bool {
    if let Ok(ip) = name.parse::<IpAddr>() {
        return info.ips.contains(&ip);
    }
    let parent = name.split_once('.').map(|(_, parent)| parent);
    info.dns.iter().any(|dns| {
        dns.eq_ignore_ascii_case(name)
            || dns.strip_prefix("*.").zip(parent).is_some_and(|(own, parent)| own.eq_ignore_ascii_case(parent))
    })
}

fn exposed(key: &Path) -> Option<Problem> {
    let mode = fs::metadata(key).ok()?.permissions().mode() & 0o7777;
    (mode & 0o077 != 0).then(|| Problem::KeyExposed { path: key.into(), mode })
}

fn keep<T>(result: Result<T, CertError>, path: &Path, problems: &mut Vec<Problem>) -> Option<T> {
    result.map_err(|e| problems.push(Problem::Unusable { path: path.into(), detail: e.to_string() })).ok()
}

/// A date beyond what a certificate can say is later than all of them.
fn seconds(unix: u64) -> i64 {
    i64::try_from(unix).unwrap_or(i64::MAX)
}
