//! How many flows the datapath tells, so that their readers keep up and a quiet node tells all.
//!
//! Once a second: what was told in the last one says how many decisions there were, and so which part of them gives the
//! wanted number. The estimate is an upper bound, so a steady load is never told more often than wanted.

use serde::{Deserialize, Serialize};

/// Nothing told at a low chance says little about the load: the chance grows by at most this factor a second.
const GROWTH: u64 = 8;

/// The chance of a decision to be told: 0 is never, [`u32::MAX`] always, between them this part of 2³².
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sampling(pub u32);

/// What became of the decisions that were to be told, in one second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Those that were read.
    pub seen: u64,
    /// Those that found the reader's buffer full.
    pub dropped: u64,
}

impl Sampling {
    /// No decision is told.
    pub const NONE: Self = Self(0);
    /// Every decision is told.
    pub const ALL: Self = Self(u32::MAX);
    /// One in 64: where an agent begins that knows nothing of its load.
    pub const FIRST: Self = Self(1 << 26);

    /// Each told decision stands for this many; infinite when none is told.
    pub fn one_in(self) -> f64 {
        if self == Self::ALL { 1.0 } else { 4_294_967_296.0 / f64::from(self.0) }
    }

    /// The chance for the next second, so that about `wanted` decisions are told in it.
    pub fn next(self, told: Told, wanted: u32) -> Self {
        if wanted == 0 {
            return Self::NONE;
        }
        if self == Self::NONE {
            return Self::FIRST;
        }
        let count = told.seen.saturating_add(told.dropped);
        let wanted = u64::from(wanted);
        if self == Self::ALL && count <= wanted {
            return if told.dropped == 0 { Self::ALL } else { Self::ALL.halved() };
        }
        let chance = u64::from(self.0);
        // One more than were told: the true number may lie almost that much higher.
        let fair = u128::from(chance) * u128::from(wanted) / (u128::from(count) + 1);
        let next = fair.min(u128::from(chance * GROWTH)).clamp(1, u128::from(u32::MAX));
        let next = Self(u32::try_from(next).unwrap_or(u32::MAX));
        // Whoever cannot even read what was told is told less, whatever is wanted.
        if told.dropped == 0 { next } else { next.min(self.halved()) }
    }

    fn halved(self) -> Self {
        Self((self.0 / 2).max(1))
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    /// How many of a steady load are told at a chance; none is dropped.
    fn told(load: u64, sampling: Sampling) -> u64 {
        if sampling == Sampling::ALL { load } else { ((u128::from(load) * u128::from(sampling.0)) >> 32) as u64 }
    }

    fn after_a_second(sampling: Sampling, load: u64, wanted: u32) -> Sampling {
        sampling.next(Told { seen: told(load, sampling), dropped: 0 }, wanted)
    }

    fn sampling() -> impl Strategy<Value = Sampling> {
        prop_oneof![any::<u32>(), 0..1000_u32, Just(u32::MAX)].prop_map(Sampling)
    }

    fn load() -> impl Strategy<Value = u64> {
        prop_oneof![0..200_u64, 0..100_000_u64, 0..20_000_000_u64]
    }

    proptest! {
        #[test]
        fn a_steady_load_is_told_as_wanted_and_never_more(start in sampling(), load in load(), wanted in 1..10_000_u32) {
            let mut sampling = after_a_second(start, load, wanted);
            for _ in 0..20 {
                // From nothing one begins somewhere: that is judged a second later, like any sudden load.
                prop_assert!(start == Sampling::NONE || told(load, sampling) <= u64::from(wanted));
                sampling = after_a_second(sampling, load, wanted);
            }
            let told = told(load, sampling);
            prop_assert!(told <= u64::from(wanted));
            // One less than wanted at most is lost to the estimate, and rounding costs one more.
            prop_assert!(told + 2 >= u64::from(wanted).min(load), "{told} of {load}, {wanted} wanted");
        }

        #[test]
        fn a_quiet_node_tells_all(start in sampling(), wanted in 1..10_000_u32) {
            let quiet = u64::from(wanted - 1);
            let settled = (0..20).fold(start, |sampling, _| after_a_second(sampling, quiet, wanted));
            prop_assert_eq!(settled, Sampling::ALL);
        }

        #[test]
        fn a_full_buffer_halves_at_least(start in 2..=u32::MAX, seen: u64, dropped in 1_u64.., wanted in 1..10_000_u32) {
            let next = Sampling(start).next(Told { seen, dropped }, wanted);
            prop_assert!(next.0 <= start / 2 && next.0 > 0);
        }
    }

    #[test]
    fn a_change_of_mind() {
        let mut sampling = Sampling::FIRST;
        let mut steps = Vec::new();
        for (load, wanted) in [(0, 100), (0, 100), (50_000, 100), (50_000, 100), (50_000, 5_000), (50_000, 0), (9, 100)]
        {
            sampling = after_a_second(sampling, load, wanted);
            steps.push(sampling.one_in().round());
        }
        assert_eq!(steps, [8.0, 1.0, 500.0, 500.0, 63.0, f64::INFINITY, 64.0]);
    }
}
