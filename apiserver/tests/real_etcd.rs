//! The whole program against real etcds: ready, everything written that should be, and a peer mirrored.
#![cfg(test)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;
use support::{Etcd, authority, certificates, free_address, get, wait_for};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tombolo_apiserver::app;
use tombolo_apiserver::config::{Args, Config};
use tombolo_certs::Authority;
use tombolo_core::model::BackendState;
use tombolo_core::own::OwnRecord;
use tombolo_store::{SessionEvent, SessionSpec, StoreConfig, Watch, admin_channel, session};
use tombolo_wire::admin::ApiserverClient;
use tombolo_wire::own;

const LIMIT: Duration = Duration::from_secs(60);

/// A cluster with an etcd, a source and peers, its program not yet running.
struct Cluster {
    etcd: Etcd,
    health: String,
    config: Config,
}

impl Cluster {
    fn new(name: &str, id: &str, authority: &Authority) -> Option<Self> {
        let etcd = Etcd::start(name, authority)?;
        let health = free_address();
        let path = |file: &str| etcd.dir().join(file).display().to_string();
        fs::create_dir(path("source")).unwrap();
        fs::create_dir(path("peers")).unwrap();
        let source = format!("dir:{}", path("source"));
        let admin = format!("unix:{}", path("admin.sock"));
        let flags = [
            ["--cluster-name", name],
            ["--cluster-id", id],
            ["--source", &source],
            ["--store", &etcd.url],
            ["--tls-dir", &path("tls")],
            ["--peers-dir", &path("peers")],
            ["--health-listen", &health],
            ["--admin-listen", &admin],
        ];
        let line = std::iter::once("tombolo-apiserver").chain(flags.into_iter().flatten());
        let config = Args::parse_from(line).validate().unwrap();
        Some(Self { etcd, health, config })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.etcd.dir().join(name)
    }

    /// The source is one Service with one endpoint, and the node it is on.
    fn serve(&self, service: &str, endpoint: &str) {
        let text = MANIFESTS.replace("SERVICE", service).replace("ENDPOINT", endpoint);
        fs::write(self.file("source/.tmp"), text).unwrap();
        fs::rename(self.file("source/.tmp"), self.file("source/all.yaml")).unwrap();
    }

    /// The source also is these Pods: name, label `app`, address.
    fn run_pods(&self, pods: &[(&str, &str, &str)]) {
        let text: String = pods.iter().map(|(name, app, ip)| {
            format!(
                "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {app}, pod-template-hash: x}}}}\n\
                 spec: {{containers: [{{ports: [{{name: http, containerPort: 8080}}]}}]}}\n\
                 status: {{phase: Running, podIPs: [{{ip: {ip}}}], hostIP: 192.0.2.1}}\n"
            )
        }).collect();
        fs::write(self.file("source/.pods"), text).unwrap();
        fs::rename(self.file("source/.pods"), self.file("source/pods.yaml")).unwrap();
    }

    fn connect(&self, peer: &Self) {
        let file = |name: &str| self.file("tls").join(name).display().to_string();
        let config = format!(
            "endpoints:\n- {}\ntrusted-ca-file: {}\ncert-file: {}\nkey-file: {}\n",
            peer.etcd.url,
            file("ca.crt"),
            file("remote.crt"),
            file("remote.key")
        );
        fs::write(self.file("peers").join(peer.config.cluster.as_str()), config).unwrap();
    }

    async fn is_ready(&self) -> String {
        let ready = async || get(&self.health, "/readyz").await.filter(|answer| answer.starts_with("HTTP/1.1 200"));
        match wait_for(LIMIT, ready).await {
            Some(answer) => answer,
            None => panic!("not ready: {:?}", get(&self.health, "/readyz").await),
        }
    }
}

const MANIFESTS: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: SERVICE, annotations: {service.cilium.io/global: "true"}}
spec: {clusterIP: 10.96.0.7, ports: [{name: http, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: SERVICE-1, labels: {kubernetes.io/service-name: SERVICE}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints: [{addresses: [ENDPOINT], conditions: {ready: true}, nodeName: n1}]
---
apiVersion: v1
kind: Node
metadata: {name: n1, labels: {topology.kubernetes.io/zone: z1}}
spec: {}
status: {addresses: [{type: InternalIP, address: 192.0.2.1}]}
"#;

/// What must be in the store, and nothing else.
const KEYS: [&str; 19] = [
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
    "tombolo/v1/agents/peers/ne",
    "tombolo/v1/agents/services/default/rebel-base",
    "tombolo/v1/agents/synced/we",
    "tombolo/v1/control/nodes/n1",
    "tombolo/v1/control/refused/ne",
];

/// Everything under a prefix, as the admin sees it.
async fn read(store: &StoreConfig, prefix: &str, tasks: &TaskTracker) -> Vec<(String, bytes::Bytes)> {
    let watches = vec![Watch { prefix: prefix.to_owned(), canary: None }];
    let spec = SessionSpec { store: store.clone(), heartbeat: None, first: None, watches };
    let done = CancellationToken::new();
    let mut events = session(spec, tasks, done.clone());
    let mut found = Vec::new();
    while let Some(event) = events.recv().await {
        match event {
            SessionEvent::Delta { upserts, .. } => found.extend(upserts),
            SessionEvent::Listed { .. } => break,
            _ => {}
        }
    }
    done.cancel();
    found
}

async fn keys(store: &StoreConfig, prefix: &str, tasks: &TaskTracker) -> Vec<String> {
    read(store, prefix, tasks).await.into_iter().map(|(key, _)| key).collect()
}

/// The addresses that a cluster's agents get from its peers.
async fn mirrored(store: &StoreConfig, tasks: &TaskTracker) -> Vec<String> {
    let mut addresses = Vec::new();
    for (key, value) in read(store, "tombolo/v1/agents/mesh/", tasks).await {
        if let OwnRecord::Mesh(mesh) = own::decode(&own::parse_key(&key).unwrap(), &value).unwrap() {
            addresses.extend(mesh.slice.endpoints.iter().map(|e| format!("{} doubtful {}", e.addr, e.doubtful)));
        }
    }
    addresses
}

fn run<F: Future>(test: F) -> F::Output {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(test)
}

#[test]
fn a_started_apiserver_is_ready_and_has_written_everything() {
    let Some(we) = Cluster::new("we", "2", &authority()) else { return };
    we.serve("rebel-base", "10.2.0.1");
    let unreachable = "endpoints:\n- https://127.0.0.1:9\ntrusted-ca-file: ca\ncert-file: c\nkey-file: k\n";
    fs::write(we.file("peers/ne"), unreachable).unwrap();
    run(async {
        let (tasks, cancel) = (TaskTracker::new(), CancellationToken::new());
        let running = tasks.spawn(app::run(we.config.clone(), cancel.clone()));
        let answer = we.is_ready().await;
        assert!(answer.contains("peer ne: connecting"), "{answer}");
        let store = &we.config.store;
        let mut found = [keys(store, "cilium/", &tasks).await, keys(store, "tombolo/", &tasks).await].concat();
        found.sort();
        assert_eq!(found, KEYS);
        let metrics = get(&we.health, "/metrics").await.unwrap();
        assert!(metrics.contains("tombolo_apiserver_exported_services 1"), "{metrics}");
        we.serve("hoth", "10.2.0.1");
        let moved = wait_for(LIMIT, async || {
            let services = keys(store, "cilium/state/services/", &tasks).await;
            (services == ["cilium/state/services/v1/we/default/hoth"]).then_some(())
        });
        assert!(moved.await.is_some(), "an edit reaches the store");
        cancel.cancel();
        running.await.unwrap().unwrap();
        assert!(!keys(store, "cilium/state/", &tasks).await.is_empty(), "nothing is deleted at the end");
    });
}

/// The last good version of a file that is broken when the program starts is in the store, and stays there.
#[test]
fn a_file_broken_at_start_costs_nothing_that_an_earlier_life_wrote() {
    let Some(we) = Cluster::new("we", "2", &authority()) else { return };
    we.serve("rebel-base", "10.2.0.1");
    run(async {
        let tasks = TaskTracker::new();
        let start = async || {
            let cancel = CancellationToken::new();
            let running = tasks.spawn(app::run(we.config.clone(), cancel.clone()));
            we.is_ready().await;
            (cancel, running)
        };
        let services = async || keys(&we.config.store, "cilium/state/services/", &tasks).await;
        let (cancel, running) = start().await;
        cancel.cancel();
        running.await.unwrap().unwrap();
        fs::write(we.file("source/all.yaml"), "kind: Service\nmetadata: {name: [}").unwrap();
        let (cancel, running) = start().await;
        assert_eq!(services().await, ["cilium/state/services/v1/we/default/rebel-base"]);
        we.serve("hoth", "10.2.0.1");
        let mended =
            wait_for(LIMIT, async || (services().await == ["cilium/state/services/v1/we/default/hoth"]).then_some(()));
        assert!(mended.await.is_some(), "once all can be read, what was not said is gone: {:?}", services().await);
        cancel.cancel();
        running.await.unwrap().unwrap();
    });
}

/// Identities and addresses in a cluster's store, as text.
async fn members(cluster: &Cluster, tasks: &TaskTracker) -> Vec<String> {
    let mut found = read(&cluster.config.store, "cilium/state/identities/", tasks).await;
    found.extend(read(&cluster.config.store, "cilium/state/ip/", tasks).await);
    found.into_iter().map(|(key, value)| format!("{key} {}", String::from_utf8_lossy(&value))).collect()
}

const IDENTITY: &str = "cilium/state/identities/v1/id/131073 k8s:app=y-wing;k8s:io.cilium.k8s.policy.cluster=we;\
    k8s:io.cilium.k8s.policy.serviceaccount=default;k8s:io.kubernetes.pod.namespace=default;";
const ADDRESS: &str = r#"cilium/state/ip/v1/default/10.2.0.8 {"IP":"10.2.0.8","Mask":null,"HostIP":"192.0.2.1","ID":131073,"Key":0,"Metadata":"","K8sNamespace":"default","K8sPodName":"y","K8sServiceAccount":"default","NamedPorts":[{"Name":"http","Port":8080,"Protocol":"TCP"}]}"#;

#[test]
fn identities_and_addresses_keep_their_numbers_over_a_restart() {
    let Some(mut we) = Cluster::new("we", "2", &authority()) else { return };
    we.config.state_dir = Some(we.file("state"));
    we.serve("rebel-base", "10.2.0.1");
    we.run_pods(&[("x", "x-wing", "10.2.0.7"), ("y", "y-wing", "10.2.0.8")]);
    run(async {
        let tasks = TaskTracker::new();
        let (cancel, dead) = (CancellationToken::new(), CancellationToken::new());
        let dying = tasks.spawn(app::run(we.config.clone(), dead.clone()));
        we.is_ready().await;
        let found = members(&we, &tasks).await;
        assert_eq!(found.len(), 4, "{found:#?}");
        assert!(found.iter().any(|record| record == IDENTITY), "{found:#?}");
        assert!(found.iter().any(|record| record == ADDRESS), "{found:#?}");
        let kept = async || fs::read_to_string(we.file("state/identities.json")).ok();
        let kept = wait_for(LIMIT, async || kept().await.filter(|text| text.contains("131073"))).await;
        assert!(kept.is_some_and(|text| text.contains("k8s:app=y-wing;")), "the file keeps it");
        dead.cancel();
        dying.await.unwrap().unwrap();
        we.run_pods(&[("y", "y-wing", "10.2.0.8")]);
        let living = tasks.spawn(app::run(we.config.clone(), cancel.clone()));
        we.is_ready().await;
        let same = async || (members(&we, &tasks).await == [IDENTITY, ADDRESS]).then_some(());
        assert!(wait_for(LIMIT, same).await.is_some(), "{:#?}", members(&we, &tasks).await);
        cancel.cancel();
        living.await.unwrap().unwrap();
    });
}

/// What agents are told of `ne`, and which of its endpoints they get.
async fn told(we: &Cluster, tasks: &TaskTracker) -> (Option<u64>, Vec<String>) {
    let key = "tombolo/v1/agents/peers/ne";
    let peer = read(&we.config.store, "tombolo/v1/agents/peers/", tasks).await;
    let state = peer.iter().find_map(|(_, value)| match own::decode(&own::parse_key(key).unwrap(), value).unwrap() {
        OwnRecord::Peer(state) => Some(state.silent_ms),
        _ => None,
    });
    (state, mirrored(&we.config.store, tasks).await)
}

#[test]
fn leases_that_end_while_a_peer_is_dead_take_nothing_away() {
    let authority = authority();
    let (Some(we), Some(mut ne)) = (Cluster::new("we", "2", &authority), Cluster::new("ne", "1", &authority)) else {
        return;
    };
    ne.config.lease_ttl = Duration::from_secs(5);
    we.serve("rebel-base", "10.2.0.1");
    ne.serve("rebel-base", "10.1.0.1");
    we.connect(&ne);
    run(async {
        let tasks = TaskTracker::new();
        let (cancel, dead) = (CancellationToken::new(), CancellationToken::new());
        let living = tasks.spawn(app::run(we.config.clone(), cancel.clone()));
        let dying = tasks.spawn(app::run(ne.config.clone(), dead.clone()));
        let sees = async |silent: Option<u64>, expected: &str| {
            let wanted = (silent, vec![expected.to_owned()]);
            let same = async || (told(&we, &tasks).await == wanted).then_some(());
            assert!(wait_for(LIMIT, same).await.is_some(), "{wanted:?}: {:?}", told(&we, &tasks).await);
        };
        we.is_ready().await;
        sees(Some(0), "10.1.0.1 doubtful false").await;
        dead.cancel();
        dying.await.unwrap().unwrap();
        sees(Some(u64::MAX), "10.1.0.1 doubtful true").await;
        let gone = keys(&ne.config.store, "cilium/state/", &tasks).await;
        assert_eq!(gone, Vec::<String>::new(), "the leases have ended");
        let again = tasks.spawn(app::run(ne.config.clone(), cancel.clone()));
        sees(Some(0), "10.1.0.1 doubtful false").await;
        cancel.cancel();
        again.await.unwrap().unwrap();
        living.await.unwrap().unwrap();
    });
}

/// The peer's file breaks, and an endpoint becomes unready, while the program is dead.
#[test]
fn what_an_earlier_life_knew_outlives_it() {
    let authority = authority();
    let (Some(we), Some(ne)) = (Cluster::new("we", "2", &authority), Cluster::new("ne", "1", &authority)) else {
        return;
    };
    we.serve("rebel-base", "10.2.0.1");
    ne.serve("rebel-base", "10.1.0.1");
    we.connect(&ne);
    run(async {
        let tasks = TaskTracker::new();
        let (cancel, dead) = (CancellationToken::new(), CancellationToken::new());
        let peer = tasks.spawn(app::run(ne.config.clone(), cancel.clone()));
        let dying = tasks.spawn(app::run(we.config.clone(), dead.clone()));
        let sees = async |expected: &str| {
            let same = async || (mirrored(&we.config.store, &tasks).await == [expected]).then_some(());
            assert!(wait_for(LIMIT, same).await.is_some(), "{:?}", mirrored(&we.config.store, &tasks).await);
        };
        sees("10.1.0.1 doubtful false").await;
        dead.cancel();
        dying.await.unwrap().unwrap();
        let text = fs::read_to_string(we.file("source/all.yaml")).unwrap();
        fs::write(we.file("source/all.yaml"), text.replace("ready: true", "ready: false")).unwrap();
        let good = fs::read_to_string(we.file("peers/ne")).unwrap();
        fs::write(we.file("peers/ne"), "endpoints: 7\n").unwrap();
        let living = tasks.spawn(app::run(we.config.clone(), cancel.clone()));
        sees("10.1.0.1 doubtful true").await;
        let local = read(&we.config.store, "tombolo/v1/agents/local/", &tasks).await;
        let OwnRecord::Local(slice) = own::decode(&own::parse_key(&local[0].0).unwrap(), &local[0].1).unwrap() else {
            panic!("{local:?}");
        };
        let endpoint = &slice.endpoints[0];
        assert!(endpoint.was_ready && endpoint.state != BackendState::Active, "{endpoint:?}");
        fs::write(we.file("peers/ne"), good).unwrap();
        sees("10.1.0.1 doubtful false").await;
        cancel.cancel();
        living.await.unwrap().unwrap();
        peer.await.unwrap().unwrap();
    });
}

async fn status(cluster: &Cluster, certificate: &Path) -> Result<String, String> {
    let url = format!("unix:{}", cluster.file("admin.sock").display());
    let tls = tombolo_certs::TlsFiles {
        ca: cluster.file("tls/ca.crt"),
        cert: certificate.with_extension("crt"),
        key: certificate.with_extension("key"),
    };
    let name = format!("{}.mesh.cilium.io", cluster.config.cluster);
    let channel = admin_channel(&url, Some(&tls), Some(&name)).await.map_err(|e| e.to_string())?;
    let status = ApiserverClient::new(channel).status().await.map_err(|e| e.to_string())?;
    Ok(format!("{} {:?}", status.cluster, status.peers.iter().map(|p| (&p.name, p.state.session)).collect::<Vec<_>>()))
}

#[test]
fn a_peers_endpoints_come_change_and_go_with_it() {
    let authority = authority();
    let (Some(we), Some(ne)) = (Cluster::new("we", "2", &authority), Cluster::new("ne", "1", &authority)) else {
        return;
    };
    we.serve("rebel-base", "10.2.0.1");
    ne.serve("rebel-base", "10.1.0.1");
    we.connect(&ne);
    run(async {
        let (tasks, cancel) = (TaskTracker::new(), CancellationToken::new());
        let ending = [&we, &ne].map(|cluster| tasks.spawn(app::run(cluster.config.clone(), cancel.clone())));
        let sees = async |expected: &[&str]| {
            let same = async || (mirrored(&we.config.store, &tasks).await == expected).then_some(());
            assert!(wait_for(LIMIT, same).await.is_some(), "{:?}", mirrored(&we.config.store, &tasks).await);
        };
        we.is_ready().await;
        sees(&["10.1.0.1 doubtful false"]).await;
        let listed = wait_for(LIMIT, async || we.is_ready().await.contains("peer ne: ready").then_some(()));
        assert!(listed.await.is_some(), "a peer that is ready is shown so");
        assert_eq!(status(&we, &we.file("tls/admin")).await.unwrap(), r#"we [(ClusterName("ne"), Ready)]"#);
        let refused = status(&we, &we.file("tls/remote")).await.unwrap_err();
        assert!(refused.contains("admin-we"), "{refused}");
        ne.serve("rebel-base", "10.1.0.2");
        sees(&["10.1.0.2 doubtful false"]).await;
        ne.serve("rebel-base", "169.254.169.254");
        sees(&[]).await;
        ne.serve("rebel-base", "10.1.0.3");
        sees(&["10.1.0.3 doubtful false"]).await;
        fs::write(we.file("peers/.disconnected-ne"), "").unwrap();
        fs::remove_file(we.file("peers/ne")).unwrap();
        sees(&[]).await;
        let forgotten = wait_for(LIMIT, async || (!we.is_ready().await.contains("peer ne")).then_some(()));
        assert!(forgotten.await.is_some(), "a peer that left is not shown");
        cancel.cancel();
        for ended in ending {
            ended.await.unwrap().unwrap();
        }
    });
}

#[test]
fn the_program_ends_with_its_mistake_when_a_port_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    certificates(&path("tls"), "ne", &authority());
    fs::create_dir(path("source")).unwrap();
    fs::create_dir(path("peers")).unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut program = std::process::Command::new(env!("CARGO_BIN_EXE_tombolo-apiserver"));
    program.args(["--cluster-name", "ne", "--cluster-id", "1", "--store", "https://127.0.0.1:1"]);
    program.args(["--health-listen", &address, "--source", &format!("dir:{}", path("source").display())]);
    program.arg("--tls-dir").arg(path("tls")).arg("--peers-dir").arg(path("peers"));
    program.arg("--admin-listen").arg(format!("unix:{}", path("admin.sock").display()));
    let mut child = program.stderr(std::process::Stdio::piped()).spawn().unwrap();
    let ended = run(wait_for(LIMIT, async || child.try_wait().unwrap()));
    child.kill().ok();
    let said = child.wait_with_output().unwrap();
    assert!(ended.is_some_and(|status| !status.success()), "it still runs");
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains(&address), "{said}");
}
