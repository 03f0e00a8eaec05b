//! What silence and restarts must not take away.
//!
//! One [`Hold`] stands between one writer's records of one kind and whoever uses them: in the mirror one per peer and
//! kind, in the agent one per writer it depends on. Puts pass at once. A removal counts only while the writer lives:
//! its heartbeat is not silent, its canary is present in this epoch and its list is complete; until then the record
//! stays, and the removal waits. Which key means what, and what a doubtful record is good for, is decided elsewhere.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::id::{Epoch, Millis};

/// How one writer is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HoldConfig {
    /// Milliseconds without a heartbeat after which the writer counts as silent.
    pub silent_after_ms: u64,
    /// What becomes of a record that is deleted while its writer does not live.
    pub absent: Absent,
    /// Whether the writer has a canary.
    pub canary: Canary,
}

/// How a record looks whose removal waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absent {
    /// Doubtful: a peer's, kept as a last resort.
    Doubtful,
    /// As before: the own cluster's, where the agent keeps everything.
    Kept,
}

/// Whether removals wait for a canary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Canary {
    /// The writer says when its first set is complete.
    Awaited,
    /// It has none: a complete list is enough.
    None,
}

/// What is heard of a writer, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<K, V> {
    /// The session is up in this epoch: the same as before, or a new one, in which nothing is known yet.
    Epoch(Epoch),
    /// A list begins: what is not upserted before [`Event::Listed`] is deleted.
    Relisting,
    /// The record is as given.
    Upsert(K, V),
    /// The record was deleted.
    Delete(K),
    /// The key is there, but its value cannot be read: this epoch's last good value stays.
    Unreadable(K),
    /// Admission refuses the record: it leaves at once.
    Refuse(K),
    /// The list is complete.
    Listed,
    /// The canary appeared or vanished.
    Canary(Presence),
    /// A heartbeat was put.
    Beat,
    /// The connection is lost: nothing changes.
    Lost,
    /// The time of [`Hold::deadline`] has come.
    Tick,
}

/// Whether a key is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It is there.
    Seen,
    /// It is not.
    Gone,
}

/// What changes in the held view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change<K, V> {
    /// The record is as given.
    Put(K, V, Standing),
    /// The record left.
    Remove(K),
}

/// Whether a held record is what its writer says now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// It is.
    Sure,
    /// It was deleted, but nobody is believed about that yet.
    Doubtful(Doubt),
}

/// What a removal waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Doubt {
    /// The list is not complete.
    List,
    /// The canary is not there in this epoch.
    Canary,
    /// The writer is silent, or has not been heard since its session came back.
    Heartbeat,
}

/// The held view of one writer's records of one kind.
#[derive(Clone, Debug)]
pub struct Hold<K, V> {
    config: HoldConfig,
    records: BTreeMap<K, Held<V>>,
    epoch: Option<Epoch>,
    list: List,
    canary: Presence,
    pulse: Pulse,
}

#[derive(Clone, Debug)]
struct Held<V> {
    value: V,
    /// Counts lists; a record of an older list than the complete one is absent.
    list: u64,
    epoch: Epoch,
    standing: Standing,
    /// Its removal waits.
    absent: bool,
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

impl<K: Ord + Clone, V: Clone + PartialEq> Hold<K, V> {
    /// Holds nothing yet.
    pub fn new(config: HoldConfig) -> Self {
        Self {
            config,
            records: BTreeMap::new(),
            epoch: None,
            list: List { number: 0, complete: false, ever_complete: false },
            canary: Presence::Gone,
            pulse: Pulse::Unmet,
        }
    }

    /// Takes in what was heard, and says what changes in the held view.
    pub fn on(&mut self, event: Event<K, V>, now: Millis) -> Vec<Change<K, V>> {
        self.fall_silent(now);
        match event {
            Event::Upsert(key, value) => return self.upsert(key, value),
            Event::Delete(key) => return self.delete(&key, now),
            Event::Refuse(key) => return self.remove(key),
            Event::Unreadable(key) => self.unreadable(&key),
            Event::Epoch(epoch) => self.session(epoch, now),
            Event::Relisting => {
                self.list.number += 1;
                self.list.complete = false;
            }
            Event::Listed => return self.listed(now),
            Event::Canary(presence) => self.canary = presence,
            Event::Beat => self.pulse = Pulse::Heard(now),
            Event::Lost => self.lost(),
            Event::Tick => {}
        }
        self.settle(now)
    }

    /// When the writer falls silent if nothing is heard until then; `None` once an event told that it is.
    pub fn deadline(&self) -> Option<Millis> {
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
        } else if self.deadline().is_none_or(|silent_at| now >= silent_at) {
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
        core::mem::take(&mut self.records).into_keys().map(Change::Remove).collect()
    }

    /// A session is up. A new epoch knows nothing: neither list, nor canary, nor heartbeat.
    fn session(&mut self, epoch: Epoch, now: Millis) {
        if self.epoch != Some(epoch) {
            self.lost();
            self.canary = Presence::Gone;
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
            self.pulse = Pulse::Awaited(at);
        }
    }

    fn upsert(&mut self, key: K, value: V) -> Vec<Change<K, V>> {
        let epoch = self.epoch.unwrap_or_default();
        let held = Held { value, list: self.list.number, epoch, standing: Standing::Sure, absent: false };
        let same = self.records.get(&key).is_some_and(|old| old.value == held.value && old.standing == Standing::Sure);
        let change = (!same).then(|| Change::Put(key.clone(), held.value.clone(), Standing::Sure));
        self.records.insert(key, held);
        change.into_iter().collect()
    }

    fn delete(&mut self, key: &K, now: Millis) -> Vec<Change<K, V>> {
        let Some(doubt) = self.awaits(now) else { return self.remove(key.clone()) };
        self.doubt(key, doubt).into_iter().collect()
    }

    fn remove(&mut self, key: K) -> Vec<Change<K, V>> {
        self.records.remove(&key).map(|_| Change::Remove(key)).into_iter().collect()
    }

    /// A value of an earlier epoch does not outlive it.
    fn unreadable(&mut self, key: &K) {
        let (list, epoch) = (self.list.number, self.epoch.unwrap_or_default());
        if let Some(held) = self.records.get_mut(key).filter(|held| held.epoch == epoch) {
            held.list = list;
        }
    }

    fn listed(&mut self, now: Millis) -> Vec<Change<K, V>> {
        self.list.complete = true;
        self.list.ever_complete = true;
        let Some(doubt) = self.awaits(now) else { return self.settle(now) };
        let surplus: Vec<K> = self.surplus().collect();
        surplus.iter().filter_map(|key| self.doubt(key, doubt)).collect()
    }

    /// Carries out the removals that waited, once they count.
    fn settle(&mut self, now: Millis) -> Vec<Change<K, V>> {
        if self.awaits(now).is_some() {
            return Vec::new();
        }
        let surplus: Vec<K> = self.surplus().collect();
        surplus.into_iter().flat_map(|key| self.remove(key)).collect()
    }

    /// What was deleted, and what the complete list no longer has.
    fn surplus(&self) -> impl Iterator<Item = K> {
        let list = self.list.number;
        self.records.iter().filter(move |(_, held)| held.absent || held.list < list).map(|(key, _)| key.clone())
    }

    fn doubt(&mut self, key: &K, doubt: Doubt) -> Option<Change<K, V>> {
        let held = self.records.get_mut(key)?;
        held.absent = true;
        if self.config.absent == Absent::Kept || held.standing != Standing::Sure {
            return None;
        }
        held.standing = Standing::Doubtful(doubt);
        Some(Change::Put(key.clone(), held.value.clone(), held.standing))
    }
}
