//! Silence and restarts, told as scripts.

#![expect(
    clippy::unwrap_used,
    clippy::needless_pass_by_value,
    reason = "a test fails where it stands, and an `expect![]` is written where it is checked"
)]

mod rows;
mod script;

use expect_test::expect;
use script::{CONFIG, check, check_with};
use tombolo_core::hold::{Absent, Canary, Change, Doubt, Event, Hold, HoldConfig, Presence, Standing};
use tombolo_core::id::{Epoch, Millis};

#[test]
fn without_faults_it_passes_everything_on() {
    check(
        "0 epoch=1 canary [ a=1 b=2 ]
         1 a=3 a=3 -b -b
         2 beat
         50 c=1",
        expect![[r#"
            0 epoch=1 canary [ a=1 b=2 ] => a=1 b=2
            1 a=3 a=3 -b -b => a=3 -b
            2 beat =>
            50 c=1 => c=1
            held: a=3 c=1"#]],
    );
}

#[test]
fn a_delete_from_a_silent_writer_waits_for_its_heartbeat() {
    check(
        "0 epoch=1 canary [ a=1 b=1 c=1 ] beat
         100 -a
         101 -b c=2
         102 b=1
         103 tick
         104 beat",
        expect![[r#"
            0 epoch=1 canary [ a=1 b=1 c=1 ] beat => a=1 b=1 c=1
            100 -a => a=1?Heartbeat
            101 -b c=2 => b=1?Heartbeat c=2
            102 b=1 => b=1
            103 tick =>
            104 beat => -a
            held: b=1 c=2"#]],
    );
}

#[test]
fn first_contact_counts_as_alive_but_not_for_ever() {
    check(
        "0 epoch=1 canary [ a=1 b=1 ]
         99 -a
         100 -b",
        expect![[r#"
            0 epoch=1 canary [ a=1 b=1 ] => a=1 b=1
            99 -a => -a
            100 -b => b=1?Heartbeat
            held: b=1?Heartbeat"#]],
    );
}

#[test]
fn a_lost_session_changes_nothing_until_it_is_back_listed_and_heard() {
    check(
        "0 epoch=1 canary [ a=1 b=1 ] beat
         10 lost
         11 epoch=1 [ b=1
         12 ]
         13 beat",
        expect![[r#"
            0 epoch=1 canary [ a=1 b=1 ] beat => a=1 b=1
            10 lost =>
            11 epoch=1 [ b=1 =>
            12 ] => a=1?Heartbeat
            13 beat => -a
            held: b=1"#]],
    );
}

#[test]
fn a_list_cut_short_does_not_count() {
    check(
        "0 epoch=1 canary [ a=1 b=1 ] beat
         10 lost epoch=1 [ a=1 lost
         20 epoch=1 [ b=1 ] beat",
        expect![[r#"
            0 epoch=1 canary [ a=1 b=1 ] beat => a=1 b=1
            10 lost epoch=1 [ a=1 lost =>
            20 epoch=1 [ b=1 ] beat => a=1?Heartbeat -a
            held: b=1"#]],
    );
}

#[test]
fn a_store_restarted_empty_takes_nothing_away_before_its_canary() {
    check(
        "0 epoch=1 canary [ a=1 b=1 c=1 ] beat
         10 lost epoch=2 [ ]
         11 beat
         12 a=2 b=1
         13 canary",
        expect![[r#"
            0 epoch=1 canary [ a=1 b=1 c=1 ] beat => a=1 b=1 c=1
            10 lost epoch=2 [ ] => a=1?Canary b=1?Canary c=1?Canary
            11 beat =>
            12 a=2 b=1 => a=2 b=1
            13 canary => -c
            held: a=2 b=1"#]],
    );
}

#[test]
fn a_new_epoch_must_be_heard_too() {
    check(
        "0 epoch=1 canary [ a=1 ] beat
         10 epoch=2 canary [ ]
         11 tick
         12 beat",
        expect![[r#"
            0 epoch=1 canary [ a=1 ] beat => a=1
            10 epoch=2 canary [ ] => a=1?Heartbeat
            11 tick =>
            12 beat => -a
            held:"#]],
    );
}

#[test]
fn deletes_without_the_canary_are_an_expiry() {
    check(
        "0 epoch=1 canary [ a=1 b=1 ] beat
         10 nocanary -a -b
         11 a=1 canary",
        expect![[r#"
            0 epoch=1 canary [ a=1 b=1 ] beat => a=1 b=1
            10 nocanary -a -b => a=1?Canary b=1?Canary
            11 a=1 canary => a=1 -b
            held: a=1"#]],
    );
}

#[test]
fn a_relist_after_a_compaction_sweeps_at_once() {
    check(
        "0 epoch=1 canary [ a=1 b=1 ] beat
         10 [ b=2 ]",
        expect![[r#"
            0 epoch=1 canary [ a=1 b=1 ] beat => a=1 b=1
            10 [ b=2 ] => b=2 -a
            held: b=2"#]],
    );
}

#[test]
fn the_agent_keeps_what_its_own_apiserver_no_longer_says() {
    check_with(
        HoldConfig { absent: Absent::Kept, ..CONFIG },
        "0 epoch=1 canary [ a=1 b=1 ] beat
         10 lost epoch=2 [ ]
         11 b=1 beat
         12 canary",
        expect![[r#"
            0 epoch=1 canary [ a=1 b=1 ] beat => a=1 b=1
            10 lost epoch=2 [ ] =>
            11 b=1 beat =>
            12 canary => -a
            held: b=1"#]],
    );
}

#[test]
fn a_writer_without_a_canary_is_believed_by_its_list() {
    check_with(
        HoldConfig { canary: Canary::None, ..CONFIG },
        "0 epoch=1 [ a=1 b=1 ] -a
         10 epoch=2 [ ] beat",
        expect![[r#"
            0 epoch=1 [ a=1 b=1 ] -a => a=1 b=1 -a
            10 epoch=2 [ ] beat => b=1?Heartbeat -b
            held:"#]],
    );
}

#[test]
fn an_unreadable_value_keeps_the_last_good_one_for_this_epoch() {
    check(
        "0 epoch=1 canary [ a=1 b=1 ] beat
         10 ?a [ ?a b=1 ]
         20 epoch=2 canary [ ?a b=1 ] beat",
        expect![[r#"
            0 epoch=1 canary [ a=1 b=1 ] beat => a=1 b=1
            10 ?a [ ?a b=1 ] =>
            20 epoch=2 canary [ ?a b=1 ] beat => a=1?Heartbeat -a
            held: b=1"#]],
    );
}

#[test]
fn what_admission_refuses_leaves_at_once() {
    check(
        "0 epoch=1 canary [ a=1 b=1 ] beat
         500 lost !a",
        expect![[r#"
            0 epoch=1 canary [ a=1 b=1 ] beat => a=1 b=1
            500 lost !a => -a
            held: b=1"#]],
    );
}

#[test]
fn release_lets_everything_go() {
    let mut hold = Hold::new(HoldConfig { silent_after_ms: 100_000, canary: Canary::None, ..CONFIG });
    for event in [Event::Epoch(Epoch(1)), Event::Listed, Event::Upsert("a", 1), Event::Expired("a")] {
        hold.on(event, Millis(0));
    }
    assert_eq!((hold.is_empty(), hold.deadline()), (false, Some(Millis(60_000))));
    assert_eq!(hold.release(), [Change::Remove("a")]);
    assert_eq!((hold.is_empty(), hold.deadline()), (true, Some(Millis(100_000))));
}

#[test]
fn what_is_held_can_be_asked_for() {
    let mut hold = Hold::new(CONFIG);
    assert_eq!((hold.len(), hold.get(&"a")), (0, None));
    hold.on(Event::Epoch(Epoch(1)), Millis(0));
    hold.on(Event::Upsert("a", 1), Millis(0));
    hold.on(Event::Upsert("b", 2), Millis(0));
    hold.on(Event::Delete("b"), Millis(0));
    assert_eq!((hold.len(), hold.get(&"a")), (2, Some((&1, Standing::Sure))));
    assert_eq!(hold.get(&"b"), Some((&2, Standing::Doubtful(Doubt::List))));
}

#[test]
fn it_is_synced_by_list_and_canary() {
    let synced = |config| {
        let mut hold = Hold::<&str, u32>::new(config);
        let events = [
            Event::Epoch(Epoch(1)),
            Event::Relisting,
            Event::Listed,
            Event::Canary(Presence::Seen),
            Event::Relisting,
            Event::Listed,
            Event::Epoch(Epoch(2)),
        ];
        let mut after = |event| {
            hold.on(event, Millis(0));
            hold.is_synced()
        };
        events.map(|event| u8::from(after(event)))
    };
    assert_eq!(synced(CONFIG), [0, 0, 0, 1, 0, 1, 0]);
    assert_eq!(synced(HoldConfig { canary: Canary::None, ..CONFIG }), [0, 0, 1, 1, 0, 1, 0]);
}

#[test]
fn how_long_silence_is_may_be_learnt() {
    let mut hold = Hold::<&str, u32>::new(CONFIG);
    hold.on(Event::Epoch(Epoch(1)), Millis(0));
    hold.set_silent_after(7);
    assert_eq!(hold.deadline(), Some(Millis(7)));
}

#[test]
fn the_deadline_is_when_the_writer_falls_silent() {
    let mut hold = Hold::<&str, u32>::new(CONFIG);
    assert_eq!((hold.deadline(), hold.silent_ms(Millis(5))), (None, 0));
    hold.on(Event::Epoch(Epoch(1)), Millis(10));
    assert_eq!((hold.deadline(), hold.silent_ms(Millis(15))), (Some(Millis(110)), 5));
    hold.on(Event::Beat, Millis(20));
    hold.on(Event::Listed, Millis(20));
    assert_eq!(hold.deadline(), Some(Millis(120)));
    hold.on(Event::Tick, Millis(120));
    assert_eq!(hold.deadline(), None, "told once, or whoever waits for it would spin");
    hold.on(Event::Beat, Millis(130));
    hold.on(Event::Lost, Millis(140));
    assert_eq!((hold.deadline(), hold.silent_ms(Millis(150))), (None, 20));
}

#[test]
fn the_deadline_is_also_when_what_ended_with_its_lease_leaves() {
    let mut hold = Hold::new(HoldConfig { silent_after_ms: 100_000, canary: Canary::None, ..CONFIG });
    let mut on = |event, at| {
        hold.on(event, Millis(at));
        hold.deadline().unwrap_or_default()
    };
    on(Event::Epoch(Epoch(1)), 0);
    on(Event::Listed, 0);
    on(Event::Upsert("a", 1), 0);
    assert_eq!(on(Event::Expired("a"), 10), Millis(60_010));
    assert_eq!(on(Event::Relisting, 20), Millis(100_000), "a writer that lists does not count");
    assert_eq!(on(Event::Listed, 30), Millis(60_030));
    assert_eq!(on(Event::Tick, 60_030), Millis(100_000));
}

#[test]
fn what_waited_leaves_beside_what_ended_with_its_lease() {
    check(
        "0 epoch=1 canary [ a=1 b=1 c=1 d=1 e=1 f=1 ] beat
         50 xb xc
         160 -d
         161 beat",
        expect![[r#"
            0 epoch=1 canary [ a=1 b=1 c=1 d=1 e=1 f=1 ] beat => a=1 b=1 c=1 d=1 e=1 f=1
            50 xb xc => b=1?Expiry c=1?Expiry
            160 -d => d=1?Heartbeat
            161 beat => -d
            held: a=1 b=1?Expiry c=1?Expiry e=1 f=1"#]],
    );
}
