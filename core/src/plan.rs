//! From what the kernel's tables hold to what they should hold, as ordered operations.
//!
//! New backends, then new slot ranges, then members, then per frontend the switch and its service entry; after that the
//! deletions. A range is never written while a program may read it, and what a plan leaves behind is freed by
//! [`Tables::reclaim`] a grace period later. Members go at once: a sticky choice then falls back to the table, and
//! nothing can lead to a backend's index once the grace period is over. Left out: how the operations are executed, and
//! how long a grace period is.

mod adopt;
mod diff;
mod indexes;
mod ranges;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::fmt;

use crate::id::ServiceKey;
use crate::model::{BackendKey, Frontend};
use crate::tables::{
    BackendId, BackendIndex, Contents, Desired, FrontendTable, Installed, Limits, Op, Plan, ServiceEntry, ServiceIndex,
    SlotBase, SwitchEntry, Ticket,
};
use diff::{Difference, Range, Target};
use indexes::Indexes;
use ranges::Ranges;

/// A map of the datapath with a limited size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MapName {
    /// `services` and `switch`.
    Services,
    /// `backends`.
    Backends,
    /// `slots`.
    Slots,
    /// `members`.
    Members,
}

/// A map has no room for what was asked; nothing was planned. What waits for reclaim counts, so it may pass by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("map {map} has no room for {wanted} more entries ({used} of {limit} in use): raise its limit")]
pub struct Full {
    /// The map.
    pub map: MapName,
    /// Entries that the plan would add; for slots, those of the first range that found no place.
    pub wanted: u32,
    /// Entries in use, those that wait for reclaim included.
    pub used: u32,
    /// How many entries it takes.
    pub limit: u32,
}

/// How much of the tables is in use, what waits for reclaim included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Frontends.
    pub frontends: u32,
    /// Backends.
    pub backends: u32,
    /// Slots.
    pub slots: u32,
    /// Pairs of frontend and backend.
    pub members: u32,
}

/// What the kernel's maps hold once every plan so far was executed; it also allocates their indexes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tables {
    limits: Limits,
    frontends: BTreeMap<Frontend, Row>,
    owned: BTreeMap<ServiceKey, BTreeSet<Frontend>>,
    backends: BTreeMap<BackendKey, Backend>,
    members: u32,
    service_indexes: Indexes,
    backend_indexes: Indexes,
    ranges: Ranges,
    next_id: u64,
    next_ticket: u64,
    retired: BTreeMap<Ticket, Retired>,
}

/// One frontend's table.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    /// Nobody yet, in adopted tables.
    owner: Option<ServiceKey>,
    entry: ServiceEntry,
    switch: SwitchEntry,
    table: FrontendTable,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Backend {
    index: BackendIndex,
    id: BackendId,
    /// Tables that hold it, those that wait for reclaim included.
    tables: u32,
}

/// What waits for a grace period.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Retired {
    ranges: Vec<(u32, u32)>,
    backends: Vec<BackendKey>,
    services: Vec<ServiceIndex>,
    /// Places of backends that no table ever held.
    places: Vec<BackendIndex>,
}

/// `SwitchEntry::generation` has 12 bits.
const GENERATIONS: u16 = 1 << 12;
/// `SwitchEntry::count` has 20 bits.
const MOST_SLOTS: u32 = (1 << 20) - 1;

impl Tables {
    /// Empty tables; backend ids count up from `first_id` and are never reused.
    pub fn new(limits: Limits, first_id: BackendId) -> Self {
        Self {
            limits,
            frontends: BTreeMap::new(),
            owned: BTreeMap::new(),
            backends: BTreeMap::new(),
            members: 0,
            service_indexes: Indexes::new(limits.services),
            backend_indexes: Indexes::new(limits.backends),
            ranges: Ranges::new(limits.slots),
            next_id: first_id.0,
            next_ticket: 0,
            retired: BTreeMap::new(),
        }
    }

    /// Tables that know what the maps hold, and the repairs that make it consistent; they count as executed.
    ///
    /// Whose the frontends are is not known yet, so the next plan is [`Self::plan_all`]. Programs may have been running
    /// with what was retired before: wait a grace period between reading the contents and executing anything.
    /// Ids count up from `first_id`, or from the largest found.
    pub fn adopt(limits: Limits, found: &Contents, first_id: BackendId) -> (Self, Plan) {
        adopt::adopt(limits, found, first_id)
    }

    /// Plans the way from what is installed to what these services should have, and that nobody else has anything.
    ///
    /// The plan counts as executed when this returns. On [`Full`] nothing has changed.
    pub fn plan_all(&mut self, desired: &[Desired]) -> Result<Plan, Full> {
        let difference = Difference::of_all(self, desired);
        self.carry(difference)
    }

    /// What [`Self::plan_all`] does that needs no room: what nobody wants leaves, and what is wanted and still nobody's
    /// stays as it is for who wants it.
    pub fn settle(&mut self, desired: &[Desired]) -> Plan {
        let mut draft = Draft::default();
        for frontend in diff::unwanted(self, desired) {
            self.remove(&frontend, &mut draft);
        }
        for (frontend, (owner, _)) in diff::wanted(desired) {
            if let Some(row) = self.frontends.get_mut(&frontend).filter(|row| row.owner.is_none()) {
                row.owner = Some(owner.clone());
                self.owned.entry(owner.clone()).or_default().insert(frontend);
            }
        }
        self.close(draft)
    }

    /// Plans the way from what is installed to what these services should have; other services stay as they are.
    ///
    /// The plan counts as executed when this returns. On [`Full`] nothing has changed.
    pub fn plan(&mut self, desired: &[Desired]) -> Result<Plan, Full> {
        let difference = Difference::of(self, desired);
        self.carry(difference)
    }

    fn carry(&mut self, difference: Difference<'_>) -> Result<Plan, Full> {
        self.check_room(&difference)?;
        let mut bases = self.take_ranges(&difference)?.into_iter();
        let mut draft = Draft::default();
        for target in difference.targets {
            let range = match target.range {
                Range::Kept => None,
                Range::New(0) => Some((0, 0)),
                Range::New(count) => Some((bases.next().expect("one base was taken for each new range"), count)),
            };
            self.install(target, range, &mut draft);
        }
        for frontend in difference.removed {
            self.remove(&frontend, &mut draft);
        }
        Ok(self.close(draft))
    }

    /// Frees what this ticket and all earlier ones name. Call it a grace period after their plans were executed, and
    /// execute what it returns before the next plan.
    pub fn reclaim(&mut self, ticket: Ticket) -> Plan {
        let later = self.retired.split_off(&Ticket(ticket.0.saturating_add(1)));
        let mut ops = Vec::new();
        for retired in core::mem::replace(&mut self.retired, later).into_values() {
            retired.ranges.iter().for_each(|(base, count)| self.ranges.give(*base, *count));
            retired.services.iter().for_each(|index| self.service_indexes.give(index.0));
            ops.extend(retired.backends.iter().filter_map(|key| self.release(key)));
            retired.places.iter().for_each(|index| self.backend_indexes.give(index.0));
            ops.extend(retired.places.into_iter().map(|index| Op::DeleteBackend { index }));
        }
        Plan { ops, ..Plan::default() }
    }

    /// One frontend's table.
    pub fn installed(&self, frontend: &Frontend) -> Option<Installed<'_>> {
        self.frontends.get(frontend).map(Row::view)
    }

    /// All frontends with their tables, ascending.
    pub fn frontends(&self) -> impl Iterator<Item = (&Frontend, Installed<'_>)> {
        self.frontends.iter().map(|(frontend, row)| (frontend, row.view()))
    }

    /// The frontends of one service with their tables, ascending.
    pub fn frontends_of(&self, service: &ServiceKey) -> impl Iterator<Item = (&Frontend, Installed<'_>)> {
        self.owned.get(service).into_iter().flatten().filter_map(|f| Some((f, self.installed(f)?)))
    }

    /// Where a backend is, to read its counters.
    pub fn backend_index(&self, backend: &BackendKey) -> Option<BackendIndex> {
        self.backends.get(backend).map(|b| b.index)
    }

    /// All backends with their places, those that wait for a grace period included.
    pub fn backends(&self) -> impl Iterator<Item = (&BackendKey, BackendIndex)> {
        self.backends.iter().map(|(key, backend)| (key, backend.index))
    }

    /// How much there is room for.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// How much is in use.
    pub fn counts(&self) -> Counts {
        Counts {
            frontends: self.service_indexes.used(),
            backends: self.backend_indexes.used(),
            slots: self.limits.slots - self.ranges.available(),
            members: self.members,
        }
    }

    fn check_room(&self, difference: &Difference<'_>) -> Result<(), Full> {
        let Limits { services, backends, members, .. } = self.limits;
        let used = self.counts();
        room(MapName::Services, difference.new_frontends(self), used.frontends, services)?;
        room(MapName::Backends, difference.new_backends(self), used.backends, backends)?;
        room(MapName::Members, difference.new_members(), used.members, members)
    }

    fn take_ranges(&mut self, difference: &Difference<'_>) -> Result<Vec<u32>, Full> {
        let limit = self.limits.slots;
        let used = limit - self.ranges.available();
        let too_large = difference.new_ranges().find(|count| *count > MOST_SLOTS);
        too_large.map_or_else(|| self.ranges.take_all(difference.new_ranges()), Err).map_err(|wanted| Full {
            map: MapName::Slots,
            wanted,
            used,
            limit,
        })
    }

    /// Writes down how one frontend's table is brought about, and keeps it as installed.
    fn install(&mut self, target: Target<'_>, range: Option<(u32, u32)>, draft: &mut Draft) {
        let old = self.frontends.remove(&target.frontend);
        let index = match &old {
            Some(row) => row.entry.index,
            None => ServiceIndex(self.service_indexes.take().expect("check_room found room")),
        };
        for key in target.added {
            self.hold(key, draft);
        }
        self.change_members(index, &target.joining, &target.leaving, draft);
        let mut switch = old.as_ref().map(|row| row.switch).unwrap_or_default();
        if let Some((base, count)) = range {
            if count > 0 {
                draft.slots.push(Op::PutSlots { base: SlotBase(base), slots: self.slots(&target.table) });
            }
            draft.retired.ranges.push((switch.base, switch.count));
            switch = SwitchEntry { base, count, generation: (switch.generation + 1) % GENERATIONS };
            draft.switches.push(Op::Switch { service: index, entry: switch });
        }
        draft.left.extend(target.dropped.iter().map(|key| (target.frontend, *key)));
        draft.retired.backends.extend(target.dropped);
        let FrontendTable { no_backend, affinity_seconds, .. } = *target.table;
        let entry = ServiceEntry { index, no_backend, affinity_seconds };
        if old.as_ref().is_none_or(|row| row.entry != entry) {
            draft.switches.push(Op::PutService { frontend: target.frontend, entry });
        }
        if let Some(owner) = old.and_then(|row| row.owner) {
            self.disown(&owner, &target.frontend);
        }
        self.owned.entry(target.owner.clone()).or_default().insert(target.frontend);
        let row = Row { owner: Some(target.owner.clone()), entry, switch, table: target.table.into_owned() };
        self.frontends.insert(target.frontend, row);
    }

    fn remove(&mut self, frontend: &Frontend, draft: &mut Draft) {
        let Some(row) = self.frontends.remove(frontend) else { return };
        if let Some(owner) = &row.owner {
            self.disown(owner, frontend);
        }
        draft.deletions.push(Op::DeleteService { frontend: *frontend });
        let leaving: Vec<BackendKey> = row.table.members().iter().map(|(key, _)| *key).collect();
        self.change_members(row.entry.index, &[], &leaving, draft);
        draft.left.extend(row.table.backends.iter().map(|(key, _)| (*frontend, *key)));
        draft.retired.backends.extend(row.table.backends.iter().map(|(key, _)| *key));
        draft.retired.ranges.push((row.switch.base, row.switch.count));
        draft.retired.services.push(row.entry.index);
    }

    fn disown(&mut self, owner: &ServiceKey, frontend: &Frontend) {
        if let Some(frontends) = self.owned.get_mut(owner) {
            frontends.remove(frontend);
            if frontends.is_empty() {
                self.owned.remove(owner);
            }
        }
    }

    /// Counts one more table that holds a backend, and writes the backend if it is the first.
    fn hold(&mut self, key: BackendKey, draft: &mut Draft) {
        if let Some(backend) = self.backends.get_mut(&key) {
            backend.tables += 1;
            return;
        }
        let index = BackendIndex(self.backend_indexes.take().expect("check_room found room"));
        let id = BackendId(self.next_id);
        self.next_id += 1;
        self.backends.insert(key, Backend { index, id, tables: 1 });
        draft.backends.push(Op::PutBackend { index, id, backend: key });
    }

    /// Counts one table less, and erases the backend if it was the last.
    fn release(&mut self, key: &BackendKey) -> Option<Op> {
        let backend = self.backends.get_mut(key)?;
        backend.tables -= 1;
        if backend.tables > 0 {
            return None;
        }
        let index = backend.index;
        self.backends.remove(key);
        self.backend_indexes.give(index.0);
        Some(Op::DeleteBackend { index })
    }

    fn change_members(
        &mut self,
        service: ServiceIndex,
        joining: &[BackendKey],
        leaving: &[BackendKey],
        draft: &mut Draft,
    ) {
        for Backend { id, index, .. } in joining.iter().map(|key| self.backends[key]) {
            draft.members.push(Op::PutMember { service, id, index });
            self.members += 1;
        }
        for Backend { id, .. } in leaving.iter().map(|key| self.backends[key]) {
            draft.deletions.push(Op::DeleteMember { service, id });
            self.members -= 1;
        }
    }

    fn slots(&self, table: &FrontendTable) -> Vec<BackendIndex> {
        let places = table.backends.iter().map(|(key, slots)| (self.backends[key].index, *slots as usize));
        places.flat_map(|(index, slots)| core::iter::repeat_n(index, slots)).collect()
    }

    fn close(&mut self, mut draft: Draft) -> Plan {
        draft.retired.ranges.retain(|(_, count)| *count > 0);
        let retired = (draft.retired != Retired::default()).then(|| {
            self.next_ticket += 1;
            let ticket = Ticket(self.next_ticket);
            self.retired.insert(ticket, draft.retired);
            ticket
        });
        let phases = [draft.backends, draft.slots, draft.members, draft.switches, draft.deletions];
        Plan { ops: phases.into_iter().flatten().collect(), retired, left: draft.left }
    }
}

/// The operations of a plan by phase, and what they leave behind.
#[derive(Default)]
struct Draft {
    backends: Vec<Op>,
    slots: Vec<Op>,
    members: Vec<Op>,
    switches: Vec<Op>,
    deletions: Vec<Op>,
    retired: Retired,
    left: Vec<(Frontend, BackendKey)>,
}

impl Row {
    fn view(&self) -> Installed<'_> {
        Installed { service: self.owner.as_ref(), entry: self.entry, switch: self.switch, table: &self.table }
    }
}

fn room(map: MapName, wanted: usize, used: u32, limit: u32) -> Result<(), Full> {
    let wanted = u32::try_from(wanted).unwrap_or(u32::MAX);
    if wanted > limit - used { Err(Full { map, wanted, used, limit }) } else { Ok(()) }
}

impl fmt::Display for MapName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Services => "services",
            Self::Backends => "backends",
            Self::Slots => "slots",
            Self::Members => "members",
        })
    }
}
