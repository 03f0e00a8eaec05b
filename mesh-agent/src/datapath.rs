//! Which executor carries plans out, and the task that waits for grace periods.

use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::sync::mpsc;
use tombolo_core::tables::Ticket;
use tombolo_ebpf::{Datapath, DatapathConfig, Executor, MemoryDatapath};

use crate::config::{Config, DatapathKind};

/// What a kernel that refuses `membarrier` (nohz_full) is given instead: far more than a grace period lasts.
const GRACE_FALLBACK: Duration = Duration::from_secs(1);

/// Attaches the kernel's datapath, or makes the one in memory.
pub fn open(config: &Config) -> Result<(Box<dyn Executor>, DatapathKind)> {
    let Some(cgroup) = &config.cgroup else {
        return Ok((Box::new(MemoryDatapath::new(config.limits)), DatapathKind::None));
    };
    let mut datapath = DatapathConfig::new(cgroup.clone(), config.bpffs.clone());
    datapath.limits = config.limits;
    datapath.allow_root = config.allow_root_cgroup;
    // What an earlier life left is not read back here, so it must not be adopted.
    tombolo_ebpf::uninstall(&datapath.pins).context("removing what an earlier agent left")?;
    let attached = Datapath::open(&datapath).with_context(|| format!("attaching to {}", cgroup.display()))?;
    Ok((Box::new(attached), DatapathKind::Ebpf))
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
