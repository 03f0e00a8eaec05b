//! The laws of adoption: whatever the maps hold, the agent that finds it gets to what it wants, by safe steps; and what a
//! forerunner completed is not touched.

use std::collections::BTreeMap;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use tombolo_core::id::ServiceKey;
use tombolo_core::tables::{BackendIndex, Contents, ServiceEntry, ServiceIndex, SwitchEntry};
use tombolo_testkit::kernel::Kernel;

use super::*;

const LIMITS: Limits = Limits { services: 8, backends: 12, slots: 48, members: 24 };

/// Services with all their frontends, each named once.
fn all() -> impl Strategy<Value = Vec<Desired>> {
    vec(desired(), 0..4).prop_map(|all| {
        let last: BTreeMap<ServiceKey, Desired> = all.into_iter().map(|d| (d.service.clone(), d)).collect();
        last.into_values().collect()
    })
}

fn run(agent: &mut Agent, steps: Vec<Step>) {
    for step in steps {
        match step {
            Step::Plan(desired) => drop(agent.plan(&desired).expect("the default limits have room")),
            Step::Reclaim => agent.reclaim(),
        }
    }
}

/// What the agent wants, as it would say it to a new one.
fn wanted(agent: &Agent) -> Vec<Desired> {
    let mut all = BTreeMap::<ServiceKey, Desired>::new();
    for (frontend, installed) in agent.tables.frontends() {
        let service = installed.service.expect("it has an owner").clone();
        let desired = Desired { service: service.clone(), frontends: vec![] };
        all.entry(service).or_insert(desired).frontends.push((*frontend, installed.table.clone()));
    }
    all.into_values().collect()
}

/// Maps with anything in them, as far as their words can say it.
fn garbage() -> impl Strategy<Value = Kernel> {
    let places = || (0..14_u32).prop_map(BackendIndex);
    let services = || (0..8_u32).prop_map(ServiceIndex);
    let frontends = || select(vec![0_u8, 1, 2, 10, 99]).prop_map(frontend);
    let id = || prop_oneof![5 => 0..20_u64, 4 => 1_995..2_005_u64, 1 => Just(u64::MAX)].prop_map(BackendId);
    let no_backend = select(vec![NoBackend::Refuse, NoBackend::Pass]);
    let entry = ((0..9_u32).prop_map(ServiceIndex), no_backend, select(vec![0_u32, 30]))
        .prop_map(|(index, no_backend, affinity_seconds)| ServiceEntry { index, no_backend, affinity_seconds });
    let switch = (0..50_u32, prop_oneof![9 => 0..6_u32, 1 => Just(60)], 0..4096_u16)
        .prop_map(|(base, count, generation)| SwitchEntry { base, count, generation });
    let backends = (id(), 1..9_u8, 0..4).prop_map(|(id, n, kind)| match kind {
        0 => (id, BackendKey { protocol: Protocol::Udp, ..backend(n) }),
        1 => (id, BackendKey { addr: addr(&format!("fd00::{n}")), ..backend(n) }),
        _ => (id, backend(n)),
    });
    (
        btree_map(frontends(), entry, 0..5),
        btree_map(services(), frontends(), 0..9),
        btree_map(services(), switch, 0..9),
        vec(places(), 48),
        btree_map((0..12_u32).prop_map(BackendIndex), backends, 0..12),
        btree_map((services(), id()), places(), 0..8),
    )
        .prop_map(|(services, frontends, switch, slots, backends, members)| {
            let mut kernel = Kernel::default();
            // Most frontends are in their own place, or little of the rest would ever be looked at.
            let own = services.iter().enumerate().filter(|(n, (_, e))| n % 4 != 3 && e.index.0 < LIMITS.services);
            kernel.frontends = frontends.into_iter().chain(own.map(|(_, (f, e))| (e.index, *f))).collect();
            (kernel.services, kernel.switch, kernel.backends, kernel.members) = (services, switch, backends, members);
            kernel.slots = (0..).zip(slots).collect();
            kernel.inherit();
            kernel
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn what_a_forerunner_completed_is_not_touched(before in steps(), after in steps()) {
        let mut agent = Agent::new(Limits::default());
        run(&mut agent, before);
        agent.check_idle();
        let (wanted, maps) = (wanted(&agent), agent.kernel.contents());
        prop_assert_eq!(agent.adopt(Limits::default()), Default::default());
        prop_assert_eq!(agent.plan_all(&wanted), Ok(vec![]));
        prop_assert!(agent.tickets.is_empty());
        prop_assert_eq!(agent.kernel.contents(), maps);
        agent.check();
        run(&mut agent, after);
        agent.check_idle();
    }

    #[test]
    fn an_agent_killed_at_any_operation_is_taken_over(before in steps(), last in all(), cut in any::<prop::sample::Index>(), wanted in all()) {
        let mut agent = Agent::new(Limits::default());
        run(&mut agent, before);
        let ops = agent.tables.plan(&last).expect("there is room").ops;
        agent.kernel.execute_prefix(&ops, cut.index(ops.len() + 1));
        let repairs = agent.adopt(Limits::default());
        agent.repair(repairs);
        agent.plan_all(&wanted).expect("there is room");
        agent.check_idle();
        prop_assert_eq!(agent.plan_all(&wanted), Ok(vec![]));
    }

    #[test]
    fn anything_at_all_is_taken_over(kernel in garbage(), wanted in all(), steps in steps()) {
        let mut agent = Agent::new(Limits::default());
        agent.kernel = kernel;
        let limits = Limits { slots: 1_000, backends: 100, services: 100, members: 1_000 };
        let repairs = agent.adopt(limits);
        agent.repair(repairs);
        for (frontend, backend) in agent.pairs() {
            prop_assert_eq!(frontend.addr.family(), backend.addr.family());
            prop_assert_eq!(frontend.protocol, backend.protocol);
        }
        agent.plan_all(&wanted).expect("there is room");
        agent.check_idle();
        run(&mut agent, steps);
        agent.check_idle();
    }

    #[test]
    fn without_room_all_that_fits_is_taken_over(kernel in garbage(), wanted in all()) {
        let mut agent = Agent::new(LIMITS);
        agent.kernel = kernel;
        let repairs = agent.adopt(LIMITS);
        agent.repair(repairs);
        if agent.plan_all(&wanted).is_err() {
            let fitted: Vec<bool> = wanted.iter().map(|one| agent.plan(std::slice::from_ref(one)).is_ok()).collect();
            let before = agent.pairs();
            let rest = agent.tables.settle(&wanted);
            agent.carry_out(rest, &before);
            let fitted = wanted.iter().zip(fitted).filter(|(_, fitted)| *fitted).flat_map(|(one, _)| &one.frontends);
            let mut tables = BTreeMap::<Frontend, Vec<&FrontendTable>>::new();
            for (frontend, table) in fitted {
                tables.entry(*frontend).or_default().push(table);
            }
            for (frontend, tables) in tables {
                let installed = agent.tables.installed(&frontend).map(|i| i.table);
                prop_assert!(installed.is_some_and(|table| tables.contains(&table)));
            }
        }
        while !agent.tickets.is_empty() {
            agent.reclaim();
        }
        prop_assert!(agent.tables.frontends().all(|(_, installed)| installed.service.is_some()));
    }
}

#[test]
fn ids_count_on_from_the_largest_that_is_somebodys() {
    const LARGEST: u64 = u64::MAX >> 1;
    let next = |found| {
        let backends = vec![(BackendIndex(0), BackendId(found), backend(1))];
        let contents = Contents { backends, ..Contents::default() };
        let (mut tables, _) = Tables::adopt(Limits::default(), &contents, BackendId(100));
        let table =
            FrontendTable { backends: vec![(backend(2), 1)], no_backend: NoBackend::Refuse, affinity_seconds: 0 };
        let plan = tables.plan(&[Desired { service: key("a"), frontends: vec![(frontend(1), table)] }]);
        let put = |op: &Op| if let Op::PutBackend { id, .. } = op { Some(id.0) } else { None };
        plan.expect("there is room").ops.iter().find_map(put)
    };
    assert_eq!([5, 99, 100, LARGEST].map(next), [100, 100, 101, LARGEST + 1].map(Some));
    assert_eq!([LARGEST + 1, u64::MAX].map(next), [Some(100), Some(100)], "nobody's");
}

#[test]
fn a_mended_table_is_of_the_next_generation() {
    let mended = |generation, slots: &[u32]| {
        let service = ServiceIndex(0);
        let entry = ServiceEntry { index: service, no_backend: NoBackend::Refuse, affinity_seconds: 0 };
        let slots = slots.iter().copied().map(BackendIndex).collect();
        let contents = Contents {
            services: vec![(frontend(1), entry)],
            frontends: BTreeMap::from([(service, frontend(1))]),
            tables: BTreeMap::from([(service, (SwitchEntry { base: 0, count: 2, generation }, slots))]),
            backends: vec![(BackendIndex(0), BackendId(1), backend(1))],
            members: vec![],
        };
        let (_, repairs) = Tables::adopt(Limits::default(), &contents, BackendId(100));
        said(Ok(repairs.ops))
    };
    expect![[r#"
        put slots 2: 0
        switch service 0: 1 slots from 2, generation 8
    "#]]
    .assert_eq(&mended(7, &[0, 5]));
    assert!(mended(4095, &[0, 5]).ends_with("generation 0\n"));
    expect![[r#"
        switch service 0: 0 slots from 0, generation 8
    "#]]
    .assert_eq(&mended(7, &[5, 5]));
}
