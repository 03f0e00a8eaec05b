//! The agent's entry: flags, logs, then the command.

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;

use clap::Parser as _;
use tombolo_agent::config::{Cli, Command, Mistakes};
use tombolo_agent::{app, commands};

fn main() -> ExitCode {
    let Cli { command, flags } = Cli::parse();
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(&flags.log))
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
        .init();
    let outcome = match command {
        None => flags.validate().map_err(anyhow::Error::from).and_then(app::run),
        Some(Command::Probe { output }) => commands::probe(&flags, output, &mut io::stdout()),
        Some(Command::Uninstall) => commands::uninstall(&flags, &mut io::stdout()),
    };
    let Err(error) = outcome else { return ExitCode::SUCCESS };
    if error.is::<Mistakes>() {
        // A log would put all its lines into one.
        let _closed = writeln!(io::stderr(), "{error}");
    } else {
        tracing::error!(error = format!("{error:#}"), "cannot run");
    }
    ExitCode::FAILURE
}
