use std::collections::BTreeMap;

use expect_test::{Expect, expect};
use serde_json::json;
use tombolo_certs::{Authority, Validity};
use tombolo_core::id::ClusterName;
use tombolo_kube::install::{ClusterMap, Node, StoreService, TlsSecret};

use super::*;
use crate::kube::leaves::{Wanted, authority_secret, leaves};
use crate::output::Report as _;

const NOW: u64 = 1_800_000_000;
const DAY: u64 = 86_400;

/// A cluster that is as it should be, with a peer `we`.
fn good() -> Found {
    let ca = Authority::create("Cilium CA", Validity::days(NOW, 3650)).unwrap();
    let ne = ClusterName::new("ne").unwrap();
    let wanted = Wanted { cluster: &ne, dns: &[], ips: &[], auth_mode: None, days: 365 };
    let made = leaves(&ca, &wanted, &BTreeMap::new(), NOW).unwrap();
    let mut secrets: BTreeMap<String, TlsSecret> =
        made.iter().map(|(done, d)| (done.secret.clone(), TlsSecret::read(&d.object).unwrap())).collect();
    secrets.insert(CA_SECRET.into(), TlsSecret::read(&authority_secret(&ca).object).unwrap());
    let data = [("name", "ne"), ("id", "1")].map(|(k, v)| (k.to_owned(), v.to_owned()));
    let workload =
        |wanted| Workload { image: "tombolo:1".into(), wanted, ready: wanted, updated: wanted, observed: true };
    Found {
        uid: "uid".into(),
        config: Some(ClusterMap { data: data.into(), ..ClusterMap::default() }),
        store: Some(StoreService { kind: "NodePort".into(), port: 2379, node_port: Some(32379), ingress: vec![] }),
        nodes: vec![Node { name: "ne-1".into(), internal: vec!["192.0.2.1".parse().unwrap()], ..Node::default() }],
        peer_secrets: BTreeMap::from([("tombolo-peer-we".to_owned(), TlsSecret::default())]),
        peers: vec![peer("True", 1)],
        apiserver: Some(workload(1)),
        agents: Some(workload(2)),
        secrets,
        ..Found::default()
    }
}

fn peer(connected: &str, observed: i64) -> MeshPeer {
    let condition = json!({
        "type": "Connected", "status": connected, "reason": "Lost", "message": "connection refused",
        "lastTransitionTime": "2027-01-15T07:58:00Z",
    });
    let object = json!({
        "apiVersion": "tombolo.io/v1alpha1", "kind": "MeshPeer", "metadata": { "name": "we", "generation": 1 },
        "spec": { "endpoints": ["https://we.mesh.cilium.io:32379"], "secretName": "tombolo-peer-we" },
        "status": {
            "conditions": [condition], "clusterId": 2, "session": if connected == "True" { "ready" } else { "lost" },
            "services": 3, "backends": 9, "nodes": 2, "observedGeneration": observed,
            "silentSince": if connected == "True" { json!(null) } else { json!("2027-01-15T07:58:00Z") },
            "message": if connected == "True" { "" } else { "connection refused" },
        },
    });
    serde_json::from_value(object).unwrap()
}

fn check(change: impl FnOnce(&mut Found), now: u64, expected: &Expect) {
    let mut found = good();
    change(&mut found);
    let clusters = vec![judged("kind-ne", &found, now)];
    expected.assert_eq(&SitesStatus { connected: clusters[0].problems.is_empty(), clusters }.text());
}

#[test]
fn all_connected() {
    check(
        |_| {},
        NOW,
        &expect![[r"
        🏝  ne (id 1), context kind-ne
           ✅ apiserver: 1 of 1 ready (tombolo:1)
           ✅ agents: 2 of 2 ready (tombolo:1)
           ✅ store at https://ne.mesh.cilium.io:32379 (192.0.2.1) by NodePort
           🔌 1 peer configured, 1 connected:
              PEER  ID  SESSION  SILENT  SERVICES  ENDPOINTS  NODES  REFUSED  DETAIL
              we    2   ready    -       3         9          2      -        -

        ✅ 1 cluster connected
    "]],
    );
}

#[test]
fn a_peer_that_is_lost_and_pods_that_are_not_ready() {
    check(
        |found| {
            found.peers = vec![peer("False", 1)];
            found.agents.as_mut().unwrap().ready = 1;
            found.apiserver.as_mut().unwrap().updated = 0;
        },
        NOW,
        &expect![[r"
            🏝  ne (id 1), context kind-ne
               ✅ apiserver: 1 of 1 ready (tombolo:1)
               ❌ agents: 1 of 2 ready (tombolo:1)
               ✅ store at https://ne.mesh.cilium.io:32379 (192.0.2.1) by NodePort
               🔌 1 peer configured, 0 connected:
                  PEER  ID  SESSION  SILENT  SERVICES  ENDPOINTS  NODES  REFUSED  DETAIL
                  we    2   lost     2m0s    3         9          2      -        connection refused
               ❌ 3 problems:
                  apiserver: 0 of 1 up to date
                  agents: 1 of 2 ready
                  peer we is not connected: Lost: connection refused

            ❌ 1 of 1 cluster not connected
        "]],
    );
}

#[test]
fn certificates_end() {
    let lines = |now| judged("kind-ne", &good(), now);
    assert_eq!(lines(NOW + 300 * DAY).ending, vec![]);
    let soon = lines(NOW + 340 * DAY);
    assert!(soon.ending.len() == 4 && soon.problems.is_empty(), "{soon:?}");
    let over = lines(NOW + 366 * DAY);
    let first = "Secret tombolo-server expired at 2028-01-15T08:00:00Z: tombolo enable --context kind-ne";
    assert!(over.problems.len() == 4 && over.problems[0] == first, "{over:?}");
}

#[test]
fn what_is_missing_is_said() {
    let problems = |change: &dyn Fn(&mut Found)| {
        let mut found = good();
        change(&mut found);
        let status = judged("kind-ne", &found, NOW);
        status.warnings.into_iter().chain(status.problems).collect::<Vec<_>>().join("; ")
    };
    let told = [
        problems(&|found| found.config = None),
        problems(&|found| found.apiserver = None),
        problems(&|found| found.agents.as_mut().unwrap().wanted = 0),
        problems(&|found| found.agents.as_mut().unwrap().observed = false),
        problems(&|found| drop(found.secrets.remove(CA_SECRET))),
        problems(&|found| drop(found.secrets.remove("tombolo-admin"))),
        problems(&|found| found.peer_secrets.clear()),
        problems(&|found| found.peers[0].status = None),
        problems(&|found| found.peers = vec![peer("True", 0)]),
        problems(&|found| found.store = None),
        problems(&|found| found.store.as_mut().unwrap().kind = "ClusterIP".into()),
    ];
    expect![[r"
        not enabled: tombolo enable --context kind-ne
        apiserver: not installed
        agents: none is wanted
        agents: the newest template is not yet acted upon
        no Secret tombolo-ca: tombolo enable --context kind-ne
        no Secret tombolo-admin: tombolo enable --context kind-ne
        peer we: no Secret tombolo-peer-we in tombolo-peers
        peer we: the apiserver has said nothing of it yet
        peer we: the apiserver has not taken its change in yet
        peers cannot reach the store: its Service is not there: tombolo enable --context kind-ne
    "]]
    .assert_eq(&(told.join("\n") + "\n").replace("\n\n", "\n"));
}
