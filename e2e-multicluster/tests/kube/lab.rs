//! The cluster that cases share: an API server with its controllers, two nodes with a kubelet and kube-proxy.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tombolo_e2e::clock::{Seen, wait_until};
use tombolo_e2e::cluster::{Cluster, Datapath};
use tombolo_e2e::kube::{self, KubeCluster, Kubelet, Mode, Proxy, Saved};
use tombolo_e2e::operator::Authority;
use tombolo_e2e::recorder::Recorder;
use tombolo_e2e::run::Run;
use tombolo_e2e::topology::{self, Place};
use tombolo_e2e::{clock, etcd, observe, story};

/// How long anything in a cluster may take on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// One end-to-end test.
pub(crate) struct Case {
    /// Its name, as a sentence.
    pub(crate) name: &'static str,
    /// What it does.
    pub(crate) body: fn(&mut Lab) -> Result<()>,
}

/// One that builds what it needs itself.
pub(crate) struct Alone {
    /// Its name, as a sentence.
    pub(crate) name: &'static str,
    /// What it does.
    pub(crate) body: fn() -> Result<()>,
}

/// One cluster. What ends first comes first.
pub(crate) struct Lab {
    member: Option<Member>,
    _kubelet: Kubelet,
    proxies: Vec<Proxy>,
    pub(crate) cluster: KubeCluster,
    pub(crate) run: Run,
}

/// What the cluster has of the mesh: a store, and an apiserver that watches the API server.
pub(crate) struct Member {
    pub(crate) mesh: Cluster,
    /// Of `cilium/state/` in its store.
    pub(crate) recorder: Recorder,
}

impl Lab {
    /// Gives a case the lab that there is, or a new one. A case that fails takes it down.
    pub(crate) fn lend(shared: &mut Option<Self>, body: fn(&mut Self) -> Result<()>) -> Result<()> {
        let mut lab = match shared.take() {
            Some(lab) => lab,
            None => Self::build().context("the shared cluster")?,
        };
        let done = body(&mut lab).and_then(|()| lab.alive());
        if done.is_err() {
            lab.keep_logs();
        } else {
            *shared = Some(lab);
        }
        done
    }

    fn build() -> Result<Self> {
        let begun = clock::monotonic_us();
        let run = Run::begin(Path::new(env!("CARGO_BIN_EXE_demo")))?;
        let site = topology::build(&run, &[("ne", 1)], 2)?.remove(0);
        // ConfigMaps are watched in etcd itself, so that a compaction is seen without a restart.
        let cluster = KubeCluster::start(&run, &site, &kube::locate()?, &["--watch-cache-sizes=configmaps#0"])?;
        let kubelet = Kubelet::start(&run, &cluster)?;
        let proxies = site.nodes.iter().map(|node| Proxy::start(&cluster, node, Mode::Nftables));
        let proxies = proxies.collect::<Result<_>>()?;
        story::say(&format!("   a cluster with two nodes: {} ms", (clock::monotonic_us() - begun) / 1000));
        Ok(Self { member: None, _kubelet: kubelet, proxies, cluster, run })
    }

    /// The cluster's part of the mesh, started now if no case has before.
    pub(crate) fn member(&mut self) -> Result<&mut Member> {
        let member = match self.member.take() {
            Some(member) => member,
            None => self.join()?,
        };
        Ok(self.member.insert(member))
    }

    fn join(&self) -> Result<Member> {
        let authority = Authority::create(&self.run.dir().join("ca"))?;
        let (engine, site) = (etcd::locate()?, self.cluster.site.clone());
        let mut mesh = Cluster::lay_out(&self.run, site, &engine, &authority, Datapath::None)?;
        mesh.set_source(format!("kubernetes:{}#ne", self.cluster.kubeconfig("admin").display()));
        mesh.etcd.start()?;
        mesh.start_apiserver()?;
        wait_until("the apiserver to be ready", SOON, || {
            mesh.alive()?;
            Ok(match observe::apiserver_status(&mesh) {
                Ok(status) if status.blockers.is_empty() => Seen::Ready(()),
                Ok(status) => Seen::NotYet(status.blockers.join(", ")),
                Err(error) => Seen::NotYet(format!("{error:#}")),
            })
        })?;
        let recorder = Recorder::start(&mesh, "cilium/state/")?;
        Ok(Member { mesh, recorder })
    }

    fn alive(&mut self) -> Result<()> {
        self.cluster.alive()?;
        self.member.iter_mut().try_for_each(|member| member.mesh.alive())?;
        self.proxies.iter_mut().try_for_each(Proxy::alive)
    }

    /// Brings back a state, and kube-proxy after it.
    pub(crate) fn restore(&mut self, saved: &Saved) -> Result<()> {
        self.cluster.restore(saved)?;
        self.proxies.clear();
        let nodes = self.cluster.site.nodes.iter();
        self.proxies = nodes.map(|node| Proxy::start(&self.cluster, node, Mode::Nftables)).collect::<Result<_>>()?;
        Ok(())
    }

    /// A node's place, by its index.
    pub(crate) fn node(&self, index: usize) -> &Place {
        &self.cluster.site.nodes[index].place
    }

    /// Copies the logs to `TOMBOLO_E2E_LOGS`, when that is set, before the run's folder goes.
    fn keep_logs(&self) {
        if let Some(to) = std::env::var_os("TOMBOLO_E2E_LOGS") {
            let _ = std::process::Command::new("cp").arg("-rT").arg(self.run.logs()).arg(to).status();
        }
    }
}
