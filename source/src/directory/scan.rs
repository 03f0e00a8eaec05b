//! The looking: metadata, contents, and the kernel's events.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::{fs, io};

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tombolo_core::object::SourceEvent;

use super::{DirectoryState, FileLook, GRACE, Look};

/// Files beyond this are no manifests.
const MAX_FILE: u64 = 256 << 20;

/// What an event says should be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    File(String),
    All,
}

/// One look to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Job {
    /// These files have new content, or are gone.
    Files(BTreeSet<String>),
    /// These files were gone or empty, and still count as such if they are now.
    Doubts(BTreeSet<String>),
    /// Everything, by its metadata.
    All,
}

impl Job {
    /// One job out of all signals that wait.
    pub(super) fn gather(first: Signal, signals: &mut mpsc::Receiver<Signal>) -> Self {
        let mut files = BTreeSet::new();
        let mut next = Some(first);
        while let Some(signal) = next {
            match signal {
                Signal::All => {
                    while signals.try_recv().is_ok() {}
                    return Self::All;
                }
                Signal::File(name) => files.insert(name),
            };
            next = signals.try_recv().ok();
        }
        Self::Files(files)
    }
}

/// What tells two versions of a file apart without reading them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    dev: u64,
    inode: u64,
    len: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn of(metadata: &fs::Metadata) -> Self {
        Self {
            dev: metadata.dev(),
            inode: metadata.ino(),
            len: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

pub(super) struct Scanner {
    path: PathBuf,
    signal: mpsc::Sender<Signal>,
    /// The watcher with the device and inode it watches.
    watcher: Option<(RecommendedWatcher, (u64, u64))>,
    state: DirectoryState,
    /// The version of each file that was read last.
    read: BTreeMap<String, Stamp>,
    /// Versions that a rescan met, and that no event announced: read when the next rescan meets them again.
    unsettled: BTreeMap<String, Stamp>,
    /// Files that were gone or empty, and when that counts.
    doubts: BTreeMap<String, Instant>,
    first: bool,
}

impl Scanner {
    pub(super) fn new(path: PathBuf, signal: mpsc::Sender<Signal>) -> Self {
        let state = DirectoryState::new(path.display().to_string());
        let (read, unsettled, doubts) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { path, signal, watcher: None, state, read, unsettled, doubts, first: true }
    }

    pub(super) fn is_watching(&self) -> bool {
        self.watcher.is_some()
    }

    /// When the next doubt is to be settled.
    pub(super) fn next_doubt(&self) -> Option<Instant> {
        self.doubts.values().min().copied()
    }

    /// What to do when no event came: the doubts that are due, or a rescan.
    pub(super) fn due(&self, now: Instant) -> Job {
        let due: BTreeSet<String> = self.doubts.iter().filter(|(_, at)| **at <= now).map(|(n, _)| n.clone()).collect();
        if due.is_empty() { Job::All } else { Job::Doubts(due) }
    }

    pub(super) fn look(&mut self, job: Job, now: Instant) -> Vec<SourceEvent> {
        let look = match job {
            Job::All => self.look_at_all(now),
            Job::Files(names) => Look::Files(self.look_at_files(names, Some(now))),
            Job::Doubts(names) if fs::metadata(&self.path).is_ok() => Look::Files(self.look_at_files(names, None)),
            Job::Doubts(_) => self.look_at_all(now),
        };
        self.state.apply(look)
    }

    fn look_at_all(&mut self, now: Instant) -> Look {
        if let Err(e) = self.ensure_watch() {
            self.watcher = None;
            self.doubts.clear();
            return Look::Unreadable(format!("the directory cannot be read: {e}"));
        }
        let present = match names(&self.path) {
            Ok(present) => present,
            Err(e) => return Look::Unreadable(format!("the directory cannot be read: {e}")),
        };
        let missing: Vec<String> = self.read.keys().filter(|name| !present.contains(*name)).cloned().collect();
        let mut looks = self.look_at_files(missing.into_iter().collect(), Some(now));
        for name in present {
            let look = self.look_by_stamp(&name, now);
            looks.insert(name, look);
        }
        looks.retain(|_, look| *look != FileLook::Gone);
        self.first = false;
        Look::All(looks)
    }

    /// Watches the directory, again if another one stands in its place.
    fn ensure_watch(&mut self) -> io::Result<()> {
        let metadata = fs::metadata(&self.path)?;
        if !metadata.is_dir() {
            return Err(io::Error::new(ErrorKind::NotADirectory, "it is no directory"));
        }
        let identity = (metadata.dev(), metadata.ino());
        if self.watcher.as_ref().is_some_and(|(_, watched)| *watched == identity) {
            return Ok(());
        }
        self.watcher = match watch(&self.path, self.signal.clone()) {
            Ok(watcher) => Some((watcher, identity)),
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "no change events: rescanning instead");
                None
            }
        };
        Ok(())
    }

    /// Reads a file whose metadata changed, once the change has settled.
    fn look_by_stamp(&mut self, name: &str, now: Instant) -> FileLook {
        let Ok(metadata) = fs::metadata(self.path.join(name)) else {
            return self.look_at_file(name, Some(now));
        };
        let stamp = Stamp::of(&metadata);
        if self.read.get(name) == Some(&stamp) {
            self.unsettled.remove(name);
            return FileLook::Unchanged;
        }
        // Links are replaced as a whole; a regular file may be in the middle of being written.
        let whole = self.first || fs::symlink_metadata(self.path.join(name)).is_ok_and(|m| m.is_symlink());
        if whole || self.unsettled.get(name) == Some(&stamp) {
            return self.look_at_file(name, Some(now));
        }
        self.unsettled.insert(name.to_owned(), stamp);
        FileLook::Unchanged
    }

    fn look_at_files(&mut self, names: BTreeSet<String>, grace_from: Option<Instant>) -> BTreeMap<String, FileLook> {
        names.into_iter().map(|name| (name.clone(), self.look_at_file(&name, grace_from))).collect()
    }

    /// Reads one file. With `grace_from`, one that is gone or empty is only doubted.
    fn look_at_file(&mut self, name: &str, grace_from: Option<Instant>) -> FileLook {
        self.unsettled.remove(name);
        let outcome = read(&self.path.join(name));
        let suspect = match &outcome {
            Err(e) => e.kind() == ErrorKind::NotFound,
            Ok((_, bytes)) => bytes.is_empty(),
        };
        if let Some(now) = grace_from.filter(|_| suspect && self.read.contains_key(name)) {
            self.doubts.entry(name.to_owned()).or_insert(now + GRACE);
            return FileLook::Unchanged;
        }
        self.doubts.remove(name);
        match outcome {
            Ok((stamp, bytes)) => {
                self.read.insert(name.to_owned(), stamp);
                match String::from_utf8(bytes) {
                    Ok(text) => FileLook::Text(text),
                    Err(e) => FileLook::Unreadable(format!("not UTF-8 at byte {}", e.utf8_error().valid_up_to())),
                }
            }
            Err(e) if e.kind() == ErrorKind::NotFound => {
                self.read.remove(name);
                FileLook::Gone
            }
            Err(e) => FileLook::Unreadable(e.to_string()),
        }
    }
}

/// The names of the manifests in a directory: `.yaml`, `.yml` and `.json`, not hidden, files or links to files.
fn names(path: &Path) -> io::Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(path)? {
        let Ok(name) = entry?.file_name().into_string() else { continue };
        if is_manifest(&name) && fs::metadata(path.join(&name)).is_ok_and(|m| m.is_file()) {
            found.insert(name);
        }
    }
    Ok(found)
}

fn is_manifest(name: &str) -> bool {
    !name.starts_with('.') && [".yaml", ".yml", ".json"].iter().any(|end| name.ends_with(end))
}

fn read(path: &Path) -> io::Result<(Stamp, Vec<u8>)> {
    let file = fs::File::open(path)?;
    let metadata = file.metadata()?;
    if metadata.len() > MAX_FILE {
        return Err(io::Error::new(ErrorKind::FileTooLarge, format!("larger than {} MiB", MAX_FILE >> 20)));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0) + 1);
    file.take(MAX_FILE).read_to_end(&mut bytes)?;
    Ok((Stamp::of(&metadata), bytes))
}

fn watch(path: &Path, signal: mpsc::Sender<Signal>) -> notify::Result<RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        for signal_out in signals_of(event) {
            // The receiver is gone only when the source has ended.
            let _ended = signal.blocking_send(signal_out);
        }
    })?;
    watcher.watch(path, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

fn signals_of(event: notify::Result<notify::Event>) -> Vec<Signal> {
    let Ok(event) = event else { return vec![Signal::All] };
    if event.need_rescan() {
        return vec![Signal::All];
    }
    let counts = |path: &Path| match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write))
        | EventKind::Modify(ModifyKind::Name(_))
        | EventKind::Remove(_) => true,
        // A new regular file is announced again when its writer closes it; a link is complete at once.
        EventKind::Create(_) => fs::symlink_metadata(path).is_ok_and(|m| m.is_symlink() || m.nlink() > 1),
        _ => false,
    };
    event.paths.iter().filter(|path| counts(path)).filter_map(|path| signal_of(path)).collect()
}

/// `..data` of a mounted ConfigMap, or the directory itself, concerns everything in it.
fn signal_of(path: &Path) -> Option<Signal> {
    let name = path.file_name()?.to_str()?;
    if is_manifest(name) {
        return Some(Signal::File(name.to_owned()));
    }
    name.starts_with("..").then_some(Signal::All)
}
