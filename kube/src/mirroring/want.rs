//! Which EndpointSlices there should be.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use tombolo_core::id::{Addr, ClusterName, Family};
use tombolo_core::model::{BackendState, Endpoint, Port, ServiceSpec};

use super::{Held, Mode};

/// The longest name of a Service and of a cluster that a slice's name has whole.
const SERVICE: usize = 63;

/// A slice's namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SliceName {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
}

/// A slice of one peer's endpoints of one Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirrored {
    /// The Service's name.
    pub service: String,
    /// Whether it has no cluster IP.
    pub headless: bool,
    /// The peer.
    pub cluster: String,
    /// The family of the addresses.
    pub family: Family,
    /// The ports of all its endpoints.
    pub ports: Vec<Port>,
    /// The endpoints, by address.
    pub endpoints: Vec<MirroredEndpoint>,
}

/// One endpoint. Its node is left out: a peer's node may have the name of one of ours, and count as near.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MirroredEndpoint {
    /// Its address.
    pub addr: Addr,
    /// What it can do.
    pub state: BackendState,
    /// Its zone.
    pub zone: Option<String>,
}

/// All slices that there should be.
pub fn want(held: &Held, mode: Mode) -> BTreeMap<SliceName, Mirrored> {
    let mut wanted = BTreeMap::new();
    let imported = held.services.values().filter(|spec| takes(mode, spec));
    for spec in imported {
        for ((cluster, slice), content) in held.slices.get(&spec.key).into_iter().flatten() {
            for (group, endpoints) in groups(&content.endpoints) {
                let name = name(spec, cluster, slice, &group);
                wanted.insert(name, mirrored(spec, cluster, group, &endpoints));
            }
        }
    }
    wanted
}

/// Whether a Service's peers are mirrored.
pub fn takes(mode: Mode, spec: &ServiceSpec) -> bool {
    match mode {
        Mode::Off => false,
        Mode::Headless => spec.cluster_ips.is_empty(),
        Mode::All => true,
    }
}

/// What all endpoints of one EndpointSlice have in common.
type Group = (Family, Vec<Port>);

fn groups(endpoints: &[Endpoint]) -> BTreeMap<Group, Vec<&Endpoint>> {
    let mut groups: BTreeMap<Group, Vec<&Endpoint>> = BTreeMap::new();
    for endpoint in endpoints {
        let mut ports = endpoint.ports.to_vec();
        ports.sort();
        ports.dedup();
        groups.entry((endpoint.addr.family(), ports)).or_default().push(endpoint);
    }
    groups
}

fn mirrored(spec: &ServiceSpec, cluster: &ClusterName, (family, ports): Group, endpoints: &[&Endpoint]) -> Mirrored {
    let endpoint = |e: &&Endpoint| MirroredEndpoint {
        addr: e.addr,
        state: e.state.with_weight(e.weight),
        zone: e.zone.as_ref().map(ToString::to_string),
    };
    let mut endpoints: Vec<MirroredEndpoint> = endpoints.iter().map(endpoint).collect();
    endpoints.sort();
    endpoints.dedup_by_key(|endpoint| endpoint.addr);
    Mirrored {
        service: spec.key.name.to_string(),
        headless: spec.cluster_ips.is_empty(),
        cluster: cluster.to_string(),
        family,
        ports,
        endpoints,
    }
}

/// `<service>-<cluster>-<hash>`. The same content has the same name in every life and every replica.
fn name(spec: &ServiceSpec, cluster: &ClusterName, slice: &str, (family, ports): &Group) -> SliceName {
    let mut identity = format!("{}/{cluster}/{slice}/{family:?}", spec.key);
    for port in ports {
        write!(identity, "/{}:{}:{}", port.name, port.protocol, port.number).expect("writing to a string");
    }
    let service: String = spec.key.name.chars().take(SERVICE).collect();
    let name = format!("{service}-{cluster}-{:016x}", fnv(identity.as_bytes()));
    SliceName { namespace: spec.key.namespace.to_string(), name }
}

/// FNV-1a: a name needs no secret, and must be the same in the next release.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
