//! The leases that the writer's keys live by.

use std::collections::{BTreeMap, BTreeSet};

use tombolo_core::id::Millis;

/// Seconds a key outlives its writer (Cilium's `--kvstore-lease-ttl`).
pub(crate) const TTL_S: i64 = 15 * 60;
/// Keys a lease carries, at most (Cilium's limit).
pub(crate) const KEYS: usize = 1_000;
/// A lease is renewed when this part of its time is over.
const RENEW_PART: u64 = 3;
/// A lease found in the store is renewed at least this often, whatever it says.
const RENEW_MIN_MS: u64 = 1_000;

#[derive(Debug, Default)]
pub(crate) struct Leases {
    live: BTreeMap<i64, Lease>,
    /// Known to be gone; their numbers are random and never come back.
    dead: BTreeSet<i64>,
    granting: bool,
    renewing: Option<i64>,
}

#[derive(Debug)]
struct Lease {
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
        self.granting = false;
        self.renewing = None;
        for lease in self.live.values_mut() {
            lease.renew = now;
        }
    }

    /// May a key that has this lease keep it? A lease from before our start is taken over, and asked for at once.
    pub(crate) fn keeps(&mut self, id: i64, now: Millis) -> bool {
        if id == 0 || self.dead.contains(&id) {
            return false;
        }
        self.live.entry(id).or_insert(Lease { keys: 0, renew: now });
        true
    }

    /// A lease for one more key: `current` if that is live, else one with room.
    pub(crate) fn take(&mut self, current: i64) -> Option<i64> {
        let id = match self.live.contains_key(&current) {
            true => current,
            false => *self.live.iter().find(|(_, lease)| lease.keys < KEYS)?.0,
        };
        self.count(id, true);
        Some(id)
    }

    /// Any live lease, for a heartbeat.
    pub(crate) fn any(&self) -> Option<i64> {
        self.live.keys().next().copied()
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

    /// True when a lease should be granted now; then one is under way.
    pub(crate) fn want_grant(&mut self) -> bool {
        !std::mem::replace(&mut self.granting, true)
    }

    pub(crate) fn granted(&mut self, id: i64, now: Millis) {
        self.granting = false;
        self.live.insert(id, Lease { keys: 0, renew: renewal(TTL_S, now) });
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
