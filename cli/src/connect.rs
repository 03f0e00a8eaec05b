//! `connect` and `disconnect`: a pair of clusters, checked first, then written to both directories.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;
use tombolo_certs::{
    CertError, Expected, MESH_DOMAIN, Problem, Role, Severity, TlsFiles, accepted_by, verify, write_public,
};
use tombolo_core::id::{ClusterName, MaxClusters};
use tombolo_wire::etcd_config;

use crate::cluster::Cluster;
use crate::output::in_words;

/// Why two clusters were not connected or disconnected.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    /// The preflight checks found something; nothing was written.
    #[error("{left} and {right} cannot be connected, nothing was changed:{}", list(obstacles))]
    Refused {
        /// This cluster.
        left: ClusterName,
        /// The other.
        right: ClusterName,
        /// What is in the way.
        obstacles: Vec<Obstacle>,
    },
    /// No peer of that name is configured.
    #[error("{cluster} has no peer {peer}: {}, nothing was changed", peers(known))]
    NoPeer { cluster: ClusterName, peer: ClusterName, known: BTreeSet<ClusterName> },
    /// A peers directory cannot be made.
    #[error("cannot make {}: {}", path.display(), in_words(*kind))]
    Directory { path: PathBuf, kind: io::ErrorKind },
    /// A peer's file cannot be removed.
    #[error("cannot remove {}: {}", path.display(), in_words(*kind))]
    Remove { path: PathBuf, kind: io::ErrorKind },
    /// A peer's file cannot be written.
    #[error(transparent)]
    Write(#[from] CertError),
}

/// Something that keeps two clusters from being connected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(tag = "obstacle", rename_all = "kebab-case")]
pub(crate) enum Obstacle {
    /// Both have one name.
    #[error("both are named {name}: names must differ; set name in one cluster.yaml and issue its leaves again")]
    SameName { name: ClusterName },
    /// Both have one id.
    #[error("both {left} and {right} have id {id}: ids must differ; set id in one cluster.yaml")]
    SameId { left: ClusterName, right: ClusterName, id: u16 },
    /// They disagree on the size of the mesh.
    #[error("{left} is made for {left_max} clusters and {right} for {right_max}: max_connected_clusters must be equal")]
    MeshSize { left: ClusterName, left_max: u16, right: ClusterName, right_max: u16 },
    /// A certificate will not do.
    #[error("{cluster}: {problem}; {}", problem.remedy())]
    Certificate { cluster: ClusterName, problem: Problem },
}

/// What became of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outcome {
    /// It is new.
    Written,
    /// It said something else before.
    Changed,
    /// It said the same before.
    Unchanged,
    /// It is gone now.
    Removed,
    /// It was not there.
    Absent,
}

/// One side of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Side {
    /// Whose directory.
    pub cluster: ClusterName,
    /// Which peer's file.
    pub peer: ClusterName,
    /// The file.
    pub path: PathBuf,
    /// What became of it.
    pub outcome: Outcome,
    /// The endpoints in it.
    pub endpoints: Vec<String>,
}

/// What was done, and what deserves attention although it was done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Done {
    /// The sides.
    pub sides: Vec<Side>,
    /// Certificates that will do for now.
    pub warnings: Vec<Obstacle>,
}

/// Checks that clusters which are to be peers of one have names and ids of their own.
pub(crate) fn distinct(clusters: &[Cluster]) -> Result<(), ConnectError> {
    for (i, left) in clusters.iter().enumerate() {
        for right in &clusters[i + 1..] {
            let obstacles = identities(left, right);
            if !obstacles.is_empty() {
                return Err(ConnectError::Refused { left: left.name.clone(), right: right.name.clone(), obstacles });
            }
        }
    }
    Ok(())
}

/// Checks and connects two clusters. `now` is in unix seconds.
pub(crate) fn connect(left: &Cluster, right: &Cluster, now: u64) -> Result<Done, ConnectError> {
    let (obstacles, warnings) = preflight(left, right, now);
    if !obstacles.is_empty() {
        return Err(ConnectError::Refused { left: left.name.clone(), right: right.name.clone(), obstacles });
    }
    let sides = vec![write_side(left, right)?, write_side(right, left)?];
    Ok(Done { sides, warnings })
}

/// Removes each from the other's peers.
pub(crate) fn disconnect(left: &Cluster, right: &Cluster) -> Result<Done, ConnectError> {
    let sides = vec![remove_side(left, &right.name)?, remove_side(right, &left.name)?];
    Ok(Done { sides, warnings: Vec::new() })
}

/// Removes a peer from one side's directory.
///
/// A name that no file has is a mistake in it, except where the removal was begun: there the tombstone stands.
pub(crate) fn forget(cluster: &Cluster, peer: &ClusterName) -> Result<Done, ConnectError> {
    if !cluster.peer_file(peer).exists() && !cluster.tombstone(peer).exists() {
        let known = cluster.configured_peers();
        return Err(ConnectError::NoPeer { cluster: cluster.name.clone(), peer: peer.clone(), known });
    }
    Ok(Done { sides: vec![remove_side(cluster, peer)?], warnings: Vec::new() })
}

/// What keeps the two from being connected, and what does not yet.
fn preflight(left: &Cluster, right: &Cluster, now: u64) -> (Vec<Obstacle>, Vec<Obstacle>) {
    let mut obstacles = identities(left, right);
    let mut warnings = Vec::new();
    for (own, other) in [(left, right), (right, left)] {
        for problem in certificates(own, other, now) {
            let place = if problem.severity() == Severity::Error { &mut obstacles } else { &mut warnings };
            place.push(Obstacle::Certificate { cluster: own.name.clone(), problem });
        }
    }
    (obstacles, warnings)
}

fn identities(left: &Cluster, right: &Cluster) -> Vec<Obstacle> {
    let mut obstacles = Vec::new();
    let names = || (left.name.clone(), right.name.clone());
    if left.name == right.name {
        obstacles.push(Obstacle::SameName { name: left.name.clone() });
    }
    if left.id == right.id {
        let (left_name, right_name) = names();
        obstacles.push(Obstacle::SameId { left: left_name, right: right_name, id: left.id.get() });
    }
    if left.max != right.max {
        let ((l, r), [left_max, right_max]) = (names(), [left.max, right.max].map(MaxClusters::largest));
        obstacles.push(Obstacle::MeshSize { left: l, left_max, right: r, right_max });
    }
    obstacles
}

/// What is wrong with one side's server and remote leaves, in its own eyes and in the other's.
fn certificates(own: &Cluster, other: &Cluster, now: u64) -> Vec<Problem> {
    let mut problems = Vec::new();
    for role in [Role::Server, Role::Remote] {
        let files = own.tls(role);
        let mut expected = Expected::of(role, own.name.as_str());
        if role == Role::Server {
            expected.names = dialled_names(own);
        }
        problems.extend(verify(&files, &expected, now));
        problems.extend(accepted_by(&files.cert, &other.tls(role).ca, now));
    }
    problems.dedup();
    problems
}

/// The names that peers will dial, hence verify.
fn dialled_names(cluster: &Cluster) -> Vec<String> {
    let config = cluster.store_config(cluster.tls(Role::Remote));
    let host = |url: &String| url.parse::<http::Uri>().ok()?.host().map(String::from);
    let mut names: Vec<String> = config.endpoints.iter().filter_map(host).collect();
    names.push(format!("{}.{MESH_DOMAIN}", cluster.name));
    names.sort();
    names.dedup();
    names
}

fn write_side(own: &Cluster, peer: &Cluster) -> Result<Side, ConnectError> {
    let dir = own.peers_dir();
    fs::create_dir_all(&dir).map_err(|e| ConnectError::Directory { path: dir.clone(), kind: e.kind() })?;
    let path = own.peer_file(&peer.name);
    let config = peer.store_config(own.tls(Role::Remote));
    let text = etcd_config::render(&config);
    let outcome = match fs::read_to_string(&path) {
        Ok(before) if before == text => Outcome::Unchanged,
        Ok(_) => Outcome::Changed,
        Err(_) => Outcome::Written,
    };
    if outcome != Outcome::Unchanged {
        write_public(&path, text.as_bytes())?;
    }
    remove(&own.tombstone(&peer.name))?;
    let endpoints = config.endpoints;
    Ok(Side { cluster: own.name.clone(), peer: peer.name.clone(), path, outcome, endpoints })
}

fn remove_side(own: &Cluster, peer: &ClusterName) -> Result<Side, ConnectError> {
    let path = own.peer_file(peer);
    if own.peers_dir().is_dir() {
        // First the tombstone: it tells the apiserver that the removal, or an earlier one, is meant.
        write_public(&own.tombstone(peer), b"")?;
    }
    let outcome = if remove(&path)? { Outcome::Removed } else { Outcome::Absent };
    Ok(Side { cluster: own.name.clone(), peer: peer.clone(), path, outcome, endpoints: Vec::new() })
}

/// Removes a file; false when it was not there.
fn remove(path: &Path) -> Result<bool, ConnectError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(ConnectError::Remove { path: path.to_path_buf(), kind: e.kind() }),
    }
}

/// What is wrong between two clusters' certificates, for `certs verify`.
pub(crate) fn mutual_trust(own: &Cluster, other: &Cluster, now: u64) -> Vec<(Role, Problem)> {
    let accepted = |role: Role| {
        let TlsFiles { cert, .. } = own.tls(role);
        accepted_by(&cert, &other.tls(role).ca, now).into_iter().map(move |problem| (role, problem))
    };
    [Role::Server, Role::Remote].into_iter().flat_map(accepted).collect()
}

fn peers(known: &BTreeSet<ClusterName>) -> String {
    if known.is_empty() {
        return "it has none".into();
    }
    let names: Vec<&str> = known.iter().map(ClusterName::as_str).collect();
    format!("it has {}", names.join(", "))
}

fn list(obstacles: &[Obstacle]) -> String {
    obstacles.iter().map(|o| format!("\n  - {o}")).collect()
}

/// A path as it is shown: relative to the working directory when it is inside.
pub(crate) fn shown(path: &Path) -> String {
    let here = std::env::current_dir().ok();
    let relative = here.as_deref().and_then(|here| path.strip_prefix(here).ok());
    relative.unwrap_or(path).display().to_string()
}
