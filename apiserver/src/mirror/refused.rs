//! What was refused of one peer, as it is now.

use std::collections::BTreeMap;

use smol_str::SmolStr;
use tombolo_core::admit::{Refusal, Rule};
use tombolo_core::own::{RefusedExample, RefusedReport};

/// Examples that a report shows.
const EXAMPLES: usize = 10;
/// Refusals of one record that are kept; the others are counted.
const PER_RECORD: usize = 10;
/// Bytes of a detail that are kept: a peer decides how long its texts are.
const DETAIL: usize = 256;

/// The refusals in force, by the record's key in the peer's store.
#[derive(Clone, Debug, Default)]
pub(super) struct Refused {
    by_record: BTreeMap<String, Record>,
    /// All of them together, kept up to date: a peer decides how many there are, and reports are made often.
    counts: BTreeMap<&'static str, u64>,
    /// One of those that are only counted, by rule.
    counted: BTreeMap<&'static str, (u64, RefusedExample)>,
}

#[derive(Clone, Debug)]
struct Record {
    counts: BTreeMap<&'static str, u64>,
    first: Vec<(&'static str, String)>,
}

impl Refused {
    /// These are the refusals of a record now. Says whether anything changed.
    pub(super) fn set(&mut self, key: &str, refusals: &[Refusal]) -> bool {
        let removed = self.forget(key);
        if refusals.is_empty() {
            return removed;
        }
        let mut counts = BTreeMap::new();
        for refusal in refusals {
            *counts.entry(refusal.rule.name()).or_default() += 1;
            *self.counts.entry(refusal.rule.name()).or_default() += 1;
        }
        let shown = |refusal: &Refusal| (refusal.rule.name(), shorten(&refusal.detail));
        let first = refusals.iter().take(PER_RECORD).map(shown).collect();
        self.by_record.insert(key.to_owned(), Record { counts, first });
        true
    }

    /// The record is gone. Says whether it had refusals.
    pub(super) fn forget(&mut self, key: &str) -> bool {
        let Some(record) = self.by_record.remove(key) else { return false };
        for (rule, count) in record.counts {
            if let Some(all) = self.counts.get_mut(rule) {
                *all -= count;
            }
        }
        self.counts.retain(|_, count| *count > 0);
        true
    }

    /// All records under this prefix are gone.
    pub(super) fn forget_under(&mut self, prefix: &str) {
        let under = self.by_record.range(prefix.to_owned()..).map(|(key, _)| key).take_while(|k| k.starts_with(prefix));
        for key in under.cloned().collect::<Vec<_>>() {
            self.forget(&key);
        }
    }

    /// One more is refused by this rule, of a kind of records that may be very many: the last one is the example of all.
    pub(super) fn count(&mut self, key: &str, refusal: &Refusal) {
        let rule = refusal.rule.name();
        let example =
            RefusedExample { key: key.to_owned(), rule: SmolStr::new_static(rule), detail: shorten(&refusal.detail) };
        *self.counts.entry(rule).or_default() += 1;
        self.counted
            .entry(rule)
            .and_modify(|(n, last)| (*n, *last) = (*n + 1, example.clone()))
            .or_insert((1, example));
    }

    /// One that was counted is refused no more.
    pub(super) fn uncount(&mut self, rule: Rule) {
        let lower = |n: &mut u64| {
            *n -= 1;
            *n == 0
        };
        if self.counted.get_mut(rule.name()).is_some_and(|(n, _)| lower(n)) {
            self.counted.remove(rule.name());
        }
        if self.counts.get_mut(rule.name()).is_some_and(lower) {
            self.counts.remove(rule.name());
        }
    }

    /// How many records and backends are refused.
    pub(super) fn total(&self) -> u32 {
        u32::try_from(self.counts.values().sum::<u64>()).unwrap_or(u32::MAX)
    }

    /// Counts by rule, and the first examples by key.
    pub(super) fn report(&self) -> RefusedReport {
        let examples = self.by_record.iter().flat_map(|(key, record)| {
            record.first.iter().map(move |(rule, detail)| RefusedExample {
                key: key.clone(),
                rule: SmolStr::new_static(rule),
                detail: detail.clone(),
            })
        });
        RefusedReport {
            counts: self.counts.iter().map(|(rule, count)| (SmolStr::new_static(rule), *count)).collect(),
            examples: examples.chain(self.counted.values().map(|(_, last)| last.clone())).take(EXAMPLES).collect(),
        }
    }
}

fn shorten(text: &str) -> String {
    let end = (0..=DETAIL.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text[..end].to_owned()
}
