//! What people are told is what the tables got.

use expect_test::{Expect, expect};
use tombolo_core::explain::{explain, services};
use tombolo_core::id::Millis;
use tombolo_core::mesh::{Change, Mesh};
use tombolo_core::model::{Affinity, BackendState, Endpoint, InternalTrafficPolicy, OnStale, Policy};
use tombolo_core::own::{PeerCounts, PeerSession, PeerState};
use tombolo_core::plan::Tables;
use tombolo_core::tables::{BackendId, Desired, Limits};
use tombolo_testkit::fixture::{
    DOUBTFUL, cluster, endpoint, key, mesh_after, put_local, put_remote, put_service, service,
};

fn tables(desired: &[Desired]) -> Tables {
    let mut tables = Tables::new(Limits::default(), BackendId(1));
    tables.plan(desired).expect("there is room");
    tables
}

#[expect(clippy::needless_pass_by_value, reason = "expect![] is a value at every call")]
fn check(mesh: &Mesh, tables: &Tables, expected: Expect) {
    let explanation = explain(mesh, tables, &key("echo"), Millis(7)).expect("the Service exists");
    let mut text = String::new();
    for f in &explanation.frontends {
        text += &format!("{}, {}, installed: {}\n", f.frontend, f.round, f.installed);
        for b in &f.backends {
            text += &format!(
                "  {:<22} {:<3}{:<12}{:.2} {}\n",
                b.backend.to_string(),
                b.cluster.as_str(),
                format!("{:?}", b.state),
                b.share,
                b.rule
            );
        }
    }
    text.extend(explanation.notes.iter().map(|note| format!("{note}\n")));
    expected.assert_eq(&text);
}

/// The Service of these tests, `echo`, with its policy edited.
fn echo(edit: impl FnOnce(&mut Policy)) -> Change {
    let mut spec = service("echo", &["172.16.0.1"], "http:80");
    edit(&mut spec.policy);
    put_service(spec)
}

fn is(state: BackendState, e: Endpoint) -> Endpoint {
    Endpoint { state, ..e }
}

fn peer_state(silent_ms: u64) -> PeerState {
    PeerState {
        id: None,
        session: PeerSession::Connecting,
        silent_ms,
        stale_after_ms: 30_000,
        least_stale_ms: 12_500,
        detail: String::new(),
        counts: PeerCounts::default(),
    }
}

/// `echo` in `we` and `ne`, with its policy edited.
fn echo_of_two(edit: impl FnOnce(&mut Policy)) -> Mesh {
    mesh_after([
        echo(edit),
        put_local("echo", vec![endpoint("10.0.0.1", "http:80")]),
        put_remote("echo", ("ne", 1), vec![endpoint("10.1.0.1", "http:80")]),
    ])
}

/// After a peer was silent for so long: how many services that concerns, and what serves.
fn hear(mesh: &mut Mesh, silent_ms: u64) -> (usize, String) {
    let dirty = mesh.apply(Change::Peer(cluster("ne"), Some(peer_state(silent_ms))), Millis(1000));
    let serving = mesh.desired(&key("echo")).frontends.remove(0).1.backends;
    (dirty.len(), serving.iter().map(|(backend, _)| backend.to_string()).collect::<Vec<_>>().join(" "))
}

const LOCAL: &str = "10.0.0.1:80/TCP";
const BOTH: &str = "10.0.0.1:80/TCP 10.1.0.1:80/TCP";

#[test]
fn what_a_stale_peer_brought_is_doubtful() {
    let mut mesh = echo_of_two(|_| {});
    assert_eq!(hear(&mut mesh, 0), (0, BOTH.to_owned()));
    assert_eq!(hear(&mut mesh, 29_999), (0, BOTH.to_owned()));
    assert_eq!(hear(&mut mesh, 30_000), (1, LOCAL.to_owned()));
    assert_eq!(hear(&mut mesh, 31_000), (0, LOCAL.to_owned()));
    assert_eq!(hear(&mut mesh, u64::MAX), (0, LOCAL.to_owned()));
    assert_eq!(hear(&mut mesh, 0), (1, BOTH.to_owned()));
}

#[test]
fn each_service_says_when_a_peer_is_stale_for_it() {
    let mut patient = echo_of_two(|p| p.stale_after_ms = Some(60_000));
    assert_eq!(hear(&mut patient, 30_000), (0, BOTH.to_owned()));
    assert_eq!(hear(&mut patient, 60_000), (1, LOCAL.to_owned()));
    let mut hasty = echo_of_two(|p| p.stale_after_ms = Some(1));
    assert_eq!(hear(&mut hasty, 10_000), (0, BOTH.to_owned()));
    assert_eq!(hear(&mut hasty, 12_500), (1, LOCAL.to_owned()));
    let mut kept = echo_of_two(|p| p.on_stale = OnStale::Keep);
    assert_eq!(hear(&mut kept, u64::MAX), (1, BOTH.to_owned()));
    let mut dropped = echo_of_two(|p| p.on_stale = OnStale::Drop);
    assert_eq!(hear(&mut dropped, 30_000), (1, LOCAL.to_owned()));
    assert_eq!(hear(&mut dropped, 0), (1, BOTH.to_owned()));
    let unused = mesh_after([put_remote("echo", ("ne", 1), vec![endpoint("10.1.0.1", "http:80")])]);
    assert_eq!(unused.clone().apply(Change::Peer(cluster("ne"), Some(peer_state(30_000))), Millis(0)).len(), 0);
    assert_eq!(unused.stale(&key("echo"), Millis(0)).count(), 0);
}

#[test]
fn what_is_stale_is_explained() {
    let explained = |mut mesh: Mesh, states: &[(u64, u64)], now: u64, expected: Expect| {
        for (at, silent_ms) in states {
            mesh.apply(Change::Peer(cluster("ne"), Some(peer_state(*silent_ms))), Millis(*at));
        }
        let tables = tables(&[mesh.desired(&key("echo"))]);
        let explanation = explain(&mesh, &tables, &key("echo"), Millis(now)).unwrap();
        let rules: Vec<_> = explanation.frontends[0].backends.iter().map(|b| b.rule.as_str()).collect();
        expected.assert_eq(&format!("{}\n{}\n", rules.join(" "), explanation.notes.join("\n")));
    };
    let after = [(1000, 30_000), (5000, 30_000)];
    explained(
        echo_of_two(|_| {}),
        &after,
        13_345,
        expect![[r#"
        serves doubtful
        ne is stale for this service: silent for 42.345 s (stale after 30 s); its backends are a last resort
    "#]],
    );
    explained(
        echo_of_two(|p| p.on_stale = OnStale::Keep),
        &[(1000, 30_000), (1000, u64::MAX)],
        2000,
        expect![[r#"
        serves serves
        ne is stale for this service: its heartbeat is gone (stale after 30 s); its backends are kept as they are
    "#]],
    );
    let dropped = |p: &mut Policy| {
        p.on_stale = OnStale::Drop;
        p.stale_after_ms = Some(10);
    };
    explained(
        echo_of_two(dropped),
        &[(1000, 12_500)],
        1000,
        expect![[r#"
        serves stale-dropped
        ne is stale for this service: silent for 12.5 s (stale after 12.5 s); its backends are dropped
        stale-after is 12.5 s for ne, not 0.01 s: that is two and a half of its heartbeats
    "#]],
    );
    explained(
        echo_of_two(dropped),
        &[(1000, 12_500), (2000, 0)],
        3000,
        expect![[r#"
        serves serves
        stale-after is 12.5 s for ne, not 0.01 s: that is two and a half of its heartbeats
    "#]],
    );
    // What is dropped takes its address from nobody.
    let mut conflict = echo_of_two(dropped);
    conflict.apply(put_remote("echo", ("fc", 3), vec![endpoint("10.1.0.1", "http:80")]), Millis(0));
    explained(
        conflict,
        &[(1000, 12_500)],
        1000,
        expect![[r#"
        serves serves stale-dropped
        ne is stale for this service: silent for 12.5 s (stale after 12.5 s); its backends are dropped
        stale-after is 12.5 s for ne, not 0.01 s: that is two and a half of its heartbeats
        conflict: 10.1.0.1:80/TCP is claimed by ne and by fc, which has precedence
    "#]],
    );
}

#[test]
fn every_backend_has_its_rule() {
    let local = vec![
        endpoint("10.0.0.1", "http:80"),
        endpoint("10.0.0.2", "other:80"),
        endpoint("10.0.0.3", "http:80/UDP"),
        endpoint("fd00::4", "http:80"),
        is(BackendState::Terminating, endpoint("10.0.0.5", "80")),
        is(BackendState::Gone, endpoint("10.0.0.6", "http:80")),
        Endpoint { weight: 0, ..endpoint("10.0.0.7", "http:80") },
    ];
    let remote = vec![endpoint("10.0.0.1", "http:80"), endpoint("10.3.0.1", "http:80")];
    let mesh = mesh_after([
        echo(|p| p.affinity = Affinity::Local),
        put_local("echo", local),
        put_remote("echo", ("fc", 3), remote),
    ]);
    check(
        &mesh,
        &tables(&[mesh.desired(&key("echo"))]),
        expect![[r#"
        172.16.0.1:80/TCP, sure backends only, installed: true
          10.0.0.1:80/TCP        we Active      1.00 serves
          10.0.0.1:80/TCP        fc Active      0.00 conflict-lost
          10.0.0.2:80/TCP        we Active      0.00 other-port-name
          10.0.0.3:80/UDP        we Active      0.00 other-protocol
          10.0.0.5:80/TCP        we Terminating 0.00 active-preferred-over-terminating
          10.0.0.6:80/TCP        we Gone        0.00 gone
          10.0.0.7:80/TCP        we Maintenance 0.00 maintenance
          10.3.0.1:80/TCP        fc Active      0.00 affinity-local-has-local
          [fd00::4]:80/TCP       we Active      0.00 other-family
        conflict: 10.0.0.1:80/TCP is claimed by fc and by we, which has precedence
    "#]],
    );
}

#[test]
fn only_what_runs_here_serves_under_a_local_traffic_policy() {
    let on = |node: &str, e: Endpoint| Endpoint { node: Some(node.into()), ..e };
    let mesh = mesh_after([
        echo(|p| p.internal_traffic_policy = InternalTrafficPolicy::Local),
        put_local("echo", vec![on("n1", endpoint("10.0.0.1", "80")), on("n2", endpoint("10.0.0.2", "80"))]),
        put_remote("echo", ("fc", 3), vec![on("n1", endpoint("10.3.0.1", "80")), endpoint("10.3.0.2", "80")]),
    ]);
    check(
        &mesh,
        &tables(&[mesh.desired(&key("echo"))]),
        expect![[r#"
        172.16.0.1:80/TCP, sure backends only, installed: true
          10.0.0.1:80/TCP        we Active      0.50 serves
          10.0.0.2:80/TCP        we Active      0.00 not-on-this-node
          10.3.0.1:80/TCP        fc Active      0.00 not-on-this-node
          10.3.0.2:80/TCP        fc Active      0.50 serves
    "#]],
    );
}

#[test]
fn doubtful_backends_serve_when_nothing_else_does() {
    let doubtful = |change| match change {
        Change::Remote { service, cluster, slice, value, .. } => {
            Change::Remote { service, cluster, slice, value, standing: DOUBTFUL }
        }
        other => other,
    };
    let stale = doubtful(put_remote("echo", ("fc", 3), vec![endpoint("10.3.0.1", "80")]));
    let mut mesh = mesh_after([echo(|_| ()), put_local("echo", vec![endpoint("10.0.0.1", "80")]), stale]);
    let tables = tables(&[mesh.desired(&key("echo"))]);
    check(
        &mesh,
        &tables,
        expect![[r#"
        172.16.0.1:80/TCP, sure backends only, installed: true
          10.0.0.1:80/TCP        we Active      1.00 serves
          10.3.0.1:80/TCP        fc Active      0.00 doubtful
    "#]],
    );
    mesh.apply(put_local("echo", vec![is(BackendState::Maintenance, endpoint("10.0.0.1", "80"))]), Millis(0));
    check(
        &mesh,
        &tables,
        expect![[r#"
        172.16.0.1:80/TCP, doubtful backends too, since no sure one serves, installed: false
          10.0.0.1:80/TCP        we Maintenance 0.00 maintenance
          10.3.0.1:80/TCP        fc Active      1.00 serves
    "#]],
    );
}

#[test]
fn not_ready_addresses_are_published_as_ready() {
    let mesh = mesh_after([
        echo(|p| p.publish_not_ready = true),
        put_local(
            "echo",
            vec![
                is(BackendState::Maintenance, endpoint("10.0.0.1", "80")),
                Endpoint { weight: 0, ..endpoint("10.0.0.2", "80") },
            ],
        ),
    ]);
    check(
        &mesh,
        &tables(&[mesh.desired(&key("echo"))]),
        expect![[r#"
        172.16.0.1:80/TCP, sure backends only, installed: true
          10.0.0.1:80/TCP        we Active      1.00 serves
          10.0.0.2:80/TCP        we Maintenance 0.00 maintenance
    "#]],
    );
}

#[test]
fn notes_tell_of_addresses_and_frontends_wanted_twice() {
    let mut mesh = mesh_after([
        put_service(service("another", &["172.16.0.1"], "80")),
        put_service(service("echo", &["172.16.0.1"], "80 81")),
        put_local("echo", vec![endpoint("10.0.0.1", "80")]),
        put_remote("echo", ("ne", 1), vec![endpoint("10.0.0.1", "80")]),
        put_remote("another", ("fc", 3), vec![endpoint("10.0.0.1", "80")]),
    ]);
    let tables = tables(&[mesh.desired(&key("another")), mesh.desired(&key("echo"))]);
    check(
        &mesh,
        &tables,
        expect![[r#"
        172.16.0.1:81/TCP, sure backends only, installed: true
          10.0.0.1:80/TCP        we Active      1.00 serves
          10.0.0.1:80/TCP        ne Active      0.00 conflict-lost
        conflict: 10.0.0.1:80/TCP is claimed by ne and by we, which has precedence
        frontend 172.16.0.1:80/TCP is also that of default/another, whose name is lower: it has no table here
        address 10.0.0.1 is also listed by fc for default/another
    "#]],
    );
    let dirty = mesh.apply(Change::Service(key("another"), None), Millis(0));
    expect![[r#"["default/another", "default/echo"]"#]]
        .assert_eq(&format!("{:?}", dirty.iter().map(ToString::to_string).collect::<Vec<_>>()));
}

#[test]
fn services_are_listed_with_their_installed_tables() {
    let mut mesh = mesh_after([
        echo(|_| ()),
        put_local("echo", vec![endpoint("10.0.0.1", "80")]),
        put_remote("echo", ("fc", 3), vec![endpoint("10.3.0.1", "80")]),
    ]);
    let tables = tables(&[mesh.desired(&key("echo"))]);
    mesh.apply(Change::Peer(cluster("fc"), None), Millis(0));
    let views = services(&mesh, &tables);
    expect![[r#"
        [
          {
            "service": {
              "namespace": "default",
              "name": "echo"
            },
            "policy": {
              "reach": "mesh",
              "affinity": "none",
              "internal_traffic_policy": "Cluster",
              "no_backend": "refuse",
              "on_stale": "last-resort",
              "stale_after_ms": null,
              "publish_not_ready": false,
              "client_ip_seconds": null
            },
            "frontends": [
              {
                "frontend": {
                  "addr": "172.16.0.1",
                  "port": 80,
                  "protocol": "TCP"
                },
                "switch": {
                  "base": 0,
                  "count": 2,
                  "generation": 1
                },
                "backends": [
                  {
                    "backend": {
                      "addr": "10.0.0.1",
                      "port": 80,
                      "protocol": "TCP",
                      "cluster": 2
                    },
                    "cluster": "we",
                    "slots": 1,
                    "connects": null
                  },
                  {
                    "backend": {
                      "addr": "10.3.0.1",
                      "port": 80,
                      "protocol": "TCP",
                      "cluster": 3
                    },
                    "cluster": "fc",
                    "slots": 1,
                    "connects": null
                  }
                ],
                "connects": null,
                "refused": null
              }
            ]
          }
        ]"#]]
    .assert_eq(&serde_json::to_string_pretty(&views).expect("views are plain values"));
    check(
        &mesh,
        &tables,
        expect![[r#"
        172.16.0.1:80/TCP, sure backends only, installed: false
          10.0.0.1:80/TCP        we Active      1.00 serves
    "#]],
    );
}

#[test]
fn an_empty_table_has_its_reasons() {
    let mesh =
        mesh_after([echo(|_| ()), put_local("echo", vec![is(BackendState::Maintenance, endpoint("10.0.0.1", "80"))])]);
    check(
        &mesh,
        &tables(&[mesh.desired(&key("echo"))]),
        expect![[r#"
        172.16.0.1:80/TCP, nothing can serve, installed: true
          10.0.0.1:80/TCP        we Maintenance 0.00 maintenance
    "#]],
    );
    assert_eq!(explain(&mesh, &tables(&[]), &key("other"), Millis(0)), None);
}
