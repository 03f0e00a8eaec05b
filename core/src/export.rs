//! What this cluster's objects come to: records for peers, and records for the own agents.
//!
//! The [`Exporter`] holds a source's objects. An event says what is [`Dirty`]; the caller then asks for the complete
//! new state of each dirty Service or Node, writes it, and deletes what it wrote before and is no longer in it.
//!
//! Peers get a Service that is global and shared, in a global namespace. The own agents get every global Service,
//! shared or not, in any namespace: `shared` and the namespace's annotation stop the export only, and a reader's own
//! Service object alone decides what it imports (Cilium's agents read no namespace when they merge).

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use ipnet::IpNet;
use smol_str::SmolStr;

use crate::id::{Addr, ClusterId, ClusterName, ServiceKey};
use crate::model::{BackendState, Reach, ServiceSpec, Slice};
use crate::object::{NamespaceObject, NodeObject, Object, ObjectKey, ServiceObject, SliceObject, SourceEvent};
use crate::own::NodeInfo;
use crate::policy::{self, Warning};
use crate::record::{NodeRecord, ServiceRecord, SliceRecord};

mod records;

/// The label of an EndpointSlice that names its Service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The label of an EndpointSlice that mirrors a peer's endpoints (MCS-API).
const SOURCE_CLUSTER: &str = "multicluster.kubernetes.io/source-cluster";
/// The label of an EndpointSlice that names the controller it belongs to.
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// Controllers whose EndpointSlices mirror peers' endpoints.
const MESH_CONTROLLERS: [&str; 1] = ["endpointslice-mesh-controller.cilium.io"];

/// The cluster that exports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExporterConfig {
    /// Its name.
    pub cluster: ClusterName,
    /// Its id.
    pub id: ClusterId,
    /// Whether a namespace that says nothing is global.
    pub namespaces: DefaultNamespace,
}

/// What a namespace without the annotation is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DefaultNamespace {
    /// Exported.
    #[default]
    Global,
    /// Not exported.
    Cluster,
}

/// What an event may have changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dirty {
    /// Services, also such that are gone.
    pub services: BTreeSet<ServiceKey>,
    /// Nodes, also such that are gone.
    pub nodes: BTreeSet<SmolStr>,
}

impl Dirty {
    /// Adds another event's.
    pub fn merge(&mut self, other: Self) {
        self.services.extend(other.services);
        self.nodes.extend(other.nodes);
    }

    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.services.is_empty() && self.nodes.is_empty()
    }
}

/// Everything one Service comes to. The default is a Service that does not exist.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExportedService {
    /// For peers: the whole Service in one record.
    pub legacy: Option<ServiceRecord>,
    /// For peers: its EndpointSlices, by their names. A slice that changes its Service keeps its key, so delete what
    /// left all dirty Services before putting what they have.
    pub slices: BTreeMap<SmolStr, SliceRecord>,
    /// For the own agents.
    pub own: Option<OwnService>,
    /// Annotations that could not be understood.
    pub warnings: Vec<Warning>,
}

/// A local global Service as the own agents get it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnService {
    /// Frontends and policy.
    pub spec: ServiceSpec,
    /// Its endpoints by EndpointSlice, not yet split by [`crate::own::ENDPOINTS_PER_KEY`].
    pub slices: BTreeMap<SmolStr, Slice>,
}

/// A Node as peers and as its own agent get it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportedNode {
    /// For peers.
    pub record: NodeRecord,
    /// For the node's own agent.
    pub own: NodeInfo,
}

/// A source's objects, and what they come to.
#[derive(Clone, Debug)]
pub struct Exporter {
    config: ExporterConfig,
    services: BTreeMap<ServiceKey, ServiceObject>,
    /// Slices that may be a source, by Service and by their own name.
    slices: BTreeMap<ServiceKey, BTreeMap<SmolStr, SliceObject>>,
    /// Whose a slice is, by namespace and its own name.
    owners: BTreeMap<(SmolStr, SmolStr), ServiceKey>,
    namespaces: BTreeMap<SmolStr, Namespace>,
    nodes: BTreeMap<SmolStr, NodeObject>,
    /// Addresses that were ever ready, while any slice of their Service has them.
    was_ready: BTreeMap<ServiceKey, BTreeSet<Addr>>,
}

/// A Namespace that has been heard of. One that never was follows the default: a directory need not name it.
#[derive(Clone, Debug)]
enum Namespace {
    Present(NamespaceObject),
    /// Deleted, as it was last.
    Deleted(NamespaceObject),
}

/// What a namespace lets out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gate {
    Open,
    /// The namespace is deleted: as in Cilium, its slice records leave at once, its service records with their Services.
    Closing,
    Shut,
}

impl Exporter {
    /// Knows no objects yet.
    pub fn new(config: ExporterConfig) -> Self {
        Self {
            config,
            services: BTreeMap::new(),
            slices: BTreeMap::new(),
            owners: BTreeMap::new(),
            namespaces: BTreeMap::new(),
            nodes: BTreeMap::new(),
            was_ready: BTreeMap::new(),
        }
    }

    /// Takes in what the source says. An object said again as it was changes nothing.
    pub fn apply(&mut self, event: SourceEvent) -> Dirty {
        match event {
            SourceEvent::Upsert(Object::Service(service)) => self.put_service(service),
            SourceEvent::Upsert(Object::Slice(slice)) => self.put_slice(slice),
            SourceEvent::Upsert(Object::Namespace(namespace)) => self.put_namespace(namespace),
            SourceEvent::Upsert(Object::Node(node)) => self.put_node(node),
            SourceEvent::Delete(ObjectKey::Service(key)) => Dirty::services(self.services.remove(&key).map(|s| s.key)),
            SourceEvent::Delete(ObjectKey::Slice { namespace, name }) => {
                Dirty::services(self.remove_slice(&namespace, &name))
            }
            SourceEvent::Delete(ObjectKey::Namespace(name)) => self.delete_namespace(&name),
            SourceEvent::Delete(ObjectKey::Node(name)) => {
                Dirty { nodes: self.nodes.remove(&name).map(|n| n.name).into_iter().collect(), ..Dirty::default() }
            }
            SourceEvent::Complete | SourceEvent::Fault(_) | SourceEvent::Mended { .. } => Dirty::default(),
        }
    }

    /// Everything a Service comes to now.
    pub fn exported(&self, key: &ServiceKey) -> ExportedService {
        let Some(service) = self.services.get(key) else { return ExportedService::default() };
        let (policy, warnings) = policy::resolve(service);
        let mut exported = ExportedService { warnings, ..ExportedService::default() };
        if !policy.reach.is_global() {
            return exported;
        }
        let gate = if policy.reach == Reach::Mesh { self.gate(&key.namespace) } else { Gate::Shut };
        if gate != Gate::Shut {
            exported.legacy = Some(records::service(&self.config, service, self.slices_of(key)));
        }
        if gate == Gate::Open {
            exported.slices = self.slices_of(key).map(|s| (s.name.clone(), records::slice(&self.config, s))).collect();
        }
        let ready = self.was_ready.get(key).unwrap_or(const { &BTreeSet::new() });
        let mut slices = BTreeMap::new();
        for slice in self.slices_of(key) {
            let (endpoints, warning) = records::own_slice(slice, ready);
            slices.insert(slice.name.clone(), endpoints);
            exported.warnings.extend(warning);
        }
        exported.own = Some(OwnService { spec: records::spec(service, policy), slices });
        exported
    }

    /// What a Node comes to now; `None` when there is no such Node.
    pub fn exported_node(&self, name: &str) -> Option<ExportedNode> {
        let node = self.nodes.get(name)?;
        Some(ExportedNode { record: records::node(&self.config, node), own: records::node_info(node) })
    }

    /// All Services and Nodes that exist, as if each had changed.
    pub fn all(&self) -> Dirty {
        Dirty { services: self.services.keys().cloned().collect(), nodes: self.nodes.keys().cloned().collect() }
    }

    /// Whether a peer's endpoints of that Service are of use here.
    pub fn imports(&self, key: &ServiceKey) -> bool {
        self.services.get(key).is_some_and(|service| policy::resolve(service).0.reach.is_global())
    }

    /// The pod ranges of this cluster's Nodes: what admission protects.
    pub fn pod_cidrs(&self) -> BTreeSet<IpNet> {
        self.nodes.values().flat_map(|node| node.pod_cidrs.iter().copied()).collect()
    }

    /// The addresses of this cluster's Nodes: what admission protects.
    pub fn node_addresses(&self) -> BTreeSet<Addr> {
        self.nodes.values().flat_map(|node| node.addresses.iter().map(|(_, addr)| *addr)).collect()
    }

    fn put_service(&mut self, service: ServiceObject) -> Dirty {
        if self.services.get(&service.key) == Some(&service) {
            return Dirty::default();
        }
        let key = service.key.clone();
        self.services.insert(key.clone(), service);
        Dirty::services([key])
    }

    fn put_slice(&mut self, slice: SliceObject) -> Dirty {
        let owner = owner(&slice);
        let held = owner.as_ref().and_then(|key| self.slices.get(key)?.get(&slice.name));
        if held == Some(&slice) {
            return Dirty::default();
        }
        // Noted before the old version goes, so that an address in both versions stays known.
        if let Some(key) = &owner {
            let ready = slice.endpoints.iter().filter(|e| e.conditions.state() == BackendState::Active);
            let addrs = ready.filter_map(|e| e.addresses.first().copied());
            self.was_ready.entry(key.clone()).or_default().extend(addrs);
        }
        let mut dirty = Dirty::default();
        let former = self.owners.get(&(slice.namespace.clone(), slice.name.clone()));
        if former != owner.as_ref() {
            dirty = Dirty::services(self.remove_slice(&slice.namespace, &slice.name));
        }
        if let Some(key) = owner {
            self.owners.insert((slice.namespace.clone(), slice.name.clone()), key.clone());
            self.slices.entry(key.clone()).or_default().insert(slice.name.clone(), slice);
            self.forget_departed(&key);
            dirty.services.insert(key);
        }
        dirty
    }

    /// Removes a slice, and says whose it was.
    fn remove_slice(&mut self, namespace: &SmolStr, name: &SmolStr) -> Option<ServiceKey> {
        let key = self.owners.remove(&(namespace.clone(), name.clone()))?;
        if let Some(slices) = self.slices.get_mut(&key) {
            slices.remove(name);
            if slices.is_empty() {
                self.slices.remove(&key);
            }
        }
        self.forget_departed(&key);
        Some(key)
    }

    /// An address that no slice of the Service has may come back as somebody else's.
    fn forget_departed(&mut self, key: &ServiceKey) {
        let Some(mut ready) = self.was_ready.remove(key) else { return };
        let present: BTreeSet<Addr> =
            self.slices_of(key).flat_map(|s| &s.endpoints).filter_map(|e| e.addresses.first().copied()).collect();
        ready.retain(|addr| present.contains(addr));
        if !ready.is_empty() {
            self.was_ready.insert(key.clone(), ready);
        }
    }

    fn put_namespace(&mut self, namespace: NamespaceObject) -> Dirty {
        let name = namespace.name.clone();
        let before = self.gate(&name);
        self.namespaces.insert(name.clone(), Namespace::Present(namespace));
        self.flipped(&name, before)
    }

    fn delete_namespace(&mut self, name: &SmolStr) -> Dirty {
        let before = self.gate(name);
        let Some(Namespace::Present(last)) = self.namespaces.remove(name) else { return Dirty::default() };
        self.namespaces.insert(name.clone(), Namespace::Deleted(last));
        self.flipped(name, before)
    }

    /// Everything in the namespace, if its gate is another than before.
    fn flipped(&self, namespace: &SmolStr, before: Gate) -> Dirty {
        if self.gate(namespace) == before {
            return Dirty::default();
        }
        let first = ServiceKey::new(namespace.clone(), "");
        Dirty::services(
            self.services.range(first..).map(|(key, _)| key).take_while(|k| k.namespace == *namespace).cloned(),
        )
    }

    fn put_node(&mut self, node: NodeObject) -> Dirty {
        if self.nodes.get(&node.name) == Some(&node) {
            return Dirty::default();
        }
        let name = node.name.clone();
        self.nodes.insert(name.clone(), node);
        Dirty { nodes: [name].into(), ..Dirty::default() }
    }

    fn gate(&self, namespace: &str) -> Gate {
        let default = self.config.namespaces == DefaultNamespace::Global;
        let (object, open) = match self.namespaces.get(namespace) {
            None => (None, Gate::Open),
            Some(Namespace::Present(object)) => (Some(object), Gate::Open),
            Some(Namespace::Deleted(object)) => (Some(object), Gate::Closing),
        };
        if policy::namespace_is_global(object, default) { open } else { Gate::Shut }
    }

    fn slices_of(&self, key: &ServiceKey) -> impl Iterator<Item = &SliceObject> {
        self.slices.get(key).into_iter().flat_map(BTreeMap::values)
    }
}

impl Dirty {
    fn services(keys: impl IntoIterator<Item = ServiceKey>) -> Self {
        Self { services: keys.into_iter().collect(), ..Self::default() }
    }
}

/// The Service a slice is a source for; `None` when it is not one, or brings a peer's endpoints.
fn owner(slice: &SliceObject) -> Option<ServiceKey> {
    let mirrored = slice.labels.contains_key(SOURCE_CLUSTER)
        || slice.labels.get(MANAGED_BY).is_some_and(|by| MESH_CONTROLLERS.contains(&by.as_str()));
    let service = slice.labels.get(SERVICE_NAME).filter(|name| !mirrored && !name.is_empty())?;
    Some(ServiceKey::new(slice.namespace.clone(), service.as_str()))
}
