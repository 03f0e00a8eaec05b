//! Everything one peer's store says under one understanding of it: its id, and which of its two forms is read.
//!
//! A peer that changes its form gets a second feed, and the first is used until the second is complete.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use smol_str::SmolStr;
use tombolo_core::admit::{Admission, Admitted, Outcome, Ranges, Refusal, Rule};
use tombolo_core::hold::{Canary, Change, Presence, Standing};
use tombolo_core::id::{Epoch, Millis, Revision, ServiceKey};
use tombolo_core::model::Slice;
use tombolo_core::record::Record;
use tombolo_store::SessionEvent;
use tombolo_wire::cilium::key::Kind;
use tombolo_wire::cilium::{self, DecodeError, PeerIdentity};

use super::refused::Refused;
use super::track::{Changes, Judged, Track};

/// How a peer's store is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Whose it is.
    pub peer: PeerIdentity,
    /// Which form of its services is read.
    pub form: Form,
    /// Where its records are.
    pub root: Root,
    /// Whether it says when its first sets are complete.
    pub canaries: Canary,
}

/// The two forms of a service. Never both for one peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `services/v1`.
    Services,
    /// `endpointslices/v1`.
    Slices,
}

/// Where a store has a cluster's records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Root {
    /// `cilium/state/`: the cluster's own store.
    State,
    /// `cilium/cache/`: somebody's copy of it.
    Cache,
}

/// Services before nodes: the order of a session's watches.
const SERVICES: usize = 0;

impl Reading {
    /// The kinds that are watched, in the order of the session's watches.
    pub fn kinds(&self) -> [Kind; 2] {
        match self.form {
            Form::Services => [Kind::Services, Kind::Nodes],
            Form::Slices => [Kind::EndpointSlices, Kind::Nodes],
        }
    }

    /// A kind's prefix and canary in the peer's store.
    pub fn place(&self, kind: Kind) -> (String, Option<String>) {
        let name = &self.peer.name;
        let (prefix, canary) = match self.root {
            Root::State => (kind.state_prefix(name), kind.canary(name)),
            Root::Cache => (kind.cache_prefix(name), kind.cache_canary(name)),
        };
        (prefix, (self.canaries == Canary::Awaited).then_some(canary))
    }
}

/// An admitted record of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Share {
    pub(super) service: ServiceKey,
    /// The slice's name among the service's.
    pub(super) name: SmolStr,
    pub(super) slice: Arc<Slice>,
    /// The revision of the peer's store that brought this content.
    pub(super) revision: i64,
}

/// One peer's records.
#[derive(Debug)]
pub(super) struct Feed {
    pub(super) reading: Reading,
    admission: Admission,
    services: Track<Share>,
    nodes: Track<()>,
    by_service: BTreeMap<ServiceKey, BTreeSet<String>>,
    /// The service of each held record, and how many endpoints it has.
    of_key: BTreeMap<String, (ServiceKey, usize)>,
    endpoints: usize,
    pub(super) refused: Refused,
    /// The last session's generation and epoch, and the number both together have here.
    epoch: Option<((u64, Epoch), u64)>,
}

/// Services whose endpoints may have changed.
pub(super) type Dirty = BTreeSet<ServiceKey>;

impl Feed {
    pub(super) fn new(reading: Reading, ranges: Arc<Ranges>, silent_after_ms: u64) -> Self {
        let admission = Admission::new(reading.peer.name.clone(), reading.peer.id, ranges);
        Self {
            services: Track::new(reading.canaries, silent_after_ms),
            nodes: Track::new(reading.canaries, silent_after_ms),
            reading,
            admission,
            by_service: BTreeMap::new(),
            of_key: BTreeMap::new(),
            endpoints: 0,
            refused: Refused::default(),
            epoch: None,
        }
    }

    /// Takes in what the session of this generation says.
    pub(super) fn on(&mut self, generation: u64, event: SessionEvent, now: Millis) -> Dirty {
        let mut dirty = Dirty::new();
        match event {
            SessionEvent::Connected { epoch } => {
                let epoch = self.number(generation, epoch);
                let changes = self.services.epoch(epoch, now);
                self.take(changes, &mut dirty);
                self.nodes.epoch(epoch, now);
            }
            SessionEvent::Relisting { watch: SERVICES, .. } => {
                let changes = self.services.relisting(&mut self.refused, now);
                self.take(changes, &mut dirty);
            }
            SessionEvent::Relisting { .. } => drop(self.nodes.relisting(&mut self.refused, now)),
            SessionEvent::Delta { watch, revision, upserts, mut deletes, expired, .. } => {
                deletes.extend(expired);
                self.delta(watch, revision, upserts, &deletes, now, &mut dirty);
            }
            SessionEvent::Listed { watch: SERVICES, .. } => {
                let changes = self.services.listed(now);
                self.take(changes, &mut dirty);
            }
            SessionEvent::Listed { .. } => drop(self.nodes.listed(now)),
            SessionEvent::CanarySeen { watch } => self.canary(watch, Presence::Seen, now, &mut dirty),
            SessionEvent::CanaryGone { watch } => self.canary(watch, Presence::Gone, now, &mut dirty),
            SessionEvent::Heartbeat => {
                let changes = self.services.beat(now);
                self.take(changes, &mut dirty);
                self.nodes.beat(now);
            }
            SessionEvent::HeartbeatGone => {
                let changes = self.services.beat_gone(now);
                self.take(changes, &mut dirty);
                self.nodes.beat_gone(now);
            }
            SessionEvent::Lost { .. } => {
                let changes = self.services.lost(now);
                self.take(changes, &mut dirty);
                self.nodes.lost(now);
            }
            SessionEvent::Config { .. } => {}
        }
        dirty
    }

    /// A silent peer's deletes do not count: from when on it is silent.
    pub(super) fn set_silent_after(&mut self, ms: u64) {
        self.services.set_silent_after(ms);
        self.nodes.set_silent_after(ms);
    }

    /// What no peer may claim is another now: everything is judged again.
    pub(super) fn set_ranges(&mut self, ranges: Arc<Ranges>, now: Millis) -> Dirty {
        let peer = &self.reading.peer;
        self.admission = Admission::new(peer.name.clone(), peer.id, ranges);
        let mut dirty = Dirty::new();
        let raw = |(key, (value, revision)): (&String, &(Bytes, i64))| (key.clone(), value.clone(), *revision);
        let all: Vec<_> = self.services.raw().iter().map(raw).collect();
        for (key, value, revision) in all {
            self.put_service(&key, value, revision, now, &mut dirty);
        }
        let all: Vec<_> = self.nodes.raw().iter().map(raw).collect();
        for (key, value, revision) in all {
            self.put_node(&key, value, revision, now);
        }
        dirty
    }

    /// The peer's first complete set of services is here.
    pub(super) fn is_synced(&self) -> bool {
        self.services.hold().is_synced()
    }

    /// The list is complete and the peer was heard since its session came back.
    pub(super) fn is_live(&self, now: Millis) -> bool {
        self.services.hold().awaits(now).is_none()
    }

    /// All services it has endpoints or records for.
    pub(super) fn services(&self) -> impl Iterator<Item = &ServiceKey> {
        self.by_service.keys()
    }

    /// What it brings to a service, and whether it is believed.
    pub(super) fn shares(&self, service: &ServiceKey) -> impl Iterator<Item = (&Share, Standing)> {
        let keys = self.by_service.get(service).into_iter().flatten();
        keys.filter_map(|key| self.services.hold().get(key))
    }

    /// Services, endpoints and nodes.
    pub(super) fn counts(&self) -> (usize, usize, usize) {
        (self.by_service.len(), self.endpoints, self.nodes.hold().len())
    }

    /// Sessions number their epochs on their own; another session may have another store.
    fn number(&mut self, generation: u64, epoch: Epoch) -> Epoch {
        let number = match self.epoch {
            Some((last, number)) if last == (generation, epoch) => number,
            Some((_, number)) => number + 1,
            None => 1,
        };
        self.epoch = Some(((generation, epoch), number));
        Epoch(number)
    }

    fn canary(&mut self, watch: usize, presence: Presence, now: Millis, dirty: &mut Dirty) {
        if watch == SERVICES {
            let changes = self.services.canary(presence, now);
            self.take(changes, dirty);
        } else {
            self.nodes.canary(presence, now);
        }
    }

    fn delta(
        &mut self,
        watch: usize,
        revision: Revision,
        upserts: Vec<(String, Bytes)>,
        deletes: &[String],
        now: Millis,
        dirty: &mut Dirty,
    ) {
        for (key, value) in upserts {
            match watch {
                SERVICES => self.put_service(&key, value, revision.0, now, dirty),
                _ => self.put_node(&key, value, revision.0, now),
            }
        }
        for key in deletes {
            if watch == SERVICES {
                let changes = self.services.delete(key, &mut self.refused, now);
                self.take(changes, dirty);
            } else {
                self.nodes.delete(key, &mut self.refused, now);
            }
        }
    }

    fn put_service(&mut self, key: &str, value: Bytes, revision: i64, now: Millis, dirty: &mut Dirty) {
        let judged = self.judge_service(key, &value, revision);
        let changes = self.services.put(key, (value, revision), judged, &mut self.refused, now);
        self.take(changes, dirty);
    }

    fn put_node(&mut self, key: &str, value: Bytes, revision: i64, now: Millis) {
        let judged = self.judge_node(key, &value);
        self.nodes.put(key, (value, revision), judged, &mut self.refused, now);
    }

    fn judge_service(&self, key: &str, value: &[u8], revision: i64) -> Judged<Share> {
        let [kind, _] = self.reading.kinds();
        let suffix = self.suffix(kind, key);
        let outcome = match cilium::decode(kind, key, value, &self.reading.peer) {
            Ok(Record::Service(record)) => self.admission.service(suffix, &record),
            Ok(Record::Slice(record)) => self.admission.slice(suffix, &record).map(Outcome::Admitted),
            Ok(Record::Node(_)) => Ok(Outcome::Deleted(ServiceKey::new("", ""))),
            Err(error) => return undecodable(&error),
        };
        match outcome {
            Ok(Outcome::Admitted(Admitted { service, name, slice, refusals })) => {
                let mut share = Share { service, name, slice: Arc::new(slice), revision };
                // A relist brings every record again; one that says the same is not news.
                if let Some((old, _)) = self.services.hold().get(&key.to_owned()) {
                    let same = (&old.service, &old.name, &old.slice) == (&share.service, &share.name, &share.slice);
                    share.revision = if same { old.revision } else { revision };
                }
                Judged::Admitted(share, refusals)
            }
            Ok(Outcome::Deleted(_)) => Judged::Deleted,
            Err(refusal) => Judged::Refused(refusal),
        }
    }

    fn judge_node(&self, key: &str, value: &[u8]) -> Judged<()> {
        let record = match cilium::decode(Kind::Nodes, key, value, &self.reading.peer) {
            Ok(Record::Node(record)) => record,
            Ok(Record::Service(_) | Record::Slice(_)) => return Judged::Deleted,
            Err(error) => return undecodable(&error),
        };
        match self.admission.node(self.suffix(Kind::Nodes, key), &record) {
            Ok(node) => Judged::Admitted((), node.refusals),
            Err(refusal) => Judged::Refused(refusal),
        }
    }

    fn suffix<'a>(&self, kind: Kind, key: &'a str) -> &'a str {
        key.strip_prefix(&self.reading.place(kind).0).unwrap_or(key)
    }

    /// Keeps the indexes in step with the held view.
    fn take(&mut self, changes: Changes<Share>, dirty: &mut Dirty) {
        for change in changes {
            let (key, share) = match change {
                Change::Put(key, share, _) => (key, Some(share)),
                Change::Remove(key) => (key, None),
            };
            if let Some((former, endpoints)) = self.of_key.remove(&key) {
                self.endpoints -= endpoints;
                if share.as_ref().is_none_or(|share| share.service != former) {
                    self.unlink(&key, &former);
                }
                dirty.insert(former);
            }
            if let Some(share) = share {
                let endpoints = share.slice.endpoints.len();
                self.endpoints += endpoints;
                self.by_service.entry(share.service.clone()).or_default().insert(key.clone());
                dirty.insert(share.service.clone());
                self.of_key.insert(key, (share.service, endpoints));
            }
        }
    }

    fn unlink(&mut self, key: &str, service: &ServiceKey) {
        if let Some(keys) = self.by_service.get_mut(service) {
            keys.remove(key);
            if keys.is_empty() {
                self.by_service.remove(service);
            }
        }
    }
}

/// What Cilium's readers reject is refused; what cannot be read at all leaves the last good version in place.
fn undecodable<V>(error: &DecodeError) -> Judged<V> {
    let rule = match error {
        DecodeError::TooLarge => Rule::TooLarge,
        DecodeError::ClusterName { .. } => Rule::ClusterName,
        DecodeError::OtherClusterId { .. } | DecodeError::ClusterId(_) => Rule::ClusterId,
        DecodeError::Name { .. } | DecodeError::Key { .. } => Rule::KeyMismatch,
        DecodeError::NullPort { .. } => Rule::NullPort,
        _ => return Judged::Unreadable(Refusal { rule: Rule::Undecodable, detail: error.to_string() }),
    };
    Judged::Refused(Refusal { rule, detail: error.to_string() })
}
