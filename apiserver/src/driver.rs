//! The one task that owns this cluster's state: export, mirror, and what has been said to the writer.
//!
//! It takes what is queued, applies it, and hands over what follows: keys to the writer, sessions to their tasks, a new
//! [`View`] to readers. Nothing else changes that state, and nothing here waits for a network.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tombolo_core::id::{ClusterName, Epoch, Millis};
use tombolo_core::object::SourceEvent;
use tombolo_core::own::{ClusterInfo, OwnKey, OwnRecord};
use tombolo_core::report::{ApiserverStatus, FaultReport};
use tombolo_store::users::{Others, PeerUsers, UsersState};
use tombolo_store::{SessionEvent, SessionSpec, StoreConfig, Surplus, Watch, Writer, WriterStatus, session};
use tombolo_wire::cilium::key::{self, Kind};
use tombolo_wire::etcd_config::EtcdConfig;
use tombolo_wire::{cilium, own};
use tracing::{Instrument, info_span};

use crate::clock;
use crate::config::Config;
use crate::export::{Completed, Export, Exported, cluster_config};
use crate::fatal::Fatal;
use crate::held::{HeldOutlet, Source};
use crate::kept::Kept;
use crate::mirror::files::FileChange;
use crate::mirror::{Command, Mirror, Plan};
use crate::peers_dir::PeersNews;
use crate::scopes::{self, SharedPeers};
use crate::view::{View, Views};
use crate::writes::Write;

/// Events that may wait for the driver; whoever has more waits itself.
pub const QUEUE: usize = 1024;
/// Readers see a change after at most this long.
const VIEW_MS: u64 = 100;
/// Events taken at once before what follows from them is handed over.
const BATCH: usize = 256;

/// Everything that can happen to the driver.
#[derive(Debug)]
pub enum Event {
    /// The source said something.
    Source(Vec<SourceEvent>),
    /// The peers directory was read.
    Peers(PeersNews),
    /// A peer's session said something.
    Session {
        /// The peer.
        peer: ClusterName,
        /// The session's number.
        generation: u64,
        /// What it said.
        event: SessionEvent,
    },
}

/// What the driver hands its outcome to.
pub struct Outlets {
    /// The own store's writer.
    pub writer: Writer,
    /// The configured peers, for the writer's scopes.
    pub shared_peers: SharedPeers,
    /// The peers that need a user in the own store.
    pub users: watch::Sender<PeerUsers>,
    /// Where the users stand.
    pub users_state: watch::Receiver<UsersState>,
    /// The readers' view.
    pub views: Views,
    /// Where numbers of identities are kept beside the own store, if anywhere.
    pub kept: Option<Kept>,
    /// Whoever mirrors what the own agents get.
    pub held: HeldOutlet,
}

/// The driver's state.
pub struct Driver {
    config: Config,
    export: Export,
    mirror: Mirror,
    outlets: Outlets,
    events: mpsc::Sender<Event>,
    sessions: BTreeMap<ClusterName, CancellationToken>,
    tasks: TaskTracker,
    cancel: CancellationToken,
    fatal: Fatal,
    peers: PeersDirectory,
    said_cluster: Option<ClusterInfo>,
    canaries: Canaries,
    /// The epoch of the own store in which everything was written once.
    settled: Option<Epoch>,
    view_due: Option<Millis>,
}

/// What is known of the peers directory.
#[derive(Debug)]
enum PeersDirectory {
    /// It was never listed: nobody knows who is a peer, so nobody may be told.
    Unread {
        faults: BTreeMap<String, String>,
    },
    Read {
        faults: BTreeMap<String, String>,
    },
}

/// Whether the own canaries have been handed to the writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Canaries {
    Due,
    /// Yes, but part of the source could not be read: what an earlier life wrote stays until it can.
    SaidInPart,
    Said,
}

impl Driver {
    /// A driver that has heard nothing; `events` is its own queue's sender, for sessions' forwarders.
    pub fn new(
        config: Config,
        (export, mirror): (Export, Mirror),
        outlets: Outlets,
        events: mpsc::Sender<Event>,
        (tasks, cancel, fatal): (TaskTracker, CancellationToken, Fatal),
    ) -> Self {
        Self {
            config,
            export,
            mirror,
            outlets,
            events,
            sessions: BTreeMap::new(),
            tasks,
            cancel,
            fatal,
            peers: PeersDirectory::Unread { faults: BTreeMap::new() },
            said_cluster: None,
            canaries: Canaries::Due,
            settled: None,
            view_due: Some(Millis(0)),
        }
    }

    /// Runs until cancelled.
    pub async fn run(mut self, mut queue: mpsc::Receiver<Event>) {
        let mut writer = self.outlets.writer.subscribe();
        let mut users = self.outlets.users_state.clone();
        let config = cilium::encode_config(&cluster_config(self.config.id, self.config.max));
        self.outlets.writer.put(key::cluster_config(&self.config.cluster), config);
        loop {
            let deadline = [self.mirror.deadline(clock::now()), self.view_due].into_iter().flatten().min();
            tokio::select! {
                () = self.cancel.cancelled() => return,
                Some(event) = queue.recv() => {
                    self.take(event);
                    for _ in 1..BATCH {
                        let Ok(event) = queue.try_recv() else { break };
                        self.take(event);
                    }
                }
                Ok(()) = writer.changed() => {}
                Ok(()) = users.changed() => {}
                () = clock::sleep_until(deadline) => {}
            }
            drop(writer.borrow_and_update());
            self.hand_over(clock::now(), &self.outlets.writer.status());
        }
    }

    fn take(&mut self, event: Event) {
        let now = clock::now();
        match event {
            Event::Source(events) => self.take_source(events, now),
            Event::Peers(news) => self.take_peers(news, now),
            Event::Session { peer, generation, event } => {
                let commands = self.mirror.on_session(&peer, generation, event, now);
                self.execute(commands);
            }
        }
    }

    fn take_source(&mut self, events: Vec<SourceEvent>, now: Millis) {
        let outcome = self.export.apply(events);
        for write in outcome.writes {
            self.write(write);
        }
        if let Some(kept) = &self.outlets.kept {
            kept.keep(outcome.kept);
        }
        if let Some(protected) = &outcome.protected {
            let commands = self.mirror.set_protected(protected, now);
            self.execute(commands);
        }
        self.mirror.set_stale_after(&outcome.stale_after);
        let commands = self.mirror.set_imports(&outcome.imported, &outcome.unimported);
        self.execute(commands);
        if outcome.completed == Completed::Now {
            let Exported { services, endpoints, identities, addresses } = self.export.counts();
            tracing::info!(services, endpoints, identities, addresses, "source complete");
            let commands = self.mirror.source_complete();
            self.execute(commands);
        }
    }

    fn take_peers(&mut self, news: PeersNews, now: Millis) {
        for (file, problem) in &news.faults {
            tracing::warn!(%file, %problem, "peers directory");
        }
        let faults = news.faults;
        self.peers = match &self.peers {
            PeersDirectory::Unread { .. } if !news.listed => PeersDirectory::Unread { faults },
            PeersDirectory::Unread { .. } | PeersDirectory::Read { .. } => PeersDirectory::Read { faults },
        };
        // The writer must know the peers before anything of theirs is declared complete.
        let configured = news.changes.iter().filter_map(|change| match change {
            FileChange::Configured(name, _) => Some(name.clone()),
            FileChange::Suspended(..) | FileChange::Restored(_) | FileChange::Left(_) => None,
        });
        let mut names = self.mirror.names();
        names.extend(configured);
        self.outlets.shared_peers.store(Arc::new(names));
        for change in news.changes {
            let commands = self.mirror.on_file(change, now);
            self.execute(commands);
        }
        let names = self.mirror.names();
        self.outlets.shared_peers.store(Arc::new(names.clone()));
        let others = match self.peers {
            PeersDirectory::Unread { .. } => Others::Kept,
            PeersDirectory::Read { .. } => Others::Removed,
        };
        let wanted = PeerUsers { peers: names, others };
        self.outlets.users.send_if_modified(|users| {
            let changed = *users != wanted;
            *users = wanted;
            changed
        });
    }

    /// What follows from a batch, beside what its events led to at once.
    fn hand_over(&mut self, now: Millis, writer: &WriterStatus) {
        // A peer's name before its state: agents forget whoever is not in `cluster`.
        self.say_cluster();
        let commands = self.mirror.tick(now);
        self.execute(commands);
        self.say_canaries();
        self.say_known();
        if writer.connected && writer.pending == 0 && self.canaries != Canaries::Due {
            self.settled = Some(writer.epoch);
        }
        match self.view_due {
            Some(due) if now >= due => {
                self.outlets.views.store(self.view(now, writer.clone()));
                self.view_due = None;
            }
            Some(_) => {}
            None => self.view_due = Some(now.after(VIEW_MS)),
        }
    }

    fn say_cluster(&mut self) {
        if matches!(self.peers, PeersDirectory::Unread { .. }) {
            return;
        }
        let mut pod_cidrs: Vec<_> = self.export.protected().pod_cidrs.iter().copied().collect();
        pod_cidrs.extend(&self.config.pod_cidrs);
        let info = ClusterInfo {
            name: self.config.cluster.clone(),
            id: self.config.id,
            peers: self.mirror.names().into_iter().collect(),
            pod_cidrs,
        };
        if self.said_cluster.as_ref() != Some(&info) {
            let value = own::encode(&OwnRecord::Cluster(info.clone()));
            self.outlets.writer.put(own::key_to_string(&OwnKey::Cluster), value);
            self.said_cluster = Some(info);
        }
    }

    /// The first complete sets are handed over: their surplus may go, and their canaries be written. What a file that
    /// cannot be read would have said is not gone, so nothing is surplus while there is one.
    fn say_canaries(&mut self) {
        let ready = self.export.is_complete() && matches!(self.peers, PeersDirectory::Read { .. });
        let next = if self.export.is_readable() { Canaries::Said } else { Canaries::SaidInPart };
        if !ready || self.canaries == Canaries::Said || self.canaries == next {
            return;
        }
        let again = self.canaries == Canaries::SaidInPart;
        self.canaries = next;
        let (cluster, now, surplus) = (self.config.cluster.clone(), clock::unix_ms(), self.surplus());
        for kind in Kind::ALL {
            let canary = (kind.canary(&cluster), cilium::timestamp(now).into());
            self.outlets.writer.complete(scopes::state(kind), surplus, Some(canary));
        }
        self.outlets.writer.complete(scopes::OWN, surplus, Some(synced(&cluster, now)));
        if again {
            let commands = self.mirror.complete_peers();
            self.execute(commands);
        }
    }

    /// Who is a peer, and whether the source is read, for those who mirror.
    fn say_known(&self) {
        let read = matches!(self.peers, PeersDirectory::Read { .. });
        let source = if self.export.is_complete() { Source::Complete } else { Source::Reading };
        self.outlets.held.known(|| read.then(|| self.mirror.names()), source);
    }

    fn surplus(&self) -> Surplus {
        let all_known = self.canaries == Canaries::Said || self.export.is_readable();
        if all_known { Surplus::Deleted } else { Surplus::Kept }
    }

    fn execute(&mut self, commands: Vec<Command>) {
        for command in commands {
            match command {
                Command::Write(write) => self.write(write),
                Command::Synced(peer) => {
                    self.outlets.held.synced(&peer);
                    let canary = synced(&peer, clock::unix_ms());
                    self.outlets.writer.complete(scopes::mesh(&peer), self.surplus(), Some(canary));
                }
                Command::Gone(peer) => {
                    self.outlets.held.gone(&peer);
                    self.outlets.writer.retire(&scopes::mesh(&peer));
                }
                Command::Session { peer, generation, config, plan } => self.begin(peer, generation, config, &plan),
                Command::EndSession(peer) => {
                    if let Some(session) = self.sessions.remove(&peer) {
                        session.cancel();
                    }
                }
            }
        }
    }

    fn write(&self, write: Write) {
        self.outlets.held.write(&write);
        match write {
            Write::Put(key, value) => self.outlets.writer.put(key, value),
            Write::Delete(key) => self.outlets.writer.delete(key),
        }
    }

    fn begin(&mut self, peer: ClusterName, generation: u64, config: EtcdConfig, plan: &Plan) {
        let cancel = self.cancel.child_token();
        if let Some(before) = self.sessions.insert(peer.clone(), cancel.clone()) {
            before.cancel();
        }
        let spec = session_spec(&peer, self.store_of(config), plan);
        let mut said = session(spec, &self.tasks, cancel.clone());
        let events = self.events.clone();
        let span = info_span!("peer", %peer, generation);
        let forward = async move {
            while let Some(event) = said.recv().await {
                if events.send(Event::Session { peer: peer.clone(), generation, event }).await.is_err() {
                    return;
                }
            }
        };
        self.tasks.spawn(self.fatal.clone().watch("a peer's session", cancel, forward).instrument(span));
    }

    /// Paths in a peer's file count from the directory it is in.
    fn store_of(&self, config: EtcdConfig) -> StoreConfig {
        let at = |path: PathBuf| self.config.peers_dir.join(path);
        EtcdConfig { ca: at(config.ca), cert: at(config.cert), key: at(config.key), ..config }.into()
    }

    fn view(&self, now: Millis, writer: WriterStatus) -> View {
        let exported = self.export.counts();
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let mut faults = self.export.faults();
        let (PeersDirectory::Unread { faults: files } | PeersDirectory::Read { faults: files }) = &self.peers;
        let kept = self.outlets.kept.as_ref().and_then(Kept::fault);
        faults.extend(kept.map(|(place, message)| FaultReport { place, message }));
        let place = |service| format!("Service {service}");
        faults.extend(self.mirror.impatient().into_iter().map(|(s, message)| FaultReport { place: place(s), message }));
        let place = |file: &String| format!("{}/{file}", self.config.peers_dir.display());
        faults.extend(files.iter().map(|(f, problem)| FaultReport { place: place(f), message: problem.clone() }));
        let status = ApiserverStatus {
            cluster: self.config.cluster.clone(),
            id: self.config.id,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_s: now.0 / 1000,
            blockers: self.blockers(&writer),
            peers: self.mirror.status(now),
            faults,
            exported_services: count(exported.services),
            exported_endpoints: count(exported.endpoints),
            exported_identities: count(exported.identities),
            exported_addresses: count(exported.addresses),
            store_connected: writer.connected,
        };
        View { at: now, status, writer, guarded: self.mirror.guarded() }
    }

    /// What keeps this program from being ready. A peer never does: agents live without it.
    fn blockers(&self, writer: &WriterStatus) -> Vec<String> {
        let mut blockers = Vec::new();
        if !self.export.is_complete() {
            blockers.push("source: the first complete set is not read".to_owned());
        }
        if let PeersDirectory::Unread { faults } = &self.peers {
            let why: String = faults.values().map(|problem| format!(": {problem}")).collect();
            blockers.push(format!("peers directory: not read{why}"));
        }
        if let UsersState::Failed(error) = &*self.outlets.users_state.borrow() {
            blockers.push(error.to_string());
        }
        if !writer.connected {
            let why = writer.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
            blockers.push(format!("store: not connected{why}"));
        } else if self.settled != Some(writer.epoch) {
            let prefixes = Kind::ALL.into_iter().map(|kind| kind.state_prefix(&self.config.cluster));
            let all = prefixes.chain([own::AGENTS.to_owned()]);
            blockers.extend(all.map(|prefix| format!("prefix {prefix}: not written completely")));
        }
        blockers
    }
}

fn synced(owner: &ClusterName, unix_ms: u64) -> (String, bytes::Bytes) {
    (own::key_to_string(&OwnKey::Synced(owner.clone())), own::encode(&OwnRecord::Synced(unix_ms)))
}

fn session_spec(peer: &ClusterName, store: StoreConfig, plan: &Plan) -> SessionSpec {
    let watches = match plan {
        Plan::Probe => Vec::new(),
        Plan::Follow(reading) => {
            let watch = |(prefix, canary)| Watch { prefix, canary };
            reading.kinds().map(|kind| watch(reading.place(kind))).into()
        }
    };
    SessionSpec { store, heartbeat: Some(key::HEARTBEAT.to_owned()), first: Some(key::cluster_config(peer)), watches }
}
