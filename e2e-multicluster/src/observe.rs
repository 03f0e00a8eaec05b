//! What agents and apiservers say of themselves, asked over their admin sockets.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio::runtime::{Builder, Runtime};
use tombolo_certs::{MESH_DOMAIN, Role, TlsFiles};
use tombolo_core::own::PeerSession;
use tombolo_core::report::{AgentStatus, ApiserverStatus, ServiceView};
use tombolo_store::admin_channel;
use tombolo_wire::admin::{AgentClient, ApiserverClient};

use crate::clock::{Seen, wait_until, watch_for};
use crate::cluster::Cluster;

/// Backends of one service on one node as ADDRESS:PORT/PROTOCOL, each with its slots. No two frontends share one: they
/// differ in family or protocol.
pub type Table = BTreeMap<String, u32>;

/// A connection to one agent's socket, for asking often.
#[derive(Debug)]
pub struct AgentWindow {
    runtime: Runtime,
    client: AgentClient,
}

impl AgentWindow {
    /// Connects to the agent of a node, given by its index.
    ///
    /// # Errors
    /// Nobody answers on the socket.
    pub fn open(cluster: &Cluster, node: usize) -> Result<Self> {
        let runtime = runtime()?;
        let url = format!("unix:{}", cluster.agent_socket(node).display());
        let channel = runtime.block_on(admin_channel(&url, None, None))?;
        Ok(Self { runtime, client: AgentClient::new(channel) })
    }

    /// The agent's status.
    ///
    /// # Errors
    /// It does not answer.
    pub fn status(&mut self) -> Result<AgentStatus> {
        Ok(self.runtime.block_on(self.client.status())?)
    }

    /// Its services with their tables.
    ///
    /// # Errors
    /// It does not answer.
    pub fn services(&mut self) -> Result<Vec<ServiceView>> {
        Ok(self.runtime.block_on(self.client.services())?)
    }

    /// One service's table; `None` when the service is not in the maps.
    ///
    /// # Errors
    /// It does not answer.
    pub fn table(&mut self, service: &str) -> Result<Option<Table>> {
        Ok(table_of(&self.services()?, service))
    }
}

/// The status of a cluster's apiserver.
///
/// # Errors
/// It does not answer.
pub fn apiserver_status(cluster: &Cluster) -> Result<ApiserverStatus> {
    let tls = TlsFiles::of(&cluster.dir.join("tls"), Role::Admin);
    let name = format!("{}.{MESH_DOMAIN}", cluster.site.name);
    let url = format!("unix:{}", cluster.admin_socket().display());
    runtime()?.block_on(async {
        let channel = admin_channel(&url, Some(&tls), Some(&name)).await?;
        Ok(ApiserverClient::new(channel).status().await?)
    })
}

/// The table of a service on a node; `None` when the service is not in the maps.
///
/// # Errors
/// The agent does not answer.
pub fn table(cluster: &Cluster, node: usize, service: &str) -> Result<Option<Table>> {
    AgentWindow::open(cluster, node)?.table(service)
}

/// Waits until a service has this table on every node of a cluster.
///
/// # Errors
/// It does not within that time.
pub fn wait_table(cluster: &mut Cluster, service: &str, expected: &Table, within: Duration) -> Result<()> {
    for node in 0..cluster.site.nodes.len() {
        let what = format!("the table of {service} on {}", cluster.site.nodes[node].name);
        wait_until(&what, within, || {
            cluster.alive()?;
            Ok(match table(cluster, node, service) {
                Ok(Some(table)) if table == *expected => Seen::Ready(()),
                Ok(other) => Seen::NotYet(format!("{other:?}, not {expected:?}")),
                Err(error) => Seen::NotYet(format!("{error:#}")),
            })
        })?;
    }
    Ok(())
}

/// An agent's return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Returned {
    /// From its start until its table was right.
    pub took: Duration,
    /// How much of that it waited for a CPU, which a busy machine gave to others.
    pub starved: Duration,
}

impl Returned {
    /// The time that is its own.
    pub fn own(&self) -> Duration {
        self.took.saturating_sub(self.starved)
    }
}

/// Starts a node's agent and waits until its table of a service is right.
///
/// # Errors
/// It cannot be started, or the table is not right within that time.
pub fn start_agent(
    cluster: &mut Cluster,
    node: usize,
    service: &str,
    expected: &Table,
    within: Duration,
) -> Result<Returned> {
    let begun = Instant::now();
    cluster.start_agent(node)?;
    watch_for("the agent's tables", Duration::from_millis(2), within, || {
        cluster.alive()?;
        // Until it listens there is nobody to ask.
        let table = table(cluster, node, service).ok().flatten();
        let right = table.as_ref() == Some(expected);
        Ok(right.then(|| Returned { took: begun.elapsed(), starved: cluster.agent_starved(node) }))
    })
}

/// Waits until the apiserver and the agents of a cluster say that they are ready, and its peers are.
///
/// # Errors
/// They do not within that time, or one of its processes dies.
pub fn wait_ready(cluster: &mut Cluster, within: Duration) -> Result<()> {
    wait_until(&format!("cluster {} to be ready", cluster.site.name), within, || {
        cluster.alive()?;
        Ok(unready(cluster).map_or(Seen::Ready(()), Seen::NotYet))
    })
}

/// What keeps a cluster from being ready; `None` when it is.
fn unready(cluster: &Cluster) -> Option<String> {
    let status = match apiserver_status(cluster) {
        Ok(status) => status,
        Err(error) => return Some(format!("the apiserver does not answer: {error:#}")),
    };
    if !status.blockers.is_empty() {
        return Some(format!("the apiserver waits for {}", status.blockers.join(", ")));
    }
    if let Some(peer) = status.peers.iter().find(|p| p.state.session != PeerSession::Ready) {
        return Some(format!("peer {} is {:?}: {}", peer.name, peer.state.session, peer.state.detail));
    }
    (0..cluster.site.nodes.len()).find_map(|node| {
        let name = &cluster.site.nodes[node].name;
        match AgentWindow::open(cluster, node).and_then(|mut agent| agent.status()) {
            Err(error) => Some(format!("the agent of {name} does not answer: {error:#}")),
            Ok(status) if !status.blockers.is_empty() => {
                Some(format!("the agent of {name} waits for {}", status.blockers.join(", ")))
            }
            Ok(status) if !status.synced => Some(format!("the agent of {name} has no tables yet")),
            Ok(_) => None,
        }
    })
}

fn table_of(services: &[ServiceView], service: &str) -> Option<Table> {
    let view = services.iter().find(|view| view.service.to_string() == service)?;
    let slots = view.frontends.iter().flat_map(|f| &f.backends);
    Some(slots.map(|slot| (slot.backend.to_string(), slot.slots)).collect())
}

fn runtime() -> Result<Runtime> {
    Builder::new_current_thread().enable_all().build().context("make a runtime")
}
