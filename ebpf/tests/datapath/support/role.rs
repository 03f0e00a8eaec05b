//! The other ends: a server and a client, each a process of its own so that it can be in a cgroup and a namespace.
//!
//! Both speak lines on their standard streams and end when their input does, so none outlives its test. Answers begin
//! with [`MARK`], since the test harness writes to the same stream.

use std::collections::BTreeMap;
use std::io::{BufRead, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use parking_lot::Mutex;
use rustix::net::{AddressFamily, SocketType, connect, getpeername, ipproto, socket};

/// Which role to play: `serve` or `dial`. Absent in the test itself.
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
            _ => client.obey(&line),
        };
        writeln!(output, "\n{MARK}{answer}").unwrap();
    }
    std::process::exit(0);
}

/// Listens on `ADDRESS LABEL` and answers every connection with the label.
fn serve(line: &str) -> String {
    let (addr, label) = line.split_once(' ').unwrap();
    let listener = TcpListener::bind(addr.parse::<SocketAddr>().unwrap()).unwrap();
    let label = label.to_owned();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            // The client may be gone already.
            let _ = stream.write_all(label.as_bytes());
        }
    });
    "ok".to_owned()
}

#[derive(Default)]
struct Client {
    held: Vec<TcpStream>,
    storm: Option<Storm>,
}

impl Client {
    fn obey(&mut self, line: &str) -> String {
        let (order, rest) = line.split_once(' ').unwrap_or((line, ""));
        match order {
            "dial" => dial(rest).map_or_else(failure, |(label, stream)| told(&label, stream.peer_addr())),
            "hold" => dial(rest).map_or_else(failure, |(label, stream)| {
                let answer = told(&label, stream.peer_addr());
                self.held.push(stream);
                answer
            }),
            "peers" => {
                self.held.iter().map(|stream| stream.peer_addr().unwrap().to_string()).collect::<Vec<_>>().join(" ")
            }
            "drop" => {
                self.held.clear();
                "ok".to_owned()
            }
            "redial" => redial(rest).map_or_else(failure, |peer| told("-", Ok(peer))),
            "mptcp" => mptcp(rest).map_or_else(failure, |peer| told("-", Ok(peer))),
            "udp" => udp(rest).map_or_else(failure, |peer| told("-", Ok(peer))),
            "storm" => {
                self.storm = Some(Storm::start(rest));
                "ok".to_owned()
            }
            "done" => self.storm.as_ref().unwrap().done.load(Ordering::Relaxed).to_string(),
            "calm" => self.storm.take().unwrap().stop(),
            other => panic!("no order {other}"),
        }
    }
}

fn told(label: &str, peer: std::io::Result<SocketAddr>) -> String {
    peer.map_or_else(failure, |peer| format!("{label} {peer}"))
}

#[expect(clippy::needless_pass_by_value, reason = "the last station of an error")]
fn failure(error: std::io::Error) -> String {
    format!("error {:?}", error.kind())
}

fn dial(addr: &str) -> std::io::Result<(String, TcpStream)> {
    let mut stream = TcpStream::connect(addr.parse::<SocketAddr>().unwrap())?;
    let mut label = String::new();
    stream.read_to_string(&mut label)?;
    Ok((label, stream))
}

/// Dials the first address, which must fail, then the second from the same socket; what it is told of its peer.
fn redial(addrs: &str) -> std::io::Result<SocketAddr> {
    let (first, second) = addrs.split_once(' ').unwrap();
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    assert!(connect(&socket, &first.parse::<SocketAddr>().unwrap()).is_err(), "{first} should refuse");
    connect(&socket, &second.parse::<SocketAddr>().unwrap())?;
    Ok(getpeername(&socket)?.unwrap().try_into()?)
}

fn mptcp(addr: &str) -> std::io::Result<SocketAddr> {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, Some(ipproto::MPTCP))?;
    connect(&socket, &addr.parse::<SocketAddr>().unwrap())?;
    Ok(getpeername(&socket)?.unwrap().try_into()?)
}

fn udp(addr: &str) -> std::io::Result<SocketAddr> {
    let addr = addr.parse::<SocketAddr>().unwrap();
    let socket = UdpSocket::bind(if addr.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
    socket.connect(addr)?;
    socket.peer_addr()
}

/// Threads that dial without a pause.
struct Storm {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    answers: Arc<Mutex<BTreeMap<String, u64>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Storm {
    fn start(addr: &str) -> Self {
        let storm = Self { stop: Arc::default(), done: Arc::default(), answers: Arc::default(), threads: Vec::new() };
        let threads = (0..4).map(|_| {
            let (stop, done, answers) = (storm.stop.clone(), storm.done.clone(), storm.answers.clone());
            let addr = addr.to_owned();
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let label = dial(&addr).map_or_else(failure, |(label, stream)| {
                        // No TIME_WAIT: a storm would use up the ports.
                        let _ = rustix::net::sockopt::set_socket_linger(&stream, Some(std::time::Duration::ZERO));
                        let _ = stream.shutdown(Shutdown::Both);
                        label
                    });
                    *answers.lock().entry(label).or_default() += 1;
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        });
        let threads = threads.collect();
        Self { threads, ..storm }
    }

    /// Ends the storm: `label=count`, in the order of the labels.
    fn stop(self) -> String {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap();
        }
        let answers = self.answers.lock();
        answers.iter().map(|(label, count)| format!("{}={count} ", label.replace(' ', "-"))).collect()
    }
}
