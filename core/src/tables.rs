//! The kernel's tables as values, and the operations that change them.
//!
//! `plan` writes these operations down; the executor (`tombolo-ebpf`) carries them out and makes no choices. Indexes
//! are stable while their owner lives and are freed only when no program can still hold them.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::id::ServiceKey;
use crate::model::{BackendKey, Frontend, NoBackend};

/// Position of a frontend in the `switch` array. 24 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ServiceIndex(pub u32);

/// Position of a backend in the `backends` array.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BackendIndex(pub u32);

/// Position in the `slots` array.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SlotBase(pub u32);

/// A backend's identity, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BackendId(pub u64);

/// What `switch` holds for one frontend: one contiguous range of slots. `count` 0 means no backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwitchEntry {
    /// First slot.
    pub base: u32,
    /// How many slots, 20 bits.
    pub count: u32,
    /// Counts the table's changes, 12 bits.
    pub generation: u16,
}

/// What `services` holds for one frontend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceEntry {
    /// Its place in `switch`.
    pub index: ServiceIndex,
    /// What a connect meets when the table is empty.
    pub no_backend: NoBackend,
    /// ClientIP affinity in seconds, 0 = none.
    pub affinity_seconds: u32,
}

/// One step of a plan. Executed in order; every prefix leaves the maps safe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Writes a backend at a free index, and clears its counters.
    PutBackend {
        /// Where.
        index: BackendIndex,
        /// Its identity.
        id: BackendId,
        /// Where it is.
        backend: BackendKey,
    },
    /// Writes a free range of slots.
    PutSlots {
        /// The first slot.
        base: SlotBase,
        /// The backends, one a slot.
        slots: Vec<BackendIndex>,
    },
    /// Says that a backend belongs to a frontend's table.
    PutMember {
        /// The frontend.
        service: ServiceIndex,
        /// The backend's identity.
        id: BackendId,
        /// Where it is.
        index: BackendIndex,
    },
    /// **The** switch: one atomic store, after which new connections use the new range.
    Switch {
        /// The frontend.
        service: ServiceIndex,
        /// Its new range.
        entry: SwitchEntry,
    },
    /// Makes a frontend known, after its switch entry is set.
    PutService {
        /// What clients dial.
        frontend: Frontend,
        /// Its entry.
        entry: ServiceEntry,
    },
    /// Makes a frontend unknown: its connections are left untranslated.
    DeleteService {
        /// What clients dialled.
        frontend: Frontend,
    },
    /// A backend no longer belongs to a frontend's table.
    DeleteMember {
        /// The frontend.
        service: ServiceIndex,
        /// The backend's identity.
        id: BackendId,
    },
    /// Erases a backend that no table uses and no running program can still hold.
    DeleteBackend {
        /// Where it was.
        index: BackendIndex,
    },
}

/// Names what a plan made unused. Once a grace period has passed, `Tables::reclaim` turns it into freed indexes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Ordered operations, and the ticket of what they leave behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The operations.
    pub ops: Vec<Op>,
    /// To be reclaimed after a grace period, when anything became unused.
    pub retired: Option<Ticket>,
}

/// How many entries each map takes. The executor creates the maps with these sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// `services` and `switch`: frontends, at most 2^24.
    pub services: u32,
    /// `backends`: different backends, those that wait for reclaim included.
    pub backends: u32,
    /// `slots`: slots of all tables, those that wait for reclaim included.
    pub slots: u32,
    /// `members`: pairs of frontend and backend, those that wait for reclaim included.
    pub members: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { services: 65_536, backends: 262_144, slots: 1_048_576, members: 1_048_576 }
    }
}

/// What one frontend's table should hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrontendTable {
    /// The backends with their slot counts, each at least 1, in ascending order of backend; empty means none serves.
    pub backends: Vec<(BackendKey, u32)>,
    /// What a connect meets when the table is empty.
    pub no_backend: NoBackend,
    /// ClientIP affinity in seconds, 0 = none.
    pub affinity_seconds: u32,
}

impl FrontendTable {
    /// The backends a sticky client may stay with: all of them, or none where nothing is sticky.
    pub fn members(&self) -> &[(BackendKey, u32)] {
        if self.affinity_seconds > 0 { &self.backends } else { &[] }
    }
}

/// All that one service should have in the tables: its complete set of frontends, none when it has no place there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Desired {
    /// The service.
    pub service: ServiceKey,
    /// Its frontends, in ascending order, with their tables.
    pub frontends: Vec<(Frontend, FrontendTable)>,
}

/// One frontend's table as the plans so far have installed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed<'a> {
    /// The service it belongs to.
    pub service: &'a ServiceKey,
    /// What `services` holds.
    pub entry: ServiceEntry,
    /// What `switch` holds.
    pub switch: SwitchEntry,
    /// The table.
    pub table: &'a FrontendTable,
}
