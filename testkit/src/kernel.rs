//! The datapath's maps as plain collections, executing plans, with programs that are still running.
//!
//! After every single operation each frontend must lead to its old or its new table, whole; and whatever a program has
//! already read must stay true for it until the grace period that ends it. A program is ended by [`Kernel::grace`].

use std::collections::{BTreeMap, BTreeSet};

use tombolo_core::model::{BackendKey, Frontend, NoBackend};
use tombolo_core::tables::{BackendId, BackendIndex, Contents, Op, ServiceEntry, ServiceIndex, SwitchEntry};

/// What a lookup of one frontend finds.
pub type Found = (Vec<BackendKey>, NoBackend, u32);

/// The maps.
#[derive(Clone, Debug, Default)]
pub struct Kernel {
    /// `services`.
    pub services: BTreeMap<Frontend, ServiceEntry>,
    /// `frontends`.
    pub frontends: BTreeMap<ServiceIndex, Frontend>,
    /// `switch`.
    pub switch: BTreeMap<ServiceIndex, SwitchEntry>,
    /// `slots`; what is not here lies outside the map, or was never written.
    pub slots: BTreeMap<u32, BackendIndex>,
    /// `backends`.
    pub backends: BTreeMap<BackendIndex, (BackendId, BackendKey)>,
    /// `members`.
    pub members: BTreeMap<(ServiceIndex, BackendId), BackendIndex>,
    ids: BTreeSet<BackendId>,
    programs: Vec<Program>,
    plans: u64,
    /// Some of it is not what a plan left behind.
    inherited: bool,
}

/// A program that was interrupted with something in its hands, and what it must lead to.
#[derive(Clone, Debug)]
struct Program {
    began: u64,
    holds: Held,
}

#[derive(Clone, Debug)]
enum Held {
    Range(SwitchEntry, Vec<Option<BackendKey>>),
    Member(BackendIndex, Option<BackendKey>),
}

impl Kernel {
    /// From here on nothing that the maps hold need be what a plan left behind.
    pub fn inherit(&mut self) {
        self.ids.extend(self.backends.values().map(|b| b.0));
        self.inherited = true;
    }

    /// What the maps hold.
    pub fn contents(&self) -> Contents {
        let table = |entry: &ServiceEntry| {
            let switch = self.switch_of(entry.index);
            let slots = (switch.base..switch.base.saturating_add(switch.count)).map_while(|slot| self.slots.get(&slot));
            (entry.index, (switch, slots.copied().collect()))
        };
        let used = |index: &ServiceIndex| self.services.values().any(|entry| entry.index == *index);
        Contents {
            services: self.services.iter().map(|(frontend, entry)| (*frontend, *entry)).collect(),
            frontends: self.frontends.iter().filter(|(index, _)| used(index)).map(|(i, f)| (*i, *f)).collect(),
            tables: self.services.values().map(table).collect(),
            backends: self.backends.iter().map(|(index, (id, key))| (*index, *id, *key)).collect(),
            members: self.members.iter().map(|((service, id), index)| (*service, *id, *index)).collect(),
        }
    }

    /// Executes a plan, and checks every prefix of it; programs start after each operation and keep running.
    pub fn execute(&mut self, ops: &[Op]) {
        let before = self.found();
        let mut after = self.clone();
        ops.iter().for_each(|op| after.step(op));
        let after = after.found();
        self.start_programs();
        for op in ops {
            self.step(op);
            for (frontend, found) in self.all_found(&before, &after) {
                let fits = [&before, &after].into_iter().any(|t| same_table(t.get(&frontend), found.as_ref()));
                assert!(fits, "after {op:?} {frontend} leads to {found:?}");
            }
            self.check_programs(op);
            self.start_programs();
        }
        self.plans += 1;
    }

    /// Executes the first operations of a plan; whoever did so is killed there.
    pub fn execute_prefix(&mut self, ops: &[Op], length: usize) {
        ops.iter().take(length).for_each(|op| self.step(op));
        self.plans += 1;
    }

    /// How many plans were executed: the moment a grace period begins.
    pub fn now(&self) -> u64 {
        self.plans
    }

    /// A grace period that began then is over: every program started before that has ended.
    pub fn grace(&mut self, began: u64) {
        self.programs.retain(|p| p.began >= began);
    }

    /// What every frontend leads to.
    pub fn found(&self) -> BTreeMap<Frontend, Found> {
        self.services.keys().filter_map(|f| Some((*f, self.look_up(f)?))).collect()
    }

    fn look_up(&self, frontend: &Frontend) -> Option<Found> {
        let entry = self.services.get(frontend)?;
        if self.frontends.get(&entry.index) != Some(frontend) {
            return None;
        }
        let fits = |key: &BackendKey| key.addr.family() == frontend.addr.family() && key.protocol == frontend.protocol;
        let range = self.range(self.switch_of(entry.index)).into_iter();
        assert!(self.inherited || range.clone().all(|slot| slot.is_some_and(|key| fits(&key))), "{frontend} is torn");
        Some((range.flatten().filter(fits).collect(), entry.no_backend, entry.affinity_seconds))
    }

    fn switch_of(&self, service: ServiceIndex) -> SwitchEntry {
        self.switch.get(&service).copied().unwrap_or_default()
    }

    /// Where each slot leads.
    fn range(&self, switch: SwitchEntry) -> Vec<Option<BackendKey>> {
        let slots = switch.base..switch.base.saturating_add(switch.count);
        slots.map(|slot| self.backends.get(self.slots.get(&slot)?).map(|b| b.1)).collect()
    }

    fn all_found(
        &self,
        before: &BTreeMap<Frontend, Found>,
        after: &BTreeMap<Frontend, Found>,
    ) -> Vec<(Frontend, Option<Found>)> {
        let frontends: BTreeSet<&Frontend> = before.keys().chain(after.keys()).collect();
        frontends.into_iter().map(|f| (*f, self.look_up(f))).collect()
    }

    fn start_programs(&mut self) {
        let own = |(frontend, entry): &(&Frontend, &ServiceEntry)| self.frontends.get(&entry.index) == Some(*frontend);
        for (_, entry) in self.services.iter().filter(own) {
            let switch = self.switch_of(entry.index);
            let holds = Held::Range(switch, self.range(switch));
            self.programs.push(Program { began: self.plans, holds });
        }
        for index in self.members.values() {
            let holds = Held::Member(*index, self.backends.get(index).map(|b| b.1));
            self.programs.push(Program { began: self.plans, holds });
        }
    }

    fn check_programs(&self, op: &Op) {
        for Program { holds, .. } in &self.programs {
            match holds {
                Held::Range(switch, keys) => assert_eq!(self.range(*switch), *keys, "{op:?} pulled a range away"),
                Held::Member(index, key) => {
                    let found = self.backends.get(index).map(|b| b.1);
                    assert_eq!(found, *key, "{op:?} pulled a member's backend away");
                }
            }
        }
    }

    fn step(&mut self, op: &Op) {
        match op {
            Op::PutBackend { index, id, backend } => {
                assert!(self.ids.insert(*id), "{id:?} is used again");
                let twice = self.backends.values().any(|b| b.1 == *backend);
                assert!(self.inherited || !twice, "{backend} has an index already");
                assert_eq!(self.backends.insert(*index, (*id, *backend)), None, "{index:?} is in use");
            }
            Op::PutSlots { base, slots } => self.slots.extend((base.0..).zip(slots.iter().copied())),
            Op::PutMember { service, id, index } => {
                assert_eq!(self.backends[index].0, *id, "a member is its backend");
                assert_eq!(self.members.insert((*service, *id), *index), None, "{id:?} is a member already");
            }
            Op::Switch { service, entry } => {
                let in_use = self.services.values().any(|s| s.index == *service);
                let old = self.switch.insert(*service, *entry);
                assert!(!in_use || old != Some(*entry), "a switch that switches nothing");
            }
            Op::PutService { frontend, entry } => {
                self.frontends.insert(entry.index, *frontend);
                assert_ne!(self.services.insert(*frontend, *entry), Some(*entry), "a put that changes nothing");
            }
            Op::DeleteService { frontend } => assert!(self.services.remove(frontend).is_some(), "{frontend} is gone"),
            Op::DeleteMember { service, id } => assert!(self.members.remove(&(*service, *id)).is_some()),
            Op::DeleteBackend { index } => {
                assert!(self.backends.remove(index).is_some() || self.inherited, "{index:?} is free already");
            }
        }
    }
}

/// The table must be whole; a service entry's flags may change a moment after it.
fn same_table(one: Option<&Found>, other: Option<&Found>) -> bool {
    one.map(|f| &f.0) == other.map(|f| &f.0)
}
