//! What should serve, worked out the long way: from the list of everything that was ever said, with no index, no
//! sharing and no code of the real thing. Written from the rules as users read them, not from the code.

use std::collections::{BTreeMap, BTreeSet};

use tombolo_core::hold::Standing;
use tombolo_core::id::{ClusterId, ClusterName, ServiceKey};
use tombolo_core::mesh::Change;
use tombolo_core::model::{
    Affinity, BackendKey, BackendState, Endpoint, Frontend, InternalTrafficPolicy, OnStale, Port, Protocol, Reach,
    ServiceSpec, Slice,
};

/// All that was said, in order, and who listens.
#[derive(Clone, Debug)]
pub struct World {
    /// The listener's node.
    pub node: String,
    /// Its cluster's id.
    pub id: ClusterId,
    /// What was said.
    pub said: Vec<Change>,
}

/// One frontend's answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Chosen by filter and affinity, in the round that counts.
    pub chosen: BTreeSet<BackendKey>,
    /// Those of them that serve.
    pub serving: BTreeSet<BackendKey>,
}

/// One claim to stand behind a service.
#[derive(Clone, Debug)]
struct Claim {
    key: BackendKey,
    local: bool,
    names: BTreeSet<String>,
    /// Under the local Service's policy.
    state: BackendState,
    /// Of several by one cluster the least is the best: sure before doubtful, then by what its record says.
    worth: (bool, BackendState, bool),
    node: Option<String>,
    doubtful: bool,
}

/// Whether it is local, its cluster, and what it says.
type SaidSlice = (bool, ClusterId, Slice, Standing);

impl World {
    /// The answers of one service's frontends; `None` without a local Service.
    pub fn answers(&self, service: &ServiceKey) -> Option<BTreeMap<Frontend, Answer>> {
        let spec = self.spec(service)?;
        let mut answers = BTreeMap::new();
        for ip in &spec.cluster_ips {
            let mut ports = spec.ports.clone();
            ports.sort();
            for port in ports {
                let frontend = Frontend { addr: *ip, port: port.number, protocol: port.protocol };
                let other_has_it = self.services().iter().any(|other| other < service && self.dials(other, &frontend));
                if port.protocol != Protocol::Sctp && !other_has_it && !answers.contains_key(&frontend) {
                    answers.insert(frontend, self.answer(&spec, &frontend, &port));
                }
            }
        }
        Some(answers)
    }

    /// All services anything was said about.
    pub fn services(&self) -> BTreeSet<ServiceKey> {
        let named = |change: &Change| match change {
            Change::Service(key, _) => Some(key.clone()),
            Change::Local { service, .. } | Change::Remote { service, .. } => Some(service.clone()),
            Change::Cluster(_) | Change::Peer(..) | Change::Node(_) => None,
        };
        self.said.iter().filter_map(named).collect()
    }

    fn spec(&self, service: &ServiceKey) -> Option<ServiceSpec> {
        let mut spec = None;
        for change in &self.said {
            if let Change::Service(key, value) = change
                && key == service
            {
                spec.clone_from(value);
            }
        }
        spec
    }

    fn dials(&self, service: &ServiceKey, frontend: &Frontend) -> bool {
        self.spec(service).is_some_and(|spec| {
            spec.cluster_ips.contains(&frontend.addr)
                && spec.ports.iter().any(|p| (p.number, p.protocol) == (frontend.port, frontend.protocol))
        })
    }

    fn answer(&self, spec: &ServiceSpec, frontend: &Frontend, port: &Port) -> Answer {
        let claims = self.claims(spec);
        let survivors: Vec<&Claim> = claims
            .iter()
            .filter(|c| {
                let same_kind = c.key.protocol == frontend.protocol && c.key.addr.family() == frontend.addr.family();
                let name_fits = port.name.is_empty() || c.names.is_empty() || c.names.contains(port.name.as_str());
                let here = c.node.is_none() || (c.local && c.node.as_deref() == Some(&self.node));
                let node_fits = spec.policy.internal_traffic_policy == InternalTrafficPolicy::Cluster || here;
                let beaten = claims.iter().any(|other| beats(other, c));
                same_kind && name_fits && node_fits && !beaten
            })
            .collect();
        let sure = round(spec, &survivors, |c| !c.doubtful);
        if sure.serving.is_empty() { round(spec, &survivors, |_| true) } else { sure }
    }

    /// Every claim once: of several by one cluster the best, with the names of all.
    fn claims(&self, spec: &ServiceSpec) -> Vec<Claim> {
        let mut claims: Vec<Claim> = Vec::new();
        for (peer, (local, cluster, slice, standing)) in self.slices(&spec.key) {
            let stale = peer.is_some_and(|peer| self.is_stale(&peer, spec));
            if stale && spec.policy.on_stale == OnStale::Drop {
                continue;
            }
            for endpoint in &slice.endpoints {
                for port in endpoint.ports.iter() {
                    let key = BackendKey { addr: endpoint.addr, port: port.number, protocol: port.protocol, cluster };
                    let doubtful = match spec.policy.on_stale {
                        OnStale::Keep if stale => false,
                        _ => stale || endpoint.doubtful || standing != Standing::Sure,
                    };
                    let idle = endpoint.weight == 0;
                    let said = if idle { BackendState::Maintenance } else { endpoint.state };
                    let claim = Claim {
                        key,
                        local,
                        names: named(port),
                        state: state(spec, endpoint),
                        node: endpoint.node.as_ref().map(ToString::to_string),
                        doubtful,
                        worth: (doubtful, said, idle),
                    };
                    add(&mut claims, claim);
                }
            }
        }
        claims
    }

    /// By the last word on it, a peer has been silent for as long as this Service bears, and no less than it must.
    fn is_stale(&self, peer: &ClusterName, spec: &ServiceSpec) -> bool {
        let mut last = None;
        for change in &self.said {
            if let Change::Peer(name, state) = change
                && name == peer
            {
                last.clone_from(state);
            }
        }
        let Some(state) = last else { return false };
        let bears = spec.policy.stale_after_ms.unwrap_or(state.stale_after_ms);
        state.silent_ms > 0 && state.silent_ms >= bears && state.silent_ms >= state.least_stale_ms
    }

    /// The last word on each slice, with its peer, in the order of the slices' names, unless its peer was removed since.
    fn slices(&self, service: &ServiceKey) -> Vec<(Option<ClusterName>, SaidSlice)> {
        let mut last: BTreeMap<(Option<ClusterName>, String), SaidSlice> = BTreeMap::new();
        for change in &self.said {
            match change {
                Change::Local { service: s, slice, value, .. } if s == service => {
                    last.remove(&(None, slice.to_string()));
                    if let Some(value) = value {
                        last.insert((None, slice.to_string()), (true, self.id, value.clone(), Standing::Sure));
                    }
                }
                Change::Remote { service: s, cluster, slice, value, standing } if s == service => {
                    let name = (Some(cluster.clone()), slice.to_string());
                    last.remove(&name);
                    if let Some(v) = value {
                        last.insert(name, (false, v.cluster_id, v.slice.clone(), *standing));
                    }
                }
                Change::Peer(peer, None) => last.retain(|(cluster, _), _| cluster.as_ref() != Some(peer)),
                _ => {}
            }
        }
        last.into_iter().map(|((peer, _), said)| (peer, said)).collect()
    }
}

fn named(port: &Port) -> BTreeSet<String> {
    if port.name.is_empty() { BTreeSet::new() } else { BTreeSet::from([port.name.to_string()]) }
}

fn state(spec: &ServiceSpec, endpoint: &Endpoint) -> BackendState {
    if endpoint.weight == 0 {
        BackendState::Maintenance
    } else if spec.policy.publish_not_ready {
        BackendState::Active
    } else {
        endpoint.state
    }
}

fn beats(one: &Claim, other: &Claim) -> bool {
    let same = (one.key.addr, one.key.port, one.key.protocol) == (other.key.addr, other.key.port, other.key.protocol);
    same && ((one.local && !other.local) || (one.local == other.local && one.key.cluster < other.key.cluster))
}

fn add(claims: &mut Vec<Claim>, new: Claim) {
    let Some(old) = claims.iter_mut().find(|c| c.key == new.key && c.local == new.local) else {
        claims.push(new);
        return;
    };
    let names = old.names.union(&new.names).cloned().collect();
    if new.worth < old.worth {
        *old = new;
    }
    old.names = names;
}

/// One round: `counts` says whose health counts.
fn round(spec: &ServiceSpec, survivors: &[&Claim], counts: impl Fn(&Claim) -> bool) -> Answer {
    let active = |c: &&&Claim| counts(c) && c.state == BackendState::Active;
    let terminating = |c: &&&Claim| counts(c) && c.state == BackendState::Terminating;
    let healthy = |c: &&&Claim| active(c) || terminating(c);
    let local: Vec<&Claim> = survivors.iter().filter(|c| c.local).copied().collect();
    let remote: Vec<&Claim> = survivors.iter().filter(|c| !c.local).copied().collect();
    let local_active = local.iter().filter(active).count();
    let local_healthy = local.iter().filter(healthy).count();
    let remote_healthy = remote.iter().filter(healthy).count();
    let (take_local, take_remote) = match (spec.policy.reach, spec.policy.affinity) {
        (Reach::Cluster, _) => (true, false),
        (_, Affinity::None) => (true, true),
        (_, Affinity::Local) => (true, local_active == 0 && remote_healthy >= 1),
        (_, Affinity::Remote) => (remote_healthy == 0 && local_healthy >= 1, true),
    };
    let mut chosen: Vec<&Claim> = Vec::new();
    if take_local {
        chosen.extend(&local);
    }
    if take_remote {
        chosen.extend(&remote);
    }
    let mut serving: Vec<&Claim> = chosen.iter().filter(active).copied().collect();
    if serving.is_empty() {
        serving = chosen.iter().filter(terminating).copied().collect();
    }
    let keys = |claims: Vec<&Claim>| claims.into_iter().map(|c| c.key).collect();
    Answer { chosen: keys(chosen), serving: keys(serving) }
}
