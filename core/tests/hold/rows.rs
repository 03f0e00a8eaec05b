//! What may happen to a writer, by the names under which docs/design/hold.md lists it.

use expect_test::expect;
use tombolo_core::hold::{Absent, Doubt, Hold, HoldConfig, Standing};
use tombolo_core::id::Millis;

use super::script::{CONFIG, check, check_with, tell};

#[test]
fn a_peer_is_silent() {
    check(
        "0 epoch=1 canary [ a=1 b=1 c=1 ] beat
         50 nobeat -a
         60 beat -b
         160 -c",
        expect![[r#"
            0 epoch=1 canary [ a=1 b=1 c=1 ] beat => a=1 b=1 c=1
            50 nobeat -a => a=1?Heartbeat
            60 beat -b => -a -b
            160 -c => c=1?Heartbeat
            held: c=1?Heartbeat"#]],
    );
}

#[test]
fn its_session_returns() {
    check(
        "0 epoch=1 canary [ a=1 b=1 ]
         1 -a
         2 lost
         3 epoch=1 [ ]
         90 -b
         99 beat",
        expect![[r#"
            0 epoch=1 canary [ a=1 b=1 ] => a=1 b=1
            1 -a => -a
            2 lost =>
            3 epoch=1 [ ] => b=1?Heartbeat
            90 -b =>
            99 beat => -b
            held:"#]],
    );
}

#[test]
fn a_session_lost_before_its_first_list_was_no_contact_yet() {
    check(
        "0 epoch=1 canary [ a=1
         1 lost
         2 epoch=1 [ b=1 ]
         3 -b",
        expect![[r#"
            0 epoch=1 canary [ a=1 => a=1
            1 lost =>
            2 epoch=1 [ b=1 ] => b=1 -a
            3 -b => -b
            held:"#]],
    );
}

#[test]
fn the_own_apiserver_or_store_is_silent() {
    check_with(
        HoldConfig { absent: Absent::Kept, ..CONFIG },
        "0 epoch=1 canary [ a=1 b=1 c=1 d=1 ] beat
         100 -a
         101 lost
         102 epoch=1 [ b=1 d=1 ]
         103 xb -d
         104 beat",
        expect![[r#"
            0 epoch=1 canary [ a=1 b=1 c=1 d=1 ] beat => a=1 b=1 c=1 d=1
            100 -a =>
            101 lost =>
            102 epoch=1 [ b=1 d=1 ] =>
            103 xb -d =>
            104 beat => -a -c -d
            held: b=1"#]],
    );
}

#[test]
fn a_peers_deletes() {
    check(
        "0 epoch=1 canary [ a=1 b=1 c=1 d=1 ] beat
         10 -a
         20 nocanary -b
         30 canary
         40 lost -c
         50 epoch=1 [ d=1 ] beat
         150 -d",
        expect![[r#"
            0 epoch=1 canary [ a=1 b=1 c=1 d=1 ] beat => a=1 b=1 c=1 d=1
            10 -a => -a
            20 nocanary -b => b=1?Canary
            30 canary => -b
            40 lost -c => c=1?List
            50 epoch=1 [ d=1 ] beat => -c
            150 -d => d=1?Heartbeat
            held: d=1?Heartbeat"#]],
    );
}

#[test]
fn two_or_more_keys_of_one_lease_at_one_revision() {
    check_with(
        HoldConfig { silent_after_ms: 100_000, ..CONFIG },
        "0 epoch=1 canary [ a=1 b=1 c=1 d=1 ] beat
         10 xa xb xc xd
         20 b=1 d=2
         30 -b -c
         40 xd beat
         60009 e=1
         60010 e=2
         60039 tick
         60040 tick",
        expect![[r#"
            0 epoch=1 canary [ a=1 b=1 c=1 d=1 ] beat => a=1 b=1 c=1 d=1
            10 xa xb xc xd => a=1?Expiry b=1?Expiry c=1?Expiry d=1?Expiry
            20 b=1 d=2 => b=1 d=2
            30 -b -c => -b -c
            40 xd beat => d=2?Expiry
            60009 e=1 => e=1
            60010 e=2 => e=2 -a
            60039 tick =>
            60040 tick => -d
            held: e=2"#]],
    );
}

#[test]
fn what_ended_with_its_lease_has_its_time_once_its_writer_lives_again() {
    check_with(
        HoldConfig { silent_after_ms: 80_000, ..CONFIG },
        "0 epoch=1 canary [ a=1 b=1 ] beat
         50000 xa xb
         80000 tick
         90000 beat
         90050 b=1 beat
         90149 lost epoch=1 [ b=1 ]
         90160 beat
         90200 beat
         150159 tick
         150160 beat",
        expect![[r#"
            0 epoch=1 canary [ a=1 b=1 ] beat => a=1 b=1
            50000 xa xb => a=1?Expiry b=1?Expiry
            80000 tick =>
            90000 beat =>
            90050 b=1 beat => b=1
            90149 lost epoch=1 [ b=1 ] =>
            90160 beat =>
            90200 beat =>
            150159 tick =>
            150160 beat => -a
            held: b=1"#]],
    );
}

#[test]
fn own_store_starts_a_new_epoch() {
    check(
        "0 epoch=1 canary [ a=1 b=1 c=1 ] beat
         10 xa
         20 epoch=2 [ b=1 ] beat
         30 -c
         40 canary",
        expect![[r#"
            0 epoch=1 canary [ a=1 b=1 c=1 ] beat => a=1 b=1 c=1
            10 xa => a=1?Expiry
            20 epoch=2 [ b=1 ] beat => c=1?Canary
            30 -c =>
            40 canary => -a -c
            held: b=1"#]],
    );
}

#[test]
fn a_record_can_no_longer_be_decoded() {
    check(
        "0 epoch=1 canary [ a=1 b=1 c=1 ] beat
         10 ?a ?z
         20 -a
         30 xb ?b
         130 -c ?c
         140 epoch=2 [ ?b ] canary beat",
        expect![[r#"
            0 epoch=1 canary [ a=1 b=1 c=1 ] beat => a=1 b=1 c=1
            10 ?a ?z =>
            20 -a => -a
            30 xb ?b => b=1?Expiry b=1
            130 -c ?c => c=1?Heartbeat c=1
            140 epoch=2 [ ?b ] canary beat => b=1?Canary c=1?Canary -b -c
            held:"#]],
    );
}

#[test]
fn a_record_is_refused_by_admission() {
    check(
        "0 epoch=1 canary [ a=1 b=1 ] beat
         10 xa !a
         110 tick
         120 -b !b !b",
        expect![[r#"
            0 epoch=1 canary [ a=1 b=1 ] beat => a=1 b=1
            10 xa !a => a=1?Expiry -a
            110 tick =>
            120 -b !b !b => b=1?Heartbeat -b
            held:"#]],
    );
}

#[test]
fn the_agent_restarts() {
    let entries = [
        ("a", 1, Standing::Sure),
        ("b", 1, Standing::Sure),
        ("c", 1, Standing::Sure),
        ("d", 1, Standing::Doubtful(Doubt::Canary)),
        ("e", 1, Standing::Sure),
    ];
    let entries = || entries.into_iter().map(|(key, value, standing)| (key.to_owned(), value, standing));
    tell(
        Hold::restore(CONFIG, entries(), Millis(5)),
        "10 tick
         20 epoch=7 [ a=1 b=2 ?e
         30 -b
         40 ]
         50 canary
         60 beat",
        expect![[r#"
            10 tick =>
            20 epoch=7 [ a=1 b=2 ?e => b=2
            30 -b => b=2?List
            40 ] => c=1?Canary
            50 canary =>
            60 beat => -b -c -d
            held: a=1 e=1"#]],
    );
    // A list that only ends says nothing of what was sure, and what was gone is.
    tell(
        Hold::restore(CONFIG, entries(), Millis(5)),
        "20 epoch=7 canary ] beat",
        expect![[r#"
        20 epoch=7 canary ] beat => -d
        held: a=1 b=1 c=1 e=1"#]],
    );
    let restored = Hold::restore(CONFIG, entries(), Millis(5));
    assert_eq!((restored.deadline(), restored.silent_ms(Millis(15)), restored.len()), (None, 10, 5));
    assert!(!restored.is_synced());
}
