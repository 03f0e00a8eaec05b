//! The same tables in memory, for a node without eBPF.

use std::collections::BTreeMap;

use tombolo_core::model::{BackendKey, Frontend};
use tombolo_core::tables::{
    BackendId, BackendIndex, Limits, Op, Plan, ServiceEntry, ServiceIndex, SlotBase, SwitchEntry,
};

use crate::DatapathError;
use crate::executor::{self, Executor, Faults};

/// Tables that nobody connects through: their counters stay 0. Places that were never written hold zeros, as in the
/// kernel, and cost nothing.
#[derive(Debug)]
pub struct MemoryDatapath {
    limits: Limits,
    services: BTreeMap<Frontend, ServiceEntry>,
    switch: BTreeMap<ServiceIndex, SwitchEntry>,
    slots: BTreeMap<u32, BackendIndex>,
    backends: BTreeMap<BackendIndex, (BackendId, BackendKey)>,
}

impl MemoryDatapath {
    /// Empty tables of these sizes.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            services: BTreeMap::new(),
            switch: BTreeMap::new(),
            slots: BTreeMap::new(),
            backends: BTreeMap::new(),
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
                let limit = self.limits.services;
                if self.services.len() >= limit as usize && !self.services.contains_key(frontend) {
                    return Err(DatapathError::Full { limit });
                }
                self.services.insert(*frontend, *entry);
            }
            Op::DeleteService { frontend } => {
                self.services.remove(frontend);
            }
            Op::PutMember { .. } | Op::DeleteMember { .. } => {}
        }
        Ok(())
    }
}

impl Executor for MemoryDatapath {
    fn execute(&mut self, plan: &Plan) -> Result<(), DatapathError> {
        executor::check(plan, &self.limits)?;
        plan.ops.iter().try_for_each(|op| self.write(op))
    }

    fn connects(&self, _: BackendIndex) -> u64 {
        0
    }

    fn refused(&self, _: ServiceIndex) -> u64 {
        0
    }

    fn faults(&self) -> Faults {
        Faults::default()
    }

    fn read_service(&self, frontend: &Frontend) -> Result<Option<ServiceEntry>, DatapathError> {
        Ok(self.services.get(frontend).copied())
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
