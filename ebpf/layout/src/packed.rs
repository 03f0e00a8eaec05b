//! Values that a program must load at once, packed into one aligned word: a value of several fields tears.

/// How many frontends an index of 24 bits can tell apart.
pub const MAX_SERVICES: u32 = 1 << INDEX_BITS;

/// How many slots one table may have.
pub const MAX_SLOTS_PER_TABLE: u32 = (1 << COUNT_BITS) - 1;

pub(crate) const INDEX_BITS: u32 = 24;
pub(crate) const FLAG_BITS: u32 = 8;
pub(crate) const BASE_BITS: u32 = 32;
pub(crate) const COUNT_BITS: u32 = 20;
pub(crate) const GENERATION_BITS: u32 = 12;

/// A connect to an empty table is left untranslated instead of refused.
pub(crate) const FLAG_PASS: u8 = 1;

/// A value of `services`: from the low end index 24, flags 8, affinity timeout in seconds 32 bits.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceValue(u64);

impl ServiceValue {
    /// Packs a value; `None` when the index has more than 24 bits.
    pub const fn new(index: u32, pass: bool, affinity_seconds: u32) -> Option<Self> {
        if index >= MAX_SERVICES {
            return None;
        }
        let flags = if pass { FLAG_PASS } else { 0 };
        Some(Self(index as u64 | (flags as u64) << INDEX_BITS | (affinity_seconds as u64) << (INDEX_BITS + FLAG_BITS)))
    }

    /// The frontend's place in `switch`.
    #[inline(always)]
    pub const fn index(self) -> u32 {
        self.0 as u32 & (MAX_SERVICES - 1)
    }

    /// Whether a connect to an empty table is left untranslated.
    #[inline(always)]
    pub const fn pass(self) -> bool {
        (self.0 >> INDEX_BITS) as u8 & FLAG_PASS != 0
    }

    /// ClientIP affinity in seconds, 0 = none.
    #[inline(always)]
    pub const fn affinity_seconds(self) -> u32 {
        (self.0 >> (INDEX_BITS + FLAG_BITS)) as u32
    }

    /// The word as a map holds it.
    pub const fn to_raw(self) -> u64 {
        self.0
    }

    /// A word of a map.
    #[inline(always)]
    pub const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }
}

/// A value of `switch`: from the low end base 32, count 20, generation 12 bits.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SwitchValue(u64);

impl SwitchValue {
    /// Packs a value; `None` when the count has more than 20 bits or the generation more than 12.
    pub const fn new(base: u32, count: u32, generation: u16) -> Option<Self> {
        if count > MAX_SLOTS_PER_TABLE || generation >> GENERATION_BITS != 0 {
            return None;
        }
        Some(Self(base as u64 | (count as u64) << BASE_BITS | (generation as u64) << (BASE_BITS + COUNT_BITS)))
    }

    /// The table's first slot.
    #[inline(always)]
    pub const fn base(self) -> u32 {
        self.0 as u32
    }

    /// How many slots the table has, 0 when no backend serves.
    #[inline(always)]
    pub const fn count(self) -> u32 {
        (self.0 >> BASE_BITS) as u32 & MAX_SLOTS_PER_TABLE
    }

    /// Counts the table's changes.
    #[inline(always)]
    pub const fn generation(self) -> u16 {
        (self.0 >> (BASE_BITS + COUNT_BITS)) as u16
    }

    /// The slot that a random word picks, evenly; `None` when the table is empty.
    #[inline(always)]
    pub const fn pick(self, random: u32) -> Option<u32> {
        if self.count() == 0 {
            return None;
        }
        // A product's upper half is below the count: no division, and no bias worth its cost.
        let offset = (random as u64 * self.count() as u64) >> 32;
        Some(self.base().wrapping_add(offset as u32))
    }

    /// The word as a map holds it.
    pub const fn to_raw(self) -> u64 {
        self.0
    }

    /// A word of a map.
    #[inline(always)]
    pub const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{MAX_SERVICES, MAX_SLOTS_PER_TABLE, ServiceValue, SwitchValue};

    #[test]
    fn words_are_laid_out_as_the_design_says() {
        let service = ServiceValue::new(0x00ab_cdef, true, 0x1234_5678).unwrap();
        assert_eq!(service.to_raw(), 0x1234_5678_01ab_cdef);
        let switch = SwitchValue::new(0x89ab_cdef, 0x4_5678, 0x123).unwrap();
        assert_eq!(switch.to_raw(), 0x1234_5678_89ab_cdef);
    }

    #[test]
    fn what_does_not_fit_is_not_packed() {
        assert_eq!(ServiceValue::new(MAX_SERVICES, false, 0), None);
        assert_eq!(SwitchValue::new(0, MAX_SLOTS_PER_TABLE + 1, 0), None);
        assert_eq!(SwitchValue::new(0, 0, 1 << 12), None);
    }

    #[test]
    fn the_pick_is_even() {
        let switch = SwitchValue::new(100, 3, 0).unwrap();
        let mut hits = [0_u32; 3];
        for step in 0..3_000_u32 {
            let slot = switch.pick(step * (u32::MAX / 3_000)).unwrap();
            hits[slot as usize - 100] += 1;
        }
        assert!(hits.iter().all(|hit| hit.abs_diff(1_000) <= 2), "{hits:?}");
    }

    proptest! {
        #[test]
        fn services_come_back(index in 0..MAX_SERVICES, pass: bool, affinity: u32) {
            let value = ServiceValue::new(index, pass, affinity).unwrap();
            prop_assert_eq!((value.index(), value.pass(), value.affinity_seconds()), (index, pass, affinity));
            prop_assert_eq!(ServiceValue::from_raw(value.to_raw()), value);
        }

        #[test]
        fn switches_come_back(base: u32, count in 0..=MAX_SLOTS_PER_TABLE, generation in 0_u16..1 << 12) {
            let value = SwitchValue::new(base, count, generation).unwrap();
            prop_assert_eq!((value.base(), value.count(), value.generation()), (base, count, generation));
            prop_assert_eq!(SwitchValue::from_raw(value.to_raw()), value);
        }

        #[test]
        fn a_pick_is_inside_the_range(
            base in 0..u32::MAX - MAX_SLOTS_PER_TABLE,
            count in 0..=MAX_SLOTS_PER_TABLE,
            random: u32,
        ) {
            let picked = SwitchValue::new(base, count, 0).unwrap().pick(random);
            prop_assert_eq!(picked.is_some(), count > 0);
            prop_assert!(picked.is_none_or(|slot| slot >= base && slot - base < count));
        }
    }
}
