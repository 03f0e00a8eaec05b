//! Plans as a planner would write them, in one line each.

use std::net::SocketAddr;

use tombolo_core::id::{ClusterId, MaxClusters};
use tombolo_core::model::{BackendKey, Frontend, NoBackend, Protocol};
use tombolo_core::tables::{BackendId, BackendIndex, Op, Plan, ServiceEntry, ServiceIndex, SlotBase, SwitchEntry};

/// An address from its text.
pub(crate) fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A frontend of an address.
pub(crate) fn frontend(at: SocketAddr) -> Frontend {
    Frontend { addr: at.ip().into(), port: at.port(), protocol: Protocol::Tcp }
}

/// A backend at an address.
pub(crate) fn backend(index: u32, at: SocketAddr) -> Op {
    let cluster = ClusterId::new(1, MaxClusters::C255).unwrap();
    let backend = BackendKey { addr: at.ip().into(), port: at.port(), protocol: Protocol::Tcp, cluster };
    Op::PutBackend { index: BackendIndex(index), id: BackendId(u64::from(index) + 1), backend }
}

/// A range of slots.
pub(crate) fn slots(base: u32, backends: impl IntoIterator<Item = u32>) -> Op {
    Op::PutSlots { base: SlotBase(base), slots: backends.into_iter().map(BackendIndex).collect() }
}

/// The switch of a service.
pub(crate) fn switch(service: u32, base: u32, count: u32, generation: u16) -> Op {
    Op::Switch { service: ServiceIndex(service), entry: SwitchEntry { base, count, generation } }
}

/// A service at an address.
pub(crate) fn service(index: u32, at: SocketAddr, no_backend: NoBackend) -> Op {
    let entry = ServiceEntry { index: ServiceIndex(index), no_backend, affinity_seconds: 0 };
    Op::PutService { frontend: frontend(at), entry }
}

/// A plan of these operations.
pub(crate) fn plan(ops: impl IntoIterator<Item = Op>) -> Plan {
    Plan { ops: ops.into_iter().collect(), ..Plan::default() }
}

/// Service 0 at `vip` with one slot for each backend, from index 0 and slot 0.
pub(crate) fn simple(vip: SocketAddr, backends: &[SocketAddr]) -> Plan {
    let count = u32::try_from(backends.len()).unwrap();
    let puts = (0..).zip(backends).map(|(index, at)| backend(index, *at));
    plan(puts.chain([slots(0, 0..count), switch(0, 0, count, 1), service(0, vip, NoBackend::Refuse)]))
}
