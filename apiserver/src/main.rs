//! `tombolo-apiserver`: the command line, logging and signals around the library.

use anyhow::{Context, Result};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tombolo_apiserver::app;
use tombolo_apiserver::config::Args;
use tracing_subscriber::EnvFilter;

fn main() -> Result<()> {
    let args = Args::parse();
    let config = args.validate()?;
    let filter = EnvFilter::try_new(&args.log).with_context(|| format!("--log {:?}", args.log))?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("no runtime")?;
    runtime.block_on(async {
        let cancel = CancellationToken::new();
        let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
        let stop = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            cancel.cancel();
        };
        let (ended, ()) = tokio::join!(Box::pin(app::run(config, cancel.clone())), async {
            tokio::select! {
                () = stop => {}
                () = cancel.cancelled() => {}
            }
        });
        ended
    })
}
