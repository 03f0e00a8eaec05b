//! `rebel-base` in a cluster: what clients dial, its pods, and which of them are its endpoints.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, bail, ensure};
use tombolo_core::id::Family;

use super::Cluster;
use crate::manifest::{Endpoint, Readiness, TARGET_PORT};
use crate::process::Spec;
use crate::programs;
use crate::topology::{self, Node};

/// The ways to dial a Service's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frontend {
    /// By IPv4.
    V4,
    /// By IPv6.
    V6,
    /// By the IPv4 address mapped into IPv6, as a JVM dials.
    Mapped,
}

impl Cluster {
    /// What clients dial for `rebel-base` here, by IPv4.
    pub fn frontend(&self) -> SocketAddr {
        self.dialled(Frontend::V4)
    }

    /// What clients dial for `rebel-base` here. TCP and UDP have one port number.
    pub fn dialled(&self, frontend: Frontend) -> SocketAddr {
        let dual = self.site.service(super::REBEL_BASE);
        let address: IpAddr = match frontend {
            Frontend::V4 => dual.v4.into(),
            Frontend::V6 => dual.v6.into(),
            Frontend::Mapped => dual.v4.to_ipv6_mapped().into(),
        };
        (address, super::PORT).into()
    }

    /// Sets annotations of `rebel-base` beside its own: an empty value removes one.
    ///
    /// # Errors
    /// The manifest cannot be written.
    pub fn annotate(&mut self, annotations: &[(&str, &str)]) -> Result<()> {
        for (key, value) in annotations {
            if value.is_empty() {
                self.service.annotations.remove(*key);
            } else {
                self.service.annotations.insert((*key).to_owned(), (*value).to_owned());
            }
        }
        self.write_service()
    }

    /// Lets a client of `rebel-base` keep its backend for so long (`sessionAffinity: ClientIP`), or no longer.
    ///
    /// # Errors
    /// The manifest cannot be written.
    pub fn stick(&mut self, seconds: Option<u32>) -> Result<()> {
        self.service.client_ip_seconds = seconds;
        self.write_service()
    }

    pub(super) fn write_service(&self) -> Result<()> {
        self.write_source("rebel-base.yaml", &self.service.manifest())
    }

    /// Runs `count` pods of `rebel-base`, in turn on each node, and makes them its endpoints. Pods that are no longer
    /// wanted keep running, as they do in Kubernetes while connections end.
    ///
    /// # Errors
    /// A pod cannot be started or the manifest not be written.
    pub fn scale(&mut self, count: u8) -> Result<()> {
        self.run_pods(count)?;
        self.claim(count)
    }

    /// Runs the first `count` pods of `rebel-base` and tells nobody.
    ///
    /// # Errors
    /// A pod cannot be started.
    pub fn run_pods(&mut self, count: u8) -> Result<()> {
        self.pod_places(count).into_iter().try_for_each(|(node, n)| self.start_pod(&node, n))
    }

    /// Makes `count` pods the endpoints of `rebel-base`, whether they run or not.
    ///
    /// # Errors
    /// The manifest cannot be written.
    pub fn claim(&mut self, count: u8) -> Result<()> {
        let endpoints = self.pod_places(count).into_iter().flat_map(|(node, n)| {
            let addresses = node.pod(n).both();
            addresses.map(|address| Endpoint { address, node: node.name.clone(), readiness: Readiness::Ready })
        });
        self.set_endpoints(endpoints.collect())
    }

    /// The names of the first `count` pods.
    pub fn pod_names(&self, count: u8) -> Vec<String> {
        self.pod_places(count).iter().map(|(node, n)| node.pod_name(*n)).collect()
    }

    /// Where the first `count` pods are: in turn on each node, each with its number there.
    fn pod_places(&self, count: u8) -> Vec<(Node, u8)> {
        let rounds = (1..=u8::MAX).flat_map(|n| self.site.nodes.iter().map(move |node| (node.clone(), n)));
        rounds.take(usize::from(count)).collect()
    }

    fn start_pod(&mut self, node: &Node, n: u8) -> Result<()> {
        let (name, address) = (node.pod_name(n), node.pod(n));
        if self.pods.contains_key(&name) {
            return Ok(());
        }
        topology::add_pod(node, address)?;
        let spec = Spec::new(format!("rebel-base-{name}"), programs::program("rebel-base")?, &node.place)
            .flag("--listen", SocketAddr::from((address.v4, TARGET_PORT)).to_string())
            .flag("--listen", SocketAddr::from((address.v6, TARGET_PORT)).to_string())
            .flag("--cluster", &self.site.name)
            .flag("--pod", &name);
        self.pods.insert(name, spec.start(&self.logs)?);
        Ok(())
    }

    /// Kills a pod of `rebel-base` that runs.
    ///
    /// # Errors
    /// There is none of that name, or it cannot be waited for.
    pub fn kill_pod(&mut self, name: &str) -> Result<()> {
        let Some(pod) = self.pods.remove(name) else { bail!("no pod {name} runs") };
        pod.kill()
    }

    /// Makes these the endpoints of `rebel-base`, whether anybody listens there or not: a slice for each family, changed
    /// at once.
    ///
    /// # Errors
    /// The manifest cannot be written.
    pub fn set_endpoints(&mut self, endpoints: Vec<Endpoint>) -> Result<()> {
        let slices = [("rebel-base-v4", Family::V4), ("rebel-base-v6", Family::V6)];
        let slices = slices.map(|(name, family)| self.service.slice(name, family, &endpoints));
        self.write_source("rebel-base-endpoints.yaml", &slices.join("---\n"))?;
        self.endpoints = endpoints;
        Ok(())
    }

    /// Takes a pod out of the endpoints of `rebel-base`. It keeps running.
    ///
    /// # Errors
    /// It is no endpoint, or the manifest cannot be written.
    pub fn withdraw(&mut self, pod: &str) -> Result<()> {
        let mut places = self.pod_places(u8::MAX).into_iter();
        let Some((node, n)) = places.find(|(node, n)| node.pod_name(*n) == pod) else {
            bail!("{pod} is no pod of {}", self.site.name)
        };
        let addresses = node.pod(n).both();
        let left: Vec<_> = self.endpoints.iter().filter(|e| !addresses.contains(&e.address)).cloned().collect();
        ensure!(left.len() < self.endpoints.len(), "{pod} is no endpoint");
        self.set_endpoints(left)
    }

    /// The endpoints of `rebel-base`, those of both families.
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// The endpoints of `rebel-base` as backends in a table: one of each port.
    pub fn targets(&self) -> impl Iterator<Item = String> {
        self.endpoints.iter().flat_map(|e| self.service.ports.iter().map(|port| e.target(port)))
    }

    /// Deletes the EndpointSlices of `rebel-base`. Its pods keep running and its Service stays.
    ///
    /// # Errors
    /// The manifest cannot be removed.
    pub fn delete_endpoints(&mut self) -> Result<()> {
        self.endpoints.clear();
        self.remove_source("rebel-base-endpoints.yaml")
    }
}
