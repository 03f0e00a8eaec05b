//! `tombolo-apiserver`: the command line, logging and signals around the library.

use std::io::IsTerminal as _;

use anyhow::{Context, Result};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tombolo_apiserver::app;
use tombolo_apiserver::config::{Args, Config};
use tracing_subscriber::EnvFilter;

fn main() -> Result<()> {
    let args = Args::parse();
    let config = args.validate()?;
    let filter = EnvFilter::try_new(&args.log).with_context(|| format!("--log {:?}", args.log))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("no runtime")?;
    runtime.block_on(run(config))
}

/// Runs until the program ends by itself, or until a signal made it end.
async fn run(config: Config) -> Result<()> {
    let cancel = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
    let mut running = Box::pin(app::run(config, cancel.clone()));
    tokio::select! {
        ended = &mut running => return ended,
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    cancel.cancel();
    running.await
}
