//! Keys to look at, in the order they were asked for, and which scopes they keep open.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::Scope;
use super::work::Key;

/// A key is in it at most once. A scope is open from a key's way in until [`Queue::close`] ends what became of it.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    order: VecDeque<Key>,
    /// What is in the queue, and the scope that each is counted open in.
    scopes: BTreeMap<Key, Option<Scope>>,
    open: BTreeMap<Scope, usize>,
}

impl Queue {
    pub(crate) fn len(&self) -> usize {
        self.order.len()
    }

    pub(crate) fn contains(&self, key: &Key) -> bool {
        self.scopes.contains_key(key)
    }

    /// No key of the scope is queued or under way.
    pub(crate) fn is_closed(&self, scope: &str) -> bool {
        !self.open.contains_key(scope)
    }

    /// To the end; the key must not be in the queue.
    pub(crate) fn push(&mut self, key: Key, scope: Option<Scope>) {
        if let Some(scope) = &scope {
            *self.open.entry(scope.clone()).or_default() += 1;
        }
        self.scopes.insert(Arc::clone(&key), scope);
        self.order.push_back(key);
    }

    /// The first key, to look at: then [`Self::take`] or [`Self::put_back`] it.
    pub(crate) fn pop(&mut self) -> Option<Key> {
        self.order.pop_front()
    }

    /// Keys that were popped and stay, in their order.
    pub(crate) fn put_back(&mut self, keys: Vec<Key>) {
        for key in keys.into_iter().rev() {
            self.order.push_front(key);
        }
    }

    /// A popped key leaves; its scope stays open until [`Self::close`].
    pub(crate) fn take(&mut self, key: &Key) -> Option<Scope> {
        self.scopes.remove(key).flatten()
    }

    /// A taken key comes back, before all others.
    pub(crate) fn back_to_front(&mut self, key: Key, scope: Option<Scope>) {
        if self.contains(&key) {
            return self.close(scope);
        }
        self.scopes.insert(Arc::clone(&key), scope);
        self.order.push_front(key);
    }

    /// What was taken with this scope is settled.
    pub(crate) fn close(&mut self, scope: Option<Scope>) {
        let Some(scope) = scope else { return };
        if let Some(count) = self.open.get_mut(&scope) {
            *count -= 1;
            if *count == 0 {
                self.open.remove(&scope);
            }
        }
    }

    /// A key that is in the queue no longer counts for its scope.
    pub(crate) fn uncount(&mut self, key: &Key) {
        let scope = self.scopes.get_mut(key).and_then(Option::take);
        self.close(scope);
    }
}
