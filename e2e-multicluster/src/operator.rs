//! What an operator types: the `tombolo` command line.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::programs;

/// What a command printed, and whether it said that all is well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
    /// Exit status 0.
    pub well: bool,
}

/// Runs `tombolo` with these arguments and gives what it printed, whether it failed or not.
///
/// # Errors
/// It cannot be started.
pub fn try_tombolo<A: AsRef<OsStr>>(args: &[A]) -> Result<Said> {
    let output = Command::new(programs::program("tombolo")?).args(args).output().context("run tombolo")?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Said { out: text(&output.stdout), err: text(&output.stderr), well: output.status.success() })
}

/// Runs `tombolo` with these arguments and gives what it printed.
///
/// # Errors
/// It exits with another status than 0; the message has the command and all it printed.
pub fn tombolo<A: AsRef<OsStr>>(args: &[A]) -> Result<String> {
    let said = try_tombolo(args)?;
    if !said.well {
        let args: Vec<_> = args.iter().map(|a| a.as_ref().to_string_lossy()).collect();
        bail!("`tombolo {}` failed:\n{}{}", args.join(" "), said.out, said.err);
    }
    Ok(said.out)
}

/// The one certificate authority of a mesh, in a directory outside every cluster's.
#[derive(Clone, Debug)]
pub struct Authority {
    dir: PathBuf,
}

impl Authority {
    /// Makes one.
    ///
    /// # Errors
    /// `tombolo certs init` fails.
    pub fn create(dir: &Path) -> Result<Self> {
        tombolo(&[OsStr::new("certs"), "init".as_ref(), "--dir".as_ref(), dir.as_os_str()])?;
        Ok(Self { dir: dir.to_owned() })
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Issues leaves in a cluster's name into a directory.
    ///
    /// # Errors
    /// `tombolo certs issue` fails.
    pub fn issue(&self, cluster: &str, tls: &Path) -> Result<()> {
        let issue = ["certs", "issue", "--cluster-name", cluster, "--ca"].map(OsStr::new);
        let mut args = issue.to_vec();
        args.extend([self.dir.as_os_str(), "--dir".as_ref(), tls.as_os_str()]);
        tombolo(&args).map(drop)
    }
}

/// Connects a cluster with others, both ways.
///
/// # Errors
/// `tombolo connect` fails.
pub fn connect(cluster: &Path, destinations: &[&Path]) -> Result<()> {
    let mut args = vec![OsStr::new("connect"), "--cluster".as_ref(), cluster.as_os_str()];
    for destination in destinations {
        args.extend([OsStr::new("--destination"), destination.as_os_str()]);
    }
    tombolo(&args).map(drop)
}
