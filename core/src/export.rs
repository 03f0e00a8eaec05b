//! What this cluster's objects come to: records for peers, and records for the own agents.
//!
//! The [`Exporter`] holds a source's objects. An event says what is [`Dirty`]; the caller then asks for the complete
//! new state of each dirty Service or Node, writes it, and deletes what it wrote before and is no longer in it.
//!
//! Nodes, identities and addresses are judged when a batch of events ends ([`Exporter::settle`]), and not before the first
//! complete set is known: which objects say them depends on whether any of Cilium's is there. If so, CiliumNodes,
//! CiliumIdentities and CiliumEndpoints (or CiliumEndpointSlices, where there are such) say them all; else Nodes and Pods.
//!
//! Peers get a Service that is global and shared, in a global namespace. The own agents get every global Service,
//! shared or not, in any namespace: `shared` and the namespace's annotation stop the export only, and a reader's own
//! Service object alone decides what it imports (Cilium's agents read no namespace when they merge).

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;

use ipnet::IpNet;
use smol_str::SmolStr;

use crate::id::{Addr, ClusterId, ClusterName, MaxClusters, ServiceKey};
use crate::identity::{Exhausted, IDLE, KeptChanges, LabelSet, namespace_of};
use crate::model::{Reach, ServiceSpec, Slice};
use crate::object::{Labels, NamespaceObject, Object, ObjectKey, PodKey, ServiceObject, SourceEvent};
use crate::own::NodeInfo;
use crate::policy::{self, Warning};
use crate::record::{IdentityRecord, IpRecord, NodeRecord, ServiceRecord, SliceRecord};
use nodes::Nodes;
use pods::{Holder, Pods, Surroundings};
use slices::Slices;

mod claims;
mod nodes;
mod pods;
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
    /// The size of the mesh, which says which numbers the cluster's identities have.
    pub max: MaxClusters,
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
    /// Identities by their numbers, also such that are gone.
    pub identities: BTreeSet<u32>,
    /// Addresses of Pods, also such that are nobody's any more.
    pub addresses: BTreeSet<Addr>,
}

impl Dirty {
    /// Adds another event's.
    pub fn merge(&mut self, other: Self) {
        self.services.extend(other.services);
        self.nodes.extend(other.nodes);
        self.identities.extend(other.identities);
        self.addresses.extend(other.addresses);
    }

    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
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
    /// For peers; none where Cilium runs and knows no such node.
    pub record: Option<NodeRecord>,
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
    nodes: Nodes,
    pods: Pods,
    /// What the source cannot read: what it would say is not known to be gone.
    faults: BTreeSet<String>,
    /// The first complete set is known.
    complete: bool,
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
            pods: Pods::new(&config),
            config,
            services: BTreeMap::new(),
            slices: Slices::default(),
            namespaces: BTreeMap::new(),
            nodes: Nodes::default(),
            faults: BTreeSet::new(),
            complete: false,
        }
    }

    /// These endpoints of a Service were ready in an earlier life of the program. What the first complete set still has
    /// of them keeps that.
    pub fn remember(&mut self, key: ServiceKey, ready: BTreeSet<Addr>) {
        self.slices.remember(key, ready);
    }

    /// These numbers had these labels in an earlier life of the program; of several sayings of one, the first counts.
    pub fn remember_identities(&mut self, kept: impl IntoIterator<Item = (u32, LabelSet)>) {
        self.pods.identities.remember(kept);
    }

    /// Takes in what the source says. An object said again as it was changes nothing. What Nodes, identities and
    /// addresses come to is said by [`Self::settle`].
    pub fn apply(&mut self, event: SourceEvent) -> Dirty {
        match event {
            SourceEvent::Upsert(object) => return self.put(object),
            SourceEvent::Delete(key) => return self.delete(key),
            SourceEvent::Complete => {
                self.slices.forget_remembered();
                self.complete = true;
            }
            SourceEvent::Fault(fault) => drop(self.faults.insert(fault.place)),
            SourceEvent::Mended { place } => drop(self.faults.remove(&place)),
        }
        Dirty::default()
    }

    /// A batch of events has ended: which Nodes, identities and addresses may have changed by it.
    pub fn settle(&mut self) -> Dirty {
        if !self.complete {
            return Dirty::default();
        }
        let cilium = self.nodes.has_ciliums() || self.pods.has_ciliums();
        let default = self.config.namespaces;
        let no_labels = Labels::new();
        let around = |namespace: &str| {
            let namespace = self.namespaces.get(namespace);
            Surroundings {
                labels: namespace.map_or(&no_labels, |namespace| &namespace.object.labels),
                exported: gate(namespace, default) == Gate::Open,
            }
        };
        let mut dirty = self.pods.settle(&self.config, cilium, around);
        dirty.nodes = self.nodes.settle(cilium);
        if self.faults.is_empty() {
            // Where Cilium gives the numbers, none of ours is anything to keep.
            self.pods.identities.forget_idle(if cilium { 0 } else { IDLE });
        }
        dirty
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
        self.nodes.exported(&self.config, name)
    }

    /// What a number stands for, for peers; `None` when nobody they may know of has it.
    pub fn exported_identity(&self, number: u32) -> Option<IdentityRecord> {
        let labels = self.pods.labels(number)?;
        let exported = namespace_of(labels).is_none_or(|namespace| self.gate(namespace) == Gate::Open);
        exported.then(|| IdentityRecord { number, labels: labels.to_vec() })
    }

    /// Whose an address is, for peers; `None` when it is nobody's they may know of.
    pub fn exported_address(&self, addr: Addr) -> Option<IpRecord> {
        Some(match self.pods.holder(addr)? {
            Holder::Pod(pod, number) => records::pod_ip(addr, pod, number),
            Holder::Endpoint(namespace, endpoint) => records::endpoint_ip(addr, namespace, endpoint),
        })
    }

    /// Which numbers are to be kept, or no longer, since this was last asked: whoever keeps them gives them to
    /// [`Self::remember_identities`] in the program's next life.
    pub fn take_kept_changes(&mut self) -> KeptChanges {
        self.pods.identities.take_changes()
    }

    /// Pods for whose labels no number is left, and why.
    pub fn unnumbered(&self) -> (impl ExactSizeIterator<Item = &PodKey>, Exhausted) {
        self.pods.waiting()
    }

    /// All that exists, as if each had changed.
    pub fn all(&self) -> Dirty {
        let pods = self.pods.all();
        Dirty { services: self.services.keys().cloned().collect(), nodes: self.nodes.names(), ..pods }
    }

    /// Whether a peer's endpoints of that Service are of use here.
    pub fn imports(&self, key: &ServiceKey) -> bool {
        self.services.get(key).is_some_and(|service| policy::resolve(service).0.reach.is_global())
    }

    /// The pod ranges of this cluster's Nodes: what admission protects.
    pub fn pod_cidrs(&self) -> BTreeSet<IpNet> {
        self.nodes.pod_cidrs()
    }

    /// The addresses of this cluster's Nodes: what admission protects.
    pub fn node_addresses(&self) -> BTreeSet<Addr> {
        self.nodes.addresses()
    }

    fn put(&mut self, object: Object) -> Dirty {
        match object {
            Object::Service(service) => return self.put_service(service),
            Object::Slice(slice) => return Dirty::services(self.slices.put(slice)),
            Object::Namespace(namespace) => return self.put_namespace(namespace),
            Object::Node(node) => self.nodes.put(node),
            Object::CiliumNode(node) => self.nodes.put_cilium(node),
            Object::Pod(pod) => self.pods.put(pod),
            Object::CiliumIdentity(identity) => self.pods.put_identity(identity),
            Object::CiliumEndpoint(endpoint) => self.pods.put_endpoint(endpoint),
            Object::CiliumEndpointSlice(slice) => self.pods.put_slice(slice),
        }
        Dirty::default()
    }

    fn delete(&mut self, key: ObjectKey) -> Dirty {
        match key {
            ObjectKey::Service(key) => return Dirty::services(self.services.remove(&key).map(|s| s.key)),
            ObjectKey::Slice { namespace, name } => return Dirty::services(self.slices.remove(&namespace, &name)),
            ObjectKey::Namespace(name) => return self.delete_namespace(&name),
            ObjectKey::Node(name) => self.nodes.remove(&name),
            ObjectKey::CiliumNode(name) => self.nodes.remove_cilium(&name),
            ObjectKey::Pod(key) => self.pods.remove(&key),
            ObjectKey::CiliumIdentity(number) => self.pods.remove_identity(number),
            ObjectKey::CiliumEndpoint(key) => self.pods.remove_endpoint(key),
            ObjectKey::CiliumEndpointSlice(name) => self.pods.remove_slice(&name),
        }
        Dirty::default()
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
        let labels = namespace.labels.clone();
        let old = self.namespaces.insert(name.clone(), Namespace { object: namespace, open: Gate::Open });
        if old.map(|old| old.object.labels).unwrap_or_default() != labels {
            self.pods.namespace_changed(&name);
        }
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
    fn flipped(&mut self, namespace: &SmolStr, before: Gate) -> Dirty {
        if self.gate(namespace) == before {
            return Dirty::default();
        }
        self.pods.namespace_changed(namespace);
        let first = ServiceKey::new(namespace.clone(), "");
        Dirty::services(
            self.services.range(first..).map(|(key, _)| key).take_while(|k| k.namespace == *namespace).cloned(),
        )
    }

    fn gate(&self, namespace: &str) -> Gate {
        gate(self.namespaces.get(namespace), self.config.namespaces)
    }
}

/// What a Namespace lets out; `None` is one that was never heard of.
fn gate(namespace: Option<&Namespace>, default: DefaultNamespace) -> Gate {
    let global = policy::namespace_is_global(namespace.map(|n| &n.object), default == DefaultNamespace::Global);
    if global { namespace.map_or(Gate::Open, |n| n.open) } else { Gate::Shut }
}

impl Dirty {
    fn services(keys: impl IntoIterator<Item = ServiceKey>) -> Self {
        Self { services: keys.into_iter().collect(), ..Self::default() }
    }
}
