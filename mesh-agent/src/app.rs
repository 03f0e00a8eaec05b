//! Builds everything, binds, then runs until a signal or until an essential task ends.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use arc_swap::ArcSwap;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tombolo_core::mesh::Mesh;
use tombolo_core::own::OwnKey;
use tombolo_core::plan::Tables;
use tombolo_core::tables::BackendId;
use tombolo_store::listen::{ListenAddr, Listener};
use tombolo_store::{SessionSpec, StoreConfig, Watch};
use tombolo_wire::own;

use crate::accounts::Accounts;
use crate::admin::Admin;
use crate::clock::{self, Clock};
use crate::config::Config;
use crate::datapath::{self, Opened};
use crate::driver::{Before, Begin, Channels, Driver, GoodFor};
use crate::flows::{self, FlowLog, Teller};
use crate::health::{self, Metrics, Readiness};
use crate::reaper;
use crate::snapshot::{self, Snapshot};

/// Questions and tickets that may wait.
const QUEUE: usize = 64;

/// A snapshot that is older fills no tables.
const SNAPSHOT_AGE: Duration = Duration::from_secs(24 * 3_600);

/// Runs the agent on a runtime of its own.
pub fn run(config: Config) -> Result<()> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("tombolo-agent")
        .enable_all()
        .build()
        .context("starting the runtime")?
        .block_on(serve(config))
}

async fn serve(config: Config) -> Result<()> {
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let Opened { executor, kind, sockets, flows: events, remarks } = datapath::open(&config)?;
    let mut registry = Registry::with_prefix("tombolo_agent");
    let metrics = Metrics::register(&mut registry);
    let readiness = Arc::new(ArcSwap::from_pointee(Readiness { blockers: vec!["starting".to_owned()] }));

    let (ask, questions) = mpsc::channel(QUEUE);
    let (retired, retired_in) = mpsc::channel(QUEUE);
    let (grace_done, grace_over) = mpsc::channel(QUEUE);
    let (reap, handed) = mpsc::channel(QUEUE);
    let (skips_changed, skips) = mpsc::channel(1);
    tasks.spawn(reaper::reap(sockets, handed, reaper::Metrics::register(&mut registry)));
    let skip_cgroups = config.kernel.iter().flat_map(|kernel| kernel.skip_cgroups.clone()).collect();
    tasks.spawn(datapath::watch_cgroups(skip_cgroups, skips_changed, stop.clone()));
    let admin = Listener::bind(&ListenAddr::Unix(config.admin_socket.clone()), None).await.context("--admin-socket")?;
    let flows = FlowLog::default();
    if let Some(events) = events {
        let metrics = flows::Metrics::register(&mut registry);
        let teller = Teller::new(events, ask.clone(), flows.clone(), config.flow_rate, metrics);
        tasks.spawn(teller.context("waiting for flow events")?.run(stop.clone()));
    }
    serve_admin(admin, Admin { ask: ask.clone(), flows: flows.clone() }, &tasks, &stop);
    if let Some(address) = config.health_listen {
        let listener = TcpListener::bind(address).await.with_context(|| format!("binding health to {address}"))?;
        let router = health::router(readiness.clone(), registry, ask);
        let stopped = stop.clone().cancelled_owned();
        tasks.spawn(async move { axum::serve(listener, router).with_graceful_shutdown(stopped).await });
    }
    tasks.spawn(datapath::grace(kind, retired_in, grace_done));
    let session = tombolo_store::session(session_spec(&config), &tasks, stop.clone());

    let mesh = Mesh::new(config.node.clone(), config.cluster.clone(), config.id);
    let found = executor.contents().context("reading what the maps hold")?;
    let (tables, repairs) = Tables::adopt(config.limits, &found, BackendId(clock::boot_nanos()));
    tracing::info!(
        cluster = %config.cluster,
        node = %config.node,
        datapath = kind.as_str(),
        frontends = found.services.len(),
        repairs = repairs.ops.len(),
        "started on what the maps hold"
    );
    let (save, saves) = mpsc::channel(1);
    let frame = frame(&config);
    let before = before(&config, &frame);
    tasks.spawn(snapshot::save(config.state_dir.clone(), frame, saves));
    let close_tcp_after = config.close_tcp_after;
    let accounts = Accounts::new(config.metrics_services);
    let begin = Begin { mesh, before, tables, repairs, datapath: executor, kind, close_tcp_after, remarks, accounts };
    let mut driver = Driver::new(begin, Clock::start(), readiness, metrics);
    let channels = Channels { session, grace_over, retired, questions, skips, reap, save };
    // A signal lets the driver end in its own time: it has a snapshot to hand over.
    let running = async {
        let ended = driver.run(channels, stop.clone()).await;
        stop.cancel();
        ended
    };
    let told = async {
        let told = terminated(&stop).await;
        stop.cancel();
        told
    };
    let (ended, told) = tokio::join!(running, told);
    let outcome = ended.map_err(anyhow::Error::from).and(told);
    flows.close();
    tasks.close();
    tasks.wait().await;
    tracing::info!("stopped");
    outcome
}

/// One watch on what all agents share, and one on this node's own key.
fn session_spec(config: &Config) -> SessionSpec {
    let watch = |prefix: String| Watch { prefix, canary: None };
    SessionSpec {
        store: StoreConfig::from(config.store.clone()),
        heartbeat: Some(own::key_to_string(&OwnKey::Heartbeat)),
        first: None,
        watches: vec![watch(own::AGENTS.to_owned()), watch(own::key_to_string(&OwnKey::Node(config.node.clone())))],
    }
}

fn serve_admin(listener: Listener, admin: Admin, tasks: &TaskTracker, stop: &CancellationToken) {
    let service = tombolo_wire::admin::agent_service(Arc::new(admin));
    let incoming = listener.incoming(tasks, stop.clone());
    let server = tonic::transport::Server::builder().add_service(service);
    let served = server.serve_with_incoming_shutdown(incoming, stop.clone().cancelled_owned());
    tasks.spawn(async move {
        if let Err(error) = served.await {
            tracing::error!(%error, "the admin server ended");
        }
    });
}

/// What is the same in all snapshots of this life.
fn frame(config: &Config) -> Snapshot {
    Snapshot {
        cluster: config.cluster.to_string(),
        node: config.node.to_string(),
        boot_id: clock::boot_id(),
        unix_ms: 0,
        entries: Vec::new(),
    }
}

/// What an earlier life left for this one. A snapshot that cannot be used is said, and costs nothing else.
fn before(config: &Config, frame: &Snapshot) -> Option<Before> {
    let snapshot = match snapshot::read(&config.state_dir) {
        Ok(snapshot) => snapshot?,
        Err(error) => {
            tracing::warn!(%error, "starting without a snapshot");
            return None;
        }
    };
    let folder = config.state_dir.display();
    if (&snapshot.cluster, &snapshot.node) != (&frame.cluster, &frame.node) {
        let Snapshot { cluster, node, .. } = &snapshot;
        tracing::warn!(%folder, cluster, node, "the snapshot is of another node: starting without it");
        return None;
    }
    let age = Duration::from_millis(clock::unix_ms().saturating_sub(snapshot.unix_ms));
    let of_this_boot = !frame.boot_id.is_empty() && snapshot.boot_id == frame.boot_id;
    let good_for = if of_this_boot && age < SNAPSHOT_AGE { GoodFor::Tables } else { GoodFor::Answers };
    tracing::info!(%folder, age_s = age.as_secs(), of_this_boot, records = snapshot.entries.len(), "a snapshot is here");
    Some(Before { entries: snapshot.entries, unix_ms: snapshot.unix_ms, good_for })
}

/// Waits for SIGTERM or Ctrl-C, or until the agent stops for another reason.
async fn terminated(stop: &CancellationToken) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = stop.cancelled() => {}
    }
    Ok(())
}
