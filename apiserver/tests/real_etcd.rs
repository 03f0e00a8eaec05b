//! The whole program against a real etcd: ready, and everything written that should be.

mod support;

use std::fs;
use std::path::Path;
use std::time::Duration;

use support::{Etcd, get, wait_for};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tombolo_apiserver::app;
use tombolo_apiserver::config::Args;
use tombolo_store::{SessionEvent, SessionSpec, StoreConfig, Watch, session};

const MANIFESTS: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: rebel-base, annotations: {service.cilium.io/global: "true"}}
spec: {clusterIP: 10.96.0.7, ports: [{name: http, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: rebel-base-1, labels: {kubernetes.io/service-name: rebel-base}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints: [{addresses: [10.2.0.1], conditions: {ready: true}, nodeName: n1}]
---
apiVersion: v1
kind: Node
metadata: {name: n1, labels: {topology.kubernetes.io/zone: z1}}
spec: {podCIDRs: [10.2.0.0/24]}
status: {addresses: [{type: InternalIP, address: 192.0.2.1}]}
"#;

/// What must be in the store; values of canaries and heartbeats are times.
const KEYS: [&str; 18] = [
    "cilium/.heartbeat",
    "cilium/cluster-config/we",
    "cilium/state/endpointslices/v1/we/default/rebel-base-1",
    "cilium/state/nodes/v1/we/n1",
    "cilium/state/services/v1/we/default/rebel-base",
    "cilium/synced/we/cilium/state/endpointslices/v1",
    "cilium/synced/we/cilium/state/identities/v1",
    "cilium/synced/we/cilium/state/ip/v1",
    "cilium/synced/we/cilium/state/nodes/v1",
    "cilium/synced/we/cilium/state/serviceexports/v1",
    "cilium/synced/we/cilium/state/services/v1",
    "tombolo/v1/agents/cluster",
    "tombolo/v1/agents/heartbeat",
    "tombolo/v1/agents/local/default/rebel-base/rebel-base-1",
    "tombolo/v1/agents/services/default/rebel-base",
    "tombolo/v1/agents/synced/we",
    "tombolo/v1/control/nodes/n1",
    "tombolo/v1/control/refused/ne",
];

fn args(dir: &Path, etcd: &Etcd, health: &str) -> Args {
    use clap::Parser;
    let path = |name: &str| dir.join(name).display().to_string();
    let source = format!("dir:{}", path("source"));
    let flags = [
        ("--cluster-name", "we"),
        ("--cluster-id", "2"),
        ("--source", &source),
        ("--store", &etcd.url),
        ("--tls-dir", &path("tls")),
        ("--peers-dir", &path("peers")),
        ("--health-listen", health),
    ];
    let line = flags.iter().flat_map(|(flag, value)| [(*flag).to_owned(), (*value).to_owned()]);
    Args::parse_from(std::iter::once("tombolo-apiserver".to_owned()).chain(line))
}

/// Everything under a prefix, as the admin sees it.
async fn keys(store: &StoreConfig, prefix: &str, tasks: &TaskTracker, cancel: &CancellationToken) -> Vec<String> {
    let watches = vec![Watch { prefix: prefix.to_owned(), canary: None }];
    let spec = SessionSpec { store: store.clone(), heartbeat: None, first: None, watches };
    let done = cancel.child_token();
    let mut events: mpsc::Receiver<SessionEvent> = session(spec, tasks, done.clone());
    let mut found = Vec::new();
    while let Some(event) = events.recv().await {
        match event {
            SessionEvent::Delta { upserts, .. } => found.extend(upserts.into_iter().map(|(key, _)| key)),
            SessionEvent::Listed { .. } => break,
            _ => {}
        }
    }
    done.cancel();
    found
}

#[test]
fn a_started_apiserver_is_ready_and_has_written_everything() {
    let Some(etcd) = Etcd::start("we") else { return };
    let dir = etcd.dir().to_owned();
    fs::create_dir_all(dir.join("source")).unwrap();
    fs::create_dir_all(dir.join("peers")).unwrap();
    fs::write(dir.join("source/all.yaml"), MANIFESTS).unwrap();
    let peer = "endpoints:\n- https://127.0.0.1:9\ntrusted-ca-file: ca\ncert-file: c\nkey-file: k\n";
    fs::write(dir.join("peers/ne"), peer).unwrap();
    let health = support::free_address();
    let config = args(&dir, &etcd, &health).validate().unwrap();
    let store = config.store.clone();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let (tasks, cancel) = (TaskTracker::new(), CancellationToken::new());
        let running = tasks.spawn(app::run(config, cancel.clone()));
        let ready = wait_for(Duration::from_secs(60), async || {
            get(&health, "/readyz").await.filter(|answer| answer.starts_with("HTTP/1.1 200"))
        });
        let answer = match ready.await {
            Some(answer) => answer,
            None => panic!("not ready: {:?}", get(&health, "/readyz").await),
        };
        assert!(answer.contains("peer ne: connecting"), "{answer}");
        let mut found = Vec::new();
        for prefix in ["cilium/", "tombolo/"] {
            found.extend(keys(&store, prefix, &tasks, &cancel).await);
        }
        found.sort();
        let expected: Vec<&str> = KEYS.iter().copied().chain(["tombolo/v1/agents/peers/ne"]).collect();
        let mut expected: Vec<String> = expected.into_iter().map(str::to_owned).collect();
        expected.sort();
        assert_eq!(found, expected);
        let metrics = get(&health, "/metrics").await.unwrap();
        assert!(metrics.contains("tombolo_apiserver_exported_services 1"), "{metrics}");
        fs::write(dir.join("source/.tmp"), MANIFESTS.replace("rebel-base", "hoth")).unwrap();
        fs::rename(dir.join("source/.tmp"), dir.join("source/all.yaml")).unwrap();
        let moved = wait_for(Duration::from_secs(30), async || {
            let services = keys(&store, "cilium/state/services/", &tasks, &cancel).await;
            (services == ["cilium/state/services/v1/we/default/hoth"]).then_some(())
        });
        assert!(moved.await.is_some(), "an edit reaches the store");
        cancel.cancel();
        running.await.unwrap().unwrap();
    });
}
