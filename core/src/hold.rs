//! What silence and restarts must not take away.
//!
//! One [`Hold`] stands between one writer's records of one kind and whoever uses them: in the mirror one per peer and
//! kind, in the agent one per writer it depends on. Puts pass at once. A removal counts only while the writer lives:
//! its heartbeat is not silent, its canary is present in this epoch and its list is complete; until then the record
//! stays, and the removal waits. What ended with its lease waits for a while longer, to be written again. Which key
//! means what, and what a doubtful record is good for, is decided elsewhere; docs/design/hold.md says where and why.

mod event;
pub mod guard;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use crate::id::{Epoch, Millis};

pub use event::{Absent, Canary, Change, Doubt, Event, HoldConfig, Presence, Standing};

/// How long a living writer has to write again what ended with its lease.
pub const EXPIRY_MS: u64 = 60_000;

/// The held view of one writer's records of one kind.
#[derive(Clone, Debug)]
pub struct Hold<K, V> {
    config: HoldConfig,
    records: BTreeMap<K, Held<V>>,
    /// How many of the records are of the last list and nothing was said of them after: with this, that nothing waits for
    /// its removal is known without looking at each.
    current: usize,
    /// What ended with its lease, since when.
    expired: BTreeSet<(Millis, K)>,
    epoch: Option<Epoch>,
    list: List,
    canary: Presence,
    pulse: Pulse,
    /// Since when removals have counted.
    lives_since: Option<Millis>,
}

#[derive(Clone, Debug)]
struct Held<V> {
    value: V,
    /// Counts lists; a record of an older list than the complete one is absent.
    list: u64,
    epoch: Epoch,
    standing: Standing,
    gone: Gone,
}

/// What was said of a record after it was put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gone {
    /// Nothing: it is there, unless the complete list lacks it.
    No,
    /// It was deleted, and that waits.
    Deleted,
    /// It ended with its lease then.
    Expired(Millis),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct List {
    number: u64,
    complete: bool,
    ever_complete: bool,
}

/// What is known of the writer's heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pulse {
    /// No session yet.
    Unmet,
    /// The first session began then, and nothing was heard: it counts as alive for as long as a heartbeat would.
    Met(Millis),
    /// Heard then, in the present session.
    Heard(Millis),
    /// Silent, or its session came back, or an epoch began: it must be heard first. It was last heard or met then.
    Awaited(Millis),
}

impl<V> Held<V> {
    /// Of this list, and nothing was said of it after.
    fn is_current(&self, list: List) -> bool {
        self.gone == Gone::No && self.list == list.number
    }
}

impl<K: Ord + Clone, V: Clone + PartialEq> Hold<K, V> {
    /// Holds nothing yet.
    pub fn new(config: HoldConfig) -> Self {
        Self {
            config,
            records: BTreeMap::new(),
            current: 0,
            expired: BTreeSet::new(),
            epoch: None,
            list: List { number: 0, complete: false, ever_complete: false },
            canary: Presence::Gone,
            pulse: Pulse::Unmet,
            lives_since: None,
        }
    }

    /// Holds what an earlier life held, as after a lost session: all of it stays until a complete list, the canary and
    /// a heartbeat say otherwise. Silence counts from now. The view to begin with is [`Self::iter`]'s.
    pub fn restore(config: HoldConfig, entries: impl IntoIterator<Item = (K, V, Standing)>, now: Millis) -> Self {
        let mut hold = Self::new(config);
        let held = |(key, value, standing)| {
            let gone = if standing == Standing::Sure { Gone::No } else { Gone::Deleted };
            (key, Held { value, list: 0, epoch: Epoch::default(), standing, gone })
        };
        hold.records = entries.into_iter().map(held).collect();
        hold.current = hold.records.values().filter(|held| held.is_current(hold.list)).count();
        hold.list.ever_complete = true;
        hold.pulse = Pulse::Awaited(now);
        hold
    }

    /// From now on the writer counts as silent after this long: how often it beats is learnt by listening.
    pub fn set_silent_after(&mut self, ms: u64) {
        self.config.silent_after_ms = ms;
    }

    /// Takes in what was heard, and says what changes in the held view.
    pub fn on(&mut self, event: Event<K, V>, now: Millis) -> Vec<Change<K, V>> {
        self.fall_silent(now);
        self.judge_life(now);
        let mut changes = self.take(event, now);
        self.judge_life(now);
        changes.extend(self.let_expired_go(now));
        changes
    }

    fn take(&mut self, event: Event<K, V>, now: Millis) -> Vec<Change<K, V>> {
        match event {
            Event::Upsert(key, value) => return self.upsert(key, value),
            Event::Delete(key) => return self.delete(&key, now),
            Event::Expired(key) => return self.expire(&key, now),
            Event::Refuse(key) => return self.remove(key),
            Event::Unreadable(key) => return self.unreadable(&key),
            Event::Epoch(epoch) => self.session(epoch, now),
            Event::Relisting => {
                self.list.number += 1;
                self.list.complete = false;
                self.current = 0;
            }
            Event::Listed => return self.listed(now),
            Event::Canary(presence) => self.canary = presence,
            Event::Beat => self.pulse = Pulse::Heard(now),
            Event::BeatGone => self.be_silent(),
            Event::Lost => self.lost(),
            Event::Tick => {}
        }
        self.settle(now)
    }

    /// When the view may change although nothing is heard, or the writer falls silent; `None` once an event told it all.
    pub fn deadline(&self) -> Option<Millis> {
        let expiry = self.expired.first().and_then(|(at, _)| self.expires(*at));
        [self.silent_at(), expiry].into_iter().flatten().min()
    }

    /// When the writer falls silent if nothing is heard until then; `None` while it is.
    fn silent_at(&self) -> Option<Millis> {
        match self.pulse {
            Pulse::Met(at) | Pulse::Heard(at) => Some(at.after(self.config.silent_after_ms)),
            Pulse::Unmet | Pulse::Awaited(_) => None,
        }
    }

    /// Milliseconds since the writer was last heard or first met; 0 before the first session.
    pub fn silent_ms(&self, now: Millis) -> u64 {
        match self.pulse {
            Pulse::Unmet => 0,
            Pulse::Met(at) | Pulse::Heard(at) | Pulse::Awaited(at) => now.since(at),
        }
    }

    /// What removals wait for now; `None` when they count at once.
    pub fn awaits(&self, now: Millis) -> Option<Doubt> {
        let canary = self.config.canary == Canary::None || self.canary == Presence::Seen;
        if !self.list.complete {
            Some(Doubt::List)
        } else if !canary {
            Some(Doubt::Canary)
        } else if self.silent_at().is_none_or(|silent_at| now >= silent_at) {
            Some(Doubt::Heartbeat)
        } else {
            None
        }
    }

    /// Whether a complete list of this epoch has been taken in, and the canary is there.
    pub fn is_synced(&self) -> bool {
        self.list.complete && (self.config.canary == Canary::None || self.canary == Presence::Seen)
    }

    /// The held view, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V, Standing)> {
        self.records.iter().map(|(key, held)| (key, &held.value, held.standing))
    }

    /// The record held under a key.
    pub fn get(&self, key: &K) -> Option<(&V, Standing)> {
        self.records.get(key).map(|held| (&held.value, held.standing))
    }

    /// How many records are held.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Lets everything go at once, because the writer itself is gone by decision: disconnected, or another now.
    pub fn release(&mut self) -> Vec<Change<K, V>> {
        self.expired.clear();
        self.current = 0;
        core::mem::take(&mut self.records).into_keys().map(Change::Remove).collect()
    }

    /// A session is up. A new epoch knows nothing: neither list, nor canary, nor heartbeat.
    fn session(&mut self, epoch: Epoch, now: Millis) {
        if self.epoch.is_none() {
            // What was restored may be of this epoch.
            self.records.values_mut().for_each(|held| held.epoch = epoch);
        }
        if self.epoch != Some(epoch) {
            self.lost();
            self.canary = Presence::Gone;
            // What ended before is judged by the new epoch's list alone.
            for (_, key) in core::mem::take(&mut self.expired) {
                self.records.entry(key).and_modify(|held| held.gone = Gone::Deleted);
            }
        }
        self.epoch = Some(epoch);
        if self.pulse == Pulse::Unmet {
            self.pulse = Pulse::Met(now);
        }
    }

    /// Whoever comes back must list and be heard first; who never listed completely is still to be met.
    fn lost(&mut self) {
        self.list.complete = false;
        self.pulse = match self.pulse {
            Pulse::Met(at) | Pulse::Heard(at) | Pulse::Awaited(at) if self.list.ever_complete => Pulse::Awaited(at),
            _ => Pulse::Unmet,
        };
    }

    fn fall_silent(&mut self, now: Millis) {
        if let Pulse::Met(at) | Pulse::Heard(at) = self.pulse
            && now >= at.after(self.config.silent_after_ms)
        {
            self.be_silent();
        }
    }

    fn judge_life(&mut self, now: Millis) {
        self.lives_since = if self.awaits(now).is_none() { self.lives_since.or(Some(now)) } else { None };
    }

    fn be_silent(&mut self) {
        if let Pulse::Met(at) | Pulse::Heard(at) = self.pulse {
            self.pulse = Pulse::Awaited(at);
        }
    }

    fn upsert(&mut self, key: K, value: V) -> Vec<Change<K, V>> {
        let epoch = self.epoch.unwrap_or_default();
        let held = Held { value, list: self.list.number, epoch, standing: Standing::Sure, gone: Gone::No };
        let same = self.records.get(&key).is_some_and(|old| old.value == held.value && old.standing == Standing::Sure);
        let change = (!same).then(|| Change::Put(key.clone(), held.value.clone(), Standing::Sure));
        self.current += 1;
        if let Some(old) = self.records.insert(key.clone(), held) {
            self.current -= usize::from(old.is_current(self.list));
            self.unmark(old.gone, key);
        }
        change.into_iter().collect()
    }

    fn delete(&mut self, key: &K, now: Millis) -> Vec<Change<K, V>> {
        let Some(doubt) = self.awaits(now) else { return self.remove(key.clone()) };
        self.doubt(key, Gone::Deleted, doubt).into_iter().collect()
    }

    fn expire(&mut self, key: &K, now: Millis) -> Vec<Change<K, V>> {
        if !self.records.contains_key(key) {
            return Vec::new();
        }
        let change = self.doubt(key, Gone::Expired(now), Doubt::Expiry);
        self.expired.insert((now, key.clone()));
        change.into_iter().collect()
    }

    fn remove(&mut self, key: K) -> Vec<Change<K, V>> {
        let Some(held) = self.records.remove(&key) else { return Vec::new() };
        self.current -= usize::from(held.is_current(self.list));
        self.unmark(held.gone, key.clone());
        alloc::vec![Change::Remove(key)]
    }

    fn unmark(&mut self, gone: Gone, key: K) {
        if let Gone::Expired(at) = gone {
            self.expired.remove(&(at, key));
        }
    }

    /// The record is there, as it was when it could be read; but a value of an earlier epoch does not outlive it.
    fn unreadable(&mut self, key: &K) -> Vec<Change<K, V>> {
        let epoch = self.epoch.unwrap_or_default();
        let last_good = self.records.get(key).filter(|held| held.epoch == epoch).map(|held| held.value.clone());
        last_good.map(|value| self.upsert(key.clone(), value)).unwrap_or_default()
    }

    fn listed(&mut self, now: Millis) -> Vec<Change<K, V>> {
        self.list.complete = true;
        self.list.ever_complete = true;
        let Some(doubt) = self.awaits(now) else { return self.settle(now) };
        let surplus: Vec<K> = self.surplus().collect();
        surplus.iter().filter_map(|key| self.doubt(key, Gone::Deleted, doubt)).collect()
    }

    /// Carries out the removals that waited, once they count.
    fn settle(&mut self, now: Millis) -> Vec<Change<K, V>> {
        let any_surplus = self.records.len() > self.current + self.expired.len();
        if !any_surplus || self.awaits(now).is_some() {
            return Vec::new();
        }
        let surplus: Vec<K> = self.surplus().collect();
        surplus.into_iter().flat_map(|key| self.remove(key)).collect()
    }

    /// What was deleted, and what the complete list no longer has; but what ended with its lease has time of its own.
    fn surplus(&self) -> impl Iterator<Item = K> {
        let list = self.list.number;
        let surplus = move |held: &Held<V>| match held.gone {
            Gone::No => held.list < list,
            Gone::Deleted => true,
            Gone::Expired(_) => false,
        };
        self.records.iter().filter(move |(_, held)| surplus(held)).map(|(key, _)| key.clone())
    }

    /// When what ended with its lease then leaves, if its writer goes on living.
    fn expires(&self, at: Millis) -> Option<Millis> {
        self.lives_since.map(|since| since.max(at).after(EXPIRY_MS))
    }

    fn let_expired_go(&mut self, now: Millis) -> Vec<Change<K, V>> {
        let due = |(at, _): &&(Millis, K)| self.expires(*at).is_some_and(|end| now >= end);
        let gone: Vec<K> = self.expired.iter().take_while(due).map(|(_, key)| key.clone()).collect();
        gone.into_iter().flat_map(|key| self.remove(key)).collect()
    }

    fn doubt(&mut self, key: &K, gone: Gone, doubt: Doubt) -> Option<Change<K, V>> {
        let held = self.records.get_mut(key)?;
        self.current -= usize::from(held.is_current(self.list));
        let before = core::mem::replace(&mut held.gone, gone);
        if let Gone::Expired(at) = before {
            self.expired.remove(&(at, key.clone()));
        }
        if self.config.absent == Absent::Kept || held.standing != Standing::Sure {
            return None;
        }
        held.standing = Standing::Doubtful(doubt);
        Some(Change::Put(key.clone(), held.value.clone(), held.standing))
    }
}
