//! What keeps two clusters from being connected, or will be trouble when they are.

use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;
use serde::Serialize;
use tombolo_certs::{Expected, MESH_DOMAIN, Problem, Role, Severity, TlsFiles, text_accepted_by, verify_text};
use tombolo_core::id::ClusterName;

use super::endpoint::NoEndpoint;
use super::facts::Facts;
use super::leaves::{files_of, secret_name};

/// Which of a cluster's ranges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Range {
    Pods,
    Services,
}

/// One thing found; each names both sides, or the one it is about, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(tag = "finding", rename_all = "kebab-case")]
pub(crate) enum Finding {
    /// Two contexts, one cluster.
    #[error("contexts {left} and {right} are one cluster: name another context")]
    SameCluster { left: String, right: String },
    /// Both have one name.
    #[error(
        "contexts {left} and {right} are both named {name}: names must differ; disable one, and enable it with another \
         --cluster-name"
    )]
    SameName { left: String, right: String, name: ClusterName },
    /// Both have one id.
    #[error("{left} and {right} both have id {id}: ids must differ; enable one with another --cluster-id")]
    SameId { left: ClusterName, right: ClusterName, id: u16 },
    /// They disagree on the size of the mesh.
    #[error(
        "{left} is made for {left_max} clusters and {right} for {right_max}: enable both with the same \
         --max-connected-clusters"
    )]
    MeshSize { left: ClusterName, left_max: u16, right: ClusterName, right_max: u16 },
    /// A third cluster has the id that a new peer has.
    #[error("{cluster} has a peer {third} with id {id}, which is {new}'s too: ids must differ in the whole mesh")]
    IdTaken { cluster: ClusterName, third: ClusterName, new: ClusterName, id: u16 },
    /// Addresses of one side's Pods belong to the other.
    #[error(
        "pods of {left} have addresses in {left_range}, which overlaps with {right}'s {right_range} ({}): {right} would \
         refuse them as backends; one cluster needs other ranges", kind.word()
    )]
    Overlap { left: ClusterName, left_range: IpNet, right: ClusterName, kind: Range, right_range: IpNet },
    /// Nodes of both have one address.
    #[error("nodes of {left} and of {right} both have {address}: are their networks routed to each other?")]
    NodeAddress { left: ClusterName, right: ClusterName, address: IpAddr },
    /// A side's ranges are unknown.
    #[error(
        "the ranges of {cluster}'s pods are unknown (its nodes name none): overlaps with {other} are not checked; enable \
         it with --pod-cidr"
    )]
    NoPodRanges { cluster: ClusterName, other: ClusterName },
    /// A store cannot be reached by the other side.
    #[error("{other} cannot reach {cluster}'s store: {why}")]
    Unreachable { cluster: ClusterName, other: ClusterName, why: NoEndpoint },
    /// A certificate is missing.
    #[error("{cluster} has no Secret {secret}: tombolo enable --context {context}")]
    NoCertificate { cluster: ClusterName, context: String, secret: String },
    /// A certificate will not do.
    #[error("{cluster}: {problem}; {remedy}")]
    Certificate { cluster: ClusterName, problem: Problem, remedy: String },
}

impl Finding {
    /// Whether it keeps the clusters from being connected.
    pub(crate) fn severity(&self) -> Severity {
        match self {
            Self::NodeAddress { .. } | Self::NoPodRanges { .. } => Severity::Warning,
            Self::Certificate { problem, .. } => problem.severity(),
            _ => Severity::Error,
        }
    }
}

impl Finding {
    /// Whether it is about who two clusters are, which must hold in the whole mesh, connected or not.
    pub(crate) fn is_identity(&self) -> bool {
        matches!(self, Self::SameCluster { .. } | Self::SameName { .. } | Self::SameId { .. } | Self::MeshSize { .. })
    }
}

impl Range {
    fn word(self) -> &'static str {
        match self {
            Self::Pods => "pods",
            Self::Services => "Services",
        }
    }
}

/// All that is to be said before two clusters are connected. `now` is in unix seconds.
pub(crate) fn preflight(left: &Facts, right: &Facts, now: u64) -> Vec<Finding> {
    if left.uid == right.uid {
        return vec![Finding::SameCluster { left: left.context.clone(), right: right.context.clone() }];
    }
    let mut findings = identities(left, right);
    findings.extend(ranges(left, right));
    for (own, other) in [(left, right), (right, left)] {
        if let Err(why) = &own.endpoint {
            let (cluster, other) = (own.cluster.clone(), other.cluster.clone());
            findings.push(Finding::Unreachable { cluster, other, why: why.clone() });
        }
        findings.extend(certificates(own, other, now));
    }
    findings
}

fn identities(left: &Facts, right: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    let names = || (left.cluster.clone(), right.cluster.clone());
    if left.cluster == right.cluster {
        let (left, right, name) = (left.context.clone(), right.context.clone(), left.cluster.clone());
        findings.push(Finding::SameName { left, right, name });
    }
    if left.id == right.id {
        let ((l, r), id) = (names(), left.id);
        findings.push(Finding::SameId { left: l, right: r, id });
    }
    if left.max != right.max {
        let ((l, r), left_max, right_max) = (names(), left.max, right.max);
        findings.push(Finding::MeshSize { left: l, left_max, right: r, right_max });
    }
    for (own, new) in [(left, right), (right, left)] {
        let taken = own.peers.iter().filter(|(name, id)| **name != new.cluster && **id == Some(new.id.into()));
        findings.extend(taken.map(|(third, _)| Finding::IdTaken {
            cluster: own.cluster.clone(),
            third: third.clone(),
            new: new.cluster.clone(),
            id: new.id,
        }));
    }
    findings
}

/// Services' ranges may be the same: nobody dials another cluster's. Pods' are dialled.
fn ranges(left: &Facts, right: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (own, other) in [(left, right), (right, left)] {
        for pods in &own.pods {
            let theirs = [(Range::Pods, &other.pods), (Range::Services, &other.services)];
            for (kind, range) in theirs.into_iter().flat_map(|(kind, all)| all.iter().map(move |r| (kind, r))) {
                // Pods with pods is the same from both sides.
                if overlap(pods, range) && (kind == Range::Services || own.context == left.context) {
                    findings.push(Finding::Overlap {
                        left: own.cluster.clone(),
                        left_range: *pods,
                        right: other.cluster.clone(),
                        kind,
                        right_range: *range,
                    });
                }
            }
        }
        if own.pods.is_empty() {
            findings.push(Finding::NoPodRanges { cluster: own.cluster.clone(), other: other.cluster.clone() });
        }
    }
    let shared = left.nodes.intersection(&right.nodes);
    findings.extend(shared.map(|address| Finding::NodeAddress {
        left: left.cluster.clone(),
        right: right.cluster.clone(),
        address: *address,
    }));
    findings
}

fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

/// What is wrong with one side's server and remote certificates, in its own eyes and in the other's.
fn certificates(own: &Facts, other: &Facts, now: u64) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (role, leaf) in [(Role::Server, &own.server), (Role::Remote, &own.remote)] {
        let Some(leaf) = leaf else {
            let (cluster, context) = (own.cluster.clone(), own.context.clone());
            findings.push(Finding::NoCertificate { cluster, context, secret: secret_name(role).into() });
            continue;
        };
        let names = files_of(own.cluster.as_str(), role);
        let mut expected = Expected::of(role, own.cluster.as_str());
        if role == Role::Server {
            expected.names = own.endpoint.iter().flat_map(super::endpoint::Endpoint::hosts).collect();
            expected.names.push(format!("{}.{MESH_DOMAIN}", own.cluster));
            expected.names.dedup();
        }
        let mut problems = verify_text(&names, leaf, &expected, now);
        // A server is verified with its own cluster's bundle, which the peer is given; a client with the other's.
        if let (Role::Remote, Some(theirs)) = (role, &other.server) {
            let TlsFiles { ca, .. } = files_of(other.cluster.as_str(), Role::Server);
            let (cert, bundle): (&Path, &Path) = (&names.cert, &ca);
            problems.extend(text_accepted_by((cert, &leaf.cert), (bundle, &theirs.ca), now));
        }
        findings.extend(problems.into_iter().map(|problem| Finding::Certificate {
            cluster: own.cluster.clone(),
            remedy: remedy(&problem, own, other),
            problem,
        }));
    }
    findings
}

fn remedy(problem: &Problem, own: &Facts, other: &Facts) -> String {
    let (context, theirs) = (&own.context, &other.context);
    match problem {
        Problem::OtherAuthority { .. } => format!(
            "share one authority: tombolo enable --context {context} --ca-from {theirs}, or the other way round"
        ),
        Problem::MissingName { name, .. } => format!("tombolo enable --context {context} --dns {name}"),
        Problem::AuthorityExpired { .. } => {
            format!("enable each cluster with a new authority: tombolo enable --context {context} --ca CA_DIR")
        }
        _ => format!("tombolo enable --context {context} issues it again"),
    }
}

#[cfg(test)]
mod tests;
