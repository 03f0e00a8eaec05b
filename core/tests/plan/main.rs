//! The laws of plan: its operations, executed by a model of the maps with programs that are still running, lead to
//! exactly the desired tables, and every prefix of them is safe.

mod adopt;
mod agent;

use expect_test::{Expect, expect};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::select;
use tombolo_core::model::{BackendKey, Frontend, NoBackend, Protocol};
use tombolo_core::plan::{Full, MapName, Tables};
use tombolo_core::tables::{BackendId, Desired, FrontendTable, Limits, Op};
use tombolo_testkit::fixture::{addr, id, key};

use agent::Agent;

/// One thing an agent does.
#[derive(Clone, Debug)]
enum Step {
    Plan(Vec<Desired>),
    /// The oldest outstanding grace period is over.
    Reclaim,
}

fn backend(n: u8) -> BackendKey {
    BackendKey { addr: addr(&format!("10.0.0.{n}")), port: 80, protocol: Protocol::Tcp, cluster: id(1) }
}

fn frontend(n: u8) -> Frontend {
    Frontend { addr: addr(&format!("172.16.0.{n}")), port: 80, protocol: Protocol::Tcp }
}

fn table() -> impl Strategy<Value = FrontendTable> {
    let backends = btree_map(1..9u8, 1..4u32, 0..6);
    let no_backend = select(vec![NoBackend::Refuse, NoBackend::Pass]);
    (backends, no_backend, select(vec![0, 30])).prop_map(|(backends, no_backend, affinity_seconds)| FrontendTable {
        backends: backends.into_iter().map(|(n, slots)| (backend(n), slots)).collect(),
        no_backend,
        affinity_seconds,
    })
}

/// A service's own frontends, and one that all services may want.
fn desired() -> impl Strategy<Value = Desired> {
    (0..3u8).prop_flat_map(|service| {
        let frontends = btree_map(select(vec![service, service + 10, 99]), table(), 0..4);
        frontends.prop_map(move |frontends| Desired {
            service: key(&format!("s{service}")),
            frontends: frontends.into_iter().map(|(n, table)| (frontend(n), table)).collect(),
        })
    })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    vec(prop_oneof![3 => vec(desired(), 1..4).prop_map(Step::Plan), 1 => Just(Step::Reclaim)], 1..12)
}

proptest! {
    #[test]
    fn every_prefix_is_safe_and_the_end_is_what_was_desired(steps in steps()) {
        let mut agent = Agent::new(Limits::default());
        for step in steps {
            match step {
                Step::Plan(desired) => {
                    agent.plan(&desired).expect("the default limits have room");
                    prop_assert_eq!(agent.plan(&desired), Ok(vec![]), "an empty difference is an empty plan");
                }
                Step::Reclaim => agent.reclaim(),
            }
            agent.check();
        }
        agent.check_idle();
    }

    #[test]
    fn what_has_no_room_changes_nothing(steps in steps(), services in 1..7u32, backends in 1..9u32, slots in 1..40u32) {
        let mut agent = Agent::new(Limits { services, backends, slots, members: 12 });
        for step in steps {
            match step {
                Step::Plan(desired) => {
                    let before = agent.tables.clone();
                    if let Err(full) = agent.plan(&desired) {
                        prop_assert!(full.used <= full.limit && full.wanted > 0);
                        prop_assert_eq!(&agent.tables, &before);
                    }
                }
                Step::Reclaim => agent.reclaim(),
            }
            agent.check();
        }
        agent.check_idle();
    }
}

fn check(agent: &mut Agent, service: &str, backends: &[u8], affinity_seconds: u32, expected: &Expect) {
    let backends = backends.iter().map(|n| (backend(*n), 1)).collect();
    let table = FrontendTable { backends, no_backend: NoBackend::Refuse, affinity_seconds };
    let desired = Desired { service: key(service), frontends: vec![(frontend(1), table)] };
    expected.assert_eq(&said(agent.plan(&[desired])));
}

fn said(ops: Result<Vec<Op>, Full>) -> String {
    match ops {
        Ok(ops) => ops.iter().map(|op| format!("{op}\n")).collect(),
        Err(full) => full.to_string(),
    }
}

#[test]
fn the_order_is_backends_slots_members_switch_service_then_deletions() {
    let mut agent = Agent::new(Limits { services: 2, backends: 4, slots: 5, members: 4 });
    check(
        &mut agent,
        "a",
        &[1, 2],
        30,
        &expect![[r#"
            put backend 0: 10.0.0.1:80/TCP of cluster 1, id 1000
            put backend 1: 10.0.0.2:80/TCP of cluster 1, id 1001
            put slots 0: 0 1
            put member 1000 of service 0: backend 0
            put member 1001 of service 0: backend 1
            switch service 0: 2 slots from 0, generation 1
            put service 0: 172.16.0.1:80/TCP, Refuse, affinity 30 s
        "#]],
    );
    check(
        &mut agent,
        "a",
        &[2, 3],
        30,
        &expect![[r#"
            put backend 2: 10.0.0.3:80/TCP of cluster 1, id 1002
            put slots 2: 1 2
            put member 1002 of service 0: backend 2
            switch service 0: 2 slots from 2, generation 2
            delete member 1000 of service 0
        "#]],
    );
    check(
        &mut agent,
        "a",
        &[2, 3, 4],
        0,
        &expect!["map slots has no room for 3 more entries (4 of 5 in use): raise its limit"],
    );
    let (ticket, _) = agent.tickets[0];
    expect![[r#"
        delete backend 0
    "#]]
    .assert_eq(&said(Ok(agent.tables.clone().reclaim(ticket).ops)));
    agent.reclaim();
    check(
        &mut agent,
        "a",
        &[],
        0,
        &expect![[r#"
            switch service 0: 0 slots from 0, generation 3
            put service 0: 172.16.0.1:80/TCP, Refuse, affinity 0 s
            delete member 1001 of service 0
            delete member 1002 of service 0
        "#]],
    );
    let nothing = Desired { service: key("a"), frontends: vec![] };
    expect![[r#"
        delete service 172.16.0.1:80/TCP
    "#]]
    .assert_eq(&said(agent.plan(&[nothing])));
    agent.check_idle();
}

#[test]
fn a_table_listed_badly_is_put_in_order() {
    let check = |listed: &[(u8, u32)], expected: &[(u8, u32)]| {
        let backends = |list: &[(u8, u32)]| list.iter().map(|(n, slots)| (backend(*n), *slots)).collect::<Vec<_>>();
        let mut agent = Agent::new(Limits::default());
        let table = FrontendTable { backends: backends(listed), no_backend: NoBackend::Refuse, affinity_seconds: 0 };
        agent.plan(&[Desired { service: key("a"), frontends: vec![(frontend(1), table)] }]).expect("there is room");
        let installed = agent.tables.installed(&frontend(1)).expect("it was planned");
        assert_eq!(installed.table.backends, backends(expected), "{listed:?}");
    };
    check(&[(2, 1), (1, 0), (3, 1), (2, 2)], &[(2, 3), (3, 1)]);
    check(&[(1, 1), (1, 2)], &[(1, 3)]);
    check(&[(2, 1), (1, 1)], &[(1, 1), (2, 1)]);
    check(&[(1, 0)], &[]);
    check(&[(1, 0), (2, 1)], &[(2, 1)]);
}

#[test]
fn a_switch_counts_to_twenty_bits() {
    const MOST: u32 = (1 << 20) - 1;
    let plan = |slots| {
        let mut tables = Tables::new(Limits { slots: 1 << 21, ..Limits::default() }, BackendId(1));
        let table =
            FrontendTable { backends: vec![(backend(1), slots)], no_backend: NoBackend::Refuse, affinity_seconds: 0 };
        tables.plan(&[Desired { service: key("a"), frontends: vec![(frontend(1), table)] }]).map(drop)
    };
    assert_eq!(plan(MOST), Ok(()));
    assert_eq!(plan(MOST + 1), Err(Full { map: MapName::Slots, wanted: MOST + 1, used: 0, limit: 1 << 21 }));
}

#[test]
fn members_have_room_or_nothing_changes() {
    let mut agent = Agent::new(Limits { members: 3, ..Limits::default() });
    let full = "map members has no room for 2 more entries (2 of 3 in use): raise its limit";
    let plan = |agent: &mut Agent, n: u8, backends: &[u8]| {
        let backends = backends.iter().map(|n| (backend(*n), 1)).collect();
        let table = FrontendTable { backends, no_backend: NoBackend::Refuse, affinity_seconds: 30 };
        said(agent.plan(&[Desired { service: key(&format!("s{n}")), frontends: vec![(frontend(n), table)] }]))
    };
    plan(&mut agent, 1, &[1, 2]);
    agent.check();
    assert_eq!(plan(&mut agent, 2, &[1, 2]), full);
    plan(&mut agent, 2, &[1]);
    agent.check();
}
