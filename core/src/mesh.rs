//! The agent's one mutable value: everything it knows of the mesh, by service.
//!
//! Changes come from the held view; each says whose tables may differ now. What is kept is what was said, and every
//! answer is computed from that, so an answer cannot depend on the order in which things were said.

mod peers;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use smol_str::SmolStr;

pub use crate::hold::Standing;
use crate::id::{Addr, ClusterId, ClusterName, Millis, ServiceKey};
use crate::merge::{self, Origin, Piece, Trust};
use crate::model::{BackendKey, Frontend, OnStale, Protocol, ServiceSpec, Slice};
use crate::own::{ClusterInfo, MeshSlice, NodeInfo, PeerState};
use crate::select::{self, Selection, View};
use crate::tables::Desired;

use peers::Peers;

pub use peers::Stale;

/// One change of the held view. A value of `None` is a removal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// This cluster and its peers. A peer that is absent here leaves by [`Change::Peer`], when hold says so.
    Cluster(ClusterInfo),
    /// A local global Service.
    Service(ServiceKey, Option<ServiceSpec>),
    /// One slice of a local Service's endpoints.
    Local {
        /// The service.
        service: ServiceKey,
        /// The slice's name.
        slice: SmolStr,
        /// Its endpoints.
        value: Option<Slice>,
        /// The revision of the own store that brought it.
        revision: i64,
    },
    /// One slice of a peer's endpoints.
    Remote {
        /// The service.
        service: ServiceKey,
        /// The peer.
        cluster: ClusterName,
        /// The slice's name.
        slice: SmolStr,
        /// Its endpoints.
        value: Option<MeshSlice>,
        /// How sure it is.
        standing: Standing,
    },
    /// A peer's state; its removal takes away everything that only it brought.
    Peer(ClusterName, Option<PeerState>),
    /// This node's place.
    Node(Option<NodeInfo>),
}

/// Everything the agent knows of the mesh, by service.
#[derive(Clone, Debug)]
pub struct Mesh {
    node: SmolStr,
    cluster: ClusterName,
    id: ClusterId,
    info: Option<ClusterInfo>,
    node_info: NodeInfo,
    services: BTreeMap<ServiceKey, Service>,
    peers: Peers,
    /// Who last used each id: at most as many as the mesh has ids.
    names: BTreeMap<ClusterId, ClusterName>,
    /// Where each peer has slices: its removal costs what it brought.
    brought: BTreeMap<ClusterName, BTreeSet<ServiceKey>>,
    /// Who wants each frontend. The lowest name has it.
    claims: BTreeMap<Frontend, BTreeSet<ServiceKey>>,
}

#[derive(Clone, Debug, Default)]
struct Service {
    spec: Option<ServiceSpec>,
    local: BTreeMap<SmolStr, Said>,
    remote: BTreeMap<(ClusterName, SmolStr), Said>,
}

/// A slice as it was last said.
#[derive(Clone, Debug)]
struct Said {
    cluster_id: ClusterId,
    slice: Slice,
    standing: Standing,
    revision: i64,
    since: Millis,
}

impl Mesh {
    /// An empty mesh, seen from one node of one cluster.
    pub fn new(node: SmolStr, cluster: ClusterName, id: ClusterId) -> Self {
        Self {
            names: BTreeMap::from([(id, cluster.clone())]),
            node,
            cluster,
            id,
            info: None,
            node_info: NodeInfo::default(),
            services: BTreeMap::new(),
            peers: Peers::default(),
            brought: BTreeMap::new(),
            claims: BTreeMap::new(),
        }
    }

    /// Takes one change in and says whose tables may differ now. Costs as much as that service, never the mesh.
    pub fn apply(&mut self, change: Change, now: Millis) -> BTreeSet<ServiceKey> {
        match change {
            Change::Cluster(info) => {
                self.info = Some(info);
                BTreeSet::new()
            }
            Change::Node(info) => {
                self.node_info = info.unwrap_or_default();
                BTreeSet::new()
            }
            Change::Service(key, spec) => self.set_spec(&key, spec),
            Change::Local { service, slice, value, revision } => {
                let cluster_id = self.id;
                let said =
                    value.map(|slice| Said { cluster_id, slice, standing: Standing::Sure, revision, since: now });
                self.set_slice(service, said, |s, said| replace(&mut s.local, slice, said))
            }
            Change::Remote { service, cluster, slice, value, standing } => {
                let said = value.map(|v| Said {
                    cluster_id: v.cluster_id,
                    slice: v.slice,
                    standing,
                    revision: v.revision,
                    since: now,
                });
                self.set_remote(service, cluster, slice, said)
            }
            Change::Peer(name, Some(state)) => self.set_peer(&name, state, now),
            Change::Peer(name, None) => self.remove_peer(&name),
        }
    }

    /// Selects the backends of one service; `None` when there is no local Service, and so no frontend.
    pub fn select(&self, service: &ServiceKey) -> Option<Selection> {
        let known = self.services.get(service)?;
        let spec = known.spec.as_ref()?;
        let (mine, taken): (Vec<_>, Vec<_>) =
            frontends(spec).into_iter().map(|(f, name)| (f, name, self.holder(&f))).partition(|c| c.2 == Some(service));
        let candidates = merge::merge(self.pieces(known));
        let view = |frontend, port_name| View { frontend, port_name, policy: &spec.policy, node: &self.node };
        Some(Selection {
            frontends: mine.iter().map(|(f, name, _)| select::select(view(*f, name), &candidates)).collect(),
            taken: taken.into_iter().filter_map(|(f, _, holder)| Some((f, holder?.clone()))).collect(),
            spec: spec.clone(),
            candidates,
        })
    }

    /// What the tables should hold for one service: nothing when there is no local Service.
    pub fn desired(&self, service: &ServiceKey) -> Desired {
        let frontends = self.select(service).map(|s| s.tables()).unwrap_or_default();
        Desired { service: service.clone(), frontends }
    }

    /// The local Services, ascending.
    pub fn services(&self) -> impl Iterator<Item = &ServiceSpec> {
        self.services.values().filter_map(|s| s.spec.as_ref())
    }

    /// Services that peers bring and no local Service imports, with those peers.
    pub fn unused_imports(&self) -> impl Iterator<Item = (&ServiceKey, BTreeSet<&ClusterName>)> {
        self.services
            .iter()
            .filter(|(_, s)| s.spec.is_none() && !s.remote.is_empty())
            .map(|(key, s)| (key, s.remote.keys().map(|(cluster, _)| cluster).collect()))
    }

    /// Who else, of another cluster and in another service, lists one of these addresses. Costs the whole mesh.
    pub fn listed_elsewhere(&self, service: &ServiceKey) -> BTreeSet<(Addr, &ServiceKey, &ClusterName)> {
        let Some(own) = self.services.get(service) else { return BTreeSet::new() };
        let mut here: BTreeMap<Addr, BTreeSet<&ClusterName>> = BTreeMap::new();
        for (addr, cluster) in self.addresses(own) {
            here.entry(addr).or_default().insert(cluster);
        }
        self.services
            .iter()
            .filter(|(key, _)| *key != service)
            .flat_map(|(key, other)| self.addresses(other).map(move |(addr, cluster)| (addr, key, cluster)))
            .filter(|(addr, _, cluster)| here.get(addr).is_some_and(|own| own.iter().any(|o| o != cluster)))
            .collect()
    }

    /// The node on which a service's backend runs, when a record names one. Costs that service.
    pub fn node_of(&self, service: &ServiceKey, backend: &BackendKey) -> Option<&SmolStr> {
        let known = self.services.get(service)?;
        let said = known.local.values().chain(known.remote.values()).filter(|said| said.cluster_id == backend.cluster);
        said.flat_map(|said| &said.slice.endpoints).find(|e| e.addr == backend.addr).and_then(|e| e.node.as_ref())
    }

    /// The peers' states, ascending.
    pub fn peers(&self) -> impl Iterator<Item = (&ClusterName, &PeerState)> {
        self.peers.iter()
    }

    /// The peers that bring something to a local Service and are stale for it, ascending.
    pub fn stale(&self, service: &ServiceKey, now: Millis) -> impl Iterator<Item = Stale<'_>> {
        let known = self.services.get(service).and_then(|known| Some((known, &known.spec.as_ref()?.policy)));
        known.into_iter().flat_map(move |(known, policy)| {
            known.peers().filter_map(move |cluster| self.peers.stale(cluster, policy, now))
        })
    }

    /// The peers that bring something to a Service, ascending, as far as their states are known.
    pub fn peers_of(&self, service: &ServiceKey) -> impl Iterator<Item = (&ClusterName, &PeerState)> {
        let peers = self.services.get(service).into_iter().flat_map(Service::peers);
        peers.filter_map(|name| Some((name, self.peers.get(name)?)))
    }

    /// This cluster and its peers, once known.
    pub fn cluster_info(&self) -> Option<&ClusterInfo> {
        self.info.as_ref()
    }

    /// The cluster that last used an id.
    pub fn cluster_name(&self, id: ClusterId) -> Option<&ClusterName> {
        self.names.get(&id)
    }

    /// The node it is seen from.
    pub fn node(&self) -> &SmolStr {
        &self.node
    }

    /// Its cluster.
    pub fn cluster(&self) -> &ClusterName {
        &self.cluster
    }

    /// Its cluster's id.
    pub fn cluster_id(&self) -> ClusterId {
        self.id
    }

    /// The node's place, empty until known.
    pub fn node_info(&self) -> &NodeInfo {
        &self.node_info
    }

    fn set_spec(&mut self, key: &ServiceKey, spec: Option<ServiceSpec>) -> BTreeSet<ServiceKey> {
        let known = self.services.entry(key.clone()).or_default();
        if known.spec == spec {
            self.forget_if_empty(key);
            return BTreeSet::new();
        }
        let before = known.spec.as_ref().map(frontends).unwrap_or_default();
        let after = spec.as_ref().map(frontends).unwrap_or_default();
        known.spec = spec;
        let mut dirty = BTreeSet::from([key.clone()]);
        for (frontend, _) in before {
            dirty.extend(self.unclaim(&frontend, key));
        }
        for (frontend, _) in after {
            let claimants = self.claims.entry(frontend).or_default();
            claimants.insert(key.clone());
            dirty.extend(claimants.iter().cloned());
        }
        self.forget_if_empty(key);
        dirty
    }

    fn unclaim(&mut self, frontend: &Frontend, key: &ServiceKey) -> BTreeSet<ServiceKey> {
        let Some(claimants) = self.claims.get_mut(frontend) else { return BTreeSet::new() };
        claimants.remove(key);
        if claimants.is_empty() {
            self.claims.remove(frontend);
            return BTreeSet::new();
        }
        claimants.clone()
    }

    fn holder(&self, frontend: &Frontend) -> Option<&ServiceKey> {
        self.claims.get(frontend)?.first()
    }

    fn set_remote(
        &mut self,
        service: ServiceKey,
        cluster: ClusterName,
        slice: SmolStr,
        said: Option<Said>,
    ) -> BTreeSet<ServiceKey> {
        let peer = cluster.clone();
        if let Some(said) = &said {
            self.names.insert(said.cluster_id, peer.clone());
        }
        let dirty = self.set_slice(service.clone(), said, |s, said| replace(&mut s.remote, (cluster, slice), said));
        let left = self.services.get(&service).is_some_and(|s| s.remote.keys().any(|(c, _)| *c == peer));
        let brought = self.brought.entry(peer.clone()).or_default();
        if left {
            brought.insert(service);
        } else {
            brought.remove(&service);
        }
        if brought.is_empty() {
            self.brought.remove(&peer);
        }
        dirty
    }

    fn set_slice(
        &mut self,
        service: ServiceKey,
        said: Option<Said>,
        set: impl FnOnce(&mut Service, Option<Said>) -> Effect,
    ) -> BTreeSet<ServiceKey> {
        let known = self.services.entry(service.clone()).or_default();
        let effect = set(known, said);
        let matters = effect == Effect::Differs && known.spec.is_some();
        self.forget_if_empty(&service);
        if matters { BTreeSet::from([service]) } else { BTreeSet::new() }
    }

    /// Whether a peer is stale is each Service's own question, and so is what follows from it.
    fn set_peer(&mut self, name: &ClusterName, state: PeerState, now: Millis) -> BTreeSet<ServiceKey> {
        let before = self.peers.set(name.clone(), state, now);
        let differs = |spec: &ServiceSpec| {
            let was = before.as_ref().and_then(|state| peers::on_stale(state, &spec.policy));
            let is = self.peers.on_stale(name, &spec.policy);
            was != is
        };
        let brought = self.brought.get(name).into_iter().flatten();
        let spec = |key| self.services.get(key).and_then(|known| known.spec.as_ref());
        brought.filter(|key| spec(key).is_some_and(differs)).cloned().collect()
    }

    fn remove_peer(&mut self, name: &ClusterName) -> BTreeSet<ServiceKey> {
        self.peers.remove(name);
        let mut dirty = BTreeSet::new();
        for key in self.brought.remove(name).unwrap_or_default() {
            if let Some(known) = self.services.get_mut(&key) {
                known.remote.retain(|(cluster, _), _| cluster != name);
                if known.spec.is_some() {
                    dirty.insert(key.clone());
                }
            }
            self.forget_if_empty(&key);
        }
        dirty
    }

    fn forget_if_empty(&mut self, key: &ServiceKey) {
        if self.services.get(key).is_some_and(|s| s.spec.is_none() && s.local.is_empty() && s.remote.is_empty()) {
            self.services.remove(key);
        }
    }

    fn pieces<'a>(&'a self, service: &'a Service) -> impl Iterator<Item = Piece<'a>> {
        let local = service.local.values().map(|said| said.piece(&self.cluster, Origin::Local));
        let policy = service.spec.as_ref().map(|spec| &spec.policy);
        local.chain(service.remote.iter().map(move |((cluster, _), said)| {
            let piece = said.piece(cluster, Origin::Remote);
            match policy.and_then(|policy| self.peers.on_stale(cluster, policy)) {
                None => piece,
                Some(OnStale::Keep) => Piece { trust: Trust::Kept, ..piece },
                Some(OnStale::LastResort) => Piece { trust: Trust::Doubtful, ..piece },
                Some(OnStale::Drop) => Piece { dropped: true, ..piece },
            }
        }))
    }

    fn addresses<'a>(&'a self, service: &'a Service) -> impl Iterator<Item = (Addr, &'a ClusterName)> {
        self.pieces(service).flat_map(|piece| piece.slice.endpoints.iter().map(move |e| (e.addr, piece.cluster)))
    }
}

impl Service {
    /// Those that bring something, ascending.
    fn peers(&self) -> impl Iterator<Item = &ClusterName> {
        let mut last = None;
        self.remote.keys().map(|(cluster, _)| cluster).filter(move |cluster| last.replace(*cluster) != Some(*cluster))
    }
}

impl Said {
    fn piece<'a>(&'a self, cluster: &'a ClusterName, origin: Origin) -> Piece<'a> {
        Piece {
            cluster,
            id: self.cluster_id,
            origin,
            slice: &self.slice,
            trust: if self.standing == Standing::Sure { Trust::AsSaid } else { Trust::Doubtful },
            dropped: false,
            revision: self.revision,
            since: self.since,
        }
    }
}

/// Whether a slice now says something else; its revision alone is no difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    Same,
    Differs,
}

fn replace<K: Ord>(slices: &mut BTreeMap<K, Said>, key: K, said: Option<Said>) -> Effect {
    let Some(mut new) = said else {
        return if slices.remove(&key).is_some() { Effect::Differs } else { Effect::Same };
    };
    let mut effect = Effect::Differs;
    if let Some(old) = slices.get(&key) {
        if (old.cluster_id, old.standing, &old.slice) == (new.cluster_id, new.standing, &new.slice) {
            effect = Effect::Same;
        }
        if old.revision == new.revision {
            new.since = old.since;
        }
    }
    slices.insert(key, new);
    effect
}

/// What clients dial, ascending, with the port's name. SCTP is carried and never translated, so it has no frontend.
fn frontends(spec: &ServiceSpec) -> Vec<(Frontend, SmolStr)> {
    let ports = spec.ports.iter().filter(|p| p.protocol != Protocol::Sctp);
    let mut all: Vec<_> = ports
        .flat_map(|p| spec.cluster_ips.iter().map(move |ip| (p, *ip)))
        .map(|(p, addr)| (Frontend { addr, port: p.number, protocol: p.protocol }, p.name.clone()))
        .collect();
    all.sort();
    all.dedup_by_key(|(frontend, _)| *frontend);
    all
}
