//! Free slots: contiguous ranges, next fit, coalesced when they come back.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// Where the free slots are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ranges {
    /// Base and length of each free range; no two touch.
    free: BTreeMap<u32, u32>,
    /// Where the search begins: the end of the last allocation, so that a fresh array fills without a scan.
    cursor: u32,
    available: u32,
}

impl Ranges {
    pub(super) fn new(capacity: u32) -> Self {
        let free = (capacity > 0).then_some((0, capacity)).into_iter().collect();
        Self { free, cursor: 0, available: capacity }
    }

    /// The first range of at least `count` slots from the cursor on; `None` when no range is that long.
    pub(super) fn take(&mut self, count: u32) -> Option<u32> {
        let fits = |(_, len): &(&u32, &u32)| **len >= count;
        let (base, len) = self
            .free
            .range(self.cursor..)
            .find(fits)
            .or_else(|| self.free.range(..self.cursor).find(fits))
            .map(|(base, len)| (*base, *len))?;
        self.free.remove(&base);
        if len > count {
            self.free.insert(base + count, len - count);
        }
        self.cursor = base + count;
        self.available -= count;
        Some(base)
    }

    /// A range for each count, or nothing at all and the count that found no place.
    pub(super) fn take_all(&mut self, counts: impl Iterator<Item = u32>) -> Result<Vec<u32>, u32> {
        let cursor = self.cursor;
        let mut taken = Vec::new();
        for count in counts {
            let Some(base) = self.take(count) else {
                taken.into_iter().for_each(|(base, count)| self.give(base, count));
                self.cursor = cursor;
                return Err(count);
            };
            taken.push((base, count));
        }
        Ok(taken.into_iter().map(|(base, _)| base).collect())
    }

    /// Takes of this very range what is free, and says which parts that is, ascending.
    pub(super) fn claim(&mut self, base: u32, count: u32) -> Vec<(u32, u32)> {
        let end = base.saturating_add(count);
        let first = self.free.range(..base).next_back().map_or(base, |(left, _)| *left);
        let touching: Vec<(u32, u32)> = self.free.range(first..end).map(|(b, l)| (*b, *l)).collect();
        let mut parts = Vec::new();
        for (left, len) in touching {
            let right = left + len;
            let (from, to) = (left.max(base), right.min(end));
            if from >= to {
                continue;
            }
            self.free.remove(&left);
            self.free.extend([(left, from - left), (to, right - to)].into_iter().filter(|(_, len)| *len > 0));
            self.available -= to - from;
            self.cursor = self.cursor.max(to);
            parts.push((from, to - from));
        }
        parts
    }

    /// Gives a taken range back.
    pub(super) fn give(&mut self, base: u32, count: u32) {
        let (mut base, mut len) = (base, count);
        self.available += count;
        if let Some((left, left_len)) = self.free.range(..base).next_back().map(|(b, l)| (*b, *l))
            && left + left_len == base
        {
            self.free.remove(&left);
            (base, len) = (left, left_len + len);
        }
        if let Some(right_len) = self.free.remove(&(base + len)) {
            len += right_len;
        }
        self.free.insert(base, len);
    }

    pub(super) fn available(&self) -> u32 {
        self.available
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use expect_test::{Expect, expect};

    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "expect![] is a value at every call")]
    fn check(ranges: &Ranges, free: Expect) {
        free.assert_eq(&alloc::format!("{:?} of {}", ranges.free, ranges.available));
    }

    #[test]
    fn takes_from_the_cursor_and_wraps_around() {
        let mut ranges = Ranges::new(10);
        assert_eq!((ranges.take(4), ranges.take(4), ranges.take(3)), (Some(0), Some(4), None));
        ranges.give(0, 4);
        check(&ranges, expect!["{0: 4, 8: 2} of 6"]);
        assert_eq!((ranges.take(2), ranges.take(3)), (Some(8), Some(0)));
        check(&ranges, expect!["{3: 1} of 1"]);
    }

    #[test]
    fn coalesces_with_both_neighbours() {
        let mut ranges = Ranges::new(9);
        for base in [0, 3, 6] {
            assert_eq!(ranges.take(3), Some(base));
        }
        ranges.give(0, 3);
        ranges.give(6, 3);
        check(&ranges, expect!["{0: 3, 6: 3} of 6"]);
        ranges.give(3, 3);
        check(&ranges, expect!["{0: 9} of 9"]);
    }

    #[test]
    fn takes_all_or_nothing() {
        let mut ranges = Ranges::new(10);
        assert_eq!(ranges.take_all([3, 3].into_iter()), Ok(vec![0, 3]));
        ranges.give(0, 3);
        let before = ranges.clone();
        assert_eq!(ranges.take_all([4, 2, 2].into_iter()), Err(2));
        assert_eq!(ranges, before);
    }

    #[test]
    fn claims_what_is_free_of_a_range() {
        let mut ranges = Ranges::new(10);
        assert_eq!(ranges.claim(2, 3), [(2, 3)]);
        assert_eq!(ranges.claim(7, 1), [(7, 1)]);
        check(&ranges, expect!["{0: 2, 5: 2, 8: 2} of 6"]);
        assert_eq!(ranges.claim(1, 8), [(1, 1), (5, 2), (8, 1)]);
        check(&ranges, expect!["{0: 1, 9: 1} of 2"]);
        assert_eq!((ranges.claim(0, 0), ranges.claim(12, u32::MAX)), (vec![], vec![]));
        assert_eq!(ranges.claim(4, u32::MAX), [(9, 1)]);
        assert_eq!((ranges.take(1), ranges.take(1)), (Some(0), None));
    }

    #[test]
    fn an_empty_array_has_no_room() {
        assert_eq!(Ranges::new(0).take(1), None);
    }
}
