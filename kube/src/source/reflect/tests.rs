//! Whole histories: a model of an API server that is cut, compacted and restored at any point, and an oracle that
//! remembers what the answers proved.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use tombolo_core::object::NamespaceObject;

use super::*;
use crate::source::decode::{Event, Page};
use crate::source::follow::{Ask, Follow, Heard, Refusal, Step};
use crate::source::resource::RESOURCES;

/// A version of an object; an odd one is bad.
type Version = u32;

fn name(n: u8) -> Name {
    Name { namespace: None, name: format!("n{n}").into() }
}

fn object(n: u8, version: Version) -> Object {
    let annotations = BTreeMap::from([("v".into(), version.to_string())]);
    Object::Namespace(NamespaceObject { name: name(n).name, labels: BTreeMap::new(), annotations })
}

fn item(n: u8, version: Version, revision: u64) -> Item {
    let good = version.is_multiple_of(2);
    let object = if good { Ok(Some(Box::new(object(n, version)))) } else { Err(format!("bad {version}")) };
    Item { name: name(n), revision: revision.to_string().into(), object }
}

/// What happens next.
#[derive(Clone, Copy, Debug)]
enum Act {
    Put(u8, Version),
    Delete(u8),
    /// The server gets on with the running request, by so many steps.
    Answer(usize),
    Cut,
    Close,
    Refuse(u16),
    Compact,
    /// The server is another one, in a state of long ago.
    Restore(usize),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (0..6u8, 0..5u32).prop_map(|(n, v)| Act::Put(n, v)),
        2 => (0..6u8).prop_map(Act::Delete),
        6 => (1..6usize).prop_map(Act::Answer),
        1 => Just(Act::Cut),
        1 => Just(Act::Close),
        1 => prop::sample::select(vec![403, 410, 422, 429, 500, 504]).prop_map(Act::Refuse),
        1 => Just(Act::Compact),
        1 => (0..20usize).prop_map(Act::Restore),
    ]
}

type Objects = BTreeMap<u8, (Version, u64)>;

/// An API server: every state it had, and what is being answered.
struct Server {
    /// The state after each revision; the first is empty.
    states: Vec<Objects>,
    compacted: usize,
    running: Running,
}

/// The request that is being answered.
enum Running {
    Page { more: Option<String> },
    Stream { to_list: Option<Vec<u8>>, opened: bool, at: usize },
    Watch { opened: bool, at: usize },
}

impl Server {
    fn now(&self) -> usize {
        self.states.len() - 1
    }

    fn change(&mut self, change: impl FnOnce(&mut Objects, u64)) {
        let mut next = self.states.last().unwrap().clone();
        change(&mut next, self.states.len() as u64);
        self.states.push(next);
    }

    fn ask(&mut self, ask: Ask) {
        self.running = match ask {
            Ask::Page { more } => Running::Page { more },
            Ask::Stream => Running::Stream { to_list: None, opened: false, at: 0 },
            Ask::Watch { revision } => Running::Watch { opened: false, at: revision.parse().unwrap() },
        };
    }

    /// The next thing said, if there is any.
    fn answer(&mut self) -> Option<Heard> {
        let now = self.now();
        match &mut self.running {
            Running::Page { more } => {
                // A token is the revision and how many came before.
                let (at, skip) = match more {
                    None => (now, 0),
                    Some(token) => {
                        let (at, skip) = token.split_once('-').unwrap();
                        (at.parse().unwrap(), skip.parse().unwrap())
                    }
                };
                if at < self.compacted || at > now {
                    return Some(refused(410));
                }
                let state = &self.states[at];
                let items = state.iter().skip(skip).take(2).map(|(n, (v, r))| item(*n, *v, *r)).collect();
                let more = (skip + 2 < state.len()).then(|| format!("{at}-{}", skip + 2));
                Some(Heard::Page(Page { items, revision: at.to_string().into(), more }))
            }
            Running::Stream { opened: opened @ false, to_list, at } => {
                (*opened, *at) = (true, now);
                *to_list = Some(self.states[now].keys().copied().collect());
                Some(Heard::Opened)
            }
            Running::Stream { to_list: Some(names), at, .. } => match names.pop() {
                Some(n) => {
                    let (version, revision) = self.states[*at][&n];
                    Some(Heard::Event(Event::Put(item(n, version, revision))))
                }
                None => {
                    let revision = at.to_string().into();
                    self.running = Running::Watch { opened: true, at: *at };
                    Some(Heard::Event(Event::ListEnd { revision }))
                }
            },
            Running::Stream { .. } => None,
            Running::Watch { opened: opened @ false, .. } => {
                *opened = true;
                Some(Heard::Opened)
            }
            Running::Watch { at, .. } if *at < self.compacted => {
                Some(Heard::Event(Event::Failed { code: 410, message: "too old".to_owned() }))
            }
            Running::Watch { at, .. } if *at < now => {
                *at += 1;
                Some(difference(&self.states[*at - 1], &self.states[*at], *at))
            }
            // A revision that is ahead of the server's is waited for in silence, as Kubernetes does.
            Running::Watch { .. } => None,
        }
    }
}

fn difference(before: &Objects, after: &Objects, revision: usize) -> Heard {
    let changed = after.iter().find(|(n, v)| before.get(n) != Some(v));
    let revision = revision.to_string().into();
    Heard::Event(match (changed, before.keys().find(|n| !after.contains_key(n))) {
        (Some((n, (version, r))), _) => Event::Put(item(*n, *version, *r)),
        (None, Some(n)) => Event::Gone { name: name(*n), revision },
        (None, None) => Event::Bookmark { revision },
    })
}

fn refused(status: u16) -> Heard {
    Heard::Refused(Refusal { status, message: "no".to_owned(), retry_after: None })
}

/// What the answers proved so far, worked out from them alone.
#[derive(Default)]
struct Oracle {
    /// The last good version of what is proved to exist.
    exist: BTreeMap<Name, Option<Object>>,
    listed: BTreeSet<Name>,
}

impl Oracle {
    fn hear(&mut self, heard: &Heard, first_page: bool) {
        match heard {
            Heard::Page(page) => {
                if first_page {
                    self.listed.clear();
                }
                for item in &page.items {
                    self.put(item);
                }
                if page.more.is_none() {
                    self.exist.retain(|name, _| self.listed.contains(name));
                }
            }
            Heard::Opened => self.listed.clear(),
            Heard::Event(Event::Put(item)) => self.put(item),
            Heard::Event(Event::Gone { name, .. }) => drop(self.exist.remove(name)),
            Heard::Event(Event::ListEnd { .. }) => self.exist.retain(|name, _| self.listed.contains(name)),
            _ => {}
        }
    }

    fn put(&mut self, item: &Item) {
        self.listed.insert(item.name.clone());
        let known = self.exist.entry(item.name.clone()).or_default();
        if let Ok(object) = &item.object {
            *known = object.as_deref().cloned();
        }
    }
}

/// The whole: server, follower, reflection, and what a listener has.
struct Run {
    server: Server,
    follow: Follow,
    reflections: Reflections,
    oracle: Oracle,
    listener: BTreeMap<ObjectKey, Object>,
    faults: BTreeSet<String>,
    completes: usize,
    now: Duration,
}

impl Run {
    fn new() -> Self {
        let follow = Follow::new(3);
        let running = Running::Page { more: None };
        let mut server = Server { states: vec![Objects::new()], compacted: 0, running };
        server.ask(follow.ask());
        Self {
            server,
            follow,
            reflections: Reflections::new(&RESOURCES[1..2]),
            oracle: Oracle::default(),
            listener: BTreeMap::new(),
            faults: BTreeSet::new(),
            completes: 0,
            now: Duration::ZERO,
        }
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Put(n, v) => self.server.change(|objects, revision| _ = objects.insert(n, (v, revision))),
            Act::Delete(n) => self.server.change(|objects, _| _ = objects.remove(&n)),
            Act::Answer(steps) => {
                for _ in 0..steps {
                    let Some(heard) = self.server.answer() else { break };
                    self.hear(heard);
                }
            }
            Act::Cut => self.hear(Heard::Broken("reset".to_owned())),
            Act::Close => {
                self.now += Duration::from_secs(300);
                self.hear(Heard::Closed);
            }
            Act::Refuse(status) => self.hear(refused(status)),
            Act::Compact => self.server.compacted = self.server.now(),
            Act::Restore(back) => {
                let keep = self.server.states.len().saturating_sub(back).max(1);
                self.server.states.truncate(keep);
                self.server.compacted = self.server.compacted.min(self.server.now());
                self.hear(Heard::Broken("restored".to_owned()));
            }
        }
    }

    fn hear(&mut self, heard: Heard) {
        let first_page = matches!(self.server.running, Running::Page { more: None });
        self.oracle.hear(&heard, first_page);
        let mut seen = Vec::new();
        if let Some(Step { ask, .. }) = self.follow.hear(self.now, heard, &mut seen) {
            self.server.ask(ask);
        }
        for event in self.reflections.apply(0, seen).0 {
            self.listen(event);
        }
        let proved: BTreeMap<ObjectKey, Object> =
            self.oracle.exist.values().flatten().map(|object| (object.key(), object.clone())).collect();
        assert_eq!(self.listener, proved, "the listener has the last good version of everything proved to exist");
    }

    fn listen(&mut self, event: SourceEvent) {
        match event {
            SourceEvent::Upsert(object) => {
                let before = self.listener.insert(object.key(), object.clone());
                assert_ne!(before, Some(object), "only differences are said");
            }
            SourceEvent::Delete(key) => {
                assert!(self.listener.remove(&key).is_some(), "only what was said is deleted");
                assert!(
                    self.oracle.exist.keys().all(|name| (RESOURCES[1].key)(name) != Some(key.clone())),
                    "nothing is deleted that the last complete list or event contains"
                );
            }
            SourceEvent::Complete => self.completes += 1,
            SourceEvent::Fault(fault) => drop(self.faults.insert(fault.place)),
            SourceEvent::Mended { place } => assert!(self.faults.remove(&place), "only a fault is mended: {place}"),
        }
    }

    /// The server lives on in peace until there is nothing to say.
    fn settle(&mut self) {
        while let Some(heard) = self.server.answer() {
            self.hear(heard);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 600 } else { 20_000 }))]

    #[test]
    fn only_what_is_proved_is_said_and_in_peace_everything_is(acts in prop::collection::vec(act(), 0..60)) {
        let mut run = Run::new();
        for act in acts {
            run.act(act);
        }
        run.settle();
        prop_assert_eq!(run.completes, 1);
        let state = run.server.states.last().unwrap();
        let there: BTreeSet<Name> = state.keys().map(|n| name(*n)).collect();
        prop_assert_eq!(run.oracle.exist.keys().cloned().collect::<BTreeSet<_>>(), there);
        let bad: BTreeSet<String> = state
            .iter()
            .filter(|(_, (version, _))| !version.is_multiple_of(2))
            .map(|(n, _)| format!("namespaces {}", name(*n)))
            .collect();
        prop_assert_eq!(run.faults, bad);
    }
}

/// Each resource is complete once; the source when the last of them is.
#[test]
fn complete_is_said_once_after_the_last_first_list() {
    let mut reflections = Reflections::new(&RESOURCES[1..3]);
    let list = || vec![Seen::ListBegan, Seen::ListComplete];
    assert_eq!(reflections.apply(1, list()).0, []);
    assert_eq!(reflections.apply(1, list()).0, []);
    assert_eq!(reflections.apply(0, vec![Seen::ListBegan]).0, []);
    assert_eq!(reflections.apply(0, vec![Seen::ListComplete]).0, [SourceEvent::Complete]);
    assert_eq!(reflections.apply(0, list()).0, []);
}

#[test]
fn faults_are_said_once_each_and_mended_by_what_can_be_read() {
    let mut reflections = Reflections::new(&RESOURCES[1..2]);
    let unreadable = |why: &str| vec![Seen::Unreadable(why.to_owned())];
    let fault =
        |place: &str, message: &str| SourceEvent::Fault(Fault { place: place.to_owned(), message: message.to_owned() });
    let mended = |place: &str| SourceEvent::Mended { place: place.to_owned() };
    assert_eq!(reflections.apply(0, unreadable("403")).0, [fault("namespaces", "403")]);
    assert_eq!(reflections.apply(0, unreadable("403")).0, []);
    assert_eq!(reflections.apply(0, unreadable("500")).0, [fault("namespaces", "500")]);
    assert_eq!(reflections.apply(0, vec![Seen::Readable]).0, [mended("namespaces")]);
    assert_eq!(reflections.apply(0, vec![Seen::Put(item(1, 1, 9))]).0, [fault("namespaces n1", "bad 1")]);
    assert_eq!(reflections.apply(0, vec![Seen::Put(item(1, 1, 10))]).0, []);
    assert_eq!(
        reflections.apply(0, vec![Seen::Put(item(1, 2, 11))]).0,
        [mended("namespaces n1"), SourceEvent::Upsert(object(1, 2))]
    );
    assert_eq!(reflections.apply(0, vec![Seen::Put(item(1, 3, 12))]).0, [fault("namespaces n1", "bad 3")]);
    assert_eq!(
        reflections.apply(0, vec![Seen::Gone(name(1))]).0,
        [SourceEvent::Delete(object(1, 2).key()), mended("namespaces n1")]
    );
}

/// A resource of Cilium's is read while its definition is there, counts for completeness, and leaves with it alone.
#[test]
fn a_custom_resource_comes_and_goes_with_its_definition() {
    let index = RESOURCES.iter().position(|r| r.name == "ciliumnodes").unwrap();
    let mut reflections = Reflections::new(RESOURCES);
    let definition = Name { namespace: None, name: "ciliumnodes.cilium.io".into() };
    let definition_item = Item { name: definition.clone(), revision: "1".into(), object: Ok(None) };
    for always in 1..=5 {
        assert_eq!(reflections.apply(always, vec![Seen::ListBegan, Seen::ListComplete]), (vec![], vec![]));
    }
    assert_eq!(reflections.apply(index, vec![Seen::ListBegan]), (vec![], vec![]), "it is not there");
    let defined = vec![Seen::ListBegan, Seen::Put(definition_item), Seen::ListComplete];
    assert_eq!(reflections.apply(0, defined), (vec![], vec![Switch::Begin(index)]));

    let node = Object::CiliumNode(tombolo_core::object::CiliumNodeObject { name: "n1".into(), ..Default::default() });
    let item = Item { name: name(1), revision: "2".into(), object: Ok(Some(Box::new(node.clone()))) };
    let listed = vec![Seen::ListBegan, Seen::Put(item), Seen::ListComplete];
    assert_eq!(
        reflections.apply(index, listed),
        (vec![SourceEvent::Upsert(node.clone()), SourceEvent::Complete], vec![])
    );
    let (said, switches) = reflections.apply(index, vec![Seen::Unreadable("HTTP 404".to_owned())]);
    assert!(matches!(&said[..], [SourceEvent::Fault(_)]) && switches.is_empty());
    let (said, switches) = reflections.apply(0, vec![Seen::Unreadable("HTTP 500".to_owned()), Seen::ListBegan]);
    assert!(
        matches!(&said[..], [SourceEvent::Fault(_)]) && switches.is_empty(),
        "a definition that is not read is not gone"
    );
    let mended = |place: &str| SourceEvent::Mended { place: place.to_owned() };
    assert_eq!(
        reflections.apply(0, vec![Seen::ListComplete]),
        (
            vec![mended("customresourcedefinitions"), SourceEvent::Delete(node.key()), mended("ciliumnodes"),],
            vec![Switch::End(index)]
        )
    );
}
