//! What `/metrics` shows. Gauges are set from the view when they are asked for; labels are peers' names alone.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tombolo_core::own::PeerSession;
use tombolo_core::report::PeerStatus;

use crate::view::View;

type PeerLabel = [(&'static str, String); 1];
type PerPeer = Family<PeerLabel, Gauge>;

/// The registered metrics; clones are the same.
#[derive(Clone)]
pub struct Metrics(Arc<Mutex<Inner>>);

struct Inner {
    registry: Registry,
    ready: Gauge,
    faults: Gauge,
    exported_services: Gauge,
    exported_endpoints: Gauge,
    exported_identities: Gauge,
    exported_addresses: Gauge,
    store_connected: Gauge,
    store_pending: Gauge,
    peer_ready: PerPeer,
    peer_silent: Family<PeerLabel, Gauge<f64, AtomicU64>>,
    peer_services: PerPeer,
    peer_endpoints: PerPeer,
    peer_nodes: PerPeer,
    peer_identities: PerPeer,
    peer_addresses: PerPeer,
    peer_refused: PerPeer,
    peer_guarded: PerPeer,
}

impl Metrics {
    /// Registers everything under `tombolo_apiserver_`.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("tombolo_apiserver");
        let mut gauge = |name: &str, help: &str| {
            let gauge = Gauge::default();
            registry.register(name, help, gauge.clone());
            gauge
        };
        let ready = gauge("ready", "1 when nothing blocks readiness");
        let faults = gauge("source_faults", "What the source, its annotations or the peers directory have wrong");
        let exported_services = gauge("exported_services", "Services exported to peers");
        let exported_endpoints = gauge("exported_endpoints", "Endpoints of exported Services");
        let exported_identities = gauge("exported_identities", "Identities exported to peers");
        let exported_addresses = gauge("exported_addresses", "Addresses of Pods exported to peers");
        let store_connected = gauge("store_connected", "1 when the own store is connected");
        let store_pending = gauge("store_pending_keys", "Keys of the own store not yet as they should be");
        let mut per_peer = |name: &str, help: &str| {
            let family = PerPeer::default();
            registry.register(name, help, family.clone());
            family
        };
        let peer_ready = per_peer("peer_ready", "1 when the peer is listed and watched");
        let peer_services = per_peer("peer_services", "Services a peer brings");
        let peer_endpoints = per_peer("peer_endpoints", "Endpoints a peer brings");
        let peer_nodes = per_peer("peer_nodes", "Nodes a peer brings");
        let peer_identities = per_peer("peer_identities", "Identities a peer brings");
        let peer_addresses = per_peer("peer_addresses", "Addresses of Pods a peer brings");
        let peer_refused = per_peer("peer_refused", "Records and backends of a peer that are refused now");
        let peer_guarded =
            per_peer("peer_guarded_backends", "Backends that a peer swept away and the deletion guard keeps");
        let peer_silent = Family::default();
        registry.register("peer_silent_seconds", "Time since a peer's last heartbeat", peer_silent.clone());
        Self(Arc::new(Mutex::new(Inner {
            registry,
            ready,
            faults,
            exported_services,
            exported_endpoints,
            exported_identities,
            exported_addresses,
            store_connected,
            store_pending,
            peer_ready,
            peer_silent,
            peer_services,
            peer_endpoints,
            peer_nodes,
            peer_identities,
            peer_addresses,
            peer_refused,
            peer_guarded,
        })))
    }

    /// The metrics as text, as of this view.
    pub fn render(&self, view: &View) -> Result<String, fmt::Error> {
        let inner = self.0.lock();
        let status = &view.status;
        inner.ready.set(status.blockers.is_empty().into());
        inner.faults.set(count(status.faults.len()));
        inner.exported_services.set(status.exported_services.into());
        inner.exported_endpoints.set(status.exported_endpoints.into());
        inner.exported_identities.set(status.exported_identities.into());
        inner.exported_addresses.set(status.exported_addresses.into());
        inner.store_connected.set(status.store_connected.into());
        inner.store_pending.set(count(view.writer.pending));
        inner.set_peers(&status.peers);
        for (peer, backends) in &view.guarded {
            inner.peer_guarded.get_or_create(&[("peer", peer.to_string())]).set(count(*backends));
        }
        let mut text = String::new();
        encode(&mut text, &inner.registry)?;
        Ok(text)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Inner {
    /// Peers that left leave their metrics too.
    fn set_peers(&self, peers: &[PeerStatus]) {
        let brought = [&self.peer_services, &self.peer_endpoints, &self.peer_nodes];
        let brought = brought.into_iter().chain([&self.peer_identities, &self.peer_addresses, &self.peer_refused]);
        for family in brought.chain([&self.peer_ready, &self.peer_guarded]) {
            family.clear();
        }
        self.peer_silent.clear();
        for peer in peers {
            let label = [("peer", peer.name.to_string())];
            let counts = &peer.state.counts;
            self.peer_ready.get_or_create(&label).set((peer.state.session == PeerSession::Ready).into());
            self.peer_services.get_or_create(&label).set(counts.services.into());
            self.peer_endpoints.get_or_create(&label).set(counts.endpoints.into());
            self.peer_nodes.get_or_create(&label).set(counts.nodes.into());
            self.peer_identities.get_or_create(&label).set(counts.identities.into());
            self.peer_addresses.get_or_create(&label).set(counts.addresses.into());
            self.peer_refused.get_or_create(&label).set(counts.refused.into());
            let millis = u32::try_from(peer.state.silent_ms).unwrap_or(u32::MAX);
            self.peer_silent.get_or_create(&label).set(f64::from(millis) / 1000.0);
        }
    }
}

fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
