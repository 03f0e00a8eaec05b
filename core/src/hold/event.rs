//! What is said to a [`Hold`](super::Hold), and what it answers.

use crate::id::Epoch;

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
    /// The record ended with its lease, and others of that lease at the same revision: its writer did not mean it.
    Expired(K),
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
    /// The heartbeat was deleted, as its lease ended: the writer is silent at once.
    BeatGone,
    /// The connection is lost: nothing changes.
    Lost,
    /// The time of [`Hold::deadline`](super::Hold::deadline) has come.
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
    /// It ended with its lease: the writer may write it again.
    Expiry,
}
