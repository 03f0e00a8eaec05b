//! The state machine against a store that drops, repeats, delays, reorders, compacts and empties.

mod fake;
mod sim;

use self::sim::Sim;
use super::fsm::{BACKOFF_MAX_MS, Command, Input, Plan, SessionFsm};
use super::{SessionError, SessionEvent};
use tombolo_core::id::Millis;

const SEEDS: u64 = 400;

#[test]
fn after_faults_the_consumer_holds_what_the_store_holds() {
    for seed in 0..SEEDS {
        let mut sim = Sim::new(seed);
        sim.run_with_faults();
        sim.run_until_quiet();
        sim.check(seed);
    }
}

#[test]
fn the_simulation_meets_every_fault() {
    let (mut met, mut expired) = (std::collections::BTreeMap::new(), 0);
    for seed in 0..SEEDS {
        let mut sim = Sim::new(seed);
        sim.run_with_faults();
        for reason in sim.reasons() {
            *met.entry(reason).or_insert(0) += 1;
        }
        assert!(sim.lives() > 0);
        expired += sim.expired();
    }
    assert!(expired > 0);
    for reason in ["Compacted", "OtherStore", "RevisionBack", "TimedOut", "WatchClosed", "PermissionDenied", "Dial"] {
        assert!(met.contains_key(reason), "{reason} never happened: {met:?}");
    }
}

#[test]
fn a_refused_dial_is_told_once_and_retried_with_growing_jittered_waits() {
    let mut fsm = SessionFsm::new(Plan { heartbeat: None, first: None, watches: Vec::new() }, 1);
    let (mut now, mut waits, mut told) = (Millis(0), Vec::new(), 0);
    for _ in 0..12 {
        assert_eq!(fsm.on(Input::Tick, now), [Command::Connect]);
        let commands = fsm.on(Input::Failed(SessionError::TimedOut), now);
        told += commands.iter().filter(|c| matches!(c, Command::Emit(SessionEvent::Lost { .. }))).count();
        let next = fsm.deadline().unwrap();
        waits.push(next.since(now));
        now = next;
    }
    assert_eq!(told, 1);
    assert!(waits[0] <= 100 && waits[0] >= 50, "{waits:?}");
    assert!(waits[8..].iter().all(|w| (BACKOFF_MAX_MS / 2..=BACKOFF_MAX_MS).contains(w)), "{waits:?}");
    assert!(waits[8..].windows(2).any(|w| w[0] != w[1]), "no jitter: {waits:?}");
}
