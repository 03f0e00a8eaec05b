//! The certificates of a cluster in Kubernetes: which Secrets hold them, and which are issued again.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use serde::Serialize;
use tombolo_certs::{
    AuthMode, Authority, CertError, CertInfo, Expected, Leaf, LeafRequest, Role, TlsFiles, TlsText, Validity, bundle,
    certificates, inspect, verify_text,
};
use tombolo_core::id::ClusterName;
use tombolo_kube::apply::Document;
use tombolo_kube::install::{SYSTEM_NAMESPACE, TlsSecret, tls_secret};

use super::text_of;

/// The authority's Secret. Only the command line reads it: no Pod mounts it, no account may get it.
pub(crate) const CA_SECRET: &str = "tombolo-ca";

/// What the leaves should be.
#[derive(Clone, Debug)]
pub(crate) struct Wanted<'a> {
    /// Whose.
    pub cluster: &'a ClusterName,
    /// Further host names of the server.
    pub dns: &'a [String],
    /// Further addresses of the server.
    pub ips: &'a [IpAddr],
    /// The user that peers see; as it is when absent.
    pub auth_mode: Option<AuthMode>,
    /// How long new ones are valid.
    pub days: u32,
}

/// A leaf, and why it was issued.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct LeafDone {
    /// Its Secret.
    pub secret: String,
    /// Why it was issued; absent for one that is good as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issued: Option<String>,
    /// Its end, unix seconds.
    pub not_after: i64,
}

/// The Secret of a leaf.
pub(crate) fn secret_name(role: Role) -> &'static str {
    match role {
        Role::Server => "tombolo-server",
        Role::Admin => "tombolo-admin",
        Role::Local => "tombolo-local",
        Role::Remote => "tombolo-remote",
    }
}

/// What the parts of a leaf's Secret are called in messages.
pub(crate) fn files_of(cluster: &str, role: Role) -> TlsFiles {
    let part = |key: &str| format!("{cluster}'s Secret {} {key}", secret_name(role)).into();
    TlsFiles { ca: part("ca.crt"), cert: part("tls.crt"), key: part("tls.key") }
}

/// An authority as its Secret has it.
pub(crate) fn authority_of(secret: &TlsSecret, context: &str) -> Result<Authority, CertError> {
    let part = |key: &str| format!("Secret {CA_SECRET} of context {context}, {key}");
    Authority::from_pem((Path::new(&part("tls.crt")), &secret.cert), (Path::new(&part("tls.key")), &secret.key))
}

/// The authority's Secret.
pub(crate) fn authority_secret(authority: &Authority) -> Document {
    let cert = authority.certificate_pem().as_bytes().to_vec();
    let content = TlsSecret { ca: cert.clone(), cert, key: authority.key_pem().into_bytes() };
    tls_secret(SYSTEM_NAMESPACE, CA_SECRET, &[], &content)
}

/// The Secrets of all leaves. One is issued when it is missing, ends soon, or has another authority or other names than it
/// should; else it stays as it is.
///
/// Authorities that were trusted before stay trusted, behind this one. `now` is in unix seconds.
pub(crate) fn leaves(
    authority: &Authority,
    wanted: &Wanted<'_>,
    present: &BTreeMap<String, TlsSecret>,
    now: u64,
) -> Result<Vec<(LeafDone, Document)>, CertError> {
    let trusted = present.get(secret_name(Role::Server)).map(|s| String::from_utf8_lossy(&s.ca).into_owned());
    let trusted = bundle(authority.certificate_pem(), &trusted.unwrap_or_default());
    let one = |role: Role| {
        let before = present.get(secret_name(role)).map(text_of).unwrap_or_default();
        let info = described(&before);
        let leaf = leaf(role, wanted, info.as_ref());
        let why = reason(&leaf, wanted, authority, &before, info.as_ref(), now);
        let (cert, key) = match &why {
            None => (before.cert, before.key),
            Some(_) => {
                let validity = Validity::days(now, wanted.days);
                let request = LeafRequest { cluster: wanted.cluster.to_string(), leaf, validity };
                let made = authority.issue(&request)?;
                (made.cert_pem.into_bytes(), made.key_pem.into_bytes())
            }
        };
        let name = secret_name(role);
        let not_after = certificates(Path::new(name), &cert).and_then(|c| inspect(Path::new(name), &c[0]))?.not_after;
        let content = TlsSecret { ca: trusted.clone().into_bytes(), cert, key };
        let done = LeafDone { secret: name.into(), issued: why, not_after };
        Ok((done, tls_secret(SYSTEM_NAMESPACE, name, &[], &content)))
    };
    Role::ALL.into_iter().map(one).collect()
}

/// What the leaf of a role should say. A server keeps the names that it has: whoever dials them goes on to.
fn leaf(role: Role, wanted: &Wanted<'_>, before: Option<&CertInfo>) -> Leaf {
    match role {
        Role::Admin => Leaf::Admin,
        Role::Local => Leaf::Local,
        Role::Remote => {
            let own = Leaf::Remote(AuthMode::Cluster).common_name(wanted.cluster.as_str());
            let shown = before.and_then(|info| info.common_name.as_ref());
            let kept = if shown == Some(&own) { AuthMode::Cluster } else { AuthMode::Migration };
            Leaf::Remote(wanted.auth_mode.unwrap_or(kept))
        }
        Role::Server => {
            let (mut dns, mut ips) = (wanted.dns.to_vec(), wanted.ips.to_vec());
            if let Some(info) = before {
                dns.extend(info.dns.iter().cloned());
                ips.extend(&info.ips);
            }
            dns.sort();
            dns.dedup();
            ips.sort();
            ips.dedup();
            Leaf::Server { namespace: SYSTEM_NAMESPACE.into(), dns, ips }
        }
    }
}

/// Why a leaf is issued; nothing when the one that is there will do.
fn reason(
    leaf: &Leaf,
    wanted: &Wanted<'_>,
    authority: &Authority,
    before: &TlsText,
    info: Option<&CertInfo>,
    now: u64,
) -> Option<String> {
    let Some(info) = info else { return Some("there was none".into()) };
    let cluster = wanted.cluster.as_str();
    let names = leaf.alternative_names(cluster).into_iter();
    let expected = Expected {
        // Nobody reads a server's, but it says whose it is.
        common_names: vec![leaf.common_name(cluster)],
        usages: leaf.usages().into(),
        // A wildcard is there for what it covers.
        names: names.map(|name| name.replacen("*.", &format!("{cluster}."), 1)).collect(),
    };
    // Of this authority: what else is trusted does not count here.
    let text = TlsText { ca: authority.certificate_pem().as_bytes().to_vec(), ..before.clone() };
    let problems = verify_text(&files_of(cluster, leaf.role()), &text, &expected, now);
    let first = problems.first()?;
    Some(match first {
        tombolo_certs::Problem::OtherAuthority { .. } => format!("it was issued by another authority, {}", info.issuer),
        tombolo_certs::Problem::ExpiresSoon { until, .. } => format!("it would have expired at {until}"),
        tombolo_certs::Problem::Expired { until, .. } => format!("it expired at {until}"),
        tombolo_certs::Problem::MissingName { name, .. } => format!("it did not cover {name}"),
        other => other.to_string(),
    })
}

fn described(leaf: &TlsText) -> Option<CertInfo> {
    let name = Path::new("tls.crt");
    inspect(name, certificates(name, &leaf.cert).ok()?.first()?).ok()
}

#[cfg(test)]
mod tests;
