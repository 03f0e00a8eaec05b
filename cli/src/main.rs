//! `tombolo`: join clusters into a mesh, and see what it does.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    tombolo_cli::run(tombolo_cli::Cli::parse())
}
