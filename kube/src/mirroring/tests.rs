use std::net::Ipv4Addr;
use std::sync::Arc;

use expect_test::expect;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use tombolo_core::export::{DefaultNamespace, Exporter, ExporterConfig};
use tombolo_core::id::{Addr, ClusterId, MaxClusters};
use tombolo_core::model::{BackendState, Endpoint, Policy, Port, Protocol};
use tombolo_core::object::SourceEvent;

use super::diff::There;
use super::want::Mirrored;
use super::*;

/// The cluster's slices, as a server keeps them.
type Server = BTreeMap<SliceName, Arc<EndpointSlice>>;

fn key(name: &str) -> ServiceKey {
    ServiceKey::new("default", name)
}

fn spec(name: &str, cluster_ip: Option<Ipv4Addr>) -> ServiceSpec {
    let ports = vec![Port { name: "http".into(), protocol: Protocol::Tcp, number: 80 }];
    let cluster_ips = cluster_ip.into_iter().map(Addr::from).collect();
    ServiceSpec { key: key(name), cluster_ips, ports, policy: Policy::default() }
}

fn endpoint(last: u8, port: u16, state: BackendState) -> Endpoint {
    Endpoint {
        addr: Ipv4Addr::new(10, 2, 0, last).into(),
        ports: [Port { name: "http".into(), protocol: Protocol::Tcp, number: port }].into(),
        state,
        was_ready: true,
        weight: 100,
        node: Some("node-1".into()),
        zone: Some("z1".into()),
        hints: Box::new([]),
        doubtful: false,
    }
}

fn peer(name: &str) -> ClusterName {
    ClusterName::new(name).unwrap()
}

fn held(services: &[(&str, Option<Ipv4Addr>)], slices: &[(&str, &str, Vec<Endpoint>)]) -> Held {
    let mut held = Held { complete: true, ..Held::default() };
    for (name, ip) in services {
        held.services.insert(key(name), spec(name, *ip));
    }
    for (service, cluster, endpoints) in slices {
        let slice = Slice { endpoints: endpoints.clone() };
        held.slices.entry(key(service)).or_default().insert((peer(cluster), "s".into()), slice);
        held.synced.insert(peer(cluster));
    }
    held.peers = Some(["ne", "fc"].map(peer).into());
    held
}

fn there(server: &Server) -> BTreeMap<SliceName, There> {
    let objects = server.iter().map(|(n, object)| ((n.namespace.clone(), n.name.clone()), Arc::clone(object)));
    object::read_all(&objects.collect())
}

fn plan(held: &Held, mode: Mode, server: &Server) -> Vec<Write> {
    diff(held, mode, want(held, mode), &there(server))
}

/// What a server makes of the writes.
fn apply(server: &mut Server, writes: Vec<Write>) {
    for write in writes {
        match write {
            Write::Put(name, slice, uid) => {
                let object = object::render(&name, &slice, &uid.unwrap_or_else(|| "uid".to_owned()));
                server.insert(name, Arc::new(serde_json::from_value(object).unwrap()));
            }
            Write::Delete(name, _) => drop(server.remove(&name)),
        }
    }
}

fn told(writes: &[Write]) -> Vec<String> {
    let tell = |write: &Write| match write {
        Write::Put(name, Mirrored { endpoints, .. }, _) => format!("put {} {}", short(&name.name), endpoints.len()),
        Write::Delete(name, _) => format!("delete {}", short(&name.name)),
    };
    writes.iter().map(tell).collect()
}

/// A name without its hash.
fn short(name: &str) -> &str {
    name.rsplit_once('-').map_or(name, |(front, _)| front)
}

const ACTIVE: BackendState = BackendState::Active;

#[test]
fn a_slice_as_the_api_gets_it() {
    let held = held(&[("rebel", None)], &[("rebel", "ne", vec![endpoint(1, 8080, ACTIVE)])]);
    let wanted = want(&held, Mode::Headless);
    let (name, slice) = wanted.first_key_value().unwrap();
    expect![[r#"
        {
          "addressType": "IPv4",
          "apiVersion": "discovery.k8s.io/v1",
          "endpoints": [
            {
              "addresses": [
                "10.2.0.1"
              ],
              "conditions": {
                "ready": true,
                "serving": true,
                "terminating": false
              },
              "zone": "z1"
            }
          ],
          "kind": "EndpointSlice",
          "metadata": {
            "labels": {
              "endpointslice.kubernetes.io/managed-by": "endpointslice-mesh-controller.cilium.io",
              "kubernetes.io/service-name": "rebel",
              "multicluster.kubernetes.io/source-cluster": "ne",
              "service.kubernetes.io/headless": "",
              "tombolo.io/mirrored": "true"
            },
            "name": "rebel-ne-f12b9f2290e24d32",
            "namespace": "default",
            "ownerReferences": [
              {
                "apiVersion": "v1",
                "kind": "Service",
                "name": "rebel",
                "uid": "uid"
              }
            ]
          },
          "ports": [
            {
              "name": "http",
              "port": 8080,
              "protocol": "TCP"
            }
          ]
        }"#]]
    .assert_eq(&serde_json::to_string_pretty(&object::render(name, slice, "uid")).unwrap());
}

#[test]
fn modes() {
    let services = [("plain", Some(Ipv4Addr::new(10, 96, 0, 1))), ("rebel", None)];
    let endpoints = || vec![endpoint(1, 80, ACTIVE)];
    let held = held(&services, &[("plain", "ne", endpoints()), ("rebel", "ne", endpoints())]);
    let mut server = Server::new();
    let rows = [Mode::Headless, Mode::All, Mode::Headless, Mode::Off].map(|mode| {
        let writes = plan(&held, mode, &server);
        apply(&mut server, writes.clone());
        told(&writes).join(", ")
    });
    expect![[r#"
        [
            "put rebel-ne 1",
            "put plain-ne 1",
            "delete plain-ne",
            "delete rebel-ne",
        ]
    "#]]
    .assert_debug_eq(&rows);
}

#[test]
fn what_leaves_and_what_stays() {
    let full = || held(&[("rebel", None)], &[("rebel", "ne", vec![endpoint(1, 80, ACTIVE), endpoint(2, 80, ACTIVE)])]);
    let mut server = Server::new();
    let first = plan(&full(), Mode::Headless, &server);
    apply(&mut server, first);
    let check = |what: &str, held: &Held, expected: &[&str]| {
        assert_eq!(told(&plan(held, Mode::Headless, &server)), expected, "{what}");
    };
    check("nothing changed", &full(), &[]);
    // A start: the source is not read yet, then the peer is not.
    let mut starting = Held { peers: full().peers, ..Held::default() };
    check("the source is not read", &starting, &[]);
    starting.services = full().services;
    starting.complete = true;
    check("the peer is not read since the start", &starting, &[]);
    starting.synced.insert(peer("ne"));
    check("the peer is read, and has none", &starting, &["delete rebel-ne"]);
    let unknown = Held { peers: None, synced: BTreeSet::new(), ..starting.clone() };
    check("nobody knows who is a peer", &unknown, &[]);
    let left = Held { peers: Some([peer("fc")].into()), synced: BTreeSet::new(), ..starting };
    check("the peer was disconnected", &left, &["delete rebel-ne"]);
    let local = Held { services: BTreeMap::new(), ..full() };
    check("the Service is not global any more", &local, &["delete rebel-ne"]);
}

#[test]
fn other_ports_are_another_slice_that_comes_before_the_old_one_goes() {
    let with = |port| held(&[("rebel", None)], &[("rebel", "ne", vec![endpoint(1, port, ACTIVE)])]);
    let mut server = Server::new();
    let first = plan(&with(80), Mode::All, &server);
    apply(&mut server, first);
    assert_eq!(told(&plan(&with(81), Mode::All, &server)), ["put rebel-ne 1", "delete rebel-ne"]);
}

#[test]
fn what_others_changed_is_put_right() {
    let held = held(&[("rebel", None)], &[("rebel", "ne", vec![endpoint(1, 80, ACTIVE)])]);
    let mut server = Server::new();
    let first = plan(&held, Mode::All, &server);
    apply(&mut server, first);
    let (name, object) = server.pop_first().unwrap();
    let mut object = (*object).clone();
    object
        .endpoints
        .iter_mut()
        .flatten()
        .flat_map(|endpoint| &mut endpoint.addresses)
        .for_each(|addr| *addr = "10.9.9.9".into());
    server.insert(name, Arc::new(object));
    assert_eq!(told(&plan(&held, Mode::All, &server)), ["put rebel-ne 1"]);
}

/// What comes from a peer never goes to one: the exporter reads our slices back from the source.
#[test]
fn mirrored_slices_are_not_exported_again() {
    let held = held(&[("rebel", None)], &[("rebel", "ne", vec![endpoint(1, 80, ACTIVE)])]);
    let wanted = want(&held, Mode::All);
    let (name, slice) = wanted.first_key_value().unwrap();
    let service = r#"{"apiVersion":"v1","kind":"Service","metadata":{"name":"rebel","namespace":"default",
        "annotations":{"service.cilium.io/global":"true"}},"spec":{"clusterIP":"None","ports":[{"port":80}]}}"#;
    let ours = object::render(name, slice, "uid");
    let mut foreign = ours.clone();
    foreign["metadata"]["labels"] = serde_json::json!({ "kubernetes.io/service-name": "rebel" });
    let exported = |slice: &serde_json::Value| {
        let (cluster, max, namespaces) = (peer("we"), MaxClusters::C255, DefaultNamespace::Global);
        let id = ClusterId::new(1, max).unwrap();
        let mut exporter = Exporter::new(ExporterConfig { cluster, id, max, namespaces });
        for text in [service, &slice.to_string()] {
            for (_, object) in tombolo_source::manifest::parse(text).unwrap().objects {
                exporter.apply(SourceEvent::Upsert(object));
            }
        }
        let exported = exporter.exported(&key("rebel"));
        (exported.slices.len(), exported.legacy.unwrap().backends.len(), exported.own.unwrap().slices.len())
    };
    assert_eq!(exported(&foreign), (1, 1, 1), "an ordinary slice is exported");
    assert_eq!(exported(&ours), (0, 0, 0));
}

fn states() -> impl Strategy<Value = BackendState> {
    use BackendState::{Active, Gone, Maintenance, Terminating};
    prop_oneof![4 => Just(Active), 1 => Just(Terminating), 1 => Just(Gone), 1 => Just(Maintenance)]
}

fn helds() -> impl Strategy<Value = Held> {
    let endpoints = vec((0..20_u8, 80..82_u16, states()), 0..6);
    let slices = btree_map((prop_oneof!["a", "b"], prop_oneof!["ne", "fc"]), endpoints, 0..4);
    let services = btree_map(prop_oneof!["a", "b"], any::<bool>(), 0..3);
    let known = (any::<bool>(), any::<bool>(), proptest::sample::subsequence(vec!["ne", "fc"], 0..3));
    (slices, services, known).prop_map(|(slices, services, (complete, peers, synced))| {
        let mut held = Held { complete, ..Held::default() };
        for (name, headless) in services {
            let ip = (!headless).then_some(Ipv4Addr::new(10, 96, 0, 1));
            held.services.insert(key(&name), spec(&name, ip));
        }
        for ((service, cluster), endpoints) in slices {
            let endpoints = endpoints.into_iter().map(|(last, port, state)| endpoint(last, port, state)).collect();
            let slice = Slice { endpoints };
            held.slices.entry(key(&service)).or_default().insert((peer(&cluster), "s".into()), slice);
        }
        held.peers = peers.then(|| ["ne", "fc"].map(peer).into());
        held.synced = synced.into_iter().map(peer).collect();
        held
    })
}

fn some_mode() -> impl Strategy<Value = Mode> {
    prop_oneof![Just(Mode::Off), Just(Mode::Headless), Just(Mode::All)]
}

proptest! {
    #[test]
    fn laws_of_the_difference(before in helds(), after in helds(), mode in some_mode()) {
        let mut server = Server::new();
        let mut before = before;
        before.complete = true;
        let first = plan(&before, mode, &server);
    apply(&mut server, first);
        let writes = plan(&after, mode, &server);
        let first_delete = writes.iter().position(|write| matches!(write, Write::Delete(..))).unwrap_or(writes.len());
        prop_assert!(writes[first_delete..].iter().all(|write| matches!(write, Write::Delete(..))), "puts come first");
        for write in &writes {
            if let Write::Delete(name, _) = write {
                let cluster = &there(&server)[name].cluster;
                let imported = after.services.values().any(|spec| name.name.starts_with(spec.key.name.as_str())
                    && takes(mode, spec));
                let known = after.synced.contains(&peer(cluster));
                prop_assert!(after.complete && (known || !imported), "{cluster} is not known, and {name:?} would go");
            }
        }
        apply(&mut server, writes);
        prop_assert_eq!(plan(&after, mode, &server), vec![], "once is enough");
        let wanted = want(&after, mode);
        prop_assert!(wanted.iter().all(|(name, slice)| there(&server)[name].content.as_ref() == Some(slice)));
        let all_known = after.complete && after.synced.len() == 2;
        prop_assert!(!all_known || server.len() == wanted.len(), "nothing is left over");
    }
}
