//! Everything one peer's store says under one understanding of it: its id, and which of its two forms is read. Of its
//! services here; what else it says is in `members`.
//!
//! A peer that changes its form gets a second feed, and the first is used until the second is complete.

mod index;

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use smol_str::SmolStr;
use tombolo_core::admit::{Admission, Admitted, Outcome, Ranges, Refusal, Rule};
use tombolo_core::hold::guard::{Cause, Ghost, Sweep};
use tombolo_core::hold::{Canary, Presence, Standing};
use tombolo_core::id::{Addr, Epoch, Millis, ServiceKey};
use tombolo_core::identity::LabelSet;
use tombolo_core::model::Slice;
use tombolo_core::own::PeerCounts;
use tombolo_core::record::Record;
use tombolo_store::SessionEvent;
use tombolo_wire::cilium::key::Kind;
use tombolo_wire::cilium::{self, DecodeError, PeerIdentity};

use self::index::Index;
use super::members::{Judge, Located, Members};
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

/// Services are the first of a session's watches.
const SERVICES: usize = 0;

impl Reading {
    /// The kinds that are watched, in the order of the session's watches.
    pub fn kinds(&self) -> [Kind; 4] {
        let services = match self.form {
            Form::Services => Kind::Services,
            Form::Slices => Kind::EndpointSlices,
        };
        [services, Kind::Nodes, Kind::Identities, Kind::Ip]
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
    ranges: Arc<Ranges>,
    services: Track<Share>,
    members: Members,
    index: Index,
    pub(super) refused: Refused,
    /// The last session's generation and epoch, and the number both together have here.
    epoch: Option<((u64, Epoch), u64)>,
}

/// Services whose endpoints may have changed.
pub(super) type Dirty = BTreeSet<ServiceKey>;

/// What an event leads to.
#[derive(Debug, Default)]
pub(super) struct News {
    pub(super) dirty: Dirty,
    /// The guard has just brought something back.
    pub(super) sweep: Option<Sweep>,
}

impl Feed {
    pub(super) fn new(reading: Reading, ranges: Arc<Ranges>, silent_after_ms: u64) -> Self {
        let admission = admission(&reading.peer, &ranges);
        Self {
            ranges,
            services: Track::new(reading.canaries, silent_after_ms),
            members: Members::new(reading.canaries, silent_after_ms),
            reading,
            admission,
            index: Index::default(),
            refused: Refused::default(),
            epoch: None,
        }
    }

    /// Takes in what the session of this generation says.
    pub(super) fn on(&mut self, generation: u64, event: SessionEvent, now: Millis) -> News {
        let mut news = News::default();
        self.hear(generation, event, now, &mut news.dirty);
        news.sweep = self.index.judge(&mut news.dirty, now);
        news
    }

    /// Time has passed.
    pub(super) fn tick(&mut self, now: Millis) -> News {
        let mut news = News::default();
        let changes = self.services.tick(now);
        self.take(changes, &mut news.dirty, now);
        self.members.tick(now);
        news.sweep = self.index.judge(&mut news.dirty, now);
        news
    }

    /// When [`Self::tick`] is due.
    pub(super) fn deadline(&self) -> Option<Millis> {
        let all = [self.services.hold().deadline(), self.members.deadline(), self.index.deadline()];
        all.into_iter().flatten().min()
    }

    fn hear(&mut self, generation: u64, event: SessionEvent, now: Millis, dirty: &mut Dirty) {
        let epoch = match &event {
            SessionEvent::Connected { epoch } => self.number(generation, *epoch),
            _ => Epoch::default(),
        };
        self.members.signal(&event, epoch, &self.reading, &mut self.refused, now);
        match event {
            SessionEvent::Connected { .. } => {
                let changes = self.services.epoch(epoch, now);
                self.take(changes, dirty, now);
            }
            SessionEvent::Relisting { watch: SERVICES, .. } => {
                let changes = self.services.relisting(&mut self.refused, now);
                self.take(changes, dirty, now);
            }
            SessionEvent::Delta { watch: SERVICES, revision, upserts, deletes, expired, .. } => {
                self.services_changed(revision.0, upserts, (&deletes, &expired), now, dirty);
            }
            SessionEvent::Delta { watch, revision, upserts, deletes, expired, .. } => {
                let judge = Judge { reading: &self.reading, admission: &self.admission };
                let records = (upserts, &deletes[..], &expired[..]);
                self.members.changed(watch, revision.0, records, judge, &mut self.refused, now);
            }
            SessionEvent::Listed { watch: SERVICES, .. } => {
                let changes = self.services.listed(now);
                self.take(changes, dirty, now);
            }
            SessionEvent::CanarySeen { watch: SERVICES } => {
                let changes = self.services.canary(Presence::Seen, now);
                self.take(changes, dirty, now);
            }
            SessionEvent::CanaryGone { watch: SERVICES } => {
                let changes = self.services.canary(Presence::Gone, now);
                self.take(changes, dirty, now);
            }
            SessionEvent::Heartbeat => {
                let changes = self.services.beat(now);
                self.take(changes, dirty, now);
            }
            SessionEvent::HeartbeatGone => {
                let changes = self.services.beat_gone(now);
                self.take(changes, dirty, now);
            }
            SessionEvent::Lost { .. } => {
                let changes = self.services.lost(now);
                self.take(changes, dirty, now);
            }
            SessionEvent::Config { .. }
            | SessionEvent::Relisting { .. }
            | SessionEvent::Listed { .. }
            | SessionEvent::CanarySeen { .. }
            | SessionEvent::CanaryGone { .. } => {}
        }
    }

    /// A silent peer's deletes do not count: from when on it is silent.
    pub(super) fn set_silent_after(&mut self, ms: u64) {
        self.services.set_silent_after(ms);
        self.members.set_silent_after(ms);
    }

    /// What no peer may claim is another now: everything is judged again.
    pub(super) fn set_ranges(&mut self, ranges: Arc<Ranges>, now: Millis) -> Dirty {
        self.admission = admission(&self.reading.peer, &ranges);
        self.ranges = ranges;
        let mut dirty = Dirty::new();
        let raw = |(key, (value, revision)): (&String, &(Bytes, i64))| (key.clone(), value.clone(), *revision);
        let all: Vec<_> = self.services.raw().iter().map(raw).collect();
        for (key, value, revision) in all {
            self.put_service(&key, value, revision, (Cause::Decided, now), &mut dirty);
        }
        let judge = Judge { reading: &self.reading, admission: &self.admission };
        self.members.set_ranges(judge, &mut self.refused, now);
        let ranges = &self.ranges;
        self.index.refuse(|endpoint| ranges.refuses(endpoint.addr));
        self.index.judge(&mut dirty, now);
        // What is held although it is not there any more, or not listed again yet, is judged where it is published.
        dirty.extend(self.index.services().cloned());
        dirty
    }

    /// Whether this address may be published at all.
    pub(super) fn admits(&self, addr: Addr) -> bool {
        !self.ranges.refuses(addr)
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
        self.index.services()
    }

    /// Whether it brings anything to the service.
    pub(super) fn brings(&self, service: &ServiceKey) -> bool {
        self.index.has(service)
    }

    /// What it brings to a service, and whether it is believed.
    pub(super) fn shares(&self, service: &ServiceKey) -> impl Iterator<Item = &(Share, Standing)> {
        self.index.shares(service)
    }

    /// What the guard keeps of a service.
    pub(super) fn ghosts(&self, service: &ServiceKey) -> impl Iterator<Item = &Ghost> {
        self.index.ghosts(service)
    }

    /// What the guard has seen last, while it keeps something of it, and how many backends that is.
    pub(super) fn guarded(&self) -> (Option<Sweep>, usize) {
        self.index.guarded()
    }

    /// How much it brings.
    pub(super) fn counts(&self) -> PeerCounts {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let ((services, endpoints), (identities, addresses)) = (self.index.counts(), self.members.counts());
        PeerCounts {
            services: count(services),
            endpoints: count(endpoints),
            nodes: count(self.members.nodes.hold().len()),
            identities: count(identities),
            addresses: count(addresses),
            refused: self.refused.total(),
        }
    }

    /// Whose an address is, and the labels behind its identity.
    pub(super) fn locate(&self, addr: Addr) -> Option<(&Located, Option<&LabelSet>)> {
        self.members.locate(addr)
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

    fn services_changed(
        &mut self,
        revision: i64,
        upserts: Vec<(String, Bytes)>,
        (deletes, expired): (&[String], &[String]),
        now: Millis,
        dirty: &mut Dirty,
    ) {
        for (key, value) in upserts {
            self.put_service(&key, value, revision, (Cause::Said, now), dirty);
        }
        for key in deletes {
            let changes = self.services.delete(key, &mut self.refused, now);
            self.take(changes, dirty, now);
        }
        for key in expired {
            let changes = self.services.expire(key, &mut self.refused, now);
            self.take(changes, dirty, now);
        }
    }

    fn put_service(
        &mut self,
        key: &str,
        value: Bytes,
        revision: i64,
        (cause, now): (Cause, Millis),
        dirty: &mut Dirty,
    ) {
        let judged = self.judge_service(key, &value, revision);
        let cause = if matches!(judged, Judged::Refused(_)) { Cause::Decided } else { cause };
        let changes = self.services.put(key, (value, revision), judged, &mut self.refused, now);
        self.index.take(changes, cause, dirty, now);
    }

    fn judge_service(&self, key: &str, value: &[u8], revision: i64) -> Judged<Share> {
        let kind = self.reading.kinds()[SERVICES];
        let suffix = Judge { reading: &self.reading, admission: &self.admission }.suffix(kind, key);
        let outcome = match cilium::decode(kind, key, value, &self.reading.peer) {
            Ok(Record::Service(record)) => self.admission.service(suffix, &record),
            Ok(Record::Slice(record)) => self.admission.slice(suffix, &record).map(Outcome::Admitted),
            Ok(Record::Node(_) | Record::Identity(_) | Record::Ip(_)) => Ok(Outcome::Deleted(ServiceKey::new("", ""))),
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

    fn take(&mut self, changes: Changes<Share>, dirty: &mut Dirty, now: Millis) {
        self.index.take(changes, Cause::Said, dirty, now);
    }
}

fn admission(peer: &PeerIdentity, ranges: &Arc<Ranges>) -> Admission {
    Admission::new(peer.name.clone(), peer.id, peer.max, Arc::clone(ranges))
}

/// What Cilium's readers reject is refused; what cannot be read at all leaves the last good version in place.
pub(super) fn undecodable<V>(error: &DecodeError) -> Judged<V> {
    let rule = match error {
        DecodeError::TooLarge => Rule::TooLarge,
        DecodeError::ClusterName { .. } | DecodeError::ClusterLabel { .. } => Rule::ClusterName,
        DecodeError::IdentityRange { .. } => Rule::IdentityRange,
        DecodeError::OtherClusterId { .. } | DecodeError::ClusterId(_) => Rule::ClusterId,
        DecodeError::Name { .. } | DecodeError::Key { .. } => Rule::KeyMismatch,
        DecodeError::NullPort { .. } => Rule::NullPort,
        _ => return Judged::Unreadable(Refusal { rule: Rule::Undecodable, detail: error.to_string() }),
    };
    Judged::Refused(Refusal { rule, detail: error.to_string() })
}
