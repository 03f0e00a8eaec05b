//! What a client does when it is told to.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Result};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::net::{AddressFamily, SocketType, connect, getpeername, ipproto, socket};

use super::clock::now;

/// How long an answer to a datagram may take. One that never comes is an error, and the test's to judge.
const ANSWER: Duration = Duration::from_secs(5);

/// What a client has open.
#[derive(Default)]
pub(crate) struct Client {
    held: Vec<TcpStream>,
    sockets: BTreeMap<String, UdpSocket>,
    storm: Option<Storm>,
    flood: Option<Flood>,
}

impl Client {
    /// Obeys one order.
    pub(crate) fn obey(&mut self, line: &str) -> String {
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
            "errors" => self.errors(),
            "drop" => {
                self.held.clear();
                "ok".to_owned()
            }
            "redial" => redial(rest).map_or_else(failure, |peer| told("-", Ok(peer))),
            "mptcp" => mptcp(rest).map_or_else(failure, |peer| told("-", Ok(peer))),
            "open" => self.open(rest),
            "close" => {
                self.sockets.remove(rest).unwrap();
                "ok".to_owned()
            }
            "connect" => self.datagram(rest, |socket, addr| socket.connect(addr).map(|()| "ok".to_owned())),
            "peer" => self.datagram(rest, |socket, _| socket.peer_addr().map(|peer| peer.to_string())),
            "ask" => self.datagram(rest, |socket, _| {
                socket.send(b"?")?;
                heard(socket)
            }),
            "hear" => self.datagram(rest, |socket, _| heard(socket)),
            "to" => self.datagram(rest, |socket, addr| {
                socket.send_to(b"?", addr)?;
                heard(socket)
            }),
            "refused" => refused(rest),
            "burst" => burst(rest),
            "storm" => {
                self.storm = Some(Storm::start(rest));
                "ok".to_owned()
            }
            "flood" => {
                self.flood = Some(Flood::start(rest.parse().unwrap()));
                "ok".to_owned()
            }
            "flooded" => self.flood.as_ref().unwrap().sockets.lock().len().to_string(),
            "ebb" => self.flood.take().unwrap().stop(),
            "done" => self.storm.as_ref().unwrap().done.load(Ordering::Relaxed).to_string(),
            "calm" => self.storm.take().unwrap().counts(),
            "record" => self.storm.take().unwrap().record(rest),
            other => panic!("no order {other}"),
        }
    }

    /// The errors that wait at the connections that are held.
    fn errors(&self) -> String {
        let errors = self.held.iter().filter_map(|stream| stream.take_error().unwrap());
        let kinds: Vec<_> = errors.map(|error| format!("{:?}", error.kind())).collect();
        if kinds.is_empty() { "none".to_owned() } else { kinds.join(" ") }
    }

    /// `NAME v4` or `NAME v6`: a UDP socket without a peer.
    fn open(&mut self, order: &str) -> String {
        let (name, family) = order.split_once(' ').unwrap();
        let socket = UdpSocket::bind(if family == "v4" { "0.0.0.0:0" } else { "[::]:0" }).unwrap();
        socket.set_read_timeout(Some(ANSWER)).unwrap();
        self.sockets.insert(name.to_owned(), socket);
        "ok".to_owned()
    }

    /// Does something with the socket of `NAME ADDRESS`, or of `NAME` where no address is needed.
    fn datagram(&self, order: &str, act: fn(&UdpSocket, SocketAddr) -> Result<String>) -> String {
        let (name, addr) = order.split_once(' ').unwrap_or((order, "0.0.0.0:0"));
        act(&self.sockets[name], addr.parse().unwrap()).unwrap_or_else(failure)
    }
}

fn told(label: &str, peer: Result<SocketAddr>) -> String {
    peer.map_or_else(failure, |peer| format!("{label} {peer}"))
}

#[expect(clippy::needless_pass_by_value, reason = "the last station of an error")]
fn failure(error: std::io::Error) -> String {
    format!("error {:?}", error.kind())
}

fn dial(addr: &str) -> Result<(String, TcpStream)> {
    let mut stream = TcpStream::connect(addr.parse::<SocketAddr>().unwrap())?;
    let mut label = String::new();
    stream.read_to_string(&mut label)?;
    Ok((label, stream))
}

/// Dials the first address, which must fail, then the second from the same socket; what it is told of its peer.
fn redial(addrs: &str) -> Result<SocketAddr> {
    let (first, second) = addrs.split_once(' ').unwrap();
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    assert!(connect(&socket, &first.parse::<SocketAddr>().unwrap()).is_err(), "{first} should refuse");
    connect(&socket, &second.parse::<SocketAddr>().unwrap())?;
    Ok(getpeername(&socket)?.unwrap().try_into()?)
}

fn mptcp(addr: &str) -> Result<SocketAddr> {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, Some(ipproto::MPTCP))?;
    connect(&socket, &addr.parse::<SocketAddr>().unwrap())?;
    Ok(getpeername(&socket)?.unwrap().try_into()?)
}

/// `TIMES ADDRESS`: dials, and is refused each time.
fn refused(order: &str) -> String {
    let (times, addr) = order.split_once(' ').unwrap();
    let addr = addr.parse::<SocketAddr>().unwrap();
    (0..times.parse().unwrap()).for_each(|_: u32| assert!(TcpStream::connect(addr).is_err()));
    "ok".to_owned()
}

/// `THREADS ADDRESS`: as many dials at one moment; the different answers.
fn burst(order: &str) -> String {
    let (threads, addr) = order.split_once(' ').unwrap();
    let threads: usize = threads.parse().unwrap();
    let start = Arc::new(Barrier::new(threads));
    let dials = (0..threads).map(|_| {
        let (start, addr) = (start.clone(), addr.to_owned());
        std::thread::spawn(move || {
            start.wait();
            dial(&addr).map_or_else(failure, |(label, _)| label)
        })
    });
    let dials: Vec<_> = dials.collect();
    let answers: BTreeSet<_> = dials.into_iter().map(|dial| dial.join().unwrap()).collect();
    answers.into_iter().collect::<Vec<_>>().join(" ")
}

/// A datagram's text and where it came from, as the socket is told.
fn heard(socket: &UdpSocket) -> Result<String> {
    let mut text = [0; 64];
    let (len, from) = socket.recv_from(&mut text)?;
    Ok(format!("{} {from}", String::from_utf8_lossy(&text[..len])))
}

/// Threads that dial without a pause.
struct Storm {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Vec<Dial>>>,
}

/// One dial: when it began, when it was connected, and who answered.
struct Dial {
    began: u64,
    connected: u64,
    label: String,
}

impl Storm {
    /// `THREADS ADDRESS`.
    fn start(order: &str) -> Self {
        let (threads, addr) = order.split_once(' ').unwrap();
        let (stop, done): (Arc<AtomicBool>, Arc<AtomicU64>) = Default::default();
        let threads = (0..threads.parse().unwrap()).map(|_: u32| {
            let (stop, done, addr) = (stop.clone(), done.clone(), addr.parse().unwrap());
            std::thread::spawn(move || {
                let mut dials = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    dials.push(Dial::at(addr));
                    done.fetch_add(1, Ordering::Relaxed);
                }
                dials
            })
        });
        let threads = threads.collect();
        Self { stop, done, threads }
    }

    fn end(self) -> Vec<Dial> {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    }

    /// Ends the storm: `label=count`, in the order of the labels.
    fn counts(self) -> String {
        let mut counts = BTreeMap::<String, u64>::new();
        self.end().into_iter().for_each(|dial| *counts.entry(dial.label).or_default() += 1);
        counts.into_iter().map(|(label, count)| format!("{}={count} ", label.replace(' ', "-"))).collect()
    }

    /// Ends the storm: writes each dial into a file, `began connected label`.
    fn record(self, file: &str) -> String {
        let line = |Dial { began, connected, label }| format!("{began} {connected} {}\n", label.replace(' ', "-"));
        std::fs::write(file, self.end().into_iter().map(line).collect::<String>()).unwrap();
        "ok".to_owned()
    }
}

impl Dial {
    fn at(addr: SocketAddr) -> Self {
        let began = now();
        let stream = TcpStream::connect(addr);
        let connected = now();
        let answer = |mut stream: TcpStream| {
            let mut label = String::new();
            stream.read_to_string(&mut label)?;
            // No TIME_WAIT: a storm would use up the ports.
            rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO))?;
            Ok(label)
        };
        Self { began, connected, label: stream.and_then(answer).unwrap_or_else(failure) }
    }
}

/// A thread that connects one datagram socket after the other, and keeps them.
struct Flood {
    stop: Arc<AtomicBool>,
    sockets: Arc<Mutex<Vec<UdpSocket>>>,
    thread: JoinHandle<()>,
}

impl Flood {
    /// More would want a higher limit of open files.
    const MOST: usize = 800;

    fn start(addr: SocketAddr) -> Self {
        let (stop, sockets) = (Arc::<AtomicBool>::default(), Arc::<Mutex<Vec<UdpSocket>>>::default());
        let (stopped, kept) = (stop.clone(), sockets.clone());
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) && kept.lock().len() < Self::MOST {
                let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
                socket.connect(addr).unwrap();
                socket.set_read_timeout(Some(ANSWER)).unwrap();
                kept.lock().push(socket);
            }
        });
        Self { stop, sockets, thread }
    }

    /// Ends the flood and asks on every socket: `answer=count`, in the order of the answers.
    fn stop(self) -> String {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        let mut answers = BTreeMap::<String, u64>::new();
        for socket in self.sockets.lock().iter() {
            let answer = socket.send(b"?").and_then(|_| heard(socket));
            let label = answer.map_or("ended".to_owned(), |heard| heard.split(' ').next().unwrap().to_owned());
            *answers.entry(label).or_default() += 1;
        }
        answers.iter().map(|(answer, count)| format!("{answer}={count} ")).collect()
    }
}
