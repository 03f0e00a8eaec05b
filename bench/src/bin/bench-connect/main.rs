//! `bench-connect`: what the programs cost a connect, a datagram and a close, and what a connect costs with them, without
//! them, and with kube-proxy's rules instead.
//!
//! The programs' own time is the kernel's count (run-time statistics), which other load on the machine hardly changes.
//! The whole operation's time is taken in interleaved rounds, and only differences within a round mean something.

mod dial;
mod kube_proxy;
mod programs;
mod whole;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use tombolo_bench::figures::Figure;
use tombolo_bench::ground::{self, Ground};

/// What the programs cost a connect, a datagram and a close.
#[derive(Debug, Parser)]
struct Args {
    /// Write the figures to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Rounds of each measurement.
    #[arg(long, default_value_t = 40)]
    rounds: usize,
    /// Operations of each way in a round.
    #[arg(long, default_value_t = 500)]
    each: usize,
    /// Services of the large tables.
    #[arg(long, default_value_t = 10_000)]
    services: u32,
}

fn main() -> ExitCode {
    let args = Args::parse();
    ground::measure(args.json.as_deref(), |ground| bench(ground, &args))
}

fn bench(ground: &mut Ground, args: &Args) -> Result<Vec<Figure>> {
    let mut tables = whole::Sizes::prepare(ground, args.services)?;
    let mut figures = programs::measure(&tables, args.rounds, args.each)?;
    figures.extend(whole::measure(ground, &mut tables, args.rounds, args.each)?);
    Ok(figures)
}
