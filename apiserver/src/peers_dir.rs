//! Reads the peers directory whenever something happens in it, and tells what its files say anew.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tombolo_core::id::ClusterName;
use tombolo_wire::etcd_config::TOMBSTONE;

use crate::clock;
use crate::mirror::files::{FileChange, Listing, PeerFiles};

/// How often the directory is read although the kernel says nothing: projected volumes swap links unseen.
const POLL: Duration = Duration::from_secs(1);
/// Files beyond this are no client configurations.
const MAX_FILE: u64 = 1 << 20;

/// One reading of the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeersNews {
    /// What is new.
    pub changes: Vec<FileChange>,
    /// All that is wrong, by file name.
    pub faults: BTreeMap<String, String>,
    /// Whether the directory could be listed. Until it could, nobody knows who is a peer.
    pub listed: bool,
}

/// Follows the directory until `news` is closed; `files` knows nothing of it yet. The first reading is told even when it
/// says nothing.
pub async fn run(dir: PathBuf, mut files: PeerFiles, news: mpsc::Sender<PeersNews>) {
    let mut told: Option<(BTreeMap<String, String>, bool)> = None;
    let (signal, mut signals) = mpsc::channel(1);
    let mut watcher: Option<RecommendedWatcher> = None;
    loop {
        if watcher.is_none() {
            watcher = watch(&dir, signal.clone()).ok();
        }
        let listing = list(&dir).map_err(|e| format!("{}: {e}", dir.display()));
        if listing.is_err() {
            watcher = None;
        }
        let changes = files.on(listing.as_ref().map_err(String::as_str), clock::now());
        let (faults, listed) = (files.faults().clone(), files.is_listed());
        let state = Some((faults.clone(), listed));
        if !changes.is_empty() || told != state {
            told = state;
            if news.send(PeersNews { changes, faults, listed }).await.is_err() {
                return;
            }
        }
        tokio::select! {
            () = news.closed() => return,
            _ = signals.recv() => {}
            () = tokio::time::sleep(POLL) => {}
            () = clock::sleep_until(files.deadline()) => {}
        }
    }
}

/// The peers that the directory names now: what users must exist before anything is written.
pub fn configured(dir: &Path, own: &ClusterName) -> BTreeSet<ClusterName> {
    let listing = list(dir).unwrap_or_default();
    let changes = PeerFiles::new(own.clone(), []).on(Ok(&listing), clock::now());
    let names = changes.into_iter().filter_map(|change| match change {
        FileChange::Configured(name, _) => Some(name),
        FileChange::Suspended(..) | FileChange::Restored(_) | FileChange::Left(_) => None,
    });
    names.collect()
}

fn watch(dir: &Path, signal: mpsc::Sender<()>) -> notify::Result<RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let matters = event.is_err() || event.is_ok_and(|e| !e.kind.is_access() || e.kind.is_close_write());
        if matters {
            // One waiting signal stands for all: the whole directory is read.
            let _already_signalled = signal.try_send(());
        }
    })?;
    watcher.watch(dir, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

/// All entries of the directory that may be peers' files or tombstones.
pub(crate) fn list(dir: &Path) -> io::Result<Listing> {
    let mut listing = Listing::new();
    for entry in fs::read_dir(dir)? {
        let Ok(name) = entry?.file_name().into_string() else { continue };
        let path = dir.join(&name);
        if name.starts_with(TOMBSTONE) {
            listing.insert(name, Ok(String::new()));
        } else if !name.starts_with('.') && fs::metadata(&path).is_ok_and(|m| m.is_file() && m.len() <= MAX_FILE) {
            listing.insert(name, fs::read_to_string(&path).map_err(|e| e.to_string()));
        }
    }
    Ok(listing)
}

/// Whether the kernel says that a writer is done.
trait CloseWrite {
    fn is_close_write(&self) -> bool;
}

impl CloseWrite for notify::EventKind {
    fn is_close_write(&self) -> bool {
        use notify::event::{AccessKind, AccessMode};
        matches!(self, Self::Access(AccessKind::Close(AccessMode::Write)))
    }
}
