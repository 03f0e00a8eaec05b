//! A Pod that runs: its namespace, its containers' processes, and what is to be told of them.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::container::{self, Facts};
use super::{Host, status, text_of, volumes};
use crate::process::Process;
use crate::topology::{self, Node, Place};

/// How soon a container that ended is started again.
const BACK_OFF: Duration = Duration::from_secs(1);

/// One Pod. Dropping it ends its processes and removes its namespace.
pub(super) struct Running {
    pub(super) uid: Value,
    pub(super) node: String,
    /// Its number on its node: its addresses come from it.
    pub(super) n: u8,
    /// The status that was told last.
    pub(super) told: Option<Value>,
    place: Place,
    /// Its own namespace; nothing for a Pod in its node's.
    netns: Option<String>,
    dir: PathBuf,
    containers: BTreeMap<String, Container>,
    ending: Option<Instant>,
}

/// One container of it.
#[derive(Default)]
pub(super) struct Container {
    process: Option<Process>,
    /// When it was started, or not be started, last.
    tried: Option<Instant>,
    pub(super) restarts: u32,
    pub(super) ready: bool,
    /// Why it does not run.
    pub(super) waiting: Option<String>,
}

impl Running {
    /// Gives it a namespace and addresses. Its containers are started by the first look.
    pub(super) async fn start(host: &Host, node: &Node, n: u8, pod: &Value) -> Result<Self> {
        let uid = text_of(&pod["metadata"], "uid")?;
        let dir = host.dir.join(uid);
        fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
        let shares = pod["spec"]["hostNetwork"] == true;
        let netns = (!shares).then(|| format!("{}{}-p{n}", host.netns_prefix, node.name));
        let place = match &netns {
            Some(netns) => topology::build_pod(node, n, netns)?,
            None => node.place.clone(),
        };
        let (uid, node) = (pod["metadata"]["uid"].clone(), node.name.clone());
        let containers = BTreeMap::new();
        Ok(Self { uid, node, n, told: None, place, netns, dir, containers, ending: None })
    }

    /// Starts what does not run, asks what runs whether it is ready, and gives the status.
    pub(super) async fn look(&mut self, host: &Host, pod: &Value) -> Value {
        for spec in pod["spec"]["containers"].as_array().into_iter().flatten() {
            let name = spec["name"].as_str().unwrap_or_default().to_owned();
            let mut container = self.containers.remove(&name).unwrap_or_default();
            if let Some(Err(error)) = container.process.as_mut().map(Process::alive) {
                container.process = None;
                container.waiting = Some(format!("{error:#}"));
                container.restarts += 1;
            }
            let due = container.tried.is_none_or(|tried| tried.elapsed() >= BACK_OFF);
            if container.process.is_none() && due {
                container.tried = Some(Instant::now());
                match self.launch(host, pod, spec).await {
                    Ok(process) => (container.process, container.waiting) = (Some(process), None),
                    Err(error) => container.waiting = Some(format!("{error:#}")),
                }
            }
            let host_netns = host.site.nodes.iter().find(|n| n.name == self.node).map(|n| n.place.netns.as_str());
            container.ready = container.process.is_some()
                && container::is_ready(host_netns.unwrap_or_default(), self.place.address, spec);
            self.containers.insert(name, container);
        }
        status::of(host, self.place.address, &self.node, pod, &self.containers)
    }

    async fn launch(&self, host: &Host, pod: &Value, spec: &Value) -> Result<Process> {
        let volumes = volumes::make(host, &self.node, &self.dir, pod).await?;
        let facts = Facts { host, place: &self.place, node: &self.node, pod, dir: &self.dir };
        facts.start(spec, &volumes).await
    }

    /// Asks its processes to end; whether all have, or had to be killed for their time is over.
    pub(super) fn ended(&mut self, grace: Duration) -> bool {
        let since = *self.ending.get_or_insert_with(|| {
            self.containers.values_mut().filter_map(|c| c.process.as_mut()).for_each(Process::terminate);
            Instant::now()
        });
        for container in self.containers.values_mut() {
            if since.elapsed() >= grace
                && let Some(process) = container.process.take()
            {
                let _ = process.kill();
            }
            if container.process.as_mut().is_some_and(|process| process.alive().is_err()) {
                container.process = None;
            }
        }
        self.containers.values().all(|container| container.process.is_none())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for container in self.containers.values_mut() {
            let _ = container.process.take().map(Process::kill);
        }
        if let Some(netns) = &self.netns {
            let _ = topology::remove_netns(netns);
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}
