//! What a build, the tests and the demo need, put in place.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::shell::{command, is_root, on_path, run, tools};
use crate::{etcd, kubekit, shell};

/// Programs that tests and demo call, and the Debian package of each.
const PROGRAMS: [(&str, &str); 5] =
    [("ip", "iproute2"), ("nsenter", "util-linux"), ("curl", "curl"), ("openssl", "openssl"), ("nft", "nftables")];

/// What every build needs: protoc for etcd-client's build script, out of a crate, with its include folder.
pub(crate) fn build_tools(root: &Path) -> Result<()> {
    let dir = tools(root).join("protoc");
    let binary = dir.join("bin/protoc");
    if binary.is_file() && dir.join("include/google/protobuf/descriptor.proto").is_file() {
        return Ok(());
    }
    fs::create_dir_all(dir.join("bin"))?;
    let vendored = protoc_bin_vendored::protoc_bin_path().context("no protoc for this platform in the crate")?;
    fs::copy(&vendored, &binary).with_context(|| format!("cannot copy protoc to {}", binary.display()))?;
    copy_tree(&protoc_bin_vendored::include_path()?, &dir.join("include"))
}

/// What the tests and the demo need as well. Says what it could not provide.
pub(crate) fn everything(root: &Path) -> Result<String> {
    let mut report = String::new();
    build_tools(root)?;
    writeln!(report, "protoc   target/tools/protoc")?;
    let etcd = etcd::provide(root)?;
    writeln!(report, "etcd     {} ({})", etcd.binary.display(), etcd.version)?;
    match kubekit::provide(root)? {
        Some(binary) => writeln!(report, "kubekit  {}", binary.display())?,
        None => writeln!(report, "kubekit  none: no tests with a Kubernetes API server")?,
    }
    let missing: Vec<_> = PROGRAMS.iter().filter(|(program, _)| on_path(program).is_none()).collect();
    if !missing.is_empty() {
        let packages: Vec<_> = missing.iter().map(|(_, package)| *package).collect();
        apt_install(root, &packages)?;
    }
    writeln!(report, "programs {}", PROGRAMS.map(|(program, _)| program).join(", "))?;
    Ok(report)
}

/// Installs Debian packages, when we may.
pub(crate) fn apt_install(root: &Path, packages: &[&str]) -> Result<()> {
    let hint = format!("install them yourself: apt-get install {}", packages.join(" "));
    if !is_root() || on_path("apt-get").is_none() {
        anyhow::bail!("these packages are missing, and only root on Debian can add them here: {hint}");
    }
    let apt = |args: &[&str]| {
        let mut apt = command(root, "apt-get");
        apt.env("DEBIAN_FRONTEND", "noninteractive").args(args);
        apt
    };
    shell::read(&mut apt(&["update", "-qq"])).context("apt-get update")?;
    let mut install = apt(&["install", "-y", "-qq", "--no-install-recommends"]);
    run(install.args(packages).stdout(std::process::Stdio::null())).context(hint)
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
