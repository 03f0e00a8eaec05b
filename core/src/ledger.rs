//! Counters of services that never go back, from the kernel's, which do.
//!
//! The kernel counts by frontend and begins anew when a frontend gets another place. What a service counted stays with it
//! as long as it exists, whatever becomes of its frontends. So that a large mesh costs a reader little, only so many
//! services are counted by name; the others together.

use alloc::collections::{BTreeMap, BTreeSet};
use core::ops::{AddAssign, Sub};

use crate::id::ServiceKey;
use crate::model::Frontend;
use crate::tables::ServiceIndex;

/// What the datapath did for a frontend, or for a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections and first datagrams that were given a backend.
    pub connects: u64,
    /// Those that found none and were refused.
    pub refused: u64,
}

/// The counters by service.
#[derive(Clone, Debug)]
pub struct Ledger {
    most: usize,
    frontends: BTreeMap<Frontend, Seen>,
    named: BTreeMap<ServiceKey, Counts>,
    others: Counts,
}

/// Where a frontend's counters were read last, and what they said.
#[derive(Clone, Debug)]
struct Seen {
    index: ServiceIndex,
    owner: ServiceKey,
    counts: Counts,
}

impl Ledger {
    /// An empty ledger that names at most so many services.
    pub fn new(most: usize) -> Self {
        Self { most, frontends: BTreeMap::new(), named: BTreeMap::new(), others: Counts::default() }
    }

    /// Takes in what a frontend's counters say. A frontend that was not known counts from 0: it was there before us.
    pub fn read(&mut self, frontend: Frontend, index: ServiceIndex, owner: &ServiceKey, counts: Counts) {
        let known = self.frontends.get(&frontend).filter(|seen| seen.index == index);
        let before = known.map(|seen| seen.counts).unwrap_or_default();
        self.credit(owner, counts - before);
        self.frontends.insert(frontend, Seen { index, owner: owner.clone(), counts });
    }

    /// A frontend was made known, and its counters stand here: what they counted before is somebody else's.
    pub fn begin(&mut self, frontend: Frontend, index: ServiceIndex, owner: &ServiceKey, counts: Counts) {
        if self.frontends.get(&frontend).is_none_or(|seen| seen.index != index) {
            self.frontends.insert(frontend, Seen { index, owner: owner.clone(), counts });
        }
    }

    /// Where a frontend's counters are.
    pub fn index(&self, frontend: &Frontend) -> Option<ServiceIndex> {
        self.frontends.get(frontend).map(|seen| seen.index)
    }

    /// A frontend was made unknown, and its counters stand here.
    pub fn end(&mut self, frontend: &Frontend, counts: Counts) {
        if let Some(seen) = self.frontends.remove(frontend) {
            self.credit(&seen.owner, counts - seen.counts);
        }
    }

    /// Forgets the services that are gone: their names are free for others.
    pub fn retain(&mut self, services: &BTreeSet<&ServiceKey>) {
        self.named.retain(|service, _| services.contains(service));
    }

    /// The services that are counted by name, ascending.
    pub fn named(&self) -> impl Iterator<Item = (&ServiceKey, Counts)> {
        self.named.iter().map(|(service, counts)| (service, *counts))
    }

    /// All that was counted for services without a name here.
    pub fn others(&self) -> Counts {
        self.others
    }

    fn credit(&mut self, service: &ServiceKey, more: Counts) {
        if let Some(counts) = self.named.get_mut(service) {
            *counts += more;
        } else if self.named.len() < self.most {
            self.named.insert(service.clone(), more);
        } else {
            self.others += more;
        }
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, more: Self) {
        self.connects = self.connects.saturating_add(more.connects);
        self.refused = self.refused.saturating_add(more.refused);
    }
}

/// The difference between two readings; a counter that is lower than before has begun anew.
impl Sub for Counts {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        let since = |now: u64, before: u64| now.checked_sub(before).unwrap_or(now);
        Self { connects: since(self.connects, before.connects), refused: since(self.refused, before.refused) }
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::vec::Vec;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::model::Protocol;

    const MOST: usize = 2;

    #[derive(Clone, Debug)]
    enum Step {
        /// A frontend moves to a place, by a plan, for a service.
        Put {
            frontend: u16,
            index: u32,
            service: u8,
        },
        /// The kernel counts so many.
        Count {
            frontend: u16,
            connects: u64,
        },
        Delete {
            frontend: u16,
        },
        /// Somebody scrapes.
        Scrape,
        /// Only services with a frontend are left.
        Retain,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..4_u16, 0..6_u32, 0..4_u8).prop_map(|(frontend, index, service)| Step::Put { frontend, index, service }),
            (0..4_u16, 1..9_u64).prop_map(|(frontend, connects)| Step::Count { frontend, connects }),
            (0..4_u16).prop_map(|frontend| Step::Delete { frontend }),
            Just(Step::Scrape),
            Just(Step::Retain),
        ]
    }

    fn frontend(port: u16) -> Frontend {
        Frontend { addr: "10.96.0.10".parse().unwrap(), port, protocol: Protocol::Tcp }
    }

    fn service(n: u8) -> ServiceKey {
        ServiceKey::new("default", format!("s{n}"))
    }

    /// The kernel and the agent around a ledger.
    struct World {
        ledger: Ledger,
        /// By place: whose it was last, and its counter.
        kernel: BTreeMap<u32, (u16, u64)>,
        /// Frontends that are known, with place and service.
        known: BTreeMap<u16, (u32, u8)>,
        counted: u64,
        /// What was counted for services that were forgotten.
        gone: u64,
    }

    impl World {
        fn counts(&self, index: u32) -> Counts {
            Counts { connects: self.kernel.get(&index).map_or(0, |(_, connects)| *connects), refused: 0 }
        }

        fn scrape(&mut self) {
            for (port, (index, owner)) in self.known.clone() {
                let counts = self.counts(index);
                self.ledger.read(frontend(port), ServiceIndex(index), &service(owner), counts);
            }
        }

        fn delete(&mut self, port: u16) {
            if let Some((index, _)) = self.known.remove(&port) {
                self.ledger.end(&frontend(port), self.counts(index));
            }
        }

        fn put(&mut self, port: u16, index: u32, owner: u8) {
            if self.known.iter().any(|(other, (taken, _))| *taken == index && *other != port) {
                return;
            }
            if self.known.get(&port).is_some_and(|(at, _)| *at != index) {
                self.delete(port);
            }
            // As the executor does: a place keeps what it counted when the same frontend comes back to it.
            if self.kernel.get(&index).is_none_or(|(was, _)| *was != port) {
                self.kernel.insert(index, (port, 0));
            }
            self.known.insert(port, (index, owner));
            self.ledger.begin(frontend(port), ServiceIndex(index), &service(owner), self.counts(index));
        }

        fn run(&mut self, step: &Step) {
            match *step {
                Step::Put { frontend, index, service } => {
                    // A plan is preceded by a reading of all that it touches.
                    self.scrape();
                    self.put(frontend, index, service);
                }
                Step::Count { frontend, connects } => {
                    if let Some((index, _)) = self.known.get(&frontend) {
                        self.kernel.get_mut(index).unwrap().1 += connects;
                        self.counted += connects;
                    }
                }
                Step::Delete { frontend } => self.delete(frontend),
                Step::Scrape => self.scrape(),
                Step::Retain => {
                    self.scrape();
                    let left: Vec<_> = self.known.values().map(|(_, owner)| service(*owner)).collect();
                    let before = self.total();
                    self.ledger.retain(&left.iter().collect());
                    self.gone += before - self.total();
                }
            }
        }

        fn total(&self) -> u64 {
            self.ledger.named().map(|(_, counts)| counts.connects).sum::<u64>() + self.ledger.others().connects
        }
    }

    proptest! {
        #[test]
        fn everything_is_counted_once_and_nothing_goes_back(steps in vec(step(), 1..60)) {
            let mut world = World {
                ledger: Ledger::new(MOST),
                kernel: BTreeMap::new(),
                known: BTreeMap::new(),
                counted: 0,
                gone: 0,
            };
            for step in steps {
                let before: BTreeMap<_, _> = world.ledger.named().map(|(s, c)| (s.clone(), c.connects)).collect();
                let others = world.ledger.others().connects;
                let forgets = matches!(step, Step::Retain);
                world.run(&step);
                let now: BTreeMap<_, _> = world.ledger.named().map(|(s, c)| (s.clone(), c.connects)).collect();
                prop_assert!(now.len() <= MOST && world.ledger.others().connects >= others);
                for (service, connects) in before {
                    prop_assert!(forgets || now[&service] >= connects, "{service}");
                }
            }
            world.scrape();
            prop_assert_eq!(world.total() + world.gone, world.counted);
        }
    }

    #[test]
    fn what_an_earlier_agent_left_counts() {
        let mut ledger = Ledger::new(1);
        let counts = |connects, refused| Counts { connects, refused };
        ledger.read(frontend(80), ServiceIndex(3), &service(1), counts(10, 1));
        ledger.read(frontend(81), ServiceIndex(4), &service(2), counts(5, 0));
        ledger.read(frontend(80), ServiceIndex(3), &service(1), counts(12, 1));
        assert_eq!(ledger.named().collect::<Vec<_>>(), [(&service(1), counts(12, 1))]);
        assert_eq!(ledger.others(), counts(5, 0));
        ledger.retain(&BTreeSet::from([&service(2)]));
        ledger.read(frontend(81), ServiceIndex(4), &service(2), counts(9, 2));
        assert_eq!(
            ledger.named().collect::<Vec<_>>(),
            [(&service(2), counts(4, 2))],
            "what it had stays with the others"
        );
        assert_eq!(ledger.others(), counts(5, 0));
    }
}
