//! Source events in, keys of the own store out: Cilium's records for peers, Tombolo's for the own agents.
//!
//! The rules are `tombolo_core::export`'s; what is here turns their outcome into bytes and finds what changed.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use smol_str::SmolStr;
use tombolo_core::export::{Dirty, ExportedService, Exporter, ExporterConfig, OwnService};
use tombolo_core::id::{Addr, ClusterId, ClusterName, MaxClusters, ServiceKey};
use tombolo_core::identity::{KeptChanges, LabelSet};
use tombolo_core::object::SourceEvent;
use tombolo_core::own::{OwnKey, OwnRecord};
use tombolo_core::record::{ClusterConfig, ExportMode};
use tombolo_core::report::FaultReport;
use tombolo_wire::{cilium, own};

use crate::writes::{Keys, Write, Written};

/// This cluster's side of the mesh.
#[derive(Debug)]
pub struct Export {
    exporter: Exporter,
    cluster: ClusterName,
    services: Written<ServiceKey>,
    nodes: Written<SmolStr>,
    /// Identities and addresses that are written. What changes of them is said exactly, so their bytes are not kept here.
    identities: BTreeSet<u32>,
    addresses: BTreeSet<Addr>,
    imports: BTreeSet<ServiceKey>,
    /// What of these says how long it bears a peer's silence, in milliseconds.
    stale_after: BTreeMap<ServiceKey, u64>,
    /// Endpoints of each exported Service.
    exported: BTreeMap<ServiceKey, usize>,
    faults: BTreeMap<String, String>,
    warnings: BTreeMap<ServiceKey, Vec<String>>,
    protected: Protected,
    complete: bool,
}

/// What no peer may claim: the addresses that this cluster's Nodes have or hand out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Protected {
    /// Pod ranges of the Nodes.
    pub pod_cidrs: BTreeSet<IpNet>,
    /// Addresses of the Nodes.
    pub nodes: BTreeSet<Addr>,
}

/// What a batch of events changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Deletes before puts.
    pub writes: Vec<Write>,
    /// Services of which peers' endpoints are of use now.
    pub imported: Vec<ServiceKey>,
    /// Services of which they no longer are.
    pub unimported: Vec<ServiceKey>,
    /// Services that bear another time of a peer's silence now, in milliseconds; `None` is the peer's own measure.
    pub stale_after: Vec<(ServiceKey, Option<u64>)>,
    /// What no peer may claim, when it is another than before.
    pub protected: Option<Protected>,
    /// Numbers of identities that are to be kept for the program's next life, or no longer.
    pub kept: KeptChanges,
    /// The first complete set has been handed over.
    pub completed: Completed,
}

/// How much is exported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exported {
    /// Services.
    pub services: usize,
    /// Endpoints of those.
    pub endpoints: usize,
    /// Identities.
    pub identities: usize,
    /// Addresses of Pods.
    pub addresses: usize,
}

/// Whether a batch completed the first set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Completed {
    /// It did.
    Now,
    /// It did not.
    #[default]
    Unchanged,
}

impl Export {
    /// Nothing is known yet.
    pub fn new(config: ExporterConfig) -> Self {
        Self {
            cluster: config.cluster.clone(),
            exporter: Exporter::new(config),
            services: Written::default(),
            nodes: Written::default(),
            identities: BTreeSet::new(),
            addresses: BTreeSet::new(),
            imports: BTreeSet::new(),
            stale_after: BTreeMap::new(),
            exported: BTreeMap::new(),
            faults: BTreeMap::new(),
            warnings: BTreeMap::new(),
            protected: Protected::default(),
            complete: false,
        }
    }

    /// These own endpoints were ready in an earlier life of this program.
    pub fn remember(&mut self, ready: BTreeMap<ServiceKey, BTreeSet<Addr>>) {
        for (service, addresses) in ready {
            self.exporter.remember(service, addresses);
        }
    }

    /// These numbers had these labels in an earlier life of this program; of several sayings of one, the first counts.
    pub fn remember_identities(&mut self, kept: impl IntoIterator<Item = (u32, LabelSet)>) {
        self.exporter.remember_identities(kept);
    }

    /// Takes in what the source says.
    pub fn apply(&mut self, events: Vec<SourceEvent>) -> Outcome {
        let mut outcome = Outcome::default();
        let mut dirty = Dirty::default();
        for event in events {
            match &event {
                SourceEvent::Fault(fault) => {
                    tracing::warn!(place = %fault.place, message = %fault.message, "source fault");
                    self.faults.insert(fault.place.clone(), fault.message.clone());
                }
                SourceEvent::Mended { place } => {
                    tracing::info!(%place, "source fault mended");
                    self.faults.remove(place);
                }
                SourceEvent::Complete if !self.complete => {
                    self.complete = true;
                    outcome.completed = Completed::Now;
                }
                SourceEvent::Complete | SourceEvent::Upsert(_) | SourceEvent::Delete(_) => {}
            }
            dirty.merge(self.exporter.apply(event));
        }
        dirty.merge(self.exporter.settle());
        outcome.kept = self.exporter.take_kept_changes();
        let (mut deletes, mut puts) = (Vec::new(), Vec::new());
        for key in &dirty.services {
            let exported = self.exporter.exported(key);
            self.note(key, &exported, &mut outcome);
            self.services.replace(key, service_keys(&self.cluster, key, exported), &mut deletes, &mut puts);
        }
        for name in &dirty.nodes {
            self.nodes.replace(name, self.node_keys(name), &mut deletes, &mut puts);
        }
        self.write_identities(&dirty.identities, &mut deletes, &mut puts);
        self.write_addresses(&dirty.addresses, &mut deletes, &mut puts);
        if !dirty.nodes.is_empty() {
            outcome.protected = self.changed_protection();
        }
        outcome.writes = deletes;
        outcome.writes.append(&mut puts);
        outcome
    }

    /// The source's first complete set is known.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// What no peer may claim.
    pub fn protected(&self) -> &Protected {
        &self.protected
    }

    /// Whether the source can read all it has; what it cannot is not gone.
    pub fn is_readable(&self) -> bool {
        self.faults.is_empty()
    }

    /// What the source cannot read, and annotations that mean nothing.
    pub fn faults(&self) -> Vec<FaultReport> {
        let faults = self.faults.iter().map(|(place, message)| (place.clone(), message.clone()));
        let warnings = self.warnings.iter().flat_map(|(key, warnings)| {
            warnings.iter().map(move |warning| (format!("Service {key}"), warning.clone()))
        });
        faults.chain(warnings).chain(self.unnumbered()).map(|(place, message)| FaultReport { place, message }).collect()
    }

    /// How much is exported.
    pub fn counts(&self) -> Exported {
        Exported {
            services: self.exported.len(),
            endpoints: self.exported.values().sum(),
            identities: self.identities.len(),
            addresses: self.addresses.len(),
        }
    }

    /// The Pods that no identity is left for, as one fault: they may be many.
    fn unnumbered(&self) -> Option<(String, String)> {
        let (mut pods, why) = self.exporter.unnumbered();
        let (count, first) = (pods.len(), pods.next()?);
        let message = if count == 1 { why.to_string() } else { format!("{why}; so it is for {} more Pods", count - 1) };
        Some((format!("Pod {first}"), message))
    }

    fn write_identities(&mut self, numbers: &BTreeSet<u32>, deletes: &mut Vec<Write>, puts: &mut Vec<Write>) {
        for number in numbers {
            match self.exporter.exported_identity(*number) {
                Some(record) => {
                    self.identities.insert(*number);
                    puts.push(Write::Put(cilium::key::identity(*number), cilium::encode_identity(&record)));
                }
                None if self.identities.remove(number) => deletes.push(Write::Delete(cilium::key::identity(*number))),
                None => {}
            }
        }
    }

    fn write_addresses(&mut self, addresses: &BTreeSet<Addr>, deletes: &mut Vec<Write>, puts: &mut Vec<Write>) {
        for addr in addresses {
            match self.exporter.exported_address(*addr) {
                Some(record) => {
                    self.addresses.insert(*addr);
                    puts.push(Write::Put(cilium::key::ip(*addr), cilium::encode_ip(&record)));
                }
                None if self.addresses.remove(addr) => deletes.push(Write::Delete(cilium::key::ip(*addr))),
                None => {}
            }
        }
    }

    fn note(&mut self, key: &ServiceKey, exported: &ExportedService, outcome: &mut Outcome) {
        match (self.imports.contains(key), exported.own.is_some()) {
            (false, true) => {
                self.imports.insert(key.clone());
                outcome.imported.push(key.clone());
            }
            (true, false) => {
                self.imports.remove(key);
                outcome.unimported.push(key.clone());
            }
            (false, false) | (true, true) => {}
        }
        let stale_after = exported.own.as_ref().and_then(|own| own.spec.policy.stale_after_ms);
        let before = match stale_after {
            Some(ms) => self.stale_after.insert(key.clone(), ms),
            None => self.stale_after.remove(key),
        };
        if before != stale_after {
            outcome.stale_after.push((key.clone(), stale_after));
        }
        let warnings: Vec<String> = exported.warnings.iter().map(ToString::to_string).collect();
        if warnings.is_empty() {
            self.warnings.remove(key);
        } else {
            self.warnings.insert(key.clone(), warnings);
        }
        match exported.legacy {
            Some(_) => {
                let endpoints = exported.slices.values().map(|slice| slice.endpoints.len()).sum();
                self.exported.insert(key.clone(), endpoints);
            }
            None => {
                self.exported.remove(key);
            }
        }
    }

    fn node_keys(&self, name: &SmolStr) -> Keys {
        let Some(node) = self.exporter.exported_node(name) else { return Keys::new() };
        let record = node.record.map(|r| (cilium::key::node(&self.cluster, name), cilium::encode_node(&r)));
        let own = (own::key_to_string(&OwnKey::Node(name.clone())), own::encode(&OwnRecord::Node(node.own)));
        record.into_iter().chain([own]).collect()
    }

    fn changed_protection(&mut self) -> Option<Protected> {
        let now = Protected { pod_cidrs: self.exporter.pod_cidrs(), nodes: self.exporter.node_addresses() };
        if now == self.protected {
            return None;
        }
        self.protected = now.clone();
        Some(now)
    }
}

/// What this cluster tells its peers of itself.
pub fn cluster_config(id: ClusterId, max: MaxClusters) -> ClusterConfig {
    ClusterConfig {
        id: id.get().into(),
        synced_canaries: true,
        cached: false,
        max_connected_clusters: max.largest().into(),
        service_exports_enabled: Some(false),
        export_mode: ExportMode::Both,
    }
}

/// All keys a Service comes to.
fn service_keys(cluster: &ClusterName, key: &ServiceKey, exported: ExportedService) -> Keys {
    let mut keys = Keys::new();
    if let Some(record) = &exported.legacy {
        keys.insert(cilium::key::service(cluster, key), cilium::encode_service(record));
    }
    for (name, record) in &exported.slices {
        keys.insert(cilium::key::slice(cluster, &key.namespace, name), cilium::encode_slice(record));
    }
    if let Some(OwnService { spec, slices }) = exported.own {
        keys.insert(own::key_to_string(&OwnKey::Service(key.clone())), own::encode(&OwnRecord::Service(spec)));
        for (slice, part) in slices.into_iter().flat_map(|(name, slice)| own::split(slice, &name)) {
            let part_key = OwnKey::Local { service: key.clone(), slice };
            keys.insert(own::key_to_string(&part_key), own::encode(&OwnRecord::Local(part)));
        }
    }
    keys
}
