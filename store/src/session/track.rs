//! One key or prefix on its way from list to watch.

use tombolo_core::id::Millis;

use super::expiry::Expiry;
use super::fsm::{Change, Record};

/// What a track is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Heartbeat,
    First,
    /// `seen` outlives connections, within one life of the store.
    Canary {
        watch: usize,
        seen: bool,
    },
    Data {
        watch: usize,
    },
}

/// Where it stands on this connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Idle,
    /// A page is asked for; `revision` is 0 until the first one came.
    Listing {
        call: u64,
        revision: i64,
        start: Vec<u8>,
        until: Millis,
    },
    /// Followed; `from` is the next revision that counts, `opening` the deadline of the store's first word.
    Watching {
        id: i64,
        from: i64,
        opening: Option<Millis>,
    },
}

#[derive(Clone, Debug)]
pub(crate) struct Track {
    pub(crate) role: Role,
    pub(crate) prefix: String,
    pub(crate) state: State,
    pub(crate) expiry: Expiry,
}

impl Track {
    pub(crate) fn new(role: Role, prefix: &str) -> Self {
        Self { role, prefix: prefix.into(), state: State::Idle, expiry: Expiry::default() }
    }

    pub(crate) fn deadline(&self) -> Option<Millis> {
        match self.state {
            State::Listing { until, .. } => Some(until),
            State::Watching { opening, .. } => opening,
            State::Idle => None,
        }
    }

    pub(crate) fn watch_id(&self) -> Option<i64> {
        match self.state {
            State::Watching { id, .. } => Some(id),
            _ => None,
        }
    }

    pub(crate) fn is_opening(&self) -> bool {
        matches!(self.state, State::Watching { opening: Some(_), .. })
    }

    /// The watch whose canary this is, when this connection has seen it and it is there.
    pub(crate) fn seen_canary(&self) -> Option<usize> {
        match (&self.role, &self.state) {
            (Role::Canary { watch, seen: true }, State::Watching { .. }) => Some(*watch),
            _ => None,
        }
    }

    /// The changes that are news; what was listed or told before is dropped.
    pub(crate) fn accept(&mut self, changes: Vec<Change>) -> Vec<Change> {
        let State::Watching { from, opening, .. } = &mut self.state else { return Vec::new() };
        *opening = None;
        let fresh: Vec<_> = changes.into_iter().filter(|c| c.revision() >= *from).collect();
        *from = fresh.iter().map(|c| c.revision().saturating_add(1)).fold(*from, i64::max);
        fresh
    }
}

impl Change {
    pub(crate) fn revision(&self) -> i64 {
        match self {
            Self::Put(record) => record.revision,
            Self::Delete { revision, .. } => *revision,
        }
    }

    pub(crate) fn into_put(self) -> Option<Record> {
        match self {
            Self::Put(record) => Some(record),
            Self::Delete { .. } => None,
        }
    }
}
