//! Many backends at once: planned, programmed, and adopted by the next life of the agent.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tombolo_bench::figures::Figure;
use tombolo_bench::ground::Ground;
use tombolo_bench::rounds::Sample;
use tombolo_bench::tables::service;
use tombolo_core::model::Protocol;
use tombolo_core::plan::Tables;
use tombolo_core::tables::{BackendId, Desired};
use tombolo_ebpf::{Datapath, Executor as _, uninstall};

/// Backends of each service, nobody else's.
const BACKENDS: u32 = 10;

/// Milliseconds of the design, for planning and programming 100,000 backends.
const TARGET_MS: f64 = 200.0;

/// What one round took.
struct Round {
    plan: Duration,
    execute: Duration,
    open: Duration,
    adopt: Duration,
}

/// Figures of as many rounds, each with maps of its own.
pub(crate) fn measure(ground: &mut Ground, services: u32, rounds: usize) -> Result<Vec<Figure>> {
    let desired = (0..services).map(with_backends).collect::<Result<Vec<_>>>()?;
    let rounds = (0..rounds).map(|n| round(ground, n, &desired)).collect::<Result<Vec<_>>>()?;
    let all = services * BACKENDS;
    let conditions = format!(
        "large: {all} backends of {services} services, one frontend and {BACKENDS} backends each, no backend twice; maps of \
         default sizes, new in each of {} rounds; wall-clock time",
        rounds.len()
    );
    let figure = |name: &str, of: fn(&Round) -> Duration| {
        let sample = Sample::new(rounds.iter().map(|round| of(round).as_secs_f64() * 1000.0).collect());
        Figure::new(name, sample.median(), "ms", &conditions).within(sample.percentile(10), sample.percentile(90))
    };
    let whole = figure(&format!("{all} backends planned and programmed"), |round| round.plan + round.execute);
    Ok(vec![
        whole.at_most(TARGET_MS),
        figure("of that, planned", |round| round.plan),
        figure("of that, programmed", |round| round.execute),
        figure("adopted: programs loaded, a grace period waited for", |round| round.open),
        figure("adopted: read back, compared, nothing to change", |round| round.adopt),
    ])
}

fn with_backends(number: u32) -> Result<Desired> {
    let first = u32::from(Ipv4Addr::new(10, 128, 0, 0)) + number * BACKENDS;
    let backends: Vec<_> = (first..first + BACKENDS).map(|at| SocketAddr::from((Ipv4Addr::from(at), 8080))).collect();
    service(number, &[Protocol::Tcp], &backends)
}

fn round(ground: &mut Ground, number: usize, desired: &[Desired]) -> Result<Round> {
    let (cgroup, mut datapath) = ground.translated(&format!("round-{number}"))?;
    let config = ground.datapath(&cgroup);

    let begun = Instant::now();
    let plan = Tables::new(config.limits, BackendId(1)).plan(desired)?;
    let planned = Instant::now();
    datapath.execute(&plan)?;
    let executed = Instant::now();
    datapath.commit()?;
    drop(datapath);

    let returned = Instant::now();
    let mut datapath = Datapath::open(&config)?;
    let opened = Instant::now();
    let contents = datapath.contents()?;
    let (mut tables, repairs) = Tables::adopt(config.limits, &contents, BackendId(1));
    let plan = tables.plan_all(desired)?;
    let adopted = Instant::now();
    ensure!(repairs.ops.is_empty() && plan.ops.is_empty(), "what was read back is not what was programmed");
    ensure!(contents.backends.len() == desired.len() * BACKENDS as usize, "{} backends", contents.backends.len());
    datapath.commit()?;
    drop(datapath);
    uninstall(&config.pins)?;
    Ok(Round { plan: planned - begun, execute: executed - planned, open: opened - returned, adopt: adopted - opened })
}
