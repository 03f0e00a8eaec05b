//! `data/merge.json`: 300 cases that ran through Cilium's own agent, as changes and the sets it chose.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Deserialize;
use tombolo_core::admit::{Admission, Outcome, Ranges};
use tombolo_core::hold::Standing;
use tombolo_core::id::{Addr, ClusterName, MaxClusters, Millis, ServiceKey};
use tombolo_core::mesh::{Change, Mesh};
use tombolo_core::model::{
    Conditions, DEFAULT_WEIGHT, Endpoint, InternalTrafficPolicy, Port, Protocol, ServiceSpec, Slice,
};
use tombolo_core::object::{Labels, ServiceKind, ServiceObject};
use tombolo_core::own::{LEGACY_SLICE, MeshSlice};
use tombolo_core::policy;
use tombolo_core::record::{PortMap, RawPort, ServiceRecord};

use crate::fixture::{cluster, id};

/// The file.
#[derive(Debug, Deserialize)]
pub struct MergeFile {
    local_cluster: ClusterName,
    local_cluster_id: u32,
    this_node: String,
    /// The cases.
    pub cases: Vec<MergeCase>,
}

/// One service, its local endpoints, what peers wrote, and what Cilium made of it.
#[derive(Debug, Deserialize)]
pub struct MergeCase {
    /// Its number.
    pub case: u32,
    namespace: String,
    name: String,
    annotations: Labels,
    cluster_ips: Vec<Addr>,
    service_ports: Vec<JsonPort>,
    endpoint_ports: Vec<JsonPort>,
    internal_traffic_policy: InternalTrafficPolicy,
    local: Option<Vec<JsonEndpoint>>,
    remote: Option<Vec<JsonPeer>>,
    #[serde(default)]
    no_local_service: bool,
    frontends: Vec<JsonFrontend>,
}

#[derive(Debug, Deserialize)]
struct JsonPort {
    name: String,
    protocol: Protocol,
    port: u16,
}

#[derive(Debug, Deserialize)]
struct JsonEndpoint {
    address: Addr,
    node: String,
    ready: bool,
    serving: bool,
    terminating: bool,
    #[serde(default)]
    unhealthy: bool,
}

#[derive(Debug, Deserialize)]
struct JsonPeer {
    cluster: ClusterName,
    id: u32,
    writes: Vec<Option<JsonRecord>>,
    #[serde(default)]
    unhealthy: Vec<Addr>,
}

#[derive(Debug, Deserialize)]
struct JsonRecord {
    cluster: String,
    namespace: String,
    name: String,
    backends: BTreeMap<String, BTreeMap<String, JsonRawPort>>,
    shared: bool,
    #[serde(rename = "clusterID")]
    cluster_id: u32,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct JsonRawPort {
    protocol: String,
    port: u16,
}

#[derive(Debug, Deserialize)]
struct JsonFrontend {
    frontend: String,
    backends: Vec<JsonBackend>,
}

#[derive(Debug, Deserialize)]
struct JsonBackend {
    address: String,
    /// 0 is the local cluster.
    cluster_id: u16,
}

/// Backends by frontend, both as text, each backend with its cluster's id.
pub type Chosen = BTreeMap<String, BTreeSet<(String, u16)>>;

impl MergeFile {
    /// Reads the committed file.
    pub fn read() -> Self {
        serde_json::from_str(include_str!("../data/merge.json")).expect("the committed vectors parse")
    }

    /// The mesh after everything the case says, and the case's service. An unhealthy backend is put as a doubtful one:
    /// the affinity table treats both alike.
    pub fn play(&self, case: &MergeCase) -> (Mesh, ServiceKey) {
        let own = id(self.local_cluster_id);
        let mut mesh = Mesh::new(self.this_node.as_str().into(), self.local_cluster.clone(), own);
        let key = ServiceKey::new(&case.namespace, &case.name);
        for change in case.changes(&key) {
            mesh.apply(change, Millis(0));
        }
        (mesh, key)
    }

    /// What Cilium chose.
    pub fn expected(&self, case: &MergeCase) -> Chosen {
        let own = id(self.local_cluster_id).get();
        let cluster = |id: u16| if id == 0 { own } else { id };
        let backend = |b: &JsonBackend| (b.address.clone(), cluster(b.cluster_id));
        case.frontends.iter().map(|f| (f.frontend.clone(), f.backends.iter().map(backend).collect())).collect()
    }
}

impl MergeCase {
    fn changes(&self, key: &ServiceKey) -> Vec<Change> {
        let mut changes = Vec::new();
        if !self.no_local_service {
            changes.push(Change::Service(key.clone(), Some(self.spec(key))));
        }
        let ports: Arc<[Port]> = self.endpoint_ports.iter().map(JsonPort::to_port).collect();
        let local = self.local.iter().flatten().map(|e| e.to_endpoint(&ports)).collect();
        let value = Some(Slice { endpoints: local });
        changes.push(Change::Local { service: key.clone(), slice: "local".into(), value, revision: 1 });
        for peer in self.remote.iter().flatten() {
            changes.extend(peer.writes.iter().map(|write| peer.to_change(key, write.as_ref())));
        }
        changes
    }

    fn spec(&self, key: &ServiceKey) -> ServiceSpec {
        let object = ServiceObject {
            key: key.clone(),
            annotations: self.annotations.clone(),
            labels: Labels::new(),
            selector: Labels::new(),
            kind: ServiceKind::ClusterIp,
            cluster_ips: self.cluster_ips.clone(),
            ports: self.service_ports.iter().map(JsonPort::to_port).collect(),
            internal_traffic_policy: self.internal_traffic_policy,
            publish_not_ready: false,
            client_ip_seconds: None,
        };
        let (policy, _) = policy::resolve(&object);
        ServiceSpec { key: key.clone(), cluster_ips: object.cluster_ips, ports: object.ports, policy }
    }
}

impl JsonPort {
    fn to_port(&self) -> Port {
        Port { name: self.name.as_str().into(), protocol: self.protocol, number: self.port }
    }
}

impl JsonEndpoint {
    fn to_endpoint(&self, ports: &Arc<[Port]>) -> Endpoint {
        let conditions =
            Conditions { ready: Some(self.ready), serving: Some(self.serving), terminating: Some(self.terminating) };
        Endpoint {
            addr: self.address,
            ports: Arc::clone(ports),
            state: conditions.state(),
            was_ready: self.ready,
            weight: DEFAULT_WEIGHT,
            node: Some(self.node.as_str().into()),
            zone: None,
            hints: Box::default(),
            doubtful: self.unhealthy,
        }
    }
}

impl JsonPeer {
    fn to_change(&self, service: &ServiceKey, write: Option<&JsonRecord>) -> Change {
        let admission =
            Admission::new(self.cluster.clone(), id(self.id), MaxClusters::C255, Arc::new(Ranges::default()));
        let value = write.map(JsonRecord::to_record).and_then(|record| {
            match admission.service(&service.to_string(), &record).expect("the vectors' records are admissible") {
                Outcome::Admitted(admitted) => Some(admitted.slice),
                Outcome::Deleted(_) => None,
            }
        });
        let value = value.map(|mut slice| {
            slice.endpoints.iter_mut().for_each(|e| e.doubtful = self.unhealthy.contains(&e.addr));
            MeshSlice { cluster_id: id(self.id), revision: 1, slice }
        });
        Change::Remote {
            service: service.clone(),
            cluster: cluster(self.cluster.as_str()),
            slice: LEGACY_SLICE.into(),
            value,
            standing: Standing::Sure,
        }
    }
}

impl JsonRecord {
    fn to_record(&self) -> ServiceRecord {
        let raw = |p: &JsonRawPort| RawPort { protocol: p.protocol.clone(), port: p.port };
        let ports = |map: &BTreeMap<String, JsonRawPort>| -> PortMap {
            map.iter().map(|(name, p)| (name.clone(), raw(p))).collect()
        };
        ServiceRecord {
            cluster: self.cluster.clone(),
            cluster_id: self.cluster_id,
            key: ServiceKey::new(&self.namespace, &self.name),
            frontends: BTreeMap::new(),
            backends: self.backends.iter().map(|(addr, map)| (addr.clone(), ports(map))).collect(),
            hostnames: BTreeMap::new(),
            zones: BTreeMap::new(),
            labels: Labels::new(),
            selector: Labels::new(),
            include_external: true,
            shared: self.shared,
        }
    }
}
