//! The same tables in memory, for a node without eBPF.

use std::collections::BTreeMap;
use std::mem::discriminant;

use tombolo_core::id::ClusterId;
use tombolo_core::model::{BackendKey, Frontend};
use tombolo_core::tables::{
    BackendId, BackendIndex, Contents, Limits, Op, Plan, ServiceEntry, ServiceIndex, SlotBase, SwitchEntry,
};

use crate::DatapathError;
use crate::executor::{self, Executor, Faults};

/// Tables that nobody connects through: their counters stay 0. Places that were never written hold zeros, as in the
/// kernel, and cost nothing.
#[derive(Debug)]
pub struct MemoryDatapath {
    limits: Limits,
    services: BTreeMap<Frontend, ServiceEntry>,
    frontends: BTreeMap<ServiceIndex, Frontend>,
    switch: BTreeMap<ServiceIndex, SwitchEntry>,
    slots: BTreeMap<u32, BackendIndex>,
    backends: BTreeMap<BackendIndex, (BackendId, BackendKey)>,
    members: BTreeMap<(ServiceIndex, BackendId), BackendIndex>,
}

impl MemoryDatapath {
    /// Empty tables of these sizes.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            services: BTreeMap::new(),
            frontends: BTreeMap::new(),
            switch: BTreeMap::new(),
            slots: BTreeMap::new(),
            backends: BTreeMap::new(),
            members: BTreeMap::new(),
        }
    }

    fn write(&mut self, op: &Op) -> Result<(), DatapathError> {
        match op {
            Op::PutBackend { index, id, backend } => {
                self.backends.insert(*index, (*id, *backend));
            }
            Op::DeleteBackend { index } => {
                self.backends.remove(index);
            }
            Op::PutSlots { base, slots } => self.slots.extend((base.0..).zip(slots.iter().copied())),
            Op::Switch { service, entry } => {
                self.switch.insert(*service, *entry);
            }
            Op::PutService { frontend, entry } => {
                put("services", &mut self.services, self.limits.services, *frontend, *entry)?;
            }
            Op::DeleteService { frontend } => {
                self.services.remove(frontend);
            }
            Op::PutMember { service, id, index } => {
                put("members", &mut self.members, self.limits.members, (*service, *id), *index)?;
            }
            Op::DeleteMember { service, id } => {
                self.members.remove(&(*service, *id));
            }
        }
        Ok(())
    }
}

/// Writes an entry, if it is there or there is room for it.
fn put<K: Ord, V>(
    name: &'static str,
    map: &mut BTreeMap<K, V>,
    limit: u32,
    key: K,
    value: V,
) -> Result<(), DatapathError> {
    if map.len() >= limit as usize && !map.contains_key(&key) {
        return Err(DatapathError::Full { map: name, limit });
    }
    map.insert(key, value);
    Ok(())
}

impl Executor for MemoryDatapath {
    fn execute(&mut self, plan: &Plan) -> Result<(), DatapathError> {
        executor::check(plan, &self.limits)?;
        for run in plan.ops.chunk_by(|a, b| discriminant(a) == discriminant(b)) {
            // As in the kernel, where a run of services is one call: all take their indexes first.
            for op in run {
                if let Op::PutService { frontend, entry } = op {
                    self.frontends.insert(entry.index, *frontend);
                }
            }
            run.iter().try_for_each(|op| self.write(op))?;
        }
        Ok(())
    }

    fn contents(&self) -> Result<Contents, DatapathError> {
        let table = |entry: &ServiceEntry| {
            let switch = self.read_switch(entry.index);
            (entry.index, (switch, self.read_slots(SlotBase(switch.base), switch.count)))
        };
        let place = |entry: &ServiceEntry| Some((entry.index, self.read_frontend(entry.index)?));
        Ok(Contents {
            frontends: self.services.values().filter_map(place).collect(),
            services: self.services.iter().map(|(frontend, entry)| (*frontend, *entry)).collect(),
            tables: self.services.values().map(table).collect(),
            backends: self.backends.iter().map(|(index, (id, key))| (*index, *id, *key)).collect(),
            members: self.members.iter().map(|((service, id), index)| (*service, *id, *index)).collect(),
        })
    }

    fn commit(&mut self) -> Result<(), DatapathError> {
        Ok(())
    }

    fn connects(&self, _: BackendIndex) -> u64 {
        0
    }

    fn erased_connects(&self, _: ClusterId) -> u64 {
        0
    }

    fn service_connects(&self, _: ServiceIndex) -> u64 {
        0
    }

    fn refused(&self, _: ServiceIndex) -> u64 {
        0
    }

    fn set_sampling(&mut self, _: u32) {}

    fn faults(&self) -> Faults {
        Faults::default()
    }

    fn read_service(&self, frontend: &Frontend) -> Result<Option<ServiceEntry>, DatapathError> {
        Ok(self.services.get(frontend).copied())
    }

    fn read_frontend(&self, service: ServiceIndex) -> Option<Frontend> {
        self.frontends.get(&service).copied()
    }

    fn read_member(&self, service: ServiceIndex, id: BackendId) -> Result<Option<BackendIndex>, DatapathError> {
        Ok(self.members.get(&(service, id)).copied())
    }

    fn read_switch(&self, service: ServiceIndex) -> SwitchEntry {
        self.switch.get(&service).copied().unwrap_or_default()
    }

    fn read_slots(&self, base: SlotBase, count: u32) -> Vec<BackendIndex> {
        let end = base.0.saturating_add(count).min(self.limits.slots);
        (base.0..end).map(|slot| self.slots.get(&slot).copied().unwrap_or(BackendIndex(0))).collect()
    }

    fn read_backend(&self, backend: BackendIndex) -> Option<(BackendId, BackendKey)> {
        self.backends.get(&backend).copied()
    }
}
