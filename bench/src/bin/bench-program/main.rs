//! `bench-program`: how long it takes to plan and program large tables, to adopt them, and to switch a table a thousand
//! times a second under load, and whether any connect saw half a switch.

mod large;
mod switches;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use tombolo_bench::figures::Figure;
use tombolo_bench::ground::{self, Ground};

/// How long tables take to plan, to program, to adopt and to switch.
#[derive(Debug, Parser)]
struct Args {
    /// Write the figures to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Rounds of programming and adopting.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Services of the large tables, with ten backends each.
    #[arg(long, default_value_t = 10_000)]
    services: u32,
    /// Switches under load.
    #[arg(long, default_value_t = 10_000)]
    switches: u32,
}

fn main() -> ExitCode {
    let args = Args::parse();
    ground::measure(args.json.as_deref(), |ground| bench(ground, &args))
}

fn bench(ground: &mut Ground, args: &Args) -> Result<Vec<Figure>> {
    let mut figures = large::measure(ground, args.services, args.rounds)?;
    figures.extend(switches::measure(ground, args.switches)?);
    Ok(figures)
}
