//! The whole of socket, connect and close, in interleaved rounds.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use tombolo_bench::clock::processor_time;
use tombolo_bench::figures::Figure;
use tombolo_bench::ground::{Ground, Netns, join, run};
use tombolo_bench::rounds::{Sample, Way, take_turns};
use tombolo_bench::tables::{service, vip};
use tombolo_core::model::Protocol;
use tombolo_core::plan::Tables;
use tombolo_core::tables::BackendId;
use tombolo_ebpf::{Datapath, Executor as _, Faults};

use crate::dial::{self, BACKEND, CLIENT, Server};
use crate::kube_proxy::{self, Mode};

/// A cgroup with programs whose tables have so many services.
pub(crate) struct Size {
    pub(crate) cgroup: PathBuf,
    pub(crate) services: u32,
    datapath: Datapath,
}

impl Size {
    fn prepare(ground: &mut Ground, services: u32) -> Result<Self> {
        let (cgroup, mut datapath) = ground.translated(&services.to_string())?;
        let config = ground.datapath(&cgroup);
        let desired = (0..services).map(|n| service(n, &[Protocol::Tcp, Protocol::Udp], &[dial::backend()?]));
        let plan = Tables::new(config.limits, BackendId(1)).plan(&desired.collect::<Result<Vec<_>>>()?)?;
        datapath.execute(&plan)?;
        datapath.commit()?;
        Ok(Self { cgroup, services, datapath })
    }
}

/// A cgroup without programs, one with a table of one service, and one with many.
pub(crate) struct Sizes {
    pub(crate) plain: PathBuf,
    pub(crate) one: Size,
    pub(crate) many: Size,
    /// The backend, in no cgroup with programs.
    pub(crate) server: Server,
    home: Netns,
}

impl Sizes {
    pub(crate) fn prepare(ground: &mut Ground, services: u32) -> Result<Self> {
        ensure!(services > 1, "a large table has more than one service");
        let plain = ground.cgroup("plain")?;
        join(&plain)?;
        address()?;
        let (home, server) = (Netns::current()?, Server::start()?);
        let (one, many) = (Size::prepare(ground, 1)?, Size::prepare(ground, services)?);
        Ok(Self { plain, one, many, server, home })
    }

    /// Back to the namespace of the programs' measurements.
    pub(crate) fn home(&self) -> Result<()> {
        self.home.enter()
    }
}

/// Gives the loopback of this thread's namespace the backend's and the client's address.
fn address() -> Result<()> {
    [BACKEND, CLIENT].iter().try_for_each(|at| run("ip", &["addr", "add", &format!("{at}/32"), "dev", "lo"]))
}

/// A namespace with kube-proxy's rules for so many services, or with none, and a backend in it.
struct Site {
    mode: Mode,
    services: u32,
    netns: Netns,
    server: Server,
}

impl Site {
    fn prepare(ground: &Ground, mode: Mode, services: u32) -> Result<Self> {
        let label = format!("{}-{services}", mode.name());
        let netns = Netns::make(&label)?;
        netns.enter()?;
        address()?;
        // Rules translate after routing, so a service's address needs a route; nothing but the loopback is there.
        run("ip", &["route", "add", "10.96.0.0/12", "dev", "lo", "src", CLIENT])?;
        kube_proxy::apply(ground, mode, services)?;
        let server = Server::start()?;
        Ok(Self { mode, services, netns, server })
    }
}

/// The ways to connect: the first is the baseline of all.
pub(crate) fn measure(ground: &Ground, sizes: &mut Sizes, rounds: usize, each: usize) -> Result<Vec<Figure>> {
    join(&sizes.plain)?;
    let mut sites = Vec::new();
    for mode in Mode::here() {
        for services in [1, sizes.many.services] {
            sites.push(Site::prepare(ground, mode, services)?);
        }
    }
    let (kinds, samples) = turns(sizes, &sites, rounds, each)?;
    for size in [&sizes.one, &sizes.many] {
        ensure!(size.datapath.faults() == Faults::default(), "{:?}", size.datapath.faults());
    }
    Ok(figures(&kinds, &samples, rounds, each))
}

/// What each way was, and what it took; the first is the baseline of all.
fn turns(sizes: &Sizes, sites: &[Site], rounds: usize, each: usize) -> Result<(Vec<Kind>, Vec<Sample>)> {
    let backend = dial::backend()?;
    let mut kinds = vec![Kind { by: None, to: To::Backend }];
    let mut ways: Vec<Way<'_>> = vec![way(&sizes.plain, &sizes.home, &sizes.server, move |_| backend)];
    for size in [&sizes.one, &sizes.many] {
        let by = Some((By::Tombolo, size.services));
        kinds.extend([Kind { by, to: To::Backend }, Kind { by, to: To::Service }]);
        ways.push(way(&size.cgroup, &sizes.home, &sizes.server, move |_| backend));
        ways.push(way(&size.cgroup, &sizes.home, &sizes.server, spread(size.services)));
    }
    for site in sites {
        let by = Some((By::Rules(site.mode), site.services));
        kinds.extend([Kind { by, to: To::Backend }, Kind { by, to: To::Service }]);
        ways.push(way(&sizes.plain, &site.netns, &site.server, move |_| backend));
        ways.push(way(&sizes.plain, &site.netns, &site.server, spread(site.services)));
    }
    let samples = take_turns(&mut ways, rounds, each)?;
    drop(ways);
    join(&sizes.plain)?;
    Ok((kinds, samples))
}

/// The address of some service, another one each time.
fn spread(services: u32) -> impl Fn(usize) -> SocketAddr {
    move |n| vip((n as u32).wrapping_mul(7919) % services)
}

/// Connects from a cgroup and a namespace.
fn way<'a>(cgroup: &'a Path, netns: &'a Netns, server: &'a Server, to: impl Fn(usize) -> SocketAddr + 'a) -> Way<'a> {
    Box::new(move |each| {
        netns.enter()?;
        join(cgroup)?;
        // On the loopback both ends of a connect run in this thread.
        let begun = processor_time();
        for n in 0..each {
            dial::tcp(to(n))?;
        }
        let took = processor_time().saturating_sub(begun);
        server.drain()?;
        Ok(took)
    })
}

/// The times themselves, then what each way took more than the direct one in the same round.
fn figures(ways: &[Kind], samples: &[Sample], rounds: usize, each: usize) -> Vec<Figure> {
    let direct = &samples[0];
    let whole = format!(
        "connect: processor time of socket, connect and close of a TCP connection, both ends on the loopback of a \
         namespace; median of {rounds} interleaved rounds of {each}; baseline: directly, without programs and rules"
    );
    let more = "added: what a way took more than the direct one in the same round; baseline and target: kube-proxy's \
                nftables rules in the same run";
    let us = |sample: &Sample, percent| sample.percentile(percent) / 1000.0;
    let told = |name: &str, sample: &Sample, conditions: &str| {
        Figure::new(name, us(sample, 50), "µs", conditions).within(us(sample, 10), us(sample, 90))
    };
    let times = ways.iter().zip(samples);
    let times = times.map(|(way, sample)| told(&format!("connect: {way}"), sample, &whole).beside(us(direct, 50)));
    let others = || ways.iter().zip(samples).skip(1);
    let added = others().map(|(way, sample)| {
        let figure = told(&format!("added: {way}"), &sample.beyond(direct), more);
        let rules = others().find(|(other, _)| way.is_tombolo() && other.is_nftables_of(way));
        rules.map_or(figure.clone(), |(_, other)| {
            let other = us(&other.beyond(direct), 50);
            figure.at_most(other).beside(other)
        })
    });
    times.chain(added).collect()
}

/// What a way is: who translates, with how many services, and where it dials.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Kind {
    /// `None`: nobody.
    by: Option<(By, u32)>,
    to: To,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Tombolo,
    Rules(Mode),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum To {
    Backend,
    Service,
}

impl Kind {
    fn is_tombolo(&self) -> bool {
        matches!(self.by, Some((By::Tombolo, _)))
    }

    /// Whether these are nftables rules of as many services, and dial the same.
    fn is_nftables_of(&self, other: &Self) -> bool {
        self.to == other.to && self.by == other.by.map(|(_, services)| (By::Rules(Mode::Nftables), services))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let to = match self.to {
            To::Backend => "directly",
            To::Service => "to a service",
        };
        let Some((by, services)) = self.by else { return f.write_str("alone, directly") };
        let by = match by {
            By::Tombolo => "Tombolo",
            By::Rules(mode) => mode.name(),
        };
        write!(f, "{by}, {}, {to}", count(services))
    }
}

/// As `1 service`.
pub(crate) fn count(services: u32) -> String {
    if services == 1 { "1 service".to_owned() } else { format!("{services} services") }
}
