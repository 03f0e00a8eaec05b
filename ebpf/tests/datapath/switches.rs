//! Many switches while clients connect: each connection belongs to a table that was installed while it connected.
//!
//! The planner itself plans, with maps so small that every place is used again and again. Each table has two backends at
//! addresses that no other table has for the next hundred switches, and the server tells a client which one it reached.

use std::net::{Ipv4Addr, SocketAddr};

use tombolo_core::id::{ClusterId, MaxClusters, ServiceKey};
use tombolo_core::model::{BackendKey, NoBackend, Protocol};
use tombolo_core::plan::Tables;
use tombolo_core::tables::{BackendId, Desired, FrontendTable, Op, Plan};
use tombolo_ebpf::{Executor, Faults, Limits, grace_period};

use crate::support::clock::now;
use crate::support::lab::{Cgroup, Lab};
use crate::support::plans::{addr, frontend, one, plan, service};

const VIP: &str = "10.96.0.10:80";
const CLIENTS: u32 = 20;
/// How many tables are different.
const SETS: usize = 100;
/// How many plans wait for one grace period.
const BATCH: usize = 50;

/// How many switches. With one processor, as an emulated machine has, little runs at the same moment, and that slowly.
fn switches() -> usize {
    if std::thread::available_parallelism().is_ok_and(|processors| processors.get() > 1) { 10_000 } else { 500 }
}

/// The address of one of a table's two backends.
fn address(table: usize, which: u8) -> SocketAddr {
    let set = u8::try_from(table % SETS).unwrap();
    SocketAddr::from((Ipv4Addr::new(127, 1, set, which), 8080))
}

fn desired(table: usize) -> Desired {
    let cluster = ClusterId::new(1, MaxClusters::C255).unwrap();
    let backend = |which| {
        let at = address(table, which);
        (BackendKey { addr: at.ip().into(), port: at.port(), protocol: Protocol::Tcp, cluster }, 1)
    };
    let backends = [1, 2].map(backend).into();
    let table = FrontendTable { backends, no_backend: NoBackend::Refuse, affinity_seconds: 0 };
    Desired { service: ServiceKey::new("default", "many"), frontends: vec![(frontend(addr(VIP)), table)] }
}

/// When a table was the current one: from before its switch to after the next one's.
#[derive(Clone, Copy)]
struct Reign {
    from: u64,
    to: u64,
}

#[test]
fn each_of_many_connections_lands_in_a_table_of_its_time() {
    // Two tables at a time are enough, and those that wait for a grace period.
    let room = 2 * (u32::try_from(BATCH).unwrap() + 2);
    let limits = Limits { services: 1, backends: room, slots: room, members: 1 };
    let Some(mut lab) = Lab::with(limits, 4096) else { return };
    lab.serve(&[(addr("0.0.0.0:8080"), "@")]);
    let mut tables = Tables::new(limits, BackendId(1));
    let mut reigns: Vec<Reign> = Vec::with_capacity(switches());
    let mut client = lab.client(Cgroup::Inside);
    let mut waiting = None;
    for table in 0..switches() {
        let Plan { ops, retired, .. } = tables.plan(&[desired(table)]).unwrap();
        let from = now();
        lab.datapath().execute(&Plan { ops, ..Plan::default() }).unwrap();
        if let Some(last) = reigns.last_mut() {
            last.to = now();
        }
        reigns.push(Reign { from, to: u64::MAX });
        waiting = retired.or(waiting);
        if table == 0 {
            client.ask(&format!("storm {CLIENTS} {VIP}"));
        }
        if table % BATCH == BATCH - 1
            && let Some(ticket) = waiting.take()
        {
            grace_period().unwrap();
            lab.datapath().execute(&tables.reclaim(ticket)).unwrap();
        }
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    client.ask(&format!("record {}", file.path().display()));
    let record = std::fs::read_to_string(file.path()).unwrap();
    let dials = record.lines().map(|line| judge(line, &reigns)).collect::<Vec<_>>();
    let telling = dials.iter().filter(|possible| **possible < SETS / 2).count();
    eprintln!("{} connections over {} switches, {telling} with few possible tables", dials.len(), switches());
    assert!(telling > switches() / 20, "too few connections say anything: {telling} of {}", dials.len());
    assert_eq!(lab.datapath().faults(), Faults::default());
    assert_eq!(lab.datapath().remembered().unwrap(), 0, "every socket is closed");
}

/// Fails when a dial reached a backend of no table of its time; else how many tables were possible.
fn judge(line: &str, reigns: &[Reign]) -> usize {
    let [began, connected, label] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("no dial: {line}") };
    let (began, connected): (u64, u64) = (began.parse().unwrap(), connected.parse().unwrap());
    let first = reigns.partition_point(|reign| reign.to < began);
    let end = reigns.partition_point(|reign| reign.from <= connected);
    let reached = (first..end).any(|table| [1, 2].iter().any(|which| address(table, *which).to_string() == label));
    assert!(reached, "{label} is of no table between {first} and {end}");
    end - first
}

/// The entry is replaced again and again, and its place in the hash map given to services that come and go.
#[test]
fn a_service_that_is_written_under_traffic_is_never_missed_and_never_another() {
    let Some(mut lab) = Lab::with(Limits { services: 8, backends: 32, slots: 64, members: 1 }, 4096) else { return };
    lab.serve(&[(addr("127.0.0.1:8080"), "own"), (addr("127.0.0.1:8081"), "other")]);
    let other = one(1, addr("10.96.0.11:80"), &[addr("127.0.0.1:8081")]);
    lab.datapath().execute(&plan(one(0, addr(VIP), &[addr("127.0.0.1:8080")]))).unwrap();
    lab.datapath().execute(&plan(other)).unwrap();
    let mut client = lab.client(Cgroup::Inside);
    client.ask(&format!("storm {CLIENTS} {VIP}"));
    let gone = |last: u8| Op::DeleteService { frontend: frontend(SocketAddr::from(([10, 96, 0, last], 80))) };
    let come = |last: u8| service(1, SocketAddr::from(([10, 96, 0, last], 80)), NoBackend::Refuse);
    while client.ask("done").parse::<u32>().unwrap() < 5_000 {
        for turn in 0..100 {
            let no_backend = if turn % 2 == 0 { NoBackend::Pass } else { NoBackend::Refuse };
            let own = service(0, addr(VIP), no_backend);
            lab.datapath().execute(&plan([own, come(11), come(12), gone(11), come(13), gone(12), gone(13)])).unwrap();
        }
    }
    let answers = client.ask("calm");
    assert!(answers.starts_with("own=") && answers.trim().split(' ').count() == 1, "{answers}");
}
