//! Where peers reach a cluster's store.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::Serialize;
use tombolo_core::id::ClusterName;
use tombolo_kube::install::{Ingress, Node, StoreService};

use crate::cluster::{StoreUrl, dialled};

/// A MeshPeer holds no more addresses.
const MOST_ADDRESSES: usize = 16;

/// URLs of a store, and the addresses of their names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Endpoint {
    /// How it is reached, for people.
    pub by: String,
    /// `https://HOST:PORT`
    pub urls: Vec<String>,
    /// Host names by address.
    pub aliases: BTreeMap<IpAddr, BTreeSet<String>>,
}

/// Why a store cannot be reached from outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(tag = "reason", rename_all = "kebab-case")]
pub(crate) enum NoEndpoint {
    /// There is no Service.
    #[error("its Service is not there: tombolo enable --context {context}")]
    NoService { context: String },
    /// The load balancer is not ready, or nobody makes one.
    #[error("its load balancer has no address yet: wait, or enable it with --service-type NodePort")]
    NoAddress,
    /// The Service has no port on the nodes.
    #[error("its Service has no port on the nodes yet")]
    NoPort,
    /// No node has an address.
    #[error("none of its nodes has an address")]
    NoNode,
    /// The Service is for the cluster alone.
    #[error("its Service is of type {kind}, for the cluster alone: name a way with --{flag}-endpoint HOST:PORT")]
    Inside { kind: String, flag: &'static str },
}

/// Which side of a connection, hence which flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Source,
    Destination,
}

impl End {
    /// The part of the flag before `-endpoint`.
    pub(crate) fn flag(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Destination => "destination",
        }
    }
}

/// What flags said: `HOST:PORT`, or a URL.
pub(crate) fn given(cluster: &ClusterName, texts: &[String]) -> Result<Endpoint, String> {
    let read = |text: &String| {
        let url = if text.contains("://") { text.clone() } else { format!("https://{text}") };
        StoreUrl::parse(&url).ok_or_else(|| format!("{text:?} is no endpoint: it must be HOST:PORT"))
    };
    let urls = texts.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    Ok(endpoint(cluster, "as said", &urls))
}

/// What the Service says.
pub(crate) fn offered(
    cluster: &ClusterName,
    store: Option<&StoreService>,
    nodes: &[Node],
    (context, end): (&str, End),
) -> Result<Endpoint, NoEndpoint> {
    let store = store.ok_or_else(|| NoEndpoint::NoService { context: context.into() })?;
    let at = |host: String, port: u16| StoreUrl { host, port };
    match store.kind.as_str() {
        "LoadBalancer" if store.ingress.is_empty() => Err(NoEndpoint::NoAddress),
        "LoadBalancer" => {
            let host = |ingress: &Ingress| match ingress {
                Ingress::Address(ip) => ip.to_string(),
                Ingress::Host(host) => host.clone(),
            };
            let urls: Vec<StoreUrl> = store.ingress.iter().map(|i| at(host(i), store.port)).collect();
            Ok(endpoint(cluster, "LoadBalancer", &urls))
        }
        "NodePort" => {
            let port = store.node_port.ok_or(NoEndpoint::NoPort)?;
            let addresses = node_addresses(nodes);
            if addresses.is_empty() {
                return Err(NoEndpoint::NoNode);
            }
            let urls: Vec<StoreUrl> = addresses.iter().map(|ip| at(ip.to_string(), port)).collect();
            Ok(endpoint(cluster, "NodePort", &urls))
        }
        kind => Err(NoEndpoint::Inside { kind: kind.to_owned(), flag: end.flag() }),
    }
}

/// Nodes that are ready first: a port of every node is a port of each.
fn node_addresses(nodes: &[Node]) -> Vec<IpAddr> {
    let ready = nodes.iter().filter(|node| node.ready);
    let all = ready.chain(nodes.iter().filter(|node| !node.ready)).flat_map(|node| &node.internal);
    let mut addresses: Vec<IpAddr> = Vec::new();
    for ip in all {
        if !addresses.contains(ip) && addresses.len() < MOST_ADDRESSES {
            addresses.push(*ip);
        }
    }
    addresses.sort();
    addresses
}

fn endpoint(cluster: &ClusterName, by: &str, store: &[StoreUrl]) -> Endpoint {
    let (urls, by_name) = dialled(cluster, store);
    let mut aliases: BTreeMap<IpAddr, BTreeSet<String>> = BTreeMap::new();
    for (name, ips) in by_name {
        for ip in ips {
            aliases.entry(ip).or_default().insert(name.clone());
        }
    }
    Endpoint { by: by.into(), urls, aliases }
}

impl Endpoint {
    /// The host names that peers verify.
    pub(crate) fn hosts(&self) -> Vec<String> {
        let host = |url: &String| url.parse::<http::Uri>().ok()?.host().map(String::from);
        let mut hosts: Vec<String> = self.urls.iter().filter_map(host).collect();
        hosts.dedup();
        hosts
    }

    /// For people: what is dialled, addresses instead of names that stand for them.
    pub(crate) fn shown(&self) -> String {
        let addresses: Vec<String> = self.aliases.keys().map(ToString::to_string).collect();
        let known = if addresses.is_empty() { String::new() } else { format!(" ({})", addresses.join(", ")) };
        format!("{}{known} by {}", self.urls.join(", "), self.by)
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn node(name: &str, ready: bool, internal: &[&str]) -> Node {
        let internal = internal.iter().map(|ip| ip.parse().unwrap()).collect();
        Node { name: name.into(), ready, internal, ..Node::default() }
    }

    fn store(kind: &str, node_port: Option<u16>, ingress: Vec<Ingress>) -> StoreService {
        StoreService { kind: kind.into(), port: 2379, node_port, ingress }
    }

    #[test]
    fn every_kind_of_service() {
        let we = ClusterName::new("we").unwrap();
        let ip = |text: &str| Ingress::Address(text.parse().unwrap());
        let nodes = [node("a", false, &["10.0.0.9"]), node("b", true, &["10.0.0.2", "fd00::2"])];
        let rows = [
            (Some(store("LoadBalancer", Some(30000), vec![ip("192.0.2.1"), ip("192.0.2.2")])), &nodes[..]),
            (Some(store("LoadBalancer", None, vec![Ingress::Host("lb.example".into())])), &nodes),
            (Some(store("LoadBalancer", None, vec![])), &nodes),
            (Some(store("NodePort", Some(32379), vec![])), &nodes),
            (Some(store("NodePort", Some(32379), vec![])), &[]),
            (Some(store("NodePort", None, vec![])), &nodes),
            (Some(store("ClusterIP", None, vec![])), &nodes),
            (None, &nodes),
        ];
        let told: String = rows
            .iter()
            .map(|(store, nodes)| match offered(&we, store.as_ref(), nodes, ("kind-we", End::Destination)) {
                Ok(endpoint) => endpoint.shown() + "\n",
                Err(why) => format!("{why}\n"),
            })
            .collect();
        expect![[r"
            https://we.mesh.cilium.io:2379 (192.0.2.1, 192.0.2.2) by LoadBalancer
            https://lb.example:2379 by LoadBalancer
            its load balancer has no address yet: wait, or enable it with --service-type NodePort
            https://we.mesh.cilium.io:32379 (10.0.0.2, 10.0.0.9, fd00::2) by NodePort
            none of its nodes has an address
            its Service has no port on the nodes yet
            its Service is of type ClusterIP, for the cluster alone: name a way with --destination-endpoint HOST:PORT
            its Service is not there: tombolo enable --context kind-we
        "]]
        .assert_eq(&told);
    }

    #[test]
    fn what_is_said_counts() {
        let we = ClusterName::new("we").unwrap();
        let told = |texts: &[&str]| given(&we, &texts.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(
            told(&["192.0.2.1:31000"]).unwrap().shown(),
            "https://we.mesh.cilium.io:31000 (192.0.2.1) by as said"
        );
        assert_eq!(told(&["https://a.example:1"]).unwrap().hosts(), ["a.example"]);
        assert_eq!(told(&["a b"]).unwrap_err(), "\"a b\" is no endpoint: it must be HOST:PORT");
    }

    #[test]
    fn of_many_nodes_some_are_enough_and_the_ready_ones_first() {
        let many: Vec<Node> = (0..40).map(|n| node("n", n >= 30, &[&format!("10.0.0.{n}")])).collect();
        let addresses = node_addresses(&many);
        assert_eq!(addresses.len(), MOST_ADDRESSES);
        assert!((30..40).all(|n| addresses.contains(&IpAddr::from([10, 0, 0, n]))));
    }
}
