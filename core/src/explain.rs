//! Why a service's tables are what they are, from the very values the tables got.

use alloc::vec::Vec;

use crate::id::{Millis, ServiceKey};
use crate::mesh::Mesh;
use crate::plan::Tables;
use crate::report::{Explanation, ServiceView};

/// Explains one service on this node; `None` when no local Service has that name.
pub fn explain(mesh: &Mesh, tables: &Tables, service: &ServiceKey, now: Millis) -> Option<Explanation> {
    let _ = (mesh, tables, service, now);
    unimplemented!()
}

/// All services with their installed tables, ascending; `connects` is left to who can read the counters.
pub fn services(mesh: &Mesh, tables: &Tables) -> Vec<ServiceView> {
    let _ = (mesh, tables);
    unimplemented!()
}
