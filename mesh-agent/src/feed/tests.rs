//! What the own store's restarts, silences and deletes do to the agent's view, as scripts.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use expect_test::{Expect, expect};
use tombolo_core::id::{Addr, ClusterId, MaxClusters, Revision, ServiceKey};
use tombolo_core::model::{BackendState, Endpoint, Policy, Port, Protocol, Reach, ServiceSpec, Slice};
use tombolo_core::own::{MeshSlice, PeerCounts, PeerState};
use tombolo_store::SessionError;

use super::*;

/// Runs a script after [`START`], a step a line, and prints what each step changes. Steps: `epoch N`, `relist`, `listed`, `beat`,
/// `beat-gone`, `lost`, `at MS`, `put KEY…`, `delete KEY…`, `expire KEY…`, `garbage KEY`; keys: `service`, `local`, `mesh`, `cluster PEER…`,
/// `synced C`, `peer C`. Keys of one step, separated by commas, are one revision.
fn check(script: &str, expected: &Expect) {
    let mut feed = Feed::new(name("ne"));
    run(&mut feed, START);
    expected.assert_eq(&run(&mut feed, script));
}

/// A feed after [`START`].
pub(crate) fn started() -> Feed {
    let mut feed = Feed::new(name("ne"));
    run(&mut feed, START);
    feed
}

fn run(feed: &mut Feed, script: &str) -> String {
    let mut now = Millis(0);
    let mut out = String::new();
    for step in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (verb, rest) = step.split_once(' ').unwrap_or((step, ""));
        let changes = match verb {
            "at" => {
                now = Millis(rest.parse().unwrap());
                feed.tick(now)
            }
            _ => feed.on(event(verb, rest), now),
        };
        let shown = show(&changes);
        writeln!(out, "{step}:{}{shown}", if shown.is_empty() { "" } else { " " }).unwrap();
    }
    writeln!(out, "blockers {:?}", feed.blockers(now)).unwrap();
    out
}

pub(crate) fn event(verb: &str, rest: &str) -> SessionEvent {
    let epoch = Epoch(1);
    let keys = || rest.split(',').map(|key| own::key_to_string(&key_of(key.trim()))).collect::<Vec<_>>();
    let watch = AGENTS_WATCH;
    let change = |upserts, deletes, expired| SessionEvent::Delta {
        watch,
        epoch,
        revision: Revision(7),
        upserts,
        deletes,
        expired,
    };
    let delta = |upserts, deletes| change(upserts, deletes, Vec::new());
    match verb {
        "epoch" => SessionEvent::Connected { epoch: Epoch(rest.parse().unwrap()) },
        "relist" => SessionEvent::Relisting { watch: AGENTS_WATCH, epoch },
        "listed" => SessionEvent::Listed { watch: AGENTS_WATCH, epoch, revision: Revision(7) },
        "beat" => SessionEvent::Heartbeat,
        "beat-gone" => SessionEvent::HeartbeatGone,
        "lost" => SessionEvent::Lost { reason: SessionError::TimedOut },
        "put" => {
            let values = rest.split(',').map(|key| own::encode(&record_of(key.trim())));
            delta(keys().into_iter().zip(values).collect(), vec![])
        }
        "garbage" => delta(keys().into_iter().map(|key| (key, Bytes::from_static(b"\xff\xff"))).collect(), vec![]),
        "delete" => delta(vec![], keys()),
        "expire" => change(vec![], vec![], keys()),
        other => panic!("no step is called {other}"),
    }
}

fn key_of(text: &str) -> OwnKey {
    let (kind, rest) = text.split_once(' ').unwrap_or((text, ""));
    let service = ServiceKey::new("default", "rebel-base");
    match kind {
        "service" => OwnKey::Service(service),
        "local" => OwnKey::Local { service, slice: "s".into() },
        "mesh" => OwnKey::Mesh { service, cluster: name("we"), slice: "s".into() },
        "cluster" => OwnKey::Cluster,
        "synced" => OwnKey::Synced(name(rest)),
        "peer" => OwnKey::Peer(name(rest)),
        other => panic!("no key is called {other}"),
    }
}

fn record_of(text: &str) -> OwnRecord {
    let (kind, rest) = text.split_once(' ').unwrap_or((text, ""));
    match kind {
        "service" => OwnRecord::Service(spec()),
        "local" => OwnRecord::Local(slice(5)),
        "mesh" => OwnRecord::Mesh(MeshSlice { cluster_id: id(2), revision: 3, slice: slice(6) }),
        "cluster" => {
            let peers = rest.split_whitespace().map(name).collect();
            OwnRecord::Cluster(ClusterInfo { name: name("ne"), id: id(1), peers, pod_cidrs: vec![] })
        }
        "synced" => OwnRecord::Synced(1),
        "peer" => OwnRecord::Peer(PeerState {
            id: Some(id(2)),
            session: PeerSession::Ready,
            silent_ms: 0,
            stale_after_ms: 30_000,
            least_stale_ms: 12_500,
            detail: String::new(),
            counts: PeerCounts::default(),
        }),
        other => panic!("no record is called {other}"),
    }
}

fn spec() -> ServiceSpec {
    ServiceSpec {
        key: ServiceKey::new("default", "rebel-base"),
        cluster_ips: vec![Addr::from(Ipv4Addr::new(10, 97, 0, 10))],
        ports: vec![Port { name: "http".into(), protocol: Protocol::Tcp, number: 80 }],
        policy: Policy { reach: Reach::Mesh, ..Policy::default() },
    }
}

fn slice(host: u8) -> Slice {
    let ports = [Port { name: "http".into(), protocol: Protocol::Tcp, number: 8080 }];
    let endpoint = Endpoint {
        addr: Addr::from(Ipv4Addr::new(10, 2, 1, host)),
        ports: ports.into(),
        state: BackendState::Active,
        was_ready: true,
        weight: 100,
        node: None,
        zone: None,
        hints: Box::default(),
        doubtful: false,
    };
    Slice { endpoints: vec![endpoint] }
}

pub(crate) fn name(text: &str) -> ClusterName {
    ClusterName::new(text).unwrap()
}

fn id(number: u32) -> ClusterId {
    ClusterId::new(number, MaxClusters::C255).unwrap()
}

fn show(changes: &[Change]) -> String {
    let one = |change: &Change| match change {
        Change::Cluster(_) => "cluster".to_owned(),
        Change::Service(_, value) => sign("service", value.is_some()),
        Change::Local { value, .. } => sign("local", value.is_some()),
        Change::Remote { cluster, value, .. } => sign(&format!("mesh {cluster}"), value.is_some()),
        Change::Peer(peer, value) => sign(&format!("peer {peer}"), value.is_some()),
        Change::Node(value) => sign("node", value.is_some()),
    };
    changes.iter().map(one).collect::<Vec<_>>().join(" ")
}

fn sign(what: &str, there: bool) -> String {
    format!("{}{what}", if there { '+' } else { '-' })
}

/// The first complete view of a mesh of two.
pub(crate) const START: &str = "
    epoch 1
    relist
    put cluster we, service, local, mesh, peer we, synced ne, synced we
    listed
    beat";

#[test]
fn a_complete_view_is_not_blocked() {
    expect![[r#"
        epoch 1:
        relist:
        put cluster we, service, local, mesh, peer we, synced ne, synced we: cluster +service +local +mesh we +peer we
        listed:
        beat:
        blockers []
    "#]]
    .assert_eq(&run(&mut Feed::new(name("ne")), START));
}

#[test]
fn a_delete_of_a_living_writer_counts_at_once() {
    check(
        "delete mesh\ndelete local",
        &expect![[r#"
            delete mesh: -mesh we
            delete local: -local
            blockers []
        "#]],
    );
}

#[test]
fn a_new_peers_records_may_come_before_its_name() {
    check(
        "put peer zz\nput cluster we zz\nput cluster we",
        &expect![[r#"
            put peer zz: +peer zz
            put cluster we zz: cluster
            put cluster we: cluster -peer zz
            blockers []
        "#]],
    );
}

#[test]
fn what_is_deleted_is_no_longer_unreadable() {
    let mut feed = Feed::new(name("ne"));
    run(&mut feed, START);
    run(&mut feed, "garbage local");
    assert_eq!(feed.unreadable().len(), 1);
    run(&mut feed, "delete local");
    assert!(feed.unreadable().is_empty());
}

#[test]
fn an_emptied_store_blanks_nothing_until_its_writers_are_back() {
    let script = "
        lost
        epoch 2
        relist
        listed
        beat
        put cluster we, service
        put synced ne
        put synced we";
    check(
        script,
        &expect![[r#"
            lost:
            epoch 2:
            relist:
            listed:
            beat:
            put cluster we, service: cluster
            put synced ne: -local
            put synced we: -mesh we
            blockers []
        "#]],
    );
}

#[test]
fn an_expired_lease_takes_nothing_away() {
    let script = "
        expire service, local, mesh, synced ne, synced we
        at 60000
        put service, local, mesh
        put synced ne, synced we
        beat";
    check(
        script,
        &expect![[r#"
            expire service, local, mesh, synced ne, synced we:
            at 60000:
            put service, local, mesh:
            put synced ne, synced we:
            beat:
            blockers []
        "#]],
    );
}

#[test]
fn what_ended_with_its_lease_leaves_unless_it_is_written_again() {
    let script = "
        expire local, mesh
        at 20000
        beat
        put local
        at 40000
        beat
        at 59999
        beat
        at 60000";
    check(
        script,
        &expect![[r#"
            expire local, mesh:
            at 20000:
            beat:
            put local:
            at 40000:
            beat:
            at 59999:
            beat:
            at 60000: -mesh we
            blockers []
        "#]],
    );
}

#[test]
fn nothing_leaves_while_the_own_apiserver_is_silent() {
    check(
        "at 40000\ndelete mesh\nbeat",
        &expect![[r#"
            at 40000:
            delete mesh:
            beat: -mesh we
            blockers []
        "#]],
    );
    check(
        "beat-gone\ndelete mesh\nbeat",
        &expect![[r#"
            beat-gone:
            delete mesh:
            beat: -mesh we
            blockers []
        "#]],
    );
}

#[test]
fn a_compaction_with_deletes_in_the_gap_converges() {
    let script = "
        lost
        epoch 1
        relist
        put cluster we, service, mesh, synced ne, synced we
        listed
        beat";
    check(
        script,
        &expect![[r#"
            lost:
            epoch 1:
            relist:
            put cluster we, service, mesh, synced ne, synced we: cluster
            listed:
            beat: -local
            blockers []
        "#]],
    );
}

#[test]
fn a_peer_that_is_no_longer_configured_is_removed() {
    check(
        "put cluster",
        &expect![[r#"
            put cluster: cluster -mesh we -peer we
            blockers []
        "#]],
    );
}

#[test]
fn an_unreadable_record_keeps_its_last_good_version() {
    check(
        "garbage mesh\nput mesh",
        &expect![[r#"
            garbage mesh:
            put mesh:
            blockers []
        "#]],
    );
}

#[test]
fn the_first_tables_wait_for_peers_but_not_for_ever() {
    let mut feed = Feed::new(name("ne"));
    let script = "
        epoch 1
        relist
        put cluster we, service, synced ne
        listed
        beat";
    expect![[r#"
        epoch 1:
        relist:
        put cluster we, service, synced ne: cluster +service
        listed:
        beat:
        blockers ["waiting for peer we"]
    "#]]
    .assert_eq(&run(&mut feed, script));
    expect![[r#"
        at 5000:
        blockers []
    "#]]
    .assert_eq(&run(&mut feed, "at 5000"));
}

/// What a new life has of what an earlier one held.
fn restored(feed: &Feed) -> (Feed, Vec<Change>) {
    let entry = |(key, revision, value)| Entry { key: own::key_to_string(&key), revision, value };
    let entries = feed.held().unwrap().into_iter().map(entry).collect();
    Feed::restore(name("ne"), entries, Millis(0))
}

#[test]
fn a_snapshot_is_the_view_and_outlives_a_store_that_is_away() {
    let (feed, changes) = restored(&started());
    assert_eq!(show(&changes), "cluster +peer we +service +local +mesh we");
    assert_eq!(feed.blockers(Millis(0)), ["waiting for the own store"]);
    assert_eq!(restored(&feed).1, changes, "and so it does once more");
    assert_eq!(Feed::new(name("ne")).held(), None, "who knows nothing has no snapshot");
}

#[test]
fn what_was_deleted_while_it_was_dead_leaves_as_after_a_lost_session() {
    let (mut feed, _) = restored(&started());
    let script = "
        epoch 1
        relist
        put cluster we, service, mesh, peer we, synced ne, synced we
        listed
        beat";
    expect![[r#"
        epoch 1:
        relist:
        put cluster we, service, mesh, peer we, synced ne, synced we: cluster +peer we
        listed:
        beat: -local
        blockers []
    "#]]
    .assert_eq(&run(&mut feed, script));
}

#[test]
fn a_snapshot_does_not_stand_for_an_own_apiserver_or_a_peer_that_is_away() {
    let (mut feed, _) = restored(&started());
    let script = "
        epoch 2
        relist
        listed
        put cluster we
        at 60000";
    expect![[r#"
        epoch 2:
        relist:
        listed:
        put cluster we: cluster
        at 60000:
        blockers ["waiting for the own apiserver's first complete set"]
    "#]]
    .assert_eq(&run(&mut feed, script));
    expect![[r#"
        put service, local, synced ne:
        beat:
        blockers ["waiting for peer we"]
    "#]]
    .assert_eq(&run(&mut feed, "put service, local, synced ne\nbeat"));
}

#[test]
fn a_peer_that_was_disconnected_while_it_was_dead_leaves() {
    let (mut feed, _) = restored(&started());
    let script = "
        epoch 1
        relist
        put cluster, service, local, synced ne
        listed";
    expect![[r#"
        epoch 1:
        relist:
        put cluster, service, local, synced ne: cluster
        listed: -mesh we -peer we
        blockers []
    "#]]
    .assert_eq(&run(&mut feed, script));
}
