//! Tells keys that ended with their lease from keys that somebody deleted.
//!
//! A watch shows both as deletes. A lease ends in one transaction, so all its keys go at one revision; who deletes on
//! purpose takes keys of one lease one by one, or one of each lease at a time, as our own writer does. A lease that had
//! one key in a watch ends unrecognised there.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};

/// The lease of each key of one watch. Keys are kept as hashes: a hundred thousand of them cost two megabytes, and two
/// keys with one hash would at worst have one's delete taken for an expiry.
#[derive(Clone, Debug, Default)]
pub(crate) struct Expiry {
    leases: HashMap<u64, i64>,
    hasher: RandomState,
}

/// What was deleted at one revision.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Gone {
    pub(crate) deletes: Vec<String>,
    pub(crate) expired: Vec<String>,
}

impl Expiry {
    /// A list begins: it says all of it again.
    pub(crate) fn forget(&mut self) {
        self.leases.clear();
    }

    /// The key was listed or put with this lease, 0 for none.
    pub(crate) fn put(&mut self, key: &str, lease: i64) {
        let hash = self.hasher.hash_one(key);
        if lease == 0 {
            self.leases.remove(&hash);
        } else {
            self.leases.insert(hash, lease);
        }
    }

    /// These keys were deleted at one revision.
    pub(crate) fn delete(&mut self, keys: Vec<String>) -> Gone {
        let leases: Vec<Option<i64>> = keys.iter().map(|key| self.leases.remove(&self.hasher.hash_one(key))).collect();
        let mut together: BTreeMap<i64, usize> = BTreeMap::new();
        for lease in leases.iter().flatten() {
            *together.entry(*lease).or_default() += 1;
        }
        let mut gone = Gone::default();
        for (key, lease) in keys.into_iter().zip(leases) {
            let ended = lease.is_some_and(|lease| together.get(&lease).is_some_and(|keys| *keys > 1));
            if ended { gone.expired.push(key) } else { gone.deletes.push(key) }
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    /// `put KEY LEASE`, `forget`, `delete KEY…`: what each delete comes to.
    fn check(script: &str, expected: &Expect) {
        let (mut expiry, mut said) = (Expiry::default(), String::new());
        for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let words: Vec<&str> = line.split(' ').collect();
            match words[0] {
                "put" => expiry.put(words[1], words[2].parse().unwrap()),
                "forget" => expiry.forget(),
                _ => {
                    let gone = expiry.delete(words[1..].iter().map(|key| (*key).to_owned()).collect());
                    said += &format!("deleted {:?}, expired {:?}\n", gone.deletes, gone.expired);
                }
            }
        }
        expected.assert_eq(&said);
    }

    #[test]
    fn keys_of_one_lease_at_one_revision_are_expired() {
        check(
            "put a 7
             put b 7
             put c 8
             delete a b c",
            &expect![[r#"
                deleted ["c"], expired ["a", "b"]
            "#]],
        );
    }

    #[test]
    fn two_leases_may_end_at_one_revision() {
        check(
            "put a 7
             put b 8
             put c 8
             put d 7
             delete a b c d",
            &expect![[r#"
                deleted [], expired ["a", "b", "c", "d"]
            "#]],
        );
    }

    #[test]
    fn keys_of_one_lease_at_two_revisions_are_deleted() {
        check(
            "put a 7
             put b 7
             delete a
             delete b",
            &expect![[r#"
                deleted ["a"], expired []
                deleted ["b"], expired []
            "#]],
        );
    }

    #[test]
    fn keys_without_a_lease_never_expire() {
        check(
            "put a 0
             put b 0
             delete a b unknown other",
            &expect![[r#"
                deleted ["a", "b", "unknown", "other"], expired []
            "#]],
        );
    }

    #[test]
    fn the_last_put_says_the_lease() {
        check(
            "put a 7
             put b 8
             put b 7
             delete a b
             put a 7
             put b 7
             put b 0
             delete a b",
            &expect![[r#"
                deleted [], expired ["a", "b"]
                deleted ["a", "b"], expired []
            "#]],
        );
    }

    #[test]
    fn a_list_begins_anew() {
        check(
            "put a 7
             put b 7
             forget
             put a 7
             delete a b",
            &expect![[r#"
                deleted ["a", "b"], expired []
            "#]],
        );
    }
}
