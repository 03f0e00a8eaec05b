//! A whole mesh: sites, clusters, certificates and connections, up and answering.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::cluster::{Cluster, Datapath, GLOBAL, SERVICE};
use crate::observe::Table;
use crate::operator::{self, Authority};
use crate::run::Run;
use crate::{etcd, observe, story, topology};

/// What mesh to make.
#[derive(Clone, Debug)]
pub struct Plan<'a> {
    /// Clusters by name and id.
    pub clusters: &'a [(&'a str, u8)],
    /// Nodes in each.
    pub nodes: u8,
    /// Pods of `rebel-base` in each.
    pub pods: u8,
    /// What agents program.
    pub datapath: Datapath,
    /// The program that is the run's janitor.
    pub janitor: &'a Path,
}

/// The demo's three clusters.
pub const DEMO: [(&str, u8); 3] = [("ne", 1), ("we", 2), ("fc", 3)];

/// How long a mesh may take from its start until every agent has its tables.
const READY: Duration = Duration::from_secs(60);

/// A mesh. Dropping it ends everything.
#[derive(Debug)]
pub struct Mesh {
    /// Its clusters, in the plan's order.
    pub clusters: Vec<Cluster>,
    /// Its certificate authority.
    pub authority: Authority,
    /// Pods of `rebel-base` in each cluster, at the start.
    pub pods: u8,
    // Last, so that processes are gone before what they run in.
    run: Option<Run>,
}

impl Mesh {
    /// Makes namespaces, directories, certificates and connections; starts nothing but what `start` asks for.
    ///
    /// # Errors
    /// Anything of that fails; what was made is undone.
    pub fn lay_out(plan: &Plan<'_>) -> Result<Self> {
        let engine = etcd::locate()?;
        engine.warn_if_old();
        let run = Run::begin(plan.janitor)?;
        let sites = topology::build(&run, plan.clusters, plan.nodes)?;
        let authority = Authority::create(&run.dir().join("ca"))?;
        let mut clusters = Vec::new();
        for site in sites {
            clusters.push(Cluster::lay_out(&run, site, &engine, &authority, plan.datapath)?);
        }
        Ok(Self { clusters, authority, pods: plan.pods, run: Some(run) })
    }

    /// Makes a mesh, starts everything, connects all clusters pairwise, and waits until it is ready.
    ///
    /// # Errors
    /// Anything of that fails; what was made is undone.
    pub fn up(plan: &Plan<'_>) -> Result<Self> {
        let begun = Instant::now();
        let mut mesh = Self::lay_out(plan)?;
        story::say(&format!("   namespaces, certificates and manifests: {} ms", begun.elapsed().as_millis()));
        for cluster in &mut mesh.clusters {
            cluster.etcd.start()?;
            cluster.scale(plan.pods)?;
            cluster.start_apiserver()?;
            for node in 0..cluster.site.nodes.len() {
                cluster.start_agent(node)?;
            }
        }
        mesh.connect_all()?;
        story::say(&format!("   started and connected: {} ms", begun.elapsed().as_millis()));
        mesh.wait_ready()?;
        mesh.wait_all_backends(READY)?;
        story::say(&format!("   every agent has its tables: {} ms", begun.elapsed().as_millis()));
        Ok(mesh)
    }

    /// Connects every pair of clusters.
    ///
    /// # Errors
    /// `tombolo connect` fails.
    pub fn connect_all(&self) -> Result<()> {
        for (n, one) in self.clusters.iter().enumerate() {
            let others: Vec<_> = self.clusters[n + 1..].iter().map(|c| c.dir.as_path()).collect();
            if !others.is_empty() {
                operator::connect(&one.dir, &others)?;
            }
        }
        Ok(())
    }

    /// Kills everything but the pods and forgets what it remembered.
    ///
    /// # Errors
    /// Something cannot be killed or removed.
    pub fn forget(&mut self) -> Result<()> {
        self.clusters.iter_mut().try_for_each(Cluster::forget)
    }

    /// Brings everything back to how [`Mesh::up`] left it: all pods are endpoints, no annotation but global, every
    /// agent has all backends.
    ///
    /// # Errors
    /// It does not come back.
    pub fn rest(&mut self) -> Result<()> {
        let pods = self.pods;
        for cluster in &mut self.clusters {
            cluster.service.annotations.retain(|key, _| key == GLOBAL);
            cluster.stick(None)?;
            cluster.scale(pods)?;
            cluster.usual_agents()?;
        }
        self.wait_ready()?;
        self.wait_all_backends(READY)
    }

    /// The table of `rebel-base` with every endpoint of every cluster, one slot each.
    pub fn all_backends(&self) -> Table {
        self.clusters.iter().flat_map(Cluster::targets).map(|target| (target, 1)).collect()
    }

    /// Waits until every agent's table of `rebel-base` has exactly every endpoint of every cluster.
    ///
    /// # Errors
    /// It does not within that time.
    pub fn wait_all_backends(&mut self, within: Duration) -> Result<()> {
        let all = self.all_backends();
        self.clusters.iter_mut().try_for_each(|c| observe::wait_table(c, SERVICE, &all, within))
    }

    /// Waits until every cluster says that it and its nodes are ready.
    ///
    /// # Errors
    /// One does not in time, or a process dies.
    pub fn wait_ready(&mut self) -> Result<()> {
        for cluster in &mut self.clusters {
            observe::wait_ready(cluster, READY)?;
        }
        Ok(())
    }

    /// A cluster by name.
    pub fn cluster(&mut self, name: &str) -> &mut Cluster {
        self.clusters.iter_mut().find(|c| c.site.name == name).expect("the test names a cluster of its own plan")
    }

    /// The run that everything belongs to.
    pub fn run(&self) -> &Run {
        self.run.as_ref().expect("a mesh has its run until it is kept")
    }

    /// Leaves everything up. Gives the run's directory.
    ///
    /// # Errors
    /// The intention cannot be written down.
    pub fn keep(mut self) -> Result<PathBuf> {
        let run = self.run.take().expect("a mesh has its run until it is kept");
        // Their Drop would end the processes.
        std::mem::take(&mut self.clusters).into_iter().for_each(Cluster::leave);
        run.keep()
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        if let Some(run) = &self.run
            && let Err(error) = run.kill_all()
        {
            story::warn(&format!("{error:#}"));
        }
    }
}
