//! Which set of labels has which number.

use alloc::collections::BTreeMap;
use core::ops::RangeInclusive;

use super::LabelSet;

/// So many label sets that no Pod has any more keep their numbers: a Deployment scaled to nothing and back finds its own
/// again, and a number means another thing only long after peers forgot what it meant.
pub const IDLE: usize = 1024;

/// What became of kept numbers: the labels of one that is kept, `None` for one that no longer is.
pub type KeptChanges = BTreeMap<u32, Option<LabelSet>>;

/// No number is left for another set of labels.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("all {count} numbers from {first} to {last} are in use: no identity is left for another set of labels")]
pub struct Exhausted {
    /// How many there are.
    pub count: usize,
    /// The first.
    pub first: u32,
    /// The last.
    pub last: u32,
}

/// The numbers of one cluster: each set of labels that is in use has one, and no two have the same.
#[derive(Clone, Debug)]
pub struct Identities {
    range: RangeInclusive<u32>,
    by_labels: BTreeMap<LabelSet, Numbered>,
    by_number: BTreeMap<u32, LabelSet>,
    /// Numbers that nobody uses, by when they were let go.
    idle: BTreeMap<u64, u32>,
    /// Counts what was let go.
    turn: u64,
    /// Where the next free number is looked for: behind the last one given, so that a number rests for long.
    next: u32,
    /// What changed since the last [`Self::take_changes`].
    changes: KeptChanges,
}

#[derive(Clone, Copy, Debug)]
struct Numbered {
    number: u32,
    use_: Use,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    /// So many have it.
    By(usize),
    /// Nobody has; it was let go at that turn.
    Idle(u64),
}

impl Identities {
    /// Numbers of this range, all of them free.
    pub fn new(range: RangeInclusive<u32>) -> Self {
        Self {
            next: *range.start(),
            range,
            by_labels: BTreeMap::new(),
            by_number: BTreeMap::new(),
            idle: BTreeMap::new(),
            turn: 0,
            changes: KeptChanges::new(),
        }
    }

    /// These numbers were given in an earlier life: whoever has the labels gets them again. What is of another range,
    /// or given already, is forgotten. The earlier one of two counts.
    pub fn remember(&mut self, kept: impl IntoIterator<Item = (u32, LabelSet)>) {
        for (number, labels) in kept {
            let taken = self.by_number.contains_key(&number) || self.by_labels.contains_key(&labels);
            if !taken && self.range.contains(&number) {
                self.insert(number, labels.clone(), Use::Idle(self.turn));
                self.idle.insert(self.turn, number);
                self.turn += 1;
                self.next = self.next.max(number.saturating_add(1));
            }
        }
    }

    /// One more has these labels: their number, which is a new one if nobody had them.
    pub fn claim(&mut self, labels: &LabelSet) -> Result<u32, Exhausted> {
        if let Some(numbered) = self.by_labels.get_mut(labels) {
            match numbered.use_ {
                Use::By(users) => numbered.use_ = Use::By(users + 1),
                Use::Idle(turn) => {
                    self.idle.remove(&turn);
                    numbered.use_ = Use::By(1);
                }
            }
            return Ok(numbered.number);
        }
        let number = self.free().ok_or_else(|| self.exhausted())?;
        self.insert(number, labels.clone(), Use::By(1));
        self.next = number.saturating_add(1);
        Ok(number)
    }

    /// One of those who have these labels is gone.
    pub fn release(&mut self, labels: &LabelSet) {
        let Some(numbered) = self.by_labels.get_mut(labels) else { return };
        match numbered.use_ {
            Use::By(users) if users > 1 => numbered.use_ = Use::By(users - 1),
            Use::By(_) => {
                numbered.use_ = Use::Idle(self.turn);
                self.idle.insert(self.turn, numbered.number);
                self.turn += 1;
            }
            Use::Idle(_) => {}
        }
    }

    /// Forgets which numbers the label sets had that nobody has any more, but for the last of them, normally [`IDLE`].
    pub fn forget_idle(&mut self, keep: usize) {
        while self.idle.len() > keep {
            self.forget_oldest();
        }
    }

    /// The labels of a number that is in use.
    pub fn labels(&self, number: u32) -> Option<&LabelSet> {
        let labels = self.by_number.get(&number)?;
        matches!(self.by_labels.get(labels)?.use_, Use::By(_)).then_some(labels)
    }

    /// The numbers in use, ascending.
    pub fn used(&self) -> impl Iterator<Item = u32> {
        self.by_number.keys().copied().filter(|number| self.labels(*number).is_some())
    }

    /// All numbers that are kept, in use or not, ascending.
    pub fn kept(&self) -> impl Iterator<Item = (u32, &LabelSet)> {
        self.by_number.iter().map(|(number, labels)| (*number, labels))
    }

    /// What became of kept numbers since this was last asked.
    pub fn take_changes(&mut self) -> KeptChanges {
        core::mem::take(&mut self.changes)
    }

    /// Whether another set of labels would get a number.
    pub(crate) fn has_room(&self) -> bool {
        !self.idle.is_empty() || self.by_number.len() < self.count()
    }

    /// Whether these labels have a number already.
    pub(crate) fn knows(&self, labels: &LabelSet) -> bool {
        self.by_labels.contains_key(labels)
    }

    /// What whoever finds no number is told.
    pub(crate) fn exhausted(&self) -> Exhausted {
        Exhausted { count: self.count(), first: *self.range.start(), last: *self.range.end() }
    }

    fn insert(&mut self, number: u32, labels: LabelSet, use_: Use) {
        self.by_labels.insert(labels.clone(), Numbered { number, use_ });
        self.by_number.insert(number, labels.clone());
        self.changes.insert(number, Some(labels));
    }

    /// A number nobody has, or else the one that was let go longest ago.
    fn free(&mut self) -> Option<u32> {
        if self.by_number.len() == self.count() {
            return self.forget_oldest();
        }
        let (first, last) = (*self.range.start(), *self.range.end());
        let free = |range: RangeInclusive<u32>| {
            let mut taken = self.by_number.range(range.clone()).map(|(number, _)| *number);
            range.into_iter().find(|number| taken.next() != Some(*number))
        };
        let behind = (self.next <= last).then(|| free(self.next..=last)).flatten();
        behind.or_else(|| free(first..=last))
    }

    fn forget_oldest(&mut self) -> Option<u32> {
        let (_, number) = self.idle.pop_first()?;
        if let Some(labels) = self.by_number.remove(&number) {
            self.by_labels.remove(&labels);
        }
        self.changes.insert(number, None);
        Some(number)
    }

    fn count(&self) -> usize {
        self.range.clone().count()
    }
}
