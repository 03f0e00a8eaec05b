//! A store with leases, a writer's planner, and what happens between them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use bytes::Bytes;
use tombolo_core::id::{Epoch, Millis, Revision};

use crate::random::Random;
use crate::session::expiry::{Expiry, Gone};
use crate::session::fsm::{Command, Record};
use crate::session::{SessionError, SessionEvent};
use crate::writer::Surplus;
use crate::writer::plan::Planner;
use crate::writer::work::{Done, Op, Work};

pub(super) const BEAT: &str = "s/beat";
const PREFIX: &str = "s/";

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Value {
    pub(super) value: Bytes,
    pub(super) revision: i64,
    pub(super) lease: i64,
}

pub(super) struct World {
    random: Random,
    pub(super) now: Millis,
    pub(super) planner: Planner,
    pub(super) store: BTreeMap<String, Value>,
    pub(super) leases: BTreeSet<i64>,
    pub(super) revision: i64,
    pub(super) renewals: usize,
    pub(super) beats: usize,
    pub(super) canaries_written: usize,
    pub(super) completed: BTreeSet<String>,
    pub(super) poison: Option<String>,
    /// `s/moves/` is of scope two from now on, not of one.
    pub(super) moved: Arc<AtomicBool>,
    desired: BTreeMap<String, Bytes>,
    epoch: Epoch,
    events: VecDeque<Command>,
    flight: Vec<Work>,
    granted: i64,
    strict: bool,
}

fn scope_of(key: &str) -> Option<String> {
    let (scope, _) = key.strip_prefix(PREFIX)?.split_once('/')?;
    ["one", "two"].contains(&scope).then(|| scope.to_owned())
}

fn planner(moved: &Arc<AtomicBool>) -> Planner {
    let beat: fn(u64) -> Bytes = |ms| ms.to_string().into();
    let moved = Arc::clone(moved);
    let scope_of = move |key: &str| match key.starts_with("s/moves/") {
        true => Some(if moved.load(Relaxed) { "two" } else { "one" }.to_owned()),
        false => scope_of(key),
    };
    Planner::new(Arc::new(scope_of), vec![PREFIX.into()], vec![(BEAT.into(), beat)], 5_000)
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let moved = Arc::default();
        Self {
            random: Random::new(seed),
            now: Millis(1),
            planner: planner(&moved),
            moved,
            store: BTreeMap::new(),
            leases: BTreeSet::new(),
            revision: 1,
            renewals: 0,
            beats: 0,
            canaries_written: 0,
            completed: BTreeSet::new(),
            poison: None,
            desired: BTreeMap::new(),
            epoch: Epoch(0),
            events: VecDeque::new(),
            flight: Vec::new(),
            granted: 0,
            strict: false,
        }
    }

    /// Connected, with a lease and a heartbeat behind it.
    pub(super) fn ready() -> Self {
        let mut world = Self::new(0);
        world.connect(true);
        world.settle();
        world
    }

    /// Another process of the same writer on the same store.
    pub(super) fn restarted(self) -> Self {
        let planner = planner(&self.moved);
        let mut next = Self { planner, desired: BTreeMap::new(), completed: BTreeSet::new(), ..self };
        next.events.clear();
        next.flight.clear();
        next.connect(true);
        next
    }

    pub(super) fn value(&self, key: &str) -> Option<Bytes> {
        self.store.get(key).map(|v| v.value.clone())
    }

    /// What the planner wants done, if anything.
    pub(super) fn work(&mut self) -> Option<Work> {
        self.planner.next(self.now, self.now.0)
    }

    pub(super) fn connect(&mut self, new_epoch: bool) {
        self.flight.clear();
        self.events.clear();
        self.epoch.0 += u64::from(new_epoch);
        let (epoch, revision) = (self.epoch, Revision(self.revision));
        let upserts = self.store.iter().map(|(key, v)| record(key, v)).collect();
        for command in [
            Command::Emit(SessionEvent::Connected { epoch }),
            Command::Emit(SessionEvent::Relisting { watch: 0, epoch }),
            records(epoch, revision, upserts, Gone::default()),
            Command::Emit(SessionEvent::Listed { watch: 0, epoch, revision }),
        ] {
            self.planner.hear(command, self.now);
        }
    }

    fn reconnect(&mut self, new_epoch: bool) {
        let reason = SessionError::WatchClosed;
        self.planner.hear(Command::Emit(SessionEvent::Lost { reason }), self.now);
        self.connect(new_epoch);
    }

    /// Something happens; with `faults`, also what should not.
    pub(super) fn step(&mut self, faults: bool) {
        self.strict = !faults;
        self.now = Millis(self.now.0 + self.random.below(2_000));
        let key = format!("s/{}/{}", ["one", "two"][self.dice(2)], self.dice(8));
        match self.dice(if faults { 26 } else { 20 }) {
            0..5 => {
                let value = Bytes::from(self.random.below(5).to_string());
                self.desired.insert(key.clone(), value.clone());
                self.planner.put(&key, value, self.now);
            }
            5..7 => {
                self.desired.remove(&key);
                self.planner.delete(&key);
            }
            7 => {
                let scope = ["one", "two"][self.dice(2)];
                let canary = (format!("s/canary/{scope}"), Bytes::from("done"));
                self.desired.insert(canary.0.clone(), canary.1.clone());
                self.completed.insert(scope.into());
                self.planner.complete(scope.into(), Surplus::Deleted, Some(canary), self.now);
            }
            8..13 => self.start(),
            13..17 => self.finish(),
            17..20 => self.deliver(),
            20 => self.foreign(&key, Some("foreign")),
            21 => self.foreign(&key, None),
            22 => self.lose_lease(),
            23 => {
                // An answer is lost with its connection; the work may have been done.
                if self.dice(2) == 0
                    && let Some(work) = self.flight.pop()
                {
                    self.perform(work);
                }
                self.reconnect(false);
            }
            24 => {
                self.store.clear();
                self.leases.clear();
                self.revision = 1;
                self.reconnect(true);
            }
            _ => self.reconnect(false),
        }
    }

    fn dice(&mut self, n: u64) -> usize {
        usize::try_from(self.random.below(n)).unwrap()
    }

    fn start(&mut self) {
        if let Some(work) = self.work() {
            if let Work::Txn(ops) = &work {
                self.check_ops(ops);
            }
            self.flight.push(work);
        }
    }

    /// Without faults the planner knows the store exactly: it writes only differences, and a canary speaks the truth.
    fn check_ops(&mut self, ops: &[Op]) {
        for op in ops {
            let (Op::Put { key, value, .. }, true) = (op, self.strict) else { continue };
            assert!(&**key == BEAT || self.value(key).as_ref() != Some(value), "{key} is written without need");
            let Some(scope) = key.strip_prefix("s/canary/") else { continue };
            self.canaries_written += 1;
            let part = |key: &&String| scope_of(key).as_deref() == Some(scope);
            let store: Vec<_> = self.store.iter().filter(|(k, _)| part(k)).map(|(k, v)| (k, &v.value)).collect();
            let desired: Vec<_> = self.desired.iter().filter(|(k, _)| part(k)).collect();
            assert_eq!(store, desired, "a canary before its keys");
        }
    }

    fn finish(&mut self) {
        if let Some(work) = self.flight.pop() {
            self.apply(work);
        }
    }

    /// Performs work and hands the answer back.
    pub(super) fn apply(&mut self, work: Work) {
        let done = self.perform(work);
        self.planner.done(done, self.now);
    }

    fn perform(&mut self, work: Work) -> Done {
        match work {
            Work::Grant(group) => {
                self.granted += 1;
                self.leases.insert(self.granted);
                Done::Granted { id: self.granted, group, ttl_s: 900 }
            }
            Work::Renew(id) => {
                self.renewals += 1;
                Done::Renewed { id, ttl_s: self.leases.contains(&id).then_some(900) }
            }
            Work::Txn(ops) => self.transact(&ops),
        }
    }

    fn transact(&mut self, ops: &[Op]) -> Done {
        let keys: BTreeSet<_> = ops.iter().map(Op::key).collect();
        assert_eq!(keys.len(), ops.len(), "etcd refuses a key twice in a transaction");
        if ops.iter().any(|op| Some(&**op.key()) == self.poison.as_deref()) {
            return Done::Rejected { reason: "too large".into() };
        }
        let revision = self.revision + 1;
        let (mut upserts, mut deletes) = (Vec::new(), Vec::new());
        for op in ops {
            match op {
                Op::Put { lease, .. } if !self.leases.contains(lease) => return Done::LeaseGone,
                Op::Put { key, value, lease } => {
                    self.beats += usize::from(&**key == BEAT);
                    let value = Value { value: value.clone(), revision, lease: *lease };
                    upserts.push((key.to_string(), value));
                }
                Op::Delete { key } => deletes.push(key.to_string()),
            }
        }
        let leases: Vec<i64> = deletes.iter().filter_map(|key| Some(self.store.get(key)?.lease)).collect();
        let distinct: BTreeSet<i64> = leases.iter().copied().filter(|lease| *lease != 0).collect();
        let leased = leases.iter().filter(|lease| **lease != 0).count();
        assert!(!self.strict || distinct.len() == leased, "two deletes of one lease are taken for its end");
        self.commit(upserts, deletes);
        Done::Written { revision: self.revision }
    }

    fn commit(&mut self, upserts: Vec<(String, Value)>, mut deletes: Vec<String>) {
        let mut expiry = Expiry::default();
        deletes.retain(|key| {
            let old = self.store.remove(key);
            old.iter().for_each(|old| expiry.put(key, old.lease));
            old.is_some()
        });
        if upserts.is_empty() && deletes.is_empty() {
            return;
        }
        self.revision += 1;
        let put = upserts.iter().map(|(key, value)| record(key, value)).collect();
        self.store.extend(upserts);
        self.events.push_back(records(self.epoch, Revision(self.revision), put, expiry.delete(deletes)));
    }

    pub(super) fn foreign(&mut self, key: &str, value: Option<&str>) {
        match value {
            Some(value) => {
                let value = Value { value: value.to_owned().into(), revision: self.revision + 1, lease: 0 };
                self.commit(vec![(key.into(), value)], Vec::new());
            }
            None => self.commit(Vec::new(), vec![key.into()]),
        }
    }

    fn lose_lease(&mut self) {
        let Some(id) = self.leases.pop_first() else { return };
        let keys = self.store.iter().filter(|(_, v)| v.lease == id).map(|(key, _)| key.clone()).collect();
        self.commit(Vec::new(), keys);
    }

    fn deliver(&mut self) {
        if let Some(event) = self.events.pop_front() {
            self.planner.hear(event, self.now);
        }
    }

    /// Until nothing is left to do, with time standing still.
    pub(super) fn settle(&mut self) {
        loop {
            self.start();
            if self.flight.is_empty() && self.events.is_empty() {
                return;
            }
            self.finish();
            self.deliver();
        }
    }

    pub(super) fn check(&self, seed: u64) {
        let ours = |key: &&String| scope_of(key).is_none_or(|scope| self.completed.contains(&scope));
        let held: BTreeMap<_, _> =
            self.store.iter().filter(|(k, _)| *k != BEAT && ours(k)).map(|(k, v)| (k, &v.value)).collect();
        let desired: BTreeMap<_, _> = self.desired.iter().filter(|(k, _)| ours(k)).collect();
        assert_eq!(held, desired, "seed {seed}");
        for (key, value) in &self.desired {
            assert_eq!(self.value(key).as_ref(), Some(value), "seed {seed}, {key}");
            assert!(self.leases.contains(&self.store[key].lease), "seed {seed}, {key} has no lease");
        }
        assert_eq!(self.planner.status().pending, 0, "seed {seed}");
    }
}

fn records(epoch: Epoch, revision: Revision, upserts: Vec<Record>, gone: Gone) -> Command {
    let Gone { deletes, expired } = gone;
    Command::Records { watch: 0, epoch, revision, upserts, deletes, expired }
}

fn record(key: &str, value: &Value) -> Record {
    let Value { value, revision, lease } = value.clone();
    Record { key: key.into(), value, revision, created: revision, version: 1, lease }
}
