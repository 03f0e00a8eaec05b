//! Clients that stay with their backend.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tombolo_core::model::NoBackend;
use tombolo_core::tables::{BackendId, BackendIndex, Op, ServiceIndex};
use tombolo_ebpf::{Executor, Faults, Limits};

use crate::support::clock::until;
use crate::support::lab::{Cgroup, Lab, Peer};
use crate::support::plans::{addr, backend, member, no_member, plan, service, slots, sticky, switch, udp};

const VIP: &str = "10.96.0.10:80";
const HOUR: u32 = 3600;

fn at(index: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 8080 + index))
}

/// A lab with servers a to d at backends 0 to 3, all members of the sticky service 0, whose table leads to `slots_of`.
fn lab(seconds: u32, slots_of: &[u32]) -> Option<(Lab, Peer)> {
    let mut lab = Lab::with(Limits { services: 64, backends: 256, slots: 1024, members: 256 }, 4096)?;
    let letters: Vec<_> = (0..).map(at).zip(["a", "b", "c", "d"]).collect();
    lab.serve(&letters);
    let backends = (0..4).map(|index| backend(u32::from(index), at(index)));
    let members = (0..4).map(|index| member(0, index));
    lab.datapath().execute(&plan(backends.chain(members).chain([sticky(0, addr(VIP), seconds)]))).unwrap();
    table(&mut lab, slots_of, 1);
    let client = lab.client(Cgroup::Inside);
    Some((lab, client))
}

/// Leads the table of service 0 to these backends; members stay what they are.
fn table(lab: &mut Lab, backends: &[u32], generation: u16) {
    let base = u32::from(generation % 2) * 32;
    let count = u32::try_from(backends.len()).unwrap();
    let ops = [slots(base, backends.iter().copied()), switch(0, base, count, generation)];
    lab.datapath().execute(&plan(ops)).unwrap();
}

/// The letters of so many dials.
fn dialled(client: &mut Peer, times: u32) -> String {
    let letter = |_| client.ask(&format!("dial {VIP}")).split(' ').next().unwrap().to_owned();
    (0..times).map(letter).collect()
}

#[test]
fn a_client_stays_over_a_thousand_changes_and_others_choose_for_themselves() {
    let Some((mut lab, mut client)) = lab(HOUR, &[0, 1, 2, 3]) else { return };
    let first = dialled(&mut client, 1);
    let others: Vec<u32> = (0..4).filter(|index| ["a", "b", "c", "d"][*index as usize] != first).collect();
    for change in 0..1_000_u16 {
        // The own table, another service, and what is around in the maps.
        let other = 16 + u32::from(change % 8);
        lab.datapath().execute(&plan([backend(other, at(100)), service(9, at(200), NoBackend::Pass)])).unwrap();
        table(&mut lab, &others[..usize::from(change % 3) + 1], change % 4096);
        if change % 50 == 0 {
            assert_eq!(dialled(&mut client, 1), first, "after change {change}");
        }
    }
    assert_eq!(dialled(&mut client, 20), first.repeat(20));
    assert_eq!(lab.datapath().faults(), Faults::default());
    assert_eq!(client.ask("dial [::ffff:10.96.0.10]:80").split(' ').next(), Some(first.as_str()), "mapped");
}

#[test]
fn a_choice_lasts_as_long_as_the_timeout_after_its_last_use() {
    let timeout = Duration::from_secs(2);
    let Some((mut lab, mut client)) = lab(2, &[0]) else { return };
    assert_eq!(dialled(&mut client, 1), "a");
    table(&mut lab, &[1], 2);
    // Each use makes it last anew: for longer than the timeout, with no pause of its length.
    let (start, mut last) = (Instant::now(), Instant::now());
    while start.elapsed() < timeout + timeout / 2 {
        assert_eq!(dialled(&mut client, 1), "a", "unused for {:?}", last.elapsed());
        last = Instant::now();
    }
    assert!(until(|| last.elapsed() > timeout));
    assert_eq!(dialled(&mut client, 3), "bbb");
}

#[test]
fn a_backend_that_leaves_is_left_at_once() {
    let Some((mut lab, mut client)) = lab(HOUR, &[0]) else { return };
    assert_eq!(dialled(&mut client, 2), "aa");
    table(&mut lab, &[1], 2);
    assert_eq!(dialled(&mut client, 2), "aa");
    lab.datapath().execute(&plan([no_member(0, 0)])).unwrap();
    assert_eq!(dialled(&mut client, 3), "bbb");
    // It is back, but the client has chosen anew.
    lab.datapath().execute(&plan([member(0, 0)])).unwrap();
    assert_eq!(dialled(&mut client, 3), "bbb");
}

#[test]
fn a_reused_index_never_leads_to_another_service() {
    let Some((mut lab, mut client)) = lab(HOUR, &[0]) else { return };
    assert_eq!(dialled(&mut client, 1), "a");
    table(&mut lab, &[1], 2);
    // Backend 0 becomes another service's, with an identity of its own; even a member that was left behind is no way to
    // it.
    let Op::PutBackend { index, backend: key, .. } = backend(0, at(3)) else { unreachable!() };
    lab.datapath().execute(&plan([Op::PutBackend { index, id: BackendId(77), backend: key }])).unwrap();
    assert_eq!(dialled(&mut client, 3), "bbb");
    // The service index becomes another service's, with other members.
    let gone = [0, 1].map(|index| no_member(0, index));
    let next = [backend(2, at(2)), switch(0, 0, 0, 3), sticky(0, addr("10.96.0.11:80"), HOUR)];
    lab.datapath().execute(&plan(gone.into_iter().chain(next))).unwrap();
    table(&mut lab, &[2], 4);
    assert_eq!(client.ask("dial 10.96.0.11:80"), "c 10.96.0.11:80");
    assert_eq!(lab.datapath().read_member(ServiceIndex(0), BackendId(1)).unwrap(), None);
    assert_eq!(lab.datapath().faults(), Faults::default());
}

#[test]
fn a_network_namespace_is_a_client() {
    let Some((mut lab, mut client)) = lab(HOUR, &[0]) else { return };
    assert_eq!(dialled(&mut client, 1), "a");
    table(&mut lab, &[1], 2);
    // Another process of the namespace is the same client; one of another namespace is another client.
    assert_eq!(dialled(&mut lab.client(Cgroup::Inside), 1), "a");
    let Some(mut other) = Lab::new() else { return };
    other.serve(&[(at(0), "a"), (at(1), "b")]);
    assert_eq!(dialled(&mut lab.client_at(&other), 1), "b");
}

#[test]
fn datagrams_are_sticky_too() {
    let Some(mut lab) = Lab::new() else { return };
    lab.serve_udp(&[(at(0), "a"), (at(1), "b")]);
    let start = [backend(0, at(0)), backend(1, at(1)), member(0, 0), member(0, 1), sticky(0, addr(VIP), HOUR)];
    lab.datapath().execute(&plan(start.map(udp))).unwrap();
    table(&mut lab, &[0], 1);
    let mut client = lab.client(Cgroup::Inside);
    client.ask("open s v4");
    assert_eq!(client.ask(&format!("to s {VIP}")), format!("a {VIP}"));
    table(&mut lab, &[1], 2);
    client.ask("open t v4");
    for socket in ["s", "t"] {
        assert_eq!(client.ask(&format!("to {socket} {VIP}")), format!("a {VIP}"));
    }
    assert_eq!(client.ask(&format!("connect t {VIP}")), "ok");
    assert_eq!(client.ask("ask t"), format!("a {VIP}"));
    assert_eq!(lab.datapath().connects(BackendIndex(1)), 0);
}

#[test]
fn first_connects_at_one_moment_get_one_backend() {
    let Some((mut lab, mut client)) = lab(HOUR, &[0, 1, 2, 3]) else { return };
    // 60 services over the same four backends: each is a first time.
    for index in 1..61 {
        let vip = SocketAddr::from(([10, 97, 0, u8::try_from(index).unwrap()], 80));
        let lead = [switch(index, 32, 4, 1), sticky(index, vip, HOUR)];
        let members = (0..4).map(|backend| member(index, backend));
        lab.datapath().execute(&plan(members.chain(lead))).unwrap();
        let answers = client.ask(&format!("burst 16 {vip}"));
        assert!(["a", "b", "c", "d"].contains(&answers.as_str()), "service {index}: {answers}");
    }
}
