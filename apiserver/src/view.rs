//! What readers see of the driver's state: an immutable value, replaced as a whole.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tombolo_core::id::{ClusterId, ClusterName, Millis};
use tombolo_core::report::ApiserverStatus;
use tombolo_store::WriterStatus;
use tombolo_wire::admin::ApiserverAdmin;

use crate::clock;

/// The state at one moment.
#[derive(Clone, Debug)]
pub struct View {
    /// When that was.
    pub at: Millis,
    /// What people are told.
    pub status: ApiserverStatus,
    /// Where the writer stands.
    pub writer: WriterStatus,
    /// How many backends the deletion guard keeps, by peer.
    pub guarded: Vec<(ClusterName, usize)>,
}

/// A handle for readers; clones show the same.
#[derive(Clone, Debug)]
pub struct Views(Arc<ArcSwap<View>>);

impl Views {
    /// Before anything is known.
    pub fn new(cluster: ClusterName, id: ClusterId, blocker: &str) -> Self {
        let status = ApiserverStatus {
            cluster,
            id,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_s: 0,
            blockers: vec![blocker.to_owned()],
            peers: Vec::new(),
            faults: Vec::new(),
            exported_services: 0,
            exported_endpoints: 0,
            exported_identities: 0,
            exported_addresses: 0,
            store_connected: false,
        };
        let (at, writer, guarded) = (clock::now(), WriterStatus::default(), Vec::new());
        Self(Arc::new(ArcSwap::from_pointee(View { at, status, writer, guarded })))
    }

    /// The state now.
    pub fn load(&self) -> Arc<View> {
        self.0.load_full()
    }

    /// What people are told, with ages as of this call.
    pub fn told(&self) -> ApiserverStatus {
        let view = self.load();
        let (now, mut status) = (clock::now(), view.status.clone());
        status.uptime_s = now.0 / 1000;
        for peer in &mut status.peers {
            peer.state.silent_ms = peer.state.silent_ms.saturating_add(now.since(view.at));
        }
        status
    }

    /// From now on this is the state.
    pub fn store(&self, view: View) {
        self.0.store(Arc::new(view));
    }
}

impl ApiserverAdmin for Views {
    fn status(&self) -> ApiserverStatus {
        self.told()
    }
}
