//! The laws of holding, over random histories.
//!
//! A stupid reference reads the whole log again at every step: it knows no state, only questions about the past.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use tombolo_core::hold::{Absent, Canary, Change, Doubt, EXPIRY_MS, Event, Hold, HoldConfig, Presence, Standing};
use tombolo_core::id::{Epoch, Millis};

/// Longer than what ended with its lease may stay, or that would never leave in these histories.
const SILENT: u64 = 90_000;
const CONFIG: HoldConfig = HoldConfig { silent_after_ms: SILENT, absent: Absent::Doubtful, canary: Canary::Awaited };

type Said = Event<u8, u8>;
type View = BTreeMap<u8, (u8, Standing)>;

/// What `Change`s add up to, and nothing that is not in them.
fn follow(view: &mut View, changes: Vec<Change<u8, u8>>) {
    for change in changes {
        match change {
            Change::Put(key, value, standing) => drop(view.insert(key, (value, standing))),
            Change::Remove(key) => assert!(view.remove(&key).is_some(), "{key} left twice"),
        }
    }
}

mod reference {
    use super::{EXPIRY_MS, Epoch, Event, Presence, SILENT, Said};
    use std::collections::BTreeMap;

    type Log = [(u64, Said)];

    /// What must be held after this log: keys with values.
    pub(super) fn held(log: &Log) -> BTreeMap<u8, u8> {
        let keys = (0..=u8::MAX).filter(|key| log.iter().any(|(_, e)| matches!(e, Event::Upsert(k, _) if k == key)));
        keys.filter_map(|key| Some((key, value(log, key)?))).collect()
    }

    fn value(log: &Log, key: u8) -> Option<u8> {
        let (said, value, _) = last_good(log, key)?;
        let refused = log[said + 1..].iter().any(|(_, e)| *e == Event::Refuse(key));
        let left = refused || (said + 1..=log.len()).any(|end| leaves(&log[..end], key, said));
        (!left).then_some(value)
    }

    /// When it was last said that the key is there, its value, and when that was read: what cannot be read is still
    /// there, as long as its value of this epoch is held.
    fn last_good(log: &Log, key: u8) -> Option<(usize, u8, usize)> {
        let there = |e: &Said| matches!(e, Event::Upsert(k, _) | Event::Unreadable(k) if *k == key);
        let said = last(log, there)?;
        if let Event::Upsert(_, value) = log[said].1 {
            return Some((said, value, said));
        }
        let before = last_good(&log[..said], key)?;
        let held = value(&log[..said], key).is_some();
        let same_epoch = epochs(&log[..said]).last().is_none_or(|began| *began <= before.2);
        Some(if held && same_epoch { (said, before.1, before.2) } else { before })
    }

    /// Its removal is believed at the end of this log.
    fn leaves(log: &Log, key: u8, said: usize) -> bool {
        let now = log.last().map_or(0, |(at, _)| *at);
        let is_gone = |e: &Said| matches!(e, Event::Delete(k) | Event::Expired(k) if *k == key);
        let gone = last(&log[said + 1..], is_gone).map(|at| said + 1 + at);
        let relist = last(log, |e| *e == Event::Relisting);
        let listed_without = relist.is_some_and(|at| at > said && log[at..].iter().any(|(_, e)| *e == Event::Listed));
        let Some(since) = lives_since(log) else { return false };
        match gone.map(|at| (at, &log[at])) {
            // In a new epoch the list alone decides, and what was said before was right.
            Some((at, (expired, Event::Expired(_)))) if epochs(log).iter().all(|began| *began < at) => {
                now >= (*expired).max(since) + EXPIRY_MS
            }
            Some(_) => true,
            None => listed_without,
        }
    }

    /// Since when its writer has lived, if it does at the end of this log.
    fn lives_since(log: &Log) -> Option<u64> {
        let mut since = None;
        for end in (1..=log.len()).rev() {
            let until = log.get(end).map_or(log[end - 1].0, |(at, _)| *at);
            if !lives(&log[..end], until) || !lives(&log[..end], log[end - 1].0) {
                break;
            }
            since = Some(log[end - 1].0);
        }
        since
    }

    /// At that time after this log its writer is listed, has its canary, and is heard.
    fn lives(log: &Log, now: u64) -> bool {
        let epoch = epochs(log).last().copied();
        let listed = last(log, |e| *e == Event::Listed);
        let relisted = last(log, |e| matches!(e, Event::Relisting | Event::Lost)).max(epoch);
        let mut canaries = log[epoch.unwrap_or(0)..].iter().rev().filter(|(_, e)| matches!(e, Event::Canary(_)));
        let canary = canaries.next().is_some_and(|(_, e)| *e == Event::Canary(Presence::Seen));
        listed > relisted && canary && heard(log, now)
    }

    /// A heartbeat came since the last interruption; before the first complete list, the session itself is one.
    fn heard(log: &Log, now: u64) -> bool {
        let broken = last(log, |e| *e == Event::Lost).max(epochs(log).last().copied()).unwrap_or(0);
        let silenced = last(log, |e| *e == Event::BeatGone).unwrap_or(0).max(broken);
        let listed = log[..broken].iter().any(|(_, e)| *e == Event::Listed);
        let beat = last(&log[silenced..], |e| *e == Event::Beat).map(|at| silenced + at);
        let session = log[broken..].iter().position(|(_, e)| matches!(e, Event::Epoch(_)) && !listed);
        let session = session.map(|at| broken + at).filter(|at| *at >= silenced);
        beat.or(session).is_some_and(|at| now < log[at].0 + SILENT)
    }

    /// Where another epoch than the one before began.
    fn epochs(log: &Log) -> Vec<usize> {
        let mut before: Option<Epoch> = None;
        let mut found = Vec::new();
        for (at, (_, event)) in log.iter().enumerate() {
            if let Event::Epoch(epoch) = event {
                if before != Some(*epoch) {
                    found.push(at);
                }
                before = Some(*epoch);
            }
        }
        found
    }

    fn last(log: &Log, is: impl Fn(&Said) -> bool) -> Option<usize> {
        log.iter().rposition(|(_, e)| is(e))
    }
}

/// Anything that is said while a session is up.
fn said() -> impl Strategy<Value = Said> {
    prop_oneof![
        6 => (0..4u8, 0..3u8).prop_map(|(key, value)| Event::Upsert(key, value)),
        4 => (0..4u8).prop_map(Event::Delete),
        3 => (0..4u8).prop_map(Event::Expired),
        1 => (0..4u8).prop_map(Event::Unreadable),
        1 => (0..4u8).prop_map(Event::Refuse),
        3 => Just(Event::Relisting),
        4 => Just(Event::Listed),
        3 => Just(Event::Canary(Presence::Seen)),
        1 => Just(Event::Canary(Presence::Gone)),
        3 => Just(Event::Beat),
        1 => Just(Event::BeatGone),
        1 => Just(Event::Lost),
        2 => (1..3u64).prop_map(|n| Event::Epoch(Epoch(n))),
        1 => Just(Event::Tick),
    ]
}

/// Anything in any order, also what no store would say; but between sessions nothing is said.
fn log() -> impl Strategy<Value = Vec<(u64, Said)>> {
    let step = prop_oneof![4 => 0..20u64, 1 => 0..2 * SILENT, 1 => Just(SILENT), 1 => Just(EXPIRY_MS)];
    prop::collection::vec((step, said()), 0..40).prop_map(|steps| {
        let (mut now, mut up) = (0, false);
        let mut log = Vec::new();
        for (ms, event) in steps {
            now += ms;
            up |= matches!(event, Event::Epoch(_));
            if up {
                up = event != Event::Lost;
                log.push((now, event));
            }
        }
        log
    })
}

/// A writer, its store and a session with it, as they are.
#[derive(Clone, Debug, Default)]
struct World {
    now: u64,
    epoch: u64,
    store: BTreeMap<u8, u8>,
    written: bool,
    connected: bool,
}

/// What happens to them.
#[derive(Clone, Debug)]
enum Act {
    Put(u8, u8),
    Delete(u8),
    Beat,
    Silence,
    Disconnect,
    Connect,
    Restart,
    Expire,
    LeaseEnds(u8),
    Wait(u64),
    Compact,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        5 => (0..6u8, 0..3u8).prop_map(|(key, value)| Act::Put(key, value)),
        4 => (0..6u8).prop_map(Act::Delete),
        4 => Just(Act::Beat),
        1 => Just(Act::Silence),
        2 => Just(Act::Disconnect),
        4 => Just(Act::Connect),
        1 => Just(Act::Restart),
        1 => Just(Act::Expire),
        2 => (0..5u8).prop_map(Act::LeaseEnds),
        3 => prop_oneof![1..SILENT, Just(EXPIRY_MS - 10)].prop_map(Act::Wait),
        1 => Just(Act::Compact),
    ]
}

impl World {
    /// What the session says of it.
    fn act(&mut self, act: &Act) -> Vec<Said> {
        self.now += match act {
            Act::Silence => 2 * SILENT,
            Act::Wait(ms) => *ms,
            _ => 1,
        };
        let said = match *act {
            Act::Put(key, value) => {
                self.store.insert(key, value);
                vec![Event::Upsert(key, value)]
            }
            Act::Delete(key) => self.store.remove(&key).map(|_| Event::Delete(key)).into_iter().collect(),
            Act::Beat => vec![Event::Beat],
            Act::Silence | Act::Wait(_) => vec![Event::Tick],
            Act::Disconnect => vec![Event::Lost],
            Act::Connect if self.connected => Vec::new(),
            Act::Connect => {
                self.connected = true;
                let canary = if self.written { Presence::Seen } else { Presence::Gone };
                [vec![Event::Epoch(Epoch(self.epoch)), Event::Canary(canary)], self.list()].concat()
            }
            // All at once gone, with the canary first: its lease has expired.
            Act::Expire => {
                self.written = false;
                let keys = std::mem::take(&mut self.store).into_keys();
                std::iter::once(Event::Canary(Presence::Gone)).chain(keys.map(Event::Delete)).collect()
            }
            // Two keys had a lease of their own.
            Act::LeaseEnds(key) => {
                let leased = [key, key + 1].into_iter().filter(|key| self.store.remove(key).is_some());
                leased.map(Event::Expired).collect()
            }
            Act::Restart => {
                self.epoch += 1;
                self.store.clear();
                self.written = false;
                vec![Event::Lost]
            }
            Act::Compact => self.list(),
        };
        let said = if self.connected { said } else { Vec::new() };
        self.connected &= !matches!(act, Act::Disconnect | Act::Restart);
        said
    }

    fn list(&self) -> Vec<Said> {
        let upserts = self.store.iter().map(|(key, value)| Event::Upsert(*key, *value));
        std::iter::once(Event::Relisting).chain(upserts).chain([Event::Listed]).collect()
    }
}

/// A hold and whoever follows it.
struct Following {
    hold: Hold<u8, u8>,
    view: View,
}

impl Following {
    fn new() -> Self {
        Self { hold: Hold::new(CONFIG), view: View::new() }
    }

    fn hear(&mut self, said: Vec<Said>, now: u64) {
        for event in said {
            follow(&mut self.view, self.hold.on(event, Millis(now)));
        }
        let held: View = self.hold.iter().map(|(key, value, standing)| (*key, (*value, standing))).collect();
        assert_eq!(self.view, held, "the changes add up to the held view");
    }

    fn restore(view: &View) -> Self {
        let entries = view.iter().map(|(key, (value, standing))| (*key, *value, *standing));
        Self { hold: Hold::restore(CONFIG, entries, Millis(0)), view: view.clone() }
    }
}

proptest! {
    #[test]
    fn it_is_what_the_reference_says(log in log()) {
        let mut following = Following::new();
        for end in 1..=log.len() {
            let (now, event) = log[end - 1].clone();
            following.hear(vec![event], now);
            let held: BTreeMap<u8, u8> = following.view.iter().map(|(key, (value, _))| (*key, *value)).collect();
            prop_assert_eq!(held, reference::held(&log[..end]), "after {:?}", &log[..end]);
        }
    }

    #[test]
    fn without_faults_it_is_the_identity(acts in prop::collection::vec(act(), 0..60)) {
        let mut world = World { written: true, ..World::default() };
        let mut following = Following::new();
        following.hear(world.act(&Act::Connect), 0);
        for act in acts.iter().filter(|a| matches!(a, Act::Put(..) | Act::Delete(_) | Act::Compact)) {
            let said = world.act(act);
            following.hear([vec![Event::Beat], said].concat(), world.now);
            let sure = world.store.iter().map(|(key, value)| (*key, (*value, Standing::Sure)));
            prop_assert_eq!(&following.view, &sure.collect::<View>());
        }
    }

    #[test]
    fn nothing_leaves_while_its_writer_is_silent(acts in prop::collection::vec(act(), 0..60)) {
        let mut world = World { written: true, ..World::default() };
        let mut following = Following::new();
        following.hear(world.act(&Act::Connect), 0);
        let mut spoke = 0;
        let mut ended = BTreeMap::new();
        for act in &acts {
            let said = world.act(act);
            let before = following.view.clone();
            if said.contains(&Event::Beat) {
                spoke = world.now;
            }
            let expired = said.iter().filter_map(|e| if let Event::Expired(key) = e { Some(*key) } else { None });
            ended.extend(expired.map(|key| (key, world.now)));
            following.hear(said, world.now);
            let left = before.iter().filter(|(key, _)| !following.view.contains_key(key));
            for (key, (_, standing)) in left {
                prop_assert!(world.now < spoke + SILENT && world.connected, "{:?} took {} away", act, key);
                if *standing == Standing::Doubtful(Doubt::Expiry) && world.epoch == 0 {
                    prop_assert!(world.now >= ended[key] + EXPIRY_MS, "{:?} took {} away too early", act, key);
                }
            }
        }
    }

    #[test]
    fn what_was_restored_is_as_before_a_lost_session(
        entries in prop::collection::btree_map(0..4u8, (0..3u8, any::<bool>()), 0..4),
        log in log(),
    ) {
        let first = log.iter().find_map(|(_, e)| if let Event::Epoch(epoch) = e { Some(*epoch) } else { None });
        let upserts = entries.iter().map(|(key, (value, _))| Event::Upsert(*key, *value));
        let deletes = entries.iter().filter(|(_, (_, sure))| !sure).map(|(key, _)| Event::Delete(*key));
        let before = [Event::Epoch(first.unwrap_or_default()), Event::Relisting].into_iter().chain(upserts);
        let mut lived = Following::new();
        lived.hear(before.chain([Event::Listed, Event::Lost]).chain(deletes).collect(), 0);
        let mut restored = Following::restore(&lived.view);
        for (now, event) in log {
            lived.hear(vec![event.clone()], now);
            restored.hear(vec![event], now);
            prop_assert_eq!(&restored.view, &lived.view);
            prop_assert_eq!(restored.hold.deadline(), lived.hold.deadline());
            prop_assert_eq!(restored.hold.awaits(Millis(now)), lived.hold.awaits(Millis(now)));
        }
    }

    #[test]
    fn nothing_restored_leaves_before_list_and_canary_and_heartbeat(log in log()) {
        let view: View = (0..4).map(|key| (key, (0, Standing::Sure))).collect();
        let mut restored = Following::restore(&view);
        let mut refused = BTreeSet::new();
        let mut awaited = vec![Event::Listed, Event::Canary(Presence::Seen), Event::Beat];
        for (now, event) in log {
            awaited.retain(|one| *one != event);
            if let Event::Refuse(key) = event {
                refused.insert(key);
            }
            restored.hear(vec![event], now);
            if !awaited.is_empty() {
                let stays = (0..4).all(|key| refused.contains(&key) || restored.view.contains_key(&key));
                prop_assert!(stays, "before {:?}", awaited);
            }
        }
    }

    #[test]
    fn nothing_changes_by_itself_before_the_deadline(log in log()) {
        let mut following = Following::new();
        for (now, event) in log {
            following.hear(vec![event], now);
            let deadline = following.hold.deadline();
            let before = deadline.map_or(now + 10 * SILENT, |Millis(at)| at - 1);
            prop_assert!(before >= now, "what was due at {:?} was told", deadline);
            let awaits = following.hold.awaits(Millis(now));
            prop_assert_eq!(following.hold.clone().on(Event::Tick, Millis(before)), vec![]);
            prop_assert_eq!(following.hold.awaits(Millis(before)), awaits);
            if let Some(at) = deadline {
                let mut then = following.hold.clone();
                let changes = then.on(Event::Tick, at);
                prop_assert!(!changes.is_empty() || then.deadline() != deadline, "nothing happens at {:?}", at);
            }
        }
    }

    #[test]
    fn twice_is_once(log in log()) {
        let (mut once, mut twice) = (Following::new(), Following::new());
        for (now, event) in log {
            once.hear(vec![event.clone()], now);
            twice.hear(vec![event.clone()], now);
            prop_assert_eq!(twice.hold.on(event, Millis(now)), vec![]);
            prop_assert_eq!(&once.view, &twice.view);
        }
    }

    #[test]
    fn once_faults_stop_it_is_what_was_listed_last(acts in prop::collection::vec(act(), 0..60)) {
        let mut world = World::default();
        let mut following = Following::new();
        for act in &acts {
            let said = world.act(act);
            following.hear(said, world.now);
        }
        world.written = true;
        for act in [Act::Disconnect, Act::Connect, Act::Beat, Act::Wait(EXPIRY_MS)] {
            let said = world.act(&act);
            following.hear(said, world.now);
        }
        let sure = world.store.iter().map(|(key, value)| (*key, (*value, Standing::Sure)));
        prop_assert_eq!(&following.view, &sure.collect::<View>());
    }
}
