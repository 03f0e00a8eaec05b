//! Keys to be written into the own store, and the difference between what a subject should have and what it has.

use std::collections::BTreeMap;

use bytes::Bytes;

/// One key's new state.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Write {
    /// It should not exist.
    Delete(String),
    /// It should have this value.
    Put(String, Bytes),
}

/// Keys with their values.
pub type Keys = BTreeMap<String, Bytes>;

/// Keys that were written, by the subject they were written for.
#[derive(Clone, Debug)]
pub struct Written<S> {
    by_subject: BTreeMap<S, Keys>,
}

impl<S: Ord + Clone> Default for Written<S> {
    fn default() -> Self {
        Self { by_subject: BTreeMap::new() }
    }
}

impl<S: Ord + Clone> Written<S> {
    /// A subject should have exactly these keys: deletes go into the first list, puts into the second.
    pub fn replace(&mut self, subject: &S, keys: Keys, deletes: &mut Vec<Write>, puts: &mut Vec<Write>) {
        let old = match keys.is_empty() {
            true => self.by_subject.remove(subject).unwrap_or_default(),
            false => self.by_subject.insert(subject.clone(), keys.clone()).unwrap_or_default(),
        };
        deletes.extend(old.keys().filter(|key| !keys.contains_key(*key)).cloned().map(Write::Delete));
        puts.extend(keys.into_iter().filter(|(key, value)| old.get(key) != Some(value)).map(|(k, v)| Write::Put(k, v)));
    }

    /// Nothing of any subject should exist.
    pub fn clear(&mut self) -> Vec<Write> {
        std::mem::take(&mut self.by_subject).into_values().flat_map(Keys::into_keys).map(Write::Delete).collect()
    }

    /// The subjects that have keys.
    pub fn subjects(&self) -> impl Iterator<Item = &S> {
        self.by_subject.keys()
    }
}
