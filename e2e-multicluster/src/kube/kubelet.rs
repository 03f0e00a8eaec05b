//! The kubelet of a cluster's nodes: Pods become processes in namespaces, and what becomes of them is their status.
//!
//! One thread stands for all nodes of a cluster, and for the scheduler: it binds Pods where they ask to be, else to the
//! node with the fewest. It knows what a mesh needs of a Pod (addresses, environment, volumes, a user, readiness,
//! restarts, an end in peace) and leaves out the rest: images are programs of this build, nothing limits resources, and
//! init containers and liveness probes are not run.

mod container;
mod pod;
mod status;
mod volumes;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tombolo_kube::objects::{Change, Grace, How, Kind, ObjectName, Objects, Part, Selection};

use self::pod::Running;
use super::{Api, KubeCluster};
use crate::run::Run;
use crate::topology::{self, Node, Site};
use crate::{clock, netns, story};

/// How often processes and readiness are looked at.
const TICK: Duration = Duration::from_millis(50);

/// How soon an API that failed is asked again.
const AGAIN: Duration = Duration::from_millis(200);

/// The kubelet of all nodes of one cluster. Dropping it ends its Pods.
#[derive(Debug)]
pub struct Kubelet {
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

/// What all Pods of a cluster share.
struct Host {
    objects: Objects,
    site: Site,
    /// The API server as Pods find it: address and port.
    server: (String, u16),
    netns_prefix: String,
    /// A folder for each node and Pod.
    dir: PathBuf,
    logs: PathBuf,
    bpffs: PathBuf,
}

impl Kubelet {
    /// Makes the cluster's Node objects, then runs Pods until it is dropped.
    ///
    /// # Errors
    /// A node cannot be prepared or made known.
    pub fn start(run: &Run, cluster: &KubeCluster) -> Result<Self> {
        let site = cluster.site.clone();
        for node in &site.nodes {
            topology::let_forward(&site, node)?;
        }
        let api = cluster.admin();
        api.run(async |objects| register(&objects, &site).await)?;
        let parts = Parts {
            server: (site.control.address.v4.to_string(), super::PORT),
            netns_prefix: run.netns(""),
            dir: cluster.dir.join("pods"),
            logs: run.logs(),
            bpffs: run.bpffs(),
            api,
            site,
        };
        let stop = CancellationToken::new();
        let told = stop.clone();
        let thread = std::thread::Builder::new().name("kubelet".to_owned()).spawn(move || {
            if let Err(error) = parts.serve(&told) {
                story::warn(&format!("the kubelet of {} ends: {error:#}", parts.site.name));
            }
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Host {
    /// A line in the kubelet's log: what it says is tried again, so it concerns nobody but who looks for a reason.
    fn note(&self, text: &str) {
        let log = self.logs.join(format!("{}-kubelet.log", self.site.name));
        if let Ok(mut log) = File::options().create(true).append(true).open(log) {
            let _ = writeln!(log, "{} {text}", clock::monotonic_us());
        }
    }
}

/// What the thread begins with.
struct Parts {
    api: Api,
    site: Site,
    server: (String, u16),
    netns_prefix: String,
    dir: PathBuf,
    logs: PathBuf,
    bpffs: PathBuf,
}

impl Parts {
    fn serve(&self, stop: &CancellationToken) -> Result<()> {
        netns::block_on(&self.api.netns, async {
            let host = Arc::new(Host {
                objects: self.api.objects().await?,
                site: self.site.clone(),
                server: self.server.clone(),
                netns_prefix: self.netns_prefix.clone(),
                dir: self.dir.clone(),
                logs: self.logs.clone(),
                bpffs: self.bpffs.clone(),
            });
            let mut pods = Pods { host, known: BTreeMap::new(), running: BTreeMap::new() };
            while !stop.is_cancelled() {
                // The API server may be gone for a while. Pods run on.
                if let Err(error) = pods.follow(stop).await {
                    pods.host.note(&format!("{error:#}"));
                }
                let _ = tokio::time::timeout(AGAIN, stop.cancelled()).await;
                pods.look_after().await;
            }
            Ok(())
        })
    }
}

/// What the API says of Pods, and what runs, by namespace and name.
struct Pods {
    host: Arc<Host>,
    known: BTreeMap<(String, String), Value>,
    running: BTreeMap<(String, String), Running>,
}

impl Pods {
    /// Lists, then watches until the watch ends.
    async fn follow(&mut self, stop: &CancellationToken) -> Result<()> {
        let (kind, all) = (pod_kind(), Selection::default());
        let objects = self.host.objects.clone();
        let (list, version) = objects.list(&kind, &all).await?;
        self.known = list.into_iter().map(|pod| (key(&pod), pod)).collect();
        self.look_after().await;
        let mut changes = std::pin::pin!(objects.watch(&kind, &all, &version).await?);
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                change = changes.next() => match change {
                    None => return Ok(()),
                    Some(change) => match change? {
                        Change::Set(pod) => drop(self.known.insert(key(&pod), pod)),
                        Change::Gone(pod) => drop(self.known.remove(&key(&pod))),
                        Change::Reached(_) => {}
                    },
                },
                () = tokio::time::sleep(TICK) => {}
            }
            self.look_after().await;
        }
    }

    /// Does what is due for every Pod. What fails for one is tried again at the next look.
    async fn look_after(&mut self) {
        let gone: Vec<_> = self.running.keys().filter(|key| !self.known.contains_key(*key)).cloned().collect();
        for key in gone {
            self.running.remove(&key);
        }
        for (key, pod) in self.known.clone() {
            if let Err(error) = self.tend(&key, &pod).await {
                self.host.note(&format!("pod {}/{}: {error:#}", key.0, key.1));
            }
        }
    }

    async fn tend(&mut self, key: &(String, String), pod: &Value) -> Result<()> {
        let name = pod_kind().named(&key.0, &key.1);
        let Some(node) = pod["spec"]["nodeName"].as_str() else { return self.bind(&name, pod).await };
        let Some(node) = self.host.site.nodes.iter().find(|n| n.name == node).cloned() else { return Ok(()) };
        // Another Pod of the same name is another Pod.
        if self.running.get(key).is_some_and(|running| running.uid != pod["metadata"]["uid"]) {
            self.running.remove(key);
        }
        if !pod["metadata"]["deletionTimestamp"].is_null() {
            let grace = Duration::from_secs(pod["metadata"]["deletionGracePeriodSeconds"].as_u64().unwrap_or(0));
            if self.running.get_mut(key).is_none_or(|running| running.ended(grace)) {
                self.running.remove(key);
                self.host.objects.delete(&name, Grace::None).await?;
            }
            return Ok(());
        }
        let status = match self.running.get_mut(key) {
            Some(running) => running.look(&self.host, pod).await,
            None => {
                let n = self.free_number(&node);
                let running = Running::start(&self.host, &node, n, pod).await?;
                self.running.entry(key.clone()).or_insert(running).look(&self.host, pod).await
            }
        };
        let running = self.running.get_mut(key).context("it was started")?;
        if running.told.as_ref() != Some(&status) {
            self.host.objects.merge(&name, Part::Status, &json!({ "status": status })).await?;
            running.told = Some(status);
        }
        Ok(())
    }

    async fn bind(&self, name: &ObjectName, pod: &Value) -> Result<()> {
        let load =
            |node: &&Node| self.known.values().filter(|pod| pod["spec"]["nodeName"] == node.name.as_str()).count();
        let asked = asked_for(pod);
        let may = |node: &&Node| asked.as_ref().is_none_or(|asked| asked.contains(&node.name.as_str()));
        let node = self.host.site.nodes.iter().filter(may).min_by_key(load);
        let node = node.with_context(|| format!("no node may have it: {asked:?}"))?;
        let binding = json!({
            "apiVersion": "v1", "kind": "Binding", "metadata": {"name": name.name},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node.name},
        });
        match self.host.objects.post(name, "binding", &binding).await {
            // It was bound before, and the watch has not said so yet.
            Err(error) if error.code() == Some(409) => Ok(()),
            other => Ok(other.map(drop)?),
        }
    }

    /// The lowest number that no Pod of a node has.
    fn free_number(&self, node: &Node) -> u8 {
        let taken = |n: &u8| self.running.values().any(|pod| pod.node == node.name && pod.n == *n);
        (1..u8::MAX).find(|n| !taken(n)).unwrap_or(u8::MAX)
    }
}

/// The nodes that a Pod asks for by name, as those of a DaemonSet do, or by the label of their name.
fn asked_for(pod: &Value) -> Option<Vec<&str>> {
    let affinity = &pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    let fields = affinity["nodeSelectorTerms"].as_array()?.iter().flat_map(|term| term["matchFields"].as_array());
    let names = fields.flatten().filter(|field| field["key"] == "metadata.name");
    let names = names.flat_map(|field| field["values"].as_array().into_iter().flatten()).filter_map(Value::as_str);
    Some(names.collect())
}

async fn register(objects: &Objects, site: &Site) -> Result<()> {
    let kind = Kind::new("v1", "Node");
    for node in &site.nodes {
        let name = kind.named("", &node.name);
        let labels = json!({
            "kubernetes.io/hostname": node.name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
            "topology.kubernetes.io/region": site.name, "topology.kubernetes.io/zone": format!("{}-a", site.name),
        });
        let object = json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": node.name, "labels": labels},
            "spec": {"podCIDR": node.pod_ranges()[0], "podCIDRs": node.pod_ranges()},
        });
        objects.apply(&name, &object, How::Write).await?;
        let internal = node.place.address.both().map(|ip| json!({"type": "InternalIP", "address": ip.to_string()}));
        let addresses = [internal.to_vec(), vec![json!({"type": "Hostname", "address": node.name})]].concat();
        let ready = json!([{"type": "Ready", "status": "True", "reason": "KubeletReady"}]);
        let room = json!({"cpu": "8", "memory": "16Gi", "pods": "250"});
        let status = json!({"addresses": addresses, "conditions": ready, "capacity": room, "allocatable": room});
        objects.merge(&name, Part::Status, &json!({ "status": status })).await?;
    }
    Ok(())
}

fn pod_kind() -> Kind {
    Kind::new("v1", "Pod")
}

fn key(pod: &Value) -> (String, String) {
    let text = |field: &str| pod["metadata"][field].as_str().unwrap_or_default().to_owned();
    (text("namespace"), text("name"))
}

/// Whether a page of loopback is there, asked from inside a namespace.
pub(super) fn page_is_there(port: u16, path: &str) -> Result<bool> {
    container::get(SocketAddr::from((Ipv4Addr::LOCALHOST, port)), path)
}

/// A field that must be there.
fn text_of<'a>(value: &'a Value, field: &str) -> Result<&'a str> {
    value[field].as_str().ok_or_else(|| anyhow!("{field} is missing"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_of_a_daemon_set_asks_for_its_node() {
        let term = json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["ne-2"]}]});
        let required = json!({"nodeSelectorTerms": [term]});
        let affinity = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}});
        assert_eq!(asked_for(&json!({"spec": {"affinity": affinity}})), Some(vec!["ne-2"]));
        assert_eq!(asked_for(&json!({"spec": {}})), None);
    }
}
