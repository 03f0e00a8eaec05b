//! What this cluster's own Services make of peers: which are imported, and how long each bears a peer's silence.

use std::collections::{BTreeMap, BTreeSet};

use tombolo_core::id::ServiceKey;

/// The local global Services.
#[derive(Clone, Debug, Default)]
pub(super) struct Uses {
    /// Of these, peers' endpoints are published.
    pub(super) imports: BTreeSet<ServiceKey>,
    /// Milliseconds of `tombolo.io/stale-after`, where one is said.
    stale_after: BTreeMap<ServiceKey, u64>,
    /// The distinct ones among these.
    bounds: BTreeSet<u64>,
}

impl Uses {
    /// These Services bear so much silence now; `None` is a peer's own measure.
    pub(super) fn set_stale_after(&mut self, changes: &[(ServiceKey, Option<u64>)]) {
        for (service, ms) in changes {
            match ms {
                Some(ms) => drop(self.stale_after.insert(service.clone(), *ms)),
                None => drop(self.stale_after.remove(service)),
            }
        }
        self.bounds = self.stale_after.values().copied().collect();
    }

    /// The distinct times of silence that Services bear, in milliseconds.
    pub(super) fn bounds(&self) -> &BTreeSet<u64> {
        &self.bounds
    }

    /// The Services that say how much they bear.
    pub(super) fn stale_after(&self) -> impl Iterator<Item = (&ServiceKey, u64)> {
        self.stale_after.iter().map(|(service, ms)| (service, *ms))
    }
}
