//! `certs`: files around `tombolo-certs`, which does the work.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tombolo_certs::{
    Authority, CA_FILE, CA_KEY_FILE, CertError, CertInfo, Finding, Leaf, LeafRequest, Role, TlsFiles, Validity,
    inspect, read_bundle, verify_cluster, write_private, write_public,
};
use tombolo_core::id::ClusterName;

use crate::args::LeafArgs;
use crate::cluster::Cluster;
use crate::connect::mutual_trust;
use crate::init::Replace;

/// Why a `certs` command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CertsError {
    /// Files would be lost.
    #[error("{} exists: add --force to replace it", path.display())]
    Exists { path: PathBuf },
    /// A directory of a cluster was named as the authority's.
    #[error("{} is a cluster's directory: keep the authority, with its key, outside of any cluster's", path.display())]
    InsideCluster { path: PathBuf },
    /// A Secret is no YAML of the right shape.
    #[error("{}: no Secret: {detail}", path.display())]
    Secret { path: PathBuf, detail: String },
    /// A directory holds no certificates.
    #[error("{} holds no certificates (*.crt)", path.display())]
    Nothing { path: PathBuf },
    /// The material is wrong.
    #[error(transparent)]
    Cert(#[from] CertError),
}

/// A certificate with its file.
#[derive(Debug, Serialize)]
pub(crate) struct Shown {
    /// The file.
    pub path: PathBuf,
    /// What it says.
    #[serde(flatten)]
    pub info: CertInfo,
}

/// Certificates that were made or looked at.
#[derive(Debug, Serialize)]
pub(crate) struct ShownAll {
    /// The certificates.
    pub certificates: Vec<Shown>,
}

/// What `verify` found.
#[derive(Debug, Serialize)]
pub(crate) struct Verified {
    /// The clusters that were checked.
    pub clusters: Vec<ClusterName>,
    /// All findings, warnings too.
    pub findings: Vec<Finding>,
}

/// The leaves of one cluster that are to be issued.
pub(crate) struct Leaves<'a> {
    /// Whose.
    pub cluster: &'a ClusterName,
    /// The authority's directory.
    pub ca: &'a Path,
    /// The cluster's `tls/`.
    pub dir: &'a Path,
    /// What stands in them.
    pub args: &'a LeafArgs,
    /// What to do with existing ones.
    pub replace: Replace,
}

/// Makes an authority.
pub(crate) fn init(dir: &Path, name: &str, days: u32, replace: Replace, now: u64) -> Result<ShownAll, CertsError> {
    keep(dir, replace)?;
    save(dir, &Authority::create(name, Validity::days(now, days))?)
}

/// Takes over an authority from its files.
pub(crate) fn import_files(dir: &Path, cert: &Path, key: &Path, replace: Replace) -> Result<ShownAll, CertsError> {
    keep(dir, replace)?;
    save(dir, &Authority::load_files(cert, key)?)
}

/// Takes over an authority from a Kubernetes Secret's YAML.
pub(crate) fn import_secret(dir: &Path, secret: &Path, replace: Replace) -> Result<ShownAll, CertsError> {
    #[derive(Deserialize)]
    struct Secret {
        #[serde(default)]
        data: BTreeMap<String, String>,
    }
    keep(dir, replace)?;
    let text = fs::read_to_string(secret).map_err(|e| CertError::Read { path: secret.into(), kind: e.kind() })?;
    let parsed: Secret = serde_saphyr::from_str(&text)
        .map_err(|e| CertsError::Secret { path: secret.into(), detail: e.without_snippet().to_string() })?;
    save(dir, &Authority::from_secret(secret, &parsed.data)?)
}

/// Issues the leaves of a cluster, and adds the authority to its trust bundle.
pub(crate) fn issue(leaves: &Leaves<'_>, now: u64) -> Result<ShownAll, CertsError> {
    let (dir, args) = (leaves.dir, leaves.args);
    let authority = Authority::load(leaves.ca)?;
    if leaves.replace == Replace::No {
        let files = Role::ALL.map(|role| TlsFiles::of(dir, role));
        if let Some(path) = files.into_iter().flat_map(|f| [f.cert, f.key]).find(|path| path.exists()) {
            return Err(CertsError::Exists { path });
        }
    }
    let (dns, ips) = names(leaves)?;
    let server = Leaf::Server { namespace: args.namespace.clone(), dns, ips };
    // All are made before one is written: a mistake in a name must not leave half a set.
    let made: Result<Vec<_>, CertError> = [server, Leaf::Admin, Leaf::Local, Leaf::Remote(args.auth_mode.into())]
        .into_iter()
        .map(|leaf| {
            let files = TlsFiles::of(dir, leaf.role());
            let cluster = leaves.cluster.as_str().to_owned();
            let request = LeafRequest { cluster, leaf, validity: Validity::days(now, args.days) };
            Ok((files, authority.issue(&request)?))
        })
        .collect();
    let made = made?;
    fs::create_dir_all(dir).map_err(|e| CertError::Write { path: dir.into(), kind: e.kind() })?;
    add_to_bundle(&dir.join(CA_FILE), authority.certificate_pem(), authority.info())?;
    for (files, leaf) in &made {
        write_private(&files.key, leaf.key_pem.as_bytes())?;
        write_public(&files.cert, leaf.cert_pem.as_bytes())?;
    }
    show(&made.into_iter().map(|(files, _)| files.cert).collect::<Vec<_>>())
}

/// What the server is called besides: as asked for, and as it was, for whoever dials the old names goes on to.
fn names(leaves: &Leaves<'_>) -> Result<(Vec<String>, Vec<IpAddr>), CertsError> {
    let (mut dns, mut ips) = (leaves.args.dns.clone(), leaves.args.ip.clone());
    let old = TlsFiles::of(leaves.dir, Role::Server).cert;
    if old.exists() {
        for info in described(&old)?.into_iter().take(1) {
            dns.extend(info.dns);
            ips.extend(info.ips);
        }
    }
    dns.sort();
    dns.dedup();
    ips.sort();
    ips.dedup();
    Ok((dns, ips))
}

/// Trusts a further authority, or only this one.
pub(crate) fn trust(dir: &Path, ca: &Path, only: bool) -> Result<ShownAll, CertsError> {
    let source = if ca.is_dir() { ca.join(CA_FILE) } else { ca.into() };
    let pem = fs::read_to_string(&source).map_err(|e| CertError::Read { path: source.clone(), kind: e.kind() })?;
    let authorities = described(&source)?;
    if let Some(leaf) = authorities.iter().find(|info| !info.is_ca) {
        return Err(CertError::NotAuthority { subject: leaf.subject.clone() }.into());
    }
    let bundle = dir.join(CA_FILE);
    if only {
        write_public(&bundle, pem.as_bytes())?;
    } else {
        // A file of several authorities is added as a whole; reading a certificate twice does no harm.
        let known = if bundle.exists() { described(&bundle)? } else { Vec::new() };
        if let Some(new) = authorities.iter().find(|a| !known.contains(a)) {
            add_to_bundle(&bundle, &pem, new)?;
        }
    }
    show(&[bundle])
}

/// Describes certificates in files and directories.
pub(crate) fn show(paths: &[PathBuf]) -> Result<ShownAll, CertsError> {
    let mut certificates = Vec::new();
    for path in paths {
        let files = if path.is_dir() { certificate_files(path)? } else { vec![path.clone()] };
        for path in files {
            certificates.extend(described(&path)?.into_iter().map(|info| Shown { path: path.clone(), info }));
        }
    }
    Ok(ShownAll { certificates })
}

/// Checks the leaves of clusters, and that each cluster accepts the others'.
pub(crate) fn verify(clusters: &[Cluster], now: u64) -> Verified {
    let mut findings = Vec::new();
    for own in clusters {
        findings.extend(verify_cluster(&own.root.join("tls"), own.name.as_str(), now));
        for other in clusters.iter().filter(|other| other.name != own.name) {
            findings.extend(mutual_trust(own, other, now).into_iter().map(|(role, problem)| Finding {
                cluster: own.name.to_string(),
                role,
                severity: problem.severity(),
                problem,
            }));
        }
    }
    Verified { clusters: clusters.iter().map(|c| c.name.clone()).collect(), findings }
}

fn keep(dir: &Path, replace: Replace) -> Result<(), CertsError> {
    if dir.join(crate::cluster::CLUSTER_FILE).exists() {
        return Err(CertsError::InsideCluster { path: dir.into() });
    }
    let existing = [CA_KEY_FILE, CA_FILE].map(|name| dir.join(name)).into_iter().find(|path| path.exists());
    match existing {
        Some(path) if replace == Replace::No => Err(CertsError::Exists { path }),
        _ => Ok(()),
    }
}

fn save(dir: &Path, authority: &Authority) -> Result<ShownAll, CertsError> {
    authority.save(dir)?;
    show(&[dir.join(CA_FILE)])
}

/// Adds an authority to a bundle that does not have it. The new one comes first: it is the one in use.
fn add_to_bundle(bundle: &Path, pem: &str, info: &CertInfo) -> Result<(), CertsError> {
    let (known, text) = if bundle.exists() {
        let text = fs::read_to_string(bundle).map_err(|e| CertError::Read { path: bundle.into(), kind: e.kind() })?;
        (described(bundle)?, text)
    } else {
        (Vec::new(), String::new())
    };
    if !known.contains(info) {
        let separator = if pem.ends_with('\n') { "" } else { "\n" };
        write_public(bundle, format!("{pem}{separator}{text}").as_bytes())?;
    }
    Ok(())
}

fn described(path: &Path) -> Result<Vec<CertInfo>, CertError> {
    read_bundle(path)?.iter().map(|cert| inspect(path, cert)).collect()
}

fn certificate_files(dir: &Path) -> Result<Vec<PathBuf>, CertsError> {
    let entries = fs::read_dir(dir).map_err(|e| CertError::Read { path: dir.into(), kind: e.kind() })?;
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "crt"))
        .collect();
    files.sort();
    if files.is_empty() { Err(CertsError::Nothing { path: dir.into() }) } else { Ok(files) }
}
