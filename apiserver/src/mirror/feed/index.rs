//! Which services the held records belong to, and the guard that stands behind them.

use std::collections::{BTreeMap, BTreeSet};

use smol_str::SmolStr;
use tombolo_core::hold::guard::{Cause, Ghost, Guard, Sweep, Turn};
use tombolo_core::hold::{Change, Doubt, Standing};
use tombolo_core::id::{Millis, ServiceKey};
use tombolo_core::model::Endpoint;

use super::{Dirty, Share};
use crate::mirror::track::Changes;

/// The held view of services, by service.
#[derive(Debug, Default)]
pub(super) struct Index {
    by_service: BTreeMap<ServiceKey, BTreeSet<String>>,
    of_key: BTreeMap<String, (Share, Standing)>,
    endpoints: usize,
    guard: Guard,
}

impl Index {
    /// Keeps in step with what changed, and tells the guard.
    pub(super) fn take(&mut self, changes: Changes<Share>, cause: Cause, dirty: &mut Dirty, now: Millis) {
        for change in changes {
            let (key, after) = match change {
                Change::Put(key, share, standing) => (key, Some((share, standing))),
                Change::Remove(key) => (key, None),
            };
            let before = self.of_key.remove(&key);
            let expired = matches!(before, Some((_, Standing::Doubtful(Doubt::Expiry))));
            let cause = if expired { Cause::Decided } else { cause };
            let (from, to) = (before.as_ref().map(|(share, _)| share), after.as_ref().map(|(share, _)| share));
            self.turn(from, to, cause, now);
            if let Some(from) = from {
                self.endpoints -= from.slice.endpoints.len();
                if to.is_none_or(|to| to.service != from.service) {
                    self.unlink(&key, &from.service);
                }
                dirty.insert(from.service.clone());
            }
            if let Some(held) = after {
                self.endpoints += held.0.slice.endpoints.len();
                self.by_service.entry(held.0.service.clone()).or_default().insert(key.clone());
                dirty.insert(held.0.service.clone());
                self.of_key.insert(key, held);
            }
        }
    }

    /// Judges what went, at the end of a batch or in time. Says what swept it away, if that is news.
    pub(super) fn judge(&mut self, dirty: &mut Dirty, now: Millis) -> Option<Sweep> {
        let judgement = self.guard.judge(now);
        dirty.extend(judgement.services);
        judgement.sweep
    }

    /// What admission refuses now is no ghost any more.
    pub(super) fn refuse(&mut self, refused: impl Fn(&Endpoint) -> bool) {
        self.guard.refuse(refused);
    }

    /// When a ghost leaves.
    pub(super) fn deadline(&self) -> Option<Millis> {
        self.guard.deadline()
    }

    /// The last sweep, while it has ghosts, and how many these are.
    pub(super) fn guarded(&self) -> (Option<Sweep>, usize) {
        (self.guard.sweep(), self.guard.len())
    }

    /// All services that anything is held for, or was until it was swept away.
    pub(super) fn services(&self) -> impl Iterator<Item = &ServiceKey> {
        self.by_service.keys().chain(self.guard.haunted())
    }

    /// Whether anything is held for the service.
    pub(super) fn has(&self, service: &ServiceKey) -> bool {
        self.by_service.contains_key(service)
    }

    /// Services and endpoints held.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.by_service.len(), self.endpoints)
    }

    /// What is held for a service.
    pub(super) fn shares(&self, service: &ServiceKey) -> impl Iterator<Item = &(Share, Standing)> {
        let keys = self.by_service.get(service).into_iter().flatten();
        keys.filter_map(|key| self.of_key.get(key))
    }

    /// What was swept away of a service and is kept for a while.
    pub(super) fn ghosts(&self, service: &ServiceKey) -> impl Iterator<Item = &Ghost> {
        self.guard.ghosts(service)
    }

    fn turn(&mut self, before: Option<&Share>, after: Option<&Share>, cause: Cause, now: Millis) {
        let place = |share: &Share| (share.service.clone(), share.name.clone());
        let moves = before.map(place) != after.map(place);
        if let Some(before) = before {
            let after = after.filter(|_| !moves).map_or(&[][..], |share| &share.slice.endpoints);
            self.tell(before, (&before.slice.endpoints, after), cause, now);
        }
        if let Some(after) = after.filter(|_| before.is_none() || moves) {
            self.tell(after, (&[], &after.slice.endpoints), cause, now);
        }
    }

    fn tell(&mut self, share: &Share, (before, after): (&[Endpoint], &[Endpoint]), cause: Cause, now: Millis) {
        let slice: &SmolStr = &share.name;
        let turn = Turn { service: &share.service, slice, before, revision: share.revision, after, cause };
        self.guard.turn(turn, now);
    }

    fn unlink(&mut self, key: &str, service: &ServiceKey) {
        if let Some(keys) = self.by_service.get_mut(service) {
            keys.remove(key);
            if keys.is_empty() {
                self.by_service.remove(service);
            }
        }
    }
}
