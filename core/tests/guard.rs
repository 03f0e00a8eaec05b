//! The deletion guard, told as scripts.
//!
//! A step is `<ms> <service>/<slice>=<first>..<end>…`: the slice lists these numbers from now on; `~` in place of `=` says
//! that it was decided here. The output is what the judgement after the step says: ghosts by service, and the sweep.

#![expect(
    clippy::unwrap_used,
    clippy::needless_pass_by_value,
    reason = "a test fails where it stands, and an `expect![]` is written where it is checked"
)]

use std::collections::BTreeMap;

use expect_test::{Expect, expect};
use tombolo_core::hold::guard::{Cause, Guard, Judgement, Turn};
use tombolo_core::id::{Millis, ServiceKey};
use tombolo_core::model::Endpoint;
use tombolo_testkit::fixture::{addr, endpoint, key};

#[derive(Default)]
struct Peer {
    guard: Guard,
    slices: BTreeMap<(ServiceKey, String), Vec<Endpoint>>,
}

fn numbered(service: &str, number: u32) -> Endpoint {
    let third = u32::from(service.as_bytes()[0]);
    endpoint(&format!("10.{third}.{}.{}", number / 256, number % 256), "http:80")
}

impl Peer {
    fn set(&mut self, service: &str, slice: &str, after: Vec<Endpoint>, cause: Cause, now: Millis) {
        let (service, name) = (key(service), slice.into());
        let before = self.slices.insert((service.clone(), slice.into()), after.clone()).unwrap_or_default();
        let turn = Turn { service: &service, slice: &name, before: &before, revision: 7, after: &after, cause };
        self.guard.turn(turn, now);
    }

    fn step(&mut self, words: &str, now: Millis) -> Judgement {
        for word in words.split_whitespace().filter(|word| *word != "tick") {
            let (at, cause) = if word.contains('~') { ("~", Cause::Decided) } else { ("=", Cause::Said) };
            let (place, range) = word.split_once(at).unwrap();
            let (service, slice) = place.split_once('/').unwrap();
            let (first, end) = range.split_once("..").unwrap();
            let numbers = first.parse().unwrap()..end.parse().unwrap();
            self.set(service, slice, numbers.map(|n| numbered(service, n)).collect(), cause, now);
        }
        self.guard.judge(now)
    }

    fn ghosts(&self) -> String {
        let of = |key: &ServiceKey| format!("{}:{}", key.name, self.guard.ghosts(key).count());
        self.guard.haunted().map(of).collect::<Vec<_>>().join(" ")
    }
}

fn check(script: &str, expected: Expect) {
    let mut peer = Peer::default();
    let mut out = String::new();
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (ms, words) = line.split_once(' ').unwrap();
        let Judgement { services, sweep } = peer.step(words, Millis(ms.parse().unwrap()));
        let differ: Vec<_> = services.iter().map(|key| key.name.as_str()).collect();
        out += format!("{line} => {} [{}]", differ.join(" "), peer.ghosts()).as_str();
        if let Some(sweep) = sweep {
            assert_eq!(peer.guard.sweep(), Some(sweep));
            out += &format!(" {} of {} in {}, until {}", sweep.removed, sweep.of, sweep.services, sweep.until.0);
        }
        assert_eq!(peer.guard.is_empty(), peer.guard.sweep().is_none());
        out += "\n";
    }
    expected.assert_eq(&out);
}

#[test]
fn more_than_half_in_two_services_comes_back_for_a_minute() {
    check(
        "0 a/x=0..10 b/x=0..10
         1000 a/x=0..0
         2000 b/x=0..9
         61999 tick
         62000 tick",
        expect![[r#"
            0 a/x=0..10 b/x=0..10 =>  []
            1000 a/x=0..0 =>  []
            2000 b/x=0..9 => a b [a:10 b:1] 11 of 20 in 2, until 62000
            61999 tick =>  [a:10 b:1]
            62000 tick => a b []
        "#]],
    );
}

#[test]
fn half_may_go() {
    check(
        "0 a/x=0..12 b/x=0..12
         1 a/x=0..6 b/x=0..6
         2 b/x=0..5",
        expect![[r#"
            0 a/x=0..12 b/x=0..12 =>  []
            1 a/x=0..6 b/x=0..6 =>  []
            2 b/x=0..5 => a b [a:6 b:7] 13 of 24 in 2, until 60002
        "#]],
    );
}

#[test]
fn ten_may_go() {
    check(
        "0 a/x=0..5 b/x=0..5
         1 a/x=0..0 b/x=0..0
         2 c/x=0..2
         3 c/x=0..1
         4 c/x=0..0",
        expect![[r#"
            0 a/x=0..5 b/x=0..5 =>  []
            1 a/x=0..0 b/x=0..0 =>  []
            2 c/x=0..2 =>  []
            3 c/x=0..1 => a b c [a:5 b:5 c:1] 11 of 12 in 3, until 60003
            4 c/x=0..0 => c [a:5 b:5 c:2] 12 of 12 in 3, until 60004
        "#]],
    );
}

#[test]
fn one_service_scaled_to_zero_is_never_held() {
    check(
        "0 a/x=0..100 a/y=100..1000 b/x=0..3
         1 a/x=0..0
         2 a/y=100..100",
        expect![[r#"
            0 a/x=0..100 a/y=100..1000 b/x=0..3 =>  []
            1 a/x=0..0 =>  []
            2 a/y=100..100 =>  []
        "#]],
    );
}

#[test]
fn removals_count_together_for_thirty_seconds() {
    check(
        "0 a/x=0..10 b/x=0..10
         1000 a/x=0..0
         31000 b/x=0..0",
        expect![[r#"
            0 a/x=0..10 b/x=0..10 =>  []
            1000 a/x=0..0 =>  []
            31000 b/x=0..0 =>  []
        "#]],
    );
    check(
        "0 a/x=0..10 b/x=0..10
         1000 a/x=0..0
         30999 b/x=0..0",
        expect![[r#"
            0 a/x=0..10 b/x=0..10 =>  []
            1000 a/x=0..0 =>  []
            30999 b/x=0..0 => a b [a:10 b:10] 20 of 20 in 2, until 90999
        "#]],
    );
}

#[test]
fn what_goes_on_going_comes_back_too() {
    check(
        "0 a/x=0..10 b/x=0..10 c/x=0..10
         1 a/x=0..0 b/x=0..0
         5000 c/x=0..5
         40000 c/x=0..0
         60001 tick
         65000 tick",
        expect![[r#"
            0 a/x=0..10 b/x=0..10 c/x=0..10 =>  []
            1 a/x=0..0 b/x=0..0 => a b [a:10 b:10] 20 of 30 in 2, until 60001
            5000 c/x=0..5 => c [a:10 b:10 c:5] 25 of 30 in 3, until 65000
            40000 c/x=0..0 =>  [a:10 b:10 c:5]
            60001 tick => a b [c:5]
            65000 tick => c []
        "#]],
    );
}

#[test]
fn what_is_put_again_is_no_ghost() {
    check(
        "0 a/x=0..10 b/x=0..10
         1 a/x=0..0 b/x=0..0
         2 a/x=0..3
         3 b/y=0..10
         4 a/x=0..0
         60001 tick",
        expect![[r#"
            0 a/x=0..10 b/x=0..10 =>  []
            1 a/x=0..0 b/x=0..0 => a b [a:10 b:10] 20 of 20 in 2, until 60001
            2 a/x=0..3 => a [a:7 b:10]
            3 b/y=0..10 => b [a:7]
            4 a/x=0..0 =>  [a:7]
            60001 tick => a []
        "#]],
    );
}

#[test]
fn a_slice_may_be_renamed_and_split() {
    check(
        "0 a/x=0..10 b/x=0..10
         1 a/x=0..0 a/y=0..10
         2 b/y=0..5 b/z=5..10 b/x=0..0
         3 b/w=3..7
         4 b/y=0..0 b/z=0..0 a/y=0..0",
        expect![[r#"
            0 a/x=0..10 b/x=0..10 =>  []
            1 a/x=0..0 a/y=0..10 =>  []
            2 b/y=0..5 b/z=5..10 b/x=0..0 =>  []
            3 b/w=3..7 =>  []
            4 b/y=0..0 b/z=0..0 a/y=0..0 => a b [a:10 b:6] 16 of 20 in 2, until 60004
        "#]],
    );
}

#[test]
fn a_rolling_update_is_no_removal() {
    check(
        "0 a/x=0..20 b/x=0..20
         1 a/x=0..25 b/x=0..25
         2 a/x=5..25 b/x=5..25
         3 a/x=5..40 b/x=5..40
         4 a/x=20..40 b/x=20..40
         5 a/x=100..120 b/x=100..120",
        expect![[r#"
            0 a/x=0..20 b/x=0..20 =>  []
            1 a/x=0..25 b/x=0..25 =>  []
            2 a/x=5..25 b/x=5..25 =>  []
            3 a/x=5..40 b/x=5..40 =>  []
            4 a/x=20..40 b/x=20..40 =>  []
            5 a/x=100..120 b/x=100..120 =>  []
        "#]],
    );
}

#[test]
fn the_first_import_is_no_reserve() {
    check(
        "0 a/x=0..10 b/x=0..10
           1 a/x=0..0 b/x=0..0",
        expect![[r#"
            0 a/x=0..10 b/x=0..10 =>  []
            1 a/x=0..0 b/x=0..0 => a b [a:10 b:10] 20 of 20 in 2, until 60001
        "#]],
    );
}

#[test]
fn what_is_decided_here_leaves_at_once() {
    check(
        "0 a/x=0..10 b/x=0..10
         1 a/x~0..0 b/x~0..0",
        expect![[r#"
            0 a/x=0..10 b/x=0..10 =>  []
            1 a/x~0..0 b/x~0..0 =>  []
        "#]],
    );
    check(
        "0 a/x=0..12 b/x=0..12
         1 a/x~0..1
         2 b/x=0..0
         3 a/x=0..0",
        expect![[r#"
            0 a/x=0..12 b/x=0..12 =>  []
            1 a/x~0..1 =>  []
            2 b/x=0..0 =>  []
            3 a/x=0..0 => a b [a:1 b:12] 13 of 13 in 2, until 60003
        "#]],
    );
}

#[test]
fn what_is_refused_now_neither_stays_nor_comes_back() {
    let mut peer = Peer::default();
    let (a, b) = (key("a"), key("b"));
    peer.step("a/x=0..10 b/x=0..10 c/x=0..10", Millis(0));
    peer.step("a/x=0..0 b/x=0..0", Millis(1));
    peer.step("c/x=0..9", Millis(2));
    assert_eq!(peer.ghosts(), "a:10 b:10 c:1");
    peer.guard.refuse(|e| e.addr == addr("10.97.0.3"));
    let judgement = peer.guard.judge(Millis(3));
    assert_eq!((judgement.services.into_iter().collect::<Vec<_>>(), judgement.sweep), (vec![a.clone()], None));
    assert_eq!(peer.ghosts(), "a:9 b:10 c:1");
    peer.guard.refuse(|_| true);
    assert_eq!((peer.ghosts().as_str(), peer.guard.deadline(), peer.guard.len()), ("", None, 0));

    let mut peer = Peer::default();
    peer.step("a/x=0..10 b/x=0..10", Millis(0));
    peer.step("a/x=0..0", Millis(1));
    peer.guard.refuse(|e| e.addr == addr("10.97.0.3"));
    peer.step("b/x=0..0", Millis(2));
    assert_eq!(peer.ghosts(), "a:9 b:10");
    assert_eq!(peer.guard.deadline(), Some(Millis(60_002)));
    assert_eq!(peer.guard.ghosts(&b).count(), 10);
}

#[test]
fn a_ghost_has_what_its_endpoint_is_made_of() {
    let mut peer = Peer::default();
    peer.step("a/x=0..10 b/x=0..10", Millis(0));
    peer.step("a/x=0..0 b/x=0..0", Millis(1));
    let ghosts: Vec<_> = peer.guard.ghosts(&key("a")).collect();
    assert_eq!(ghosts.len(), 10);
    assert_eq!((ghosts[3].slice.as_str(), ghosts[3].revision, ghosts[3].until), ("x", 7, Millis(60_001)));
    assert_eq!(ghosts[3].endpoint, Endpoint { doubtful: true, ..numbered("a", 3) });
}

#[test]
fn nothing_is_remembered_for_longer_than_it_counts() {
    let after = |script: &[(u64, &str)]| {
        let mut peer = Peer::default();
        for (at, words) in script {
            peer.step(words, Millis(*at));
        }
        peer.guard
    };
    let all = "a/x=0..10 b/x=0..10";
    let none = "a/x=0..0 b/x=0..0";
    assert_eq!(after(&[(0, all), (1, none), (30_001, "tick"), (60_001, "tick")]), Guard::default());
    assert_eq!(after(&[(0, all), (1, "a/x=0..0"), (2, "a/x=0..10"), (30_001, "tick")]), after(&[(0, all)]));
    assert_eq!(after(&[(0, "a/x=0..10"), (1, "a/x=0..0"), (30_001, "tick")]), Guard::default());
    assert_eq!(after(&[(0, all), (1, "a/x~0..0 b/x~0..0")]), Guard::default());
    let mut refused = after(&[(0, all), (1, none)]);
    refused.refuse(|_| true);
    assert_eq!(refused.judge(Millis(30_001)).services.len(), 2);
    assert_eq!(refused, Guard::default());
}
