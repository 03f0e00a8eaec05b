//! What a peer says of its members: nodes, identities, and whose an address is.
//!
//! It is held by the same rules as services are, counted, and looked up for people. No agent is told: there is nobody on a
//! node yet who would use it, and it is by far the largest part of what a peer says.

mod addresses;

use bytes::Bytes;
use tombolo_core::admit::{Admission, Refusal};
use tombolo_core::hold::{Absent, Canary, Event, Hold, HoldConfig, Presence};
use tombolo_core::id::{Addr, Epoch, Millis};
use tombolo_core::identity::LabelSet;
use tombolo_core::record::Record;
use tombolo_store::SessionEvent;
use tombolo_wire::cilium;
use tombolo_wire::cilium::key::Kind;

use self::addresses::Addresses;
pub(super) use self::addresses::Located;
use super::feed::{Reading, undecodable};
use super::refused::Refused;
use super::track::{Judged, Track};

/// One peer's members.
#[derive(Debug)]
pub(super) struct Members {
    pub(super) nodes: Track<()>,
    identities: Hold<u32, LabelSet>,
    addresses: Addresses,
}

/// Whose records these are, and by which rules they count.
#[derive(Clone, Copy)]
pub(super) struct Judge<'a> {
    pub(super) reading: &'a Reading,
    pub(super) admission: &'a Admission,
}

impl Judge<'_> {
    /// The kind of a session's watch.
    fn kind(&self, watch: usize) -> Option<Kind> {
        self.reading.kinds().get(watch).copied()
    }

    /// What follows a kind's prefix in a key.
    pub(super) fn suffix<'a>(&self, kind: Kind, key: &'a str) -> &'a str {
        key.strip_prefix(&self.reading.place(kind).0).unwrap_or(key)
    }
}

impl Members {
    pub(super) fn new(canary: Canary, silent_after_ms: u64) -> Self {
        let config = HoldConfig { silent_after_ms, absent: Absent::Doubtful, canary };
        Self {
            nodes: Track::new(canary, silent_after_ms),
            identities: Hold::new(config),
            addresses: Addresses::new(config),
        }
    }

    /// Takes in what a session says beside records. `epoch` is the one of a session that is up.
    pub(super) fn signal(
        &mut self,
        event: &SessionEvent,
        epoch: Epoch,
        reading: &Reading,
        refused: &mut Refused,
        now: Millis,
    ) {
        let kinds = reading.kinds();
        let kind_of = |watch: usize| kinds.get(watch).copied();
        if let SessionEvent::Relisting { watch, .. } = event {
            match kind_of(*watch) {
                Some(Kind::Nodes) => drop(self.nodes.relisting(refused, now)),
                Some(Kind::Identities) => refused.forget_under(&reading.place(Kind::Identities).0),
                Some(Kind::Ip) => {
                    refused.forget_under(&reading.place(Kind::Ip).0);
                    self.addresses.relisting(refused);
                }
                _ => {}
            }
        }
        tell(self.nodes.hold_mut(), Kind::Nodes, event, kind_of, epoch, now);
        tell(&mut self.identities, Kind::Identities, event, kind_of, epoch, now);
        tell(&mut self.addresses.hold, Kind::Ip, event, kind_of, epoch, now);
    }

    /// Records of one watch changed.
    pub(super) fn changed(
        &mut self,
        watch: usize,
        revision: i64,
        (upserts, deletes, expired): (Vec<(String, Bytes)>, &[String], &[String]),
        judge: Judge<'_>,
        refused: &mut Refused,
        now: Millis,
    ) {
        match judge.kind(watch) {
            Some(Kind::Nodes) => {
                for (key, value) in upserts {
                    self.put_node(&key, value, revision, judge, refused, now);
                }
                for key in deletes {
                    self.nodes.delete(key, refused, now);
                }
                for key in expired {
                    self.nodes.expire(key, refused, now);
                }
            }
            Some(Kind::Identities) => {
                for (key, value) in upserts {
                    self.put_identity(&key, &value, judge, refused, now);
                }
                for (keys, event) in [(deletes, Event::Delete as fn(u32) -> _), (expired, Event::Expired)] {
                    for key in keys {
                        refused.forget(key);
                        if let Ok(number) = judge.suffix(Kind::Identities, key).parse() {
                            self.identities.on(event(number), now);
                        }
                    }
                }
            }
            Some(Kind::Ip) => {
                for (key, value) in upserts {
                    self.addresses.put(&key, &value, judge, refused, now);
                }
                for (keys, event) in [(deletes, Event::Delete as fn(_) -> _), (expired, Event::Expired)] {
                    for key in keys {
                        self.addresses.remove(key, event, judge, refused, now);
                    }
                }
            }
            _ => {}
        }
    }

    /// Time has passed.
    pub(super) fn tick(&mut self, now: Millis) {
        self.nodes.tick(now);
        self.identities.on(Event::Tick, now);
        self.addresses.hold.on(Event::Tick, now);
    }

    /// When [`Self::tick`] is due.
    pub(super) fn deadline(&self) -> Option<Millis> {
        let holds = [self.nodes.hold().deadline(), self.identities.deadline(), self.addresses.hold.deadline()];
        holds.into_iter().flatten().min()
    }

    pub(super) fn set_silent_after(&mut self, ms: u64) {
        self.nodes.set_silent_after(ms);
        self.identities.set_silent_after(ms);
        self.addresses.hold.set_silent_after(ms);
    }

    /// What no peer may claim is another now: nodes and addresses are judged again. Identities claim nothing.
    pub(super) fn set_ranges(&mut self, judge: Judge<'_>, refused: &mut Refused, now: Millis) {
        let raw = |(key, (value, revision)): (&String, &(Bytes, i64))| (key.clone(), value.clone(), *revision);
        let all: Vec<_> = self.nodes.raw().iter().map(raw).collect();
        for (key, value, revision) in all {
            self.put_node(&key, value, revision, judge, refused, now);
        }
        self.addresses.set_ranges(judge.admission, refused, now);
    }

    /// Identities and addresses that count.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.identities.len(), self.addresses.hold.len())
    }

    /// Whose an address is, and the labels behind its identity, as far as the peer said.
    pub(super) fn locate(&self, addr: Addr) -> Option<(&Located, Option<&LabelSet>)> {
        let located = self.addresses.locate(addr)?;
        Some((located, self.identities.get(&located.identity).map(|(labels, _)| labels)))
    }

    fn put_node(
        &mut self,
        key: &str,
        value: Bytes,
        revision: i64,
        judge: Judge<'_>,
        refused: &mut Refused,
        now: Millis,
    ) {
        let judged = match cilium::decode(Kind::Nodes, key, &value, &judge.reading.peer) {
            Ok(Record::Node(record)) => match judge.admission.node(judge.suffix(Kind::Nodes, key), &record) {
                Ok(node) => Judged::Admitted((), node.refusals),
                Err(refusal) => Judged::Refused(refusal),
            },
            Ok(_) => Judged::Deleted,
            Err(error) => undecodable(&error),
        };
        self.nodes.put(key, (value, revision), judged, refused, now);
    }

    fn put_identity(&mut self, key: &str, value: &[u8], judge: Judge<'_>, refused: &mut Refused, now: Millis) {
        let suffix = judge.suffix(Kind::Identities, key);
        let judged = match cilium::decode(Kind::Identities, key, value, &judge.reading.peer) {
            Ok(Record::Identity(record)) => match judge.admission.identity(suffix, &record) {
                Ok(identity) => Judged::Admitted(identity.labels, Vec::new()),
                Err(refusal) => Judged::Refused(refusal),
            },
            Ok(_) => Judged::Deleted,
            Err(error) => undecodable(&error),
        };
        let (event, refusals) = event_of(suffix.parse().ok(), judged);
        refused.set(key, &refusals);
        if let Some(event) = event {
            self.identities.on(event, now);
        }
    }
}

/// What a judged record means for what is held under its key; a key that is none has nothing held.
fn event_of<K, V>(key: Option<K>, judged: Judged<V>) -> (Option<Event<K, V>>, Vec<Refusal>) {
    match judged {
        Judged::Admitted(value, refusals) => (key.map(|key| Event::Upsert(key, value)), refusals),
        Judged::Deleted => (key.map(Event::Delete), Vec::new()),
        Judged::Unreadable(refusal) => (key.map(Event::Unreadable), vec![refusal]),
        Judged::Refused(refusal) => (key.map(Event::Refuse), vec![refusal]),
    }
}

/// Hands on what concerns one kind's hold.
fn tell<K: Ord + Clone, V: Clone + PartialEq>(
    hold: &mut Hold<K, V>,
    kind: Kind,
    event: &SessionEvent,
    kind_of: impl Fn(usize) -> Option<Kind>,
    epoch: Epoch,
    now: Millis,
) {
    let mine = |watch: usize| kind_of(watch) == Some(kind);
    let event = match event {
        SessionEvent::Connected { .. } => Event::Epoch(epoch),
        // Tracks were told already, for their refusals go too.
        SessionEvent::Relisting { watch, .. } if mine(*watch) && kind != Kind::Nodes => Event::Relisting,
        SessionEvent::Listed { watch, .. } if mine(*watch) => Event::Listed,
        SessionEvent::CanarySeen { watch } if mine(*watch) => Event::Canary(Presence::Seen),
        SessionEvent::CanaryGone { watch } if mine(*watch) => Event::Canary(Presence::Gone),
        SessionEvent::Heartbeat => Event::Beat,
        SessionEvent::HeartbeatGone => Event::BeatGone,
        SessionEvent::Lost { .. } => Event::Lost,
        _ => return,
    };
    hold.on(event, now);
}
