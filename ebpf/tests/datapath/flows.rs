//! What the programs tell.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tombolo_core::model::{NoBackend, Protocol};
use tombolo_core::tables::{BackendIndex, ServiceIndex};
use tombolo_ebpf::{DatapathError, Executor, FlowEvent, FlowKind, FlowReader, cgroup_path};

use crate::support::kernel::refusal;
use crate::support::lab::{Cgroup, Lab};
use crate::support::plans::{addr, frontend, one, plan, service, simple, slots, switch, udp};

const VIP: &str = "10.96.0.10:80";

/// Waits until the descriptor is readable, and reads.
fn wait(flows: &mut FlowReader) -> FlowEvent {
    let deadline = Timespec { tv_sec: 20, tv_nsec: 0 };
    assert_eq!(poll(&mut [PollFd::new(flows, PollFlags::IN)], Some(&deadline)).unwrap(), 1, "nothing was told");
    flows.next_event().expect("an event, as the descriptor is readable")
}

#[test]
fn flows_are_told_with_service_backend_and_process() {
    let Some(mut lab) = Lab::new() else { return };
    lab.serve(&[(addr("127.0.0.1:8080"), "alderaan")]);
    let empty = addr("10.96.0.11:80");
    lab.datapath().execute(&simple(addr(VIP), &[addr("127.0.0.1:8080")])).unwrap();
    lab.datapath().execute(&plan([switch(1, 0, 0, 1), service(1, empty, NoBackend::Refuse)])).unwrap();
    let mut flows = lab.datapath().flows().unwrap();
    assert!(matches!(lab.datapath().flows(), Err(DatapathError::FlowsTaken)));
    let mut client = lab.client(Cgroup::Inside);
    client.ask(&format!("dial {VIP}"));
    assert_eq!(flows.next_event(), None, "nobody asked yet");

    lab.datapath().set_sampling(u32::MAX);
    client.ask(&format!("dial {VIP}"));
    let event = wait(&mut flows);
    assert_eq!((event.kind, event.frontend, event.service.0), (FlowKind::Connected, frontend(addr(VIP)), 0));
    let (id, backend) = event.backend.unwrap();
    assert_eq!((id.0, backend), (1, lab.datapath().read_backend(BackendIndex(0)).unwrap().1));
    assert_eq!(cgroup_path(event.cgroup).as_deref(), Some(lab.cgroup()));
    let threads = std::fs::read_dir(format!("/proc/{}/task", event.pid)).unwrap();
    let names = threads.map(|thread| std::fs::read_to_string(thread.unwrap().path().join("comm")).unwrap());
    assert!(names.collect::<Vec<_>>().contains(&format!("{}\n", event.command)), "{}", event.command);

    client.ask("dial 10.96.0.11:80");
    let event = wait(&mut flows);
    assert_eq!((event.kind, event.frontend, event.backend), (FlowKind::Refused, frontend(empty), None));

    // The next life reads on where this one ended.
    client.ask(&format!("dial {VIP}"));
    drop(flows);
    let mut flows = lab.reopen().flows().unwrap();
    assert_eq!(wait(&mut flows).frontend, frontend(addr(VIP)));
    assert_eq!(flows.next_event(), None);
}

/// All that is there to read.
fn drain(flows: &mut FlowReader) -> Vec<FlowEvent> {
    std::iter::from_fn(|| flows.next_event()).collect()
}

#[test]
fn of_datagrams_the_first_is_told_and_of_empty_and_broken_tables_what_became() {
    let Some(mut lab) = Lab::new() else { return };
    lab.serve_udp(&[(addr("127.0.0.1:5353"), "alderaan")]);
    let (dns, pass, broken) = (addr("10.96.0.10:53"), addr("127.0.0.1:5353"), addr("10.96.0.12:53"));
    let tables = [one(0, dns, &[addr("127.0.0.1:5353")]), vec![service(1, pass, NoBackend::Pass)]];
    // Slot 900 leads to backend 200, which is none.
    let lost = [switch(2, 900, 1, 1), service(2, broken, NoBackend::Refuse)];
    let ops = tables.into_iter().flatten().chain(lost).chain([slots(900, [200])]);
    lab.datapath().execute(&plan(ops.map(udp))).unwrap();
    lab.datapath().set_sampling(u32::MAX);
    let mut flows = lab.datapath().flows().unwrap();
    let mut client = lab.client(Cgroup::Inside);
    client.ask("open s v4");
    for _ in 0..3 {
        assert_eq!(client.ask(&format!("to s {dns}")), format!("alderaan {dns}"));
    }
    client.ask(&format!("connect s {dns}"));
    client.ask("open t v4");
    client.ask(&format!("to t {pass}"));
    assert_eq!(client.ask(&format!("to t {broken}")), refusal());
    let told = drain(&mut flows);
    let kinds: Vec<_> = told.iter().map(|event| (event.kind, event.service.0)).collect();
    let [datagram, connected] = [FlowKind::Datagram, FlowKind::Connected];
    assert_eq!(kinds, [(datagram, 0), (connected, 0), (FlowKind::Passed, 1), (FlowKind::Broken, 2)]);
    assert!(told[..2].iter().all(|event| event.frontend.protocol == Protocol::Udp && event.backend.is_some()));
    assert!(told[2..].iter().all(|event| event.backend.is_none()));
    assert!(told.windows(2).all(|pair| pair[0].time_ns < pair[1].time_ns));
    assert_eq!(lab.datapath().faults().broken_tables, 1);
}

#[test]
fn a_threshold_picks_its_part_and_what_finds_no_room_is_counted() {
    let Some(mut lab) = Lab::new() else { return };
    let empty = addr("10.96.0.11:80");
    lab.datapath().execute(&plan([service(0, empty, NoBackend::Refuse)])).unwrap();
    let mut flows = lab.datapath().flows().unwrap();
    let mut client = lab.client(Cgroup::Inside);
    lab.datapath().set_sampling(u32::MAX / 4);
    client.ask(&format!("refused 4000 {empty}"));
    let told = drain(&mut flows).len();
    // 1,000 expected, and five standard deviations are 137.
    assert!((863..=1137).contains(&told), "{told}");
    // The buffer takes some 9,300 of these.
    lab.datapath().set_sampling(u32::MAX);
    client.ask(&format!("refused 12000 {empty}"));
    let lost = lab.datapath().faults().events_lost;
    assert_eq!(drain(&mut flows).len() as u64 + lost, 12_000);
    assert!(lost > 1_000, "{lost}");
    assert_eq!(lab.datapath().refused(ServiceIndex(0)), 16_000);
}
