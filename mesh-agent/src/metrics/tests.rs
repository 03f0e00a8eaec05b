//! What a scraper reads from a whole agent without a kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use arc_swap::ArcSwap;
use expect_test::expect;
use prometheus_client::registry::Registry;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tombolo_core::id::{Addr, ClusterId, Epoch, MaxClusters, Revision, ServiceKey};
use tombolo_core::mesh::Mesh;
use tombolo_core::model::{BackendState, Endpoint, Port, Protocol, Reach, ServiceSpec, Slice};
use tombolo_core::own::{ClusterInfo, MeshSlice, OwnKey, OwnRecord, PeerCounts};
use tombolo_core::plan::Tables;
use tombolo_core::tables::{BackendId, Plan};
use tombolo_ebpf::MemoryDatapath;
use tombolo_store::SessionEvent;
use tombolo_wire::own;

use super::*;
use crate::accounts::Accounts;
use crate::clock::Clock;
use crate::config::DatapathKind;
use crate::driver::{Begin, Channels, Driver};
use crate::health::{self, Metrics, Readiness};

const DEADLINE: Duration = Duration::from_secs(60);

/// A running agent. What it says of the mesh stays as it is while this lives.
struct Agent {
    health: SocketAddr,
    _session: mpsc::Sender<SessionEvent>,
    _stop: tokio_util::sync::DropGuard,
}

impl Agent {
    /// An agent that heard of so many services, and names at most `most` in its metrics.
    async fn start(services: u32, most: usize) -> Self {
        let stop = CancellationToken::new();
        let (session, events) = mpsc::channel(8);
        let (ask, questions) = mpsc::channel(8);
        let (retired, grace) = mpsc::channel(8);
        let (grace_done, grace_over) = mpsc::channel(8);
        let (_, skips) = mpsc::channel(1);
        let (reap, _) = mpsc::channel(1);
        let (save, _) = mpsc::channel(1);
        let mut registry = Registry::with_prefix("tombolo_agent");
        let metrics = Metrics::register(&mut registry);
        let readiness = Arc::new(ArcSwap::from_pointee(Readiness::default()));
        let limits = Limits { services: 4_096, backends: 4_096, slots: 8_192, members: 16 };
        let begin = Begin {
            mesh: Mesh::new("n1".into(), name("ne"), id(1)),
            before: None,
            tables: Tables::new(limits, BackendId(1)),
            repairs: Plan::default(),
            datapath: Box::new(MemoryDatapath::new(limits)),
            kind: DatapathKind::None,
            close_tcp_after: None,
            remarks: Vec::new(),
            accounts: Accounts::new(most),
        };
        let tasks = TaskTracker::new();
        tasks.spawn(crate::datapath::grace(DatapathKind::None, grace, grace_done));
        let mut driver = Driver::new(begin, Clock::start(), readiness.clone(), metrics);
        let channels = Channels { session: events, grace_over, retired, questions, skips, reap, save };
        // A driver stays on its thread.
        let stopping = stop.clone();
        tasks.spawn_local(async move { driver.run(channels, stopping).await });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let health = listener.local_addr().unwrap();
        let router = health::router(readiness, registry, ask);
        let stopped = stop.clone().cancelled_owned();
        tasks.spawn(async move { axum::serve(listener, router).with_graceful_shutdown(stopped).await });
        for event in heard(services) {
            session.send(event).await.unwrap();
        }
        Self { health, _session: session, _stop: stop.drop_guard() }
    }

    async fn scrape(&self) -> String {
        let mut stream = TcpStream::connect(self.health).await.unwrap();
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.0 200") && head.contains("application/openmetrics-text"), "{head}");
        body.to_owned()
    }

    /// The first scrape after the first complete plan.
    async fn complete(&self, services: u32) -> String {
        let wanted = format!("tombolo_agent_table_entries{{table=\"services\"}} {services}.0\n");
        let complete = async {
            loop {
                let text = self.scrape().await;
                if text.contains(&wanted) {
                    return text;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(DEADLINE, complete).await.unwrap()
    }
}

fn name(text: &str) -> ClusterName {
    ClusterName::new(text).unwrap()
}

fn id(number: u32) -> ClusterId {
    ClusterId::new(number, MaxClusters::C255).unwrap()
}

/// A complete list of services, each with one backend of peer `we`, which is silent a little. The last service's is
/// doubtful.
fn heard(services: u32) -> Vec<SessionEvent> {
    let epoch = Epoch(1);
    let peer = PeerState {
        id: Some(id(2)),
        session: PeerSession::Lost,
        silent_ms: 4_500,
        stale_after_ms: 30_000,
        least_stale_ms: 12_500,
        detail: String::new(),
        counts: PeerCounts::default(),
    };
    let info = ClusterInfo { name: name("ne"), id: id(1), peers: vec![name("we")], pod_cidrs: vec![] };
    let mut records = vec![
        (OwnKey::Cluster, OwnRecord::Cluster(info)),
        (OwnKey::Peer(name("we")), OwnRecord::Peer(peer)),
        (OwnKey::Synced(name("ne")), OwnRecord::Synced(1)),
        (OwnKey::Synced(name("we")), OwnRecord::Synced(1)),
    ];
    records.extend((0..services).flat_map(|n| service(n, n + 1 == services)));
    let upserts = records.iter().map(|(key, record)| (own::key_to_string(key), own::encode(record))).collect();
    let (deletes, expired, revision) = (Vec::new(), Vec::new(), Revision(7));
    vec![
        SessionEvent::Connected { epoch },
        SessionEvent::Relisting { watch: 0, epoch },
        SessionEvent::Delta { watch: 0, epoch, revision, upserts, deletes, expired },
        SessionEvent::Listed { watch: 0, epoch, revision },
        SessionEvent::Heartbeat,
    ]
}

fn service(n: u32, doubtful: bool) -> [(OwnKey, OwnRecord); 2] {
    let key = ServiceKey::new("default", format!("s{n:04}"));
    let port = Port { name: "http".into(), protocol: Protocol::Tcp, number: 80 };
    let policy = Policy { reach: Reach::Mesh, ..Policy::default() };
    let cluster_ips = vec![Addr::from(Ipv4Addr::from_bits(0x0a60_0000 + n))];
    let spec = ServiceSpec { key: key.clone(), cluster_ips, ports: vec![port.clone()], policy };
    let endpoint = Endpoint {
        addr: Addr::from(Ipv4Addr::from_bits(0x0a02_0000 + n)),
        ports: [port].into(),
        state: BackendState::Active,
        was_ready: true,
        weight: 100,
        node: None,
        zone: None,
        hints: Box::default(),
        doubtful,
    };
    let slice = MeshSlice { cluster_id: id(2), revision: 3, slice: Slice { endpoints: vec![endpoint] } };
    let mesh = OwnKey::Mesh { service: key.clone(), cluster: name("we"), slice: "s".into() };
    [(OwnKey::Service(key), OwnRecord::Service(spec)), (mesh, OwnRecord::Mesh(slice))]
}

/// One sample: its metric, its labels and its value.
#[derive(Debug)]
struct Sample {
    metric: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

/// Reads the text format, and fails on whatever is not in it.
fn parse(text: &str) -> Vec<Sample> {
    let mut families: BTreeMap<&str, &str> = BTreeMap::new();
    let mut samples = Vec::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert_eq!(families.insert(name, kind), None, "{name} twice");
        } else if line == "# EOF" || line.starts_with("# HELP ") || line.starts_with("# UNIT ") {
        } else {
            let sample = sample(line);
            let base = ["_total", "_bucket", "_sum", "_count"].iter().find_map(|end| sample.metric.strip_suffix(end));
            let known = families.contains_key(sample.metric.as_str()) || base.is_some_and(|b| families.contains_key(b));
            assert!(known, "{line} has no type");
            samples.push(sample);
        }
    }
    assert!(text.ends_with("# EOF\n"), "the end is missing");
    samples
}

fn sample(line: &str) -> Sample {
    let word = |text: &str| {
        let ok = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        assert!(!text.is_empty() && text.chars().all(ok), "{text:?} in {line}");
        text.to_owned()
    };
    let (what, value) = line.rsplit_once(' ').unwrap();
    let (metric, labels) = match what.split_once('{') {
        Some((metric, labels)) => (metric, labels.strip_suffix('}').unwrap()),
        None => (what, ""),
    };
    let label = |text: &str| {
        let (name, value) = text.split_once("=\"").unwrap();
        (word(name), value.strip_suffix('"').unwrap().to_owned())
    };
    let labels = labels.split(',').filter(|text| !text.is_empty()).map(label).collect();
    Sample { metric: word(metric), labels, value: value.parse().unwrap() }
}

#[tokio::test]
async fn labels_are_bounded() {
    tokio::task::LocalSet::new().run_until(bounded()).await;
}

async fn bounded() {
    let agent = Agent::start(1_500, 1_000).await;
    let samples = parse(&agent.complete(1_500).await);
    let mut values: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for Sample { metric, labels, .. } in &samples {
        assert!(metric.starts_with("tombolo_agent_"), "{metric}");
        assert!(seen.insert((metric, labels)), "{metric} {labels:?} twice");
        for (label, value) in labels {
            values.entry(label.clone()).or_default().insert(value.clone());
        }
    }
    let services = values.remove("service").unwrap();
    assert_eq!(services.len(), 1_001);
    assert!(services.contains("_other") && services.contains("default/s0000"));
    values.remove("le").unwrap();
    expect![[r#"
        {
            "cluster": {
                "ne",
                "we",
            },
            "datapath": {
                "none",
            },
            "kind": {
                "affinity_full",
                "broken_table",
                "event_lost",
                "reverse_full",
                "unconnected_full",
            },
            "node": {
                "n1",
            },
            "table": {
                "backends",
                "members",
                "services",
                "slots",
            },
            "version": {
                "0.1.0",
            },
        }
    "#]]
    .assert_debug_eq(&values);
    let other = samples.iter().find(|s| s.metric == "tombolo_agent_service_round" && s.labels["service"] == "_other");
    assert_eq!(other.unwrap().value, 1.0, "the doubtful one has no name of its own");
}

#[tokio::test]
async fn a_whole_scrape() {
    tokio::task::LocalSet::new().run_until(whole()).await;
}

async fn whole() {
    let agent = Agent::start(2, 1_000).await;
    let text = agent.complete(2).await;
    parse(&text);
    let steady = |line: &&str| !line.contains("plan_duration_seconds_") && !line.contains("heartbeat_age_seconds ");
    let lines: Vec<&str> = text.lines().filter(steady).collect();
    expect![[r##"
        # HELP tombolo_agent_plans Plans carried out.
        # TYPE tombolo_agent_plans counter
        tombolo_agent_plans_total 1
        # HELP tombolo_agent_plan_operations Operations of the plans carried out.
        # TYPE tombolo_agent_plan_operations counter
        tombolo_agent_plan_operations_total 8
        # HELP tombolo_agent_plan_duration_seconds From what has changed to a plan carried out.
        # TYPE tombolo_agent_plan_duration_seconds histogram
        # HELP tombolo_agent_answered 1 when what the agent's task tells is of this scrape, 0 when it is what it told last.
        # TYPE tombolo_agent_answered gauge
        tombolo_agent_answered 1
        # HELP tombolo_agent_info This agent: always 1
        # TYPE tombolo_agent_info gauge
        tombolo_agent_info{node="n1",cluster="ne",datapath="none",version="0.1.0"} 1
        # HELP tombolo_agent_ready 1 when nothing keeps the agent from being ready
        # TYPE tombolo_agent_ready gauge
        tombolo_agent_ready 1.0
        # HELP tombolo_agent_store_connected 1 while the own store is connected
        # TYPE tombolo_agent_store_connected gauge
        tombolo_agent_store_connected 1.0
        # HELP tombolo_agent_services Global services
        # TYPE tombolo_agent_services gauge
        tombolo_agent_services 2.0
        # HELP tombolo_agent_service_connects Connections and first datagrams that were given a backend
        # TYPE tombolo_agent_service_connects counter
        tombolo_agent_service_connects_total{service="default/s0000"} 0
        tombolo_agent_service_connects_total{service="default/s0001"} 0
        tombolo_agent_service_connects_total{service="_other"} 0
        # HELP tombolo_agent_service_refused Those that found none
        # TYPE tombolo_agent_service_refused counter
        tombolo_agent_service_refused_total{service="default/s0000"} 0
        tombolo_agent_service_refused_total{service="default/s0001"} 0
        tombolo_agent_service_refused_total{service="_other"} 0
        # HELP tombolo_agent_service_round How far the selection had to go: 0 sure backends, 1 doubtful ones, 2 none serves
        # TYPE tombolo_agent_service_round gauge
        tombolo_agent_service_round{service="default/s0000"} 0.0
        tombolo_agent_service_round{service="default/s0001"} 1.0
        tombolo_agent_service_round{service="_other"} 0.0
        # HELP tombolo_agent_cluster_connects Connections and first datagrams, by the backend's cluster
        # TYPE tombolo_agent_cluster_connects counter
        tombolo_agent_cluster_connects_total{cluster="ne"} 0
        tombolo_agent_cluster_connects_total{cluster="we"} 0
        # HELP tombolo_agent_datapath_faults What correct tables and large enough maps never let happen
        # TYPE tombolo_agent_datapath_faults counter
        tombolo_agent_datapath_faults_total{kind="broken_table"} 0
        tombolo_agent_datapath_faults_total{kind="reverse_full"} 0
        tombolo_agent_datapath_faults_total{kind="unconnected_full"} 0
        tombolo_agent_datapath_faults_total{kind="affinity_full"} 0
        tombolo_agent_datapath_faults_total{kind="event_lost"} 0
        # HELP tombolo_agent_peer_ready 1 while the mirror has the peer listed and watched
        # TYPE tombolo_agent_peer_ready gauge
        tombolo_agent_peer_ready{cluster="we"} 0.0
        # HELP tombolo_agent_peer_stale 1 while the peer is stale for Services that set no time
        # TYPE tombolo_agent_peer_stale gauge
        tombolo_agent_peer_stale{cluster="we"} 0.0
        # HELP tombolo_agent_peer_silent_seconds The peer's silence when it last crossed a threshold that a Service uses; 0 while it is fresh
        # TYPE tombolo_agent_peer_silent_seconds gauge
        tombolo_agent_peer_silent_seconds{cluster="we"} 4.5
        # HELP tombolo_agent_table_entries Entries in use, those that wait for a grace period included
        # TYPE tombolo_agent_table_entries gauge
        tombolo_agent_table_entries{table="services"} 2.0
        tombolo_agent_table_entries{table="backends"} 2.0
        tombolo_agent_table_entries{table="slots"} 2.0
        tombolo_agent_table_entries{table="members"} 0.0
        # HELP tombolo_agent_table_limit Entries there is room for
        # TYPE tombolo_agent_table_limit gauge
        tombolo_agent_table_limit{table="services"} 4096.0
        tombolo_agent_table_limit{table="backends"} 4096.0
        tombolo_agent_table_limit{table="slots"} 8192.0
        tombolo_agent_table_limit{table="members"} 16.0
        # EOF
    "##]].assert_eq(&(lines.join("\n") + "\n"));
}
