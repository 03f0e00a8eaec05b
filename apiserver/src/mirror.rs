//! The peers: which are configured, what their stores say, and what of that reaches the own agents.
//!
//! Files and sessions' events in, [`Command`]s out; this module waits for nothing and writes nothing. One peer's
//! understanding is in `peer` and `feed`; here is what concerns several: ids, and what every peer is measured against.

mod feed;
pub mod files;
mod members;
mod peer;
mod refused;
mod silence;
mod track;
mod uses;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnet::IpNet;
use tombolo_core::admit::Ranges;
use tombolo_core::hold::Canary;
use tombolo_core::id::{Addr, ClusterId, ClusterName, MaxClusters, Millis, ServiceKey};
use tombolo_core::policy::STALE_AFTER;
use tombolo_core::record::{ExportMode, IdentityLabel};
use tombolo_core::report::PeerStatus;
use tombolo_store::SessionEvent;
use tombolo_wire::cilium::{self, ConfigError, PeerIdentity};
use tombolo_wire::etcd_config::EtcdConfig;

pub use self::feed::{Form, Reading, Root};
pub use self::peer::Plan;

use self::files::FileChange;
use self::peer::{Claim, Peer};
use self::uses::Uses;
use crate::earlier::EarlierPeer;
use crate::export::Protected;
use crate::writes::Write;

/// For this long after the start, of two peers with one id the first by file name counts, whichever answered first.
const STARTUP_MS: u64 = 10_000;

/// This cluster, as far as its mirror cares.
#[derive(Clone, Debug)]
pub struct MirrorConfig {
    /// Its name.
    pub cluster: ClusterName,
    /// Its id.
    pub id: ClusterId,
    /// The size of the mesh.
    pub max: MaxClusters,
    /// Ranges of its own, beside what its Nodes say.
    pub own_cidrs: Vec<IpNet>,
    /// `--deny-cidr`.
    pub deny: Vec<IpNet>,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Write a key of the own store.
    Write(Write),
    /// The peer's first complete set has been written: its surplus may go, and its canary be written.
    Synced(ClusterName),
    /// The peer has left: nothing of it should exist.
    Gone(ClusterName),
    /// Begin a session with the peer, in place of the one before.
    Session {
        /// The peer.
        peer: ClusterName,
        /// The session's number, to be given back with its events.
        generation: u64,
        /// How the peer is reached.
        config: EtcdConfig,
        /// What to read.
        plan: Plan,
    },
    /// End the session with the peer.
    EndSession(ClusterName),
}

/// Whose an address is, as a peer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whose {
    /// The peer.
    pub cluster: ClusterName,
    /// The identity's number.
    pub identity: u32,
    /// The identity's labels, as far as the peer has said them.
    pub labels: Vec<IdentityLabel>,
    /// The Pod's namespace, empty when it is no Pod's.
    pub namespace: String,
    /// The Pod's name.
    pub pod: String,
    /// The address of the node that carries it.
    pub host: Option<Addr>,
}

/// All peers.
#[derive(Debug)]
pub struct Mirror {
    config: MirrorConfig,
    started: Millis,
    peers: BTreeMap<ClusterName, Peer>,
    uses: Uses,
    /// What is imported as far as is known, until the source's first complete set is.
    reading: Option<BTreeSet<ServiceKey>>,
    ranges: Arc<Ranges>,
}

impl Mirror {
    /// The peers of an earlier life of this program, of which nothing is heard yet; nothing imported.
    pub fn new(config: MirrorConfig, earlier: BTreeMap<ClusterName, EarlierPeer>, now: Millis) -> Self {
        let ranges = Arc::new(ranges(&config, &Protected::default()));
        let (uses, reading) = (Uses::default(), Some(BTreeSet::new()));
        let others = earlier.into_iter().filter(|(name, _)| *name != config.cluster);
        let peers = others.map(|(name, earlier)| (name.clone(), Peer::new(name, Some(earlier), now))).collect();
        Self { config, started: now, peers, uses, reading, ranges }
    }

    /// The peers directory says something new.
    pub fn on_file(&mut self, change: FileChange, now: Millis) -> Vec<Command> {
        match change {
            FileChange::Configured(name, config) => self.configure(name, config, now),
            FileChange::Suspended(name, why) => {
                tracing::warn!(peer = %name, %why, "peer's configuration is gone: its backends are doubtful, then leave");
                self.suspend(&name, Some(why))
            }
            FileChange::Restored(name) => self.suspend(&name, None),
            FileChange::Left(name) => self.leave(&name, now),
        }
    }

    /// A peer's session says something.
    pub fn on_session(
        &mut self,
        name: &ClusterName,
        generation: u64,
        event: SessionEvent,
        now: Millis,
    ) -> Vec<Command> {
        let Some(peer) = self.peers.get_mut(name).filter(|peer| peer.generation == generation) else {
            return Vec::new();
        };
        if let SessionEvent::Config { value, .. } = &event {
            return self.on_config(name, value, now);
        }
        let news = peer.on(event, &self.uses, now);
        let mut commands: Vec<Command> = news.writes.into_iter().map(Command::Write).collect();
        if news.synced && self.reading.is_none() {
            tracing::info!(peer = %name, "first complete set");
            commands.push(Command::Synced(name.clone()));
        }
        commands
    }

    /// Services of which peers' endpoints are, or no longer are, of use here.
    pub fn set_imports(&mut self, imported: &[ServiceKey], unimported: &[ServiceKey]) -> Vec<Command> {
        let imports = self.reading.as_mut().unwrap_or(&mut self.uses.imports);
        imports.extend(imported.iter().cloned());
        for key in unimported {
            imports.remove(key);
        }
        let mut commands = Vec::new();
        if self.reading.is_some() {
            return commands;
        }
        for peer in self.peers.values_mut() {
            let writes = peer.publish(imported.iter().chain(unimported), &self.uses);
            commands.extend(writes.into_iter().map(Command::Write));
        }
        commands
    }

    /// How long Services bear a peer's silence, in milliseconds; `None` is the peer's own measure.
    pub fn set_stale_after(&mut self, changes: &[(ServiceKey, Option<u64>)]) {
        self.uses.set_stale_after(changes);
    }

    /// The source's first complete set is known, and with it what is imported and what no peer may claim. Before that
    /// nothing of a peer is published, and no peer's set is complete: what an earlier life of this program left in the
    /// store would else be surplus.
    pub fn source_complete(&mut self) -> Vec<Command> {
        let Some(imports) = self.reading.take() else { return Vec::new() };
        let imports: Vec<ServiceKey> = imports.into_iter().collect();
        let mut commands = self.set_imports(&imports, &[]);
        commands.extend(self.complete_peers());
        commands
    }

    /// Says once more of whom a complete set is known.
    pub fn complete_peers(&self) -> Vec<Command> {
        let complete = self.peers.values().filter(|peer| peer.is_complete() || peer.is_refused_its_id());
        complete.map(|peer| Command::Synced(peer.name.clone())).collect()
    }

    /// What no peer may claim is another now.
    pub fn set_protected(&mut self, protected: &Protected, now: Millis) -> Vec<Command> {
        self.ranges = Arc::new(ranges(&self.config, protected));
        let (ranges, uses) = (&self.ranges, &self.uses);
        let writes = self.peers.values_mut().flat_map(|peer| peer.set_ranges(ranges, uses, now));
        writes.map(Command::Write).collect()
    }

    /// Time has passed, or something was done: judges silence, and writes the peers' states that are due.
    pub fn tick(&mut self, now: Millis) -> Vec<Command> {
        let mut commands = Vec::new();
        for peer in self.peers.values_mut() {
            let writes = peer.tick(&self.uses, now).into_iter().chain(peer.reports(now));
            commands.extend(writes.map(Command::Write));
        }
        commands
    }

    /// When [`Self::tick`] is due although nothing happened.
    pub fn deadline(&self, now: Millis) -> Option<Millis> {
        self.peers.values().filter_map(|peer| peer.deadline(&self.uses, now)).min()
    }

    /// The configured peers.
    pub fn names(&self) -> BTreeSet<ClusterName> {
        self.peers.keys().cloned().collect()
    }

    /// All peers, for people.
    pub fn status(&self, now: Millis) -> Vec<PeerStatus> {
        self.peers.values().map(|peer| peer.status(&self.uses, now)).collect()
    }

    /// Whose an address of a peer is; the first peer by name that says so.
    pub fn locate(&self, addr: Addr) -> Option<Whose> {
        self.peers.values().find_map(|peer| peer.locate(addr))
    }

    /// How many backends the deletion guard keeps, by peer.
    pub fn guarded(&self) -> Vec<(ClusterName, usize)> {
        self.peers.values().map(Peer::guarded).collect()
    }

    /// Services that bear less silence than a peer that brings something to them needs to be heard.
    pub fn impatient(&self) -> Vec<(ServiceKey, String)> {
        let mut warnings = Vec::new();
        for (service, ms) in self.uses.stale_after() {
            for peer in self.peers.values() {
                let Some(least) = peer.least_beyond(service, ms) else { continue };
                let (name, said) = (&peer.name, seconds(ms));
                let text = format!("{said} is less than two and a half of the intervals at which {name} beats");
                warnings.push((
                    service.clone(),
                    format!("annotation {}: {text}; {} applies", STALE_AFTER.name, seconds(least)),
                ));
            }
        }
        warnings
    }

    fn configure(&mut self, name: ClusterName, config: EtcdConfig, now: Millis) -> Vec<Command> {
        tracing::info!(peer = %name, endpoints = ?config.endpoints, "peer configured");
        let peer = self.peers.entry(name.clone()).or_insert_with(|| Peer::new(name, None, now));
        peer.config = Some(config);
        let mut commands = Vec::new();
        if peer.suspended.take().is_some() {
            commands.extend(peer.publish_all(&self.uses).into_iter().map(Command::Write));
        }
        commands.extend(dial(peer));
        commands
    }

    fn suspend(&mut self, name: &ClusterName, why: Option<String>) -> Vec<Command> {
        let Some(peer) = self.peers.get_mut(name) else { return Vec::new() };
        peer.suspended = why;
        peer.publish_all(&self.uses).into_iter().map(Command::Write).collect()
    }

    fn leave(&mut self, name: &ClusterName, now: Millis) -> Vec<Command> {
        let Some(mut peer) = self.peers.remove(name) else { return Vec::new() };
        tracing::info!(peer = %name, "peer left");
        let mut commands = vec![Command::EndSession(name.clone())];
        commands.extend(peer.drop_all().into_iter().chain(peer.farewell()).map(Command::Write));
        commands.push(Command::Gone(name.clone()));
        if let (Claim::Accepted(_), Some(id)) = (&peer.claim, peer.id()) {
            commands.extend(self.freed(id, now));
        }
        commands
    }

    fn on_config(&mut self, name: &ClusterName, value: &[u8], now: Millis) -> Vec<Command> {
        let understood = understand(name, self.config.max, value);
        let Some(peer) = self.peers.get_mut(name) else { return Vec::new() };
        let reading = match understood {
            Ok(reading) => reading,
            Err(error) => {
                tracing::warn!(peer = %name, %error, "cluster-config");
                // As with any record, the last good version stays when the next cannot be read.
                if !matches!(peer.claim, Claim::Accepted(_)) {
                    peer.claim = Claim::Refused { id: None, reading: None, why: error.to_string() };
                }
                return Vec::new();
            }
        };
        let mut commands = Vec::new();
        let former = match &peer.claim {
            Claim::Accepted(same) if *same == reading => return commands,
            Claim::Accepted(before) if before.peer.id != reading.peer.id => Some(before.peer.id),
            _ => None,
        };
        if let Some(id) = former {
            tracing::warn!(peer = %name, before = %id, now = %reading.peer.id, "peer's id changed: importing anew");
            commands.extend(peer.drop_all().into_iter().map(Command::Write));
            peer.claim = Claim::Unheard;
        }
        commands.extend(self.claim(name, reading, now));
        commands.extend(former.map(|id| self.freed(id, now)).unwrap_or_default());
        commands
    }

    /// A peer asks to be read this way: granted if its id is nobody else's.
    fn claim(&mut self, name: &ClusterName, reading: Reading, now: Millis) -> Vec<Command> {
        let id = reading.peer.id;
        let mut commands = Vec::new();
        if let Some(holder) = self.holder(id, name) {
            let starting = now.since(self.started) < STARTUP_MS;
            if holder == self.config.cluster || holder < *name || !starting {
                return self.refuse(name, &holder, reading);
            }
            let loser = self.peers.get(&holder).and_then(|peer| match &peer.claim {
                Claim::Accepted(reading) => Some(reading.clone()),
                Claim::Unheard | Claim::Refused { .. } => None,
            });
            commands = loser.map(|reading| self.refuse(&holder, name, reading)).unwrap_or_default();
        }
        if let Some(peer) = self.peers.get_mut(name) {
            let other = peer.forget_another(id);
            commands.extend(other.into_iter().map(Command::Write));
            peer.follow(reading, Arc::clone(&self.ranges));
            commands.extend(dial(peer));
        }
        commands
    }

    /// Who has this id, apart from the one who asks.
    fn holder(&self, id: ClusterId, asking: &ClusterName) -> Option<ClusterName> {
        if id == self.config.id {
            return Some(self.config.cluster.clone());
        }
        let holds = |peer: &&Peer| peer.name != *asking && matches!(&peer.claim, Claim::Accepted(r) if r.peer.id == id);
        self.peers.values().find(holds).map(|peer| peer.name.clone())
    }

    fn refuse(&mut self, name: &ClusterName, holder: &ClusterName, reading: Reading) -> Vec<Command> {
        let Some(peer) = self.peers.get_mut(name) else { return Vec::new() };
        let id = reading.peer.id;
        let why = format!("{name} has cluster id {id}, which is {holder}'s: every cluster of a mesh needs its own");
        tracing::warn!(peer = %name, %holder, %id, "cluster id is another's");
        let mut commands: Vec<Command> = peer.drop_all().into_iter().map(Command::Write).collect();
        let known = matches!(&peer.claim, Claim::Refused { reading: Some(before), .. } if *before == reading);
        peer.claim = Claim::Refused { id: Some(id), reading: Some(reading), why };
        // Nothing is its complete set: what it brought in an earlier life of this program leaves too.
        if !known && self.reading.is_none() {
            commands.push(Command::Synced(name.clone()));
        }
        if peer.plan != Plan::Probe {
            peer.plan = Plan::Probe;
            commands.extend(dial(peer));
        }
        commands
    }

    /// An id is nobody's any more: the first by name who asked for it in vain gets it.
    fn freed(&mut self, id: ClusterId, now: Millis) -> Vec<Command> {
        let waiting = self.peers.values().find_map(|peer| match &peer.claim {
            Claim::Refused { reading: Some(reading), .. } if reading.peer.id == id => {
                Some((peer.name.clone(), reading.clone()))
            }
            _ => None,
        });
        waiting.map(|(name, reading)| self.claim(&name, reading, now)).unwrap_or_default()
    }
}

fn dial(peer: &mut Peer) -> Option<Command> {
    let config = peer.config.clone()?;
    let generation = peer.redial();
    Some(Command::Session { peer: peer.name.clone(), generation, config, plan: peer.plan.clone() })
}

fn seconds(ms: u64) -> String {
    format!("{}s", ms as f64 / 1_000.0)
}

fn ranges(config: &MirrorConfig, protected: &Protected) -> Ranges {
    let own = config.own_cidrs.iter().chain(&protected.pod_cidrs).copied();
    Ranges::new(own, protected.nodes.iter().copied(), config.deny.iter().copied())
}

/// How a peer with this cluster-config is read.
fn understand(name: &ClusterName, max: MaxClusters, value: &[u8]) -> Result<Reading, ConfigError> {
    let config = cilium::decode_config(value)?;
    let id = cilium::validate_config(&config, max)?;
    Ok(Reading {
        peer: PeerIdentity { name: name.clone(), id, max },
        form: match config.export_mode {
            ExportMode::ServicesOnly => Form::Services,
            ExportMode::Both | ExportMode::SlicesOnly => Form::Slices,
        },
        root: if config.cached { Root::Cache } else { Root::State },
        canaries: if config.synced_canaries { Canary::Awaited } else { Canary::None },
    })
}

#[cfg(test)]
mod tests;
