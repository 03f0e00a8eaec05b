//! `demo`: builds what it runs, then hands over.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::shell::{cargo, command, run};
use crate::{etcd, setup};

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
    Ok(binaries(root, profile))
}

/// Where cargo puts the programs of a profile.
pub(crate) fn binaries(root: &Path, profile: &str) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let folder = if profile == "dev" { "debug" } else { profile };
    root.join(target).join(folder)
}
