//! One cluster: its directory as the CLI knows it, its control plane and its nodes' agents.

mod backends;
mod fate;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tombolo_core::model::{Port, Protocol};

use crate::etcd::{Engine, Server};
use crate::manifest::{self, Endpoint, Service};
use crate::operator::{self, Authority};
use crate::process::{Process, Spec};
use crate::programs;
use crate::run::Run;
use crate::topology::{self, Node, Site};

pub use self::backends::Frontend;

/// The port of the apiserver's probes.
pub const HEALTH_PORT: u16 = 9880;

/// The Service that all of it is about.
pub const SERVICE: &str = "default/rebel-base";

/// Its number among its cluster's Services.
const REBEL_BASE: u16 = 10;

/// The port that clients of it dial.
const PORT: u16 = 80;

/// The annotation that makes a Service part of the mesh.
pub const GLOBAL: &str = "service.cilium.io/global";

/// What agents program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Datapath {
    /// The kernel's maps.
    Ebpf,
    /// Nothing: tables can only be read.
    None,
}

/// One cluster.
#[derive(Debug)]
pub struct Cluster {
    /// Its share of the machine.
    pub site: Site,
    /// Its directory.
    pub dir: PathBuf,
    /// Its etcd.
    pub etcd: Server,
    /// The Service `rebel-base`.
    pub service: Service,
    datapath: Datapath,
    logs: PathBuf,
    bpffs: PathBuf,
    apiserver: Option<Process>,
    agents: BTreeMap<usize, Process>,
    /// Flags of agents beyond the usual.
    agent_flags: BTreeMap<usize, Vec<OsString>>,
    /// What the apiserver reads, as its flag says it; the directory when absent.
    source_flag: Option<String>,
    /// Flags of the apiserver beyond the usual.
    apiserver_flags: Vec<OsString>,
    /// By name.
    pods: BTreeMap<String, Process>,
    endpoints: Vec<Endpoint>,
}

impl Cluster {
    /// Lays out the directory by `tombolo init`, with a source of one Service without endpoints.
    ///
    /// # Errors
    /// The CLI fails, or a file cannot be written.
    pub fn lay_out(run: &Run, site: Site, engine: &Engine, authority: &Authority, datapath: Datapath) -> Result<Self> {
        let dir = run.dir().join(&site.name);
        let (tls, data) = (dir.join("tls"), dir.join("etcd"));
        let etcd = Server::new(engine.clone(), &site.name, &site.control, &tls, &data, &run.logs());
        let service = Service {
            namespace: "default".into(),
            name: "rebel-base".into(),
            addresses: site.service(REBEL_BASE).both().to_vec(),
            ports: vec![port("http", Protocol::Tcp), port("datagrams", Protocol::Udp)],
            client_ip_seconds: None,
            annotations: [(GLOBAL.to_owned(), "true".to_owned())].into(),
        };
        let cluster = Self {
            datapath,
            logs: run.logs(),
            bpffs: run.bpffs(),
            apiserver: None,
            agents: BTreeMap::new(),
            agent_flags: BTreeMap::new(),
            source_flag: None,
            apiserver_flags: Vec::new(),
            pods: BTreeMap::new(),
            endpoints: Vec::new(),
            site,
            dir,
            etcd,
            service,
        };
        cluster.init(authority)?;
        cluster.write_source("namespaces.yaml", &manifest::namespaces(&["default"]))?;
        cluster.write_source("nodes.yaml", &manifest::nodes(&cluster.site))?;
        cluster.write_service()?;
        Ok(cluster)
    }

    fn init(&self, authority: &Authority) -> Result<()> {
        let site = &self.site;
        let mut args: Vec<OsString> = vec!["init".into(), self.dir.clone().into()];
        let mut flag = |flag: &str, value: OsString| args.extend([flag.into(), value]);
        flag("--name", site.name.clone().into());
        flag("--id", site.id.to_string().into());
        flag("--ca", authority.dir().into());
        flag("--store", self.etcd.url().into());
        flag("--ip", site.control.address.v4.to_string().into());
        for node in &site.nodes {
            flag("--node", format!("{0}=run/{0}.sock", node.name).into());
        }
        operator::tombolo(&args).map(drop)
    }

    /// Writes one file of the source, as a whole.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write_source(&self, file: &str, text: &str) -> Result<()> {
        manifest::write_whole(&self.source().join(file), text)
    }

    /// Removes one file of the source.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn remove_source(&self, file: &str) -> Result<()> {
        fs::remove_file(self.source().join(file)).with_context(|| format!("remove {file} of {}", self.site.name))
    }

    /// The folder with the manifests.
    pub fn source(&self) -> PathBuf {
        self.dir.join("source")
    }

    /// The apiserver's admin socket.
    pub fn admin_socket(&self) -> PathBuf {
        self.dir.join("run/apiserver.sock")
    }

    /// An agent's admin socket.
    pub fn agent_socket(&self, node: usize) -> PathBuf {
        self.dir.join("run").join(format!("{}.sock", self.site.nodes[node].name))
    }

    /// Starts the apiserver.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_apiserver(&mut self) -> Result<()> {
        let (site, dir) = (&self.site, &self.dir);
        let source = self.source_flag.clone().unwrap_or_else(|| format!("dir:{}", self.source().display()));
        let spec =
            Spec::new(format!("{}-apiserver", site.name), programs::program("tombolo-apiserver")?, &site.control)
                .flag("--cluster-name", &site.name)
                .flag("--cluster-id", site.id.to_string())
                .flag("--max-connected-clusters", "255")
                .flag("--source", source)
                .flag("--store", self.etcd.url())
                .flag("--tls-dir", dir.join("tls"))
                .flag("--peers-dir", dir.join("peers"))
                .flag("--admin-listen", format!("unix:{}", self.admin_socket().display()))
                .flag("--service-cidr", site.service_ranges().join(","))
                .flag("--health-listen", format!("{}:{HEALTH_PORT}", site.control.address.v4));
        let spec = self.apiserver_flags.iter().fold(spec, Spec::arg);
        self.apiserver = Some(spec.start(&self.logs)?);
        Ok(())
    }

    /// Starts the agent of a node, given by its index.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_agent(&mut self, node: usize) -> Result<()> {
        let (site, Node { name, place, .. }) = (&self.site, &self.site.nodes[node]);
        ensure!(topology::is_child_of_a_run(&place.cgroup), "an agent must only get a cgroup made for it");
        let (bpffs, state) = (self.agent_bpffs(node), self.agent_state(node));
        fs::create_dir_all(&bpffs)?;
        fs::create_dir_all(&state)?;
        let datapath = match self.datapath {
            Datapath::Ebpf => "ebpf",
            Datapath::None => "none",
        };
        let spec = Spec::new(format!("{name}-agent"), programs::program("tombolo-agent")?, place)
            .flag("--cluster-name", &site.name)
            .flag("--cluster-id", site.id.to_string())
            .flag("--node-name", name)
            .flag("--store-config", self.dir.join("store.yaml"))
            .flag("--cgroup", &place.cgroup)
            .flag("--bpffs", bpffs)
            .flag("--state-dir", state)
            .flag("--admin-socket", self.agent_socket(node))
            .flag("--datapath", datapath);
        let spec = self.agent_flags.get(&node).into_iter().flatten().fold(spec, Spec::arg);
        self.agents.insert(node, spec.start(&self.logs)?);
        Ok(())
    }

    /// Gives a node's agent these flags beside the usual, from its next start on.
    pub fn set_agent_flags<F: Into<OsString>>(&mut self, node: usize, flags: impl IntoIterator<Item = F>) {
        self.agent_flags.insert(node, flags.into_iter().map(Into::into).collect());
    }

    /// Lets the apiserver read this instead of the directory, from its next start on: `kubernetes:KUBECONFIG`.
    pub fn set_source(&mut self, flag: String) {
        self.source_flag = Some(flag);
    }

    /// The apiserver's process, while it runs.
    pub fn apiserver(&mut self) -> Option<&mut Process> {
        self.apiserver.as_mut()
    }

    /// Gives the apiserver these flags beside the usual, from its next start on.
    pub fn set_apiserver_flags<F: Into<OsString>>(&mut self, flags: impl IntoIterator<Item = F>) {
        self.apiserver_flags = flags.into_iter().map(Into::into).collect();
    }

    /// An agent's folder on the run's BPF file system.
    pub fn agent_bpffs(&self, node: usize) -> PathBuf {
        self.bpffs.join(&self.site.nodes[node].name)
    }

    /// An agent's folder for what outlives it.
    pub fn agent_state(&self, node: usize) -> PathBuf {
        self.dir.join("state").join(&self.site.nodes[node].name)
    }

    /// Kills the apiserver, as a crash would.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub fn kill_apiserver(&mut self) -> Result<()> {
        self.apiserver.take().map_or(Ok(()), Process::kill)
    }

    /// Kills a node's agent, as a crash would.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub fn kill_agent(&mut self, node: usize) -> Result<()> {
        self.agents.remove(&node).map_or(Ok(()), Process::kill)
    }

    /// How long a node's agent, while it runs, has waited for a CPU.
    pub fn agent_starved(&self, node: usize) -> Duration {
        self.agents.get(&node).map_or(Duration::ZERO, Process::starved)
    }

    /// Asks a node's agent to end, as an upgrade does, and waits until it has.
    ///
    /// # Errors
    /// It does not end in time, or not well.
    pub fn stop_agent(&mut self, node: usize) -> Result<()> {
        self.agents.remove(&node).map_or(Ok(()), Process::stop)
    }

    /// Checks that all that was started still runs.
    ///
    /// # Errors
    /// Something ended by itself.
    pub fn alive(&mut self) -> Result<()> {
        self.etcd.alive()?;
        self.apiserver
            .iter_mut()
            .chain(self.agents.values_mut())
            .chain(self.pods.values_mut())
            .try_for_each(Process::alive)
    }

    /// Lets all of it go on without this process.
    pub fn leave(self) {
        self.etcd.leave();
        self.apiserver
            .into_iter()
            .chain(self.agents.into_values())
            .chain(self.pods.into_values())
            .for_each(Process::leave);
    }
}

/// A port of `rebel-base`: one number for both protocols.
fn port(name: &str, protocol: Protocol) -> Port {
    Port { name: name.into(), protocol, number: PORT }
}
