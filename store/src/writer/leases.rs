//! The leases that the writer's keys live by.
//!
//! Two keys of one lease are never deleted in one transaction, or readers would take them for expired. So that a
//! thousand keys can still be deleted in a few transactions, keys are spread: each of the writer's prefixes has leases
//! of its own, as many as leave [`SPREAD`] keys to each. Fewer keys a lease, and its end would no longer be recognised.

use std::collections::{BTreeMap, BTreeSet};

use tombolo_core::id::Millis;

/// Keys a lease carries, at most (Cilium's limit).
pub(crate) const KEYS: usize = 1_000;
/// Keys a lease carries before another is asked for.
pub(crate) const SPREAD: usize = 8;
/// Leases of one prefix, unless each of them has [`KEYS`].
pub(crate) const SPREAD_MAX: usize = 64;
/// A lease is renewed when this part of its time is over.
const RENEW_PART: u64 = 3;
/// A lease found in the store is renewed at least this often, whatever it says.
const RENEW_MIN_MS: u64 = 1_000;

/// One of the writer's prefixes, by its place among them: what one reader watches.
pub(crate) type Group = usize;

#[derive(Debug, Default)]
pub(crate) struct Leases {
    live: BTreeMap<i64, Lease>,
    /// Known to be gone; their numbers are random and never come back.
    dead: BTreeSet<i64>,
    /// Leases to ask for, and asked for, by group.
    wanted: BTreeMap<Group, usize>,
    granting: BTreeMap<Group, usize>,
    renewing: Option<i64>,
}

#[derive(Debug)]
struct Lease {
    group: Group,
    keys: usize,
    renew: Millis,
}

impl Leases {
    /// A new life of the store knows no lease of the last one.
    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }

    /// A new connection: nothing is under way, and every lease is asked for at once.
    pub(crate) fn reconnected(&mut self, now: Millis) {
        self.wanted.clear();
        self.granting.clear();
        self.renewing = None;
        for lease in self.live.values_mut() {
            lease.renew = now;
        }
    }

    /// May a key that has this lease keep it? A lease from before our start is taken over, and asked for at once.
    pub(crate) fn keeps(&mut self, id: i64, group: Group, now: Millis) -> bool {
        if id == 0 || self.dead.contains(&id) {
            return false;
        }
        self.live.entry(id).or_insert(Lease { group, keys: 0, renew: now });
        true
    }

    /// A lease for one more key of a group that should have `keys` of them: `current` if that is live, else the one
    /// with the fewest. None: a lease must be granted first.
    pub(crate) fn take(&mut self, current: i64, group: Group, keys: usize) -> Option<i64> {
        if self.live.contains_key(&current) {
            self.count(current, true);
            return Some(current);
        }
        let of_group = || self.live.iter().filter(|(_, lease)| lease.group == group);
        let fewest = of_group().min_by_key(|(_, lease)| lease.keys).map(|(id, lease)| (*id, lease.keys));
        let coming = self.granting.get(&group).copied().unwrap_or(0);
        let enough = (keys / SPREAD).clamp(1, SPREAD_MAX);
        let full = usize::from(fewest.is_none_or(|(_, keys)| keys >= KEYS) && coming == 0);
        let missing = enough.saturating_sub(of_group().count() + coming).max(full);
        self.wanted.insert(group, missing);
        // Others may soon take from the fewest what would be too much for it.
        let limit = if missing + coming > 0 { 2 * SPREAD } else { KEYS };
        let (id, _) = fewest.filter(|(_, keys)| *keys < limit)?;
        self.count(id, true);
        Some(id)
    }

    /// Any live lease, for a heartbeat; one that has keys, if there is one: others are left to end.
    pub(crate) fn any(&self) -> Option<i64> {
        let kept = self.live.iter().find(|(_, lease)| lease.keys > 0).map(|(id, _)| id);
        kept.or_else(|| self.live.keys().next()).copied()
    }

    /// A lease of this group is needed, if none is on its way.
    pub(crate) fn want(&mut self, group: Group) {
        let coming = self.granting.get(&group).copied().unwrap_or(0);
        self.wanted.insert(group, usize::from(coming == 0));
    }

    /// A key came to this lease or left it.
    pub(crate) fn count(&mut self, id: i64, joined: bool) {
        if let Some(lease) = self.live.get_mut(&id) {
            lease.keys = if joined { lease.keys + 1 } else { lease.keys.saturating_sub(1) };
        }
    }

    /// Counts anew, from the lease of every key.
    pub(crate) fn recount(&mut self, leases: impl Iterator<Item = i64>) {
        self.live.values_mut().for_each(|lease| lease.keys = 0);
        leases.for_each(|id| self.count(id, true));
    }

    /// The group that a lease should be granted for now; then one is under way.
    pub(crate) fn want_grant(&mut self) -> Option<Group> {
        let (&group, missing) = self.wanted.iter_mut().find(|(_, missing)| **missing > 0)?;
        *missing -= 1;
        *self.granting.entry(group).or_default() += 1;
        Some(group)
    }

    pub(crate) fn granted(&mut self, id: i64, group: Group, ttl_s: i64, now: Millis) {
        if let Some(coming) = self.granting.get_mut(&group) {
            *coming = coming.saturating_sub(1);
        }
        self.live.insert(id, Lease { group, keys: 0, renew: renewal(ttl_s, now) });
    }

    /// The lease to renew now; then that is under way. One without keys is left to end.
    pub(crate) fn want_renewal(&mut self, now: Millis) -> Option<i64> {
        if self.renewing.is_some() {
            return None;
        }
        loop {
            let (&id, lease) = self.live.iter().find(|(_, lease)| lease.renew <= now)?;
            if lease.keys > 0 || self.live.len() == 1 {
                self.renewing = Some(id);
                return Some(id);
            }
            self.live.remove(&id);
        }
    }

    /// The answer to a renewal: the lease's whole time in seconds, or that it is gone.
    pub(crate) fn renewed(&mut self, id: i64, ttl_s: Option<i64>, now: Millis) {
        self.renewing = None;
        match (ttl_s, self.live.get_mut(&id)) {
            (Some(ttl), Some(lease)) => lease.renew = renewal(ttl, now),
            (None, _) => self.lost(id),
            (Some(_), None) => {}
        }
    }

    pub(crate) fn lost(&mut self, id: i64) {
        self.live.remove(&id);
        self.dead.insert(id);
    }

    pub(crate) fn deadline(&self) -> Option<Millis> {
        match self.renewing {
            Some(_) => None,
            None => self.live.values().map(|lease| lease.renew).min(),
        }
    }
}

fn renewal(ttl_s: i64, now: Millis) -> Millis {
    let ttl_ms = u64::try_from(ttl_s).unwrap_or(0).saturating_mul(1_000);
    now.after((ttl_ms / RENEW_PART).max(RENEW_MIN_MS))
}
