//! Silence, restarts and mistakes of a peer: the rows of the semantics that the mirror decides, by their names.

use super::*;

#[test]
fn its_session_returns() {
    let mut s = connected_peer();
    s.at(5).say("ne", vec![SessionEvent::Heartbeat]);
    s.out.clear();
    s.at(34).at(35);
    s.check(expect![[r#"
        -- 34 s
        -- 35 s
        put agents/peers/ne Ready silent 30000 counts 2/3/0/0 "no heartbeat"
    "#]]);
    s.say("ne", vec![SessionEvent::Lost { reason: SessionError::TimedOut }]);
    s.at(40).say("ne", vec![connected(2)]).say("ne", listed(3, vec![record("ne", 1, "x/a", &["10.1.0.1"])]));
    s.at(45).say("ne", vec![SessionEvent::Heartbeat]);
    s.check(expect![[r#"
        put agents/peers/ne Lost silent 30000 counts 2/3/0/0 "the store did not answer in time"
        -- 40 s
        put agents/peers/ne Connecting silent 30000 counts 2/3/0/0 "waiting for a complete set"
        put agents/mesh/x/a/ne/_legacy id 1 r3 [10.1.0.1]
        put agents/peers/ne Ready silent 30000 counts 2/2/0/0 "no heartbeat"
        -- 45 s
        put agents/peers/ne Ready silent 0 counts 1/1/0/0 ""
    "#]]);
}

#[test]
fn a_peer_is_silent() {
    let mut s = connected_peer();
    let bears = |service: &str, ms| (ServiceKey::parse(service).unwrap(), Some(ms));
    s.mirror.set_stale_after(&[bears("x/a", 15_000), bears("x/z", 60_000), bears("x/y", 1_000)]);
    s.at(5).say("ne", vec![SessionEvent::Heartbeat]).at(10).say("ne", vec![SessionEvent::Heartbeat]);
    s.out.clear();
    s.until(200);
    s.check(expect![[r#"
        -- 22.5 s
        put agents/peers/ne Ready silent 12500 counts 2/3/0/0 "no heartbeat"
        -- 25 s
        put agents/peers/ne Ready silent 15000 counts 2/3/0/0 "no heartbeat"
        -- 40 s
        put agents/peers/ne Ready silent 30000 counts 2/3/0/0 "no heartbeat"
        -- 70 s
        put agents/peers/ne Ready silent 60000 counts 2/3/0/0 "no heartbeat"
    "#]]);
    let warnings: Vec<String> = s.mirror.impatient().into_iter().map(|(key, text)| format!("{key}: {text}")).collect();
    expect![[r#""#]].assert_eq(&warnings.join("\n"));
    s.mirror.set_stale_after(&[bears("x/a", 2_000)]);
    let warnings: Vec<String> = s.mirror.impatient().into_iter().map(|(key, text)| format!("{key}: {text}")).collect();
    expect!["x/a: annotation tombolo.io/stale-after: 2s is less than two and a half of the intervals at which ne beats; 12.5s applies"].assert_eq(&warnings.join("\n"));
}

#[test]
fn its_heartbeat_is_deleted() {
    let mut s = connected_peer();
    s.out.clear();
    s.at(3).say("ne", vec![SessionEvent::HeartbeatGone, delete(8, "ne", "x/a")]);
    s.at(30).say("ne", vec![SessionEvent::Heartbeat]);
    s.check(expect![[r#"
        -- 3 s
        put agents/mesh/x/a/ne/_legacy id 1 r7 [10.1.0.1? 10.1.0.2?]
        put agents/peers/ne Ready silent 18446744073709551615 counts 2/3/0/0 "no heartbeat"
        -- 30 s
        delete agents/mesh/x/a/ne/_legacy
        put agents/peers/ne Ready silent 0 counts 1/1/0/0 ""
    "#]]);
}

#[test]
fn a_peers_deletes_count_only_while_it_lives() {
    let mut s = connected_peer();
    s.at(5).say("ne", vec![SessionEvent::Heartbeat]);
    s.out.clear();
    s.at(20).say("ne", vec![SessionEvent::CanaryGone { watch: 0 }, delete(8, "ne", "x/a")]);
    s.check(expect![[r#"
        -- 20 s
        put agents/mesh/x/a/ne/_legacy id 1 r7 [10.1.0.1? 10.1.0.2?]
        put agents/peers/ne Connecting silent 0 counts 2/3/0/0 "waiting for a complete set"
    "#]]);
    s.say("ne", vec![SessionEvent::CanarySeen { watch: 0 }]);
    s.check(expect![[r#"
        delete agents/mesh/x/a/ne/_legacy
        put agents/peers/ne Ready silent 0 counts 1/1/0/0 ""
    "#]]);
    s.say("ne", vec![put(9, vec![record("ne", 1, "x/a", &["10.1.0.1"])])]);
    s.at(40).say("ne", vec![delete(10, "ne", "x/a")]);
    s.check(expect![[r#"
        put agents/mesh/x/a/ne/_legacy id 1 r9 [10.1.0.1]
        -- 40 s
        put agents/peers/ne Ready silent 30000 counts 2/2/0/0 "no heartbeat"
        put agents/mesh/x/a/ne/_legacy id 1 r9 [10.1.0.1?]
    "#]]);
}

#[test]
fn two_or_more_keys_of_one_lease_at_one_revision() {
    let mut s = connected_peer();
    s.import(&["x/b"]).out.clear();
    s.say("ne", vec![expire(8, "ne", &["x/a", "x/b"])]);
    s.check(expect![[r#"
        put agents/mesh/x/a/ne/_legacy id 1 r7 [10.1.0.1? 10.1.0.2?]
        put agents/mesh/x/b/ne/_legacy id 1 r7 [10.1.0.3?]
    "#]]);
    s.at(10).say("ne", vec![put(9, vec![record("ne", 1, "x/a", &["10.1.0.1", "10.1.0.2"])])]);
    s.check(expect![[r#"
        -- 10 s
        put agents/mesh/x/a/ne/_legacy id 1 r7 [10.1.0.1 10.1.0.2]
    "#]]);
    for seconds in [20, 40, 59] {
        s.at(seconds).say("ne", vec![SessionEvent::Heartbeat]);
    }
    s.out.clear();
    s.until(61);
    s.check(expect![[r#"
        -- 60 s
        delete agents/mesh/x/b/ne/_legacy
        put agents/peers/ne Ready silent 0 counts 1/2/0/0 ""
    "#]]);
}

/// A peer `ne` whose services x/0 … x/4 have so many backends each, all imported, alive at 0 s.
fn peer_with(backends: usize) -> Scenario {
    let mut s = Scenario::new();
    let services: Vec<String> = (0..5).map(|n| format!("x/{n}")).collect();
    s.import(&services.iter().map(String::as_str).collect::<Vec<_>>());
    s.configure("ne").say("ne", vec![connected(1), config(1, false)]).say("ne", vec![connected(1)]);
    let addresses = |n: usize| (1..=backends).map(|i| format!("10.1.{n}.{i}")).collect::<Vec<_>>();
    let records = services
        .iter()
        .enumerate()
        .map(|(n, service)| record("ne", 1, service, &addresses(n).iter().map(String::as_str).collect::<Vec<_>>()));
    s.say("ne", listed(7, records.collect())).say("ne", vec![SessionEvent::Heartbeat]);
    s.out.clear();
    s
}

#[test]
fn net_removals_are_more_than_half_of_a_peers_backends() {
    let mut s = peer_with(4);
    for (n, service) in ["x/0", "x/1", "x/2"].into_iter().enumerate() {
        s.say("ne", vec![delete(8 + i64::try_from(n).unwrap(), "ne", service)]);
    }
    s.check(expect![[r#"
        delete agents/mesh/x/0/ne/_legacy
        delete agents/mesh/x/1/ne/_legacy
        put agents/mesh/x/0/ne/_legacy id 1 r7 [10.1.0.1? 10.1.0.2? 10.1.0.3? 10.1.0.4?]
        put agents/mesh/x/1/ne/_legacy id 1 r7 [10.1.1.1? 10.1.1.2? 10.1.1.3? 10.1.1.4?]
        put agents/mesh/x/2/ne/_legacy id 1 r7 [10.1.2.1? 10.1.2.2? 10.1.2.3? 10.1.2.4?]
        put agents/peers/ne Ready silent 0 counts 2/8/0/0 "12 of 20 backends in 3 services went at once: kept for 60 s, doubtful"
    "#]]);
    assert_eq!(s.mirror.guarded(), [(name("ne"), 12)]);
    s.at(10).say("ne", vec![SessionEvent::Heartbeat, put(20, vec![record("ne", 1, "x/0", &["10.1.0.1"])])]);
    s.at(30).say("ne", vec![SessionEvent::Heartbeat]).at(55).say("ne", vec![SessionEvent::Heartbeat]);
    s.until(61);
    s.check(expect![[r#"
        -- 10 s
        put agents/mesh/x/0/ne/_legacy id 1 r20 [10.1.0.1 10.1.0.2? 10.1.0.3? 10.1.0.4?]
        put agents/peers/ne Ready silent 0 counts 3/9/0/0 "12 of 20 backends in 3 services went at once: kept for 60 s, doubtful"
        -- 30 s
        -- 55 s
        put agents/peers/ne Ready silent 0 counts 3/9/0/0 "12 of 20 backends in 3 services went at once: kept for 60 s, doubtful"
        -- 60 s
        delete agents/mesh/x/1/ne/_legacy
        delete agents/mesh/x/2/ne/_legacy
        put agents/mesh/x/0/ne/_legacy id 1 r20 [10.1.0.1]
        put agents/peers/ne Ready silent 0 counts 3/9/0/0 ""
    "#]]);
    assert_eq!(s.mirror.guarded(), [(name("ne"), 0)]);
}

#[test]
fn one_service_scaled_to_zero_is_never_held() {
    let mut s = peer_with(20);
    s.say("ne", vec![delete(8, "ne", "x/0")]);
    s.check(expect![[r#"
        delete agents/mesh/x/0/ne/_legacy
    "#]]);
}

#[test]
fn what_admission_refuses_is_no_removal_to_guard_against() {
    let mut s = peer_with(4);
    let commands = s.mirror.set_protected(&protected(&["10.1.0.0/22"]), s.now);
    s.note(&commands).tick();
    s.check(expect![[r#"
        put agents/mesh/x/0/ne/_legacy id 1 r7 []
        put agents/mesh/x/1/ne/_legacy id 1 r7 []
        put agents/mesh/x/2/ne/_legacy id 1 r7 []
        put agents/mesh/x/3/ne/_legacy id 1 r7 []
    "#]]);
}

#[test]
fn what_admission_refuses_leaves_although_it_is_held_or_guarded() {
    let mut s = peer_with(4);
    for (n, service) in ["x/0", "x/1", "x/2"].into_iter().enumerate() {
        s.say("ne", vec![delete(8 + i64::try_from(n).unwrap(), "ne", service)]);
    }
    s.say("ne", vec![SessionEvent::HeartbeatGone, delete(11, "ne", "x/3")]).out.clear();
    let commands = s.mirror.set_protected(&protected(&["10.1.0.0/24", "10.1.3.0/24"]), s.now);
    s.note(&commands).tick();
    s.check(expect![[r#"
        delete agents/mesh/x/0/ne/_legacy
        put agents/mesh/x/3/ne/_legacy id 1 r7 []
    "#]]);
}

#[test]
fn ranges_change_in_the_middle_of_a_list() {
    let mut s = connected_peer();
    s.out.clear();
    let epoch = Epoch(1);
    s.say("ne", vec![SessionEvent::Lost { reason: SessionError::TimedOut }, connected(1)]);
    s.say("ne", vec![SessionEvent::Relisting { watch: 0, epoch }]).out.clear();
    let commands = s.mirror.set_protected(&protected(&["10.1.0.1/32"]), s.now);
    s.note(&commands).tick();
    s.check(expect![[r#"
        put agents/mesh/x/a/ne/_legacy id 1 r7 [10.1.0.2]
    "#]]);
    let again = record("ne", 1, "x/a", &["10.1.0.1", "10.1.0.2"]);
    s.say("ne", vec![put(9, vec![again]), SessionEvent::Listed { watch: 0, epoch, revision: Revision(9) }]);
    s.say("ne", vec![SessionEvent::Heartbeat]);
    s.check(expect![[r#"
        put agents/mesh/x/a/ne/_legacy id 1 r9 [10.1.0.2]
        put agents/peers/ne Ready silent 0 counts 2/2/0/1 ""
    "#]]);
}

fn protected(pod_cidrs: &[&str]) -> Protected {
    Protected { pod_cidrs: pod_cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect(), ..Protected::default() }
}
