//! One peer: where its session stands, what its store says, and what of that the own agents get.

use std::collections::BTreeSet;
use std::sync::Arc;

use tombolo_core::admit::Ranges;
use tombolo_core::hold::Standing;
use tombolo_core::id::{ClusterId, ClusterName, Millis, ServiceKey};
use tombolo_core::own::{MeshSlice, OwnKey, OwnRecord, PeerCounts, PeerSession, PeerState};
use tombolo_core::report::PeerStatus;
use tombolo_store::SessionEvent;
use tombolo_wire::etcd_config::EtcdConfig;
use tombolo_wire::own;

use super::feed::{Feed, Reading};
use crate::writes::{Keys, Write, Written};

/// Silence after which a peer is stale that beats at least every [`FAST_BEAT_MS`], or that was never reached.
pub(super) const STALE_FAST_MS: u64 = 30_000;
/// The same for every other peer.
pub(super) const STALE_SLOW_MS: u64 = 180_000;
const FAST_BEAT_MS: u64 = 10_000;
/// Counts of `peers/<c>`, and `refused/<c>`, are rewritten at most this often: each write reaches every agent.
const REPORT_MS: u64 = 5_000;
/// Names of unused imports that status lists.
const UNUSED: usize = 1_000;

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
    pub(super) config: EtcdConfig,
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
    /// Since when it has been silent: the last heartbeat, else when it was met.
    heard: Millis,
    beats: u32,
    silent_after_ms: u64,
    stale: bool,
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
    pub(super) fn new(name: ClusterName, config: EtcdConfig, now: Millis) -> Self {
        Self {
            name,
            config,
            generation: 0,
            plan: Plan::Probe,
            claim: Claim::Unheard,
            suspended: None,
            link: Link::Dialling,
            feed: None,
            next: None,
            heard: now,
            beats: 0,
            silent_after_ms: STALE_FAST_MS,
            stale: false,
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
            let feed = Feed::new(reading.clone(), ranges, self.silent_after_ms);
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
        self.feed = None;
        self.next = None;
        self.said_synced = false;
        self.published.clear()
    }

    /// Takes in what its session says, apart from configurations.
    pub(super) fn on(&mut self, event: SessionEvent, imports: &BTreeSet<ServiceKey>, now: Millis) -> News {
        let was_stale = self.stale;
        match &event {
            SessionEvent::Connected { .. } => {
                self.link = Link::Up;
                if self.beats == 0 {
                    self.set_silent_after(STALE_SLOW_MS);
                }
                if !self.said_synced {
                    // The first contact counts as fresh.
                    self.heard = now;
                    self.stale = false;
                }
            }
            SessionEvent::Lost { reason } => {
                tracing::warn!(peer = %self.name, %reason, "session lost");
                self.link = Link::Lost(reason.to_string());
            }
            SessionEvent::Heartbeat => self.beat(now),
            SessionEvent::HeartbeatGone => self.stale = true,
            _ => {}
        }
        let generation = self.generation;
        let mut dirty = match (&mut self.next, &mut self.feed) {
            (Some(next), _) => next.on(generation, event, now),
            (None, Some(feed)) => feed.on(generation, event, now),
            (None, None) => return News::default(),
        };
        if self.next.as_ref().is_some_and(Feed::is_synced) {
            let old = std::mem::replace(&mut self.feed, self.next.take());
            dirty.extend(old.iter().flat_map(Feed::services).cloned());
            dirty.extend(self.feed.iter().flat_map(Feed::services).cloned());
        } else if self.next.is_some() {
            dirty.clear();
        }
        let mut news = News::default();
        self.judge_silence(now);
        if self.stale != was_stale {
            tracing::info!(peer = %self.name, stale = self.stale, "peer's standing changed");
            news.writes = self.publish_all(imports);
        } else {
            news.writes = self.publish(dirty.iter(), imports);
        }
        if !self.said_synced && self.next.is_none() && self.feed.as_ref().is_some_and(Feed::is_synced) {
            self.said_synced = true;
            news.synced = true;
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
    pub(super) fn tick(&mut self, imports: &BTreeSet<ServiceKey>, now: Millis) -> Vec<Write> {
        let was_stale = self.stale;
        self.judge_silence(now);
        if self.stale == was_stale {
            return Vec::new();
        }
        tracing::warn!(peer = %self.name, silent_ms = now.since(self.heard), "peer is silent");
        self.publish_all(imports)
    }

    /// What no peer may claim is another now.
    pub(super) fn set_ranges(
        &mut self,
        ranges: &Arc<Ranges>,
        imports: &BTreeSet<ServiceKey>,
        now: Millis,
    ) -> Vec<Write> {
        if let Some(next) = &mut self.next {
            next.set_ranges(Arc::clone(ranges), now);
        }
        let dirty = self.feed.as_mut().map(|feed| feed.set_ranges(Arc::clone(ranges), now)).unwrap_or_default();
        self.publish(dirty.iter(), imports)
    }

    /// The own agents get what these services can use of this peer.
    pub(super) fn publish<'a>(
        &mut self,
        services: impl Iterator<Item = &'a ServiceKey>,
        imports: &BTreeSet<ServiceKey>,
    ) -> Vec<Write> {
        let (mut deletes, mut puts) = (Vec::new(), Vec::new());
        for service in services {
            let keys = if imports.contains(service) { self.keys(service) } else { Keys::new() };
            self.published.replace(service, keys, &mut deletes, &mut puts);
        }
        deletes.append(&mut puts);
        deletes
    }

    /// The same for all services it has, or has published.
    pub(super) fn publish_all(&mut self, imports: &BTreeSet<ServiceKey>) -> Vec<Write> {
        let known = self.feed.iter().flat_map(Feed::services).chain(self.published.subjects());
        let all: BTreeSet<ServiceKey> = known.cloned().collect();
        self.publish(all.iter(), imports)
    }

    /// When something could change although nothing is heard.
    pub(super) fn deadline(&self) -> Option<Millis> {
        let silence = (!self.stale).then(|| self.heard.after(self.silent_after_ms));
        [silence, self.report_at].into_iter().flatten().min()
    }

    /// Its state as agents read it: `silent_ms` is 0 until the peer is stale, so that what an agent reads in a record
    /// written for another reason is not taken for a judgement.
    pub(super) fn reports(&mut self, now: Millis) -> Vec<Write> {
        let mut state = self.state(now);
        state.silent_ms = if self.stale { state.silent_ms.max(state.stale_after_ms) } else { 0 };
        let due = now.since(self.reported) >= REPORT_MS;
        let urgent = match &self.said_state {
            None => true,
            Some(said) => {
                (said.id, said.session, &said.detail, said.silent_ms == 0)
                    != (state.id, state.session, &state.detail, state.silent_ms == 0)
            }
        };
        if !urgent && self.stale {
            // The age alone is no news.
            state.silent_ms = self.said_state.as_ref().map_or(state.silent_ms, |said| said.silent_ms);
        }
        let mut writes = Vec::new();
        let changed = self.said_state.as_ref() != Some(&state);
        if urgent || (due && changed) {
            let key = own::key_to_string(&OwnKey::Peer(self.name.clone()));
            writes.push(Write::Put(key, own::encode(&OwnRecord::Peer(state.clone()))));
            self.said_state = Some(state);
        }
        let refused = own::encode(&OwnRecord::Refused(self.refused()));
        let refused_changed = self.said_refused.as_ref() != Some(&refused);
        if refused_changed && (due || self.said_refused.is_none()) {
            let key = own::key_to_string(&OwnKey::Refused(self.name.clone()));
            writes.push(Write::Put(key, refused.clone()));
            self.said_refused = Some(refused);
        }
        if !writes.is_empty() {
            self.reported = now;
        }
        let pending = (changed && !urgent && !due) || (refused_changed && self.said_refused.is_some() && !due);
        self.report_at = pending.then(|| self.reported.after(REPORT_MS));
        writes
    }

    /// Its keys that are not of a service, deleted.
    pub(super) fn farewell(&self) -> Vec<Write> {
        let keys = [OwnKey::Peer(self.name.clone()), OwnKey::Refused(self.name.clone())];
        keys.iter().map(|key| Write::Delete(own::key_to_string(key))).collect()
    }

    /// Its state, with its true age.
    pub(super) fn state(&self, now: Millis) -> PeerState {
        let (session, detail) = self.session();
        let feed = self.feed.as_ref();
        let (services, endpoints, nodes) = feed.map(Feed::counts).unwrap_or_default();
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        PeerState {
            id: self.id(),
            session,
            silent_ms: now.since(self.heard),
            stale_after_ms: self.silent_after_ms,
            least_stale_ms: 0,
            detail,
            counts: PeerCounts {
                services: count(services),
                endpoints: count(endpoints),
                nodes: count(nodes),
                refused: feed.map_or(0, |feed| feed.refused.total()),
            },
        }
    }

    /// Everything about it, for people.
    pub(super) fn status(&self, imports: &BTreeSet<ServiceKey>, now: Millis) -> PeerStatus {
        let services = self.feed.iter().flat_map(Feed::services);
        PeerStatus {
            name: self.name.clone(),
            state: self.state(now),
            refused: self.refused(),
            unused_imports: services.filter(|key| !imports.contains(key)).take(UNUSED).cloned().collect(),
        }
    }

    /// The id it is known by.
    pub(super) fn id(&self) -> Option<ClusterId> {
        match &self.claim {
            Claim::Unheard => None,
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

    fn refused(&self) -> tombolo_core::own::RefusedReport {
        self.feed.as_ref().map(|feed| feed.refused.report()).unwrap_or_default()
    }

    fn session(&self) -> (PeerSession, String) {
        if let Claim::Refused { why, .. } = &self.claim {
            return (PeerSession::Refused, why.clone());
        }
        let synced = self.feed.as_ref().is_some_and(Feed::is_synced) && self.next.is_none();
        let (session, mut detail) = match (&self.link, &self.claim) {
            (Link::Lost(why), _) if self.said_synced => (PeerSession::Lost, why.clone()),
            (Link::Lost(why), _) => (PeerSession::Connecting, why.clone()),
            (Link::Dialling, _) if self.said_synced => (PeerSession::Lost, "connecting again".to_owned()),
            (Link::Dialling, _) => (PeerSession::Connecting, "connecting".to_owned()),
            (Link::Up, Claim::Accepted(_)) if synced => (PeerSession::Ready, String::new()),
            (Link::Up, Claim::Accepted(_)) => (PeerSession::Connecting, "waiting for a complete set".to_owned()),
            (Link::Up, _) => (PeerSession::Connecting, "connected, waiting for its cluster-config".to_owned()),
        };
        if let Some(why) = &self.suspended {
            let sep = if detail.is_empty() { "" } else { "; " };
            detail = format!("{detail}{sep}its configuration: {why}");
        }
        if detail.is_empty() && self.stale {
            detail = "no heartbeat".to_owned();
        }
        (session, detail)
    }

    fn beat(&mut self, now: Millis) {
        let interval = now.since(self.heard);
        if self.beats > 0 {
            self.set_silent_after(if interval <= FAST_BEAT_MS { STALE_FAST_MS } else { STALE_SLOW_MS });
        }
        self.beats = self.beats.saturating_add(1);
        self.heard = now;
    }

    fn set_silent_after(&mut self, ms: u64) {
        self.silent_after_ms = ms;
        for feed in self.feed.iter_mut().chain(&mut self.next) {
            feed.set_silent_after(ms);
        }
    }

    /// A silent peer is stale; it is fresh again only with a complete list and a heartbeat since its session came back.
    fn judge_silence(&mut self, now: Millis) {
        let live = self.feed.as_ref().is_some_and(|feed| feed.is_live(now));
        let silent = now.since(self.heard) >= self.silent_after_ms;
        self.stale = silent || (self.stale && !live);
    }

    fn keys(&self, service: &ServiceKey) -> Keys {
        let mut keys = Keys::new();
        let Some(feed) = &self.feed else { return keys };
        for (share, standing) in feed.shares(service) {
            let mut slice = share.slice.as_ref().clone();
            let doubtful = self.stale || self.suspended.is_some() || standing != Standing::Sure;
            slice.endpoints.iter_mut().for_each(|endpoint| endpoint.doubtful |= doubtful);
            for (name, part) in own::split(slice, &share.name) {
                let key = OwnKey::Mesh { service: service.clone(), cluster: self.name.clone(), slice: name };
                let id = feed.reading.peer.id;
                let record = MeshSlice { cluster_id: id, revision: share.revision, slice: part };
                keys.insert(own::key_to_string(&key), own::encode(&OwnRecord::Mesh(record)));
            }
        }
        keys
    }
}
