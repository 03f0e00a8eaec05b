extern crate std;
use core::cell::Cell;
use std::collections::BTreeMap;
use std::vec::Vec;

use super::{Client, Maps, SECOND, Stick, Verdict, decide, taken};
use crate::{
    Address, Affinity, AffinityKey, Backend, FrontendKey, MemberKey, ServiceValue, SwitchValue, TCP, UDP, socket_word,
};

/// Maps of one frontend.
struct One {
    key: FrontendKey,
    service: ServiceValue,
    /// How many look-ups find another frontend's entry first.
    reused: Cell<u32>,
    switch: SwitchValue,
    slots: Vec<u32>,
    backends: Vec<Backend>,
    affinity: BTreeMap<AffinityKey, Affinity>,
    members: BTreeMap<MemberKey, u32>,
}

/// The index that a reused hash entry shows.
const OTHERS: u32 = 9;

impl Maps for One {
    fn service(&self, key: &FrontendKey) -> Option<ServiceValue> {
        if self.reused.get() > 0 {
            self.reused.set(self.reused.get() - 1);
            return ServiceValue::new(OTHERS, false, 0);
        }
        (*key == self.key).then_some(self.service)
    }
    fn is_frontend(&self, service: u32, key: &FrontendKey) -> bool {
        service != OTHERS && *key == self.key
    }
    fn switch(&self, service: u32) -> Option<SwitchValue> {
        (service == 0).then_some(self.switch)
    }
    fn slot(&self, position: u32) -> Option<u32> {
        self.slots.get(position as usize).copied()
    }
    fn backend(&self, index: u32) -> Option<Backend> {
        self.backends.get(index as usize).copied()
    }
    fn affinity(&self, key: &AffinityKey) -> Option<Affinity> {
        self.affinity.get(key).copied()
    }
    fn member(&self, key: &MemberKey) -> Option<u32> {
        self.members.get(key).copied()
    }
}

#[derive(Clone, Copy, Default)]
struct Anyone {
    word: u32,
    skipped: bool,
    now: u64,
}

impl Client for Anyone {
    fn skipped(&self) -> bool {
        self.skipped
    }
    fn word(&self, _: u32, _: u16) -> u32 {
        self.word
    }
    fn netns(&self) -> u64 {
        77
    }
    fn now(&self) -> u64 {
        self.now
    }
}

fn v4(last: u8) -> Address {
    Address::from_v4(u32::from_ne_bytes([10, 0, 0, last]))
}

fn frontend() -> FrontendKey {
    FrontendKey::new(v4(1), 80_u16.to_be(), TCP)
}

/// A table of `count` slots from `base` over slots 0, 1, 1, 2, 9 of three backends with ids 100 to 102, the last an IPv6
/// one.
fn maps(base: u32, count: u32) -> One {
    let v6 = Address::from_octets(*b"0123456789abcdef");
    let backends = [v4(10), v4(11), v6].into_iter().zip(100..);
    One {
        key: frontend(),
        service: ServiceValue::new(0, false, 0).unwrap(),
        reused: Cell::new(0),
        switch: SwitchValue::new(base, count, 7).unwrap(),
        slots: Vec::from([0, 1, 1, 2, 9]),
        backends: backends.map(|(a, id)| Backend::new(id, a, 8080_u16.to_be(), TCP, 1)).collect(),
        affinity: BTreeMap::new(),
        members: BTreeMap::new(),
    }
}

/// The same with an affinity of ten seconds, of which backends 0 and 1 are members.
fn sticky() -> One {
    let mut maps = maps(0, 2);
    maps.service = ServiceValue::new(0, false, 10).unwrap();
    maps.members = [0, 1].map(|index| (MemberKey::new(0, 100 + u64::from(index)), index)).into();
    maps
}

fn with(word: u32) -> Anyone {
    Anyone { word, ..Anyone::default() }
}

fn verdict(maps: &One, word: u32) -> Verdict {
    decide(maps, &with(word), &frontend())
}

fn index(verdict: Verdict) -> Option<u32> {
    if let Verdict::To { index, .. } = verdict { Some(index) } else { None }
}

#[test]
fn every_slot_is_found_by_some_word() {
    let maps = maps(0, 3);
    let third = u32::MAX / 3;
    assert_eq!([0, third + 1, u32::MAX].map(|word| index(verdict(&maps, word))), [Some(0), Some(1), Some(1)]);
}

#[test]
fn what_is_not_a_frontend_is_left_alone() {
    for other in [
        FrontendKey::new(v4(2), 80_u16.to_be(), TCP),
        FrontendKey::new(v4(1), 81_u16.to_be(), TCP),
        FrontendKey::new(v4(1), 80_u16.to_be(), UDP),
    ] {
        assert_eq!(decide(&maps(0, 3), &with(0), &other), Verdict::Pass);
    }
}

#[test]
fn an_entry_that_became_anothers_is_looked_up_again_once() {
    let maps = maps(0, 1);
    maps.reused.set(1);
    assert_eq!(index(verdict(&maps, 0)), Some(0));
    maps.reused.set(2);
    assert_eq!(verdict(&maps, 0), Verdict::Pass);
    assert_eq!(index(verdict(&maps, 0)), Some(0));
}

#[test]
fn a_skipped_process_is_left_alone() {
    let client = Anyone { skipped: true, ..Anyone::default() };
    assert_eq!(decide(&maps(0, 3), &client, &frontend()), Verdict::Pass);
    assert_eq!(decide(&maps(0, 0), &client, &frontend()), Verdict::Pass, "nor refused");
}

#[test]
fn an_empty_table_refuses_or_passes() {
    let mut maps = maps(0, 0);
    assert_eq!(verdict(&maps, 0), Verdict::Refuse { service: 0 });
    maps.service = ServiceValue::new(0, true, 0).unwrap();
    assert_eq!(verdict(&maps, 0), Verdict::PassEmpty { service: 0 });
}

#[test]
fn a_broken_table_is_not_followed() {
    // Outside `slots`; a backend outside `backends`; a backend of the other family.
    for base in [5, 4, 3] {
        assert_eq!(verdict(&maps(base, 1), 0), Verdict::Broken { service: 0 }, "base {base}");
    }
    let mut no_switch = maps(0, 3);
    no_switch.service = ServiceValue::new(1, false, 0).unwrap();
    assert_eq!(verdict(&no_switch, 0), Verdict::Broken { service: 1 });
    let mut erased = maps(0, 1);
    erased.backends[0].port = 0;
    assert_eq!(verdict(&erased, 0), Verdict::Broken { service: 0 });
}

const CLIENT: AffinityKey = AffinityKey::new(77, 0);

/// Where a client of affinity goes at `now` whose last backend was `id` at time 0, when the table alone leads to `word`.
fn returning(maps: &mut One, id: u64, now: u64, word: u32) -> (Option<u64>, Stick) {
    maps.affinity.insert(CLIENT, Affinity { id, used: 0 });
    match decide(maps, &Anyone { word, now, ..Anyone::default() }, &frontend()) {
        Verdict::To { backend, stick, .. } => (Some(backend.id), stick),
        _ => (None, Stick::No),
    }
}

fn change(id: u64, used: u64) -> Stick {
    Stick::Change(CLIENT, Affinity { id, used })
}

#[test]
fn a_first_choice_is_kept() {
    let Verdict::To { backend, stick, .. } = decide(&sticky(), &Anyone { now: 5, ..with(0) }, &frontend()) else {
        panic!("translated")
    };
    assert_eq!((backend.id, stick), (100, Stick::New(CLIENT, Affinity { id: 100, used: 5 })));
}

#[test]
fn a_client_stays_until_its_time_is_over() {
    let mut maps = sticky();
    for word in [0, u32::MAX] {
        let now = 10 * SECOND - 1;
        assert_eq!(returning(&mut maps, 101, now, word), (Some(101), Stick::Stay(CLIENT, now)));
    }
    assert_eq!(returning(&mut maps, 101, 10 * SECOND, 0), (Some(100), change(100, 10 * SECOND)));
}

#[test]
fn a_backend_that_left_the_members_is_left() {
    let mut maps = sticky();
    maps.members.remove(&MemberKey::new(0, 101));
    assert_eq!(returning(&mut maps, 101, 1, 0), (Some(100), change(100, 1)));
}

#[test]
fn a_members_place_with_another_backend_is_left() {
    let mut maps = sticky();
    maps.backends[1].id = 500;
    assert_eq!(returning(&mut maps, 101, 1, 0), (Some(100), change(100, 1)));
    // Erased, or of the other family: the same.
    let mut maps = sticky();
    maps.backends[1].port = 0;
    assert_eq!(returning(&mut maps, 101, 1, 0), (Some(100), change(100, 1)));
    maps.members.insert(MemberKey::new(0, 102), 2);
    assert_eq!(returning(&mut maps, 102, 1, 0), (Some(100), change(100, 1)));
}

#[test]
fn what_a_faster_connect_chose_is_taken_while_it_is_a_member() {
    let mut maps = sticky();
    assert_eq!(taken(&maps, &frontend(), 0, &CLIENT), None);
    maps.affinity.insert(CLIENT, Affinity { id: 101, used: 1 });
    assert_eq!(taken(&maps, &frontend(), 0, &CLIENT).map(|(index, backend)| (index, backend.id)), Some((1, 101)));
    maps.members.remove(&MemberKey::new(0, 101));
    assert_eq!(taken(&maps, &frontend(), 0, &CLIENT), None);
}

#[test]
fn an_empty_table_refuses_sticky_clients_too() {
    let mut maps = sticky();
    maps.switch = SwitchValue::new(0, 0, 0).unwrap();
    assert_eq!(returning(&mut maps, 101, 1, 0), (None, Stick::No));
}

#[test]
fn a_clock_that_is_a_little_behind_is_no_timeout() {
    let mut maps = sticky();
    maps.affinity.insert(CLIENT, Affinity { id: 101, used: 1_000 });
    let verdict = decide(&maps, &Anyone { now: 900, ..Anyone::default() }, &frontend());
    assert_eq!(index(verdict), Some(1));
}

/// A client that picks by its cookie.
struct Socket(u64);

impl Client for Socket {
    fn skipped(&self) -> bool {
        false
    }
    fn word(&self, service: u32, generation: u16) -> u32 {
        socket_word(self.0, service, generation)
    }
    fn netns(&self) -> u64 {
        0
    }
    fn now(&self) -> u64 {
        0
    }
}

#[test]
fn a_socket_keeps_its_slot_until_the_generation_changes() {
    let mut maps = maps(0, 2);
    let choices = |maps: &One| (0..64).map(|cookie| index(decide(maps, &Socket(cookie), &frontend()))).collect();
    let first: Vec<_> = choices(&maps);
    assert_eq!(first, choices(&maps));
    maps.switch = SwitchValue::new(0, 2, 8).unwrap();
    assert_ne!(first, choices(&maps));
}
