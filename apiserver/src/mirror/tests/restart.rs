//! What a mirror makes of what an earlier life of the program left.

use tombolo_core::model::{BackendState, Endpoint, Slice};
use tombolo_core::own::{MeshSlice, PeerCounts, PeerSession, PeerState};

use super::*;

/// What an earlier life of the program left of `ne`: x/a and x/b, and that it was silent for so long.
fn left(silent_ms: u64) -> Scenario {
    let slice = |addr: &str| {
        let endpoint = Endpoint {
            addr: addr.parse().unwrap(),
            ports: Vec::new().into(),
            state: BackendState::Active,
            was_ready: true,
            weight: 100,
            node: None,
            zone: None,
            hints: Box::new([]),
            doubtful: false,
        };
        MeshSlice {
            cluster_id: ClusterId::new(1, MaxClusters::C255).unwrap(),
            revision: 3,
            slice: Slice { endpoints: vec![endpoint] },
        }
    };
    let mesh = |service: &str, addr: &str| {
        let key =
            OwnKey::Mesh { service: ServiceKey::parse(service).unwrap(), cluster: name("ne"), slice: "_legacy".into() };
        (ServiceKey::parse(service).unwrap(), BTreeMap::from([(own::key_to_string(&key), slice(addr))]))
    };
    let state = PeerState {
        id: Some(ClusterId::new(1, MaxClusters::C255).unwrap()),
        session: PeerSession::Ready,
        silent_ms,
        stale_after_ms: 30_000,
        least_stale_ms: 12_500,
        detail: String::new(),
        counts: PeerCounts::default(),
    };
    let earlier = EarlierPeer { state, mesh: BTreeMap::from([mesh("x/a", "10.1.0.1"), mesh("x/b", "10.1.0.2")]) };
    let mut s = Scenario::after(BTreeMap::from([(name("ne"), earlier)]));
    s.import(&["x/a", "x/b"]).source_complete();
    s.tick();
    s
}

#[test]
fn a_file_that_is_broken_when_the_program_starts() {
    let mut s = left(0);
    s.file(FileChange::Suspended(name("ne"), "it is broken".into()));
    s.check(expect![[r#"
        put agents/mesh/x/a/ne/_legacy id 1 r3 [10.1.0.1]
        put agents/mesh/x/b/ne/_legacy id 1 r3 [10.1.0.2]
        put agents/peers/ne Connecting silent 0 counts 0/0/0/0 "its file has not been seen since the start"
        put control/refused/ne [] None
        put agents/mesh/x/a/ne/_legacy id 1 r3 [10.1.0.1?]
        put agents/mesh/x/b/ne/_legacy id 1 r3 [10.1.0.2?]
        put agents/peers/ne Connecting silent 0 counts 0/0/0/0 "its file has not been seen since the start; its configuration: it is broken"
    "#]]);
    s.file(FileChange::Left(name("ne")));
    s.check(expect![[r#"
        EndSession(ClusterName("ne"))
        delete agents/mesh/x/a/ne/_legacy
        delete agents/mesh/x/b/ne/_legacy
        delete agents/peers/ne
        delete control/refused/ne
        Gone(ClusterName("ne"))
    "#]]);
}

#[test]
fn what_an_earlier_life_published_stays_until_the_first_complete_set() {
    let mut s = left(0);
    s.configure("ne").say("ne", vec![connected(1), config(1, false)]).say("ne", vec![connected(1)]).out.clear();
    s.say("ne", listed(7, vec![record("ne", 1, "x/a", &["10.1.0.3"])]));
    s.check(expect![[r#"
        put agents/mesh/x/a/ne/_legacy id 1 r7 [10.1.0.3]
        delete agents/mesh/x/b/ne/_legacy
        Synced(ClusterName("ne"))
        put agents/peers/ne Ready silent 0 counts 1/1/0/0 ""
    "#]]);
}

#[test]
fn a_peer_that_was_silent_before_the_program_started_is_so_until_it_is_heard() {
    let mut s = left(30_000);
    s.configure("ne").say("ne", vec![connected(1), config(1, false)]).say("ne", vec![connected(1)]);
    s.at(20).say("ne", listed(7, vec![record("ne", 1, "x/a", &["10.1.0.1"])]));
    s.at(21).say("ne", vec![SessionEvent::Heartbeat]);
    s.check(expect![[r#"
        put agents/mesh/x/a/ne/_legacy id 1 r3 [10.1.0.1]
        put agents/mesh/x/b/ne/_legacy id 1 r3 [10.1.0.2]
        put agents/peers/ne Connecting silent 30000 counts 0/0/0/0 "its file has not been seen since the start"
        put control/refused/ne [] None
        session ne 1: probe
        put agents/peers/ne Connecting silent 30000 counts 0/0/0/0 "connecting"
        session ne 2: follow ["cilium/state/services/v1/ne/", "cilium/state/nodes/v1/ne/", "cilium/state/identities/v1/id/", "cilium/state/ip/v1/default/"]
        put agents/peers/ne Connecting silent 30000 counts 0/0/0/0 "waiting for a complete set"
        -- 20 s
        put agents/mesh/x/a/ne/_legacy id 1 r7 [10.1.0.1]
        delete agents/mesh/x/b/ne/_legacy
        Synced(ClusterName("ne"))
        put agents/peers/ne Ready silent 30000 counts 1/1/0/0 "no heartbeat"
        -- 21 s
        put agents/peers/ne Ready silent 0 counts 1/1/0/0 ""
    "#]]);
}

#[test]
fn a_peer_never_heard_since_the_program_started_is_silent_from_then_on() {
    let mut s = left(0);
    s.configure("ne").out.clear();
    s.until(100);
    s.check(expect![[r#"
        -- 30 s
        put agents/peers/ne Connecting silent 30000 counts 0/0/0/0 "connecting"
    "#]]);
}

#[test]
fn a_peer_whose_id_became_another_between_two_lives_is_imported_anew() {
    let mut s = left(0);
    s.configure("ne").out.clear();
    s.say("ne", vec![connected(1), config(9, false)]);
    s.check(expect![[r#"
        delete agents/mesh/x/a/ne/_legacy
        delete agents/mesh/x/b/ne/_legacy
        session ne 2: follow ["cilium/state/services/v1/ne/", "cilium/state/nodes/v1/ne/", "cilium/state/identities/v1/id/", "cilium/state/ip/v1/default/"]
        put agents/peers/ne Connecting silent 0 counts 0/0/0/0 "connecting"
    "#]]);
}
