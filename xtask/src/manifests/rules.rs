//! Prometheus' own tool tries the chart's alerts: whether they are written well, and when they fire.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::shell::{command, on_path, read, tools};

/// Where the rules and their tests are.
const FILES: &str = "manifests/charts/tombolo/files";

/// Checks and tests the rules; SKIPPED, or a failure where skips are forbidden, without promtool.
pub(super) fn check(root: &Path) -> Result<()> {
    let promtool = match promtool(root) {
        Ok(promtool) => promtool,
        Err(error) => {
            let forbidden = std::env::var_os("TOMBOLO_FORBID_SKIPS").is_some_and(|v| v == "1");
            ensure!(!forbidden, "skips are forbidden: the alerts: {error:#}");
            eprintln!("SKIPPED: the alerts: {error:#}");
            return Ok(());
        }
    };
    for what in [["check", "rules", "rules.yaml"], ["test", "rules", "rules.test.yaml"]] {
        read(command(root, &promtool).current_dir(root.join(FILES)).args(what))?;
    }
    println!("alerts: each fires when it should");
    Ok(())
}

/// promtool on PATH, or out of Debian's package, which is unpacked and not installed: that would start a Prometheus.
fn promtool(root: &Path) -> Result<PathBuf> {
    if let Some(found) = on_path("promtool") {
        return Ok(found);
    }
    let folder = tools(root).join("prometheus");
    let binary = folder.join("usr/bin/promtool");
    if !binary.is_file() {
        on_path("apt-get").context("there is no promtool, and no apt-get to fetch Debian's prometheus package")?;
        fs::create_dir_all(&folder)?;
        let mut fetch = command(root, "apt-get");
        read(fetch.current_dir(&folder).args(["-o", "APT::Sandbox::User=root", "download", "-qq", "prometheus"]))?;
        let deb = fs::read_dir(&folder)?.filter_map(Result::ok).map(|entry| entry.path());
        let deb = deb.into_iter().find(|path| path.extension().is_some_and(|end| end == "deb"));
        let deb = deb.context("apt-get downloaded nothing")?;
        read(command(root, "dpkg").arg("-x").arg(&deb).arg(&folder))?;
        fs::remove_file(deb)?;
    }
    Ok(binary)
}
