//! What connecting two clusters must know of each.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Serialize, Serializer};
use tombolo_certs::{Role, TlsText};
use tombolo_core::id::ClusterName;
use tombolo_kube::install::{CLUSTER_CONFIG, Found, SYSTEM_NAMESPACE};
use tombolo_kube::resources::MeshPeer;

use super::config::{ClusterConfig, ConfigError};
use super::endpoint::{self, End, Endpoint, NoEndpoint};
use super::leaves::secret_name;
use super::text_of;

/// Why a cluster cannot be connected at all.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotEnabled {
    /// It was never enabled.
    #[error(
        "context {context} has no ConfigMap {SYSTEM_NAMESPACE}/{CLUSTER_CONFIG}: tombolo enable --context {context} \
         --cluster-name NAME --cluster-id ID"
    )]
    Never { context: String },
    /// Its configuration will not do.
    #[error("context {context}: {problem}")]
    Config { context: String, problem: ConfigError },
    /// A flag is wrong.
    #[error("--{flag}-endpoint: {problem}")]
    Endpoint { flag: &'static str, problem: String },
}

/// One cluster.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Facts {
    /// By which context it was read.
    pub context: String,
    /// What tells it from all others, whatever it is called.
    #[serde(skip)]
    pub uid: String,
    /// Its name.
    pub cluster: ClusterName,
    /// Its id.
    pub id: u16,
    /// The size of its mesh.
    pub max: u16,
    /// Where its store is reached.
    #[serde(serialize_with = "endpoint_or_why")]
    pub endpoint: Result<Endpoint, NoEndpoint>,
    /// Ranges of its Pods.
    pub pods: BTreeSet<IpNet>,
    /// Ranges of its Services.
    pub services: BTreeSet<IpNet>,
    /// Addresses of its nodes.
    pub nodes: BTreeSet<IpAddr>,
    /// Its peers, with their ids as far as they are known.
    pub peers: BTreeMap<ClusterName, Option<u32>>,
    /// What its store shows, and whom it trusts.
    #[serde(skip)]
    pub server: Option<TlsText>,
    /// What it shows to peers' stores.
    #[serde(skip)]
    pub remote: Option<TlsText>,
}

impl Facts {
    /// Reduces what was found. `said` are endpoints that flags name, in place of the Service's.
    pub(crate) fn of(context: &str, found: &Found, (said, end): (&[String], End)) -> Result<Self, NotEnabled> {
        let context = context.to_owned();
        let Some(map) = &found.config else { return Err(NotEnabled::Never { context }) };
        let config = match ClusterConfig::parse(&map.data) {
            Ok(config) => config,
            Err(problem) => return Err(NotEnabled::Config { context, problem }),
        };
        let endpoint = if said.is_empty() {
            endpoint::offered(&config.name, found.store.as_ref(), &found.nodes, (&context, end))
        } else {
            let wrong = |problem| NotEnabled::Endpoint { flag: end.flag(), problem };
            Ok(endpoint::given(&config.name, said).map_err(wrong)?)
        };
        let leaf = |role| found.secrets.get(secret_name(role)).map(text_of);
        Ok(Self {
            uid: found.uid.clone(),
            id: config.id.get(),
            max: config.max.largest(),
            endpoint,
            pods: config.pods.iter().chain(found.nodes.iter().flat_map(|node| &node.pod_cidrs)).copied().collect(),
            services: config.services.iter().chain(&found.service_cidrs).copied().collect(),
            nodes: found.nodes.iter().flat_map(|node| &node.internal).copied().collect(),
            peers: found.peers.iter().filter_map(peer).collect(),
            server: leaf(Role::Server),
            remote: leaf(Role::Remote),
            cluster: config.name,
            context,
        })
    }
}

fn peer(peer: &MeshPeer) -> Option<(ClusterName, Option<u32>)> {
    let name = ClusterName::new(peer.metadata.name.as_deref()?).ok()?;
    Some((name, peer.status.as_ref().and_then(|status| status.cluster_id)))
}

fn endpoint_or_why<S: Serializer>(endpoint: &Result<Endpoint, NoEndpoint>, to: S) -> Result<S::Ok, S::Error> {
    match endpoint {
        Ok(endpoint) => endpoint.serialize(to),
        Err(why) => why.serialize(to),
    }
}
