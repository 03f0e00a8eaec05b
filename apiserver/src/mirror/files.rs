//! The peers directory: which peers are configured, as its files say.
//!
//! One file per peer in Cilium's etcd client format, named like the peer; a file without the text `endpoints:` is none,
//! and the own name is ignored, so one directory may serve a whole mesh. A file that is gone or broken without a
//! tombstone is more often an accident than a decision: its peer stays for [`GONE_MS`], doubted, and then leaves. The
//! tombstone is an empty file `.disconnected-<peer>`, which `tombolo disconnect` writes before it removes the peer's
//! file, and `tombolo connect` removes: with it the peer leaves at once. A directory that cannot be listed says nothing
//! about its files: whoever is a peer stays one.
//!
//! Listings in, changes out; nothing is read here.

use std::collections::BTreeMap;

use tombolo_core::id::{ClusterName, Millis};
use tombolo_wire::etcd_config::{self, EtcdConfig, TOMBSTONE};

/// How long a peer stays whose file is gone or broken.
pub const GONE_MS: u64 = 60_000;
/// A file counts as gone or broken only after this long: it may be in the middle of being replaced.
pub const SETTLE_MS: u64 = 1_000;

/// All entries of the directory, by name: a file's text, or why it cannot be read.
pub type Listing = BTreeMap<String, Result<String, String>>;

/// What the directory says anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileChange {
    /// The peer is configured, anew or otherwise than before.
    Configured(ClusterName, EtcdConfig),
    /// Its file is gone or broken, for this reason; it stays for now.
    Suspended(ClusterName, String),
    /// Its file is back as it was.
    Restored(ClusterName),
    /// It is no longer a peer.
    Left(ClusterName),
}

/// The directory's state.
#[derive(Debug)]
pub struct PeerFiles {
    own: ClusterName,
    peers: BTreeMap<ClusterName, File>,
    faults: BTreeMap<String, String>,
    /// Whether the directory could be listed when it was looked at last.
    listed: bool,
}

#[derive(Debug)]
struct File {
    /// None: a peer of an earlier life whose file has not been seen in this one.
    config: Option<EtcdConfig>,
    standing: Standing,
}

#[derive(Debug, PartialEq, Eq)]
enum Standing {
    Present,
    /// Gone or broken since then, which may be the middle of a replacement.
    Unsettled(Millis),
    /// Gone or broken since then.
    Suspended(Millis),
}

impl PeerFiles {
    /// `own` is this cluster's name; `known` were peers in an earlier life of this program, and are missed if their
    /// files are.
    pub fn new(own: ClusterName, known: impl IntoIterator<Item = ClusterName>) -> Self {
        let missed = |peer| (peer, File { config: None, standing: Standing::Present });
        Self { own, peers: known.into_iter().map(missed).collect(), faults: BTreeMap::new(), listed: false }
    }

    /// Takes in the whole directory, or why it cannot be listed.
    pub fn on(&mut self, listing: Result<&Listing, &str>, now: Millis) -> Vec<FileChange> {
        let mut changes = Vec::new();
        self.faults.clear();
        self.listed = listing.is_ok();
        let listing = match listing {
            Ok(listing) => listing,
            Err(error) => {
                self.faults.insert("peers directory".to_owned(), error.to_owned());
                return changes;
            }
        };
        let mut good: BTreeMap<ClusterName, EtcdConfig> = BTreeMap::new();
        for (name, content) in listing.iter().filter(|(name, _)| !name.starts_with('.')) {
            match read(name, content) {
                Ok(Some((peer, config))) if peer != self.own => drop(good.insert(peer, config)),
                Ok(_) => {}
                Err(problem) => drop(self.faults.insert(name.clone(), problem)),
            }
        }
        self.missing(listing, &good, now, &mut changes);
        for (peer, config) in good {
            self.present(peer, config, &mut changes);
        }
        changes
    }

    /// When the directory must be looked at again although nothing happened there.
    pub fn deadline(&self) -> Option<Millis> {
        let deadline = |file: &File| match file.standing {
            Standing::Present => None,
            Standing::Unsettled(since) => Some(since.after(SETTLE_MS)),
            Standing::Suspended(since) => Some(since.after(GONE_MS)),
        };
        self.peers.values().filter(|_| self.listed).filter_map(deadline).min()
    }

    /// Whether the directory could be listed when it was looked at last.
    pub fn is_listed(&self) -> bool {
        self.listed
    }

    /// What is wrong, by file name.
    pub fn faults(&self) -> &BTreeMap<String, String> {
        &self.faults
    }

    fn present(&mut self, peer: ClusterName, config: EtcdConfig, changes: &mut Vec<FileChange>) {
        let before =
            self.peers.insert(peer.clone(), File { config: Some(config.clone()), standing: Standing::Present });
        match before {
            Some(file) if file.config.as_ref() == Some(&config) => {
                if matches!(file.standing, Standing::Suspended(_)) {
                    changes.push(FileChange::Restored(peer));
                }
            }
            Some(_) | None => changes.push(FileChange::Configured(peer, config)),
        }
    }

    fn missing(
        &mut self,
        listing: &Listing,
        good: &BTreeMap<ClusterName, EtcdConfig>,
        now: Millis,
        changes: &mut Vec<FileChange>,
    ) {
        let faults = &self.faults;
        self.peers.retain(|peer, file| {
            if good.contains_key(peer) {
                return true;
            }
            let gone = !listing.contains_key(peer.as_str());
            if gone && listing.contains_key(&format!("{TOMBSTONE}{peer}")) {
                changes.push(FileChange::Left(peer.clone()));
                return false;
            }
            match file.standing {
                Standing::Present => file.standing = Standing::Unsettled(now),
                Standing::Unsettled(since) if now >= since.after(SETTLE_MS) => {
                    file.standing = Standing::Suspended(since);
                    let why = faults.get(peer.as_str()).cloned().unwrap_or_else(|| "its file is gone".to_owned());
                    changes.push(FileChange::Suspended(peer.clone(), why));
                }
                Standing::Suspended(since) if now >= since.after(GONE_MS) => {
                    changes.push(FileChange::Left(peer.clone()));
                    return false;
                }
                Standing::Unsettled(_) | Standing::Suspended(_) => {}
            }
            true
        });
    }
}

fn read(name: &str, content: &Result<String, String>) -> Result<Option<(ClusterName, EtcdConfig)>, String> {
    let text = content.as_ref().map_err(Clone::clone)?;
    let Some(config) = etcd_config::parse(text).map_err(|e| e.to_string())? else { return Ok(None) };
    let peer = ClusterName::new(name).map_err(|e| e.to_string())?;
    Ok(Some((peer, config)))
}

#[cfg(test)]
mod tests;
