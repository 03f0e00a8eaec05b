//! `bench-propagation`: how long an endpoint's change takes from the source of one cluster to the maps of an agent in
//! another, with a real etcd and mTLS in each.
//!
//! The clock starts before the new manifest is written, and stops when the agent says that its map has the
//! change. The agent is asked at an interval, so each figure is too long by up to that and the answer's own time.

mod burst;
mod hop;
mod idle;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Parser;
use tombolo_bench::figures::{Figure, Figures, percentile};
use tombolo_e2e::cluster::Datapath;
use tombolo_e2e::mesh::{Mesh, Plan};
use tombolo_e2e::run::{self, AlsoKept};
use tombolo_e2e::{clock, needs, programs, story};

/// Targets of the design. It names none for the idle p99 and for bursts with a real etcd; the built-in store's stand in.
const IDLE_P50_MS: f64 = 6.0;
const IDLE_P99_MS: f64 = 10.0;
const BURST_P99_MS: f64 = 150.0;

/// How long an endpoint's change takes from a source in one cluster to the maps of an agent in another.
#[derive(Debug, Parser)]
struct Args {
    /// Write the figures to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Single changes to measure.
    #[arg(long, default_value_t = 300)]
    changes: usize,
    /// Bursts to measure.
    #[arg(long, default_value_t = 4)]
    bursts: usize,
}

fn main() -> ExitCode {
    match bench(&Args::parse()) {
        Ok(code) => code,
        Err(error) => {
            story::fail(&error);
            ExitCode::FAILURE
        }
    }
}

fn bench(args: &Args) -> Result<ExitCode> {
    let missing = needs::missing();
    if !missing.is_empty() {
        missing.iter().for_each(|what| story::warn(&format!("the bench cannot run here: {what}")));
        return Ok(ExitCode::from(2));
    }
    clock::heed_signals()?;
    run::sweep_all(AlsoKept::No)?;
    let janitor = programs::program("demo").context("the janitor")?;
    story::chapter("Propagation: endpoint change in ne's source -> map of an agent in we");
    let plan =
        Plan { clusters: &[("ne", 1), ("we", 2)], nodes: 1, pods: 1, datapath: Datapath::Ebpf, janitor: &janitor };
    let mut mesh = Mesh::up(&plan)?;

    let mut hop = hop::measure(&mut mesh, args.changes)?;
    let mut idle = idle::measure(&mut mesh, args.changes)?;
    let mut burst = burst::measure(&mut mesh, args.bursts)?;

    let figures = Figures::of_this_machine(figures(args, &mut hop, &mut idle, &mut burst));
    story::say(&figures.to_string());
    if let Some(file) = &args.json {
        figures.write(file)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn figures(args: &Args, hop: &mut [f64], idle: &mut [f64], burst: &mut [f64]) -> Vec<Figure> {
    let both = "two clusters on one machine, etcd without fsync, mTLS, kernel maps; the agent is asked every";
    let alone = format!(
        "idle: {} single changes of one endpoint; {both} 0.5 ms; baseline: one put seen by one watcher of one etcd, with our \
         own writer and session (the way has two such hops); the p99 target is the built-in store's",
        args.changes
    );
    let many = format!(
        "burst: {} times {} endpoints in {} slices of {} services, changed evenly within 1 s; {both} 20 ms; the target is \
         the built-in store's",
        args.bursts,
        burst::SLICES * burst::ENDPOINTS,
        burst::SLICES,
        burst::SERVICES,
    );
    vec![
        Figure::ms("idle, p50", percentile(idle, 50), Some(IDLE_P50_MS), Some(percentile(hop, 50)), &alone),
        Figure::ms("idle, p99", percentile(idle, 99), Some(IDLE_P99_MS), Some(percentile(hop, 99)), &alone),
        Figure::ms("burst, p50", percentile(burst, 50), None, None, &many),
        Figure::ms("burst, p99", percentile(burst, 99), Some(BURST_P99_MS), None, &many),
        Figure::ms("burst, last", percentile(burst, 100), None, None, &many),
    ]
}
