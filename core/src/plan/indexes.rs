//! Free positions of an array: the lowest first, so that arrays stay dense.

use alloc::collections::BTreeSet;

/// Which positions are free.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Indexes {
    limit: u32,
    /// All from here on are free.
    untouched: u32,
    /// Free ones below that.
    returned: BTreeSet<u32>,
}

impl Indexes {
    pub(super) fn new(limit: u32) -> Self {
        Self { limit, untouched: 0, returned: BTreeSet::new() }
    }

    pub(super) fn take(&mut self) -> Option<u32> {
        self.returned.pop_first().or_else(|| {
            let next = (self.untouched < self.limit).then_some(self.untouched)?;
            self.untouched += 1;
            Some(next)
        })
    }

    /// Takes this very position; false when it is taken, or none.
    pub(super) fn claim(&mut self, index: u32) -> bool {
        if index >= self.limit {
            return false;
        }
        if index < self.untouched {
            return self.returned.remove(&index);
        }
        self.returned.extend(self.untouched..index);
        self.untouched = index + 1;
        true
    }

    pub(super) fn give(&mut self, index: u32) {
        self.returned.insert(index);
    }

    pub(super) fn used(&self) -> u32 {
        self.untouched - u32::try_from(self.returned.len()).expect("returned positions are distinct numbers of 32 bits")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_free_one_is_taken_up_to_the_limit() {
        let mut indexes = Indexes::new(3);
        assert!(indexes.claim(1) && !indexes.claim(1) && !indexes.claim(3));
        assert_eq!(indexes.used(), 1);
        assert_eq!([indexes.take(), indexes.take(), indexes.take()], [Some(0), Some(2), None]);
        indexes.give(1);
        assert_eq!((indexes.used(), indexes.take(), indexes.take()), (2, Some(1), None));
    }
}
