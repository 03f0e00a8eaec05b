//! One cluster: its directory as the CLI knows it, its control plane, its nodes' agents, and its `rebel-base`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};

use crate::etcd::{Engine, Server};
use crate::manifest::{self, Endpoint, Readiness, Service, TARGET_PORT};
use crate::operator::{self, Authority};
use crate::process::{Process, Spec};
use crate::programs;
use crate::run::Run;
use crate::topology::{self, Node, Site};

/// The port of the apiserver's probes.
pub const HEALTH_PORT: u16 = 9880;

/// The Service that all of it is about.
pub const SERVICE: &str = "default/rebel-base";

/// The annotation that makes a Service part of the mesh.
pub const GLOBAL: &str = "service.cilium.io/global";

/// The slice with `rebel-base`'s endpoints.
const SLICE: &str = "rebel-base-1";

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
    pods: BTreeMap<Ipv4Addr, Process>,
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
            address: site.service(10),
            port: 80,
            annotations: [(GLOBAL.to_owned(), "true".to_owned())].into(),
        };
        let cluster = Self {
            datapath,
            logs: run.logs(),
            bpffs: run.bpffs(),
            apiserver: None,
            agents: BTreeMap::new(),
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
        cluster.write_source("rebel-base.yaml", &cluster.service.manifest())?;
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
        flag("--ip", site.control.address.to_string().into());
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

    /// What clients dial for `rebel-base` here.
    pub fn frontend(&self) -> SocketAddr {
        (self.service.address, self.service.port).into()
    }

    /// Starts the apiserver.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_apiserver(&mut self) -> Result<()> {
        let (site, dir) = (&self.site, &self.dir);
        let spec =
            Spec::new(format!("{}-apiserver", site.name), programs::program("tombolo-apiserver")?, &site.control)
                .flag("--cluster-name", &site.name)
                .flag("--cluster-id", site.id.to_string())
                .flag("--max-connected-clusters", "255")
                .flag("--source", format!("dir:{}", self.source().display()))
                .flag("--store", self.etcd.url())
                .flag("--tls-dir", dir.join("tls"))
                .flag("--peers-dir", dir.join("peers"))
                .flag("--admin-listen", format!("unix:{}", self.admin_socket().display()))
                .flag("--service-cidr", site.service_range())
                .flag("--health-listen", format!("{}:{HEALTH_PORT}", site.control.address));
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
        let (bpffs, state) = (self.bpffs.join(name), self.dir.join("state").join(name));
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
        self.agents.insert(node, spec.start(&self.logs)?);
        Ok(())
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
        self.write_source("rebel-base.yaml", &self.service.manifest())
    }

    /// Runs `count` pods of `rebel-base`, in turn on each node, and makes them its endpoints. Pods that are no longer
    /// wanted keep running, as they do in Kubernetes while connections end.
    ///
    /// # Errors
    /// A pod cannot be started or the manifest not be written.
    pub fn scale(&mut self, count: u8) -> Result<()> {
        for (node, address) in self.pod_places(count) {
            self.start_pod(&node, address)?;
        }
        self.claim(count)
    }

    /// Makes `count` pods the endpoints of `rebel-base`, whether they run or not.
    ///
    /// # Errors
    /// The manifest cannot be written.
    pub fn claim(&mut self, count: u8) -> Result<()> {
        let places = self.pod_places(count).into_iter();
        let endpoints =
            places.map(|(node, address)| Endpoint { address, node: node.name, readiness: Readiness::Ready });
        self.set_endpoints(endpoints.collect())
    }

    /// Where the first `count` pods are: in turn on each node.
    fn pod_places(&self, count: u8) -> Vec<(Node, Ipv4Addr)> {
        let rounds = (1..=u8::MAX).flat_map(|n| self.site.nodes.iter().map(move |node| (node.clone(), node.pod(n))));
        rounds.take(usize::from(count)).collect()
    }

    /// Kills everything but the pods and forgets what it remembered, the source's endpoints too.
    ///
    /// # Errors
    /// A process cannot be waited for, or a file not be removed.
    pub fn forget(&mut self) -> Result<()> {
        self.kill_apiserver()?;
        for node in 0..self.site.nodes.len() {
            self.kill_agent(node)?;
        }
        self.etcd.kill()?;
        for remembered in ["etcd", "state"] {
            let dir = self.dir.join(remembered);
            if dir.exists() {
                fs::remove_dir_all(&dir).with_context(|| format!("remove {}", dir.display()))?;
            }
        }
        self.delete_endpoints()
    }

    fn start_pod(&mut self, node: &Node, address: Ipv4Addr) -> Result<()> {
        if self.pods.contains_key(&address) {
            return Ok(());
        }
        topology::add_pod(node, address)?;
        let name = format!("{}-rebel-base-{address}", self.site.name);
        let spec = Spec::new(name, programs::program("rebel-base")?, &node.place)
            .flag("--listen", format!("{address}:{TARGET_PORT}"))
            .flag("--cluster", &self.site.name);
        self.pods.insert(address, spec.start(&self.logs)?);
        Ok(())
    }

    /// Makes these the endpoints of `rebel-base`, whether anybody listens there or not.
    ///
    /// # Errors
    /// The manifest cannot be written.
    pub fn set_endpoints(&mut self, endpoints: Vec<Endpoint>) -> Result<()> {
        self.write_source("rebel-base-endpoints.yaml", &self.service.slice(SLICE, &endpoints))?;
        self.endpoints = endpoints;
        Ok(())
    }

    /// The endpoints of `rebel-base`.
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// Deletes the EndpointSlice of `rebel-base`. Its pods keep running and its Service stays.
    ///
    /// # Errors
    /// The manifest cannot be removed.
    pub fn delete_endpoints(&mut self) -> Result<()> {
        self.endpoints.clear();
        self.remove_source("rebel-base-endpoints.yaml")
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
