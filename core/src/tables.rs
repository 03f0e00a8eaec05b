//! The kernel's tables as values, and the operations that change them.
//!
//! `plan` writes these operations down; the executor (`tombolo-ebpf`) carries them out and makes no choices. Indexes
//! are stable while their owner lives and are freed only when no program can still hold them.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::fmt;

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
    /// Says that a backend belongs to a frontend's table. Only tables with ClientIP affinity have members.
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
    /// A backend no longer belongs to a frontend's table: a sticky choice of it falls back to the table.
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

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PutBackend { index, id, backend } => {
                write!(f, "put backend {}: {backend} of cluster {}, id {}", index.0, backend.cluster, id.0)
            }
            Self::PutSlots { base, slots } => {
                write!(f, "put slots {}:", base.0)?;
                slots.iter().try_for_each(|index| write!(f, " {}", index.0))
            }
            Self::PutMember { service, id, index } => {
                write!(f, "put member {} of service {}: backend {}", id.0, service.0, index.0)
            }
            Self::Switch { service, entry: SwitchEntry { base, count, generation } } => {
                write!(f, "switch service {}: {count} slots from {base}, generation {generation}", service.0)
            }
            Self::PutService { frontend, entry } => {
                let ServiceEntry { index, no_backend, affinity_seconds } = entry;
                write!(f, "put service {}: {frontend}, {no_backend:?}, affinity {affinity_seconds} s", index.0)
            }
            Self::DeleteService { frontend } => write!(f, "delete service {frontend}"),
            Self::DeleteMember { service, id } => write!(f, "delete member {} of service {}", id.0, service.0),
            Self::DeleteBackend { index } => write!(f, "delete backend {}", index.0),
        }
    }
}

/// Names what a plan made unused. Once a grace period has passed, `Tables::reclaim` turns it into freed indexes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Ordered operations, and what they leave behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The operations.
    pub ops: Vec<Op>,
    /// To be reclaimed after a grace period, when anything became unused.
    pub retired: Option<Ticket>,
    /// Connections of this frontend to this backend are no longer wanted: the backend left that table, or the frontend
    /// left altogether. Once the operations are carried out, no new ones come.
    pub left: Vec<(Frontend, BackendKey)>,
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
    /// The service it belongs to; nobody yet in adopted tables, before the first plan of all.
    pub service: Option<&'a ServiceKey>,
    /// What `services` holds.
    pub entry: ServiceEntry,
    /// What `switch` holds.
    pub switch: SwitchEntry,
    /// The table.
    pub table: &'a FrontendTable,
}

/// What the maps hold, as read back from them: what a plan is compared with after a restart.
///
/// Everything is ascending, and nothing is promised about it: whoever wrote it may have stopped half way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// The frontends with their entries.
    pub services: Vec<(Frontend, ServiceEntry)>,
    /// Whose place a service index is, for each in `services`: for any other frontend the programs leave it alone.
    pub frontends: BTreeMap<ServiceIndex, Frontend>,
    /// For each service index in `services`: its switch, and the slots that this leads to, as far as they lie inside
    /// the map.
    pub tables: BTreeMap<ServiceIndex, (SwitchEntry, Vec<BackendIndex>)>,
    /// The backends that are somewhere, by their places.
    pub backends: Vec<(BackendIndex, BackendId, BackendKey)>,
    /// Who is a member of what, and where.
    pub members: Vec<(ServiceIndex, BackendId, BackendIndex)>,
}
