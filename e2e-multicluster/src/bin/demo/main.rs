//! `demo`: three clusters on this machine and one service name, step by step, each step checked.

mod tell;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use tombolo_e2e::cluster::Datapath;
use tombolo_e2e::mesh::{DEMO, Mesh, Plan};
use tombolo_e2e::run::{self, AlsoKept};
use tombolo_e2e::{clock, needs, scenario, story};

/// Three clusters on this machine, one service name: who answers, when annotations change and endpoints go and return.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask demo")]
struct Args {
    #[command(subcommand)]
    task: Option<Task>,
    /// Leave everything up at the end, and print lines to try.
    #[arg(long)]
    keep: bool,
    /// Write the result of each step to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Remove everything that an earlier demo or test left.
    Down,
    /// Wait until the owner of a run is gone, then remove what it left.
    #[command(hide = true)]
    Janitor {
        /// The run's directory.
        dir: PathBuf,
    },
}

fn main() -> ExitCode {
    let args = Args::parse();
    let result = match &args.task {
        Some(Task::Janitor { dir }) => run::janitor(dir).map(|()| ExitCode::SUCCESS),
        Some(Task::Down) => down(),
        None => demo(&args),
    };
    result.unwrap_or_else(|error| {
        if clock::interrupted() {
            story::say("\ninterrupted; everything that was made is gone again");
            return ExitCode::from(130);
        }
        story::fail(&error);
        ExitCode::FAILURE
    })
}

fn down() -> Result<ExitCode> {
    let gone = run::sweep_all(AlsoKept::Yes)?;
    gone.iter().for_each(|dir| story::say(&format!("removed {}", dir.display())));
    for found in run::found()? {
        if let run::State::Owned(pid) = found.state {
            story::say(&format!(
                "{} is in use by process {pid}: end that one (Ctrl-C), and it cleans up",
                found.dir.display()
            ));
        }
    }
    story::say(if gone.is_empty() { "nothing to remove" } else { "nothing is left" });
    Ok(ExitCode::SUCCESS)
}

fn demo(args: &Args) -> Result<ExitCode> {
    let missing = needs::missing();
    if !missing.is_empty() {
        tell::missing(&missing);
        return Ok(ExitCode::from(2));
    }
    clock::heed_signals()?;
    for dir in run::sweep_all(AlsoKept::No)? {
        story::say(&format!("removed what a crashed run left in {}", dir.display()));
    }

    story::chapter("Three clusters on this machine: ne (1), we (2), fc (3), two nodes each");
    let janitor = std::env::current_exe().context("find this program's own path")?;
    let mut mesh = Mesh::up(&Plan { clusters: &DEMO, nodes: 2, pods: 2, datapath: Datapath::Ebpf, janitor: &janitor })?;
    tell::mesh(&mut mesh)?;

    story::chapter("Who answers rebel-base, dialled from node ne-1");
    tell::rules();
    let report = scenario::carry_out(&mut mesh, &scenario::STEPS, tell::step)?;
    if let Some(file) = &args.report {
        write_report(file, &report)?;
    }
    let ok = report.steps.iter().all(|step| step.ok);
    tell::end(&report);
    if args.keep {
        tell::kept(&mesh)?;
        mesh.keep()?;
    }
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn write_report(file: &Path, report: &scenario::Report) -> Result<()> {
    let text = serde_json::to_string_pretty(report)?;
    std::fs::write(file, text + "\n").with_context(|| format!("write the report {}", file.display()))
}
