//! kube-proxy on a node, as Kubernetes ships it.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::KubeCluster;
use crate::clock::{Seen, wait_until};
use crate::netns;
use crate::process::{Process, Spec};
use crate::topology::Node;

/// Where it says that it is healthy, inside its node's namespace.
const HEALTH_PORT: u16 = 10256;

/// How long until it has written its first rules.
const READY: Duration = Duration::from_secs(60);

/// How it translates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// With nftables, its newest.
    Nftables,
    /// With iptables, its default.
    Iptables,
}

/// A running kube-proxy. Dropping it ends the process; its rules go with the node's namespace.
#[derive(Debug)]
pub struct Proxy {
    process: Process,
}

impl Proxy {
    /// Starts it on a node of a cluster and waits until it is healthy. The Node object exists already.
    ///
    /// # Errors
    /// It cannot be started, or is not healthy in time.
    pub fn start(cluster: &KubeCluster, node: &Node, mode: Mode) -> Result<Self> {
        let config = cluster.dir.join(format!("{}-proxy.yaml", node.name));
        fs::write(&config, configuration(cluster, node, mode)).context("write kube-proxy's configuration")?;
        let spec = Spec::new(format!("{}-kube-proxy", node.name), &cluster.kit, &node.place)
            .arg("proxy")
            .flag("--config", &config)
            .env("GOMEMLIMIT", "150MiB");
        let mut process = spec.start(&cluster.logs)?;
        wait_until(&format!("kube-proxy of {}", node.name), READY, || {
            process.alive()?;
            let healthy = netns::inside(&node.place.netns, || super::kubelet::page_is_there(HEALTH_PORT, "/healthz"));
            Ok(match healthy {
                Ok(true) => Seen::Ready(()),
                Ok(false) => Seen::NotYet("it says that it is not healthy".to_owned()),
                Err(error) => Seen::NotYet(format!("{error:#}")),
            })
        })?;
        Ok(Self { process })
    }

    /// Checks that it runs.
    ///
    /// # Errors
    /// It ended by itself.
    pub fn alive(&mut self) -> Result<()> {
        self.process.alive()
    }
}

fn configuration(cluster: &KubeCluster, node: &Node, mode: Mode) -> String {
    let kubeconfig: PathBuf = cluster.kubeconfig("admin");
    let mode = match mode {
        Mode::Nftables => "nftables",
        Mode::Iptables => "iptables",
    };
    // Nothing but the pods of this node is local to it; limits of conntrack belong to the machine and stay as they are.
    // A minSyncPeriod of 0s would silently be 1 s.
    format!(
        "apiVersion: kubeproxy.config.k8s.io/v1alpha1\n\
         kind: KubeProxyConfiguration\n\
         mode: {mode}\n\
         hostnameOverride: {}\n\
         clusterCIDR: {}\n\
         detectLocalMode: ClusterCIDR\n\
         clientConnection: {{kubeconfig: {}}}\n\
         conntrack: {{maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}}\n\
         nodePortAddresses: [primary]\n\
         nftables: {{minSyncPeriod: 1ms, syncPeriod: 30s}}\n\
         iptables: {{minSyncPeriod: 1ms, syncPeriod: 30s, localhostNodePorts: false}}\n",
        node.name,
        node.pod_ranges().join(","),
        kubeconfig.display(),
    )
}
