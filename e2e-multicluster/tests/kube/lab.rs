//! The cluster that cases share: an API server with its controllers, two nodes with a kubelet and kube-proxy.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tombolo_e2e::kube::{self, KubeCluster, Kubelet, Mode, Proxy};
use tombolo_e2e::run::Run;
use tombolo_e2e::topology::{self, Place};
use tombolo_e2e::{clock, story};

/// How long anything in a cluster may take on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// One end-to-end test.
pub(crate) struct Case {
    /// Its name, as a sentence.
    pub(crate) name: &'static str,
    /// What it does.
    pub(crate) body: fn(&mut Lab) -> Result<()>,
}

/// One cluster. What ends first comes first.
pub(crate) struct Lab {
    _kubelet: Kubelet,
    proxies: Vec<Proxy>,
    pub(crate) cluster: KubeCluster,
    pub(crate) run: Run,
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
        Ok(Self { _kubelet: kubelet, proxies, cluster, run })
    }

    fn alive(&mut self) -> Result<()> {
        self.cluster.alive()?;
        self.proxies.iter_mut().try_for_each(Proxy::alive)
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
