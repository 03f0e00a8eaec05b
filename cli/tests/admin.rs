//! The program against real admin servers: mTLS to an apiserver over a socket and over TCP, plain sockets to agents.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use expect_test::expect;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tombolo_certs::{Role, TlsFiles};
use tombolo_core::id::{ClusterId, ClusterName, MaxClusters, ServiceKey};
use tombolo_core::model::{BackendKey, BackendState, Frontend, Policy, Protocol, Reach};
use tombolo_core::own::{PeerCounts, PeerSession, PeerState, RefusedReport};
use tombolo_core::report::{
    AgentStatus, ApiserverStatus, BackendExplanation, Explanation, Flow, FlowsRequest, FrontendExplanation,
    FrontendView, PeerStatus, ServiceView, SlotView,
};
use tombolo_core::tables::SwitchEntry;
use tombolo_store::listen::{ListenAddr, Listener};
use tombolo_wire::admin::{AgentAdmin, ApiserverAdmin, Stopping, agent_service, apiserver_service};
use tonic::transport::Server;

fn name(text: &str) -> ClusterName {
    ClusterName::new(text).unwrap()
}

fn id(n: u32) -> ClusterId {
    ClusterId::new(n, MaxClusters::C255).unwrap()
}

fn peer(session: PeerSession) -> PeerState {
    let counts = PeerCounts { services: 1, endpoints: 1, nodes: 2, identities: 1, addresses: 1, refused: 0 };
    PeerState {
        id: Some(id(2)),
        session,
        silent_ms: 900,
        stale_after_ms: 30_000,
        least_stale_ms: 12_500,
        detail: String::new(),
        counts,
    }
}

/// An apiserver whose peer becomes ready at the third question.
#[derive(Default)]
struct Apiserver(AtomicU32);

impl ApiserverAdmin for Apiserver {
    fn status(&self) -> ApiserverStatus {
        let asked = self.0.fetch_add(1, Ordering::Relaxed);
        let session = if asked < 2 { PeerSession::Connecting } else { PeerSession::Ready };
        let peers = vec![PeerStatus {
            name: name("we"),
            state: peer(session),
            refused: RefusedReport::default(),
            unused_imports: vec![],
        }];
        ApiserverStatus {
            cluster: name("ne"),
            id: id(1),
            version: "0.1.0".into(),
            uptime_s: 5,
            blockers: vec![],
            peers,
            faults: vec![],
            exported_services: 1,
            exported_endpoints: 1,
            exported_identities: 1,
            exported_addresses: 1,
            store_connected: true,
        }
    }
}

struct Agent(&'static str);

impl Agent {
    fn frontend() -> Frontend {
        Frontend { addr: "10.96.0.10".parse().unwrap(), port: 80, protocol: Protocol::Tcp }
    }

    fn backend() -> BackendKey {
        BackendKey { addr: "10.2.0.5".parse().unwrap(), port: 8080, protocol: Protocol::Tcp, cluster: id(2) }
    }

    fn service() -> ServiceKey {
        ServiceKey::new("default", "rebel-base")
    }

    fn policy() -> Policy {
        Policy { reach: Reach::Mesh, ..Policy::default() }
    }
}

impl AgentAdmin for Agent {
    type Flows = tokio_stream::Empty<Flow>;

    async fn status(&self) -> Result<AgentStatus, Stopping> {
        Ok(AgentStatus {
            node: self.0.into(),
            cluster: name("ne"),
            version: "0.1.0".into(),
            uptime_s: 5,
            datapath: "none".into(),
            store_connected: true,
            heartbeat_age_ms: Some(300),
            synced: true,
            blockers: vec![],
            remarks: vec![],
            peers: vec![(name("we"), peer(PeerSession::Ready))],
            frontends: 1,
            backends: 1,
            plans: 1,
        })
    }

    async fn services(&self) -> Result<Vec<ServiceView>, Stopping> {
        let slot = SlotView { backend: Self::backend(), cluster: name("we"), slots: 1, connects: None };
        let switch = SwitchEntry { base: 4, count: 1, generation: 2 };
        let backends = vec![slot];
        let frontend = FrontendView { frontend: Self::frontend(), switch, backends, connects: None, refused: None };
        let frontends = vec![frontend];
        Ok(vec![ServiceView { service: Self::service(), policy: Self::policy(), frontends }])
    }

    async fn explain(&self, service: &ServiceKey) -> Result<Option<Explanation>, Stopping> {
        let backend = BackendExplanation {
            backend: Self::backend(),
            cluster: name("we"),
            state: BackendState::Active,
            node: None,
            zone: None,
            doubtful: false,
            rule: "kept".into(),
            share: 1.0,
            revision: 9,
            age_ms: 100,
        };
        let frontend = FrontendExplanation {
            frontend: Self::frontend(),
            round: "active".into(),
            backends: vec![backend],
            installed: true,
        };
        Ok((*service == Self::service()).then(|| Explanation {
            service: service.clone(),
            node: self.0.into(),
            cluster: name("ne"),
            policy: Self::policy(),
            frontends: vec![frontend],
            notes: vec![],
        }))
    }

    async fn flows(&self, _request: FlowsRequest) -> Result<Self::Flows, Stopping> {
        Ok(tokio_stream::empty())
    }
}

/// Servers of cluster `ne` in a temporary directory, which end with it.
struct Cluster {
    dir: tempfile::TempDir,
    tasks: TaskTracker,
    cancel: CancellationToken,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl Cluster {
    fn new(admin: &str) -> Self {
        let cluster =
            Self { dir: tempfile::tempdir().unwrap(), tasks: TaskTracker::new(), cancel: CancellationToken::new() };
        cluster.run("certs init --dir ca");
        let nodes = "--node n1=run/n1.sock --node n2=run/n2.sock";
        cluster.run(&format!("init ne --name ne --id 1 --ca ca --store https://10.0.0.1:2379 --admin {admin} {nodes}"));
        cluster.run("init we --name we --id 2 --ca ca --store https://10.0.0.2:2379");
        cluster.run("connect --cluster ne --destination we");
        cluster
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn run(&self, args: &str) -> (i32, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tombolo"));
        command.args(args.split(' ')).current_dir(self.dir.path()).env_remove("TOMBOLO_CLUSTER");
        let output = command.output().unwrap();
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
        let place = std::fs::canonicalize(self.dir.path()).unwrap().display().to_string();
        (output.status.code().unwrap(), text.replace(&format!("{place}/"), ""))
    }

    async fn apiserver(&self, listener: Listener) {
        let incoming = listener.incoming(&self.tasks, self.cancel.clone());
        let service = apiserver_service(Arc::new(Apiserver::default()));
        let server = Server::builder().add_service(service);
        let until = self.cancel.clone().cancelled_owned();
        self.tasks.spawn(async move { server.serve_with_incoming_shutdown(incoming, until).await.unwrap() });
    }

    async fn agent(&self, node: &'static str) {
        let at = ListenAddr::Unix(self.path("ne/run").join(format!("{node}.sock")));
        let incoming = Listener::bind(&at, None).await.unwrap().incoming(&self.tasks, self.cancel.clone());
        let server = Server::builder().add_service(agent_service(Arc::new(Agent(node))));
        let until = self.cancel.clone().cancelled_owned();
        self.tasks.spawn(async move { server.serve_with_incoming_shutdown(incoming, until).await.unwrap() });
    }

    fn server_tls(&self) -> TlsFiles {
        TlsFiles::of(&self.path("ne/tls"), Role::Server)
    }
}

fn cluster_yaml(dir: &Path) -> String {
    std::fs::read_to_string(dir.join("cluster.yaml")).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn status_waits_until_all_are_connected() {
    let cluster = Cluster::new("unix:run/apiserver.sock");
    let at = ListenAddr::Unix(cluster.path("ne/run/apiserver.sock"));
    cluster.apiserver(Listener::bind(&at, Some(cluster.server_tls())).await.unwrap()).await;
    cluster.agent("n1").await;
    cluster.agent("n2").await;
    let (code, text) = cluster.run("status --cluster ne");
    assert!(code == 1 && text.contains("peer we is connecting"), "{text}");
    let (code, text) = cluster.run("status --cluster ne --wait=30s");
    expect![[r#"
        🏝  ne (id 1)
           ✅ apiserver 0.1.0, up 5s, exports 1 service with 1 endpoint
           ✅ all 2 nodes are connected to all clusters
              NODE  DATAPATH  SYNCED  HEARTBEAT  FRONTENDS  BACKENDS  PLANS  UP
              n1    none      yes     0s ago     1          1         1      5s
              n2    none      yes     0s ago     1          1         1      5s
           🔌 1 peer:
              PEER  ID  SESSION  SILENT  SERVICES  ENDPOINTS  NODES  REFUSED  DETAIL
              we    2   ready    0s      1         1          2      0        -

        ✅ 1 cluster connected
    "#]]
    .assert_eq(&text);
    assert_eq!(code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_apiserver_is_asked_over_tcp_under_its_mesh_name() {
    let cluster = Cluster::new("https://127.0.0.1:1");
    let at = ListenAddr::Tcp("127.0.0.1:0".parse().unwrap());
    let listener = Listener::bind(&at, Some(cluster.server_tls())).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    cluster.apiserver(listener).await;
    let yaml = cluster_yaml(&cluster.path("ne")).replace("127.0.0.1:1", &format!("127.0.0.1:{port}"));
    std::fs::write(cluster.path("ne/cluster.yaml"), yaml).unwrap();
    let (code, text) = cluster.run("status --cluster ne -o json");
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["clusters"][0]["apiserver"]["answer"]["exported_services"], 1, "{text}");
    assert_eq!(code, 1, "the agents do not run");
    cluster.run("certs init --dir other");
    cluster.run("certs trust --dir ne/tls --ca other --only");
    let (_, text) = cluster.run("status --cluster ne");
    assert!(text.contains("their certificate"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn services_and_explanations_come_from_agents() {
    let cluster = Cluster::new("unix:run/apiserver.sock");
    cluster.agent("n2").await;
    let (code, text) = cluster.run("services --cluster ne");
    expect![[r#"
        ne node n1: no answer: unix:ne/run/n1.sock: no such file

        ne node n2:
          SERVICE             POLICY  FRONTEND           BACKENDS  BY CLUSTER  CONNECTS  REFUSED
          default/rebel-base  global  10.96.0.10:80/TCP  1         we 100 %    -         -
    "#]]
    .assert_eq(&text);
    assert_eq!(code, 1);
    let (code, text) = cluster.run("services --cluster ne --node n2 -o json");
    let json: BTreeMap<String, serde_json::Value> =
        serde_json::from_value(serde_json::from_str::<serde_json::Value>(&text).unwrap()[0].clone()).unwrap();
    assert_eq!((code, &json["cluster"], &json["node"]), (0, &"ne".into(), &"n2".into()));
    assert_eq!(json["answer"][0]["frontends"][0]["backends"][0]["cluster"], "we");
    let (code, text) = cluster.run("explain rebel-base --cluster ne");
    expect![[r#"
        default/rebel-base on node n2 of ne: global
          10.96.0.10:80/TCP, round: active, installed
               SHARE    BACKEND            CLUSTER  NODE  ZONE  STATE   RULE  REVISION  AGE
            ✓  100.0 %  10.2.0.5:8080/TCP  we       -     -     active  kept  9         0s
    "#]]
    .assert_eq(&text);
    assert_eq!(code, 0, "n2 speaks for the cluster");
    let (code, text) = cluster.run("explain default/x-wing --cluster ne --node n2");
    expect![[r#"
        default/x-wing is no global service in ne (node n2): does it exist there, with service.cilium.io/global: "true"?
    "#]]
    .assert_eq(&text);
    assert_eq!(code, 1);
}
