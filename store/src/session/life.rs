//! Which life of which store answers: one number per life, the epoch.

use tombolo_core::id::Epoch;

use super::SessionError;
use super::fsm::{Change, Record};

/// What every answer says about the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// The store's identity.
    pub(crate) cluster_id: u64,
    /// Its revision when it answered.
    pub(crate) revision: i64,
}

/// The lives met so far; only the last one matters.
#[derive(Debug)]
pub(crate) struct Lives {
    epoch: Epoch,
    last: Option<Header>,
    /// The revision of this connection's first answer.
    floor: i64,
    witness_key: String,
    witness: Option<Witness>,
}

/// A key's history as it was last seen. A store whose history of it contradicts this was emptied and filled again, past
/// where we were and under the same id; one that has lost it is taken for another life too, which is the safe side.
#[derive(Clone, Copy, Debug)]
struct Witness {
    created: i64,
    revision: i64,
    version: i64,
}

impl Witness {
    fn of(record: &Record) -> Self {
        Self { created: record.created, revision: record.revision, version: record.version }
    }

    /// One history may say this and later `new`.
    fn agrees(self, new: Self) -> bool {
        if new.created != self.created {
            return new.created > self.revision;
        }
        let same = (new.revision, new.version) == (self.revision, self.version);
        same || (new.revision > self.revision && new.version > self.version)
    }
}

impl Lives {
    pub(crate) fn new(witness_key: &str) -> Self {
        Self { epoch: Epoch(0), last: None, floor: 0, witness_key: witness_key.into(), witness: None }
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The first answer of a connection, with the witness key if it exists. True when it is another life.
    pub(crate) fn meet(&mut self, header: Header, witness: Option<&Record>) -> bool {
        let witness = witness.filter(|r| r.key == self.witness_key);
        let agrees = self.witness.is_none_or(|old| witness.is_some_and(|new| old.agrees(Witness::of(new))));
        let same = self
            .last
            .is_some_and(|last| last.cluster_id == header.cluster_id && last.revision <= header.revision && agrees);
        if !same {
            self.epoch = Epoch(self.epoch.0 + 1);
            self.witness = None;
        }
        if let Some(record) = witness {
            self.note(record);
        }
        self.last = Some(header);
        self.floor = header.revision;
        !same
    }

    /// A later answer of the same connection.
    pub(crate) fn check(&mut self, header: Header) -> Result<(), SessionError> {
        let last = self.last.as_mut().expect("a connection's first answer is met before it is live");
        if header.cluster_id != last.cluster_id {
            return Err(SessionError::OtherStore);
        }
        if header.revision < self.floor {
            return Err(SessionError::RevisionBack);
        }
        last.revision = last.revision.max(header.revision);
        Ok(())
    }

    pub(crate) fn saw_all(&mut self, records: &[Record]) {
        records.iter().for_each(|r| self.note(r));
    }

    pub(crate) fn saw(&mut self, change: &Change) {
        match change {
            Change::Put(record) => self.note(record),
            Change::Delete { key, .. } if *key == self.witness_key => self.witness = None,
            Change::Delete { .. } => {}
        }
    }

    fn note(&mut self, record: &Record) {
        if record.key == self.witness_key {
            self.witness = Some(Witness::of(record));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record((created, revision, version): (i64, i64, i64)) -> Record {
        Record { key: "k".into(), value: bytes::Bytes::new(), revision, created, version, lease: 0 }
    }

    fn check(cluster_id: u64, revision: i64, witness: Option<(i64, i64, i64)>, reborn: bool) {
        let mut lives = Lives::new("k");
        assert!(lives.meet(Header { cluster_id: 7, revision: 20 }, Some(&record((5, 18, 3)))));
        let header = Header { cluster_id, revision };
        assert_eq!(lives.meet(header, witness.map(record).as_ref()), reborn, "{header:?} {witness:?}");
        assert_eq!(lives.epoch(), Epoch(if reborn { 2 } else { 1 }));
    }

    #[test]
    fn another_life_is_recognised() {
        check(7, 20, Some((5, 18, 3)), false);
        check(7, 90, Some((5, 60, 9)), false);
        check(7, 90, Some((30, 60, 1)), false);
        check(8, 90, Some((5, 60, 9)), true);
        check(7, 19, Some((5, 18, 3)), true);
        check(7, 90, None, true);
        // Filled again past revision 20, under the same cluster id.
        check(7, 90, Some((3, 80, 9)), true);
        check(7, 90, Some((9, 80, 9)), true);
        check(7, 90, Some((5, 17, 9)), true);
        check(7, 90, Some((5, 80, 2)), true);
        check(7, 90, Some((5, 18, 2)), true);
    }
}
