//! The programs' own time, by the kernel's count.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use tombolo_bench::figures::Figure;
use tombolo_bench::ground::join;
use tombolo_bench::rounds::Sample;
use tombolo_bench::tables::vip;
use tombolo_ebpf::RunStats;

use crate::dial::{self, Server};
use crate::whole::{Size, Sizes};

/// What was measured: a hook, while something was done that runs it once.
struct Case {
    name: &'static str,
    hook: &'static str,
    /// Microseconds, of the design.
    target: Option<f64>,
    /// Whether it matters which services are dialled.
    varies: bool,
    /// Does it so many times with these services; only runs of the hook between here and there are counted.
    work: fn(&Doer<'_>) -> Result<()>,
}

/// Who does the work.
struct Doer<'a> {
    server: &'a Server,
    backend: SocketAddr,
    /// How many services are dialled, from the first.
    dialled: u32,
    each: usize,
}

impl Doer<'_> {
    /// Services one after the other, in an order that no cache likes.
    fn vips(&self) -> impl Iterator<Item = SocketAddr> {
        let dialled = self.dialled;
        (0..self.each).map(move |n| vip((n as u32).wrapping_mul(7919) % dialled))
    }

    fn connect(&self, to: impl Iterator<Item = SocketAddr>) -> Result<()> {
        for to in to {
            dial::tcp(to)?;
        }
        self.server.drain()
    }

    fn direct(&self) -> impl Iterator<Item = SocketAddr> {
        std::iter::repeat_n(self.backend, self.each)
    }

    /// Datagrams from one socket, each answered and received.
    fn exchange(&self, to: SocketAddr) -> Result<()> {
        let client = dial::udp()?;
        for _ in 0..self.each {
            client.send_to(b"ping", to)?;
            self.server.echo()?;
            let (_, from) = client.recv_from(&mut [0; 64])?;
            ensure!(from == to, "an answer from {from} to a datagram for {to}");
        }
        Ok(())
    }
}

const CASES: [Case; 12] = [
    Case {
        name: "TCP connect, match",
        hook: "connect4",
        target: Some(0.65),
        varies: true,
        work: |d| d.connect(d.vips()),
    },
    Case {
        name: "TCP connect, miss",
        hook: "connect4",
        target: Some(0.12),
        varies: false,
        work: |d| d.connect(d.direct()),
    },
    Case {
        name: "TCP close, translated",
        hook: "sock_release",
        target: Some(0.3),
        varies: true,
        work: |d| d.connect(d.vips()),
    },
    Case {
        name: "TCP close, untranslated",
        hook: "sock_release",
        target: Some(0.1),
        varies: false,
        work: |d| d.connect(d.direct()),
    },
    Case { name: "TCP getpeername, translated", hook: "getpeername4", target: None, varies: false, work: getpeername },
    Case {
        name: "UDP connect, match",
        hook: "connect4",
        target: None,
        varies: true,
        work: |d| udp_connect(d, d.vips()),
    },
    Case {
        name: "UDP connect, miss",
        hook: "connect4",
        target: None,
        varies: false,
        work: |d| udp_connect(d, d.direct()),
    },
    Case { name: "UDP send, first to a service", hook: "sendmsg4", target: None, varies: true, work: first_send },
    Case {
        name: "UDP send, the next ones",
        hook: "sendmsg4",
        target: None,
        varies: false,
        work: |d| d.exchange(vip(0)),
    },
    Case { name: "UDP send, miss", hook: "sendmsg4", target: None, varies: false, work: |d| d.exchange(d.backend) },
    Case {
        name: "UDP receive, translated",
        hook: "recvmsg4",
        target: None,
        varies: false,
        work: |d| d.exchange(vip(0)),
    },
    Case {
        name: "UDP receive, untranslated",
        hook: "recvmsg4",
        target: None,
        varies: false,
        work: |d| d.exchange(d.backend),
    },
];

fn getpeername(doer: &Doer<'_>) -> Result<()> {
    let stream = std::net::TcpStream::connect(vip(0))?;
    for _ in 0..doer.each {
        ensure!(stream.peer_addr()? == vip(0), "the peer is not shown as the frontend");
    }
    doer.server.drain()
}

fn udp_connect(doer: &Doer<'_>, to: impl Iterator<Item = SocketAddr>) -> Result<()> {
    for to in to.take(doer.each) {
        dial::udp()?.connect(to)?;
    }
    Ok(())
}

fn first_send(doer: &Doer<'_>) -> Result<()> {
    for to in doer.vips() {
        dial::udp()?.send_to(b"ping", to)?;
        doer.server.drain()?;
    }
    Ok(())
}

/// A table, and how many of its services are dialled.
struct Side<'a> {
    size: &'a Size,
    dialled: u32,
}

impl Side<'_> {
    fn name(&self) -> String {
        match (self.size.services, self.dialled) {
            (1, _) => "1 service".to_owned(),
            (all, 1) => format!("one of {all} services"),
            (all, _) => format!("all of {all} services"),
        }
    }
}

/// All cases with one service, with one of many, and with many in turn.
pub(crate) fn measure(sizes: &Sizes, rounds: usize, each: usize) -> Result<Vec<Figure>> {
    sizes.home()?;
    let stats = RunStats::enable()?;
    let backend = dial::backend()?;
    let side = |size, dialled| Side { size, dialled };
    let sides = [side(&sizes.one, 1), side(&sizes.many, 1), side(&sizes.many, sizes.many.services)];
    let mut samples = vec![Vec::with_capacity(rounds); CASES.len() * sides.len()];
    for _ in 0..rounds {
        for (n, case) in CASES.iter().enumerate() {
            for (m, side) in sides.iter().enumerate() {
                join(&side.size.cgroup)?;
                let doer = Doer { server: &sizes.server, backend, dialled: side.dialled, each };
                samples[n * sides.len() + m].push(once(&stats, side.size, case, &doer)?);
            }
        }
    }
    join(&sizes.plain)?;
    let mut samples = samples.into_iter().map(Sample::new);
    let mut figures = Vec::new();
    for case in &CASES {
        for side in &sides {
            let sample = samples.next().context("one sample for each case and side")?;
            figures.extend((case.varies || side.dialled == 1).then(|| figure(case, side, &sample, rounds, each)));
        }
    }
    Ok(figures)
}

/// Nanoseconds of one run.
fn once(stats: &RunStats, size: &Size, case: &Case, doer: &Doer<'_>) -> Result<f64> {
    let (runs, time) = counted(stats, &size.cgroup, case.hook)?;
    (case.work)(doer).with_context(|| format!("{}, {} services", case.name, size.services))?;
    let (runs_after, time_after) = counted(stats, &size.cgroup, case.hook)?;
    let ran = runs_after - runs;
    ensure!(ran == doer.each as u64, "{}: {} ran {ran} times for {} operations", case.name, case.hook, doer.each);
    Ok((time_after - time) as f64 / ran as f64)
}

/// How often a hook's one program ran, and for how many nanoseconds.
fn counted(stats: &RunStats, cgroup: &Path, hook: &str) -> Result<(u64, u64)> {
    let runs = stats.on(cgroup)?;
    let runs = runs.iter().find(|runs| runs.hook == hook).with_context(|| format!("no program on {hook}"))?;
    Ok((runs.count, u64::try_from(runs.time.as_nanos())?))
}

fn figure(case: &Case, side: &Side<'_>, sample: &Sample, rounds: usize, each: usize) -> Figure {
    let us = |percent| sample.percentile(percent) / 1000.0;
    let conditions = format!(
        "program: the kernel's run-time statistics, some 50 ns of measuring included; median of {rounds} rounds of {each}"
    );
    let name = format!("program: {}, {}", case.name, side.name());
    let figure = Figure::new(&name, us(50), "µs", &conditions).within(us(10), us(90));
    match case.target {
        // A table of which no part is in any cache takes what memory takes.
        Some(target) if side.dialled == 1 => figure.at_most(target),
        _ => figure,
    }
}
