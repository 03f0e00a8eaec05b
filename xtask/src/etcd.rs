//! Finds or builds the etcd that tests and demo run.
//!
//! An older etcd lets any peer compact a store that requires certificates: 3.5.30 and 3.6.16 were seen to deny it,
//! 3.6.5 and everything tried before to allow it. So one that is older than those is used only as the last resort and
//! with a warning. Ours is built from etcd's own Go module by `e2e-multicluster/etcd`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::go::{Module, Provided};
use crate::setup::apt_install;
use crate::shell::{on_path, read};

/// Ours.
pub(crate) const MODULE: Module =
    Module { name: "etcd", folder: "e2e-multicluster/etcd", package: ".", tags: "", set: &[], takes: "about a minute" };

/// An etcd and its version.
pub(crate) struct Etcd {
    pub(crate) binary: PathBuf,
    pub(crate) version: Version,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(u32, u32, u32);

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

impl Version {
    /// Reads the first line of `etcd --version`.
    fn parse(output: &str) -> Option<Self> {
        let text = output.lines().next()?.strip_prefix("etcd Version: ")?.trim();
        let mut numbers = text.split(['.', '-', '+']).map(str::parse);
        Some(Self(numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?))
    }

    /// Whether an ordinary user is kept from compacting.
    fn is_safe(self) -> bool {
        self >= Self(3, 6, 16) || (self >= Self(3, 5, 30) && self < Self(3, 6, 0))
    }
}

/// The etcd to use: on PATH when it is new enough, else built, else Debian's with a warning.
pub(crate) fn provide(root: &Path) -> Result<Etcd> {
    if let Some(found) = on_path("etcd").and_then(|binary| identify(&binary))
        && found.version.is_safe()
    {
        return Ok(found);
    }
    match build(root) {
        Ok(built) => Ok(built),
        Err(error) => debian(root, &error),
    }
}

fn identify(binary: &Path) -> Option<Etcd> {
    let output = read(Command::new(binary).arg("--version")).ok()?;
    Some(Etcd { binary: binary.to_owned(), version: Version::parse(&output)? })
}

fn build(root: &Path) -> Result<Etcd> {
    match MODULE.provide(root)? {
        Provided::Built(binary) => identify(&binary).context("the etcd just built does not say its version"),
        Provided::NoGo(why) => bail!("etcd cannot be built: {why}"),
    }
}

fn debian(root: &Path, why: &anyhow::Error) -> Result<Etcd> {
    eprintln!("WARNING: no etcd ≥ 3.5.30 or ≥ 3.6.16 on PATH, and none could be built: {why:#}");
    eprintln!("WARNING: falling back to Debian's etcd-server, which lets any peer compact the store. Tests only.");
    if on_path("etcd").is_none() {
        apt_install(root, &["etcd-server"])?;
    }
    on_path("etcd").and_then(|binary| identify(&binary)).context("Debian's etcd-server is not usable")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_judged() {
        let version = |line: &str| Version::parse(line).map(|v| (v.to_string(), v.is_safe()));
        assert_eq!(version("etcd Version: 3.4.23\nGit SHA: x"), Some(("3.4.23".to_owned(), false)));
        assert_eq!(version("etcd Version: 3.5.30"), Some(("3.5.30".to_owned(), true)));
        assert_eq!(version("etcd Version: 3.6.5"), Some(("3.6.5".to_owned(), false)));
        assert_eq!(version("etcd Version: 3.6.16-rc.1"), Some(("3.6.16".to_owned(), true)));
        assert_eq!(version("not etcd"), None);
    }
}
