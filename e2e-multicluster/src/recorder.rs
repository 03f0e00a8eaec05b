//! Who writes down all that happens to a prefix of a store, so that a test can say what must not have happened.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use parking_lot::Mutex;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tombolo_certs::{Role, TlsFiles};
use tombolo_store::{SessionEvent, SessionSpec, StoreConfig, Watch, session};

use crate::clock::{Seen, wait_until};
use crate::cluster::Cluster;
use crate::netns;

/// How long a store may take to answer at first.
const SOON: Duration = Duration::from_secs(30);

/// A watcher of one prefix. Dropping it ends the watch.
#[derive(Debug)]
pub struct Recorder {
    seen: Arc<Mutex<Book>>,
    cancel: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

/// What was seen.
#[derive(Clone, Debug, Default)]
struct Book {
    listed: bool,
    /// While a list is read: what it has not named yet, of what there was.
    unnamed: BTreeSet<String>,
    /// Every key with the backends of its record.
    keys: BTreeMap<String, Backends>,
    /// Since the last mark: keys that went, by whatever cause, however soon they returned.
    gone: Vec<String>,
    /// Since the last mark: the fewest backends that a record had.
    fewest: BTreeMap<String, usize>,
}

/// The addresses of a record's backends; empty for a record of another kind.
pub type Backends = BTreeSet<String>;

/// What must not have happened, since a mark.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Keys that went, however soon they returned.
    pub gone: Vec<String>,
    /// The fewest backends that each record had that was written or was there.
    pub fewest: BTreeMap<String, usize>,
}

impl Recorder {
    /// Watches a prefix of a cluster's own store as its administrator, from now on.
    ///
    /// # Errors
    /// The store does not answer.
    pub fn start(cluster: &Cluster, prefix: &str) -> Result<Self> {
        let tls = TlsFiles::of(&cluster.dir.join("tls"), Role::Admin);
        let store = StoreConfig { endpoints: vec![cluster.etcd.url()], tls, host_aliases: BTreeMap::new() };
        let watches = vec![Watch { prefix: prefix.to_owned(), canary: None }];
        let spec = SessionSpec { store, heartbeat: None, first: None, watches };
        let (seen, cancel) = (Arc::<Mutex<Book>>::default(), CancellationToken::new());
        let (book, told, netns) = (Arc::clone(&seen), cancel.clone(), cluster.site.control.netns.clone());
        let thread = std::thread::Builder::new().name("recorder".to_owned()).spawn(move || {
            // It ends when it is told to; whoever waits for something sees that nothing comes.
            let _ = netns::block_on(&netns, async {
                let tasks = TaskTracker::new();
                let mut events = session(spec, &tasks, told.clone());
                while let Some(event) = events.recv().await {
                    book.lock().note(event);
                }
                Ok(())
            });
        })?;
        let recorder = Self { seen, cancel, thread: Some(thread) };
        wait_until("the recorder to have listed the store", SOON, || {
            let listed = recorder.seen.lock().listed;
            Ok(if listed { Seen::Ready(()) } else { Seen::NotYet("not yet".to_owned()) })
        })?;
        Ok(recorder)
    }

    /// The backends of a record; nothing when there is none.
    pub fn backends(&self, key: &str) -> Option<Backends> {
        self.seen.lock().keys.get(key).cloned()
    }

    /// All keys.
    pub fn keys(&self) -> BTreeSet<String> {
        self.seen.lock().keys.keys().cloned().collect()
    }

    /// Waits until a record has exactly these backends.
    ///
    /// # Errors
    /// It has not within that time.
    pub fn wait_backends(&self, key: &str, wanted: &Backends, within: Duration) -> Result<()> {
        wait_until(&format!("{key} in the store"), within, || {
            Ok(match self.backends(key) {
                Some(found) if found == *wanted => Seen::Ready(()),
                other => Seen::NotYet(format!("{other:?}, not {wanted:?}")),
            })
        })
    }

    /// From now on counts.
    pub fn mark(&self) {
        let mut seen = self.seen.lock();
        seen.gone.clear();
        seen.fewest = seen.keys.iter().map(|(key, backends)| (key.clone(), backends.len())).collect();
    }

    /// What was lost since the mark.
    pub fn losses(&self) -> Losses {
        let seen = self.seen.lock();
        Losses { gone: seen.gone.clone(), fewest: seen.fewest.clone() }
    }

    /// Checks that no key whose name has `part` went since the mark, and that none of them was ever with fewer backends.
    ///
    /// # Errors
    /// One did.
    pub fn nothing_lost(&self, part: &str, fewest: usize) -> Result<()> {
        let Losses { gone, fewest: counts } = self.losses();
        let gone: Vec<_> = gone.into_iter().filter(|key| key.contains(part)).collect();
        ensure!(gone.is_empty(), "{} keys were deleted, of {part}: {:?}", gone.len(), gone.first());
        let services: Vec<_> =
            counts.iter().filter(|(key, _)| key.contains("/services/") && key.contains(part)).collect();
        ensure!(!services.is_empty(), "no service of {part} is in the store");
        let thin = services.iter().find(|(_, count)| **count < fewest);
        thin.map_or(Ok(()), |(key, count)| Err(anyhow::anyhow!("{key} had {count} backends, expected {fewest} always")))
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.cancel.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Book {
    fn note(&mut self, event: SessionEvent) {
        match event {
            SessionEvent::Relisting { .. } => self.unnamed = self.keys.keys().cloned().collect(),
            SessionEvent::Listed { .. } => {
                self.listed = true;
                for key in std::mem::take(&mut self.unnamed) {
                    self.keys.remove(&key);
                    self.gone.push(key);
                }
            }
            SessionEvent::Delta { upserts, deletes, expired, .. } => {
                for key in deletes.into_iter().chain(expired) {
                    self.keys.remove(&key);
                    self.gone.push(key);
                }
                for (key, value) in upserts {
                    self.unnamed.remove(&key);
                    let backends = backends_of(&value);
                    let fewest = self.fewest.entry(key.clone()).or_insert(backends.len());
                    *fewest = (*fewest).min(backends.len());
                    self.keys.insert(key, backends);
                }
            }
            _ => {}
        }
    }
}

/// The addresses that a service's record names.
fn backends_of(record: &[u8]) -> Backends {
    let record: Value = serde_json::from_slice(record).unwrap_or_default();
    record["backends"].as_object().map(|all| all.keys().cloned().collect()).unwrap_or_default()
}

/// The key of a service's record in its own cluster's store.
pub fn service_key(cluster: &str, namespace: &str, service: &str) -> String {
    format!("cilium/state/services/v1/{cluster}/{namespace}/{service}")
}

/// Waits until something holds of a recorder's keys.
///
/// # Errors
/// It does not within that time.
pub fn wait_keys(
    recorder: &Recorder,
    what: &str,
    within: Duration,
    holds: impl Fn(&BTreeSet<String>) -> bool,
) -> Result<()> {
    wait_until(what, within, || {
        let keys = recorder.keys();
        Ok(if holds(&keys) { Seen::Ready(()) } else { Seen::NotYet(format!("{} keys", keys.len())) })
    })
    .context("the store")
}
