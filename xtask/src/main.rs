//! `cargo xtask`: everything a newcomer or CI runs. It must build before anything else does, so it depends on nothing
//! of ours and on nothing that wants protoc.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool talks to its user")]

mod arrows;
mod bench;
mod demo;
mod ebpf;
mod etcd;
mod go;
mod helm;
mod kernels;
mod kubekit;
mod manifests;
mod setup;
mod shell;
mod testing;
mod tidy;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Set-up, demo, tests and checks of this repository")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Puts in place what a build needs (protoc), and with --all what the tests and the demo need too.
    Setup {
        /// Also etcd, the Kubernetes test cluster and the system's packages for tests and demo.
        #[arg(long)]
        all: bool,
    },
    /// The main job on this machine: three clusters, one service name. `cargo xtask demo -- --help` shows its options.
    Demo {
        /// Passed on: `--keep`, `--report FILE`, `down`, …
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Everything: format, lints, arrows, tidy, deny, eBPF object, unit, integration and end-to-end tests.
    Test {
        /// Only the steps whose name contains one of these words.
        only: Vec<String>,
    },
    /// Checks which crate may know which, over `cargo metadata`.
    Arrows,
    /// Checks paths and text: file sizes, words, unsafe, clocks, links.
    Tidy,
    /// Writes what is generated under manifests/: the definitions of the custom resources, and what the chart renders.
    Manifests {
        /// Changes nothing, and fails where a file is not as it would be written.
        #[arg(long)]
        check: bool,
    },
    /// Builds the eBPF object, or compares it with the committed one.
    Ebpf {
        /// What to do with it.
        #[command(subcommand)]
        action: EbpfAction,
    },
    /// Runs the datapath's tests on Debian's 5.10 and 6.1 kernels, each in QEMU.
    Kernels {
        /// Only the tests whose name contains one of these words.
        only: Vec<String>,
    },
    /// Measures, and prints targets beside the figures.
    Bench {
        /// Which measurement: `connect`, `program` or `propagation`. All when absent.
        name: Option<String>,
        /// Also writes the figures as JSON.
        #[arg(long)]
        json: Option<PathBuf>,
    },
}

#[derive(Subcommand)]
enum EbpfAction {
    /// Builds ebpf/prog with Debian's packages and replaces ebpf/prebuilt.
    Build,
    /// Builds it and compares with ebpf/prebuilt; with another toolchain runs the datapath tests on the new object.
    Check,
}

fn main() -> ExitCode {
    match run(Cli::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<()> {
    let root = shell::root()?;
    match task {
        Task::Setup { all: false } => setup::build_tools(&root),
        Task::Setup { all: true } => setup::everything(&root).map(|report| print!("{report}")),
        Task::Demo { args } => demo::demo(&root, &args),
        Task::Test { only } => testing::test(&root, &only),
        Task::Arrows => arrows::check(&root),
        Task::Tidy => tidy::check(&root),
        Task::Manifests { check: false } => manifests::write(&root),
        Task::Manifests { check: true } => manifests::check(&root),
        Task::Ebpf { action: EbpfAction::Build } => ebpf::build(&root),
        Task::Ebpf { action: EbpfAction::Check } => ebpf::check(&root),
        Task::Kernels { only } => kernels::kernels(&root, &only),
        Task::Bench { name, json } => bench::bench(&root, name.as_deref(), json.as_deref()),
    }
}
