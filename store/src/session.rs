//! A session: prefixes of a store, listed and then followed, for as long as it is wanted.
//!
//! It connects, waits for the key that must exist first, waits for canaries, lists in pages at one revision and watches
//! from the next. Whatever goes wrong then has one path: say so ([`SessionEvent::Lost`]), wait with jitter, connect
//! again and list again. A consumer that marks at [`SessionEvent::Relisting`] and sweeps at [`SessionEvent::Listed`]
//! holds what the store holds.
//!
//! Left out: the meaning of keys and values, and every judgement about silence (`tombolo_core::hold`).

pub(crate) mod connection;
pub(crate) mod driver;
pub(crate) mod expiry;
pub(crate) mod fsm;
mod life;
#[cfg(test)]
mod tests;
mod track;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tombolo_core::id::{Epoch, Revision};
use tracing::{Instrument, info_span};

use crate::config::StoreConfig;
use crate::dial::DialError;

/// Events that may wait for a slow consumer; beyond them the session stops reading.
pub const QUEUE: usize = 64;

/// What to read.
#[derive(Clone, Debug)]
pub struct SessionSpec {
    /// Which store.
    pub store: StoreConfig,
    /// The key whose puts are [`SessionEvent::Heartbeat`]s.
    pub heartbeat: Option<String>,
    /// The key that must exist before anything of [`Self::watches`] is read: cluster-config.
    pub first: Option<String>,
    /// What to list and follow.
    pub watches: Vec<Watch>,
}

/// One prefix (ending in `/`), or one exact key (anything else), to list and follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watch {
    /// The prefix or key.
    pub prefix: String,
    /// The key that says the first complete set is written; reading starts when it exists. None: at once.
    pub canary: Option<String>,
}

/// What a session tells, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionEvent {
    /// The store answered. The epoch's number is larger than before iff this is another life of the store.
    Connected {
        /// The store's life.
        epoch: Epoch,
    },
    /// The first key exists, or its value changed. Told once more after each reconnect.
    Config {
        /// The key.
        key: String,
        /// Its value.
        value: Bytes,
    },
    /// A list of this watch begins: what is not upserted before [`SessionEvent::Listed`] is gone.
    Relisting {
        /// Index into [`SessionSpec::watches`].
        watch: usize,
        /// The store's life.
        epoch: Epoch,
    },
    /// A page of a list, or what one revision changed. Every key occurs at most once.
    Delta {
        /// Index into [`SessionSpec::watches`].
        watch: usize,
        /// The store's life.
        epoch: Epoch,
        /// The list's revision, or the one that changed these keys.
        revision: Revision,
        /// Keys with their values.
        upserts: Vec<(String, Bytes)>,
        /// Keys that somebody deleted.
        deletes: Vec<String>,
        /// Keys that ended with their lease: two or more of one lease at this revision. They are not in `deletes`.
        expired: Vec<String>,
    },
    /// The list of this watch is complete, and following begins.
    Listed {
        /// Index into [`SessionSpec::watches`].
        watch: usize,
        /// The store's life.
        epoch: Epoch,
        /// The list's revision.
        revision: Revision,
    },
    /// This watch's canary exists. Told once more after each reconnect.
    CanarySeen {
        /// Index into [`SessionSpec::watches`].
        watch: usize,
    },
    /// This watch's canary was deleted, or a reconnect did not find it again. The watch goes on where it was on.
    CanaryGone {
        /// Index into [`SessionSpec::watches`].
        watch: usize,
    },
    /// Somebody put the heartbeat key. One found by listing is no heartbeat.
    Heartbeat,
    /// The heartbeat key was deleted: its writer's lease ended.
    HeartbeatGone,
    /// The connection or its data is lost; the session connects again by itself.
    Lost {
        /// Why.
        reason: SessionError,
    },
}

/// Why a session lost its store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// No connection.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The store's users do not let our certificate do this; retried slowly.
    #[error("permission denied for {what:?}: the store's users and roles do not allow it to this certificate's CN")]
    PermissionDenied {
        /// The key, prefix or request.
        what: String,
    },
    /// The revision to go on from no longer exists.
    #[error("the store compacted the revision the session was at")]
    Compacted,
    /// The store ended a watch.
    #[error("the store cancelled a watch: {0}")]
    WatchCancelled(String),
    /// The watch stream ended.
    #[error("the store closed the watch stream")]
    WatchClosed,
    /// Another store answered on this connection.
    #[error("the store's cluster id changed within a connection")]
    OtherStore,
    /// The store's revision is lower than it was.
    #[error("the store's revision went back within a connection")]
    RevisionBack,
    /// No answer in time.
    #[error("the store did not answer in time")]
    TimedOut,
    /// Any other failure of a request, as the store or the transport says it.
    #[error("request failed: {0}")]
    Request(String),
}

/// Starts a session; it ends when `cancel` is cancelled or the receiver is dropped.
pub fn session(spec: SessionSpec, tasks: &TaskTracker, cancel: CancellationToken) -> mpsc::Receiver<SessionEvent> {
    let (tx, rx) = mpsc::channel(QUEUE);
    let span = info_span!("session", store = %spec.store.endpoints.join(","));
    tasks.spawn(
        async move {
            tokio::select! {
                () = cancel.cancelled() => {}
                () = driver::run(spec, tx) => {}
            }
        }
        .instrument(span),
    );
    rx
}
