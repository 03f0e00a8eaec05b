//! Tables that change under traffic, and large ones.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use tombolo_core::model::NoBackend;
use tombolo_core::tables::{BackendIndex, Op, Plan, ServiceIndex, SlotBase, SwitchEntry};
use tombolo_ebpf::{Executor, Faults, Limits, grace_period};

use crate::support::lab::{Cgroup, Lab};
use crate::support::plans::{addr, backend, plan, service, slots, switch};

const VIP: &str = "10.96.0.10:80";

/// Backends a to f at 127.0.0.1:8080 to 8085.
fn letters() -> Vec<(SocketAddr, &'static str)> {
    let at = |n: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, 8080 + n));
    (0..).zip(["a", "b", "c", "d", "e", "f"]).map(|(n, letter)| (at(n), letter)).collect()
}

fn histogram(text: &str) -> BTreeMap<String, u64> {
    let pairs = text.split_whitespace().map(|pair| pair.split_once('=').unwrap());
    pairs.map(|(label, count)| (label.to_owned(), count.parse().unwrap())).collect()
}

/// The old table is a, b in slots 0 and 1, the new one c, d, c, d in slots 16 to 19. All around are e and f, so that a
/// base of one and a count of the other would reach them.
#[test]
fn a_switch_under_traffic_leads_to_the_old_or_the_new_table() {
    let Some(mut lab) = Lab::new() else { return };
    lab.serve(&letters());
    let backends = (0..).zip(letters()).map(|(index, (at, _))| backend(index, at));
    let ranges = [slots(0, [0, 1]), slots(2, [4, 5].repeat(7)), slots(16, [2, 3, 2, 3]), slots(20, [4, 5].repeat(7))];
    let start = [switch(0, 0, 2, 0), service(0, addr(VIP), NoBackend::Refuse)];
    lab.datapath().execute(&plan(backends.chain(ranges).chain(start))).unwrap();

    let mut client = lab.client(Cgroup::Inside);
    client.ask(&format!("storm 4 {VIP}"));
    let mut generation = 0;
    while client.ask("done").parse::<u32>().unwrap() < 4_000 {
        // An odd number, so that both tables are met at rest too.
        for _ in 0..63 {
            generation = (generation + 1) % 4096;
            let to = if generation % 2 == 0 { switch(0, 0, 2, generation) } else { switch(0, 16, 4, generation) };
            lab.datapath().execute(&plan([to])).unwrap();
        }
    }
    lab.datapath().execute(&plan([switch(0, 16, 4, 1)])).unwrap();
    let answers = histogram(&client.ask("calm"));

    assert_eq!(answers.keys().map(String::as_str).collect::<Vec<_>>(), ["a", "b", "c", "d"]);
    let counted: u64 = (0..6).map(|index| lab.datapath().connects(BackendIndex(index))).sum();
    assert_eq!(counted, answers.values().sum::<u64>(), "every connect is counted once");
    assert_eq!(lab.datapath().faults(), Faults::default());
    for _ in 0..50 {
        let answer = client.ask(&format!("dial {VIP}"));
        assert!(answer.starts_with('c') || answer.starts_with('d'), "after the switch: {answer}");
    }
}

#[test]
fn counters_are_by_backend_and_cleared_with_a_new_one() {
    let Some(mut lab) = Lab::new() else { return };
    lab.serve(&letters());
    let backends = (0..3).zip(letters()).map(|(index, (at, _))| backend(index, at));
    let table = [slots(0, [0, 1, 1, 1]), switch(0, 0, 4, 1), service(0, addr(VIP), NoBackend::Refuse)];
    lab.datapath().execute(&plan(backends.chain(table))).unwrap();
    let mut client = lab.client(Cgroup::Inside);
    let mut answered = BTreeMap::new();
    for _ in 0..200 {
        let answer = client.ask(&format!("dial {VIP}"));
        *answered.entry(answer.split(' ').next().unwrap().to_owned()).or_insert(0) += 1;
    }
    let counted = [0, 1, 2].map(|index| lab.datapath().connects(BackendIndex(index)));
    assert_eq!(counted, [answered["a"], answered["b"], 0]);
    // Three of four slots are b's: 150 expected, and 5 standard deviations are 31.
    assert!((119..=181).contains(&counted[1]), "{counted:?}");

    // Retired by a switch, erased after a grace period, used again.
    lab.datapath().execute(&plan([slots(8, [0]), switch(0, 8, 1, 2)])).unwrap();
    grace_period().unwrap();
    lab.datapath().execute(&plan([Op::DeleteBackend { index: BackendIndex(1) }])).unwrap();
    assert_eq!(lab.datapath().read_backend(BackendIndex(1)), None);
    lab.datapath().execute(&plan([backend(1, letters()[2].0)])).unwrap();
    assert_eq!(lab.datapath().connects(BackendIndex(1)), 0);
}

/// 10,000 services with ten backends each, all different.
fn large(real: SocketAddr) -> Plan {
    let at = |n: u32| if n == 77_770 { real } else { SocketAddr::from((Ipv4Addr::from(0x0a00_0000 + n), 8080)) };
    let backends = (0..100_000).map(|n| backend(n, at(n)));
    // Service 7,777 has its one real backend in all slots.
    let ranges =
        (0..10_000).map(|s| slots(s * 10, if s == 7_777 { vec![77_770; 10] } else { (s * 10..s * 10 + 10).collect() }));
    let switches = (0..10_000).map(|s| switch(s, s * 10, 10, 1));
    let services = (0..10_000).map(|s| service(s, vip(s), NoBackend::Refuse));
    plan(backends.chain(ranges).chain(switches).chain(services))
}

fn vip(service: u32) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::from(0x0a60_0000 + service), 80))
}

#[test]
fn a_hundred_thousand_backends_are_executed_and_read_back() {
    let limits = Limits { services: 10_000, backends: 100_000, slots: 100_000, members: 1 };
    let Some(mut lab) = Lab::with(limits, 1024) else { return };
    lab.serve(&[(addr("127.0.0.1:8080"), "alderaan")]);
    let plan = large(addr("127.0.0.1:8080"));
    lab.datapath().execute(&plan).unwrap();
    for op in &plan.ops {
        let datapath = lab.datapath();
        match op {
            Op::PutBackend { index, id, backend } => {
                assert_eq!(datapath.read_backend(*index), Some((*id, *backend)));
            }
            Op::PutSlots { base, slots } => assert_eq!(datapath.read_slots(*base, 10), *slots),
            Op::Switch { service, entry } => assert_eq!(datapath.read_switch(*service), *entry),
            Op::PutService { frontend, entry } => {
                assert_eq!(datapath.read_service(frontend).unwrap(), Some(*entry));
            }
            other => unreachable!("{other:?}"),
        }
    }
    let answer = lab.client(Cgroup::Inside).ask(&format!("dial {}", vip(7_777)));
    assert_eq!(answer, format!("alderaan {}", vip(7_777)));
    assert_eq!(lab.datapath().connects(BackendIndex(77_770)), 1);
    assert_eq!(lab.datapath().read_switch(ServiceIndex(10_000)), SwitchEntry::default(), "outside the map");
    assert_eq!(lab.datapath().read_slots(SlotBase(99_999), 10).len(), 1, "outside the map");
}
