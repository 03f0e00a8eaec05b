//! What goes into one transaction.
//!
//! Of keys that live by one lease at most one is deleted in it: a reader takes two that go at one revision for expired.
//! The others are left behind for the next one. Deletes of other keys may pass them, puts may not, and nothing passes
//! the delete of a canary.

use std::collections::BTreeSet;
use std::sync::Arc;

use tombolo_core::id::Millis;

use super::{BeatState, Planner};
use crate::writer::Scope;
use crate::writer::leases::Group;
use crate::writer::work::{Key, Op};

/// Operations a transaction, at most (etcd's default `--max-txn-ops`).
pub(crate) const TXN_OPS: usize = 128;
/// Bytes a transaction, about: etcd refuses requests over 1.5 MiB.
const TXN_BYTES: usize = 1 << 20;
/// Keys a transaction leaves behind, at most, before it goes out as it is.
const LEFT_MAX: usize = 4 * TXN_OPS;

/// A transaction in the making.
#[derive(Default)]
struct Batch {
    ops: Vec<(Op, Option<Scope>)>,
    bytes: usize,
    /// Leases that a key is deleted of.
    ending: BTreeSet<i64>,
    /// Keys that were looked at and stay in the queue.
    left: Vec<Key>,
    /// One of them is to be deleted: what is put after it waits.
    left_delete: bool,
    /// A lease is missing.
    short: bool,
}

/// No lease has room; one must be granted first.
struct NoLease;

impl Planner {
    /// Takes from the queue what fits in one transaction.
    pub(super) fn batch(&mut self, now: Millis, unix_ms: u64) -> Vec<(Op, Option<Scope>)> {
        let mut batch = Batch { ops: self.due_beats(now, unix_ms), ..Batch::default() };
        while batch.ops.len() < self.batch_max && batch.bytes < TXN_BYTES && batch.left.len() < LEFT_MAX {
            let Some(key) = self.queue.pop() else { break };
            if self.waits(&key) {
                batch.left.push(key);
            } else if !self.add(&mut batch, key, now) {
                break;
            }
        }
        // Keys that needed nothing after all may have been the last that a canary waited for.
        let freed = batch.ops.is_empty() && !batch.short && batch.left.iter().any(|key| !self.waits(key));
        self.queue.put_back(batch.left);
        if freed { self.batch(now, unix_ms) } else { batch.ops }
    }

    /// Looks at one key; false when nothing after it may go into this transaction.
    fn add(&mut self, batch: &mut Batch, key: Key, now: Millis) -> bool {
        if self.desired.contains_key(&key) {
            if batch.left_delete {
                batch.left.push(key);
                return false;
            }
        } else if !self.may_end(batch, &key) {
            batch.left_delete = true;
            let fence = self.canaries.contains(&key);
            batch.left.push(key);
            return !fence;
        }
        match self.op(&key, now) {
            Ok(Some(op)) => {
                batch.bytes += op.size();
                batch.ops.push((op, self.queue.take(&key)));
            }
            Ok(None) => {
                let scope = self.queue.take(&key);
                self.queue.close(scope);
            }
            Err(NoLease) => {
                batch.short = true;
                batch.left.push(key);
                return false;
            }
        }
        true
    }

    /// Whether this transaction may delete the key, as the first of its lease.
    fn may_end(&self, batch: &mut Batch, key: &Key) -> bool {
        let lease = self.known.get(key).filter(|known| known.value.is_some()).map_or(0, |known| known.lease);
        lease == 0 || batch.ending.insert(lease)
    }

    fn due_beats(&mut self, now: Millis, unix_ms: u64) -> Vec<(Op, Option<Scope>)> {
        let due = || self.beats.iter().filter(|beat| beat.due <= now);
        if let Some(lease) = self.leases.any() {
            return due().map(|beat| (beat.op(lease, unix_ms), None)).collect();
        }
        if let Some(beat) = due().next() {
            let group: Group = self.group(&beat.key);
            self.leases.want(group);
        }
        Vec::new()
    }

    /// A canary waits until nothing of its scope is queued or under way.
    fn waits(&self, key: &Key) -> bool {
        let scope = self.desired.get(key).and_then(|d| d.canary_of.as_ref());
        scope.is_some_and(|scope| !self.queue.is_closed(scope))
    }

    fn op(&mut self, key: &Key, now: Millis) -> Result<Option<Op>, NoLease> {
        let group = self.group(key);
        let Some(desired) = self.desired.get(key) else {
            return Ok(self.exists(key).then(|| Op::Delete { key: Arc::clone(key) }));
        };
        let known = self.known.get(key);
        let current = known.map_or(0, |known| known.lease);
        let same = known.is_some_and(|known| known.value.as_ref() == Some(&desired.value));
        if same && self.leases.keeps(current, group, now) {
            return Ok(None);
        }
        let lease = self.leases.take(current, group, self.sizes[group]).ok_or(NoLease)?;
        Ok(Some(Op::Put { key: Arc::clone(key), value: desired.value.clone(), lease }))
    }
}

impl BeatState {
    fn op(&self, lease: i64, unix_ms: u64) -> Op {
        Op::Put { key: self.key.as_str().into(), value: (self.make)(unix_ms), lease }
    }
}
