//! What is there of an installation.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret, Service};
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::{Api, Client, ResourceExt as _};

use super::{
    CLUSTER_CONFIG, InstallError, PEERS_NAMESPACE, STORE_PORT, STORE_SERVICE, SYSTEM_NAMESPACE, TlsSecret, list,
};
use crate::resources::MeshPeer;

/// The workload that exports and mirrors.
const APISERVER: &str = "tombolo-apiserver";
/// The workload on every node.
const AGENT: &str = "tombolo-agent";

/// A cluster as its API describes it, reduced to what joining it needs.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The uid of the namespace kube-system: two contexts with one uid are one cluster.
    pub uid: String,
    /// The ConfigMap that says who the cluster is.
    pub config: Option<ClusterMap>,
    /// The Service of the store.
    pub store: Option<StoreService>,
    /// The nodes, by name.
    pub nodes: Vec<Node>,
    /// The ranges of the cluster's ServiceCIDR objects.
    pub service_cidrs: Vec<IpNet>,
    /// Secrets with certificates in [`SYSTEM_NAMESPACE`], by name.
    pub secrets: BTreeMap<String, TlsSecret>,
    /// Secrets with certificates in [`PEERS_NAMESPACE`], by name.
    pub peer_secrets: BTreeMap<String, TlsSecret>,
    /// The peers, by name.
    pub peers: Vec<MeshPeer>,
    /// The apiservers.
    pub apiserver: Option<Workload>,
    /// The agents.
    pub agents: Option<Workload>,
}

/// The ConfigMap that says who a cluster is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterMap {
    /// Its data.
    pub data: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
}

/// A node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its addresses inside the cluster's network.
    pub internal: Vec<IpAddr>,
    /// Its ranges for pods.
    pub pod_cidrs: Vec<IpNet>,
    /// Whether its kubelet says it is ready.
    pub ready: bool,
    /// What runs the machine, such as `azure`, `aws` or `gce`; empty when nobody says.
    pub provider: String,
}

/// The Service of the store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreService {
    /// `LoadBalancer`, `NodePort` or `ClusterIP`.
    pub kind: String,
    /// The store's port of the Service.
    pub port: u16,
    /// The same port on every node.
    pub node_port: Option<u16>,
    /// Where a load balancer is.
    pub ingress: Vec<Ingress>,
}

/// Where a load balancer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ingress {
    /// An address.
    Address(IpAddr),
    /// A host name.
    Host(String),
}

/// How far a Deployment or a DaemonSet is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Workload {
    /// Its Pods' image.
    pub image: String,
    /// How many Pods there should be.
    pub wanted: u32,
    /// How many are ready.
    pub ready: u32,
    /// How many are of the newest template.
    pub updated: u32,
    /// Whether its controller has seen the newest template.
    pub observed: bool,
}

pub(super) async fn read(client: &Client) -> Result<Found, InstallError> {
    let config = in_system_get::<ConfigMap>(client, "ConfigMap", CLUSTER_CONFIG);
    let store = in_system_get::<Service>(client, "Service", STORE_SERVICE);
    let apiserver = in_system_get::<Deployment>(client, "Deployment", APISERVER);
    let agents = in_system_get::<DaemonSet>(client, "DaemonSet", AGENT);
    let (uid, config, store, apiserver, agents) = tokio::try_join!(uid(client), config, store, apiserver, agents)?;
    let all = || client.clone();
    let (nodes, ranges, secrets, peer_secrets, peers) = tokio::try_join!(
        list(Api::all(all()), "Nodes"),
        list(Api::<ServiceCIDR>::all(all()), "ServiceCIDRs"),
        list(Api::namespaced(all(), SYSTEM_NAMESPACE), "Secrets"),
        list(Api::namespaced(all(), PEERS_NAMESPACE), "Secrets"),
        list(Api::<MeshPeer>::all(all()), "MeshPeers"),
    )?;
    let mut found = Found {
        uid,
        config: config.map(|map| ClusterMap {
            data: map.data.unwrap_or_default(),
            annotations: map.metadata.annotations.unwrap_or_default(),
        }),
        store: store.map(store_service),
        nodes: nodes.into_iter().map(node).collect(),
        service_cidrs: ranges.into_iter().flat_map(cidrs).filter_map(parsed).collect(),
        secrets: by_name(secrets),
        peer_secrets: by_name(peer_secrets),
        peers,
        apiserver: apiserver.map(deployment),
        agents: agents.map(daemon_set),
    };
    found.nodes.sort_by(|a, b| a.name.cmp(&b.name));
    found.peers.sort_by_key(kube::ResourceExt::name_any);
    found.service_cidrs.sort();
    Ok(found)
}

async fn uid(client: &Client) -> Result<String, InstallError> {
    let api: Api<Namespace> = Api::all(client.clone());
    let found = api.get("kube-system").await.map_err(|e| InstallError::of("Namespace kube-system", e))?;
    Ok(found.uid().unwrap_or_default())
}

async fn in_system_get<K>(client: &Client, kind: &str, name: &str) -> Result<Option<K>, InstallError>
where
    K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    api.get_opt(name).await.map_err(|e| InstallError::of(format!("{kind} {SYSTEM_NAMESPACE}/{name}"), e))
}

fn by_name(secrets: Vec<Secret>) -> BTreeMap<String, TlsSecret> {
    secrets.into_iter().map(|secret| (secret.name_any(), TlsSecret::of(secret))).collect()
}

#[expect(clippy::needless_pass_by_value, reason = "a step of an iterator over texts")]
fn parsed<T: std::str::FromStr>(text: String) -> Option<T> {
    text.parse().ok()
}

fn cidrs(range: ServiceCIDR) -> Vec<String> {
    range.spec.and_then(|spec| spec.cidrs).unwrap_or_default()
}

fn store_service(service: Service) -> StoreService {
    let spec = service.spec.unwrap_or_default();
    let port = spec.ports.unwrap_or_default().into_iter().find(|p| p.name.as_deref() == Some(STORE_PORT));
    let number = |n: i32| u16::try_from(n).ok().filter(|n| *n > 0);
    let ingress = service.status.and_then(|s| s.load_balancer).and_then(|l| l.ingress).unwrap_or_default();
    let place = |i: k8s_openapi::api::core::v1::LoadBalancerIngress| match i.ip.and_then(parsed) {
        Some(ip) => Some(Ingress::Address(ip)),
        None => i.hostname.filter(|host| !host.is_empty()).map(Ingress::Host),
    };
    StoreService {
        kind: spec.type_.unwrap_or_default(),
        port: port.as_ref().and_then(|p| number(p.port)).unwrap_or_default(),
        node_port: port.and_then(|p| p.node_port).and_then(number),
        ingress: ingress.into_iter().filter_map(place).collect(),
    }
}

fn node(node: k8s_openapi::api::core::v1::Node) -> Node {
    let name = node.name_any();
    let (spec, status) = (node.spec.unwrap_or_default(), node.status.unwrap_or_default());
    let internal = status.addresses.into_iter().flatten().filter(|a| a.type_ == "InternalIP");
    let ready = status.conditions.into_iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True");
    Node {
        name,
        internal: internal.filter_map(|a| parsed(a.address)).collect(),
        pod_cidrs: spec.pod_cidrs.unwrap_or_default().into_iter().filter_map(parsed).collect(),
        ready,
        provider: spec.provider_id.and_then(|id| Some(id.split_once(':')?.0.to_owned())).unwrap_or_default(),
    }
}

fn deployment(deployment: Deployment) -> Workload {
    let generation = deployment.metadata.generation;
    let (spec, status) = (deployment.spec, deployment.status.unwrap_or_default());
    Workload {
        image: image(spec.template),
        wanted: natural(Some(spec.replicas.unwrap_or(1))),
        ready: natural(status.ready_replicas),
        updated: natural(status.updated_replicas),
        observed: status.observed_generation >= generation,
    }
}

fn daemon_set(set: DaemonSet) -> Workload {
    let generation = set.metadata.generation;
    let status = set.status.unwrap_or_default();
    Workload {
        image: image(set.spec.template),
        wanted: natural(Some(status.desired_number_scheduled)),
        ready: natural(Some(status.number_ready)),
        updated: natural(status.updated_number_scheduled),
        observed: status.observed_generation >= generation,
    }
}

fn image(template: k8s_openapi::api::core::v1::PodTemplateSpec) -> String {
    let first = template.spec.and_then(|spec| spec.containers.into_iter().next());
    first.and_then(|container| container.image).unwrap_or_default()
}

fn natural(n: Option<i32>) -> u32 {
    u32::try_from(n.unwrap_or_default()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_store_s_service_says_where_it_is() {
        let service = json!({
            "spec": { "type": "LoadBalancer", "ports": [
                { "name": "metrics", "port": 1 }, { "name": "store", "port": 2379, "nodePort": 32379 }] },
            "status": { "loadBalancer": { "ingress": [
                { "ip": "192.0.2.1" }, { "hostname": "a.example" }, { "ip": "", "hostname": "" }] } },
        });
        let read = store_service(serde_json::from_value(service).unwrap());
        let ingress = vec![Ingress::Address("192.0.2.1".parse().unwrap()), Ingress::Host("a.example".into())];
        let kind = "LoadBalancer".to_owned();
        assert_eq!(read, StoreService { kind, port: 2379, node_port: Some(32379), ingress });
        let bare = store_service(serde_json::from_value(json!({})).unwrap());
        assert_eq!(bare, StoreService::default());
    }

    #[test]
    fn a_node_has_addresses_ranges_and_a_cloud() {
        let object = json!({
            "metadata": { "name": "ne-1" },
            "spec": { "podCIDRs": ["10.1.0.0/24", "fd00:1::/64"], "providerID": "azure:///subscriptions/x" },
            "status": {
                "addresses": [
                    { "type": "Hostname", "address": "ne-1" }, { "type": "InternalIP", "address": "192.0.2.1" },
                    { "type": "ExternalIP", "address": "203.0.113.1" }],
                "conditions": [{ "type": "Ready", "status": "True" }],
            },
        });
        let read = node(serde_json::from_value(object).unwrap());
        assert_eq!((read.name.as_str(), read.provider.as_str(), read.ready), ("ne-1", "azure", true));
        assert_eq!(read.internal, ["192.0.2.1".parse::<IpAddr>().unwrap()]);
        assert_eq!(read.pod_cidrs.len(), 2);
    }

    #[test]
    fn a_workload_is_counted_by_its_controller() {
        let set = json!({
            "metadata": { "generation": 2 },
            "spec": { "selector": {}, "template": { "spec": { "containers": [{ "name": "agent", "image": "i:1" }] } } },
            "status": {
                "observedGeneration": 1, "desiredNumberScheduled": 3, "numberReady": 2, "updatedNumberScheduled": 3,
                "currentNumberScheduled": 3, "numberMisscheduled": 0 },
        });
        let read = daemon_set(serde_json::from_value(set).unwrap());
        assert_eq!(read, Workload { image: "i:1".into(), wanted: 3, ready: 2, updated: 3, observed: false });
        let new = json!({ "metadata": { "generation": 1 }, "spec": { "selector": {}, "template": {} } });
        let read = deployment(serde_json::from_value(new).unwrap());
        assert_eq!((read.wanted, read.ready, read.observed), (1, 0, false));
    }
}
