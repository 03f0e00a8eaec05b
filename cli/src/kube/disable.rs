//! `disable`: everything that `enable` put into a cluster, and what its agents left on the nodes, taken away.

use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use tokio::time::{Duration, Instant, sleep};
use tombolo_kube::install::{Found, Outcome, Workload};
use tombolo_kube::objects::{Kind, ObjectName};

use super::config::{ClusterConfig, Shape};
use super::manifests::{definitions, leaving, namespaces};
use super::{Put, Site};
use crate::args::{DisableArgs, EnableArgs};

/// How soon the agents are looked at again.
const AGAIN: Duration = Duration::from_millis(500);

/// What was taken away.
#[derive(Debug, Serialize)]
pub(crate) struct Disabled {
    /// From where.
    pub context: String,
    /// On how many nodes the agents took their programs away; absent where they were left.
    pub nodes: Option<u32>,
    /// The objects.
    pub objects: Vec<Put>,
}

/// Takes everything away.
pub(crate) async fn disable(args: &DisableArgs) -> Result<Disabled> {
    let site = Site::open(args.kubeconfig.as_deref(), args.context.as_deref()).await?;
    let found = site.read().await?;
    let peers: Vec<&str> = found.peers.iter().filter_map(|peer| peer.metadata.name.as_deref()).collect();
    if !peers.is_empty() && !args.force {
        bail!(
            "context {} has peers ({}), which go on to know it: disconnect them first, or add --force; nothing was changed",
            site.context,
            peers.join(", ")
        );
    }
    let nodes = if args.keep_nodes { None } else { leave_nodes(&site, &found, args.within).await? };
    let mut objects = Vec::new();
    // The workloads go with their namespace, and with them who writes anything.
    let spaces = namespaces().map(|name| Kind::new("v1", "Namespace").named("", name));
    objects.extend(remove(&site, &spaces, args.within).await?);
    let mut names = Vec::new();
    for kind in ["ClusterRoleBinding", "ClusterRole"] {
        let ours = site.install().ours("rbac.authorization.k8s.io/v1", kind).await;
        names.extend(ours.map_err(|e| site.failed(e))?);
    }
    names.extend(definitions());
    objects.extend(remove(&site, &names, args.within).await?);
    Ok(Disabled { context: site.context, nodes, objects })
}

/// Takes objects away and waits until they are gone.
async fn remove(site: &Site, names: &[ObjectName], within: Duration) -> Result<Vec<Put>> {
    let mut removed = Vec::new();
    for name in names {
        removed.push(site.remove(name).await?);
    }
    for (name, put) in names.iter().zip(&removed) {
        if put.outcome == Outcome::Removed {
            site.install().gone(name, within).await.map_err(|e| site.failed(e))?;
        }
    }
    Ok(removed)
}

/// Has the agents take away what they put on the nodes. `None` where there are none.
async fn leave_nodes(site: &Site, found: &Found, within: Duration) -> Result<Option<u32>> {
    let (Some(map), Some(_)) = (&found.config, &found.agents) else { return Ok(None) };
    let Ok(config) = ClusterConfig::parse(&map.data) else { return Ok(None) };
    let shape = Shape::wanted(&EnableArgs::default(), found);
    let set = leaving(&shape, &config).context("the manifests have no agents")?;
    site.put(&[set]).await?;
    let until = Instant::now() + within;
    loop {
        let agents = site.read().await?.agents;
        match agents {
            None => return Ok(None),
            Some(agents) if done(&agents) => return Ok(Some(agents.wanted)),
            Some(agents) if Instant::now() > until => bail!(
                "context {}: the agents have left {} of {} nodes after {} s; repeat it, or leave their programs there with \
                 --keep-nodes",
                site.context,
                agents.updated.min(agents.ready),
                agents.wanted,
                within.as_secs()
            ),
            Some(_) => sleep(AGAIN).await,
        }
    }
}

/// Whether every node has the newest Pod, and that has done its part.
fn done(agents: &Workload) -> bool {
    agents.observed && agents.updated >= agents.wanted && agents.ready >= agents.wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_are_done_when_the_newest_are_ready_everywhere() {
        let set =
            |wanted, updated, ready, observed| Workload { wanted, updated, ready, observed, ..Workload::default() };
        assert!(done(&set(2, 2, 2, true)) && done(&set(0, 0, 0, true)));
        for not in [set(2, 1, 2, true), set(2, 2, 1, true), set(2, 2, 2, false)] {
            assert!(!done(&not), "{not:?}");
        }
    }
}
