//! Puts the program together, and takes it apart again on a signal.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tombolo_core::export::ExporterConfig;
use tombolo_core::own::{OwnKey, OwnRecord};
use tombolo_kube::client::Access;
use tombolo_kube::mirroring::Held;
use tombolo_kube::source::Target;
use tombolo_source::directory;
use tombolo_store::listen::Listener;
use tombolo_store::users::{Others, PeerUsers, UsersKeeper, UsersState};
use tombolo_store::{Writer, WriterSpec};
use tombolo_wire::cilium::{self, PeerIdentity, key};
use tombolo_wire::own;
use tracing::{Instrument, Span, info_span};

use crate::config::{Config, Source};
use crate::driver::{self, Driver, Event, Outlets};
use crate::earlier::Earlier;
use crate::export::Export;
use crate::fatal::Fatal;
use crate::held::HeldOutlet;
use crate::kept::Kept;
use crate::kubernetes::Kubernetes;
use crate::metrics::Metrics;
use crate::mirror::files::PeerFiles;
use crate::mirror::{Mirror, MirrorConfig};
use crate::peer_objects::Outcome;
use crate::view::Views;
use crate::{admin, clock, earlier, health, kubernetes, peer_objects, peers_dir, scopes};

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// How often the heartbeats are written.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// How long the end waits for tasks to finish.
const GRACE: Duration = Duration::from_secs(5);
/// Batches of the source that may wait for the driver.
const SOURCE_QUEUE: usize = 16;

/// Runs until `cancel` is cancelled, then ends in order; no key is deleted. An error when a part ends before that.
pub async fn run(config: Config, cancel: CancellationToken) -> Result<()> {
    clock::now();
    let tasks = TaskTracker::new();
    let (fatal, mut ended) = Fatal::new();
    let views = Views::new(config.cluster.clone(), config.id, "starting");
    listen(&config, &views, &tasks, &cancel).await?;
    tracing::info!(cluster = %config.cluster, id = %config.id, "started");
    let begun = begin(&config, views, &tasks, &cancel, &fatal);
    tokio::select! {
        () = cancel.cancelled() => {}
        () = async { begun.await; cancel.cancelled().await } => {}
        Some(task) = ended.recv() => {
            cancel.cancel();
            end(&tasks).await;
            bail!("{task} ended before the program: see the log above");
        }
    }
    end(&tasks).await;
    tracing::info!("ended");
    Ok(())
}

async fn end(tasks: &TaskTracker) {
    tasks.close();
    if tokio::time::timeout(GRACE, tasks.wait()).await.is_err() {
        tracing::warn!(tasks = tasks.len(), "some tasks did not end in time");
    }
}

/// Starts everything, in the order in which it may be started: users before anything is written, for in a store without
/// users anybody with a certificate may read and write everything; and what was left is read before it is written anew.
async fn begin(config: &Config, views: Views, tasks: &TaskTracker, cancel: &CancellationToken, fatal: &Fatal) {
    let mut names = peers_dir::configured(&config.peers_dir, &config.cluster);
    let (told, users_seen) = watch::channel(UsersState::Unknown);
    let users = UsersKeeper { store: config.store.clone(), cluster: config.cluster.clone(), state: told };
    let known = PeerUsers { peers: names.clone(), others: Others::Kept };
    tokio::select! {
        () = users.ensure(&known) => {}
        () = cancel.cancelled() => return,
    }
    let own_identity = PeerIdentity { name: config.cluster.clone(), id: config.id, max: config.max };
    let mut earlier = earlier::read(&config.store, &own_identity, tasks, cancel).await;
    if cancel.is_cancelled() {
        return;
    }
    names.extend(earlier.peers.keys().filter(|name| **name != config.cluster).cloned());
    let shared = Arc::new(ArcSwap::from_pointee(names.clone()));
    let writer = Writer::start(writer_spec(config, Arc::clone(&shared)), tasks, cancel.clone());
    let (wanted, wanted_seen) = watch::channel(PeerUsers { peers: names, others: Others::Kept });
    let follow = users.keep(wanted_seen, writer.subscribe());
    tasks.spawn(fatal.clone().watch("users", cancel.clone(), follow).instrument(info_span!("users")));
    let ended = writer.clone();
    let writes = async move { ended.ended().await };
    tasks.spawn(fatal.clone().watch("writer", cancel.clone(), writes));
    // The file first: it knows whatever the store does, and the store may have been emptied in between.
    let (kept, numbers) = config.state_dir.as_deref().map(Kept::open).unzip();
    earlier.kept = numbers.clone().unwrap_or_default();
    if let (Some(kept), Some(numbers)) = (kept.clone(), numbers) {
        let end = cancel.clone();
        let keep = async move {
            tokio::select! {
                () = end.cancelled() => {}
                () = kept.run(numbers) => {}
            }
        };
        let keep = fatal.clone().watch("kept identities", cancel.clone(), keep);
        tasks.spawn(keep.instrument(info_span!("kept")));
    }
    let (held, kubernetes) = kubernetes(config, &views);
    let outlets = Outlets { writer, shared_peers: shared, users: wanted, users_state: users_seen, views, kept, held };
    drive(config, (outlets, kubernetes), earlier, tasks, cancel, fatal);
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
fn drive(
    config: &Config,
    (outlets, kubernetes): (Outlets, Option<Kubernetes>),
    earlier: Earlier,
    tasks: &TaskTracker,
    cancel: &CancellationToken,
    fatal: &Fatal,
) {
    let spawn = |name: &'static str, span: Span, task: Task| {
        tasks.spawn(fatal.clone().watch(name, cancel.clone(), task).instrument(span));
    };
    let (events, queue) = mpsc::channel(driver::QUEUE);
    let exporter = ExporterConfig {
        cluster: config.cluster.clone(),
        id: config.id,
        max: config.max,
        namespaces: config.namespaces,
    };
    let mut export = Export::new(exporter);
    export.remember(earlier.ready);
    export.remember_identities(earlier.kept.into_iter().chain(earlier.identities));
    let files = PeerFiles::new(config.cluster.clone(), earlier.peers.keys().cloned());
    let mirror = Mirror::new(mirror_config(config), earlier.peers, clock::now());
    let around = (tasks.clone(), cancel.clone(), fatal.clone());
    let driver = Driver::new(config.clone(), (export, mirror), outlets, events.clone(), around);
    spawn("driver", info_span!("driver"), Box::pin(driver.run(queue)));
    let (said, source) = mpsc::channel(SOURCE_QUEUE);
    let follow: Task = match config.source.clone() {
        Source::Directory(path) => Box::pin(directory::run(path, said)),
        Source::Kubernetes(target) => Box::pin(tombolo_kube::source::run(target, said)),
    };
    spawn("source", info_span!("source"), follow);
    let forwarded = forward(source, Event::Source, events.clone(), cancel.clone());
    spawn("source events", info_span!("source_events"), Box::pin(forwarded));
    let (said, peers) = mpsc::channel(SOURCE_QUEUE);
    let (outcome, settled) = watch::channel(Outcome::default());
    let dir = config.peers_dir.clone();
    let wait = kubernetes.is_some();
    let follow = async move {
        if wait {
            peer_objects::ready(&dir, settled.clone()).await;
        }
        peers_dir::run(dir, files, said).await;
        drop(settled);
    };
    spawn("peers directory", info_span!("peers_directory"), Box::pin(follow));
    if let Some(kubernetes) = kubernetes {
        spawn("kubernetes", info_span!("kubernetes"), Box::pin(kubernetes::run(kubernetes, outcome)));
    }
    let forwarded = forward(peers, Event::Peers, events, cancel.clone());
    spawn("peers events", info_span!("peers_events"), Box::pin(forwarded));
}

/// What is done in Kubernetes beside the source, if that is where the source is.
fn kubernetes(config: &Config, views: &Views) -> (HeldOutlet, Option<Kubernetes>) {
    let access = match &config.source {
        Source::Directory(_) => return (HeldOutlet::nobody(), None),
        Source::Kubernetes(Target::InCluster) => Access::Pod,
        Source::Kubernetes(Target::Kubeconfig { path, context }) => {
            Access::Kubeconfig { file: Some(path.clone()), context: context.clone() }
        }
    };
    let (said, held) = watch::channel(Held::default());
    let kubernetes = Kubernetes {
        access,
        cluster: config.cluster.clone(),
        peers_dir: config.peers_dir.clone(),
        peers_namespace: config.peers_namespace.clone(),
        views: views.clone(),
        mirroring: (config.mirroring, held),
    };
    (HeldOutlet::new(config.mirroring, said), Some(kubernetes))
}

fn mirror_config(config: &Config) -> MirrorConfig {
    MirrorConfig {
        cluster: config.cluster.clone(),
        id: config.id,
        max: config.max,
        own_cidrs: config.service_cidrs.iter().chain(&config.pod_cidrs).copied().collect(),
        deny: config.deny.clone(),
    }
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
