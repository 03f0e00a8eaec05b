//! One seeded run: a store that lives its life, a network that misbehaves, the session, and a marking consumer.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use tombolo_core::id::{Epoch, Millis};

use super::fake::Fake;
use crate::dial::{DialCause, DialError};
use crate::random::Random;
use crate::session::fsm::{Command, Input, Plan, Record, SessionFsm};
use crate::session::{SessionError, SessionEvent, Watch};

const HEARTBEAT: &str = "beat";
const FIRST: &str = "config";
const STEPS: u64 = 150;
const QUIET_MS: u64 = 300_000;

pub(super) struct Sim {
    random: Random,
    faults: bool,
    now: Millis,
    store: Fake,
    fsm: SessionFsm,
    watches: Vec<Watch>,
    /// Messages on their way, by arrival; the number keeps equal times apart.
    network: BTreeMap<(Millis, u64), Input>,
    sent: u64,
    /// The latest arrival of a watch's message: one watch's news keep their order, as in one HTTP/2 stream.
    order: BTreeMap<i64, Millis>,
    /// Watches the store serves: where each goes on.
    served: BTreeMap<i64, (String, i64)>,
    connected: bool,
    /// The store that sent the page that arrived last.
    answered: u64,
    consumer: Consumer,
    lives: BTreeMap<u64, Epoch>,
}

#[derive(Default)]
struct Consumer {
    epoch: Epoch,
    config: Option<Bytes>,
    state: BTreeMap<usize, BTreeMap<String, Bytes>>,
    unmarked: BTreeMap<usize, BTreeSet<String>>,
    listed: BTreeSet<usize>,
    canaries: BTreeSet<usize>,
    /// The canaries seen on this connection.
    confirmed: BTreeSet<usize>,
    reasons: BTreeSet<String>,
    /// Of every key on every watch, as the last put or list said.
    leases: BTreeMap<(usize, String), i64>,
    expired: usize,
}

impl Sim {
    pub(super) fn new(seed: u64) -> Self {
        let watch =
            |prefix: &str, canary: Option<&str>| Watch { prefix: prefix.into(), canary: canary.map(Into::into) };
        let watches = vec![watch("a/", Some("synced/a")), watch("b/", Some("synced/b")), watch("c/", None)];
        let plan = Plan { heartbeat: Some(HEARTBEAT.into()), first: Some(FIRST.into()), watches: watches.clone() };
        let mut fsm = SessionFsm::new(plan, seed);
        fsm.page_of(3);
        Self {
            random: Random::new(seed ^ 0xABCD),
            faults: true,
            now: Millis(0),
            store: Fake::new(1),
            fsm,
            watches,
            network: BTreeMap::new(),
            sent: 0,
            order: BTreeMap::new(),
            served: BTreeMap::new(),
            connected: false,
            answered: 0,
            consumer: Consumer::default(),
            lives: BTreeMap::new(),
        }
    }

    pub(super) fn run_with_faults(&mut self) {
        for _ in 0..STEPS {
            self.live();
            let until = self.now.after(self.random.below(4_000));
            self.run_until(until);
        }
    }

    /// No more faults or changes, but for what must exist.
    pub(super) fn run_until_quiet(&mut self) {
        self.faults = false;
        let must = [HEARTBEAT, FIRST, "synced/a", "synced/b"].map(|k| (k.to_owned(), Some(0)));
        self.store.write(&must);
        self.serve();
        self.run_until(self.now.after(QUIET_MS));
    }

    pub(super) fn check(&self, seed: u64) {
        assert_eq!(self.consumer.config, self.store.at(FIRST, self.store.revision).map(|r| r.value.clone()), "{seed}");
        for (index, watch) in self.watches.iter().enumerate() {
            let held = self.consumer.state.get(&index).cloned().unwrap_or_default();
            assert_eq!(held, self.store.content(&watch.prefix), "seed {seed}, {}", watch.prefix);
            assert!(self.consumer.listed.contains(&index), "seed {seed}, {} is not listed", watch.prefix);
        }
        assert_eq!(self.consumer.canaries, BTreeSet::from([0, 1]), "seed {seed}");
    }

    pub(super) fn reasons(&self) -> impl Iterator<Item = String> + '_ {
        self.consumer.reasons.iter().cloned()
    }

    pub(super) fn expired(&self) -> usize {
        self.consumer.expired
    }

    pub(super) fn lives(&self) -> usize {
        self.lives.len()
    }

    fn chance(&mut self, one_in: u64) -> bool {
        self.random.below(one_in) == 0
    }

    /// Something happens in the store.
    fn live(&mut self) {
        match self.random.below(40) {
            0 => self.store.compacted = self.store.revision - 1,
            1 => self.rebirth(true),
            2 => self.rebirth(false),
            3 => self.disconnect(SessionError::WatchClosed),
            4..9 => self.store.write(&[(HEARTBEAT.into(), Some(0))]),
            9..12 => {
                let value = (!self.chance(4)).then_some(1);
                let key = if self.chance(2) { "synced/a" } else { "synced/b" };
                self.store.write(&[(key.into(), value)]);
            }
            12 => {
                let value = self.random.next();
                self.store.write(&[(FIRST.into(), Some(value))]);
            }
            13..16 => {
                let lease = self.random.below(3) + 1;
                self.store.expire(i64::try_from(lease).unwrap());
            }
            _ => {
                self.store.lease = i64::try_from(self.random.below(4)).unwrap();
                let mut keys = BTreeMap::new();
                for _ in 0..=self.random.below(4) {
                    let prefix = ["a/", "b/", "c/"][usize::try_from(self.random.below(3)).unwrap()];
                    let value = (!self.chance(3)).then(|| self.random.next());
                    keys.insert(format!("{prefix}{}", self.random.below(10)), value);
                }
                self.store.write(&keys.into_iter().collect::<Vec<_>>());
            }
        }
        self.serve();
    }

    /// The store is emptied: under another id, or the same; sometimes filled past its old revision at once, and
    /// sometimes heard on the old connection before that breaks (a proxy in between).
    fn rebirth(&mut self, other_id: bool) {
        let (id, revision) = (self.store.cluster_id + u64::from(other_id), self.store.revision);
        self.store = Fake::new(id);
        if self.chance(2) {
            for n in 0..u64::try_from(revision).unwrap() + 5 {
                self.store.write(&[(format!("c/{}", n % 10), Some(n)), (HEARTBEAT.into(), Some(n))]);
            }
        }
        if self.chance(2) {
            self.disconnect(SessionError::WatchClosed);
        } else if self.connected {
            self.send(None, &Input::Failed(SessionError::WatchClosed));
        }
    }

    fn disconnect(&mut self, reason: SessionError) {
        if std::mem::take(&mut self.connected) {
            self.served.clear();
            self.send(None, &Input::Failed(reason));
        }
    }

    fn run_until(&mut self, until: Millis) {
        loop {
            let arrival = self.network.first_key_value().map(|(at, _)| at.0);
            let deadline = self.fsm.deadline();
            let Some(next) = arrival.into_iter().chain(deadline).min().filter(|at| *at <= until) else { break };
            self.now = self.now.max(next);
            let input = if arrival == Some(next) {
                self.network.pop_first().expect("it was just looked at").1
            } else {
                Input::Tick
            };
            if let Input::Page { header, .. } = &input {
                self.answered = header.cluster_id;
            }
            for command in self.fsm.on(input, self.now) {
                self.execute(command);
            }
            self.serve();
        }
        self.now = until;
    }

    fn execute(&mut self, command: Command) {
        match command {
            Command::Connect if self.faults && self.chance(3) => {
                let reason = match self.random.below(3) {
                    0 => SessionError::PermissionDenied { what: FIRST.into() },
                    _ => DialError { endpoint: "x".into(), cause: DialCause::TimedOut }.into(),
                };
                self.send(None, &Input::Failed(reason));
            }
            Command::Connect => {
                self.connected = true;
                self.send(None, &Input::Connected);
            }
            Command::Close => {
                // What the store sent stays on its way: it must be recognised as old.
                self.connected = false;
                self.served.clear();
                self.network.retain(|_, input| !matches!(input, Input::Failed(_) | Input::Connected));
            }
            Command::Range { call, prefix, start, revision, limit } => {
                if self.connected && !(self.faults && self.chance(30)) {
                    let answer = self.store.range(call, &prefix, &start, revision, limit);
                    let answer = if self.faults && self.chance(40) { Input::TooLarge { call } } else { answer };
                    self.send(None, &answer);
                }
            }
            Command::Watch { id, prefix, from } => {
                if self.connected && !(self.faults && self.chance(30)) {
                    self.served.insert(id, (prefix, from));
                    self.send(Some(id), &Input::Created { id, header: self.store.header() });
                }
            }
            Command::Emit(event) => self.consumer.take(event, self.answered, &mut self.lives),
            Command::Records { watch, epoch, upserts, deletes, expired, .. } => {
                self.consumer.delta(watch, epoch, upserts, deletes, expired);
            }
        }
    }

    /// Sends every watch what it has not been told.
    fn serve(&mut self) {
        for id in self.served.keys().copied().collect::<Vec<_>>() {
            let (prefix, from) = self.served[&id].clone();
            if let Some((news, next)) = self.store.news(id, &prefix, from) {
                match news {
                    Input::Cancelled { .. } => self.served.remove(&id),
                    _ => self.served.insert(id, (prefix, next)),
                };
                self.send(Some(id), &news);
            }
        }
    }

    /// Delays, reorders and repeats; one watch's messages keep their order.
    fn send(&mut self, watch: Option<i64>, input: &Input) {
        let delay = if self.faults { self.random.below(300) } else { 1 };
        let mut at = self.now.after(delay);
        if let Some(id) = watch {
            let last = self.order.entry(id).or_default();
            at = at.max(*last);
            *last = at;
        }
        self.sent += 1;
        self.network.insert((at, self.sent), input.clone());
        let local = matches!(input, Input::Failed(_) | Input::Connected);
        if self.faults && !local && self.chance(10) {
            let again = at.after(self.random.below(3_000));
            self.sent += 1;
            self.network.insert((again, self.sent), input.clone());
        }
    }
}

impl Consumer {
    fn take(&mut self, event: SessionEvent, store: u64, lives: &mut BTreeMap<u64, Epoch>) {
        match event {
            SessionEvent::Connected { epoch } => {
                assert!(epoch >= self.epoch);
                self.confirmed.clear();
                if epoch > self.epoch {
                    self.canaries.clear();
                }
                self.epoch = epoch;
                // Two ids never share an epoch.
                assert!(lives.iter().all(|(id, e)| *id == store || *e < epoch), "{lives:?} {store} {epoch:?}");
                lives.insert(store, epoch);
            }
            SessionEvent::Config { value, .. } => self.config = Some(value),
            SessionEvent::Relisting { watch, epoch } => {
                assert_eq!(epoch, self.epoch);
                assert!(watch == 2 || self.confirmed.contains(&watch), "listed before its canary");
                self.leases.retain(|(of, _), _| *of != watch);
                let keys = self.state.entry(watch).or_default().keys().cloned().collect();
                self.unmarked.insert(watch, keys);
                self.listed.remove(&watch);
            }
            SessionEvent::Listed { watch, epoch, .. } => {
                assert_eq!(epoch, self.epoch);
                for key in self.unmarked.remove(&watch).expect("listing began") {
                    self.state.entry(watch).or_default().remove(&key);
                }
                self.listed.insert(watch);
            }
            SessionEvent::CanarySeen { watch } => {
                self.canaries.insert(watch);
                self.confirmed.insert(watch);
            }
            SessionEvent::CanaryGone { watch } => assert!(self.canaries.remove(&watch), "it was not there"),
            SessionEvent::Lost { reason } => {
                let name = format!("{reason:?}");
                let name = name.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
                self.reasons.insert(name.to_owned());
            }
            SessionEvent::Heartbeat | SessionEvent::HeartbeatGone => {}
            SessionEvent::Delta { .. } => unreachable!("the state machine says Records"),
        }
    }

    fn delta(&mut self, watch: usize, epoch: Epoch, upserts: Vec<Record>, deletes: Vec<String>, expired: Vec<String>) {
        assert_eq!(epoch, self.epoch);
        let keys: BTreeSet<_> = upserts.iter().map(|r| &r.key).chain(&deletes).chain(&expired).collect();
        assert_eq!(keys.len(), upserts.len() + deletes.len() + expired.len(), "a key occurs twice");
        self.judge(watch, &deletes, &expired);
        for record in &upserts {
            self.leases.insert((watch, record.key.clone()), record.lease);
        }
        let state = self.state.entry(watch).or_default();
        for key in deletes.into_iter().chain(expired) {
            state.remove(&key);
        }
        for record in upserts {
            if let Some(unmarked) = self.unmarked.get_mut(&watch) {
                unmarked.remove(&record.key);
            }
            state.insert(record.key, record.value);
        }
    }

    /// Two or more keys of one lease went together, and no others.
    fn judge(&mut self, watch: usize, deletes: &[String], expired: &[String]) {
        let gone = deletes.iter().chain(expired);
        let leases: BTreeMap<&String, i64> =
            gone.map(|key| (key, self.leases.remove(&(watch, key.clone())).unwrap_or(0))).collect();
        let together = |key: &&String| {
            let lease = leases[key];
            lease != 0 && leases.values().filter(|other| **other == lease).count() > 1
        };
        let expected: BTreeSet<&String> = leases.keys().copied().filter(together).collect();
        assert_eq!(expired.iter().collect::<BTreeSet<_>>(), expected, "{leases:?}");
        self.expired += expired.len();
    }
}
