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

/// A backend at an address; its identity is one more than its index.
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

/// A service at an address whose clients are sticky for so many seconds.
pub(crate) fn sticky(index: u32, at: SocketAddr, affinity_seconds: u32) -> Op {
    let entry = ServiceEntry { index: ServiceIndex(index), no_backend: NoBackend::Refuse, affinity_seconds };
    Op::PutService { frontend: frontend(at), entry }
}

/// A member of a service: a backend of [`backend`].
pub(crate) fn member(service: u32, backend: u32) -> Op {
    let id = BackendId(u64::from(backend) + 1);
    Op::PutMember { service: ServiceIndex(service), id, index: BackendIndex(backend) }
}

/// A backend of [`backend`] is no member any more.
pub(crate) fn no_member(service: u32, backend: u32) -> Op {
    Op::DeleteMember { service: ServiceIndex(service), id: BackendId(u64::from(backend) + 1) }
}

/// The same for datagrams.
pub(crate) fn udp(op: Op) -> Op {
    match op {
        Op::PutBackend { index, id, mut backend } => {
            backend.protocol = Protocol::Udp;
            Op::PutBackend { index, id, backend }
        }
        Op::PutService { mut frontend, entry } => {
            frontend.protocol = Protocol::Udp;
            Op::PutService { frontend, entry }
        }
        other => other,
    }
}

/// A plan of these operations.
pub(crate) fn plan(ops: impl IntoIterator<Item = Op>) -> Plan {
    Plan { ops: ops.into_iter().collect(), ..Plan::default() }
}

/// Service 0 at `vip` with one slot for each backend, from index 0 and slot 0.
pub(crate) fn simple(vip: SocketAddr, backends: &[SocketAddr]) -> Plan {
    plan(one(0, vip, backends))
}

/// Service `index` at `vip` with one slot for each backend, from index and slot 16 × `index`.
pub(crate) fn one(index: u32, vip: SocketAddr, backends: &[SocketAddr]) -> Vec<Op> {
    let (count, base) = (u32::try_from(backends.len()).unwrap(), 16 * index);
    let puts = (base..).zip(backends).map(|(index, at)| backend(index, *at));
    let table =
        [slots(base, base..base + count), switch(index, base, count, 1), service(index, vip, NoBackend::Refuse)];
    puts.chain(table).collect()
}
