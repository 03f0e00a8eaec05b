//! One peer: where its session stands, what its store says, and what of that the own agents get.

mod report;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use smol_str::SmolStr;

use tombolo_core::admit::Ranges;
use tombolo_core::hold::Standing;
use tombolo_core::id::{Addr, ClusterId, ClusterName, Millis, ServiceKey};
use tombolo_core::model::Slice;
use tombolo_core::own::{MeshSlice, OwnKey, OwnRecord, PeerState};
use tombolo_store::SessionEvent;
use tombolo_wire::etcd_config::EtcdConfig;
use tombolo_wire::own;

use super::Whose;
use super::feed::{self, Feed, Reading};
use super::silence::{Session, Silence};
use super::uses::Uses;
use crate::earlier::EarlierPeer;
use crate::writes::{Keys, Write, Written};

/// What a session reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// The cluster-config alone, to learn how to read the rest.
    Probe,
    /// Everything.
    Follow(Reading),
}

/// What is known of who a peer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// It has not said yet.
    Unheard,
    /// Its configuration is good and its id is its own.
    Accepted(Reading),
    /// Its configuration is not good, or its id is somebody else's.
    Refused { id: Option<ClusterId>, reading: Option<Reading>, why: String },
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Link {
    Dialling,
    Up,
    Lost(String),
}

/// One configured peer.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) name: ClusterName,
    /// How it is reached; unknown for a peer of an earlier life of this program whose file has not been seen.
    pub(super) config: Option<EtcdConfig>,
    /// Numbers the sessions, so that the last words of a replaced one are not taken for the new one's.
    pub(super) generation: u64,
    pub(super) plan: Plan,
    pub(super) claim: Claim,
    /// Why its file is gone or broken.
    pub(super) suspended: Option<String>,
    link: Link,
    feed: Option<Feed>,
    /// The feed of a new reading, until it is complete.
    next: Option<Feed>,
    /// What agents have of it from an earlier life of this program, until its first complete set is here.
    earlier: Option<EarlierPeer>,
    silence: Silence,
    said_synced: bool,
    published: Written<ServiceKey>,
    said_state: Option<PeerState>,
    said_refused: Option<bytes::Bytes>,
    report_at: Option<Millis>,
    reported: Millis,
}

/// What a peer's news lead to.
#[derive(Debug, Default)]
pub(super) struct News {
    pub(super) writes: Vec<Write>,
    /// The first complete set of this peer is in the writes.
    pub(super) synced: bool,
}

impl Peer {
    /// A peer that nothing has been heard of yet in this life of the program.
    pub(super) fn new(name: ClusterName, earlier: Option<EarlierPeer>, now: Millis) -> Self {
        Self {
            name,
            config: None,
            generation: 0,
            plan: Plan::Probe,
            claim: Claim::Unheard,
            suspended: None,
            link: Link::Dialling,
            feed: None,
            next: None,
            silence: Silence::new(earlier.as_ref().map(|earlier| &earlier.state), now),
            earlier,
            said_synced: false,
            published: Written::default(),
            said_state: None,
            said_refused: None,
            report_at: None,
            reported: now,
        }
    }

    /// Follows the peer's store with this reading; what an earlier reading brought stays until the new is complete.
    pub(super) fn follow(&mut self, reading: Reading, ranges: Arc<Ranges>) {
        let same = self.feed.as_ref().is_some_and(|feed| feed.reading == reading);
        self.next = None;
        if !same {
            let feed = Feed::new(reading.clone(), ranges, self.silence.stale_after_ms());
            match self.feed {
                Some(_) => self.next = Some(feed),
                None => self.feed = Some(feed),
            }
        }
        self.claim = Claim::Accepted(reading.clone());
        self.plan = Plan::Follow(reading);
    }

    /// Everything it brought leaves.
    pub(super) fn drop_all(&mut self) -> Vec<Write> {
        self.earlier = None;
        self.feed = None;
        self.next = None;
        self.said_synced = false;
        self.published.clear()
    }

    /// What an earlier life of this program had of it under another id leaves.
    pub(super) fn forget_another(&mut self, id: ClusterId) -> Vec<Write> {
        if self.earlier.as_ref().is_none_or(|earlier| earlier.state.id.is_none_or(|before| before == id)) {
            return Vec::new();
        }
        tracing::warn!(peer = %self.name, now = %id, "peer's id is another than in an earlier life: importing anew");
        self.drop_all()
    }

    /// Takes in what its session says, apart from configurations.
    pub(super) fn on(&mut self, event: SessionEvent, uses: &Uses, now: Millis) -> News {
        match &event {
            SessionEvent::Connected { .. } => {
                self.link = Link::Up;
                self.silence.connected(now);
            }
            SessionEvent::Lost { reason } => {
                tracing::warn!(peer = %self.name, %reason, "session lost");
                self.link = Link::Lost(reason.to_string());
            }
            SessionEvent::Heartbeat => self.silence.beat(now),
            SessionEvent::HeartbeatGone => self.silence.beat_gone(),
            _ => {}
        }
        for feed in self.feed.iter_mut().chain(&mut self.next) {
            feed.set_silent_after(self.silence.stale_after_ms());
        }
        let generation = self.generation;
        let told = match (&mut self.next, &mut self.feed) {
            (Some(next), _) => next.on(generation, event, now),
            (None, Some(feed)) => feed.on(generation, event, now),
            (None, None) => {
                self.judge_silence(uses, now);
                return News::default();
            }
        };
        let mut dirty = self.note(told);
        if self.next.as_ref().is_some_and(Feed::is_synced) {
            let old = std::mem::replace(&mut self.feed, self.next.take());
            dirty.extend(old.iter().flat_map(Feed::services).cloned());
            dirty.extend(self.feed.iter().flat_map(Feed::services).cloned());
        } else if self.next.is_some() {
            dirty.clear();
        }
        self.judge_silence(uses, now);
        let mut news = News { writes: self.publish(dirty.iter(), uses), synced: false };
        if !self.said_synced && self.next.is_none() && self.feed.as_ref().is_some_and(Feed::is_synced) {
            self.said_synced = true;
            news.synced = true;
            // What only an earlier life knew of leaves.
            let left: BTreeSet<ServiceKey> = self.earlier.take().into_iter().flat_map(|e| e.mesh.into_keys()).collect();
            news.writes.extend(self.publish(left.iter(), uses));
        }
        news
    }

    /// Its first complete set is here.
    pub(super) fn is_complete(&self) -> bool {
        self.said_synced
    }

    /// Its id is somebody else's.
    pub(super) fn is_refused_its_id(&self) -> bool {
        matches!(self.claim, Claim::Refused { reading: Some(_), .. })
    }

    /// Time has passed.
    pub(super) fn tick(&mut self, uses: &Uses, now: Millis) -> Vec<Write> {
        self.judge_silence(uses, now);
        if let Some(next) = &mut self.next {
            next.tick(now);
        }
        let Some(told) = self.feed.as_mut().map(|feed| feed.tick(now)) else { return Vec::new() };
        let dirty = self.note(told);
        self.publish(dirty.iter(), uses)
    }

    /// What no peer may claim is another now.
    pub(super) fn set_ranges(&mut self, ranges: &Arc<Ranges>, uses: &Uses, now: Millis) -> Vec<Write> {
        if let Some(next) = &mut self.next {
            next.set_ranges(Arc::clone(ranges), now);
        }
        let dirty = self.feed.as_mut().map(|feed| feed.set_ranges(Arc::clone(ranges), now)).unwrap_or_default();
        self.publish(dirty.iter(), uses)
    }

    /// The own agents get what these services can use of this peer.
    pub(super) fn publish<'a>(&mut self, services: impl Iterator<Item = &'a ServiceKey>, uses: &Uses) -> Vec<Write> {
        let (mut deletes, mut puts) = (Vec::new(), Vec::new());
        for service in services {
            let keys = if uses.imports.contains(service) { self.keys(service) } else { Keys::new() };
            self.published.replace(service, keys, &mut deletes, &mut puts);
        }
        deletes.append(&mut puts);
        deletes
    }

    /// The same for all services it has, or has published.
    pub(super) fn publish_all(&mut self, uses: &Uses) -> Vec<Write> {
        let known = self.feed.iter().flat_map(Feed::services).chain(self.published.subjects());
        let all: BTreeSet<ServiceKey> = known.cloned().collect();
        self.publish(all.iter(), uses)
    }

    /// When something could change although nothing is heard.
    pub(super) fn deadline(&self, uses: &Uses, now: Millis) -> Option<Millis> {
        let feeds = self.feed.iter().chain(&self.next).filter_map(Feed::deadline);
        feeds.chain(self.silence.deadline(uses.bounds(), now)).chain(self.report_at).min()
    }

    /// The least silence in milliseconds that counts for this peer, if it brings something to the Service and that is
    /// more than the Service wants to bear.
    pub(super) fn least_beyond(&self, service: &ServiceKey, wanted_ms: u64) -> Option<u64> {
        let brings = self.feed.as_ref().is_some_and(|feed| feed.brings(service));
        self.silence.measured_least_ms().filter(|least| brings && *least > wanted_ms)
    }

    /// Whose an address is, if it says.
    pub(super) fn locate(&self, addr: Addr) -> Option<Whose> {
        let (located, labels) = self.feed.as_ref()?.locate(addr)?;
        Some(Whose {
            cluster: self.name.clone(),
            identity: located.identity,
            labels: labels.map(|labels| labels.labels().to_vec()).unwrap_or_default(),
            namespace: located.namespace.to_string(),
            pod: located.pod.to_string(),
            host: located.host,
        })
    }

    /// The id it is known by.
    pub(super) fn id(&self) -> Option<ClusterId> {
        match &self.claim {
            Claim::Unheard => self.earlier.as_ref().and_then(|earlier| earlier.state.id),
            Claim::Accepted(reading) => Some(reading.peer.id),
            Claim::Refused { id, .. } => *id,
        }
    }

    /// A new session begins.
    pub(super) fn redial(&mut self) -> u64 {
        self.generation += 1;
        self.link = Link::Dialling;
        self.generation
    }

    /// Says loudly what the guard has seen.
    fn note(&self, told: feed::News) -> BTreeSet<ServiceKey> {
        if let Some(sweep) = told.sweep {
            let (removed, of, services) = (sweep.removed, sweep.of, sweep.services);
            tracing::warn!(peer = %self.name, removed, of, services, "peer's backends were swept away: kept, doubtful");
        }
        told.dirty
    }

    fn judge_silence(&mut self, uses: &Uses, now: Millis) {
        let live = self.next.is_none() && self.feed.as_ref().is_some_and(|feed| feed.is_live(now));
        let session = if live { Session::Live } else { Session::Awaited };
        let before = self.silence.told_ms();
        if !self.silence.judge(session, uses.bounds(), now) {
            return;
        }
        match self.silence.told_ms() {
            0 => tracing::info!(peer = %self.name, "peer is heard again"),
            u64::MAX => tracing::warn!(peer = %self.name, "peer's heartbeat was deleted"),
            silent_ms => tracing::warn!(peer = %self.name, silent_ms, before, "peer is silent"),
        }
    }

    /// What an earlier life of this program published for a service, as sure as it was unless its file is gone.
    fn earlier_keys(&self, service: &ServiceKey) -> Keys {
        let left = self.earlier.iter().filter_map(|earlier| earlier.mesh.get(service)).flatten();
        left.map(|(key, record)| {
            let mut record = record.clone();
            record.slice.endpoints.iter_mut().for_each(|endpoint| endpoint.doubtful |= self.suspended.is_some());
            (key.clone(), own::encode(&OwnRecord::Mesh(record)))
        })
        .collect()
    }

    /// What the own agents should have of it for a service.
    fn keys(&self, service: &ServiceKey) -> Keys {
        let mut keys = self.earlier_keys(service);
        let Some(feed) = &self.feed else { return keys };
        let mut slices: BTreeMap<SmolStr, (i64, Slice)> = BTreeMap::new();
        for (share, standing) in feed.shares(service) {
            let doubtful = self.suspended.is_some() || *standing != Standing::Sure;
            let (_, slice) = slices.entry(share.name.clone()).or_insert((share.revision, Slice::default()));
            slice.endpoints.extend(share.slice.endpoints.iter().cloned().map(|mut endpoint| {
                endpoint.doubtful |= doubtful;
                endpoint
            }));
        }
        for ghost in feed.ghosts(service) {
            let (_, slice) = slices.entry(ghost.slice.clone()).or_insert((ghost.revision, Slice::default()));
            slice.endpoints.push(ghost.endpoint.clone());
        }
        for (base, (revision, mut slice)) in slices {
            slice.endpoints.retain(|endpoint| feed.admits(endpoint.addr));
            for (name, part) in own::split(slice, &base) {
                let key = OwnKey::Mesh { service: service.clone(), cluster: self.name.clone(), slice: name };
                let record = MeshSlice { cluster_id: feed.reading.peer.id, revision, slice: part };
                keys.insert(own::key_to_string(&key), own::encode(&OwnRecord::Mesh(record)));
            }
        }
        keys
    }
}
