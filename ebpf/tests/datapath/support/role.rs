//! The other ends: a server and a client, each a process of its own so that it can be in a cgroup and a namespace.
//!
//! Both speak lines on their standard streams and end when their input does, so none outlives its test. Answers begin
//! with [`MARK`], since the test harness writes to the same stream.

use std::io::{BufRead, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};

use super::client::Client;
use crate::kills::live;

/// Which role to play: `serve`, `dial` or `live`. Absent in the test itself.
pub(crate) const ROLE: &str = "TOMBOLO_TEST_ROLE";
/// What an answer begins with.
pub(crate) const MARK: &str = "tombolo> ";

/// Plays the role this process was started for; returns at once when it is none.
pub(crate) fn play() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let (mut client, mut output) = (Client::default(), std::io::stdout());
    for line in std::io::stdin().lock().lines() {
        let line = line.unwrap();
        let answer = match role.as_str() {
            "serve" => serve(&line),
            "live" if line == "thread" => rustix::thread::gettid().as_raw_nonzero().to_string(),
            "live" => {
                live(&line);
                std::process::exit(0);
            }
            _ => client.obey(&line),
        };
        writeln!(output, "\n{MARK}{answer}").unwrap();
    }
    std::process::exit(0);
}

/// Listens on `tcp ADDRESS LABEL` or `udp ADDRESS LABEL`, and answers every connection or datagram with the label; a
/// connection with the address that it reached, where the label is `@`.
fn serve(line: &str) -> String {
    let [protocol, addr, label] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("no order {line}") };
    let (addr, label) = (addr.parse::<SocketAddr>().unwrap(), label.to_owned());
    match protocol {
        "tcp" => {
            let listener = TcpListener::bind(addr).unwrap();
            std::thread::spawn(move || answer_connections(&listener, &label));
        }
        "udp" => {
            let socket = UdpSocket::bind(addr).unwrap();
            std::thread::spawn(move || answer_datagrams(&socket, &label));
        }
        other => panic!("no protocol {other}"),
    }
    "ok".to_owned()
}

fn answer_connections(listener: &TcpListener, label: &str) {
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        // The client may be gone already.
        let _ = match (label, stream.local_addr()) {
            ("@", Ok(here)) => stream.write_all(here.to_string().as_bytes()),
            _ => stream.write_all(label.as_bytes()),
        };
    }
}

fn answer_datagrams(socket: &UdpSocket, label: &str) {
    loop {
        let (_, from) = socket.recv_from(&mut [0; 16]).unwrap();
        let _ = socket.send_to(label.as_bytes(), from);
    }
}
