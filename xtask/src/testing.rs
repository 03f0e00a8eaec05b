//! `cargo xtask test`: everything, in order of what is cheapest to learn from, with a table at the end.
//!
//! What cannot run here is said loudly; with `TOMBOLO_FORBID_SKIPS=1`, as in CI, it is a failure.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::shell::{cargo, on_path, run, tools};
use crate::{arrows, bench, demo, ebpf, etcd, kernels, kubekit, manifests, setup, tidy};

/// A named step.
type Step = (&'static str, fn(&Path) -> Result<()>);

const STEPS: [Step; 14] = [
    ("setup", |root| setup::everything(root).map(|report| print!("{report}"))),
    ("tidy", tidy::check),
    ("arrows", arrows::check),
    ("format", |root| run(cargo(root).args(["fmt", "--all", "--check"]))),
    ("xtask", |root| run(cargo(root).args(["test", "--quiet", "--package", "xtask"]))),
    ("deny", deny),
    ("clippy", clippy),
    ("manifests", manifests::check),
    ("unit", unit),
    ("ebpf", ebpf::check),
    ("bench", bench::smoke),
    ("e2e", end_to_end),
    ("kube", on_kubernetes),
    ("kernels", kernels::step),
];

/// cargo-deny, pinned.
const DENY_VERSION: &str = "0.20.2";

/// Runs all steps, or those named.
pub(crate) fn test(root: &Path, only: &[String]) -> Result<()> {
    let mut rows = Vec::new();
    for (name, step) in STEPS {
        let wanted = only.is_empty() || name == "setup" || only.iter().any(|word| name.contains(word.as_str()));
        if !wanted {
            continue;
        }
        println!("\n=== {name}");
        let start = Instant::now();
        let outcome = step(root);
        if let Err(error) = &outcome {
            eprintln!("{name} FAILED: {error:#}");
        }
        rows.push((name, outcome.is_ok(), start.elapsed().as_secs()));
    }
    println!("\n=== summary");
    for (name, ok, seconds) in &rows {
        println!("{:<9} {:<6} {seconds:>4} s", name, if *ok { "ok" } else { "FAILED" });
    }
    let failed = rows.iter().filter(|(_, ok, _)| !ok).count();
    println!("{} passed, {failed} failed", rows.len() - failed);
    if failed > 0 {
        bail!("{failed} of {} steps failed", rows.len());
    }
    Ok(())
}

fn clippy(root: &Path) -> Result<()> {
    run(cargo(root).args(["clippy", "--quiet", "--workspace", "--all-targets", "--", "--deny", "warnings"]))
}

/// Everything but the end-to-end tests, which start whole systems and come last.
fn unit(root: &Path) -> Result<()> {
    let mut test = cargo(root);
    test.args(["test", "--workspace", "--no-fail-fast", "--exclude", "tombolo-e2e", "--exclude", "xtask"]);
    run(test.env("TOMBOLO_ETCD", etcd::provide(root)?.binary))
}

fn end_to_end(root: &Path) -> Result<()> {
    let binaries = demo::build(root, "dev")?;
    let mut test = cargo(root);
    let parts = ["--lib", "--bins", "--test", "e2e", "--test", "manifests"];
    test.args(["test", "--no-fail-fast", "--package", "tombolo-e2e"]).args(parts).env("TOMBOLO_BIN_DIR", binaries);
    run(test.env("TOMBOLO_ETCD", etcd::provide(root)?.binary))
}

/// The cases with real API servers.
fn on_kubernetes(root: &Path) -> Result<()> {
    let Some(kubekit) = kubekit::provide(root)? else { return Ok(()) };
    let binaries = demo::build(root, "dev")?;
    let mut test = cargo(root);
    test.args(["test", "--package", "tombolo-e2e", "--test", "kube"]).env("TOMBOLO_BIN_DIR", binaries);
    run(test.env("TOMBOLO_KUBEKIT", kubekit).env("TOMBOLO_ETCD", etcd::provide(root)?.binary))
}

/// Bans, licences and sources. Advisories need a database from the network, so they are not part of this.
fn deny(root: &Path) -> Result<()> {
    let local = tools(root).join("bin/cargo-deny");
    let binary = match on_path("cargo-deny") {
        Some(found) => found,
        None if local.is_file() => local,
        None => {
            println!("installing cargo-deny {DENY_VERSION} into target/tools (once, some minutes)");
            let mut install = cargo(root);
            install.args([
                "install",
                "--quiet",
                "--locked",
                "--debug",
                "cargo-deny",
                "--version",
                DENY_VERSION,
                "--root",
            ]);
            run(install.arg(tools(root))).context("installing cargo-deny")?;
            local
        }
    };
    run(crate::shell::command(root, binary).args(["--log-level", "error", "check", "bans", "licenses", "sources"]))
}
