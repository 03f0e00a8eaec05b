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
    /// Does it so many times with these services; only runs of the hook between here and there are counted.
    work: fn(&Doer<'_>) -> Result<()>,
}

/// Who does the work.
struct Doer<'a> {
    server: &'a Server,
    backend: SocketAddr,
    services: u32,
    each: usize,
}

impl Doer<'_> {
    /// Services all over the table, in an order that no cache likes.
    fn vips(&self) -> impl Iterator<Item = SocketAddr> {
        let services = self.services;
        (0..self.each).map(move |n| vip((n as u32).wrapping_mul(7919) % services))
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
    Case { name: "TCP connect, match", hook: "connect4", target: Some(0.65), work: |d| d.connect(d.vips()) },
    Case { name: "TCP connect, miss", hook: "connect4", target: Some(0.12), work: |d| d.connect(d.direct()) },
    Case { name: "TCP close, translated", hook: "sock_release", target: Some(0.3), work: |d| d.connect(d.vips()) },
    Case { name: "TCP close, untranslated", hook: "sock_release", target: Some(0.1), work: |d| d.connect(d.direct()) },
    Case { name: "TCP getpeername, translated", hook: "getpeername4", target: None, work: getpeername },
    Case { name: "UDP connect, match", hook: "connect4", target: None, work: |d| udp_connect(d, d.vips()) },
    Case { name: "UDP connect, miss", hook: "connect4", target: None, work: |d| udp_connect(d, d.direct()) },
    Case { name: "UDP send, first to a service", hook: "sendmsg4", target: None, work: first_send },
    Case { name: "UDP send, the next ones", hook: "sendmsg4", target: None, work: |d| d.exchange(vip(0)) },
    Case { name: "UDP send, miss", hook: "sendmsg4", target: None, work: |d| d.exchange(d.backend) },
    Case { name: "UDP receive, translated", hook: "recvmsg4", target: None, work: |d| d.exchange(vip(0)) },
    Case { name: "UDP receive, untranslated", hook: "recvmsg4", target: None, work: |d| d.exchange(d.backend) },
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

/// All cases with one service and with many, in turns.
pub(crate) fn measure(sizes: &Sizes, rounds: usize, each: usize) -> Result<Vec<Figure>> {
    sizes.home()?;
    let stats = RunStats::enable()?;
    let backend = dial::backend()?;
    let sides = [&sizes.one, &sizes.many];
    let mut samples = vec![Vec::with_capacity(rounds); CASES.len() * sides.len()];
    for _ in 0..rounds {
        for (n, case) in CASES.iter().enumerate() {
            for (m, size) in sides.into_iter().enumerate() {
                join(&size.cgroup)?;
                let doer = Doer { server: &sizes.server, backend, services: size.services, each };
                samples[n * sides.len() + m].push(once(&stats, size, case, &doer)?);
            }
        }
    }
    join(&sizes.plain)?;
    let mut samples = samples.into_iter().map(Sample::new);
    let mut figures = Vec::new();
    for case in &CASES {
        for size in sides {
            let sample = samples.next().context("one sample for each case and size")?;
            figures.push(figure(case, size, &sample, rounds, each));
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

fn figure(case: &Case, size: &Size, sample: &Sample, rounds: usize, each: usize) -> Figure {
    let us = |percent| sample.percentile(percent) / 1000.0;
    let conditions = format!(
        "program: the kernel's run-time statistics, some 50 ns of measuring included; median of {rounds} rounds of {each}"
    );
    let name = format!("program: {}, {}", case.name, size.name());
    let figure = Figure::new(&name, us(50), "µs", &conditions).within(us(10), us(90));
    match case.target {
        Some(target) => figure.at_most(target),
        None => figure,
    }
}
