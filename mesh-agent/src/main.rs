//! The agent's entry: flags, logs, run until a signal.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::Parser as _;
use tombolo_agent::{app, config::Flags};

fn main() -> ExitCode {
    let flags = Flags::parse();
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(&flags.log))
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    match flags.validate().map_err(anyhow::Error::from).and_then(app::run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "cannot run");
            ExitCode::FAILURE
        }
    }
}
