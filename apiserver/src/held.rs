//! What is handed to the own agents, told once more to whoever mirrors it as EndpointSlices.
//!
//! It is read from the very writes, so that slices say what agents get: admitted, held through silence, and only of
//! Services that import it.

use std::collections::BTreeSet;

use tokio::sync::watch;
use tombolo_core::id::ClusterName;
use tombolo_core::own::{OwnKey, OwnRecord};
use tombolo_kube::mirroring::{Held, Mode, takes};
use tombolo_wire::own;

use crate::writes::Write;

/// Tells of writes; to nobody when there is no Kubernetes.
#[derive(Debug)]
pub struct HeldOutlet {
    mode: Mode,
    held: Option<watch::Sender<Held>>,
}

impl HeldOutlet {
    /// Tells nobody.
    pub fn nobody() -> Self {
        Self { mode: Mode::Off, held: None }
    }

    /// Tells `held` of what this mode takes.
    pub fn new(mode: Mode, held: watch::Sender<Held>) -> Self {
        Self { mode, held: Some(held) }
    }

    /// A key of the own store is written.
    pub fn write(&self, write: &Write) {
        let Some(held) = &self.held else { return };
        let (Write::Put(text, _) | Write::Delete(text)) = write;
        let Some(key) = own::parse_key(text).filter(matters) else { return };
        let record = match write {
            // What was just encoded can be decoded.
            Write::Put(_, value) => own::decode(&key, value).ok(),
            Write::Delete(_) => None,
        };
        held.send_if_modified(|held| take(held, self.mode, key, record));
    }

    /// Everything of this peer has been written.
    pub fn synced(&self, peer: &ClusterName) {
        if let Some(held) = &self.held {
            held.send_if_modified(|held| held.synced.insert(peer.clone()));
        }
    }

    /// This peer has left.
    pub fn gone(&self, peer: &ClusterName) {
        if let Some(held) = &self.held {
            held.send_if_modified(|held| held.synced.remove(peer));
        }
    }

    /// The configured peers, none while nobody knows; and whether the source is read.
    pub fn known(&self, peers: impl FnOnce() -> Option<BTreeSet<ClusterName>>, source: Source) {
        let Some(held) = &self.held else { return };
        let (peers, complete) = (peers(), source == Source::Complete);
        held.send_if_modified(|held| {
            let changed = held.peers != peers || held.complete != complete;
            (held.peers, held.complete) = (peers, complete);
            changed
        });
    }
}

/// Whether the source's first complete set is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Not yet.
    Reading,
    /// It is.
    Complete,
}

fn matters(key: &OwnKey) -> bool {
    matches!(key, OwnKey::Service(_) | OwnKey::Mesh { .. })
}

/// Whether that changes what is mirrored.
fn take(held: &mut Held, mode: Mode, key: OwnKey, record: Option<OwnRecord>) -> bool {
    match (key, record) {
        (OwnKey::Service(key), Some(OwnRecord::Service(spec))) if takes(mode, &spec) => {
            held.services.insert(key, spec.clone()) != Some(spec)
        }
        (OwnKey::Service(key), _) => {
            held.slices.remove(&key);
            held.services.remove(&key).is_some()
        }
        (OwnKey::Mesh { service, cluster, slice }, Some(OwnRecord::Mesh(record))) => {
            let imported = held.services.contains_key(&service);
            if imported {
                held.slices.entry(service).or_default().insert((cluster, slice), record.slice);
            }
            imported
        }
        (OwnKey::Mesh { service, cluster, slice }, _) => {
            let Some(slices) = held.slices.get_mut(&service) else { return false };
            let removed = slices.remove(&(cluster, slice)).is_some();
            if slices.is_empty() {
                held.slices.remove(&service);
            }
            removed
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tombolo_core::id::{Addr, ClusterId, MaxClusters, ServiceKey};
    use tombolo_core::model::{Policy, ServiceSpec, Slice};
    use tombolo_core::own::MeshSlice;

    use super::*;

    #[test]
    fn writes_are_told_as_agents_get_them() {
        let (said, held) = watch::channel(Held::default());
        let outlet = HeldOutlet::new(Mode::Headless, said);
        let service = |name: &str, cluster_ips: Vec<Addr>| {
            let key = ServiceKey::new("default", name);
            let spec = ServiceSpec { key: key.clone(), cluster_ips, ports: Vec::new(), policy: Policy::default() };
            Write::Put(own::key_to_string(&OwnKey::Service(key)), own::encode(&OwnRecord::Service(spec)))
        };
        let mesh = |name: &str| {
            let (cluster, slice) = (ClusterName::new("ne").unwrap(), "s".into());
            let key = OwnKey::Mesh { service: ServiceKey::new("default", name), cluster, slice };
            let cluster_id = ClusterId::new(2, MaxClusters::C255).unwrap();
            let record = MeshSlice { cluster_id, revision: 1, slice: Slice::default() };
            (own::key_to_string(&key), own::encode(&OwnRecord::Mesh(record)))
        };
        let told = || format!("{:?} {:?}", held.borrow().services.len(), held.borrow().slices.len());
        let rows = [
            (service("plain", vec![Ipv4Addr::new(10, 96, 0, 1).into()]), "0 0"),
            (Write::Put(mesh("plain").0, mesh("plain").1), "0 0"),
            (service("rebel", Vec::new()), "1 0"),
            (Write::Put(mesh("rebel").0, mesh("rebel").1), "1 1"),
            (Write::Delete(mesh("rebel").0), "1 0"),
            (Write::Put(mesh("rebel").0, mesh("rebel").1), "1 1"),
            (Write::Delete("tombolo/v1/agents/services/default/rebel".into()), "0 0"),
            (Write::Put("cilium/state/x".into(), Default::default()), "0 0"),
        ];
        for (write, expected) in rows {
            outlet.write(&write);
            assert_eq!(told(), expected, "{write:?}");
        }
    }
}
