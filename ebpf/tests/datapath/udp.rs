//! Datagrams, with a connection and without.

use std::collections::BTreeSet;

use tombolo_core::model::NoBackend;
use tombolo_core::tables::{BackendIndex, ServiceIndex};
use tombolo_ebpf::{Executor, Faults};

use crate::support::kernel::refusal;
use crate::support::lab::{Cgroup, Lab, Peer};
use crate::support::plans::{addr, one, plan, service, slots, switch, udp};

const DNS: &str = "10.96.0.10:53";

/// A lab that serves datagrams at these addresses, with service 0 at `vip` for all of them, and a client with an open
/// socket `s`.
fn lab(vip: &str, backends: &[(&str, &str)], family: &str) -> Option<(Lab, Peer)> {
    let mut lab = Lab::new()?;
    let served: Vec<_> = backends.iter().map(|(at, label)| (addr(at), *label)).collect();
    lab.serve_udp(&served);
    let backends: Vec<_> = served.iter().map(|(at, _)| *at).collect();
    lab.datapath().execute(&plan(one(0, addr(vip), &backends).into_iter().map(udp))).unwrap();
    let mut client = lab.client(Cgroup::Inside);
    client.ask(&format!("open s {family}"));
    Some((lab, client))
}

/// A new socket's answers: by a connection, what it is told of its peer and of the source; and without one.
fn every_way(vip: &str, dialled: &str, at: &str, family: &str) -> Option<[String; 3]> {
    let (mut lab, mut client) = lab(vip, &[(at, "alderaan")], family)?;
    let unconnected = client.ask(&format!("to s {dialled}"));
    assert_eq!(client.ask(&format!("connect s {dialled}")), "ok");
    let (peer, connected) = (client.ask("peer s"), client.ask("ask s"));
    assert_eq!(lab.datapath().service_connects(ServiceIndex(0)), 2, "once for each way");
    assert_eq!(lab.datapath().connects(BackendIndex(0)), 2);
    assert_eq!(lab.datapath().faults(), Faults::default());
    assert_eq!(lab.datapath().remembered().unwrap(), 1);
    client.ask("close s");
    assert_eq!(lab.datapath().remembered().unwrap(), 0);
    Some([unconnected, peer, connected])
}

#[test]
fn ipv4_is_translated_both_ways() {
    let Some(answers) = every_way(DNS, DNS, "127.0.0.1:5353", "v4") else { return };
    assert_eq!(answers, ["alderaan 10.96.0.10:53", "10.96.0.10:53", "alderaan 10.96.0.10:53"]);
}

#[test]
fn ipv6_is_translated_both_ways() {
    let Some(answers) = every_way("[fd00::10]:53", "[fd00::10]:53", "[::1]:5353", "v6") else { return };
    assert_eq!(answers, ["alderaan [fd00::10]:53", "[fd00::10]:53", "alderaan [fd00::10]:53"]);
}

/// sendto of a mapped address runs sendmsg4, its answer recvmsg6, and connect connect6.
#[test]
fn a_mapped_address_is_translated_both_ways() {
    let Some(answers) = every_way(DNS, "[::ffff:10.96.0.10]:53", "127.0.0.1:5353", "v6") else { return };
    let frontend = "[::ffff:10.96.0.10]:53";
    assert_eq!(answers, [format!("alderaan {frontend}"), frontend.to_owned(), format!("alderaan {frontend}")]);
}

#[test]
fn one_socket_hears_from_each_service_as_what_it_sent_to() {
    let Some(mut lab) = Lab::new() else { return };
    let services =
        [("10.96.0.1:53", "127.0.0.1:5301"), ("10.96.0.2:53", "127.0.0.1:5302"), ("10.96.0.3:99", "127.0.0.1:5303")];
    lab.serve_udp(&services.map(|(vip, at)| (addr(at), vip)));
    let ops = (0..).zip(services).flat_map(|(index, (vip, at))| one(index, addr(vip), &[addr(at)]));
    lab.datapath().execute(&plan(ops.map(udp))).unwrap();
    let mut client = lab.client(Cgroup::Inside);
    client.ask("open s v4");
    for _ in 0..3 {
        for (vip, _) in services {
            assert_eq!(client.ask(&format!("to s {vip}")), format!("{vip} {vip}"));
        }
    }
    assert_eq!(client.ask("to s 127.0.0.1:5302"), "10.96.0.2:53 10.96.0.2:53", "the address alone cannot tell");
    client.ask("open t v4");
    assert_eq!(client.ask("to t 127.0.0.1:5302"), "10.96.0.2:53 127.0.0.1:5302", "another socket never named it");
    let counted = [0, 1, 2].map(|index| lab.datapath().service_connects(ServiceIndex(index)));
    assert_eq!(counted, [1, 1, 1], "a socket's first datagram counts");
}

const LETTERS: [(&str, &str); 4] =
    [("127.0.0.1:5300", "a"), ("127.0.0.1:5301", "b"), ("127.0.0.1:5302", "c"), ("127.0.0.1:5303", "d")];

#[test]
fn a_socket_keeps_its_backend_until_the_table_changes() {
    let Some((mut lab, mut client)) = lab(DNS, &LETTERS, "v4") else { return };
    (0..32).for_each(|socket| assert_eq!(client.ask(&format!("open {socket} v4")), "ok"));
    let mut letters = || -> BTreeSet<String> {
        let letter = |socket: u32| {
            let answers: BTreeSet<_> = (0..4).map(|_| client.ask(&format!("to {socket} {DNS}"))).collect();
            assert_eq!(answers.len(), 1, "one socket, one backend: {answers:?}");
            answers.into_iter().next().unwrap()
        };
        (0..32).map(letter).collect()
    };
    let all = ["a", "b", "c", "d"].map(|letter| format!("{letter} {DNS}"));
    assert_eq!(letters(), all.clone().into(), "32 sockets leave none of four out");
    lab.datapath().execute(&plan([slots(16, [2, 3]), switch(0, 16, 2, 2)])).unwrap();
    assert_eq!(letters(), all[2..].iter().cloned().collect());
    assert_eq!(lab.datapath().faults(), Faults::default());
}

#[test]
fn a_connected_socket_that_names_its_frontend_stays_with_its_backend() {
    let Some((_lab, mut client)) = lab(DNS, &LETTERS, "v4") else { return };
    // Connects pick at random, datagrams by the socket: by chance they are the same once in four.
    for _ in 0..8 {
        assert_eq!(client.ask(&format!("connect s {DNS}")), "ok");
        let answer = client.ask("ask s");
        assert_eq!(client.ask(&format!("to s {DNS}")), answer);
    }
}

#[test]
fn a_socket_that_dials_the_backend_itself_is_told_so() {
    let Some((mut lab, mut client)) = lab(DNS, &LETTERS[..1], "v4") else { return };
    assert_eq!(client.ask(&format!("connect s {DNS}")), "ok");
    assert_eq!(client.ask("peer s"), DNS);
    assert_eq!(client.ask("connect s 127.0.0.1:5300"), "ok");
    assert_eq!(client.ask("peer s"), "127.0.0.1:5300");
    assert_eq!(client.ask("ask s"), "a 127.0.0.1:5300");
    assert_eq!(lab.datapath().remembered().unwrap(), 0);
}

#[test]
fn a_socket_that_connects_again_and_again_is_remembered_once_and_forgotten() {
    let Some((mut lab, mut client)) = lab(DNS, &LETTERS, "v4") else { return };
    for round in 0..3 {
        for _ in 0..5 {
            assert_eq!(client.ask(&format!("connect s {DNS}")), "ok");
        }
        assert_eq!(lab.datapath().remembered().unwrap(), 1);
        client.ask("close s");
        assert_eq!(lab.datapath().remembered().unwrap(), 0, "round {round}");
        client.ask("open s v4");
    }
}

#[test]
fn what_is_no_frontend_is_left_alone() {
    let Some((_lab, mut client)) = lab(DNS, &LETTERS[..1], "v4") else { return };
    assert_eq!(client.ask("to s 127.0.0.1:5300"), "a 127.0.0.1:5300");
    assert_eq!(client.ask("to s 10.96.0.11:53"), "error NetworkUnreachable");
}

#[test]
fn an_empty_table_refuses_and_counts_or_passes() {
    let Some((mut lab, mut client)) = lab("127.0.0.1:5300", &LETTERS[..1], "v4") else { return };
    client.ask("open six v6");
    let empty = |no_backend| [switch(0, 0, 0, 2), udp(service(0, addr("127.0.0.1:5300"), no_backend))];
    lab.datapath().execute(&plan(empty(NoBackend::Refuse))).unwrap();
    assert_eq!(client.ask("to s 127.0.0.1:5300"), refusal());
    assert_eq!(client.ask("to six [::ffff:127.0.0.1]:5300"), refusal());
    assert_eq!(client.ask("connect s 127.0.0.1:5300"), refusal());
    assert_eq!(lab.datapath().refused(ServiceIndex(0)), 3);
    lab.datapath().execute(&plan(empty(NoBackend::Pass))).unwrap();
    assert_eq!(client.ask("to s 127.0.0.1:5300"), "a 127.0.0.1:5300");
    assert_eq!(client.ask("connect s 127.0.0.1:5300"), "ok");
    assert_eq!(lab.datapath().refused(ServiceIndex(0)), 3);
    assert_eq!(lab.datapath().service_connects(ServiceIndex(0)), 0);
}

#[test]
fn an_empty_table_of_ipv6_refuses() {
    let Some((mut lab, mut client)) = lab("[fd00::10]:53", &[("[::1]:5353", "a")], "v6") else { return };
    lab.datapath().execute(&plan([switch(0, 0, 0, 2)])).unwrap();
    assert_eq!(client.ask("to s [fd00::10]:53"), refusal());
    assert_eq!(client.ask("connect s [fd00::10]:53"), refusal());
    assert_eq!(lab.datapath().refused(ServiceIndex(0)), 2);
}

#[test]
fn counters_begin_anew_with_another_frontend() {
    let Some((mut lab, mut client)) = lab(DNS, &LETTERS[..1], "v4") else { return };
    assert_eq!(client.ask(&format!("to s {DNS}")), format!("a {DNS}"));
    lab.datapath().execute(&plan([udp(service(0, addr(DNS), NoBackend::Pass))])).unwrap();
    assert_eq!(lab.datapath().service_connects(ServiceIndex(0)), 1, "the same frontend goes on counting");
    lab.datapath().execute(&plan([udp(service(0, addr("10.96.0.11:53"), NoBackend::Pass))])).unwrap();
    assert_eq!(lab.datapath().service_connects(ServiceIndex(0)), 0);
    // The first frontend's entry is still there, but its index is another's now.
    assert_eq!(client.ask(&format!("to s {DNS}")), "error NetworkUnreachable");
}
