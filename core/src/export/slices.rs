//! The EndpointSlices that are a source, by the Service they belong to.

use alloc::collections::{BTreeMap, BTreeSet};

use smol_str::SmolStr;

use super::SERVICE_NAME;
use crate::id::{Addr, ServiceKey};
use crate::object::SliceObject;

/// The label of an EndpointSlice that mirrors a peer's endpoints (MCS-API).
const SOURCE_CLUSTER: &str = "multicluster.kubernetes.io/source-cluster";
/// The label of an EndpointSlice that names the controller it belongs to.
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// Controllers whose EndpointSlices mirror peers' endpoints.
const MESH_CONTROLLERS: [&str; 1] = ["endpointslice-mesh-controller.cilium.io"];

/// Slices by Service, and which of their addresses were ever ready.
#[derive(Clone, Debug, Default)]
pub(super) struct Slices {
    by_service: BTreeMap<ServiceKey, OfService>,
    /// Whose a slice is, by namespace and its own name.
    owners: BTreeMap<(SmolStr, SmolStr), ServiceKey>,
    /// Addresses that were ready in an earlier life, until the first complete set says which are still there.
    remembered: BTreeMap<ServiceKey, BTreeSet<Addr>>,
}

#[derive(Clone, Debug, Default)]
struct OfService {
    slices: BTreeMap<SmolStr, SliceObject>,
    /// Addresses that were ever ready, while any slice of the Service has them.
    was_ready: BTreeSet<Addr>,
}

impl Slices {
    /// Takes in a slice, and says whose endpoints changed: its Service's, and its former one's.
    pub(super) fn put(&mut self, slice: SliceObject) -> BTreeSet<ServiceKey> {
        let owner = owner(&slice);
        let held = owner.as_ref().and_then(|key| self.by_service.get(key)?.slices.get(&slice.name));
        if held == Some(&slice) {
            return BTreeSet::new();
        }
        let at = (slice.namespace.clone(), slice.name.clone());
        let mut changed = BTreeSet::new();
        if self.owners.get(&at) != owner.as_ref() {
            changed.extend(self.remove(&at.0, &at.1));
        }
        if let Some(key) = owner {
            self.owners.insert(at, key.clone());
            let remembered = self.remembered.get(&key);
            self.by_service.entry(key.clone()).or_default().put(slice, remembered);
            changed.insert(key);
        }
        changed
    }

    /// Removes a slice, and says whose it was.
    pub(super) fn remove(&mut self, namespace: &SmolStr, name: &SmolStr) -> Option<ServiceKey> {
        let key = self.owners.remove(&(namespace.clone(), name.clone()))?;
        let service = self.by_service.get_mut(&key).expect("whoever owns a slice has it");
        service.slices.remove(name);
        service.forget_departed();
        if service.slices.is_empty() {
            self.by_service.remove(&key);
        }
        Some(key)
    }

    /// These addresses of a Service were ready in an earlier life.
    pub(super) fn remember(&mut self, key: ServiceKey, ready: BTreeSet<Addr>) {
        self.remembered.entry(key).or_default().extend(ready);
    }

    /// Whoever comes from now on is new.
    pub(super) fn forget_remembered(&mut self) {
        self.remembered.clear();
    }

    /// A Service's slices, by their names.
    pub(super) fn of(&self, key: &ServiceKey) -> impl Iterator<Item = &SliceObject> {
        self.by_service.get(key).into_iter().flat_map(|service| service.slices.values())
    }

    /// A Service's addresses that were ever ready.
    pub(super) fn was_ready(&self, key: &ServiceKey) -> &BTreeSet<Addr> {
        self.by_service.get(key).map_or(const { &BTreeSet::new() }, |service| &service.was_ready)
    }
}

impl OfService {
    fn put(&mut self, slice: SliceObject, remembered: Option<&BTreeSet<Addr>>) {
        self.was_ready.extend(remembered.into_iter().flatten());
        let ready = slice.endpoints.iter().filter(|e| e.conditions.state().was_ready());
        self.was_ready.extend(ready.filter_map(|e| e.addresses.first()));
        self.slices.insert(slice.name.clone(), slice);
        self.forget_departed();
    }

    /// An address that no slice has may come back as somebody else's.
    fn forget_departed(&mut self) {
        let endpoints = self.slices.values().flat_map(|slice| &slice.endpoints);
        let present: BTreeSet<Addr> = endpoints.filter_map(|e| e.addresses.first().copied()).collect();
        self.was_ready.retain(|addr| present.contains(addr));
    }
}

/// The Service a slice is a source for; `None` when it is not one, or brings a peer's endpoints.
fn owner(slice: &SliceObject) -> Option<ServiceKey> {
    let mirrored = slice.labels.contains_key(SOURCE_CLUSTER)
        || slice.labels.get(MANAGED_BY).is_some_and(|by| MESH_CONTROLLERS.contains(&by.as_str()));
    let service = slice.labels.get(SERVICE_NAME).filter(|name| !mirrored && !name.is_empty())?;
    Some(ServiceKey::new(slice.namespace.clone(), service.as_str()))
}
