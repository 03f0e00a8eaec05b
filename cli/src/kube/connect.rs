//! `connect` and `disconnect`: a MeshPeer and a Secret on each side.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use serde::Serialize;
use serde_json::json;
use tombolo_certs::Severity;
use tombolo_core::id::ClusterName;
use tombolo_kube::apply::Document;
use tombolo_kube::install::{Found, PART_OF, PEER_LABEL, PEERS_NAMESPACE, TlsSecret, tls_secret};
use tombolo_kube::objects::{Kind, ObjectName};

use super::config::ClusterConfig;
use super::endpoint::{End, Endpoint};
use super::facts::Facts;
use super::preflight::{Finding, preflight};
use super::{Put, Site};
use crate::args::{ConnectContexts, ConnectionMode, DisconnectContexts};

/// What was found of two clusters before anything was written.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Checked {
    /// This cluster.
    pub left: Facts,
    /// The other.
    pub right: Facts,
    /// What keeps them from being connected, or will be trouble.
    pub findings: Vec<Finding>,
}

/// What was done on one side.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Side {
    /// The cluster, or its context where its name is unknown.
    pub cluster: String,
    /// Its peer.
    pub peer: ClusterName,
    /// Where it dials that peer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<Endpoint>,
    /// The objects.
    pub objects: Vec<Put>,
}

/// What `connect` found and did.
#[derive(Debug, Serialize)]
pub(crate) struct Connected {
    /// Each pair.
    pub checked: Vec<Checked>,
    /// What was written; nothing when a pair has errors.
    pub sides: Vec<Side>,
    /// Whether writing was asked for.
    #[serde(skip)]
    pub dry_run: bool,
}

/// What `disconnect` did.
#[derive(Debug, Serialize)]
pub(crate) struct Disconnected {
    /// Each side.
    pub sides: Vec<Side>,
}

impl Checked {
    /// Whether the two can be connected.
    pub(crate) fn good(&self) -> bool {
        self.findings.iter().all(|finding| finding.severity() < Severity::Error)
    }
}

/// Looks at all clusters, and connects them when every pair is fit for it. `said` is told each pair as it is checked.
pub(crate) async fn connect(args: &ConnectContexts, now: u64, said: impl Fn(&Checked)) -> Result<Connected> {
    let Some(context) = &args.context else { bail!("--context is needed") };
    if args.destination_endpoints.len() > 1 && args.destinations.len() > 1 {
        bail!("--destination-endpoint is for one --destination-context");
    }
    let mut clusters: Vec<(Site, Found, Facts)> = Vec::new();
    for (i, context) in std::iter::once(context).chain(&args.destinations).enumerate() {
        let site = Site::open(args.kubeconfig.as_deref(), Some(context)).await?;
        let found = site.read().await?;
        let endpoints = match i {
            0 => (&*args.source_endpoints, End::Source),
            _ => (&*args.destination_endpoints, End::Destination),
        };
        let facts = Facts::of(context, &found, endpoints)?;
        clusters.push((site, found, facts));
    }
    let pairs = pairs(clusters.len(), args.connection_mode);
    let mut done = Connected { checked: Vec::new(), sides: Vec::new(), dry_run: args.dry_run };
    for (left, right) in &pairs {
        let (left, right) = (&clusters[*left].2, &clusters[*right].2);
        let findings = preflight(left, right, now);
        let checked = Checked { left: left.clone(), right: right.clone(), findings };
        said(&checked);
        done.checked.push(checked);
    }
    done.checked.extend(strangers(&clusters, &pairs, now, &said));
    if args.dry_run || !done.checked.iter().all(Checked::good) {
        return Ok(done);
    }
    for (left, right) in pairs {
        for (own, other) in [(left, right), (right, left)] {
            done.sides.push(write(&clusters[own], &clusters[other]).await?);
        }
    }
    Ok(done)
}

/// Pairs that get no connection now, but will be peers of one: only what is wrong with them counts.
fn strangers(
    clusters: &[(Site, Found, Facts)],
    pairs: &[(usize, usize)],
    now: u64,
    said: &impl Fn(&Checked),
) -> Vec<Checked> {
    let mut wrong = Vec::new();
    for pair in self::pairs(clusters.len(), ConnectionMode::Mesh).into_iter().filter(|pair| !pairs.contains(pair)) {
        let (left, right) = (&clusters[pair.0].2, &clusters[pair.1].2);
        let mut findings = preflight(left, right, now);
        findings.retain(Finding::is_identity);
        if !findings.is_empty() {
            let checked = Checked { left: left.clone(), right: right.clone(), findings };
            said(&checked);
            wrong.push(checked);
        }
    }
    wrong
}

fn pairs(clusters: usize, mode: ConnectionMode) -> Vec<(usize, usize)> {
    let from = match mode {
        ConnectionMode::Bidirectional => 0..1,
        ConnectionMode::Mesh => 0..clusters,
    };
    from.flat_map(|left| (left + 1..clusters).map(move |right| (left, right))).collect()
}

async fn write(own: &(Site, Found, Facts), other: &(Site, Found, Facts)) -> Result<Side> {
    let (peer, endpoint) = (&other.2.cluster, other.2.endpoint.clone()?);
    let documents = side(&own.2, &other.2, &endpoint);
    let objects = own.0.put(&documents).await?;
    Ok(Side { cluster: own.2.cluster.to_string(), peer: peer.clone(), endpoint: Some(endpoint), objects })
}

/// The objects of one side: first the certificate, then who needs it.
fn side(own: &Facts, other: &Facts, endpoint: &Endpoint) -> [Document; 2] {
    let peer = other.cluster.as_str();
    let remote = own.remote.clone().unwrap_or_default();
    // Whom the other's store trusts is who signs for it.
    let ca = other.server.as_ref().map(|server| server.ca.clone()).unwrap_or_default();
    let content = TlsSecret { ca, cert: remote.cert, key: remote.key };
    let secret = tls_secret(PEERS_NAMESPACE, &secret_of(peer), &[(PEER_LABEL, peer)], &content);
    let mut spec = json!({ "endpoints": endpoint.urls, "secretName": secret_of(peer) });
    if !endpoint.aliases.is_empty() {
        let aliases: BTreeMap<String, _> = endpoint.aliases.iter().map(|(ip, names)| (ip.to_string(), names)).collect();
        spec["hostAliases"] = json!(aliases);
    }
    let object = json!({
        "apiVersion": "tombolo.io/v1alpha1",
        "kind": "MeshPeer",
        "metadata": { "name": peer, "labels": { PART_OF.0: PART_OF.1 } },
        "spec": spec,
    });
    [secret, Document { line: 1, name: mesh_peer(peer), object }]
}

fn mesh_peer(peer: &str) -> ObjectName {
    Kind::new("tombolo.io/v1alpha1", "MeshPeer").named("", peer)
}

fn secret_of(peer: &str) -> String {
    format!("tombolo-peer-{peer}")
}

/// Takes connections back: on both sides with those that a context names, on this side with those that are named alone.
pub(crate) async fn disconnect(args: &DisconnectContexts, peers: &[ClusterName]) -> Result<Disconnected> {
    let Some(context) = &args.context else { bail!("--context is needed") };
    let site = Site::open(args.kubeconfig.as_deref(), Some(context)).await?;
    let found = site.read().await?;
    let known: Vec<&str> = found.peers.iter().filter_map(|peer| peer.metadata.name.as_deref()).collect();
    for peer in peers {
        let begun = found.peer_secrets.contains_key(&secret_of(peer.as_str()));
        if !known.contains(&peer.as_str()) && !begun {
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            bail!("context {context} has no peer {peer}: it has {known}, nothing was changed");
        }
    }
    let mut others = Vec::new();
    for context in &args.destination_contexts {
        let other = Site::open(args.kubeconfig.as_deref(), Some(context)).await?;
        let Ok(there) = other.read().await else {
            bail!(
                "context {context} cannot be read, nothing was changed; --peer NAME disconnects this side without it"
            );
        };
        others.push((name(context, &there)?, other));
    }
    let mut sides = Vec::new();
    let own = if others.is_empty() { None } else { Some(name(context, &found)?) };
    for (peer, other) in &others {
        sides.push(forget(&site, own.as_ref().map_or(context.as_str(), ClusterName::as_str), peer).await?);
        if let Some(own) = &own {
            sides.push(forget(other, peer.as_str(), own).await?);
        }
    }
    let shown = name(context, &found).map_or_else(|_| context.clone(), |name| name.to_string());
    for peer in peers {
        sides.push(forget(&site, &shown, peer).await?);
    }
    Ok(Disconnected { sides })
}

/// Who a cluster is, as it says itself.
fn name(context: &str, found: &Found) -> Result<ClusterName> {
    let Some(map) = &found.config else {
        bail!("context {context} is not enabled, so its name is unknown: --peer NAME disconnects one side");
    };
    Ok(ClusterConfig::parse(&map.data)?.name)
}

/// First the peer: its removal is a wish, the loss of a Secret would be an accident.
async fn forget(site: &Site, cluster: &str, peer: &ClusterName) -> Result<Side> {
    let secret = Kind::new("v1", "Secret").named(PEERS_NAMESPACE, &secret_of(peer.as_str()));
    let objects = vec![site.remove(&mesh_peer(peer.as_str())).await?, site.remove(&secret).await?];
    Ok(Side { cluster: cluster.to_owned(), peer: peer.clone(), endpoint: None, objects })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes() {
        assert_eq!(pairs(3, ConnectionMode::Bidirectional), [(0, 1), (0, 2)]);
        assert_eq!(pairs(3, ConnectionMode::Mesh), [(0, 1), (0, 2), (1, 2)]);
        assert_eq!(pairs(2, ConnectionMode::Mesh), [(0, 1)]);
    }
}
