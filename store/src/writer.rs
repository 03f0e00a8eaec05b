//! A writer: a set of keys kept in a store as it should be.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tombolo_core::id::{Epoch, Revision};

use crate::config::StoreConfig;
use crate::session::SessionError;

/// A set of keys that is completed as one: a prefix, or one peer's part of a prefix.
pub type Scope = String;

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
    status: watch::Sender<WriterStatus>,
}

impl Writer {
    /// Starts a writer; it ends when `cancel` is cancelled, leaving its keys to their leases.
    pub fn start(spec: WriterSpec, tasks: &TaskTracker, cancel: CancellationToken) -> Self {
        let _ = (spec, tasks, cancel);
        Self { status: watch::Sender::default() }
    }

    /// This key should have this value from now on.
    pub fn put(&self, key: impl Into<String>, value: impl Into<Bytes>) {
        let _ = (key.into(), value.into());
    }

    /// This key should not exist from now on.
    pub fn delete(&self, key: impl Into<String>) {
        let _ = key.into();
    }

    /// The first complete set of the scope was handed over: its surplus is deleted and then the canary written.
    pub fn complete(&self, scope: impl Into<Scope>, canary: Option<(String, Bytes)>) {
        let _ = (scope.into(), canary);
    }

    /// Nothing of the scope should exist from now on: its canary is deleted first, then its keys.
    pub fn retire(&self, scope: &str) {
        let _ = scope;
    }

    /// Where it stands now.
    pub fn status(&self) -> WriterStatus {
        self.status.borrow().clone()
    }

    /// Follows where it stands.
    pub fn subscribe(&self) -> watch::Receiver<WriterStatus> {
        self.status.subscribe()
    }
}
