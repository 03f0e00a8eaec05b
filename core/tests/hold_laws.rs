//! The laws of holding, over random histories.
//!
//! A stupid reference reads the whole log again at every step: it knows no state, only questions about the past.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use tombolo_core::hold::{Absent, Canary, Change, Event, Hold, HoldConfig, Presence, Standing};
use tombolo_core::id::{Epoch, Millis};

const SILENT: u64 = 100;
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
    use super::{Epoch, Event, Presence, SILENT, Said};
    use std::collections::BTreeMap;

    type Log = [(u64, Said)];

    /// What must be held after this log: keys with values.
    pub(super) fn held(log: &Log) -> BTreeMap<u8, u8> {
        let keys = (0..=u8::MAX).filter(|key| log.iter().any(|(_, e)| matches!(e, Event::Upsert(k, _) if k == key)));
        keys.filter_map(|key| Some((key, value(log, key)?))).collect()
    }

    fn value(log: &Log, key: u8) -> Option<u8> {
        let put = log.iter().rposition(|(_, e)| matches!(e, Event::Upsert(k, _) if *k == key))?;
        let Event::Upsert(_, value) = log[put].1 else { unreachable!() };
        let believed = (put + 1..=log.len()).any(|end| denied(&log[..end], key, put) && lives(&log[..end]));
        (!believed).then_some(value)
    }

    /// Somebody said, after it was put, that it is not there.
    fn denied(log: &Log, key: u8, put: usize) -> bool {
        let deleted = log[put + 1..].iter().any(|(_, e)| matches!(e, Event::Delete(k) if *k == key));
        let relist = log.iter().rposition(|(_, e)| *e == Event::Relisting);
        deleted || relist.is_some_and(|at| at > put && log[at..].iter().any(|(_, e)| *e == Event::Listed))
    }

    /// At the end of this log its writer is listed, has its canary, and is heard.
    fn lives(log: &Log) -> bool {
        let epoch = epochs(log).last().copied();
        let listed = last(log, |e| *e == Event::Listed);
        let relisted = last(log, |e| matches!(e, Event::Relisting | Event::Lost)).max(epoch);
        let mut canaries = log[epoch.unwrap_or(0)..].iter().rev().filter(|(_, e)| matches!(e, Event::Canary(_)));
        listed > relisted && canaries.next().is_some_and(|(_, e)| *e == Event::Canary(Presence::Seen)) && heard(log)
    }

    /// A heartbeat came since the last interruption; before the first complete list, the session itself is one.
    fn heard(log: &Log) -> bool {
        let now = log.last().map_or(0, |(at, _)| *at);
        let broken = last(log, |e| *e == Event::Lost).max(epochs(log).last().copied());
        let since = broken.unwrap_or(0);
        let listed = log[..since].iter().any(|(_, e)| *e == Event::Listed);
        let beat = last(&log[since..], |e| *e == Event::Beat);
        let session = log[since..].iter().position(|(_, e)| matches!(e, Event::Epoch(_)) && !listed);
        beat.or(session).is_some_and(|at| now < log[since + at].0 + SILENT)
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
        3 => Just(Event::Relisting),
        4 => Just(Event::Listed),
        3 => Just(Event::Canary(Presence::Seen)),
        1 => Just(Event::Canary(Presence::Gone)),
        3 => Just(Event::Beat),
        1 => Just(Event::Lost),
        2 => (1..3u64).prop_map(|n| Event::Epoch(Epoch(n))),
        1 => Just(Event::Tick),
    ]
}

/// Anything in any order, also what no store would say; but between sessions nothing is said.
fn log() -> impl Strategy<Value = Vec<(u64, Said)>> {
    let step = prop_oneof![4 => 0..20u64, 1 => 0..2 * SILENT];
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
        1 => Just(Act::Compact),
    ]
}

impl World {
    /// What the session says of it.
    fn act(&mut self, act: &Act) -> Vec<Said> {
        self.now += if matches!(act, Act::Silence) { 2 * SILENT } else { 1 };
        let said = match *act {
            Act::Put(key, value) => {
                self.store.insert(key, value);
                vec![Event::Upsert(key, value)]
            }
            Act::Delete(key) => self.store.remove(&key).map(|_| Event::Delete(key)).into_iter().collect(),
            Act::Beat => vec![Event::Beat],
            Act::Silence => vec![Event::Tick],
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

    fn keys(&self) -> BTreeSet<u8> {
        self.view.keys().copied().collect()
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
        for act in &acts {
            let said = world.act(act);
            let before = following.keys();
            if said.contains(&Event::Beat) {
                spoke = world.now;
            }
            following.hear(said, world.now);
            if world.now >= spoke + SILENT || !world.connected {
                prop_assert!(following.keys().is_superset(&before), "{:?} took something away", act);
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
        for act in [Act::Disconnect, Act::Connect, Act::Beat] {
            let said = world.act(&act);
            following.hear(said, world.now);
        }
        let sure = world.store.iter().map(|(key, value)| (*key, (*value, Standing::Sure)));
        prop_assert_eq!(&following.view, &sure.collect::<View>());
    }
}
