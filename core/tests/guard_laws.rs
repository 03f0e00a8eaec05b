//! The laws of the deletion guard, over random histories.
//!
//! A stupid reference reads the whole log again at every judgement: it has no state, no index, and counts by looking.

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::vec;
use proptest::prelude::*;
use tombolo_core::hold::guard::{Cause, FEW, GHOST_MS, Guard, Turn, WINDOW_MS};
use tombolo_core::id::{Millis, ServiceKey};
use tombolo_core::model::Endpoint;
use tombolo_testkit::fixture::{endpoint, key};

/// One slice lists these numbers from now on, or what happened is judged.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Said {
    Slice { service: u8, slice: u8, numbers: BTreeSet<u8>, cause: Cause },
    Judge,
}

type Log = [(u64, Said)];

mod reference {
    use super::{BTreeSet, Cause, FEW, GHOST_MS, Log, Said, WINDOW_MS};

    /// The backends of a service after this log.
    fn present(log: &Log, service: u8) -> BTreeSet<u8> {
        let of = |slice| {
            log.iter().rev().find_map(|(_, said)| match said {
                Said::Slice { service: s, slice: n, numbers, .. } if (*s, *n) == (service, slice) => {
                    Some(numbers.clone())
                }
                _ => None,
            })
        };
        (0..4).filter_map(of).flatten().collect()
    }

    /// Those that came and went with the last word of this log.
    fn turn(log: &Log, service: u8) -> (BTreeSet<u8>, BTreeSet<u8>) {
        let (before, after) = (present(&log[..log.len() - 1], service), present(log, service));
        (after.difference(&before).copied().collect(), before.difference(&after).copied().collect())
    }

    fn is_said(said: &Said) -> bool {
        matches!(said, Said::Slice { cause: Cause::Said, .. })
    }

    /// By how many it fell in the last while, from the most there was.
    fn fall(log: &Log, service: u8) -> usize {
        let now = log.last().map_or(0, |(at, _)| *at);
        let lately = (1..=log.len()).filter(|end| now - log[end - 1].0 < WINDOW_MS);
        lately.fold(0_usize, |fall, end| {
            let (came, went) = turn(&log[..end], service);
            let went = if is_said(&log[end - 1].1) { went.len() } else { 0 };
            (fall + went).saturating_sub(came.len())
        })
    }

    fn is_sweep(log: &Log) -> bool {
        let falls: Vec<usize> = (0..3).map(|service| fall(log, service)).collect();
        let fallen: usize = falls.iter().sum();
        let there: usize = (0..3).map(|service| present(log, service).len()).sum();
        fallen > (fallen + there) / 2 && fallen > FEW && falls.iter().filter(|fall| **fall > 0).count() >= 2
    }

    /// The ghosts of a service after this log, which ends with a judgement.
    pub(super) fn ghosts(log: &Log, service: u8) -> BTreeSet<u8> {
        let judged = (1..=log.len()).filter(|end| log[end - 1].1 == Said::Judge);
        let sweeps: Vec<usize> = judged.filter(|end| is_sweep(&log[..*end])).collect();
        (0..16).filter(|number| is_ghost(log, &sweeps, service, *number)).collect()
    }

    fn is_ghost(log: &Log, sweeps: &[usize], service: u8, number: u8) -> bool {
        let went = (1..=log.len()).rev().find(|end| turn(&log[..*end], service).1.contains(&number));
        let Some(went) = went.filter(|end| is_said(&log[end - 1].1)) else { return false };
        let raised = sweeps.iter().find(|end| **end >= went).map(|end| log[end - 1].0);
        let now = log[log.len() - 1].0;
        let raised = raised.filter(|at| at - log[went - 1].0 < WINDOW_MS);
        !present(log, service).contains(&number) && raised.is_some_and(|at| now < at + GHOST_MS)
    }
}

fn slice(services: std::ops::Range<u8>) -> impl Strategy<Value = Said> {
    let some = proptest::collection::btree_set(0..16_u8, 0..16);
    let numbers = prop_oneof![
        2 => some,
        3 => Just(BTreeSet::new()),
        3 => (0..4_u8, 8..16_u8).prop_map(|(first, end)| (first..end).collect()),
    ];
    let cause = prop_oneof![9 => Just(Cause::Said), 1 => Just(Cause::Decided)];
    (services, 0..2_u8, numbers, cause).prop_map(|(service, slice, numbers, cause)| Said::Slice {
        service,
        slice,
        numbers,
        cause,
    })
}

fn log(services: std::ops::Range<u8>) -> impl Strategy<Value = Vec<(u64, Said)>> {
    let step = prop_oneof![
        12 => 0..100_u64,
        1 => Just(WINDOW_MS - 1),
        1 => Just(WINDOW_MS),
        1 => Just(GHOST_MS),
        1 => 0..GHOST_MS,
    ];
    let said = prop_oneof![3 => slice(services), 2 => Just(Said::Judge)];
    vec((step, said), 0..30).prop_map(|steps| {
        let at = |now: &mut u64, (ms, said)| {
            *now += ms;
            Some((*now, said))
        };
        steps.into_iter().scan(0, at).collect()
    })
}

fn name(service: u8) -> ServiceKey {
    key(["a", "b", "c"][usize::from(service)])
}

fn endpoints(numbers: &BTreeSet<u8>) -> Vec<Endpoint> {
    numbers.iter().map(|n| endpoint(&format!("10.0.0.{n}"), "80")).collect()
}

/// A guard, whoever feeds it, and whoever follows what it says.
#[derive(Default)]
struct Following {
    guard: Guard,
    slices: BTreeMap<(u8, u8), BTreeSet<u8>>,
    ghosts: BTreeMap<ServiceKey, BTreeSet<u8>>,
}

impl Following {
    fn hear(&mut self, said: &Said, now: u64) {
        match said {
            Said::Judge => {
                let judgement = self.guard.judge(Millis(now));
                assert!(judgement.sweep.is_none() || !judgement.services.is_empty());
                for service in judgement.services {
                    self.ghosts.insert(service.clone(), numbers(&self.guard, &service));
                }
            }
            Said::Slice { service, slice, numbers, cause } => {
                let (key, named) = (name(*service), format!("s{slice}").into());
                let before = self.slices.insert((*service, *slice), numbers.clone()).unwrap_or_default();
                let (before, after) = (endpoints(&before), endpoints(numbers));
                let turn =
                    Turn { service: &key, slice: &named, before: &before, revision: 1, after: &after, cause: *cause };
                self.guard.turn(turn, Millis(now));
            }
        }
    }
}

fn numbers(guard: &Guard, service: &ServiceKey) -> BTreeSet<u8> {
    guard.ghosts(service).map(|ghost| ghost.endpoint.addr.octets()[15]).collect()
}

proptest! {
    #[test]
    fn it_is_what_the_reference_says(log in log(0..3)) {
        let mut following = Following::default();
        for (end, (now, said)) in log.iter().enumerate() {
            following.hear(said, *now);
            if *said != Said::Judge {
                continue;
            }
            for service in 0..3 {
                let ghosts = numbers(&following.guard, &name(service));
                prop_assert_eq!(&ghosts, &reference::ghosts(&log[..=end], service), "{} after {:?}", service, &log[..=end]);
                prop_assert_eq!(&ghosts, &following.ghosts.get(&name(service)).cloned().unwrap_or_default());
            }
        }
    }

    #[test]
    fn one_service_alone_is_never_held(log in log(1..2)) {
        let mut following = Following::default();
        for (now, said) in &log {
            following.hear(said, *now);
            prop_assert!(following.guard.is_empty());
        }
    }

    #[test]
    fn no_ghost_is_also_there(log in log(0..3)) {
        let mut following = Following::default();
        for (now, said) in &log {
            following.hear(said, *now);
            for ((service, _), there) in &following.slices {
                prop_assert!(numbers(&following.guard, &name(*service)).is_disjoint(there));
            }
            let all: usize = (0..3).map(|service| numbers(&following.guard, &name(service)).len()).sum();
            prop_assert_eq!((following.guard.len(), following.guard.is_empty()), (all, all == 0));
        }
    }

    #[test]
    fn nothing_changes_by_itself_before_the_deadline(log in log(0..3)) {
        let mut following = Following::default();
        for (now, said) in log {
            following.hear(&said, now);
            if said != Said::Judge {
                continue;
            }
            let deadline = following.guard.deadline();
            let before = deadline.map_or(now + 10 * GHOST_MS, |Millis(at)| at - 1);
            prop_assert_eq!(following.guard.clone().judge(Millis(before)), Default::default());
            if let Some(at) = deadline {
                prop_assert!(!following.guard.clone().judge(at).services.is_empty());
            }
        }
    }
}
