//! What Cilium's own exporter writes for the same objects, step by step (`tests/data/export.json`).
#![cfg(test)]

use std::collections::BTreeMap;

use serde::Deserialize;
use tombolo_apiserver::export::{Export, cluster_config};
use tombolo_apiserver::writes::Write;
use tombolo_core::export::{DefaultNamespace, ExporterConfig};
use tombolo_core::id::{ClusterId, ClusterName, MaxClusters};
use tombolo_core::object::SourceEvent;
use tombolo_source::manifest;
use tombolo_wire::cilium::key::{self, Kind};
use tombolo_wire::cilium::{self, PeerIdentity};

#[derive(Deserialize)]
struct Vectors {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    flags: Vec<String>,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
struct Step {
    op: String,
    objects: Vec<String>,
    state: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Value {
    Text(String),
    Slice { hex: String },
}

/// Keys compared, and keys that this program does not write yet.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    compared: usize,
    /// Service exports.
    skipped: usize,
}

fn cluster() -> ClusterName {
    ClusterName::new("cluster3").unwrap()
}

fn id() -> ClusterId {
    ClusterId::new(3, MaxClusters::C255).unwrap()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

impl Case {
    fn has(&self, flag: &str) -> bool {
        self.flags.iter().any(|f| f == flag)
    }

    fn run(&self, tally: &mut Tally) {
        let namespaces = match self.has("--clustermesh-default-global-namespace=false") {
            true => DefaultNamespace::Cluster,
            false => DefaultNamespace::Global,
        };
        let mut export =
            Export::new(ExporterConfig { cluster: cluster(), id: id(), max: MaxClusters::C255, namespaces });
        export.apply(vec![SourceEvent::Complete]);
        let mut store = BTreeMap::new();
        for (number, step) in self.steps.iter().enumerate() {
            for write in export.apply(step.events()).writes {
                match write {
                    Write::Put(key, value) => drop(store.insert(key, value)),
                    Write::Delete(key) => drop(store.remove(&key)),
                }
            }
            self.compare(number, step, &store, tally);
        }
    }

    fn compare(&self, number: usize, step: &Step, store: &BTreeMap<String, bytes::Bytes>, tally: &mut Tally) {
        let at = format!("case {}, step {number}", self.name);
        let ours = |kind: Kind| store.keys().filter(move |key| key.starts_with(&kind.state_prefix(&cluster())));
        let only_slices = self.has("--clustermesh-service-v2=only-endpointslice");
        let services = if only_slices { None } else { Some(Kind::Services) };
        let kinds = [Kind::EndpointSlices, Kind::Nodes, Kind::Identities, Kind::Ip];
        for kind in services.iter().chain(&kinds) {
            let theirs = step.state.keys().filter(|key| key.starts_with(&kind.state_prefix(&cluster())));
            assert_eq!(ours(*kind).collect::<Vec<_>>(), theirs.collect::<Vec<_>>(), "{at}");
        }
        for (key, expected) in &step.state {
            match (key.split('/').nth(2), expected) {
                (Some("services" | "nodes" | "identities" | "ip"), Value::Text(text)) => {
                    assert_eq!(std::str::from_utf8(&store[key]).unwrap(), text, "{at}, {key}");
                }
                (Some("endpointslices"), Value::Slice { hex }) => {
                    let peer = PeerIdentity { name: cluster(), id: id(), max: MaxClusters::C255 };
                    let read = |value: &[u8]| cilium::decode(Kind::EndpointSlices, key, value, &peer).unwrap();
                    assert_eq!(read(&store[key]), read(&unhex(hex)), "{at}, {key}");
                }
                _ if *key == key::cluster_config(&cluster()) && self.is_default_mode() => {
                    let Value::Text(text) = expected else { panic!("{at}: {key} is text") };
                    let ours = cilium::encode_config(&cluster_config(id(), MaxClusters::C255));
                    assert_eq!(std::str::from_utf8(&ours).unwrap(), text, "{at}");
                }
                _ if key.starts_with("cilium/synced/") => {
                    assert!(Kind::ALL.iter().any(|kind| kind.canary(&cluster()) == *key), "{at}, {key}");
                }
                _ => {
                    tally.skipped += 1;
                    continue;
                }
            }
            tally.compared += 1;
        }
    }

    fn is_default_mode(&self) -> bool {
        !self.has("--clustermesh-enable-mcs-api") && !self.has("--clustermesh-service-v2=only-endpointslice")
    }
}

impl Step {
    fn events(&self) -> Vec<SourceEvent> {
        let objects = self.objects.iter().flat_map(|text| manifest::parse(text).unwrap().objects);
        objects
            .map(|(_, object)| match self.op.as_str() {
                "delete" => SourceEvent::Delete(object.key()),
                _ => SourceEvent::Upsert(object),
            })
            .collect()
    }
}

#[test]
fn exports_what_cilium_exports() {
    let vectors: Vectors = serde_json::from_str(include_str!("data/export.json")).unwrap();
    assert_eq!(vectors.cases.len(), 23);
    let mut tally = Tally::default();
    for case in &vectors.cases {
        case.run(&mut tally);
    }
    assert_eq!(tally, Tally { compared: 324, skipped: 8 });
}
