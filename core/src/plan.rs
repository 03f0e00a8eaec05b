//! From what the tables hold to what they should hold.

use crate::model::{BackendKey, Frontend};
use crate::tables::{BackendId, BackendIndex, Desired, Installed, Limits, Plan, Ticket};

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

impl core::fmt::Display for MapName {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Services => "services",
            Self::Backends => "backends",
            Self::Slots => "slots",
            Self::Members => "members",
        })
    }
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

/// A map has no room for what was asked; nothing was planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("map {map} is full at {limit} entries: raise its limit")]
pub struct Full {
    /// The map.
    pub map: MapName,
    /// How many entries it takes.
    pub limit: u32,
}

/// What the kernel's maps hold, once every plan so far was executed; it also allocates their indexes.
#[derive(Clone, Debug)]
pub struct Tables {}

impl Tables {
    /// Empty tables; backend ids count up from `first_id` and are never reused.
    pub fn new(limits: Limits, first_id: BackendId) -> Self {
        unimplemented!()
    }
    /// Plans the way from what is installed to what these services should have. Other services stay as they are.
    pub fn plan(&mut self, desired: &[Desired]) -> Result<Plan, Full> {
        unimplemented!()
    }
    /// Frees what this ticket and earlier ones name. Call it a grace period after their plans were executed.
    pub fn reclaim(&mut self, ticket: Ticket) -> Plan {
        unimplemented!()
    }
    /// One frontend's table.
    pub fn installed(&self, frontend: &Frontend) -> Option<Installed<'_>> {
        unimplemented!()
    }
    /// All frontends, ascending.
    pub fn frontends(&self) -> impl Iterator<Item = (&Frontend, Installed<'_>)> {
        core::iter::empty()
    }
    /// Where a backend is, to read its counters.
    pub fn backend_index(&self, backend: &BackendKey) -> Option<BackendIndex> {
        unimplemented!()
    }
    /// How much is in use.
    pub fn counts(&self) -> Counts {
        unimplemented!()
    }
}
