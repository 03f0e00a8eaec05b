//! Which executor carries plans out, and the tasks that wait for grace periods and for cgroups.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tombolo_core::tables::Ticket;
use tombolo_ebpf::{Datapath, Executor, FlowReader, MemoryDatapath, Place, Relation, Sockets};

use crate::config::{Config, DatapathKind};

/// What a kernel that refuses `membarrier` (nohz_full) is given instead: far more than a grace period lasts.
const GRACE_FALLBACK: Duration = Duration::from_secs(1);
/// How often the paths of cgroups to leave alone are looked at: a pod's cgroup is made when the pod is.
const SKIPS_EVERY: Duration = Duration::from_secs(3);

/// An open datapath, and what belongs to it.
pub struct Opened {
    /// Who carries plans out.
    pub executor: Box<dyn Executor>,
    /// Which one.
    pub kind: DatapathKind,
    /// The sockets that the kernel's has translated.
    pub sockets: Option<Sockets>,
    /// What the kernel's tells of connections.
    pub flows: Option<FlowReader>,
    /// What a person should know of it.
    pub remarks: Vec<String>,
}

/// Takes over what an earlier life left in the kernel, or begins there; or makes the datapath in memory.
pub fn open(config: &Config) -> Result<Opened> {
    let Some(kernel) = &config.kernel else {
        let executor = Box::new(MemoryDatapath::new(config.limits));
        return Ok(Opened { executor, kind: DatapathKind::None, sockets: None, flows: None, remarks: Vec::new() });
    };
    let mut datapath = Datapath::open(kernel).with_context(|| format!("opening {}", kernel.cgroup.display()))?;
    let remarks = remarks(&datapath).context("looking for programs of others")?;
    for remark in &remarks {
        tracing::warn!(remark, "to be known of the datapath");
    }
    let sockets = Some(datapath.sockets()?);
    let flows = Some(datapath.flows().context("opening the flow events")?);
    Ok(Opened { executor: Box::new(datapath), kind: DatapathKind::Ebpf, sockets, flows, remarks })
}

fn remarks(datapath: &Datapath) -> Result<Vec<String>> {
    let mut remarks = Vec::new();
    if !datapath.keeps_sockets() {
        remarks.push("sockets of an earlier life are not carried over: their layout or size is another".to_owned());
    }
    if let Place::Last { others } = datapath.place()? {
        remarks.push(format!("attached after others: up to {others} programs see an address first"));
    }
    for foreign in datapath.foreign()? {
        let place = match foreign.relation {
            Relation::Same => "on the same cgroup",
            Relation::Above => "above, so it runs after ours",
            Relation::Below => "below, so it runs before ours there",
        };
        remarks.push(format!("foreign program {foreign}: {place}"));
    }
    Ok(remarks)
}

/// Waits a grace period for each ticket, many at a time: what comes meanwhile shares the next one.
pub async fn grace(kind: DatapathKind, mut retired: mpsc::Receiver<Ticket>, over: mpsc::Sender<Ticket>) {
    while let Some(first) = retired.recv().await {
        let mut ticket = first;
        while let Ok(later) = retired.try_recv() {
            ticket = ticket.max(later);
        }
        if kind == DatapathKind::Ebpf {
            wait().await;
        }
        if over.send(ticket).await.is_err() {
            return;
        }
    }
}

async fn wait() {
    let outcome = tokio::task::spawn_blocking(tombolo_ebpf::grace_period).await;
    if !matches!(outcome, Ok(Ok(()))) {
        tokio::time::sleep_until(tokio::time::Instant::now() + GRACE_FALLBACK).await;
    }
}

/// Says when cgroups came, went, or were made anew under the same paths.
pub async fn watch_cgroups(paths: Vec<PathBuf>, changed: mpsc::Sender<()>, stop: CancellationToken) {
    let mut cgroups = Cgroups { seen: look(&paths), paths };
    let mut ticks = tokio::time::interval(SKIPS_EVERY);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        if cgroups.differ() && changed.send(()).await.is_err() {
            return;
        }
    }
}

/// Paths, and which cgroups they were.
struct Cgroups {
    paths: Vec<PathBuf>,
    seen: Vec<Option<u64>>,
}

impl Cgroups {
    /// Whether any is another now than at the last look.
    fn differ(&mut self) -> bool {
        let now = look(&self.paths);
        std::mem::replace(&mut self.seen, now) != self.seen
    }
}

/// A cgroup's id is its folder's inode.
fn look(paths: &[PathBuf]) -> Vec<Option<u64>> {
    paths.iter().map(|path| fs::metadata(path).ok().map(|meta| meta.ino())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_that_comes_goes_or_is_made_anew_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let (pod, another) = (folder.path().join("pod"), folder.path().join("another"));
        let paths = vec![pod.clone()];
        let mut cgroups = Cgroups { seen: look(&paths), paths };
        assert!(!cgroups.differ(), "nothing is there, as before");
        fs::create_dir(&pod).unwrap();
        assert!(cgroups.differ());
        fs::create_dir(&another).unwrap();
        assert!(!cgroups.differ());
        fs::rename(&another, &pod).unwrap();
        assert!(cgroups.differ());
        fs::remove_dir(&pod).unwrap();
        assert!(cgroups.differ());
        assert!(!cgroups.differ());
    }
}
