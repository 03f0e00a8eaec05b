//! What a mirror tells of a peer's silence, as scripts.

use std::fmt::Write as _;

use expect_test::{Expect, expect};
use tombolo_core::own::{PeerCounts, PeerSession};

use super::*;

fn before(silent_ms: u64) -> PeerState {
    PeerState {
        id: None,
        session: PeerSession::Ready,
        silent_ms,
        stale_after_ms: STALE_SLOW_MS,
        least_stale_ms: 150_000,
        detail: String::new(),
        counts: PeerCounts::default(),
    }
}

/// Runs a script, a step a line, and prints whatever agents are told otherwise. Steps: `connect`, `beat`, `gone`,
/// `at SECONDS`, `live`, `awaited`, `every SECONDS until SECONDS` (heartbeats). Services bear 15 s and 60 s.
fn check(before: Option<&PeerState>, script: &str, expected: &Expect) {
    let bounds = BTreeSet::from([15_000, 60_000]);
    let mut silence = Silence::new(before, Millis(0));
    let (mut now, mut session, mut out) = (Millis(0), Session::Awaited, String::new());
    let mut told = None;
    let mut judge = |silence: &mut Silence, session, now: Millis| {
        silence.judge(session, &bounds, now);
        let say = (silence.told_ms(), silence.stale_after_ms(), silence.least_stale_ms());
        if told != Some(say) {
            told = Some(say);
            let silent = if say.0 == u64::MAX { "gone".to_owned() } else { say.0.to_string() };
            writeln!(out, "{} s: silent {silent}, stale after {}, least {}", now.0 / 1_000, say.1, say.2).unwrap();
        }
    };
    for step in script.lines().map(str::trim).filter(|step| !step.is_empty()) {
        let words: Vec<&str> = step.split(' ').collect();
        let seconds = |n: usize| words[n].parse::<u64>().unwrap() * 1_000;
        match words[0] {
            "connect" => silence.connected(now),
            "beat" => silence.beat(now),
            "gone" => silence.beat_gone(),
            "live" => session = Session::Live,
            "awaited" => session = Session::Awaited,
            "every" => {
                while now.0 < seconds(3) {
                    now = now.after(seconds(1));
                    silence.beat(now);
                    judge(&mut silence, session, now);
                }
            }
            "at" => {
                while let Some(due) = silence.deadline(&bounds, now).filter(|due| due.0 <= seconds(1)) {
                    now = due;
                    judge(&mut silence, session, now);
                }
                now = Millis(seconds(1));
            }
            other => panic!("no step is called {other}"),
        }
        judge(&mut silence, session, now);
    }
    expected.assert_eq(&out);
}

#[test]
fn silence_is_told_when_it_crosses_each_threshold() {
    check(
        None,
        "connect
         live
         every 5 until 20
         at 500",
        &expect![[r#"
            0 s: silent 0, stale after 180000, least 150000
            10 s: silent 0, stale after 30000, least 12500
            35 s: silent 15000, stale after 30000, least 12500
            50 s: silent 30000, stale after 30000, least 12500
            80 s: silent 60000, stale after 30000, least 12500
        "#]],
    );
}

#[test]
fn a_peer_that_beats_slowly_is_borne_longer() {
    check(
        None,
        "connect
         live
         every 60 until 300
         at 1000",
        &expect![[r#"
            0 s: silent 0, stale after 180000, least 150000
            450 s: silent 150000, stale after 180000, least 150000
            480 s: silent 180000, stale after 180000, least 150000
        "#]],
    );
}

#[test]
fn a_deleted_heartbeat_is_silence_at_once() {
    check(
        None,
        "connect
         live
         every 5 until 20
         at 21
         gone
         at 300
         beat",
        &expect![[r#"
            0 s: silent 0, stale after 180000, least 150000
            10 s: silent 0, stale after 30000, least 12500
            21 s: silent gone, stale after 30000, least 12500
            300 s: silent 0, stale after 30000, least 12500
        "#]],
    );
}

#[test]
fn a_peer_that_returns_is_silent_until_its_list_is_complete_and_it_is_heard() {
    check(
        None,
        "connect
         live
         every 5 until 20
         at 60
         awaited
         connect
         at 61
         beat
         at 62
         live",
        &expect![[r#"
            0 s: silent 0, stale after 180000, least 150000
            10 s: silent 0, stale after 30000, least 12500
            35 s: silent 15000, stale after 30000, least 12500
            50 s: silent 30000, stale after 30000, least 12500
            62 s: silent 0, stale after 30000, least 12500
        "#]],
    );
}

#[test]
fn the_first_contact_is_fresh_and_a_peer_never_reached_is_silent_from_the_start() {
    check(
        None,
        "at 29
         connect
         live
         at 40
         at 300",
        &expect![[r#"
            15 s: silent 15000, stale after 30000, least 0
            29 s: silent 15000, stale after 180000, least 150000
            29 s: silent 0, stale after 180000, least 150000
            179 s: silent 150000, stale after 180000, least 150000
            209 s: silent 180000, stale after 180000, least 150000
        "#]],
    );
    check(
        None,
        "at 300",
        &expect![[r#"
        15 s: silent 15000, stale after 30000, least 0
        30 s: silent 30000, stale after 30000, least 0
        60 s: silent 60000, stale after 30000, least 0
    "#]],
    );
}

#[test]
fn what_an_earlier_life_told_stands_until_the_peer_is_heard() {
    check(
        Some(&before(180_000)),
        "at 10
         connect
         live
         at 20
         beat",
        &expect![[r#"
            10 s: silent 180000, stale after 180000, least 150000
            20 s: silent 0, stale after 180000, least 150000
        "#]],
    );
    check(
        Some(&before(0)),
        "at 179\nat 180",
        &expect![[r#"
        150 s: silent 150000, stale after 180000, least 150000
        180 s: silent 180000, stale after 180000, least 150000
    "#]],
    );
}

#[test]
fn heartbeats_that_come_at_once_after_a_stall_are_no_other_interval() {
    check(
        None,
        "connect
         live
         every 5 until 40
         at 55
         beat
         beat
         beat
         every 5 until 100",
        &expect![[r#"
            0 s: silent 0, stale after 180000, least 150000
            10 s: silent 0, stale after 30000, least 12500
            55 s: silent 15000, stale after 30000, least 12500
            55 s: silent 0, stale after 30000, least 12500
        "#]],
    );
}
