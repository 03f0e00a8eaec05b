//! End-to-end tests on real Kubernetes API servers.
//!
//! `cargo test -p tombolo-e2e --test kube [-- PART_OF_A_NAME…]` runs all cases, or those whose name has such a part.
//! `TOMBOLO_KUBEKIT` names the binary; without it, the one that `cargo xtask setup --all` built.

mod churn;
mod command_line;
mod ground;
mod installed;
mod lab;
mod manifests;
mod resources;
mod source;

use std::process::ExitCode;

use lab::{Alone, Case, Lab};
use tombolo_e2e::cases::{self, Choice};
use tombolo_e2e::needs::Missing;
use tombolo_e2e::{kube, needs, programs, story};

fn main() -> ExitCode {
    let choice = Choice::from_arguments();
    let shared = [ground::CASES, resources::CASES, source::CASES, churn::CASES, installed::CASES, manifests::CASES];
    let chosen: Vec<&Case> = shared.into_iter().flatten().filter(|case| choice.has(case.name)).collect();
    let alone: Vec<&Alone> = [command_line::CASES].into_iter().flatten().filter(|case| choice.has(case.name)).collect();
    if choice.list {
        let names = chosen.iter().map(|case| case.name).chain(alone.iter().map(|case| case.name));
        names.for_each(|name| story::say(&format!("{name}: test")));
        return ExitCode::SUCCESS;
    }
    let all = chosen.len() + alone.len();
    match cases::prepare(all, &missing()) {
        Ok(None) => {}
        Ok(Some(verdict)) => return verdict,
        Err(error) => {
            story::fail(&error);
            return ExitCode::FAILURE;
        }
    }
    let mut shared = None;
    let failed = chosen.iter().filter(|case| !cases::passes(case.name, || Lab::lend(&mut shared, case.body))).count();
    drop(shared);
    let failed = failed + alone.iter().filter(|case| !cases::passes(case.name, case.body)).count();
    story::say(&format!("\n{} passed, {failed} failed", all - failed));
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What this machine lacks for a cluster.
fn missing() -> Vec<Missing> {
    let mut all = needs::missing_here();
    if let Err(error) = kube::locate() {
        all.push(Missing {
            what: format!("{error:#}"),
            how: "install Go 1.26 and run `cargo xtask setup --all`".into(),
        });
    }
    if programs::on_path("nft").is_none() {
        all.push(Missing { what: "`nft` is not on PATH".into(), how: "install the package nftables".into() });
    }
    all
}
