//! What befalls a cluster: it forgets, it is cut off, it dies as a whole and returns.

use std::fs;

use anyhow::{Context as _, Result};

use super::Cluster;
use crate::run;
use crate::topology::{self, Link};

impl Cluster {
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

    /// Cuts it off from the other clusters: what is sent either way is lost without a word, and inside all goes on.
    /// [`Cluster::rejoin`] undoes it.
    ///
    /// # Errors
    /// `ip` fails.
    pub fn partition(&self) -> Result<()> {
        topology::set_trunk(&self.site, Link::Down)
    }

    /// Joins it again.
    ///
    /// # Errors
    /// `ip` fails.
    pub fn rejoin(&self) -> Result<()> {
        topology::set_trunk(&self.site, Link::Up)
    }

    /// Kills its store, apiserver, agents and pods at once and cuts its trunk, as when a region goes.
    ///
    /// # Errors
    /// The trunk cannot be cut, or a process not be killed.
    pub fn die(&mut self) -> Result<()> {
        self.partition()?;
        self.site.places().try_for_each(|place| run::kill_cgroup(&place.cgroup))?;
        self.etcd.kill()?;
        self.kill_apiserver()?;
        for node in 0..self.site.nodes.len() {
            self.kill_agent(node)?;
        }
        while let Some((_, pod)) = self.pods.pop_first() {
            pod.kill()?;
        }
        Ok(())
    }

    /// Brings back what [`Cluster::die`] took, with `pods` pods and on the disks it had.
    ///
    /// # Errors
    /// Something cannot be started.
    pub fn come_back(&mut self, pods: u8) -> Result<()> {
        self.rejoin()?;
        self.etcd.start()?;
        self.run_pods(pods)?;
        self.start_apiserver()?;
        (0..self.site.nodes.len()).try_for_each(|node| self.start_agent(node))
    }

    /// Starts again with the usual flags every agent that has others or does not run.
    ///
    /// # Errors
    /// An agent cannot be stopped or started.
    pub fn usual_agents(&mut self) -> Result<()> {
        for node in 0..self.site.nodes.len() {
            let special = self.agent_flags.remove(&node).is_some();
            if special {
                self.stop_agent(node)?;
            }
            if !self.agents.contains_key(&node) {
                self.start_agent(node)?;
            }
        }
        Ok(())
    }
}
