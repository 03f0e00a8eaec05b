//! `demo` and `bench`: build what they run, then hand over.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::shell::{cargo, command, run};
use crate::{etcd, setup};

/// The measurements there are, each a binary of the end-to-end crate.
const BENCHES: [&str; 1] = ["propagation"];

/// Builds the programs as the tests do, so that both share one build, and runs the demo.
pub(crate) fn demo(root: &Path, args: &[String]) -> Result<()> {
    let down = args.first().is_some_and(|arg| arg == "down");
    let binaries = build(root, "dev")?;
    let mut demo = command(root, binaries.join("demo"));
    demo.args(args).env("TOMBOLO_BIN_DIR", &binaries);
    if !down {
        demo.env("TOMBOLO_ETCD", etcd::provide(root)?.binary);
    }
    // In our place, so that after Ctrl-C the prompt returns when the demo has cleaned up, not before.
    Err(demo.exec()).with_context(|| format!("cannot start {}", binaries.join("demo").display()))
}

/// Runs one measurement, or all.
pub(crate) fn bench(root: &Path, name: Option<&str>, json: Option<&Path>) -> Result<()> {
    if let Some(name) = name
        && !BENCHES.contains(&name)
    {
        bail!("no measurement is called {name:?}; there are: {}", BENCHES.join(", "));
    }
    let binaries = build(root, "release")?;
    let etcd = etcd::provide(root)?.binary;
    for bench in BENCHES.iter().filter(|bench| name.is_none_or(|name| name == **bench)) {
        let mut program = command(root, binaries.join(format!("bench-{bench}")));
        program.env("TOMBOLO_BIN_DIR", &binaries).env("TOMBOLO_ETCD", &etcd);
        if let Some(json) = json {
            program.arg("--json").arg(std::path::absolute(json)?);
        }
        run(&mut program)?;
    }
    Ok(())
}

/// Builds all programs of the mesh and of the end-to-end crate; gives their folder.
pub(crate) fn build(root: &Path, profile: &str) -> Result<PathBuf> {
    setup::build_tools(root)?;
    println!("building the programs, profile {profile} (a fresh clone takes some minutes)");
    let packages = ["tombolo-apiserver", "tombolo-agent", "tombolo-cli", "tombolo-e2e"];
    let mut build = cargo(root);
    build.args(["build", "--bins", "--profile", profile]);
    for package in packages {
        build.args(["--package", package]);
    }
    run(&mut build)?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let folder = if profile == "dev" { "debug" } else { profile };
    Ok(root.join(target).join(folder))
}
