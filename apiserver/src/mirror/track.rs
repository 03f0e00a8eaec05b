//! One watched prefix of a peer: its records as they came, judged, and held.

use std::collections::BTreeMap;

use bytes::Bytes;
use tombolo_core::admit::Refusal;
use tombolo_core::hold::{Absent, Canary, Change, Event, Hold, HoldConfig, Presence};
use tombolo_core::id::{Epoch, Millis};

use super::refused::Refused;

/// What a record comes to.
pub(super) enum Judged<V> {
    /// It counts, without the parts refused.
    Admitted(V, Vec<Refusal>),
    /// It says that it is deleted.
    Deleted,
    /// It cannot be read: the last good version stays.
    Unreadable(Refusal),
    /// It leaves at once.
    Refused(Refusal),
}

/// What comes of one record's key: `None` is a removal.
pub(super) type Changes<V> = Vec<Change<String, V>>;

/// Records of one prefix.
#[derive(Debug)]
pub(super) struct Track<V> {
    hold: Hold<String, V>,
    /// Values as they are in the peer's store now, to be judged again when what no peer may claim changes.
    raw: BTreeMap<String, (Bytes, i64)>,
}

impl<V: Clone + PartialEq> Track<V> {
    pub(super) fn new(canary: Canary, silent_after_ms: u64) -> Self {
        let config = HoldConfig { silent_after_ms, absent: Absent::Doubtful, canary };
        Self { hold: Hold::new(config), raw: BTreeMap::new() }
    }

    pub(super) fn hold(&self) -> &Hold<String, V> {
        &self.hold
    }

    pub(super) fn hold_mut(&mut self) -> &mut Hold<String, V> {
        &mut self.hold
    }

    pub(super) fn set_silent_after(&mut self, ms: u64) {
        self.hold.set_silent_after(ms);
    }

    pub(super) fn raw(&self) -> &BTreeMap<String, (Bytes, i64)> {
        &self.raw
    }

    /// A record was put, and judged.
    pub(super) fn put(
        &mut self,
        key: &str,
        value: (Bytes, i64),
        judged: Judged<V>,
        refused: &mut Refused,
        now: Millis,
    ) -> Changes<V> {
        self.raw.insert(key.to_owned(), value);
        let event = match judged {
            Judged::Admitted(value, refusals) => {
                refused.set(key, &refusals);
                Event::Upsert(key.to_owned(), value)
            }
            Judged::Deleted => {
                refused.forget(key);
                Event::Delete(key.to_owned())
            }
            Judged::Unreadable(refusal) => {
                refused.set(key, &[refusal]);
                Event::Unreadable(key.to_owned())
            }
            Judged::Refused(refusal) => {
                refused.set(key, &[refusal]);
                Event::Refuse(key.to_owned())
            }
        };
        self.hold.on(event, now)
    }

    pub(super) fn delete(&mut self, key: &str, refused: &mut Refused, now: Millis) -> Changes<V> {
        self.raw.remove(key);
        refused.forget(key);
        self.hold.on(Event::Delete(key.to_owned()), now)
    }

    /// Its lease ended: it may be written again.
    pub(super) fn expire(&mut self, key: &str, refused: &mut Refused, now: Millis) -> Changes<V> {
        self.raw.remove(key);
        refused.forget(key);
        self.hold.on(Event::Expired(key.to_owned()), now)
    }

    /// Time has passed.
    pub(super) fn tick(&mut self, now: Millis) -> Changes<V> {
        self.hold.on(Event::Tick, now)
    }

    pub(super) fn relisting(&mut self, refused: &mut Refused, now: Millis) -> Changes<V> {
        for key in std::mem::take(&mut self.raw).into_keys() {
            refused.forget(&key);
        }
        self.hold.on(Event::Relisting, now)
    }

    pub(super) fn epoch(&mut self, epoch: Epoch, now: Millis) -> Changes<V> {
        self.hold.on(Event::Epoch(epoch), now)
    }

    pub(super) fn listed(&mut self, now: Millis) -> Changes<V> {
        self.hold.on(Event::Listed, now)
    }

    pub(super) fn canary(&mut self, presence: Presence, now: Millis) -> Changes<V> {
        self.hold.on(Event::Canary(presence), now)
    }

    pub(super) fn beat(&mut self, now: Millis) -> Changes<V> {
        self.hold.on(Event::Beat, now)
    }

    pub(super) fn beat_gone(&mut self, now: Millis) -> Changes<V> {
        self.hold.on(Event::BeatGone, now)
    }

    pub(super) fn lost(&mut self, now: Millis) -> Changes<V> {
        self.hold.on(Event::Lost, now)
    }
}
