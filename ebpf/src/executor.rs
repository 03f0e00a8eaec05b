//! What carries plans out, and can be read back.

use tombolo_core::id::ClusterId;
use tombolo_core::model::{BackendKey, Frontend};
use tombolo_core::tables::{
    BackendId, BackendIndex, Contents, Limits, Op, Plan, ServiceEntry, ServiceIndex, SlotBase, SwitchEntry,
};
use tombolo_ebpf_layout::MAX_SLOTS_PER_TABLE;

use crate::DatapathError;
use crate::convert;

/// Tables that plans change.
///
/// What is read is what the programs read, so that it can be compared with what was intended. Reading outside the maps
/// gives zeros and nothing, as an empty place does.
pub trait Executor: Send {
    /// Carries a plan out, in its order. A plan that does not fit the maps is refused as a whole; another error leaves
    /// the operations before it done, which every plan is safe for.
    fn execute(&mut self, plan: &Plan) -> Result<(), DatapathError>;

    /// All that the maps hold.
    fn contents(&self) -> Result<Contents, DatapathError>;

    /// Has what runs follow these tables from now on: to be called after the first complete plan. Until then connects
    /// may still follow the tables of an earlier life. Calling it again changes nothing.
    fn commit(&mut self) -> Result<(), DatapathError>;

    /// How many connects, and sockets that sent datagrams without one, got this backend since it was put there.
    fn connects(&self, backend: BackendIndex) -> u64;

    /// The same for all backends of a cluster that were erased, since the maps were made.
    fn erased_connects(&self, cluster: ClusterId) -> u64;

    /// The same for a frontend, since it was put there.
    fn service_connects(&self, service: ServiceIndex) -> u64;

    /// How many connects and datagrams to a frontend were refused because no backend served, since it was put there.
    fn refused(&self, service: ServiceIndex) -> u64;

    /// Has flows told whose random 32-bit word is below this: none at 0, all at `u32::MAX`.
    fn set_sampling(&mut self, threshold: u32);

    /// What should never have happened.
    fn faults(&self) -> Faults;

    /// What `services` holds for a frontend.
    fn read_service(&self, frontend: &Frontend) -> Result<Option<ServiceEntry>, DatapathError>;

    /// What `frontends` holds: the frontend that a service index was given to last.
    fn read_frontend(&self, service: ServiceIndex) -> Option<Frontend>;

    /// What `members` holds for a backend of a frontend's table.
    fn read_member(&self, service: ServiceIndex, id: BackendId) -> Result<Option<BackendIndex>, DatapathError>;

    /// What `switch` holds.
    fn read_switch(&self, service: ServiceIndex) -> SwitchEntry;

    /// What a range of `slots` holds.
    fn read_slots(&self, base: SlotBase, count: u32) -> Vec<BackendIndex>;

    /// What `backends` holds.
    fn read_backend(&self, backend: BackendIndex) -> Option<(BackendId, BackendKey)>;
}

/// Counters of what a correct plan and large enough maps never let happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Connects refused because a table led nowhere.
    pub broken_tables: u64,
    /// Connects translated without room to remember what was dialled, so that `getpeername` shows the backend.
    pub reverse_full: u64,
    /// Datagrams translated without room to remember what they named, so that an answer shows the backend.
    pub unconnected_full: u64,
    /// Sticky clients whose choice could not be kept.
    pub affinity_full: u64,
    /// Sampled flows that nobody read in time.
    pub events_lost: u64,
}

/// Whether every place and value of a plan fits, before anything of it is done.
pub(crate) fn check(plan: &Plan, limits: &Limits) -> Result<(), DatapathError> {
    let within = |map, index: u64, limit: u32| {
        if index < u64::from(limit) { Ok(()) } else { Err(DatapathError::Outside { map, index, limit }) }
    };
    let backend = |index: BackendIndex| within("backends", index.0.into(), limits.backends);
    let range = |base: u32, count: u64| match count {
        0 => Ok(()),
        _ => within("slots", u64::from(base) + count - 1, limits.slots),
    };
    for op in &plan.ops {
        match op {
            Op::PutBackend { index, .. } | Op::DeleteBackend { index } => backend(*index)?,
            Op::PutSlots { base, slots } => {
                range(base.0, slots.len() as u64)?;
                slots.iter().copied().try_for_each(backend)?;
            }
            Op::Switch { service, entry } => {
                within("switch", service.0.into(), limits.services)?;
                range(entry.base, entry.count.min(MAX_SLOTS_PER_TABLE).into())?;
                convert::switch_value(*entry)?;
            }
            Op::PutService { entry, .. } => {
                within("services", entry.index.0.into(), limits.services)?;
                convert::service_value(*entry)?;
            }
            Op::PutMember { service, index, .. } => {
                within("switch", service.0.into(), limits.services)?;
                backend(*index)?;
            }
            Op::DeleteService { .. } | Op::DeleteMember { .. } => {}
        }
    }
    Ok(())
}
