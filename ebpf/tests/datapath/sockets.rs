//! Sockets whose backend left are ended, and no others.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use tombolo_core::model::{BackendKey, Frontend, Protocol};
use tombolo_core::tables::Op;
use tombolo_ebpf::{Datapath, DatapathError, Destroyed, Executor, State, probe};

use crate::support::clock::until;
use crate::support::lab::{Cgroup, Lab};
use crate::support::plans::{addr, backend, frontend, one, plan, udp};

const DNS: &str = "10.96.0.10:53";
const ABORTED: &str = "error ConnectionAborted";

/// A lab on a kernel that can end sockets; elsewhere the datapath says that it cannot.
fn lab() -> Option<Lab> {
    let mut lab = Lab::new()?;
    let probe = probe(lab.config());
    let state = probe.checks.iter().find(|check| check.name == "end sockets").unwrap().state;
    if state == State::Present {
        return Some(lab);
    }
    lab.serve_udp(&[(addr("127.0.0.1:5353"), "alderaan")]);
    lead(lab.datapath(), 0, DNS, "127.0.0.1:5353");
    let mut client = lab.client(Cgroup::Inside);
    client.ask("open s v4");
    client.ask(&format!("connect s {DNS}"));
    let error = lab.datapath().sockets().unwrap().destroy(&left(DNS, "127.0.0.1:5353", Protocol::Udp)).unwrap_err();
    assert!(matches!(error, DatapathError::NoDestroy), "{error}");
    None
}

/// A pair of what was dialled and the backend it got.
fn left(vip: &str, at: &str, protocol: Protocol) -> BTreeSet<(Frontend, BackendKey)> {
    let Op::PutBackend { backend, .. } = backend(0, addr(at)) else { unreachable!() };
    [(Frontend { protocol, ..frontend(addr(vip)) }, BackendKey { protocol, ..backend })].into()
}

fn lead(datapath: &mut Datapath, service: u32, vip: &str, at: &str) {
    datapath.execute(&plan(one(service, addr(vip), &[addr(at)]).into_iter().map(udp))).unwrap();
}

/// What a destruction of so many wanted and destroyed sockets says; namespaces are the machine's matter.
fn counts(done: Destroyed) -> (usize, usize) {
    (done.wanted, done.destroyed)
}

/// A connected socket of each family to a backend that leaves; it is ended, dials again and gets the next one.
fn ended(vip: &str, dialled: &str, from: &str, to: &str, family: &str) {
    let Some(mut lab) = lab() else { return };
    lab.serve_udp(&[(addr(from), "alderaan"), (addr(to), "bespin")]);
    lead(lab.datapath(), 0, vip, from);
    let mut client = lab.client(Cgroup::Inside);
    client.ask(&format!("open s {family}"));
    assert_eq!(client.ask(&format!("connect s {dialled}")), "ok");
    assert_eq!(client.ask("ask s"), format!("alderaan {dialled}"));
    lead(lab.datapath(), 0, vip, to);
    let done = lab.datapath().sockets().unwrap().destroy(&left(vip, from, Protocol::Udp)).unwrap();
    assert_eq!(counts(done), (1, 1), "{done:?}");
    assert_eq!(client.ask("hear s"), ABORTED);
    assert!(client.ask("ask s").starts_with("error "), "it has no peer any more");
    assert_eq!(client.ask(&format!("connect s {dialled}")), "ok");
    assert_eq!(client.ask("ask s"), format!("bespin {dialled}"));
    let again = lab.datapath().sockets().unwrap().destroy(&left(vip, from, Protocol::Udp)).unwrap();
    assert_eq!(counts(again), (0, 0), "{again:?}");
}

#[test]
fn an_ipv4_socket_is_ended_and_dials_again() {
    ended(DNS, DNS, "127.0.0.1:5353", "127.0.0.1:5354", "v4");
}

#[test]
fn an_ipv6_socket_is_ended_and_dials_again() {
    ended("[fd00::10]:53", "[fd00::10]:53", "[::1]:5353", "[::1]:5354", "v6");
}

#[test]
fn a_socket_that_dialled_a_mapped_address_is_ended_too() {
    ended(DNS, "[::ffff:10.96.0.10]:53", "127.0.0.1:5353", "127.0.0.1:5354", "v6");
}

#[test]
fn no_other_socket_is_touched() {
    let Some(mut lab) = lab() else { return };
    lab.serve_udp(&[(addr("127.0.0.1:5353"), "alderaan"), (addr("127.0.0.1:5354"), "bespin")]);
    lab.serve(&[(addr("127.0.0.1:5353"), "alderaan")]);
    lead(lab.datapath(), 0, DNS, "127.0.0.1:5353");
    lead(lab.datapath(), 1, "10.96.0.11:53", "127.0.0.1:5354");
    lead(lab.datapath(), 2, "10.96.0.12:53", "127.0.0.1:5353");
    lab.datapath().execute(&plan(one(3, addr(DNS), &[addr("127.0.0.1:5353")]))).unwrap();
    let mut client = lab.client(Cgroup::Inside);
    let dialled = [
        ("wanted", DNS),
        ("another-service", "10.96.0.11:53"),
        ("its-backend-by-another-service", "10.96.0.12:53"),
        ("the-backend-itself", "127.0.0.1:5353"),
        ("gone-elsewhere", DNS),
    ];
    for (name, at) in dialled {
        client.ask(&format!("open {name} v4"));
        assert_eq!(client.ask(&format!("connect {name} {at}")), "ok");
    }
    assert_eq!(client.ask("connect gone-elsewhere 127.0.0.1:5354"), "ok");
    client.ask("open unconnected v4");
    assert_eq!(client.ask(&format!("to unconnected {DNS}")), format!("alderaan {DNS}"));
    assert_eq!(client.ask(&format!("hold {DNS}")), format!("alderaan {DNS}"), "TCP");

    let done = lab.datapath().sockets().unwrap().destroy(&left(DNS, "127.0.0.1:5353", Protocol::Udp)).unwrap();
    assert_eq!(counts(done), (1, 1), "{done:?}");
    assert_eq!(client.ask("hear wanted"), ABORTED);
    assert_eq!(client.ask("ask another-service"), "bespin 10.96.0.11:53");
    assert_eq!(client.ask("ask its-backend-by-another-service"), "alderaan 10.96.0.12:53");
    assert_eq!(client.ask("ask the-backend-itself"), "alderaan 127.0.0.1:5353");
    assert_eq!(client.ask("ask gone-elsewhere"), "bespin 127.0.0.1:5354");
    assert_eq!(client.ask(&format!("to unconnected {DNS}")), format!("alderaan {DNS}"));
    assert_eq!(client.ask("errors"), "none");

    let done = lab.datapath().sockets().unwrap().destroy(&left(DNS, "127.0.0.1:5353", Protocol::Tcp)).unwrap();
    assert_eq!(counts(done), (1, 1), "{done:?}");
    assert_eq!(client.ask("errors"), "ConnectionAborted");
    assert_eq!(client.ask("ask the-backend-itself"), "alderaan 127.0.0.1:5353");
}

#[test]
fn sockets_of_several_namespaces_are_found() {
    let (Some(mut lab), Some(mut other)) = (lab(), lab()) else { return };
    let at: SocketAddr = addr("127.0.0.1:5353");
    lab.serve_udp(&[(at, "alderaan")]);
    other.serve_udp(&[(at, "alderaan")]);
    lead(lab.datapath(), 0, DNS, "127.0.0.1:5353");
    let (mut here, mut there) = (lab.client(Cgroup::Inside), lab.client_at(&other));
    for client in [&mut here, &mut there] {
        client.ask("open s v4");
        assert_eq!(client.ask(&format!("connect s {DNS}")), "ok");
        assert_eq!(client.ask("ask s"), format!("alderaan {DNS}"));
    }
    let sockets = lab.datapath().sockets().unwrap();
    let done = sockets.destroy(&left(DNS, "127.0.0.1:5353", Protocol::Udp)).unwrap();
    assert_eq!(counts(done), (2, 2), "{done:?}");
    assert!(done.namespaces >= 2, "{done:?}");
    for client in [&mut here, &mut there] {
        assert_eq!(client.ask("hear s"), ABORTED);
    }
}

#[test]
fn a_socket_that_connects_during_the_change_is_not_forgotten() {
    let Some(mut lab) = lab() else { return };
    lab.serve_udp(&[(addr("127.0.0.1:5353"), "alderaan"), (addr("127.0.0.1:5354"), "bespin")]);
    for round in 0..5 {
        lead(lab.datapath(), 0, DNS, "127.0.0.1:5353");
        let mut client = lab.client(Cgroup::Inside);
        client.ask(&format!("flood {DNS}"));
        assert!(until(|| client.ask("flooded").parse::<usize>().unwrap() > 20));
        lead(lab.datapath(), 0, DNS, "127.0.0.1:5354");
        let done = lab.datapath().sockets().unwrap().destroy(&left(DNS, "127.0.0.1:5353", Protocol::Udp)).unwrap();
        let answers = client.ask("ebb");
        assert!(!answers.contains("alderaan"), "round {round}: {answers}, {done:?}");
        let ended = format!("ended={}", done.destroyed);
        assert!(answers.split(' ').any(|answer| answer == ended), "round {round}: {answers}, {done:?}");
    }
}
