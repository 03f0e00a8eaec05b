//! Puts the program together, and takes it apart again on a signal.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tombolo_core::export::ExporterConfig;
use tombolo_core::own::{OwnKey, OwnRecord};
use tombolo_source::directory;
use tombolo_store::listen::Listener;
use tombolo_store::{Writer, WriterSpec};
use tombolo_wire::cilium::{self, key};
use tombolo_wire::own;
use tracing::{Instrument, info_span};

use crate::config::Config;
use crate::driver::{self, Driver, Event, Outlets};
use crate::export::Export;
use crate::metrics::Metrics;
use crate::mirror::{Mirror, MirrorConfig};
use crate::view::Views;
use crate::{admin, clock, health, peers_dir, scopes, users};

/// How often the heartbeats are written.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// How long the end waits for tasks to finish.
const GRACE: Duration = Duration::from_secs(5);
/// Batches of the source that may wait for the driver.
const SOURCE_QUEUE: usize = 16;

/// Runs until `cancel` is cancelled, then ends in order; no key is deleted.
pub async fn run(config: Config, cancel: CancellationToken) -> Result<()> {
    clock::now();
    let tasks = TaskTracker::new();
    let views = Views::new(config.cluster.clone(), config.id, "starting");
    listen(&config, &views, &tasks, &cancel).await?;
    tracing::info!(cluster = %config.cluster, id = %config.id, "started");
    let peers = peers_dir::configured(&config.peers_dir, &config.cluster);
    let (users_state, users_seen) = watch::channel(users::UsersState::Unknown);
    // Before anything is written: in a store without users, anybody with a certificate may read and write everything.
    users::ensure(&config.store, &config.cluster, &peers, &users_state, &cancel).await;
    if !cancel.is_cancelled() {
        let shared = Arc::new(ArcSwap::from_pointee(peers.clone()));
        let writer = Writer::start(writer_spec(&config, Arc::clone(&shared)), &tasks, cancel.clone());
        let (wanted, wanted_seen) = watch::channel(peers);
        let follow = users::follow(
            config.store.clone(),
            config.cluster.clone(),
            wanted_seen,
            writer.subscribe(),
            users_state,
            cancel.clone(),
        );
        tasks.spawn(follow.instrument(info_span!("users")));
        let outlets = Outlets { writer, shared_peers: shared, users: wanted, users_state: users_seen, views };
        drive(&config, outlets, &tasks, &cancel);
    }
    cancel.cancelled().await;
    tasks.close();
    if tokio::time::timeout(GRACE, tasks.wait()).await.is_err() {
        tracing::warn!(tasks = tasks.len(), "some tasks did not end in time");
    }
    tracing::info!("ended");
    Ok(())
}

async fn listen(config: &Config, views: &Views, tasks: &TaskTracker, cancel: &CancellationToken) -> Result<()> {
    if let Some(addr) = config.health_listen {
        let listener = TcpListener::bind(addr).await.with_context(|| format!("--health-listen {addr}"))?;
        let serve = health::serve(listener, views.clone(), Metrics::new(), cancel.clone());
        tasks.spawn(report("health", serve));
    }
    if let Some(addr) = &config.admin_listen {
        let listener = Listener::bind(addr, Some(config.server_tls.clone())).await.context("--admin-listen")?;
        let serve = admin::serve(listener, config.cluster.clone(), views.clone(), tasks.clone(), cancel.clone());
        tasks.spawn(report("admin", serve));
    }
    Ok(())
}

/// The source, the peers directory, and the driver that listens to both.
fn drive(config: &Config, outlets: Outlets, tasks: &TaskTracker, cancel: &CancellationToken) {
    let (events, queue) = mpsc::channel(driver::QUEUE);
    let exporter = ExporterConfig { cluster: config.cluster.clone(), id: config.id, namespaces: config.namespaces };
    let mirror = Mirror::new(
        MirrorConfig {
            cluster: config.cluster.clone(),
            id: config.id,
            max: config.max,
            own_cidrs: config.service_cidrs.iter().chain(&config.pod_cidrs).copied().collect(),
            deny: config.deny.clone(),
        },
        clock::now(),
    );
    let parts = (Export::new(exporter), mirror);
    let driver = Driver::new(config.clone(), parts, outlets, events.clone(), (tasks.clone(), cancel.clone()));
    tasks.spawn(driver.run(queue).instrument(info_span!("driver")));
    let (said, source) = mpsc::channel(SOURCE_QUEUE);
    tasks.spawn(directory::run(config.source.clone(), said).instrument(info_span!("source")));
    tasks.spawn(forward(source, Event::Source, events.clone(), cancel.clone()).instrument(info_span!("source_events")));
    let (said, peers) = mpsc::channel(SOURCE_QUEUE);
    let follow = peers_dir::run(config.peers_dir.clone(), config.cluster.clone(), said);
    tasks.spawn(follow.instrument(info_span!("peers_directory")));
    tasks.spawn(forward(peers, Event::Peers, events, cancel.clone()).instrument(info_span!("peers_events")));
}

/// Hands on what one part says, until the end; the part ends when nobody listens any more.
async fn forward<T>(
    mut from: mpsc::Receiver<T>,
    event: fn(T) -> Event,
    to: mpsc::Sender<Event>,
    cancel: CancellationToken,
) {
    loop {
        let said = tokio::select! {
            () = cancel.cancelled() => return,
            Some(said) = from.recv() => said,
            else => return,
        };
        if to.send(event(said)).await.is_err() {
            return;
        }
    }
}

/// Logs why a server ended, if it failed.
async fn report<E: std::fmt::Display>(server: &'static str, serve: impl Future<Output = Result<(), E>>) {
    if let Err(error) = serve.await {
        tracing::error!(server, %error, "server failed");
    }
}

fn writer_spec(config: &Config, peers: scopes::SharedPeers) -> WriterSpec {
    WriterSpec {
        store: config.store.clone(),
        scope_of: scopes::scope_of(config.cluster.clone(), peers),
        prefixes: scopes::prefixes(&config.cluster),
        heartbeats: vec![
            (key::HEARTBEAT.to_owned(), |unix_ms| cilium::timestamp(unix_ms).into()),
            (own::key_to_string(&OwnKey::Heartbeat), |unix_ms| own::encode(&OwnRecord::Heartbeat(unix_ms))),
        ],
        every: HEARTBEAT,
        lease_ttl: config.lease_ttl,
    }
}
