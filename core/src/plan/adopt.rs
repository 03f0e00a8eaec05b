//! Tables from what the maps hold: how an agent begins whose forerunner's maps are still there.
//!
//! Nothing is believed. A frontend's table is whole when its place is its own, its range is no other's, and every slot
//! leads to a backend of its family and protocol. One that is not is mended to the part that is; what nobody leads to
//! is retired, since a program may hold it still. Members of a table are all there, or none count. Left out: whose the
//! frontends are, which only [`Tables::plan_all`] can say.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use super::{Backend, Draft, GENERATIONS, Row, Tables};
use crate::model::{BackendKey, Frontend};
use crate::tables::{
    BackendId, BackendIndex, Contents, FrontendTable, Limits, Op, Plan, ServiceEntry, ServiceIndex, SlotBase,
    SwitchEntry,
};

/// A greater id is nobody's, so that ids can be counted on from the largest that is somebody's.
const LARGEST_ID: BackendId = BackendId(u64::MAX >> 1);

/// A frontend whose table is not whole, with the part of it that is.
struct Torn {
    frontend: Frontend,
    entry: ServiceEntry,
    switch: SwitchEntry,
    whole: FrontendTable,
}

struct Adoption {
    tables: Tables,
    draft: Draft,
    places: BTreeMap<BackendIndex, BackendKey>,
    torn: Vec<Torn>,
}

pub(super) fn adopt(limits: Limits, found: &Contents, first_id: BackendId) -> (Tables, Plan) {
    let ids = found.backends.iter().map(|(_, id, _)| id).chain(found.members.iter().map(|(_, id, _)| id));
    let largest = ids.filter(|id| **id <= LARGEST_ID).max();
    let first_id = largest.map_or(first_id, |id| first_id.max(BackendId(id.0 + 1)));
    let mut adoption = Adoption {
        tables: Tables::new(limits, first_id),
        draft: Draft::default(),
        places: BTreeMap::new(),
        torn: Vec::new(),
    };
    adoption.take_backends(&found.backends);
    for (frontend, entry) in found.services.iter().copied().collect::<BTreeMap<_, _>>() {
        adoption.take_frontend(frontend, entry, found);
    }
    adoption.mend();
    adoption.take_members(&found.members);
    adoption.count_tables();
    let Adoption { mut tables, draft, .. } = adoption;
    let repairs = tables.close(draft);
    (tables, repairs)
}

impl Adoption {
    /// One place per backend and per id; of several, the first.
    fn take_backends(&mut self, found: &[(BackendIndex, BackendId, BackendKey)]) {
        let mut ids = BTreeSet::new();
        for &(index, id, key) in found {
            if !self.tables.backend_indexes.claim(index.0) {
                continue;
            }
            let new = id <= LARGEST_ID && !ids.contains(&id) && !self.tables.backends.contains_key(&key);
            if !new {
                self.draft.retired.places.push(index);
                continue;
            }
            ids.insert(id);
            self.tables.backends.insert(key, Backend { index, id, tables: 0 });
            self.places.insert(index, key);
        }
    }

    /// A frontend in another's place is left alone by the programs, and so it stays until it is planned anew.
    fn take_frontend(&mut self, frontend: Frontend, entry: ServiceEntry, found: &Contents) {
        let own = found.frontends.get(&entry.index) == Some(&frontend);
        if !own || !self.tables.service_indexes.claim(entry.index.0) {
            self.draft.deletions.push(Op::DeleteService { frontend });
            return;
        }
        let nothing = (SwitchEntry::default(), Vec::new());
        let (switch, slots) = found.tables.get(&entry.index).unwrap_or(&nothing);
        let parts = self.tables.ranges.claim(switch.base, switch.count);
        let mut backends = BTreeMap::new();
        let mut led = 0;
        for (base, count) in &parts {
            let offset = (base - switch.base) as usize;
            for index in slots.iter().skip(offset).take(*count as usize) {
                if let Some(key) = self.lead(&frontend, *index) {
                    *backends.entry(key).or_insert(0) += 1;
                    led += 1;
                }
            }
        }
        let ServiceEntry { no_backend, affinity_seconds, .. } = entry;
        let table = FrontendTable { backends: backends.into_iter().collect(), no_backend, affinity_seconds };
        if led == switch.count {
            self.tables.frontends.insert(frontend, Row { owner: None, entry, switch: *switch, table });
        } else {
            self.draft.retired.ranges.extend(parts);
            self.torn.push(Torn { frontend, entry, switch: *switch, whole: table });
        }
    }

    /// Where a slot leads.
    fn lead(&mut self, frontend: &Frontend, index: BackendIndex) -> Option<BackendKey> {
        self.avoid(index);
        let key = self.places.get(&index)?;
        let fits = key.addr.family() == frontend.addr.family() && key.protocol == frontend.protocol;
        fits.then_some(*key)
    }

    /// An empty place that something leads to must not become another's while a program may hold it.
    fn avoid(&mut self, index: BackendIndex) {
        if self.tables.backend_indexes.claim(index.0) {
            self.draft.retired.places.push(index);
        }
    }

    /// What is whole of a torn table gets a range of its own; without room for one, the table is empty.
    fn mend(&mut self) {
        for Torn { frontend, entry, switch, mut whole } in core::mem::take(&mut self.torn) {
            let count = whole.backends.iter().map(|(_, slots)| slots).sum();
            let base = if count > 0 { self.tables.ranges.take(count) } else { None };
            match base {
                Some(base) => {
                    let slots = self.tables.slots(&whole);
                    self.draft.slots.push(Op::PutSlots { base: SlotBase(base), slots });
                }
                None => whole.backends.clear(),
            }
            let generation = (switch.generation + 1) % GENERATIONS;
            let switch = base.map_or(SwitchEntry { generation, ..SwitchEntry::default() }, |base| SwitchEntry {
                base,
                count,
                generation,
            });
            self.draft.switches.push(Op::Switch { service: entry.index, entry: switch });
            self.tables.frontends.insert(frontend, Row { owner: None, entry, switch, table: whole });
        }
    }

    /// A sticky table that lacks members counts as one that is not sticky, until it is planned anew.
    fn take_members(&mut self, found: &[(ServiceIndex, BackendId, BackendIndex)]) {
        let mut stray: BTreeMap<_, _> = found.iter().map(|(service, id, index)| ((*service, *id), *index)).collect();
        for row in self.tables.frontends.values_mut() {
            let backends = &self.tables.backends;
            let member = |key: &BackendKey| ((row.entry.index, backends[key].id), backends[key].index);
            let members: Vec<_> = row.table.members().iter().map(|(key, _)| member(key)).collect();
            if members.iter().any(|(key, index)| stray.get(key) != Some(index)) {
                row.table.affinity_seconds = 0;
                continue;
            }
            self.tables.members += u32::try_from(members.len()).expect("a table has less than 2^20 backends");
            for (key, _) in &members {
                stray.remove(key);
            }
        }
        for ((service, id), index) in stray {
            self.avoid(index);
            self.draft.deletions.push(Op::DeleteMember { service, id });
        }
    }

    fn count_tables(&mut self) {
        for key in self.tables.frontends.values().flat_map(|row| &row.table.backends).map(|(key, _)| key) {
            if let Some(backend) = self.tables.backends.get_mut(key) {
                backend.tables += 1;
            }
        }
        for (key, backend) in self.tables.backends.iter_mut().filter(|(_, backend)| backend.tables == 0) {
            backend.tables = 1;
            self.draft.retired.backends.push(*key);
        }
    }
}
