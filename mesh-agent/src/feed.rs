//! From what a session tells to changes of the mesh: decodes, groups by writer, and holds.
//!
//! All records come from the own apiserver, but whether a removal counts depends on whose they are: the own cluster's
//! wait for its canary, a peer's for that peer's (SEMANTICS: "own store starts a new epoch"). So there is one hold per
//! cluster. Whatever the own apiserver's silence makes uncertain is kept as it was.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use smol_str::SmolStr;
use tombolo_core::hold::{Absent, Canary, Change as HeldChange, Event, Hold, HoldConfig, Presence};
use tombolo_core::id::{ClusterName, Epoch, Millis};
use tombolo_core::mesh::{Change, Standing};
use tombolo_core::model::Policy;
use tombolo_core::own::{ClusterInfo, OwnKey, OwnRecord, PeerSession, PeerState};
use tombolo_store::SessionEvent;
use tombolo_wire::own;

use crate::snapshot::Entry;

/// The session's watches, in this order: all agents' records, and this node's own key.
pub const AGENTS_WATCH: usize = 0;

/// Milliseconds without the own apiserver's heartbeat after which it counts as silent; it beats every 5 s.
const SILENT_AFTER_MS: u64 = 30_000;
/// How long the first tables wait for peers that are configured, once the own cluster's records are complete.
const PEERS_WAIT_MS: u64 = 5_000;

/// A record with the revision of the own store that brought it.
///
/// Equal when the record is: a list says everything again at a later revision, and that is no change.
#[derive(Clone, Debug)]
struct Received {
    record: OwnRecord,
    revision: i64,
    /// As it came, for the snapshot.
    value: Bytes,
}

impl PartialEq for Received {
    fn eq(&self, other: &Self) -> bool {
        self.record == other.record
    }
}

type Group = Hold<OwnKey, Received>;

/// A key that one revision took away, and what that is for its hold.
struct Gone {
    text: String,
    key: OwnKey,
    how: fn(OwnKey) -> Event<OwnKey, Received>,
}

/// What the agent has heard, and what of it counts.
pub struct Feed {
    own: ClusterName,
    groups: BTreeMap<ClusterName, Group>,
    /// Canaries present in this epoch, or found so far by the list that is under way.
    canaries: BTreeSet<ClusterName>,
    session: Session,
    info: Option<ClusterInfo>,
    /// `cluster` was said, and not yet compared with the peers known. A peer's other records may come before it.
    info_is_news: bool,
    peers: BTreeMap<ClusterName, PeerState>,
    /// What is not held, as it was last said, in this life or before: for the snapshot.
    loose: BTreeMap<OwnKey, OwnRecord>,
    own_synced_at: Option<Millis>,
    last_beat: Option<Millis>,
    unreadable: BTreeMap<String, String>,
}

/// Where the session with the own store stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Session {
    epoch: Option<Epoch>,
    connected: bool,
    listing: bool,
    beaten: bool,
}

impl Feed {
    /// Nothing heard yet, for an agent of this cluster.
    pub fn new(own: ClusterName) -> Self {
        let mut feed = Self {
            own: own.clone(),
            groups: BTreeMap::new(),
            canaries: BTreeSet::new(),
            session: Session::default(),
            info: None,
            info_is_news: false,
            peers: BTreeMap::new(),
            loose: BTreeMap::new(),
            own_synced_at: None,
            last_beat: None,
            unreadable: BTreeMap::new(),
        };
        feed.groups.insert(own, new_group());
        feed
    }

    /// Holds what an earlier life held, as after a lost session: all of it stays until the store says otherwise. What
    /// cannot be read is left out.
    pub fn restore(own: ClusterName, entries: Vec<Entry>, now: Millis) -> (Self, Vec<Change>) {
        let mut feed = Self::new(own);
        let mut held: BTreeMap<ClusterName, Vec<_>> = BTreeMap::new();
        let mut changes = Vec::new();
        for Entry { key: text, revision, value } in entries {
            let Some(key) = own::parse_key(&text) else { continue };
            match own::decode(&key, &value) {
                Err(error) => tracing::warn!(key = text, error = %error, "unreadable record of a snapshot"),
                Ok(record) => match feed.writer(&key) {
                    Some(writer) => {
                        let received = Received { record, revision, value };
                        held.entry(writer).or_default().push((key, received, Standing::Sure));
                    }
                    None => changes.extend(feed.keep(key, record)),
                },
            }
        }
        for (writer, entries) in held {
            let group = Hold::restore(HOLD, entries, now);
            let put = |(key, received, standing): (&OwnKey, &Received, _)| {
                one_to_mesh(HeldChange::Put(key.clone(), received.clone(), standing))
            };
            changes.extend(group.iter().filter_map(put));
            feed.groups.insert(writer, group);
        }
        (feed, changes)
    }

    /// All that is held, and what else an agent knows, with the revisions that brought it; `None` while nobody has said
    /// what cluster this is.
    pub fn held(&self) -> Option<Vec<(OwnKey, i64, Bytes)>> {
        self.loose.get(&OwnKey::Cluster)?;
        let held = self.groups.values().flat_map(Group::iter);
        let held = held.map(|(key, received, _)| (key.clone(), received.revision, received.value.clone()));
        let loose = self.loose.iter().map(|(key, record)| (key.clone(), 0, own::encode(record)));
        Some(held.chain(loose).collect())
    }

    /// Takes in what the session tells, and gives the changes of the held view.
    pub fn on(&mut self, event: SessionEvent, now: Millis) -> Vec<Change> {
        match event {
            SessionEvent::Connected { epoch } => self.connected(epoch, now),
            SessionEvent::Relisting { watch: AGENTS_WATCH, .. } => {
                self.session.listing = true;
                self.canaries.clear();
                self.unreadable.clear();
                self.tell_all(&Event::Relisting, now)
            }
            SessionEvent::Listed { watch: AGENTS_WATCH, .. } => self.listed(now),
            SessionEvent::Delta { watch: AGENTS_WATCH, revision, upserts, deletes, expired, .. } => {
                self.delta(revision.0, upserts, &gone(deletes, expired), now)
            }
            SessionEvent::Delta { upserts, mut deletes, expired, .. } => {
                deletes.extend(expired);
                self.own_node(upserts, &deletes)
            }
            SessionEvent::Heartbeat => {
                self.session.beaten = true;
                self.last_beat = Some(now);
                self.tell_all(&Event::Beat, now)
            }
            SessionEvent::HeartbeatGone => self.tell_all(&Event::BeatGone, now),
            SessionEvent::Lost { .. } => {
                self.session = Session { epoch: self.session.epoch, ..Session::default() };
                self.tell_all(&Event::Lost, now)
            }
            // The agents' prefix has no canary of its own, and this node's key is not listed as a set.
            SessionEvent::Relisting { .. }
            | SessionEvent::Listed { .. }
            | SessionEvent::Config { .. }
            | SessionEvent::CanarySeen { .. }
            | SessionEvent::CanaryGone { .. } => Vec::new(),
        }
    }

    /// Applies what time alone decides.
    pub fn tick(&mut self, now: Millis) -> Vec<Change> {
        self.tell_all(&Event::Tick, now)
    }

    /// When [`Self::tick`], or the answer of [`Self::blockers`], may next differ by itself.
    pub fn deadline(&self, now: Millis) -> Option<Millis> {
        let holds = self.groups.values().filter_map(Group::deadline);
        let peers = self.own_synced_at.map(|at| at.after(PEERS_WAIT_MS));
        holds.chain(peers).filter(|at| *at > now).min()
    }

    /// What the first complete tables still wait for; empty when they may be made.
    pub fn blockers(&self, now: Millis) -> Vec<String> {
        let Some(synced_at) = self.own_synced_at else {
            let store = if self.session.connected { "own apiserver's first complete set" } else { "own store" };
            return vec![format!("waiting for the {store}")];
        };
        if now.since(synced_at) >= PEERS_WAIT_MS {
            return Vec::new();
        }
        let peers = self.info.iter().flat_map(|info| &info.peers);
        let awaited = peers.filter(|peer| {
            let settled = |peer: &PeerState| {
                matches!(peer.session, PeerSession::Lost | PeerSession::Refused)
                    || peer.is_stale_for(&Policy::default())
            };
            !self.peers.get(*peer).is_some_and(settled) && !self.canaries.contains(*peer)
        });
        awaited.map(|peer| format!("waiting for peer {peer}")).collect()
    }

    /// Whether the session with the own store is up.
    pub fn is_connected(&self) -> bool {
        self.session.connected
    }

    /// Milliseconds since the own apiserver's last heartbeat.
    pub fn heartbeat_age_ms(&self, now: Millis) -> Option<u64> {
        self.last_beat.map(|at| now.since(at))
    }

    /// Records that cannot be read, by key, with the reason. Their last good version stays.
    pub fn unreadable(&self) -> &BTreeMap<String, String> {
        &self.unreadable
    }

    fn connected(&mut self, epoch: Epoch, now: Millis) -> Vec<Change> {
        if self.session.epoch != Some(epoch) {
            self.canaries.clear();
        }
        self.session = Session { epoch: Some(epoch), connected: true, ..Session::default() };
        self.tell_all(&Event::Epoch(epoch), now)
    }

    fn listed(&mut self, now: Millis) -> Vec<Change> {
        self.session.listing = false;
        let mut changes = Vec::new();
        for (cluster, group) in &mut self.groups {
            let presence = if self.canaries.contains(cluster) { Presence::Seen } else { Presence::Gone };
            changes.extend(to_mesh(group.on(Event::Canary(presence), now)));
            changes.extend(to_mesh(group.on(Event::Listed, now)));
        }
        self.note_synced(now);
        changes.extend(self.forget_removed_peers());
        changes
    }

    /// One revision's changes, or a page of a list. Canaries that went are heard first: when a lease expires, they and
    /// the records go at one revision, and those deletes must not count.
    fn delta(&mut self, revision: i64, upserts: Vec<(String, Bytes)>, gone: &[Gone], now: Millis) -> Vec<Change> {
        let mut changes = Vec::new();
        for Gone { text, key, .. } in gone {
            self.unreadable.remove(text);
            if let OwnKey::Synced(cluster) = key {
                self.canaries.remove(cluster);
                changes.extend(self.tell(&cluster.clone(), Event::Canary(Presence::Gone), now));
            }
        }
        for (text, value) in upserts {
            changes.extend(self.upsert(&text, &value, revision, now));
        }
        for Gone { key, how, .. } in gone {
            if let Some(cluster) = self.writer(key) {
                changes.extend(self.tell(&cluster, how(key.clone()), now));
            }
        }
        self.note_synced(now);
        changes.extend(self.forget_removed_peers());
        changes
    }

    fn upsert(&mut self, text: &str, value: &Bytes, revision: i64, now: Millis) -> Vec<Change> {
        // A key of a newer release is not ours to judge.
        let Some(key) = own::parse_key(text) else { return Vec::new() };
        let record = match own::decode(&key, value) {
            Ok(record) => record,
            Err(error) => {
                tracing::warn!(key = text, error = %error, "unreadable record; its last good version stays");
                self.unreadable.insert(text.to_owned(), error.problem);
                let Some(cluster) = self.writer(&key) else { return Vec::new() };
                return self.tell(&cluster, Event::Unreadable(key), now);
            }
        };
        self.unreadable.remove(text);
        match (key, record) {
            (OwnKey::Cluster, OwnRecord::Cluster(info)) => {
                self.info = Some(info.clone());
                self.info_is_news = true;
                self.keep(OwnKey::Cluster, OwnRecord::Cluster(info)).into_iter().collect()
            }
            (OwnKey::Peer(peer), OwnRecord::Peer(state)) => {
                self.peers.insert(peer.clone(), state.clone());
                self.keep(OwnKey::Peer(peer), OwnRecord::Peer(state)).into_iter().collect()
            }
            (OwnKey::Synced(cluster), _) => {
                self.canaries.insert(cluster.clone());
                // A list says at its end which canaries it found.
                if self.session.listing {
                    return Vec::new();
                }
                self.tell(&cluster, Event::Canary(Presence::Seen), now)
            }
            (key, record) => match self.writer(&key) {
                Some(cluster) => {
                    self.tell(&cluster, Event::Upsert(key, Received { record, revision, value: value.clone() }), now)
                }
                None => Vec::new(),
            },
        }
    }

    fn own_node(&mut self, upserts: Vec<(String, Bytes)>, deletes: &[String]) -> Vec<Change> {
        let mut changes = Vec::new();
        for (text, value) in upserts {
            let Some(key) = own::parse_key(&text) else { continue };
            match own::decode(&key, &value) {
                Ok(record) => changes.extend(self.keep(key, record)),
                Err(error) => tracing::warn!(key = text, error = %error, "unreadable record"),
            }
        }
        if changes.is_empty() && !deletes.is_empty() {
            self.loose.retain(|key, _| !matches!(key, OwnKey::Node(_)));
            changes.push(Change::Node(None));
        }
        changes
    }

    /// What is not held counts as it is said.
    fn keep(&mut self, key: OwnKey, record: OwnRecord) -> Option<Change> {
        let change = match (&key, &record) {
            (OwnKey::Cluster, OwnRecord::Cluster(info)) => Change::Cluster(info.clone()),
            (OwnKey::Peer(peer), OwnRecord::Peer(state)) => Change::Peer(peer.clone(), Some(state.clone())),
            (OwnKey::Node(_), OwnRecord::Node(info)) => Change::Node(Some(info.clone())),
            _ => return None,
        };
        self.loose.insert(key, record);
        Some(change)
    }

    /// Whose canary a record's removal waits for; `None` for what is not held.
    fn writer(&self, key: &OwnKey) -> Option<ClusterName> {
        match key {
            OwnKey::Service(_) | OwnKey::Local { .. } => Some(self.own.clone()),
            OwnKey::Mesh { cluster, .. } => Some(cluster.clone()),
            OwnKey::Heartbeat
            | OwnKey::Cluster
            | OwnKey::Peer(_)
            | OwnKey::Synced(_)
            | OwnKey::Node(_)
            | OwnKey::Refused(_) => None,
        }
    }

    fn tell_all(&mut self, event: &Event<OwnKey, Received>, now: Millis) -> Vec<Change> {
        self.groups.values_mut().flat_map(|group| to_mesh(group.on(event.clone(), now))).collect()
    }

    fn tell(&mut self, cluster: &ClusterName, event: Event<OwnKey, Received>, now: Millis) -> Vec<Change> {
        let (session, canary) = (self.session, self.canaries.contains(cluster));
        let group = self.groups.entry(cluster.clone()).or_insert_with(|| late_group(session, canary, now));
        to_mesh(group.on(event, now))
    }

    fn note_synced(&mut self, now: Millis) {
        let synced = self.groups.get(&self.own).is_some_and(Group::is_synced);
        if synced && self.info.is_some() && self.own_synced_at.is_none() {
            self.own_synced_at = Some(now);
        }
    }

    /// `cluster` lists all configured peers: once the own canary stands in this epoch, whoever it omits is removed.
    fn forget_removed_peers(&mut self) -> Vec<Change> {
        let synced = self.groups.get(&self.own).is_some_and(Group::is_synced);
        let Some(info) = self.info.as_ref().filter(|_| synced && self.info_is_news) else { return Vec::new() };
        self.info_is_news = false;
        let said = self.loose.keys().filter_map(|key| if let OwnKey::Peer(peer) = key { Some(peer) } else { None });
        let known: BTreeSet<_> = self.groups.keys().chain(said).cloned().collect();
        let removed = known.into_iter().filter(|name| *name != self.own && !info.peers.contains(name));
        let mut changes = Vec::new();
        for name in removed.collect::<Vec<_>>() {
            if let Some(mut group) = self.groups.remove(&name) {
                changes.extend(to_mesh(group.release()));
            }
            self.peers.remove(&name);
            self.loose.remove(&OwnKey::Peer(name.clone()));
            self.canaries.remove(&name);
            changes.push(Change::Peer(name, None));
        }
        changes
    }
}

/// Keys of a newer release are not ours to judge.
fn gone(deletes: Vec<String>, expired: Vec<String>) -> Vec<Gone> {
    let deletes = deletes.into_iter().map(|text| (text, Event::Delete as fn(OwnKey) -> _));
    let all = deletes.chain(expired.into_iter().map(|text| (text, Event::Expired as fn(OwnKey) -> _)));
    all.filter_map(|(text, how)| Some(Gone { key: own::parse_key(&text)?, text, how })).collect()
}

const HOLD: HoldConfig = HoldConfig { silent_after_ms: SILENT_AFTER_MS, absent: Absent::Kept, canary: Canary::Awaited };

fn new_group() -> Group {
    Hold::new(HOLD)
}

/// A group that is first heard of while the session is under way: brought to where the others are.
fn late_group(session: Session, canary: bool, now: Millis) -> Group {
    let mut group = new_group();
    let mut tell = |event| {
        // Nothing is held yet, so nothing can change.
        drop(group.on(event, now));
    };
    if let Some(epoch) = session.epoch {
        tell(Event::Epoch(epoch));
    }
    tell(Event::Relisting);
    if !session.listing {
        tell(Event::Listed);
    }
    if canary && !session.listing {
        tell(Event::Canary(Presence::Seen));
    }
    if session.beaten {
        tell(Event::Beat);
    }
    group
}

fn to_mesh(changes: Vec<HeldChange<OwnKey, Received>>) -> Vec<Change> {
    changes.into_iter().filter_map(one_to_mesh).collect()
}

fn one_to_mesh(change: HeldChange<OwnKey, Received>) -> Option<Change> {
    let (key, received) = match change {
        HeldChange::Put(key, received, _) => (key, Some(received)),
        HeldChange::Remove(key) => (key, None),
    };
    let revision = received.as_ref().map_or(0, |received| received.revision);
    let record = received.map(|received| received.record);
    Some(match (key, record) {
        (OwnKey::Service(service), None) => Change::Service(service, None),
        (OwnKey::Service(service), Some(OwnRecord::Service(spec))) => Change::Service(service, Some(spec)),
        (OwnKey::Local { service, slice }, None) => Change::Local { service, slice, value: None, revision },
        (OwnKey::Local { service, slice }, Some(OwnRecord::Local(value))) => {
            Change::Local { service, slice, value: Some(value), revision }
        }
        (OwnKey::Mesh { service, cluster, slice }, record) => {
            let value = match record {
                Some(OwnRecord::Mesh(value)) => Some(value),
                _ => None,
            };
            Change::Remote { service, cluster, slice: SmolStr::clone(&slice), value, standing: Standing::Sure }
        }
        _ => return None,
    })
}

#[cfg(test)]
pub(crate) mod tests;
