//! A store in memory with a history, and nothing of etcd but its rules.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::session::SessionError;
use crate::session::connection::{is_prefix, prefix_end};
use crate::session::fsm::{Change, Input, Record};
use crate::session::life::Header;

/// One version of a key; no record: deleted.
type Version = (i64, Option<Record>);

#[derive(Debug, Default)]
pub(super) struct Fake {
    pub(super) cluster_id: u64,
    pub(super) revision: i64,
    pub(super) compacted: i64,
    /// The lease of whatever is put.
    pub(super) lease: i64,
    keys: BTreeMap<String, Vec<Version>>,
}

impl Fake {
    pub(super) fn new(cluster_id: u64) -> Self {
        Self { cluster_id, revision: 1, ..Self::default() }
    }

    pub(super) fn header(&self) -> Header {
        Header { cluster_id: self.cluster_id, revision: self.revision }
    }

    /// One transaction: all keys get one revision.
    pub(super) fn write(&mut self, changes: &[(String, Option<u64>)]) {
        let revision = self.revision + 1;
        let mut any = false;
        for (key, value) in changes {
            let old = self.at(key, self.revision);
            let new = value.map(|v| Record {
                key: key.clone(),
                value: Bytes::from(v.to_string()),
                revision,
                created: old.map_or(revision, |r| r.created),
                version: old.map_or(1, |r| r.version + 1),
                lease: self.lease,
            });
            if new.is_some() || old.is_some() {
                any = true;
                self.keys.entry(key.clone()).or_default().push((revision, new));
            }
        }
        self.revision += i64::from(any);
    }

    /// The lease ends: all its keys go at one revision.
    pub(super) fn expire(&mut self, lease: i64) {
        let lives = |key: &&String| self.at(key, self.revision).is_some_and(|record| record.lease == lease);
        let gone: Vec<_> = self.keys.keys().filter(lives).map(|key| (key.clone(), None)).collect();
        self.write(&gone);
    }

    pub(super) fn at(&self, key: &str, revision: i64) -> Option<&Record> {
        self.keys.get(key)?.iter().rev().find(|v| v.0 <= revision)?.1.as_ref()
    }

    /// What a prefix holds now.
    pub(super) fn content(&self, prefix: &str) -> BTreeMap<String, Bytes> {
        let now = |key: &String| self.at(key, self.revision).map(|r| (key.clone(), r.value.clone()));
        self.keys.keys().filter(|k| covers(prefix, k)).filter_map(now).collect()
    }

    pub(super) fn range(&self, call: u64, prefix: &str, start: &[u8], revision: i64, limit: i64) -> Input {
        let at = if revision == 0 { self.revision } else { revision };
        if at < self.compacted {
            return Input::PageCompacted { call };
        }
        if at > self.revision {
            return Input::Failed(SessionError::Request("required revision is a future revision".into()));
        }
        let keys = self.keys.keys().filter(|k| covers(prefix, k) && k.as_bytes() >= start);
        let mut records: Vec<_> = keys.filter_map(|k| self.at(k, at).cloned()).collect();
        let limit = usize::try_from(limit).unwrap();
        let more = records.len() > limit;
        records.truncate(limit);
        let next = records.last().filter(|_| more).map(|r| [r.key.as_bytes(), b"\0"].concat());
        Input::Page { call, header: self.header(), records, next }
    }

    /// What a watch at `from` has to be told now, and from where it goes on.
    pub(super) fn news(&self, id: i64, prefix: &str, from: i64) -> Option<(Input, i64)> {
        if from <= self.compacted {
            return Some((Input::Cancelled { id, reason: SessionError::Compacted }, from));
        }
        let versions = self.keys.iter().filter(|(k, _)| covers(prefix, k));
        let mut changes: Vec<Change> = versions
            .flat_map(|(key, versions)| versions.iter().map(move |v| (key, v)))
            .filter(|(_, v)| v.0 >= from)
            .map(|(key, (revision, record))| match record {
                Some(record) => Change::Put(record.clone()),
                None => Change::Delete { key: key.clone(), revision: *revision },
            })
            .collect();
        changes.sort_by_key(Change::revision);
        let next = changes.last()?.revision() + 1;
        Some((Input::News { id, header: self.header(), changes }, next))
    }
}

fn covers(prefix: &str, key: &str) -> bool {
    if is_prefix(prefix) { key >= prefix && key < prefix_end(prefix).as_str() } else { key == prefix }
}
