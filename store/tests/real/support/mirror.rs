//! A consumer of a session that marks and sweeps.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tombolo_core::id::Epoch;
use tombolo_store::{SessionEvent, SessionSpec, session};

use super::DEADLINE;

pub(crate) struct Mirror {
    pub(crate) rx: Receiver<SessionEvent>,
    pub(crate) epoch: Epoch,
    pub(crate) state: BTreeMap<String, Bytes>,
    pub(crate) events: Vec<SessionEvent>,
    /// Every key that ended with its lease.
    pub(crate) expired: BTreeSet<String>,
    unmarked: BTreeSet<String>,
    _cancel: DropGuard,
}

impl Mirror {
    pub(crate) fn start(spec: SessionSpec) -> Self {
        let cancel = CancellationToken::new();
        let rx = session(spec, &TaskTracker::new(), cancel.clone());
        Self {
            rx,
            epoch: Epoch(0),
            state: BTreeMap::new(),
            events: Vec::new(),
            expired: BTreeSet::new(),
            unmarked: BTreeSet::new(),
            _cancel: cancel.drop_guard(),
        }
    }

    /// Takes events until this holds.
    pub(crate) async fn until(&mut self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        let taken = timeout(DEADLINE, async {
            while !done(self) {
                let event = self.rx.recv().await.expect("a session does not end by itself");
                self.take(event);
            }
        });
        if taken.await.is_err() {
            let last: Vec<_> = self.events.iter().rev().take(5).collect();
            panic!("not within {DEADLINE:?}: {what}; last events, backwards: {last:?}");
        }
    }

    pub(crate) async fn until_state(&mut self, expected: &BTreeMap<String, Bytes>) {
        self.until("the state", |m| m.state == *expected && m.unmarked.is_empty()).await;
    }

    fn take(&mut self, event: SessionEvent) {
        match &event {
            SessionEvent::Connected { epoch } => self.epoch = *epoch,
            SessionEvent::Relisting { .. } => self.unmarked = self.state.keys().cloned().collect(),
            SessionEvent::Delta { upserts, deletes, expired, .. } => {
                self.expired.extend(expired.iter().cloned());
                for key in deletes.iter().chain(expired) {
                    self.state.remove(key);
                }
                for (key, value) in upserts {
                    self.unmarked.remove(key);
                    self.state.insert(key.clone(), value.clone());
                }
            }
            SessionEvent::Listed { .. } => {
                for key in std::mem::take(&mut self.unmarked) {
                    self.state.remove(&key);
                }
            }
            _ => {}
        }
        if !matches!(event, SessionEvent::Delta { .. }) {
            self.events.push(event);
        }
    }
}

/// The first event that this picks something from.
pub(crate) async fn until_event<T>(rx: &mut Receiver<SessionEvent>, pick: impl Fn(SessionEvent) -> Option<T>) -> T {
    let picked = timeout(DEADLINE, async {
        loop {
            if let Some(found) = pick(rx.recv().await.expect("a session does not end by itself")) {
                return found;
            }
        }
    });
    picked.await.expect("the event comes in time")
}
