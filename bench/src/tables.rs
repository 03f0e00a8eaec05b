//! Services with backends, as many as wanted.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Result;
use tombolo_core::id::{ClusterId, MaxClusters, ServiceKey};
use tombolo_core::model::{BackendKey, Frontend, NoBackend, Protocol};
use tombolo_core::tables::{Desired, FrontendTable};

/// The port of every frontend.
pub const PORT: u16 = 80;

/// The address of a service; nobody has it, and no route leads there but where a measurement makes one.
pub fn vip(service: u32) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 96, 0, 0)) + 1 + service), PORT))
}

/// A service that answers at its address by these protocols, with the same backends for each.
///
/// # Errors
/// None: the one cluster's id is a valid one.
pub fn service(number: u32, protocols: &[Protocol], backends: &[SocketAddr]) -> Result<Desired> {
    let cluster = ClusterId::new(1, MaxClusters::C255)?;
    let at = vip(number);
    let table = |protocol: Protocol| {
        let key = |at: &SocketAddr| BackendKey { addr: at.ip().into(), port: at.port(), protocol, cluster };
        let mut backends: Vec<_> = backends.iter().map(|at| (key(at), 1)).collect();
        backends.sort_unstable();
        let frontend = Frontend { addr: at.ip().into(), port: at.port(), protocol };
        (frontend, FrontendTable { backends, no_backend: NoBackend::Refuse, affinity_seconds: 0 })
    };
    let mut frontends: Vec<_> = protocols.iter().copied().map(table).collect();
    frontends.sort_unstable_by_key(|(frontend, _)| *frontend);
    Ok(Desired { service: ServiceKey::new("bench", format!("s{number}")), frontends })
}
