//! One service dialled in every way.

use tombolo_core::model::NoBackend;
use tombolo_core::tables::{BackendIndex, ServiceIndex};
use tombolo_ebpf::{Executor, Faults, Limits, Place, RunStats, uninstall};

use crate::support::clock::until;
use crate::support::kernel::refusal;
use crate::support::lab::{Cgroup, Lab};
use crate::support::plans::{addr, frontend, plan, service, simple, switch};

/// A client dials `vip` of a service with one backend at `at`; what it is answered.
fn dialled(vip: &str, at: &str) -> Option<String> {
    let mut lab = Lab::new()?;
    lab.serve(&[(addr(at), "alderaan")]);
    lab.datapath().execute(&simple(addr(vip), &[addr(at)])).unwrap();
    let answer = lab.client(Cgroup::Inside).ask(&format!("dial {vip}"));
    assert_eq!(lab.datapath().connects(BackendIndex(0)), 1);
    assert_eq!(lab.datapath().faults(), Faults::default());
    Some(answer)
}

#[test]
fn ipv4_is_translated_and_the_peer_is_the_frontend() {
    let Some(answer) = dialled("10.96.0.10:80", "127.0.0.1:8080") else { return };
    assert_eq!(answer, "alderaan 10.96.0.10:80");
}

#[test]
fn ipv6_is_translated_and_the_peer_is_the_frontend() {
    let Some(answer) = dialled("[fd00::10]:80", "[::1]:8080") else { return };
    assert_eq!(answer, "alderaan [fd00::10]:80");
}

#[test]
fn a_mapped_address_is_translated_and_answered_mapped() {
    let Some(mut lab) = Lab::new() else { return };
    lab.serve(&[(addr("127.0.0.1:8080"), "alderaan")]);
    lab.datapath().execute(&simple(addr("10.96.0.10:80"), &[addr("127.0.0.1:8080")])).unwrap();
    let answer = lab.client(Cgroup::Inside).ask("dial [::ffff:10.96.0.10]:80");
    assert_eq!(answer, "alderaan [::ffff:10.96.0.10]:80");
}

#[test]
fn outside_the_cgroup_nothing_is_translated() {
    let Some(mut lab) = Lab::new() else { return };
    lab.serve(&[(addr("127.0.0.1:8080"), "alderaan")]);
    lab.datapath().execute(&simple(addr("10.96.0.10:80"), &[addr("127.0.0.1:8080")])).unwrap();
    let mut client = lab.client(Cgroup::Outside);
    assert_eq!(client.ask("dial 10.96.0.10:80"), "error NetworkUnreachable");
    assert_eq!(client.ask("dial 127.0.0.1:8080"), "alderaan 127.0.0.1:8080");
    assert_eq!(lab.datapath().connects(BackendIndex(0)), 0);
}

#[test]
fn what_is_no_frontend_is_left_alone() {
    let Some(mut lab) = Lab::new() else { return };
    lab.serve(&[(addr("127.0.0.1:8080"), "alderaan")]);
    lab.datapath().execute(&simple(addr("10.96.0.10:80"), &[addr("127.0.0.1:8080")])).unwrap();
    let mut client = lab.client(Cgroup::Inside);
    assert_eq!(client.ask("dial 10.96.0.10:81"), "error NetworkUnreachable");
    assert_eq!(client.ask("dial 127.0.0.1:8080"), "alderaan 127.0.0.1:8080");
    client.ask("open udp v4");
    assert_eq!(client.ask("connect udp 10.96.0.10:80"), "error NetworkUnreachable", "another protocol");
    assert_eq!(lab.datapath().connects(BackendIndex(0)), 0);
}

#[test]
fn an_empty_table_refuses_and_counts() {
    let Some(mut lab) = Lab::new() else { return };
    let (v4, v6) = (addr("10.96.0.10:80"), addr("[fd00::10]:80"));
    let refuse = NoBackend::Refuse;
    lab.datapath().execute(&plan([service(3, v4, refuse), service(4, v6, refuse)])).unwrap();
    let mut client = lab.client(Cgroup::Inside);
    assert_eq!(client.ask("dial 10.96.0.10:80"), refusal());
    assert_eq!(client.ask("dial [::ffff:10.96.0.10]:80"), refusal());
    assert_eq!(client.ask("dial [fd00::10]:80"), refusal());
    let refused = [3, 4].map(|n| lab.datapath().refused(ServiceIndex(n)));
    assert_eq!(refused, [2, 1]);
}

#[test]
fn an_empty_table_may_pass() {
    let Some(mut lab) = Lab::new() else { return };
    let vip = addr("127.0.0.9:80");
    lab.serve(&[(vip, "kube-proxy"), (addr("127.0.0.1:8080"), "alderaan")]);
    let mut client = lab.client(Cgroup::Inside);
    lab.datapath().execute(&plan([service(0, vip, NoBackend::Pass)])).unwrap();
    assert_eq!(client.ask("dial 127.0.0.9:80"), "kube-proxy 127.0.0.9:80");
    lab.datapath().execute(&simple(vip, &[addr("127.0.0.1:8080")])).unwrap();
    assert_eq!(client.ask("dial 127.0.0.9:80"), "alderaan 127.0.0.9:80");
    assert_eq!(lab.datapath().refused(ServiceIndex(0)), 0);
}

#[test]
fn a_broken_table_is_refused_and_counted_as_a_fault() {
    let Some(mut lab) = Lab::new() else { return };
    let vip = addr("10.96.0.10:80");
    // Slot 5 leads to backend 0, which is none.
    lab.datapath().execute(&plan([switch(0, 5, 1, 1), service(0, vip, NoBackend::Pass)])).unwrap();
    let mut client = lab.client(Cgroup::Inside);
    assert_eq!(client.ask("dial 10.96.0.10:80"), refusal());
    assert_eq!(lab.datapath().faults(), Faults { broken_tables: 1, ..Faults::default() });
    // A backend of the other family.
    lab.datapath().execute(&simple(vip, &[addr("[::1]:8080")])).unwrap();
    assert_eq!(client.ask("dial 10.96.0.10:80"), refusal());
    assert_eq!(lab.datapath().faults(), Faults { broken_tables: 2, ..Faults::default() });
}

#[test]
fn a_socket_is_remembered_until_it_is_closed() {
    let Some(mut lab) = Lab::new() else { return };
    lab.serve(&[(addr("127.0.0.1:8080"), "alderaan")]);
    lab.datapath().execute(&simple(addr("10.96.0.10:80"), &[addr("127.0.0.1:8080")])).unwrap();
    let mut client = lab.client(Cgroup::Inside);
    for _ in 0..10 {
        client.ask("hold 10.96.0.10:80");
    }
    assert_eq!(lab.datapath().remembered().unwrap(), 10);
    client.ask("drop");
    assert_eq!(lab.datapath().remembered().unwrap(), 0);
    // A process that dies closes its sockets too.
    client.ask("hold 10.96.0.10:80");
    drop(client);
    assert!(until(|| lab.datapath().remembered().unwrap() == 0));
}

#[test]
fn without_room_to_remember_the_peer_is_the_backend() {
    let limits = Limits { services: 1, backends: 1, slots: 1, members: 1 };
    let Some(mut lab) = Lab::with(limits, 1) else { return };
    lab.serve(&[(addr("127.0.0.1:8080"), "alderaan")]);
    lab.datapath().execute(&simple(addr("10.96.0.10:80"), &[addr("127.0.0.1:8080")])).unwrap();
    let mut client = lab.client(Cgroup::Inside);
    assert_eq!(client.ask("hold 10.96.0.10:80"), "alderaan 10.96.0.10:80");
    assert_eq!(client.ask("hold 10.96.0.10:80"), "alderaan 127.0.0.1:8080");
    assert_eq!(lab.datapath().faults(), Faults { reverse_full: 1, ..Faults::default() });
}

#[test]
fn a_socket_that_dialled_twice_is_told_its_last_peer() {
    let Some(mut lab) = Lab::new() else { return };
    lab.serve(&[(addr("127.0.0.1:8080"), "alderaan")]);
    // Nobody listens on 8081, so the first connect fails after it was translated.
    lab.datapath().execute(&simple(addr("10.96.0.10:80"), &[addr("127.0.0.1:8081")])).unwrap();
    let mut client = lab.client(Cgroup::Inside);
    assert_eq!(client.ask("redial 10.96.0.10:80 127.0.0.1:8080"), "- 127.0.0.1:8080");
}

#[test]
fn a_deleted_service_and_a_detached_datapath_translate_nothing() {
    let Some(mut lab) = Lab::new() else { return };
    lab.serve(&[(addr("127.0.0.1:8080"), "alderaan")]);
    let vip = addr("10.96.0.10:80");
    let table = simple(vip, &[addr("127.0.0.1:8080")]);
    let mut client = lab.client(Cgroup::Inside);
    lab.datapath().execute(&table).unwrap();
    assert_eq!(client.ask("dial 10.96.0.10:80"), "alderaan 10.96.0.10:80");
    let delete = tombolo_core::tables::Op::DeleteService { frontend: frontend(vip) };
    lab.datapath().execute(&plan([delete])).unwrap();
    assert_eq!(client.ask("dial 10.96.0.10:80"), "error NetworkUnreachable");
    lab.datapath().execute(&table).unwrap();
    assert_eq!(client.ask("dial 10.96.0.10:80"), "alderaan 10.96.0.10:80");
    lab.detach();
    assert_eq!(client.ask("dial 10.96.0.10:80"), "error NetworkUnreachable");
}

#[test]
fn the_newest_program_runs_first() {
    let Some(mut lab) = Lab::new() else { return };
    lab.serve(&[(addr("127.0.0.1:8080"), "first"), (addr("127.0.0.1:8081"), "second")]);
    let vip = addr("10.96.0.10:80");
    lab.datapath().execute(&simple(vip, &[addr("127.0.0.1:8080")])).unwrap();
    let Ok(mut second) = lab.another() else {
        return; // the kernel is older than 6.17, and the datapath refuses
    };
    assert_eq!((second.place().unwrap(), lab.datapath().place().unwrap()), (Place::First, Place::Last { others: 1 }));
    second.execute(&simple(vip, &[addr("127.0.0.1:8081")])).unwrap();
    let mut client = lab.client(Cgroup::Inside);
    assert_eq!(client.ask("dial 10.96.0.10:80").split(' ').next(), Some("second"));
    drop(second);
    uninstall(&lab.another_pins()).unwrap();
    assert_eq!(lab.datapath().place().unwrap(), Place::First);
    assert_eq!(client.ask("dial 10.96.0.10:80"), "first 10.96.0.10:80");
}

#[test]
fn an_mptcp_socket_is_not_remembered_for_ever() {
    if !std::path::Path::new("/proc/sys/net/mptcp").exists() {
        return; // a kernel without it
    }
    let Some(mut lab) = Lab::new() else { return };
    lab.serve(&[(addr("127.0.0.1:8080"), "alderaan")]);
    lab.datapath().execute(&simple(addr("10.96.0.10:80"), &[addr("127.0.0.1:8080")])).unwrap();
    let mut client = lab.client(Cgroup::Inside);
    let answer = client.ask("mptcp 10.96.0.10:80");
    // A kernel that does not run the hook for a subflow leaves it untranslated.
    assert!(["- 127.0.0.1:8080", "error NetworkUnreachable"].contains(&answer.as_str()), "{answer}");
    assert!(until(|| lab.datapath().remembered().unwrap() == 0), "{:?}", lab.datapath().remembered());
}

#[test]
fn a_process_of_a_skipped_cgroup_is_left_alone() {
    let Some(mut lab) = Lab::new() else { return };
    lab.serve(&[(addr("127.0.0.1:8080"), "alderaan")]);
    lab.datapath().execute(&simple(addr("10.96.0.10:80"), &[addr("127.0.0.1:8080")])).unwrap();
    let (mut inside, mut below) = (lab.client(Cgroup::Inside), lab.client(Cgroup::Below));
    let mut dials = || [inside.ask("dial 10.96.0.10:80"), below.ask("dial 10.96.0.10:80")];
    let [translated, left] = ["alderaan 10.96.0.10:80", "error NetworkUnreachable"];
    assert_eq!(dials(), [translated, translated]);
    for (skipped, expected) in [("below", [translated, left]), ("", [left, left])] {
        let path = lab.cgroup().join(skipped);
        lab.config().skip_cgroups = vec![path];
        lab.reopen().commit().unwrap();
        assert_eq!(dials(), expected, "what is below a skipped cgroup is skipped too");
    }
    lab.config().skip_cgroups.clear();
    lab.reopen().commit().unwrap();
    assert_eq!(dials(), [translated, translated]);
    assert_eq!(lab.datapath().service_connects(ServiceIndex(0)), 5);
}

#[test]
fn the_kernel_counts_the_runs_of_each_program() {
    let Some(mut lab) = Lab::new() else { return };
    lab.serve(&[(addr("127.0.0.1:8080"), "alderaan")]);
    lab.datapath().execute(&simple(addr("10.96.0.10:80"), &[addr("127.0.0.1:8080")])).unwrap();
    let mut client = lab.client(Cgroup::Inside);
    let stats = RunStats::enable().unwrap();
    let count = |hook: &str| {
        let runs = stats.on(lab.cgroup()).unwrap();
        let found: Vec<_> = runs.into_iter().filter(|runs| runs.hook == hook).collect();
        assert_eq!(found.len(), 1, "{hook}: {found:?}");
        assert_eq!(found[0].name, hook);
        (found[0].count, found[0].time)
    };
    let before = count("connect4");
    for _ in 0..3 {
        assert_eq!(client.ask("dial 10.96.0.10:80"), "alderaan 10.96.0.10:80");
    }
    let after = count("connect4");
    assert_eq!(after.0 - before.0, 3);
    assert!(after.1 > before.1, "{after:?}");
}
