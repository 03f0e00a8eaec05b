//! The planner against a store in memory that loses answers, leases and everything else.

mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering::Relaxed;

use tombolo_core::id::Millis;

use self::world::World;
use super::Surplus;
use super::leases::{KEYS, Leases, SPREAD, SPREAD_MAX};
use super::plan::TXN_OPS;
use super::work::{Op, Work};

const SEEDS: u64 = 200;

#[test]
fn after_faults_the_store_holds_what_should_be() {
    for seed in 0..SEEDS {
        let mut world = World::new(seed);
        world.connect(true);
        for _ in 0..300 {
            world.step(true);
        }
        world.settle();
        world.check(seed);
    }
}

#[test]
fn a_canary_is_written_only_when_its_scope_stands() {
    for seed in 0..SEEDS {
        let mut world = World::new(seed);
        world.connect(true);
        for _ in 0..300 {
            world.step(false);
        }
        world.settle();
        world.check(seed);
        assert!(world.canaries_written > 0 || world.completed.is_empty());
    }
}

#[test]
fn an_idle_writer_puts_at_once_and_a_busy_one_batches() {
    let mut world = World::ready();
    for n in 0..SPREAD_MAX * SPREAD {
        world.planner.put(&format!("s/one/before-{n}"), "1".into(), world.now);
    }
    world.settle();
    world.planner.put("s/one/a", "1".into(), world.now);
    let first = world.work().expect("an idle writer writes at once");
    assert_eq!(keys(&first), ["s/one/a"]);
    for n in 0..TXN_OPS + 5 {
        world.planner.put(&format!("s/one/{n:04}"), "1".into(), world.now);
        world.planner.put("s/one/latest", n.to_string().into(), world.now);
    }
    assert_eq!(world.work(), None, "one transaction at a time");
    world.apply(first);
    let second = world.work().expect("what came meanwhile");
    assert_eq!(keys(&second).len(), TXN_OPS);
    world.apply(second);
    let third = world.work().expect("the rest");
    assert_eq!(keys(&third).len(), 6);
    world.apply(third);
    assert_eq!(world.value("s/one/latest").as_deref(), Some((TXN_OPS + 4).to_string().as_bytes()));
    assert_eq!(world.work(), None);
}

#[test]
fn a_surviving_store_is_left_alone_until_the_scope_is_complete() {
    let mut world = World::ready();
    for key in ["s/one/kept", "s/one/surplus", "s/two/other", "s/nobody"] {
        world.planner.put(key, "1".into(), world.now);
    }
    world.settle();
    let mut next = world.restarted();
    let before = next.store["s/one/kept"].clone();
    next.planner.put("s/one/kept", "1".into(), next.now);
    next.settle();
    assert_eq!(next.store["s/one/kept"], before, "nothing differs, so nothing is written");
    next.planner.complete("one".into(), Surplus::Kept, None, next.now);
    next.settle();
    assert!(next.store.contains_key("s/one/surplus"), "part of the set could not be read");
    next.planner.complete("one".into(), Surplus::Deleted, None, next.now);
    next.settle();
    let keys: BTreeSet<&str> = next.store.keys().map(String::as_str).collect();
    assert_eq!(keys, BTreeSet::from([world::BEAT, "s/nobody", "s/one/kept", "s/two/other"]));
}

#[test]
fn a_key_without_a_lease_is_given_one() {
    let mut world = World::ready();
    world.planner.put("s/one/a", "1".into(), world.now);
    world.settle();
    world.foreign("s/one/a", Some("1"));
    world.settle();
    assert!(world.store["s/one/a"].lease != 0);
}

#[test]
fn leases_are_spread_and_renewed() {
    let mut world = World::ready();
    for n in 0..2 * KEYS + 1 {
        world.planner.put(&format!("s/one/{n}"), "1".into(), world.now);
    }
    world.settle();
    assert_eq!(world.leases.len(), SPREAD_MAX);
    let before = world.renewals;
    world.now = Millis(world.now.0 + 300_000);
    world.settle();
    assert_eq!(world.renewals - before, SPREAD_MAX);
}

#[test]
fn few_keys_share_a_lease_and_many_have_a_thousand_each_at_most() {
    let mut leases = Leases::default();
    let mut keys_of = BTreeMap::new();
    let most = SPREAD_MAX * KEYS + 1;
    for n in 1..=most {
        let id = loop {
            if let Some(id) = leases.take(0, 0, n) {
                break id;
            }
            let group = leases.want_grant().expect("a lease is missing");
            leases.granted(i64::try_from(keys_of.len()).unwrap() + 1, group, 900, Millis(0));
            keys_of.insert(i64::try_from(keys_of.len()).unwrap() + 1, 0);
        };
        *keys_of.get_mut(&id).unwrap() += 1;
        if n == SPREAD - 1 {
            assert_eq!(keys_of, BTreeMap::from([(1, n)]));
        }
    }
    assert_eq!(keys_of.len(), SPREAD_MAX + 1);
    assert!(keys_of.values().all(|keys| *keys <= KEYS));
}

#[test]
fn another_prefix_has_leases_of_its_own() {
    let mut leases = Leases::default();
    assert_eq!(leases.take(0, 0, 1), None);
    assert_eq!(leases.want_grant(), Some(0));
    leases.granted(7, 0, 900, Millis(0));
    assert_eq!(leases.take(0, 0, 1), Some(7));
    assert_eq!(leases.take(0, 1, 1), None);
    assert_eq!(leases.want_grant(), Some(1));
    assert_eq!(leases.want_grant(), None, "it is on its way");
}

#[test]
fn heartbeats_live_by_a_lease_that_is_renewed() {
    let mut leases = Leases::default();
    for id in [1, 2] {
        assert_eq!(leases.take(0, 0, SPREAD * 2).filter(|taken| *taken != 1), None);
        let group = leases.want_grant().expect("a lease is missing");
        leases.granted(id, group, 900, Millis(0));
    }
    leases.count(1, false);
    leases.count(2, true);
    assert_eq!(leases.any(), Some(2));
    leases.count(2, false);
    assert_eq!(leases.any(), Some(1), "any lease, rather than none");
}

/// Deletes of what `keys` keys were: the keys of each transaction.
fn deletes(world: &mut World) -> Vec<Vec<String>> {
    let mut all = Vec::new();
    while let Some(work) = world.work() {
        let Work::Txn(ops) = &work else { panic!("{work:?}") };
        all.push(ops.iter().map(|op| op.key().to_string()).collect());
        world.apply(work);
    }
    all
}

#[test]
fn keys_of_one_lease_are_deleted_one_by_one() {
    let mut world = World::ready();
    for key in ["s/one/a", "s/one/b", "s/one/c"] {
        world.planner.put(key, "1".into(), world.now);
    }
    world.settle();
    for key in ["s/one/a", "s/one/b", "s/one/c"] {
        world.planner.delete(key);
    }
    assert_eq!(deletes(&mut world), [["s/one/a"], ["s/one/b"], ["s/one/c"]]);
}

#[test]
fn a_thousand_keys_are_deleted_in_few_transactions() {
    let mut world = World::ready();
    let key = |n: usize| format!("s/one/{n:04}");
    for n in 0..KEYS {
        world.planner.put(&key(n), "1".into(), world.now);
    }
    world.settle();
    for n in 0..KEYS {
        world.planner.delete(&key(n));
    }
    let deleted = deletes(&mut world);
    assert!(deleted.len() <= 2 * KEYS / SPREAD_MAX, "{} transactions", deleted.len());
    assert_eq!(deleted.iter().map(Vec::len).sum::<usize>(), KEYS);
}

#[test]
fn a_put_never_passes_a_delete() {
    let mut world = World::ready();
    for key in ["s/one/a", "s/one/b"] {
        world.planner.put(key, "1".into(), world.now);
    }
    world.settle();
    world.planner.delete("s/one/a");
    world.planner.delete("s/one/b");
    world.planner.put("s/one/c", "1".into(), world.now);
    assert_eq!(deletes(&mut world), [vec!["s/one/a"], vec!["s/one/b", "s/one/c"]]);
}

#[test]
fn a_lease_given_up_with_another_loses_no_key() {
    let mut world = World::ready();
    for n in 0..KEYS + 500 {
        world.planner.put(&format!("s/one/{n:04}"), "1".into(), world.now);
    }
    world.settle();
    let lease = |world: &World, key: &str| world.store[key].lease;
    let gone = lease(&world, "s/one/0000");
    let other = world.store.iter().find(|(key, v)| v.lease != gone && *key != world::BEAT).unwrap().0.clone();
    let given_up = lease(&world, &other);
    world.leases.remove(&gone);
    for key in ["s/one/0000", &other] {
        world.planner.put(key, "2".into(), world.now);
    }
    world.settle();
    let stuck = world.store.iter().filter(|(key, v)| v.lease == given_up && *key != world::BEAT).count();
    assert_eq!(stuck, 0, "nobody renews a lease that was given up");
}

#[test]
fn what_an_earlier_life_left_keeps_its_lease_until_it_is_judged() {
    let mut world = World::ready();
    for n in 0..4 * SPREAD {
        world.planner.put(&format!("s/one/{n}"), "1".into(), world.now);
    }
    world.settle();
    let leases: BTreeSet<i64> = world.store.values().map(|v| v.lease).collect();
    assert!(leases.len() > 1);
    let mut next = world.restarted();
    let before = next.renewals;
    next.settle();
    next.now = Millis(next.now.0 + 300_000);
    next.settle();
    assert!(next.renewals - before >= 2 * leases.len(), "all leases, at once and when a third of their time is over");
}

#[test]
fn surplus_that_became_another_scopes_waits_for_that_one() {
    let mut world = World::ready();
    for key in ["s/moves/a", "s/one/b"] {
        world.planner.put(key, "1".into(), world.now);
    }
    world.settle();
    let mut next = world.restarted();
    next.moved.store(true, Relaxed);
    next.planner.complete("one".into(), Surplus::Deleted, None, next.now);
    next.settle();
    assert!(next.store.contains_key("s/moves/a") && !next.store.contains_key("s/one/b"));
    next.planner.complete("two".into(), Surplus::Deleted, None, next.now);
    next.settle();
    assert!(!next.store.contains_key("s/moves/a"));
}

#[test]
fn heartbeats_go_on_their_own_time() {
    let mut world = World::ready();
    world.settle();
    let beats = world.beats;
    assert!(beats >= 1);
    let next = world.planner.deadline().expect("there is always a next heartbeat");
    assert_eq!(next, Millis(world.now.0 + 5_000));
    world.now = next;
    world.settle();
    assert_eq!(world.beats, beats + 1);
}

#[test]
fn a_key_the_store_never_takes_stops_no_other() {
    let mut world = World::ready();
    world.poison = Some("s/one/bad".into());
    for key in ["s/one/a", "s/one/bad", "s/one/c"] {
        world.planner.put(key, "1".into(), world.now);
    }
    world.settle();
    assert!(world.store.contains_key("s/one/a") && world.store.contains_key("s/one/c"));
    assert_eq!(world.planner.status().pending, 0);
}

#[test]
fn retiring_deletes_the_canary_first() {
    let mut world = World::ready();
    world.planner.put("s/one/a", "1".into(), world.now);
    world.planner.complete("one".into(), Surplus::Deleted, Some(("s/canary/one".into(), "t".into())), world.now);
    world.settle();
    world.planner.retire("one");
    assert_eq!(deletes(&mut world), [["s/canary/one"], ["s/one/a"]]);
    assert!(!world.store.contains_key("s/one/a"));
}

fn keys(work: &Work) -> Vec<&str> {
    let Work::Txn(ops) = work else { panic!("{work:?} writes nothing") };
    ops.iter().filter(|op| matches!(op, Op::Put { .. }) && &**op.key() != world::BEAT).map(|op| &**op.key()).collect()
}
