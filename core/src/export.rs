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
use crate::model::{Reach, ServiceSpec, Slice};
use crate::object::{NamespaceObject, NodeObject, Object, ObjectKey, ServiceObject, SourceEvent};
use crate::own::NodeInfo;
use crate::policy::{self, Warning};
use crate::record::{NodeRecord, ServiceRecord, SliceRecord};
use slices::Slices;

mod records;
mod slices;

/// The label of an EndpointSlice that names its Service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";

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
    slices: Slices,
    namespaces: BTreeMap<SmolStr, Namespace>,
    nodes: BTreeMap<SmolStr, NodeObject>,
}

/// A Namespace that has been heard of. One that never was follows the default: a directory need not name it.
#[derive(Clone, Debug)]
struct Namespace {
    /// As it is, or was last.
    object: NamespaceObject,
    /// What it lets out if it is global.
    open: Gate,
}

/// What a namespace lets out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gate {
    Open,
    /// The namespace is deleted: as in Cilium, slice records leave at once, service records with their Services.
    Closing,
    Shut,
}

impl Exporter {
    /// Knows no objects yet.
    pub fn new(config: ExporterConfig) -> Self {
        Self {
            config,
            services: BTreeMap::new(),
            slices: Slices::default(),
            namespaces: BTreeMap::new(),
            nodes: BTreeMap::new(),
        }
    }

    /// These endpoints of a Service were ready in an earlier life of the program. What the first complete set still has
    /// of them keeps that.
    pub fn remember(&mut self, key: ServiceKey, ready: BTreeSet<Addr>) {
        self.slices.remember(key, ready);
    }

    /// Takes in what the source says. An object said again as it was changes nothing.
    pub fn apply(&mut self, event: SourceEvent) -> Dirty {
        match event {
            SourceEvent::Upsert(Object::Service(service)) => self.put_service(service),
            SourceEvent::Upsert(Object::Slice(slice)) => Dirty::services(self.slices.put(slice)),
            SourceEvent::Upsert(Object::Namespace(namespace)) => self.put_namespace(namespace),
            SourceEvent::Upsert(Object::Node(node)) => self.put_node(node),
            SourceEvent::Delete(ObjectKey::Service(key)) => Dirty::services(self.services.remove(&key).map(|s| s.key)),
            SourceEvent::Delete(ObjectKey::Slice { namespace, name }) => {
                Dirty::services(self.slices.remove(&namespace, &name))
            }
            SourceEvent::Delete(ObjectKey::Namespace(name)) => self.delete_namespace(&name),
            SourceEvent::Delete(ObjectKey::Node(name)) => {
                Dirty { nodes: self.nodes.remove(&name).map(|n| n.name).into_iter().collect(), ..Dirty::default() }
            }
            SourceEvent::Complete => {
                self.slices.forget_remembered();
                Dirty::default()
            }
            SourceEvent::Fault(_) | SourceEvent::Mended { .. } => Dirty::default(),
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
            exported.legacy = Some(records::service(&self.config, service, self.slices.of(key)));
        }
        if gate == Gate::Open {
            exported.slices = self.slices.of(key).map(|s| (s.name.clone(), records::slice(&self.config, s))).collect();
        }
        let ready = self.slices.was_ready(key);
        let mut slices = BTreeMap::new();
        for slice in self.slices.of(key) {
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

    fn put_namespace(&mut self, namespace: NamespaceObject) -> Dirty {
        let name = namespace.name.clone();
        let before = self.gate(&name);
        self.namespaces.insert(name.clone(), Namespace { object: namespace, open: Gate::Open });
        self.flipped(&name, before)
    }

    fn delete_namespace(&mut self, name: &SmolStr) -> Dirty {
        let before = self.gate(name);
        if let Some(namespace) = self.namespaces.get_mut(name) {
            namespace.open = Gate::Closing;
        }
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
        let namespace = self.namespaces.get(namespace);
        let (object, open) = (namespace.map(|n| &n.object), namespace.map_or(Gate::Open, |n| n.open));
        if policy::namespace_is_global(object, default) { open } else { Gate::Shut }
    }
}

impl Dirty {
    fn services(keys: impl IntoIterator<Item = ServiceKey>) -> Self {
        Self { services: keys.into_iter().collect(), ..Self::default() }
    }
}
