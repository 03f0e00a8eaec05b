//! The writer without its IO: what should be, what the store holds, and the next thing to do about the difference.
//!
//! Keys that differ wait in one queue, in the order they were asked for, each at most once and with its latest value:
//! the queue is never longer than the set of keys. One transaction is under way at a time, so that order is kept. While
//! nothing is under way a key goes out at once; what comes meanwhile is the next batch (`batch`).

mod batch;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use tombolo_core::id::{Epoch, Millis, Revision};
use tracing::error;

use super::leases::{Group, Leases};
use super::queue::Queue;
use super::work::{Done, Key, Op, Work};
use super::{Beat, Scope, ScopeOf, Surplus, WriterStatus};
use crate::session::connection::{is_prefix, prefix_end};
use crate::session::fsm::{Command, Record};
use crate::session::{SessionError, SessionEvent};

pub(crate) use self::batch::TXN_OPS;

struct Desired {
    value: Bytes,
    canary_of: Option<Scope>,
}

/// What the store holds at a key; no value: we deleted it at that revision.
struct Known {
    value: Option<Bytes>,
    revision: i64,
    lease: i64,
}

#[derive(Default)]
struct ScopeState {
    complete: bool,
    canary: Option<Key>,
    /// Keys in the store that should not be.
    surplus: BTreeSet<Key>,
}

struct BeatState {
    key: String,
    make: fn(u64) -> Bytes,
    due: Millis,
}

/// See the module.
pub(crate) struct Planner {
    scope_of: ScopeOf,
    prefixes: Vec<String>,
    beats: Vec<BeatState>,
    every_ms: u64,
    desired: BTreeMap<Key, Desired>,
    /// How many keys each prefix should have.
    sizes: Vec<usize>,
    /// Every key that is or was a canary: deleting one is never overtaken.
    canaries: BTreeSet<Key>,
    known: BTreeMap<Key, Known>,
    scopes: BTreeMap<Scope, ScopeState>,
    queue: Queue,
    /// The transaction under way, with the scopes that it keeps open.
    flight: Vec<(Op, Option<Scope>)>,
    batch_max: usize,
    leases: Leases,
    listed: BTreeSet<usize>,
    epoch: Epoch,
    revision: Revision,
    reason: Option<SessionError>,
}

impl Planner {
    pub(crate) fn new(scope_of: ScopeOf, prefixes: Vec<String>, beats: Vec<Beat>, every_ms: u64) -> Self {
        let beats = beats.into_iter().map(|(key, make)| BeatState { key, make, due: Millis(0) }).collect();
        Self {
            scope_of,
            sizes: vec![0; prefixes.len().max(1)],
            canaries: BTreeSet::new(),
            prefixes,
            beats,
            every_ms,
            desired: BTreeMap::new(),
            known: BTreeMap::new(),
            scopes: BTreeMap::new(),
            queue: Queue::default(),
            flight: Vec::new(),
            batch_max: TXN_OPS,
            leases: Leases::default(),
            listed: BTreeSet::new(),
            epoch: Epoch(0),
            revision: Revision(0),
            reason: None,
        }
    }

    pub(crate) fn put(&mut self, key: &str, value: Bytes, now: Millis) {
        debug_assert!(self.prefixes.iter().any(|p| covers(p, key)), "{key} is in none of the writer's prefixes");
        let key = self.intern(key);
        let canary_of = self.desired.get(&key).and_then(|d| d.canary_of.clone());
        self.desire(&key, Desired { value, canary_of });
        self.settle_surplus(&key);
        self.reconsider(&key, now);
    }

    pub(crate) fn delete(&mut self, key: &str) {
        let key = self.intern(key);
        if let Some(Desired { canary_of: Some(scope), .. }) = self.undesire(&key)
            && let Some(state) = self.scopes.get_mut(&scope)
        {
            state.canary = None;
        }
        self.settle_surplus(&key);
        self.enqueue(key);
    }

    pub(crate) fn complete(&mut self, scope: Scope, surplus: Surplus, canary: Option<(String, Bytes)>, now: Millis) {
        let key = canary.as_ref().map(|(key, _)| self.intern(key));
        let state = self.scopes.entry(scope.clone()).or_default();
        state.complete = surplus == Surplus::Deleted;
        let old = std::mem::replace(&mut state.canary, key.clone());
        if surplus == Surplus::Deleted {
            self.delete_surplus(&scope);
        }
        if let Some(old) = old.filter(|old| Some(old) != key.as_ref()) {
            self.delete(&old);
        }
        if let (Some(key), Some((_, value))) = (key, canary) {
            self.canaries.insert(Arc::clone(&key));
            self.desire(&key, Desired { value, canary_of: Some(scope) });
            self.settle_surplus(&key);
            self.queue.uncount(&key);
            self.reconsider(&key, now);
        }
    }

    pub(crate) fn retire(&mut self, scope: &str) {
        let state = self.scopes.entry(scope.into()).or_default();
        state.complete = true;
        if let Some(canary) = state.canary.take() {
            self.delete(&canary);
        }
        let ours = |key: &&Key| (self.scope_of)(key).as_deref() == Some(scope);
        let keys: Vec<_> = self.desired.keys().filter(ours).cloned().collect();
        keys.into_iter().for_each(|key| self.delete(&key));
        self.delete_surplus(scope);
    }

    /// Takes what the session on the own prefixes tells.
    pub(crate) fn hear(&mut self, output: Command, now: Millis) {
        match output {
            Command::Emit(SessionEvent::Connected { epoch }) => self.connected(epoch, now),
            Command::Emit(SessionEvent::Relisting { watch, .. }) => self.relisting(watch),
            Command::Emit(SessionEvent::Listed { watch, .. }) => self.listed(watch, now),
            Command::Emit(SessionEvent::Lost { reason }) => self.lost(reason),
            Command::Records { upserts, deletes, expired, revision, .. } => {
                upserts.into_iter().for_each(|record| self.saw(record, now));
                deletes.iter().chain(&expired).for_each(|key| self.saw_delete(key, revision.0, now));
            }
            _ => {}
        }
    }

    /// The next thing to do, if it can be done now. `unix_ms` is for the heartbeats' values.
    pub(crate) fn next(&mut self, now: Millis, unix_ms: u64) -> Option<Work> {
        if !self.is_connected() {
            return None;
        }
        if let Some(id) = self.leases.want_renewal(now) {
            return Some(Work::Renew(id));
        }
        if let Some(group) = self.leases.want_grant() {
            return Some(Work::Grant(group));
        }
        if !self.flight.is_empty() {
            return None;
        }
        self.flight = self.batch(now, unix_ms);
        if self.flight.is_empty() {
            return self.leases.want_grant().map(Work::Grant);
        }
        Some(Work::Txn(self.flight.iter().map(|(op, _)| op.clone()).collect()))
    }

    /// Takes the answer to a [`Work`].
    pub(crate) fn done(&mut self, done: Done, now: Millis) {
        match done {
            Done::Written { revision } => self.written(revision, now),
            Done::LeaseGone => self.lease_gone(now),
            Done::Rejected { reason } => self.rejected(&reason),
            Done::Granted { id, group, ttl_s } => self.leases.granted(id, group, ttl_s, now),
            // The keys of a lease that is gone are deleted by the store, and the watch will say so.
            Done::Renewed { id, ttl_s } => self.leases.renewed(id, ttl_s, now),
        }
    }

    /// When [`Self::next`] may have something to do by itself.
    pub(crate) fn deadline(&self) -> Option<Millis> {
        if !self.is_connected() {
            return None;
        }
        let can_beat = self.flight.is_empty() && self.leases.any().is_some();
        let beat = self.beats.iter().map(|b| b.due).min().filter(|_| can_beat);
        beat.into_iter().chain(self.leases.deadline()).min()
    }

    pub(crate) fn status(&self) -> WriterStatus {
        WriterStatus {
            connected: self.is_connected(),
            epoch: self.epoch,
            pending: self.queue.len() + self.flight.iter().filter(|(op, _)| !self.is_beat(op.key())).count(),
            revision: self.revision,
            reason: self.reason.clone(),
        }
    }

    fn is_connected(&self) -> bool {
        self.reason.is_none() && self.epoch.0 > 0 && self.listed.len() == self.prefixes.len()
    }

    fn connected(&mut self, epoch: Epoch, now: Millis) {
        if epoch != self.epoch {
            self.leases.forget();
        }
        self.leases.reconnected(now);
        self.epoch = epoch;
        self.reason = None;
        for beat in &mut self.beats {
            beat.due = now;
        }
    }

    /// What was under way may or may not have happened: the next list will tell.
    fn lost(&mut self, reason: SessionError) {
        self.reason = Some(reason);
        self.listed.clear();
        self.requeue();
    }

    /// What was known of this prefix is forgotten: the list says all of it again.
    fn relisting(&mut self, watch: usize) {
        self.listed.remove(&watch);
        let prefix = self.prefixes[watch].clone();
        for key in keys_in(&self.known, &prefix) {
            self.known.remove(&key);
            self.settle_surplus(&key);
        }
    }

    fn listed(&mut self, watch: usize, now: Millis) {
        self.listed.insert(watch);
        let prefix = self.prefixes[watch].clone();
        for key in keys_in(&self.desired, &prefix) {
            self.reconsider(&key, now);
        }
        if self.is_connected() {
            self.recount_leases();
        }
    }

    fn saw(&mut self, record: Record, now: Millis) {
        let Record { key, value, revision, lease, .. } = record;
        if self.is_beat(&key) {
            return;
        }
        let key = self.intern(&key);
        if self.known.get(&key).is_none_or(|known| known.revision <= revision) {
            self.learn(&key, Known { value: Some(value), revision, lease });
            self.reconsider(&key, now);
        }
    }

    fn saw_delete(&mut self, key: &str, revision: i64, now: Millis) {
        let key = self.intern(key);
        if let Some(known) = self.known.get(&key)
            && known.revision <= revision
        {
            self.leases.count(known.lease, false);
            self.known.remove(&key);
            self.settle_surplus(&key);
            self.reconsider(&key, now);
        }
    }

    /// One allocation a key, shared by all maps.
    fn intern(&self, key: &str) -> Key {
        let desired = self.desired.get_key_value(key).map(|(key, _)| key);
        desired.or_else(|| self.known.get_key_value(key).map(|(key, _)| key)).cloned().unwrap_or_else(|| key.into())
    }

    fn learn(&mut self, key: &Key, known: Known) {
        self.leases.count(known.lease, true);
        if let Some(old) = self.known.insert(Arc::clone(key), known) {
            self.leases.count(old.lease, false);
        }
        self.settle_surplus(key);
    }

    fn recount_leases(&mut self) {
        self.leases.recount(self.known.values().map(|k| k.lease));
    }

    /// Keeps the index of surplus keys right after a change of what is desired or known.
    fn settle_surplus(&mut self, key: &Key) {
        let is_surplus = self.exists(key) && !self.desired.contains_key(key);
        if let Some(scope) = (self.scope_of)(key) {
            let state = self.scopes.entry(scope).or_default();
            if is_surplus {
                state.surplus.insert(Arc::clone(key));
            } else {
                state.surplus.remove(key);
            }
        }
    }

    /// What became another scope's since it was found, as peers come and go, waits for that one.
    fn delete_surplus(&mut self, scope: &str) {
        let surplus = self.scopes.get_mut(scope).map(|state| std::mem::take(&mut state.surplus)).unwrap_or_default();
        for key in surplus {
            self.settle_surplus(&key);
            if self.is_deletable(&key) {
                self.enqueue(key);
            }
        }
    }

    /// Surplus of a complete scope.
    fn is_deletable(&self, key: &Key) -> bool {
        let state = (self.scope_of)(key).and_then(|scope| self.scopes.get(&scope));
        state.is_some_and(|state| state.complete && state.surplus.contains(key))
    }

    fn desire(&mut self, key: &Key, desired: Desired) {
        if self.desired.insert(Arc::clone(key), desired).is_none() {
            let group = self.group(key);
            self.sizes[group] += 1;
        }
    }

    fn undesire(&mut self, key: &Key) -> Option<Desired> {
        let group = self.group(key);
        self.desired.remove(key).inspect(|_| self.sizes[group] -= 1)
    }

    /// The prefix that the key is in.
    fn group(&self, key: &str) -> Group {
        self.prefixes.iter().position(|prefix| covers(prefix, key)).unwrap_or(0)
    }

    fn exists(&self, key: &str) -> bool {
        self.known.get(key).is_some_and(|known| known.value.is_some())
    }

    /// Queues the key if the store differs from what should be. What an earlier life of this writer left, and nobody has
    /// judged yet, keeps its lease: agents may live on it for as long as its scope takes to be complete.
    fn reconsider(&mut self, key: &Key, now: Millis) {
        let group = self.group(key);
        let differs = match self.desired.get(key) {
            Some(desired) => {
                let known = self.known.get(key).filter(|known| known.value.as_ref() == Some(&desired.value));
                known.is_none_or(|known| !self.leases.keeps(known.lease, group, now)) || self.is_under_way(key)
            }
            None => {
                let deletable = self.is_deletable(key);
                if let Some(lease) = self.known.get(key).map(|known| known.lease).filter(|_| !deletable) {
                    self.leases.keeps(lease, group, now);
                }
                deletable
            }
        };
        if differs {
            self.enqueue(Arc::clone(key));
        }
    }

    fn is_under_way(&self, key: &Key) -> bool {
        self.flight.iter().any(|(op, _)| op.key() == key)
    }

    fn is_beat(&self, key: &str) -> bool {
        self.beats.iter().any(|beat| beat.key == key)
    }

    fn enqueue(&mut self, key: Key) {
        if !self.queue.contains(&key) {
            // A canary is no part of what it speaks for.
            let is_canary = self.desired.get(&key).is_some_and(|d| d.canary_of.is_some());
            let scope = if is_canary { None } else { (self.scope_of)(&key) };
            self.queue.push(key, scope);
        }
    }

    fn written(&mut self, revision: i64, now: Millis) {
        self.revision = Revision(revision);
        self.batch_max = (self.batch_max * 2).min(TXN_OPS);
        for (op, scope) in std::mem::take(&mut self.flight) {
            let key = Arc::clone(op.key());
            if let Some(beat) = self.beats.iter_mut().find(|b| *b.key == *key) {
                beat.due = now.after(self.every_ms);
                continue;
            }
            self.queue.close(scope);
            let (value, lease) = match op {
                Op::Put { value, lease, .. } => (Some(value), lease),
                Op::Delete { .. } => (None, 0),
            };
            self.leases.count(lease, false);
            if self.known.get(&key).is_none_or(|known| known.revision < revision) {
                self.learn(&key, Known { value, revision, lease });
            }
            self.reconsider(&key, now);
        }
    }

    /// Which of the leases is gone is not said: all of this transaction are given up, and their keys move.
    fn lease_gone(&mut self, now: Millis) {
        let leases: BTreeSet<i64> = self.flight.iter().filter_map(|(op, _)| op.lease()).collect();
        leases.iter().for_each(|id| self.leases.lost(*id));
        self.requeue();
        let moved = self.known.iter().filter(|(_, known)| leases.contains(&known.lease));
        let moved: Vec<Key> = moved.map(|(key, _)| Arc::clone(key)).collect();
        moved.iter().for_each(|key| self.reconsider(key, now));
    }

    /// Halves the batch until the culprit is alone; a key that the store never takes must not stop the others.
    fn rejected(&mut self, reason: &str) {
        if self.flight.len() > 1 {
            self.batch_max = self.flight.len() / 2;
            return self.requeue();
        }
        for (op, scope) in std::mem::take(&mut self.flight) {
            error!(key = %op.key(), reason, "the store does not take this key");
            self.release(&op);
            self.queue.close(scope);
            if let Some(beat) = self.beats.iter_mut().find(|b| *b.key == **op.key()) {
                beat.due = beat.due.after(self.every_ms);
            }
        }
    }

    /// Back to the head of the queue, in the same order.
    fn requeue(&mut self) {
        for (op, scope) in std::mem::take(&mut self.flight).into_iter().rev() {
            self.release(&op);
            let key = Arc::clone(op.key());
            if !self.is_beat(&key) {
                self.queue.back_to_front(key, scope);
            }
        }
    }

    /// Gives back the place that a put took in its lease.
    fn release(&mut self, op: &Op) {
        self.leases.count(op.lease().unwrap_or(0), false);
    }
}

fn covers(prefix: &str, key: &str) -> bool {
    if is_prefix(prefix) { key.starts_with(prefix) } else { key == prefix }
}

fn keys_in<V>(map: &BTreeMap<Key, V>, prefix: &str) -> Vec<Key> {
    if !is_prefix(prefix) {
        return map.get_key_value(prefix).map(|(key, _)| Arc::clone(key)).into_iter().collect();
    }
    let end = prefix_end(prefix);
    let range = (Bound::Included(prefix), Bound::Excluded(end.as_str()));
    map.range::<str, _>(range).map(|(key, _)| Arc::clone(key)).collect()
}
