//! Between core's values and the maps'.

use tombolo_core::id::{Addr, ClusterId, MaxClusters};
use tombolo_core::model::{BackendKey, Frontend, NoBackend, Protocol};
use tombolo_core::tables::{BackendId, ServiceEntry, ServiceIndex, SwitchEntry};
use tombolo_ebpf_layout::{Address, Backend, FlowEvent, FrontendKey, MemberKey, ServiceValue, SwitchValue, TCP, UDP};

use crate::DatapathError;

/// The IP protocol number, from IANA's registry.
fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => TCP,
        Protocol::Udp => UDP,
        Protocol::Sctp => 132,
    }
}

pub(crate) fn frontend_key(frontend: &Frontend) -> FrontendKey {
    let addr = Address::from_octets(frontend.addr.octets());
    FrontendKey::new(addr, frontend.port.to_be(), number(frontend.protocol))
}

/// The protocol of a number, `None` for one that no service has.
fn protocol(number_of: u8) -> Option<Protocol> {
    [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].into_iter().find(|protocol| number(*protocol) == number_of)
}

/// The frontend of a map's key, `None` where there is none.
pub(crate) fn frontend(key: &FrontendKey) -> Option<Frontend> {
    let protocol = protocol(key.protocol())?;
    Some(Frontend { addr: Addr::from(key.addr().octets()), port: u16::from_be(key.port()), protocol })
}

pub(crate) fn member_key(service: ServiceIndex, id: BackendId) -> MemberKey {
    MemberKey::new(service.0, id.0)
}

pub(crate) fn service_value(entry: ServiceEntry) -> Result<ServiceValue, DatapathError> {
    ServiceValue::new(entry.index.0, entry.no_backend == NoBackend::Pass, entry.affinity_seconds)
        .ok_or_else(|| DatapathError::Unfit(format!("{entry:?}")))
}

pub(crate) fn service_entry(value: ServiceValue) -> ServiceEntry {
    ServiceEntry {
        index: ServiceIndex(value.index()),
        no_backend: if value.pass() { NoBackend::Pass } else { NoBackend::Refuse },
        affinity_seconds: value.affinity_seconds(),
    }
}

pub(crate) fn switch_value(entry: SwitchEntry) -> Result<SwitchValue, DatapathError> {
    SwitchValue::new(entry.base, entry.count, entry.generation)
        .ok_or_else(|| DatapathError::Unfit(format!("{entry:?}")))
}

pub(crate) fn switch_entry(value: SwitchValue) -> SwitchEntry {
    SwitchEntry { base: value.base(), count: value.count(), generation: value.generation() }
}

pub(crate) fn backend(id: BackendId, key: &BackendKey) -> Backend {
    let addr = Address::from_octets(key.addr.octets());
    Backend::new(id.0, addr, key.port.to_be(), number(key.protocol), key.cluster.get())
}

/// The backend that an event names, `None` where there is none; the protocol is the frontend's.
pub(crate) fn told_backend(event: &FlowEvent, protocol: Protocol) -> Option<(BackendId, BackendKey)> {
    let cluster = ClusterId::new(event.cluster.into(), MaxClusters::C511).ok()?;
    let (addr, port) = (Addr::from(event.addr.octets()), u16::from_be(event.port));
    (port != 0).then_some((BackendId(event.backend), BackendKey { addr, port, protocol, cluster }))
}

/// The backend of a map's value, `None` where there is none.
pub(crate) fn backend_key(value: &Backend) -> Option<(BackendId, BackendKey)> {
    let protocol = protocol(value.protocol)?;
    let key = BackendKey {
        addr: Addr::from(value.addr.octets()),
        port: u16::from_be(value.port),
        protocol,
        cluster: ClusterId::new(value.cluster.into(), MaxClusters::C511).ok()?,
    };
    (value.port != 0).then_some((BackendId(value.id), key))
}
