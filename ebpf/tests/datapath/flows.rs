//! What the programs tell.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tombolo_core::model::NoBackend;
use tombolo_ebpf::{DatapathError, Executor, FlowEvent, FlowKind, FlowReader, cgroup_path};

use crate::support::lab::{Cgroup, Lab};
use crate::support::plans::{addr, frontend, plan, service, simple, switch};

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
    assert_eq!((id.0, backend), (1, lab.datapath().read_backend(tombolo_core::tables::BackendIndex(0)).unwrap().1));
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
