//! A writer: a set of keys kept in a store as it should be.
//!
//! It lists and watches its own prefixes, so that it writes differences only, repairs what others changed or deleted,
//! and fills a store that was emptied. Keys live by leases and are deleted explicitly. A scope's canary is written when
//! nothing of the scope is pending, in a later transaction than the last of its keys.
//!
//! Left out: fencing of two writers on one store; both would repair each other's keys.

mod leases;
mod plan;
mod queue;
mod shell;
#[cfg(test)]
mod tests;
mod work;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tombolo_core::id::{Epoch, Revision};
use tracing::{Instrument, info_span};

use self::plan::Planner;
use crate::clock;
use crate::config::StoreConfig;
use crate::session::driver::Driver;
use crate::session::fsm::Plan;
use crate::session::{SessionError, Watch};

/// How long a key outlives its writer (Cilium's `--kvstore-lease-ttl`).
pub const LEASE_TTL: Duration = Duration::from_secs(15 * 60);

/// A set of keys that is completed as one: a prefix, or one peer's part of a prefix.
pub type Scope = String;

/// What becomes of keys that an earlier life of the writer left in a scope and that this one was not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Surplus {
    /// They go: what was not handed over does not exist.
    Deleted,
    /// They stay for now: part of what should be handed over cannot be read.
    Kept,
}

/// Which scope a key found in the store belongs to; keys of no scope are never deleted as surplus.
pub type ScopeOf = Arc<dyn Fn(&str) -> Option<Scope> + Send + Sync>;

/// A heartbeat: its key, and its value at a time in Unix milliseconds.
pub type Beat = (String, fn(u64) -> Bytes);

/// What to write, and where.
#[derive(Clone)]
pub struct WriterSpec {
    /// Which store.
    pub store: StoreConfig,
    /// Which scope a key belongs to.
    pub scope_of: ScopeOf,
    /// Prefixes (ending in `/`) and exact keys the writer owns; every key it is given must be in one of them.
    pub prefixes: Vec<String>,
    /// Heartbeat keys.
    pub heartbeats: Vec<Beat>,
    /// How often they are written.
    pub every: Duration,
    /// How long keys outlive the writer, in whole seconds; [`LEASE_TTL`] outside tests.
    pub lease_ttl: Duration,
}

/// Where a writer stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriterStatus {
    /// The store is connected and its content known.
    pub connected: bool,
    /// The store's life.
    pub epoch: Epoch,
    /// Keys not yet as they should be.
    pub pending: usize,
    /// The revision of the last write.
    pub revision: Revision,
    /// Why it is not connected.
    pub reason: Option<SessionError>,
}

/// A handle; the work is done by a task. Clones are the same writer.
#[derive(Clone)]
pub struct Writer {
    shared: Arc<Shared>,
}

struct Shared {
    planner: Mutex<Planner>,
    status: watch::Sender<WriterStatus>,
    ended: CancellationToken,
    wake: Notify,
}

impl Writer {
    /// Starts a writer; it ends when `cancel` is cancelled, leaving its keys to their leases.
    pub fn start(spec: WriterSpec, tasks: &TaskTracker, cancel: CancellationToken) -> Self {
        let WriterSpec { store, scope_of, prefixes, heartbeats, every, lease_ttl } = spec;
        let span = info_span!("writer", store = %store.endpoints.join(","));
        let watches = prefixes.iter().map(|prefix| Watch { prefix: prefix.clone(), canary: None }).collect();
        let driver = Driver::new(store, Plan { heartbeat: None, first: None, watches });
        let every_ms = u64::try_from(every.as_millis()).unwrap_or(u64::MAX);
        let planner = Mutex::new(Planner::new(scope_of, prefixes, heartbeats, every_ms));
        let shared = Arc::new(Shared {
            planner,
            status: watch::Sender::default(),
            ended: CancellationToken::new(),
            wake: Notify::new(),
        });
        let ttl_s = i64::try_from(lease_ttl.as_secs()).unwrap_or(i64::MAX).max(1);
        let ended = shared.ended.clone().drop_guard();
        let task = shell::run(Arc::clone(&shared), driver, ttl_s);
        tasks.spawn(
            async move {
                let _ended = ended;
                tokio::select! {
                    () = cancel.cancelled() => {}
                    () = task => {}
                }
            }
            .instrument(span),
        );
        Self { shared }
    }

    /// This key should have this value from now on.
    pub fn put(&self, key: impl AsRef<str>, value: impl Into<Bytes>) {
        self.change(|planner| planner.put(key.as_ref(), value.into(), clock::now()));
    }

    /// This key should not exist from now on.
    pub fn delete(&self, key: impl AsRef<str>) {
        self.change(|planner| planner.delete(key.as_ref()));
    }

    /// The first complete set of the scope was handed over: its surplus is dealt with and then the canary written.
    ///
    /// May be said again, as when surplus that was kept may go at last.
    pub fn complete(&self, scope: impl Into<Scope>, surplus: Surplus, canary: Option<(String, Bytes)>) {
        self.change(|planner| planner.complete(scope.into(), surplus, canary, clock::now()));
    }

    /// Nothing of the scope should exist from now on: its canary is deleted first, then its keys.
    pub fn retire(&self, scope: &str) {
        self.change(|planner| planner.retire(scope));
    }

    /// Where it stands now, with all changes handed over so far.
    pub fn status(&self) -> WriterStatus {
        self.shared.planner.lock().status()
    }

    /// Returns when its task has ended: it was cancelled, or it failed in a way that no retry mends.
    pub async fn ended(&self) {
        self.shared.ended.cancelled().await;
    }

    /// Follows where it stands.
    pub fn subscribe(&self) -> watch::Receiver<WriterStatus> {
        self.shared.status.subscribe()
    }

    fn change(&self, change: impl FnOnce(&mut Planner)) {
        change(&mut self.shared.planner.lock());
        self.shared.wake.notify_one();
    }
}
