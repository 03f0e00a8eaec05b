//! What an operator types: the `tombolo` command line, run where a cluster's control plane is.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde::de::DeserializeOwned;

use crate::process::Spec;
use crate::programs;
use crate::topology::Place;

/// An operator's terminal in one place.
#[derive(Clone, Debug)]
pub struct Terminal {
    place: Place,
}

impl Terminal {
    /// A terminal in that place.
    pub fn at(place: &Place) -> Self {
        Self { place: place.clone() }
    }

    /// Runs `tombolo` with these arguments and gives what it printed.
    ///
    /// # Errors
    /// It exits with another status than 0; the message has the command and all it printed.
    pub fn tombolo<A: AsRef<OsStr>>(&self, args: &[A]) -> Result<String> {
        let mut spec = Spec::new("tombolo", programs::program("tombolo")?, &self.place);
        for arg in args {
            spec = spec.arg(arg);
        }
        let output = spec.output()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if !output.status.success() {
            let said = [text(&output.stdout), text(&output.stderr)].concat();
            let args: Vec<_> = args.iter().map(|a| a.as_ref().to_string_lossy()).collect();
            bail!("`tombolo {}` failed ({}):\n{}", args.join(" "), output.status, said.trim());
        }
        Ok(text(&output.stdout))
    }

    /// Runs `tombolo … -o json` and reads what it printed.
    ///
    /// # Errors
    /// As [`Terminal::tombolo`], or the output is no such JSON.
    pub fn json<T: DeserializeOwned, A: AsRef<OsStr>>(&self, args: &[A]) -> Result<T> {
        let mut all: Vec<&OsStr> = args.iter().map(AsRef::as_ref).collect();
        all.extend(["-o".as_ref(), "json".as_ref()] as [&OsStr; 2]);
        let text = self.tombolo(&all)?;
        serde_json::from_str(&text).with_context(|| format!("the JSON of {all:?} is not what was expected:\n{text}"))
    }
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
    pub fn create(terminal: &Terminal, dir: &Path) -> Result<Self> {
        terminal.tombolo(&["certs".as_ref(), "init".as_ref(), "--ca".as_ref(), dir.as_os_str()])?;
        Ok(Self { dir: dir.to_owned() })
    }

    /// Issues all leaves of a cluster into its directory.
    ///
    /// # Errors
    /// `tombolo certs issue` fails.
    pub fn issue(&self, terminal: &Terminal, cluster: &Path, ip: &str) -> Result<()> {
        let args: [&OsStr; 8] = [
            "certs".as_ref(),
            "issue".as_ref(),
            "--ca".as_ref(),
            self.dir.as_os_str(),
            "--cluster".as_ref(),
            cluster.as_os_str(),
            "--ip".as_ref(),
            ip.as_ref(),
        ];
        terminal.tombolo(&args).map(drop)
    }
}

/// Connects two clusters, both ways.
///
/// # Errors
/// `tombolo connect` fails.
pub fn connect(terminal: &Terminal, cluster: &Path, destination: &Path) -> Result<()> {
    let args: [&OsStr; 5] = [
        "connect".as_ref(),
        "--cluster".as_ref(),
        cluster.as_os_str(),
        "--destination".as_ref(),
        destination.as_os_str(),
    ];
    terminal.tombolo(&args).map(drop)
}
